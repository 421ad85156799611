/*
 * Deleting many objects where some may not be deleted: a lock, a policy, an immutable file. Those
 * are skipped and counted, and the first is named; a later run tries again. Where nothing at all
 * may be deleted the credentials are those of a host that only writes: then it ends soon.
 *
 * Errors: DENIED after REMOVALS_DENIED_LIMIT refusals and no success; the storage's own.
 * Threads: one.
 */
#ifndef PGCAIRN_REPOSITORY_REMOVALS_H
#define PGCAIRN_REPOSITORY_REMOVALS_H

#include "storage/storage.h"

#include <stdbool.h>
#include <stdint.h>

enum { REMOVALS_DENIED_LIMIT = 16, REMOVALS_BATCH = 128 };
_Static_assert((int)REMOVALS_BATCH <= (int)STORAGE_REMOVE_LIMIT, "a batch is one request");

typedef struct {
    uint64_t removed, denied;
    char name[STORAGE_NAME_LIMIT + 1]; /* the first that was denied, and why */
    char why[512];
} Removals;

/* False for a failure; else *removed_out says whether it is gone. */
bool removals_try(Removals *removals, Storage *storage, const char *name, bool *removed_out,
                  CairnError *err) MUST_CHECK;
/* Several, STORAGE_REMOVE_LIMIT at most; removed_out: one for each. */
bool removals_try_many(Removals *removals, Storage *storage, const char *const *names, size_t count,
                       bool *removed_out, CairnError *err) MUST_CHECK;

#endif
