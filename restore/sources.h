/*
 * What a backup draws on, looked for before anything is changed.
 *
 * A backup refers to packs of any number of older ones. Whether they are all in the repository is
 * told by their names: where one is missing, the old cluster had better stay.
 */
#ifndef PGCAIRN_RESTORE_SOURCES_H
#define PGCAIRN_RESTORE_SOURCES_H

#include "repository/fate.h"
#include "repository/repository.h"

/*
 * True when every pack and map pack that the backup's refs name is there. CORRUPT names one that is
 * not. Refs that cannot be read are only warned of: restoring does not need them. A listing for
 * each thousand packs; memory of the refs. Threads: one thread.
 */
bool sources_check(Repository *repository, const Fate *backup, CairnError *err) MUST_CHECK;

#endif
