#include "repository/backup_locks.h"

#include "repository/incarnation.h"
#include "repository/pack.h"
#include "repository/refs.h"

#include <stdio.h>
#include <string.h>

bool
backup_locks_add_repository(ObjectLocks *locks, CairnError *err)
{
    return object_locks_add(locks, DESCRIPTOR_NAME, err) &&
           object_locks_add_below(locks, "keys", false, err);
}

/* -- what is older than a backup and no pack */

typedef struct {
    ObjectLocks *locks;
    const char *prefix;
} Timelines;

/* Below a timeline's prefix, its history is all that does not lie in a log's. */
static StorageListNext
add_history(void *context, const StorageEntry *entry, CairnError *err)
{
    const Timelines *timelines = context;
    char name[STORAGE_NAME_LIMIT];
    const int size = snprintf(name, sizeof name, "%s/%s", timelines->prefix, entry->name);
    if (!entry->is_directory || size < 0 || (size_t)size >= sizeof name)
        return STORAGE_LIST_GO_ON;
    return object_locks_add_below(timelines->locks, name, false, err) ? STORAGE_LIST_GO_ON
                                                                      : STORAGE_LIST_FAILED;
}

static bool
add_system(ObjectLocks *locks, Storage *storage, const Fate *fate, CairnError *err)
{
    char incarnations[STORAGE_NAME_LIMIT], wal[STORAGE_NAME_LIMIT];
    char incarnation[INCARNATION_NAME_SIZE];
    Timelines timelines = {.locks = locks, .prefix = wal};
    incarnation_name(incarnation, fate->system_id, fate->major);
    snprintf(incarnations, sizeof incarnations, "c/%s/i", fate->cluster);
    snprintf(wal, sizeof wal, "c/%s/w/%s", fate->cluster, incarnation);
    return object_locks_add_below(locks, incarnations, false, err) &&
           storage_list(storage, wal, add_history, &timelines, err);
}

/* -- packs */

static bool
read_packs(Repository *repository, const Fate *fate, bool with_own, PackSet *packs, CairnError *err)
{
    SCOPED(Refs) refs = refs_read(repository, fate, err);
    if (refs == NULL || !pack_set_add_refs(packs, refs, err))
        return false;
    pack_set_settle(packs);
    if (!with_own)
        pack_set_remove_creator(packs, &fate->bid);
    return true;
}

/* What must not be missing is looked at alone, so that a missing one is known to be of it. */
static bool
ensure_packs(Repository *repository, const Fate *fate, bool with_own,
             const ObjectLocksOptions *options, ObjectLockCounts *counts, CairnError *err)
{
    SCOPED_PACK_SET packs = {0};
    SCOPED(ObjectLocks)
    locks = object_locks_begin(repository_storage(repository), options, err);
    if (locks == NULL || !read_packs(repository, fate, with_own, &packs, err) ||
        !object_locks_add_packs(locks, fate->cluster, &packs, err) ||
        !object_locks_finish(locks, counts, err))
        return false;
    if (counts->missing == 0)
        return true;
    cairn_error(err, CAIRN_CORRUPT,
                "%llu packs of earlier backups that this one refers to are not there any more, the "
                "first is '%s'",
                (unsigned long long)counts->missing, counts->first_missing);
    return cairn_error_hint(err, "run the backup again: what they held is stored anew; `pgcairn "
                                 "verify` says which other backups need them");
}

static bool
ensure_others(Repository *repository, const Fate *fate, const ObjectLocksOptions *options,
              ObjectLockCounts *counts, CairnError *err)
{
    Storage *storage = repository_storage(repository);
    SCOPED(ObjectLocks) locks = object_locks_begin(storage, options, err);
    return locks != NULL && backup_locks_add_repository(locks, err) &&
           add_system(locks, storage, fate, err) && object_locks_finish(locks, counts, err);
}

bool
backup_locks_ensure(Repository *repository, const Fate *fate, int64_t age_us,
                    ObjectLockCounts *counts_out, CairnError *err)
{
    const StorageLockTerms terms = storage_lock_terms(repository_storage(repository));
    const ObjectLocksOptions options = {.left_us = terms.days * LOCK_DAY_US};
    ObjectLockCounts packs, others;
    CairnError failure = {0};
    if (!ensure_packs(repository, fate, age_us >= terms.refresh_days * LOCK_DAY_US, &options,
                      &packs, err))
        return false;
    if (!ensure_others(repository, fate, &options, &others, &failure)) {
        if (failure.kind == CAIRN_CANCELLED || failure.kind == CAIRN_INTERNAL) {
            *err = failure;
            return false;
        }
        /* Nobody knows which they are; the backup needs no listing to be whole. */
        others = (ObjectLockCounts){.failed = 1, .failure = failure};
    }
    object_locks_join(&packs, &others);
    *counts_out = packs;
    return true;
}

/* -- a quick look */

/* Ranges are sorted by creator, whose ids ascend by sequence: evenly over all packs is evenly from
   the oldest to the newest. */
static bool
add_sample(ObjectLocks *locks, const char *cluster, const PackSet *packs, uint64_t all,
           CairnError *err)
{
    const uint64_t wanted = all < BACKUP_LOCKS_SAMPLE ? all : BACKUP_LOCKS_SAMPLE;
    uint64_t taken = 0, before = 0;
    char name[STORAGE_NAME_LIMIT];
    for (size_t i = 0; i < packs->count; i++) {
        const PackRange *range = &packs->ranges[i];
        for (; taken < wanted && taken * all / wanted < before + range->pack_count; taken++) {
            const uint32_t pack = range->first_pack + (uint32_t)(taken * all / wanted - before);
            (range->is_map ? map_pack_name : pack_name)(name, cluster, &range->creator, pack);
            if (!object_locks_add(locks, name, err))
                return false;
        }
        before += range->pack_count;
    }
    return true;
}

bool
backup_locks_sample(Repository *repository, const Fate *fate, ObjectLockCounts *counts_out,
                    uint64_t *inherited_out, CairnError *err)
{
    char fate_name[STORAGE_NAME_LIMIT], refs_name[STORAGE_NAME_LIMIT];
    SCOPED_PACK_SET packs = {0};
    SCOPED(ObjectLocks)
    locks = object_locks_begin(repository_storage(repository),
                               &(ObjectLocksOptions){.only_ask = true}, err);
    if (locks == NULL || !read_packs(repository, fate, false, &packs, err))
        return false;
    snprintf(fate_name, sizeof fate_name, "c/%s/b/%s/fate", fate->cluster, fate->bid.text);
    snprintf(refs_name, sizeof refs_name, "c/%s/b/%s/refs", fate->cluster, fate->bid.text);
    *inherited_out = pack_set_packs(&packs);
    return object_locks_add(locks, DESCRIPTOR_NAME, err) &&
           object_locks_add(locks, fate_name, err) && object_locks_add(locks, refs_name, err) &&
           add_sample(locks, fate->cluster, &packs, *inherited_out, err) &&
           object_locks_finish(locks, counts_out, err);
}
