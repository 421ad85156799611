/*
 * Is a history file the one that the stored WAL of its timeline began with? Two servers may have
 * promoted to the same timeline, and a wrong history, once stored, is there for ever. Private to
 * repair.
 *
 * No stored segment of the timeline may lie before the segment of the switch, and the pages of the
 * first stored one must be an older timeline's of this path before the switch, and its own after
 * it. Where that segment is whole and has the switch, its first record of the timeline must stand
 * there. Threads: one.
 */
#ifndef PGCAIRN_WALARCHIVE_REPAIR_HISTORY_H
#define PGCAIRN_WALARCHIVE_REPAIR_HISTORY_H

#include "repository/wal_archive.h"

/* fd: the candidate, from offset 0 to its end. MISMATCH and CORRUPT say what does not fit, or that
   there is nothing to compare it with; other errors are the repository's own. */
bool repair_history_check(const World *world, WalStore *store, const WalTimeline *timeline, int fd,
                          CairnError *err) MUST_CHECK;

#endif
