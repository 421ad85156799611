/*
 * Locks of many objects: sees to it that each lasts long enough, several at a time, and counts what
 * came of it. For storages that lock (storage_lock_terms); what a backup needs is other files'
 * affair (backup_locks.h, renew.h).
 *
 * Names are added in any order, each once. What cannot be locked, or proven to be, is counted, and
 * the first such is kept; where nothing at all is allowed, or the store is out of reach, the asking
 * ends and the rest is counted as unasked. What was added by listing and is gone when it is asked
 * for is not counted. Errors: CANCELLED, INTERNAL. Memory: names in a bounded
 * queue. Threads: one caller; `jobs` inside.
 *
 *     begin, add..., finish, free
 */
#ifndef PGCAIRN_REPOSITORY_OBJECT_LOCKS_H
#define PGCAIRN_REPOSITORY_OBJECT_LOCKS_H

#include "common/scoped.h"
#include "repository/pack_set.h"
#include "storage/storage.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    OBJECT_LOCKS_JOBS_DEFAULT = 16,
    OBJECT_LOCKS_JOBS_LIMIT = 64,
    OBJECT_LOCKS_DENIED_LIMIT = 16
};

#define LOCK_DAY_US (INT64_C(24) * 3600 * 1000000)

typedef struct {
    int64_t left_us; /* that each must stay locked from now on */
    bool only_ask;   /* extend none: `renewed` counts what would be */
    int jobs;        /* 0: OBJECT_LOCKS_JOBS_DEFAULT */
} ObjectLocksOptions;

typedef struct {
    uint64_t asked;      /* all whose lock is known now */
    uint64_t renewed;    /* of them */
    uint64_t failed;     /* that could not be asked for, or extended */
    uint64_t unasked;    /* after those */
    uint64_t missing;    /* that are not there */
    int64_t earliest_us; /* of those known, the lock that ends first (0: none); and whose it is */
    char earliest[STORAGE_NAME_LIMIT];
    CairnError failure; /* the first of `failed` */
    char first_missing[STORAGE_NAME_LIMIT];
} ObjectLockCounts;

typedef struct ObjectLocks ObjectLocks;

ObjectLocks *object_locks_begin(Storage *storage, const ObjectLocksOptions *options,
                                CairnError *err) MUST_CHECK;
bool object_locks_add(ObjectLocks *locks, const char *name, CairnError *err) MUST_CHECK;
/* Every pack of the set. */
bool object_locks_add_packs(ObjectLocks *locks, const char *cluster, const PackSet *packs,
                            CairnError *err) MUST_CHECK;
/* What is listed directly below a prefix; deep: and below that, as deep as names of ours go. */
bool object_locks_add_below(ObjectLocks *locks, const char *prefix, bool deep,
                            CairnError *err) MUST_CHECK;
/* Waits for all of it. False: what was added is not all looked at. */
bool object_locks_finish(ObjectLocks *locks, ObjectLockCounts *counts_out,
                         CairnError *err) MUST_CHECK;
void object_locks_free(ObjectLocks *locks);
SCOPED_TYPE(ObjectLocks, object_locks_free);

/* Adds the counts of another run. */
void object_locks_join(ObjectLockCounts *counts, const ObjectLockCounts *more);
/* Objects that were added; and those of them that are not known to be locked long enough. */
uint64_t object_locks_all(const ObjectLockCounts *counts);
uint64_t object_locks_unproven(const ObjectLockCounts *counts);

#endif
