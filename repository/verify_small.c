/*
 * Small objects beside the packs: intent, marks, evidence. What is none of ours is left alone.
 *
 * Each backup's names are listed. Where the storage is far away several listings are under way at a
 * time, each kept whole until its backup's turn; one that is too long for that is asked for again,
 * and gone through as it comes.
 */
#include "repository/verify_intern.h"

#include "common/parallel.h"

#include <stdio.h>
#include <string.h>

enum { NAMES_KEPT = 256, NAME_KEPT = 64 };

typedef struct {
    char name[NAME_KEPT];
    uint64_t size_bytes;
    ObjectKind kind;
} SmallObject;

typedef struct {
    SmallObject objects[NAMES_KEPT];
    size_t count;
    bool too_long;
} SmallList;

static bool
small_kind(const char *name, ObjectKind *kind_out)
{
    static const struct {
        const char *prefix;
        ObjectKind kind;
    } kinds[] = {{"intent", OBJECT_INTENT}, {"fate", OBJECT_FATE},      {"mark.", OBJECT_MARK},
                 {"ev.", OBJECT_EVIDENCE},  {"doomed.", OBJECT_DOOMED}, {"refs", OBJECT_REFS}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strncmp(name, kinds[i].prefix, strlen(kinds[i].prefix)) == 0) {
            *kind_out = kinds[i].kind;
            return true;
        }
    }
    return false;
}

/* Evidence and intents tell of a backup, they are no part of it. */
static bool
rests_on(ObjectKind kind)
{
    return kind == OBJECT_FATE || kind == OBJECT_REFS || kind == OBJECT_MARK;
}

static void
name_prefix(const Verify *verify, uint32_t index, char *prefix)
{
    snprintf(prefix, STORAGE_NAME_LIMIT, "c/%s/b/%s", verify->options->cluster,
             verify->catalog->backups[index].bid.text);
}

static bool
verify_small(Verify *verify, uint32_t index, const char *last, ObjectKind kind, uint64_t size_bytes,
             CairnError *err)
{
    BackupCheck *check = &verify->checks[index];
    char prefix[STORAGE_NAME_LIMIT], name[STORAGE_NAME_LIMIT + 256];
    name_prefix(verify, index, prefix);
    const int size = snprintf(name, sizeof name, "%s/%s", prefix, last);
    if (size < 0 || (size_t)size >= STORAGE_NAME_LIMIT)
        return true;
    const bool needed = check->wanted && rests_on(kind);
    const VerifySubject subject = {
        .object = name, .needed_by = {&index, needed}, .may_vanish = true};
    if (kind == OBJECT_REFS && needed) {
        verify->report->object_count++; /* verify_refs reads it */
        verify->report->byte_count += size_bytes;
        check->refs_bytes = size_bytes;
        return true;
    }
    return verify_object(verify, name, kind, &subject, err);
}

typedef struct {
    Verify *verify;
    uint32_t index;
} SmallWalk;

static StorageListNext
visit_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    const SmallWalk *walk = context;
    ObjectKind kind;
    if (entry->is_directory || !small_kind(entry->name, &kind))
        return STORAGE_LIST_GO_ON;
    return verify_small(walk->verify, walk->index, entry->name, kind, entry->size_bytes, err)
               ? STORAGE_LIST_GO_ON
               : STORAGE_LIST_FAILED;
}

static bool
walk_backup(Verify *verify, uint32_t index, CairnError *err)
{
    SmallWalk walk = {verify, index};
    char prefix[STORAGE_NAME_LIMIT];
    name_prefix(verify, index, prefix);
    return storage_list(repository_storage(verify->repository), prefix, visit_entry, &walk, err);
}

static StorageListNext
keep_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    SmallList *list = context;
    ObjectKind kind;
    (void)err;
    if (entry->is_directory || !small_kind(entry->name, &kind))
        return STORAGE_LIST_GO_ON;
    list->too_long = list->count == NAMES_KEPT || strlen(entry->name) >= NAME_KEPT;
    if (list->too_long)
        return STORAGE_LIST_STOP;
    SmallObject *object = &list->objects[list->count++];
    snprintf(object->name, sizeof object->name, "%s", entry->name);
    object->size_bytes = entry->size_bytes;
    object->kind = kind;
    return STORAGE_LIST_GO_ON;
}

/* Listings of backups first, first + 1 ... */
typedef struct {
    const Verify *verify;
    uint32_t first;
    SmallList *lists;
} SmallBatch;

static bool
is_looked_at(const Verify *verify, uint32_t index)
{
    return verify->options->selector == NULL || verify->checks[index].wanted;
}

static bool
list_backup(void *context, size_t i, CairnError *err)
{
    const SmallBatch *batch = context;
    const uint32_t index = batch->first + (uint32_t)i;
    SmallList *list = &batch->lists[i];
    char prefix[STORAGE_NAME_LIMIT];
    list->count = 0;
    list->too_long = false;
    if (!is_looked_at(batch->verify, index))
        return true;
    name_prefix(batch->verify, index, prefix);
    return storage_list(repository_storage(batch->verify->repository), prefix, keep_entry, list,
                        err);
}

static bool
verify_listed(Verify *verify, uint32_t index, const SmallList *list, CairnError *err)
{
    if (list->too_long)
        return walk_backup(verify, index, err);
    for (size_t i = 0; i < list->count; i++) {
        const SmallObject *object = &list->objects[i];
        if (!verify_small(verify, index, object->name, object->kind, object->size_bytes, err))
            return false;
    }
    return true;
}

static bool
verify_batches(Verify *verify, uint32_t at_once, CairnError *err)
{
    const uint32_t count = (uint32_t)verify->catalog->count;
    SCOPED_MEMORY SmallList *lists = calloc(at_once, sizeof *lists);
    if (lists == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (uint32_t first = 0; first < count; first += at_once) {
        SmallBatch batch = {verify, first, lists};
        const uint32_t size = count - first < at_once ? count - first : at_once;
        if (!parallel_each(size, (int)at_once, list_backup, &batch, err))
            return false;
        for (uint32_t i = 0; i < size; i++) {
            if (!verify_listed(verify, first + i, &lists[i], err))
                return false;
        }
    }
    return true;
}

static bool
verify_one_by_one(Verify *verify, CairnError *err)
{
    for (uint32_t i = 0; i < verify->catalog->count; i++) {
        if (is_looked_at(verify, i) && !walk_backup(verify, i, err))
            return false;
    }
    return true;
}

bool
verify_small_objects(Verify *verify, CairnError *err)
{
    const int at_once = verify_requests_at_once(verify);
    return (at_once > 1 ? verify_batches(verify, (uint32_t)at_once, err)
                        : verify_one_by_one(verify, err)) &&
           verify_settle(verify, err);
}
