/* Packs that are there: finding, counting, deleting them, and what else is left of the dead. */
#include "common/cancel.h"
#include "repository/collect_intern.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { RESERVE_SIZE = 64 << 10, RESERVE_PIECE = 4096 };

/* Numbers of packs in one directory, with their sizes. */
typedef struct {
    uint32_t *numbers;
    uint64_t *sizes;
    size_t count, capacity;
    bool is_map;
} PackNames;

static void
pack_names_free(PackNames *names)
{
    free(names->numbers);
    free(names->sizes);
}
#define SCOPED_PACK_NAMES __attribute__((cleanup(pack_names_free))) PackNames

/* "%08x" as we write it, and in the directory that it belongs to. */
static bool
parse_number(const char *name, uint32_t *number_out)
{
    char canonical[16];
    uint32_t number;
    if (sscanf(name, "%" SCNx32, &number) != 1 || number >= PACK_NUMBER_LIMIT)
        return false;
    snprintf(canonical, sizeof canonical, "%08" PRIx32, number);
    if (strcmp(name, canonical) != 0)
        return false;
    *number_out = number;
    return true;
}

static StorageListNext
list_pack(void *context, const StorageEntry *entry, CairnError *err)
{
    PackNames *names = context;
    uint32_t number;
    if (entry->is_directory || !parse_number(entry->name, &number))
        return STORAGE_LIST_GO_ON;
    if (names->count == names->capacity) {
        const size_t capacity = names->capacity == 0 ? 64 : 2 * names->capacity;
        uint32_t *numbers = reallocarray(names->numbers, capacity, sizeof *numbers);
        if (numbers != NULL)
            names->numbers = numbers;
        uint64_t *sizes = reallocarray(names->sizes, capacity, sizeof *sizes);
        if (sizes != NULL)
            names->sizes = sizes;
        if (numbers == NULL || sizes == NULL) {
            cairn_error(err, CAIRN_INTERNAL, "out of memory");
            return STORAGE_LIST_FAILED;
        }
        names->capacity = capacity;
    }
    names->numbers[names->count] = number;
    names->sizes[names->count++] = entry->size_bytes;
    return STORAGE_LIST_GO_ON;
}

/* Called for each directory that may hold packs of a backup, with what it holds. */
typedef bool VisitPacks(Collect *collect, const BackupId *bid, const char *prefix,
                        const PackNames *names, void *context, CairnError *err);

typedef struct {
    Collect *collect;
    const BackupId *bid;
    const char *prefix;
    VisitPacks *visit;
    void *context; /* of visit */
} Walk;

static bool
visit_directory(const Walk *walk, const char *prefix, bool is_map, CairnError *err)
{
    SCOPED_PACK_NAMES names = {.is_map = is_map};
    return cancel_check(err) &&
           storage_list(repository_storage(walk->collect->repository), prefix, list_pack, &names,
                        err) &&
           walk->visit(walk->collect, walk->bid, prefix, &names, walk->context, err);
}

static StorageListNext
list_group(void *context, const StorageEntry *entry, CairnError *err)
{
    const Walk *walk = context;
    char prefix[STORAGE_NAME_LIMIT + 256];
    if (!entry->is_directory)
        return STORAGE_LIST_GO_ON;
    const int size = snprintf(prefix, sizeof prefix, "%s/%s", walk->prefix, entry->name);
    if (size < 0 || size >= STORAGE_NAME_LIMIT)
        return STORAGE_LIST_GO_ON; /* no name of ours is so long */
    return visit_directory(walk, prefix, false, err) ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
}

/* p/<hhh> and m of one backup. */
static bool
walk_packs(Collect *collect, const BackupId *bid, VisitPacks *visit, void *context, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    Walk walk = {
        .collect = collect, .bid = bid, .prefix = prefix, .visit = visit, .context = context};
    snprintf(prefix, sizeof prefix, "c/%s/b/%s/m", collect->cluster, bid->text);
    if (!visit_directory(&walk, prefix, true, err))
        return false;
    snprintf(prefix, sizeof prefix, "c/%s/b/%s/p", collect->cluster, bid->text);
    return storage_list(repository_storage(collect->repository), prefix, list_group, &walk, err);
}

static int
ascending(const void *a, const void *b)
{
    const uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

/* garbage holds all that is there; what is alive goes out of it at the end. */
static bool
note_packs(Collect *collect, const BackupId *bid, const char *prefix, const PackNames *names,
           void *context, CairnError *err)
{
    (void)prefix;
    (void)context;
    if (names->count > 0)
        qsort(names->numbers, names->count, sizeof *names->numbers, ascending);
    for (size_t i = 0; i < names->count; i++) {
        const PackRange pack = {.creator = *bid,
                                .is_map = names->is_map,
                                .first_pack = names->numbers[i],
                                .pack_count = 1};
        if (!pack_set_add(&collect->garbage, pack, err))
            return false;
    }
    return true;
}

static bool
live_packs(Collect *collect, PackSet *live, CairnError *err)
{
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        if (!collect_is_root(backup))
            continue;
        if (!cancel_check(err) || !collect_add_refs(collect, backup, live, err))
            return false;
        backup->protects = true;
    }
    pack_set_settle(live);
    return true;
}

/* A root's own packs all stay, so only the dead are looked into. */
bool
collect_enumerate(Collect *collect, CairnError *err)
{
    SCOPED_PACK_SET live = {0};
    SCOPED_PACK_SET there = {0};
    size_t first;
    if (!live_packs(collect, &live, err))
        return false;
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        if (!collect_is_root(backup) && !walk_packs(collect, &backup->bid, note_packs, NULL, err))
            return false;
    }
    pack_set_settle(&collect->garbage);
    there = collect->garbage;
    collect->garbage = (PackSet){0};
    for (size_t i = 0; i < collect->count; i++)
        collect->backups[i].has_packs =
            pack_set_of_creator(&there, &collect->backups[i].bid, &first) > 0;
    return pack_set_subtract(&there, &live, &collect->garbage, err);
}

typedef struct {
    const PackSet *set;
    CollectCount count;
} Counting;

static void
count_pack(CollectCount *count, const PackNames *names, size_t i)
{
    *(names->is_map ? &count->map_packs : &count->packs) += 1;
    count->bytes += names->sizes[i];
}

static bool
count_packs(Collect *collect, const BackupId *bid, const char *prefix, const PackNames *names,
            void *context, CairnError *err)
{
    Counting *counting = context;
    (void)collect;
    (void)prefix;
    (void)err;
    for (size_t i = 0; i < names->count; i++) {
        if (pack_set_has(counting->set, bid, names->is_map, names->numbers[i]))
            count_pack(&counting->count, names, i);
    }
    return true;
}

/* Every creator in the set, once. */
static bool
walk_set(Collect *collect, const PackSet *set, VisitPacks *visit, void *context, CairnError *err)
{
    for (size_t i = 0; i < set->count; i++) {
        const BackupId *creator = &set->ranges[i].creator;
        if (i > 0 && backup_id_equal(creator, &set->ranges[i - 1].creator))
            continue;
        if (!walk_packs(collect, creator, visit, context, err))
            return false;
    }
    return true;
}

bool
collect_count(Collect *collect, const PackSet *set, CollectCount *count_out, CairnError *err)
{
    Counting counting = {.set = set};
    if (!walk_set(collect, set, count_packs, &counting, err))
        return false;
    *count_out = counting.count;
    return true;
}

/* Leftovers of a writer that died, or that is fenced and will fail anyway. */
static bool
tidy(Collect *collect, const char *prefix, CairnError *err)
{
    const World *world = repository_world(collect->repository);
    Storage *storage = repository_storage(collect->repository);
    return storage_sweep(storage, prefix, world->clock->wall_us(world->clock), err) &&
           storage_prune(storage, prefix, err);
}

/* Packs of one directory that go together. */
typedef struct {
    char names[REMOVALS_BATCH][STORAGE_NAME_LIMIT + 16];
    size_t index[REMOVALS_BATCH]; /* in the directory's list */
    size_t count;
} SweepBatch;

static bool
sweep_batch(Collect *collect, SweepBatch *batch, const PackNames *names, CollectCount *count,
            CairnError *err)
{
    const char *pointers[REMOVALS_BATCH];
    bool gone[REMOVALS_BATCH];
    for (size_t i = 0; i < batch->count; i++)
        pointers[i] = batch->names[i];
    if (batch->count == 0)
        return true;
    if (!cancel_check(err) ||
        !removals_try_many(&collect->report->removals, repository_storage(collect->repository),
                           pointers, batch->count, gone, err))
        return false;
    for (size_t i = 0; i < batch->count; i++) {
        if (gone[i])
            count_pack(count, names, batch->index[i]);
    }
    batch->count = 0;
    return true;
}

static bool
sweep_packs(Collect *collect, const BackupId *bid, const char *prefix, const PackNames *names,
            void *context, CairnError *err)
{
    SCOPED_MEMORY SweepBatch *batch = calloc(1, sizeof *batch);
    if (batch == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < names->count; i++) {
        if (!pack_set_has(&collect->sweep, bid, names->is_map, names->numbers[i]))
            continue;
        snprintf(batch->names[batch->count], sizeof *batch->names, "%s/%08" PRIx32, prefix,
                 names->numbers[i]);
        batch->index[batch->count++] = i;
        if (batch->count == REMOVALS_BATCH && !sweep_batch(collect, batch, names, context, err))
            return false;
    }
    return sweep_batch(collect, batch, names, context, err) && tidy(collect, prefix, err);
}

bool
collect_sweep(Collect *collect, CairnError *err)
{
    CollectReport *report = collect->report;
    CollectCount count = {0};
    PackSet rest = {0};
    if (!walk_set(collect, &collect->sweep, sweep_packs, &count, err))
        return cairn_error_wrap(err, "unable to delete packs that no backup needs");
    report->packs += count.packs;
    report->map_packs += count.map_packs;
    report->bytes += count.bytes;
    if (!pack_set_subtract(&collect->garbage, &collect->sweep, &rest, err)) {
        pack_set_free(&rest);
        return false;
    }
    pack_set_free(&collect->garbage);
    collect->garbage = rest;
    return true;
}

static bool
remove_small(Collect *collect, const BackupId *bid, const char *last, bool *gone_out,
             CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/%s/b/%s/%s", collect->cluster, bid->text, last);
    return removals_try(&collect->report->removals, repository_storage(collect->repository), name,
                        gone_out, err);
}

static bool
any_pack(Collect *collect, const BackupId *bid, const char *prefix, const PackNames *names,
         void *context, CairnError *err)
{
    (void)collect;
    (void)bid;
    (void)prefix;
    (void)err;
    *(bool *)context |= names->count > 0;
    return true;
}

/* What is left of temporary files and of directories that nothing is in any more. */
static bool
tidy_backup(Collect *collect, const BackupId *bid, CairnError *err)
{
    static const char *const PARTS[] = {"/p", "/m", ""};
    char prefix[STORAGE_NAME_LIMIT];
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++) {
        snprintf(prefix, sizeof prefix, "c/%s/b/%s%s", collect->cluster, bid->text, PARTS[i]);
        if (!tidy(collect, prefix, err))
            return false;
    }
    return true;
}

/*
 * Order: the summary goes first, and durably. An expired backup without one can never be un-expired
 * or claimed, so that doomed objects, of this or any other run, are not needed any more. A revoked
 * attempt may have packs that backups took over: then it can be claimed again, and only our own
 * doomed object goes.
 */
bool
collect_bury(Collect *collect, CollectBackup *backup, CairnError *err)
{
    const BackupId *bid = &backup->bid;
    bool packs_left = false;
    if (backup->fate == FATE_REVOKED && !walk_packs(collect, bid, any_pack, &packs_left, err))
        return false;
    backup->has_packs = packs_left;
    if (packs_left)
        return doomed_remove(collect->repository, collect->cluster, bid, collect->run, err);
    bool gone;
    if (!remove_small(collect, bid, "refs", &gone, err))
        return false;
    if (!gone)
        return true; /* stays as doomed as it is, and a later run comes back */
    if (!remove_small(collect, bid, "intent", &gone, err))
        return false;
    if (!gone)
        return true;
    if (!doomed_remove_all(collect->repository, collect->cluster, bid, err))
        return false;
    backup->has_refs = backup->has_intent = backup->has_doomed = false;
    return tidy_backup(collect, bid, err);
}

/*
 * The reserve: a file of random bytes (file systems that compress would make nothing of zeros) that
 * is there while there is space, so that a full disk leaves room for condemn list and doomed
 * objects: deleting needs a little writing first.
 */
static void
reserve_name(const Collect *collect, char *name)
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/gc/reserve", collect->cluster);
}

bool
collect_reserve_keep(Collect *collect, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    uint8_t piece[RESERVE_PIECE];
    uint64_t size;
    const Random *random = repository_world(collect->repository)->random;
    Storage *storage = repository_storage(collect->repository);
    reserve_name(collect, name);
    if (storage_exists(storage, name, &size, err))
        return true;
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    SCOPED(StorageWriter) writer = storage_create(storage, name, err);
    if (writer == NULL)
        return false;
    for (int written = 0; written < RESERVE_SIZE; written += RESERVE_PIECE) {
        if (random->fill(random, piece, sizeof piece) != 0)
            return cairn_error_errno(err, "unable to draw random bytes");
        if (!storage_write(writer, piece, sizeof piece, err))
            return false;
    }
    return storage_commit(writer, err);
}

bool
collect_reserve_spend(Collect *collect, bool *freed_out, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    uint64_t size;
    Storage *storage = repository_storage(collect->repository);
    reserve_name(collect, name);
    *freed_out = storage_exists(storage, name, &size, err);
    if (!*freed_out) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return true;
    }
    return storage_remove(storage, name, err);
}
