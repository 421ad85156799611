/*
 * Which backup an incremental one compares with: the newest that stands, of the same system.
 */
#ifndef PGCAIRN_REPOSITORY_PARENT_CHOICE_H
#define PGCAIRN_REPOSITORY_PARENT_CHOICE_H

#include "repository/fate.h"

enum { PARENT_REASON_SIZE = 256 };

/*
 * full_only: the newest full backup (a differential), else the newest of any type. *fate_out is
 * returned owned, NULL when there is none, and then reason says why. What the parent holds is not
 * looked at: content is compared page by page, and packs are trusted one by one.
 */
bool parent_choose(Repository *repository, const char *cluster, uint64_t system_id, int major,
                   bool full_only, Fate **fate_out, char reason[PARENT_REASON_SIZE],
                   CairnError *err) MUST_CHECK;

#endif
