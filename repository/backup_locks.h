/*
 * Where the storage locks: that a backup rests on nothing whose lock ends before its own protection
 * does.
 *
 * What it inherits (packs and map packs of earlier backups) is older than it, and so are the
 * descriptor, the key slots and the histories without which nobody restores it: their locks end
 * earlier, unless they are extended. All of them are asked for, O(packs) requests: a fate does not
 * say with which terms the packs of its backup were created, and a governance lock may have been
 * taken off since, so no age proves anything.
 *
 * Errors: the storage's own for refs; CORRUPT when a pack is not there. That something cannot be
 * locked, or not be listed, is no error but a count (object_locks_unproven). Threads: one caller.
 */
#ifndef PGCAIRN_REPOSITORY_BACKUP_LOCKS_H
#define PGCAIRN_REPOSITORY_BACKUP_LOCKS_H

#include "repository/fate.h"
#include "repository/object_locks.h"
#include "repository/repository.h"

/* Descriptor and key slots. */
bool backup_locks_add_repository(ObjectLocks *locks, CairnError *err) MUST_CHECK;

/* Data of the fate are durable, refs too. age_us: how long its own oldest objects may be there;
   when they may be older than a lock's refresh period, they are asked for as well. */
bool backup_locks_ensure(Repository *repository, const Fate *fate, int64_t age_us,
                         ObjectLockCounts *counts_out, CairnError *err) MUST_CHECK;

/* For a quick look at a committed one: asks for its fate and refs, the descriptor, and at most
   BACKUP_LOCKS_SAMPLE inherited packs, evenly from the oldest creator's to the newest one's.
   *inherited_out: how many there are. */
enum { BACKUP_LOCKS_SAMPLE = 32 };
bool backup_locks_sample(Repository *repository, const Fate *fate, ObjectLockCounts *counts_out,
                         uint64_t *inherited_out, CairnError *err) MUST_CHECK;

#endif
