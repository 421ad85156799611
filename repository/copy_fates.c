/*
 * Backups come to exist in the copy here: what stands beside them first, from a fresh listing, then
 * the fate of each that is whole there.
 */
#include "repository/copy_intern.h"
#include "repository/fate.h"
#include "repository/mark.h"
#include "repository/pack.h"
#include "repository/refs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- what stands beside them */

typedef struct {
    Copy *copy;
    char prefix[STORAGE_NAME_LIMIT];
} Beside;

static StorageListNext
add_beside(void *context, const StorageEntry *entry, CairnError *err)
{
    /* intent, refs, marks, evidence, doomed objects: whatever is no directory and not the fate. */
    const Beside *beside = context;
    char name[STORAGE_NAME_LIMIT];
    const int size = snprintf(name, sizeof name, "%s/%s", beside->prefix, entry->name);

    if (entry->is_directory || size < 0 || (size_t)size >= sizeof name ||
        strcmp(entry->name, "fate") == 0)
        return STORAGE_LIST_GO_ON;
    if (copy_add(beside->copy, name))
        return STORAGE_LIST_GO_ON;
    pthread_mutex_lock(&beside->copy->mutex);
    *err = beside->copy->failure;
    pthread_mutex_unlock(&beside->copy->mutex);
    return STORAGE_LIST_FAILED;
}

static bool
copy_beside(Copy *copy, const char *cluster, const BackupId *ids, size_t count, CairnError *err)
{
    if (!copy_begin(copy, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        Beside beside = {.copy = copy};
        snprintf(beside.prefix, sizeof beside.prefix, "c/%s/b/%s", cluster, ids[i].text);
        if (!storage_list(copy->from, beside.prefix, add_beside, &beside, err))
            break;
    }
    return copy_end(copy, err);
}

/* -- the packs that are there, and whole as far as this run has seen */

typedef struct {
    const Copy *copy;
    PackSet *set;
    const BackupId *creator;
    const char *prefix;
    bool is_map;
} PackList;

static StorageListNext
add_pack(void *context, const StorageEntry *entry, CairnError *err)
{
    const PackList *list = context;
    char name[STORAGE_NAME_LIMIT];
    char *end;

    snprintf(name, sizeof name, "%.400s/%.64s", list->prefix, entry->name);
    if (entry->is_directory) {
        PackList below = *list;
        below.prefix = name;
        return storage_list(list->copy->to, name, add_pack, &below, err) ? STORAGE_LIST_GO_ON
                                                                         : STORAGE_LIST_FAILED;
    }
    const unsigned long number = strtoul(entry->name, &end, 16);
    if (strlen(entry->name) != 8 || *end != '\0' || number >= PACK_NUMBER_LIMIT ||
        copy_is_unusable(list->copy, name))
        return STORAGE_LIST_GO_ON;
    const PackRange range = {.creator = *list->creator,
                             .is_map = list->is_map,
                             .first_pack = (uint32_t)number,
                             .pack_count = 1};
    return pack_set_add(list->set, range, err) ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
}

/* Of one creator: a set of all would name packs of backups that nobody asks for. */
static bool
list_packs(const Copy *copy, const char *cluster, const BackupId *creator, PackSet *set,
           CairnError *err)
{
    static const char *const PARTS[] = {"p", "m"};

    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++) {
        char prefix[STORAGE_NAME_LIMIT];
        snprintf(prefix, sizeof prefix, "c/%s/b/%s/%s", cluster, creator->text, PARTS[i]);
        PackList list = {.copy = copy,
                         .set = set,
                         .creator = creator,
                         .prefix = prefix,
                         .is_map = PARTS[i][0] == 'm'};
        if (!storage_list(copy->to, prefix, add_pack, &list, err))
            return false;
    }
    pack_set_settle(set);
    return true;
}

/* What is in the copy, by creator, as it was asked for: the same few creators come again and
   again. */
typedef struct {
    PackSet present;
    BackupId *listed;
    size_t count;
} Present;

static void
present_free(Present *present)
{
    pack_set_free(&present->present);
    free(present->listed);
}
#define SCOPED_PRESENT __attribute__((cleanup(present_free))) Present

static bool
look_at_creator(Copy *copy, const char *cluster, const BackupId *creator, Present *present,
                CairnError *err)
{
    for (size_t i = 0; i < present->count; i++) {
        if (backup_id_equal(&present->listed[i], creator))
            return true;
    }
    BackupId *listed = reallocarray(present->listed, present->count + 1, sizeof *listed);
    if (listed == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    present->listed = listed;
    present->listed[present->count++] = *creator;
    return list_packs(copy, cluster, creator, &present->present, err);
}

/* -- may it exist? */

/* lacking: the first object that is not there, or not whole; "" when all are. */
static bool
find_lacking(Copy *copy, const char *cluster, const Fate *fate, Present *present,
             char lacking[STORAGE_NAME_LIMIT], CairnError *err)
{
    SCOPED_PACK_SET needed = {0};
    SCOPED_PACK_SET missing = {0};
    SCOPED(Refs) refs = refs_read(copy->repository, fate, err);

    lacking[0] = '\0';
    if (refs == NULL)
        return false;
    for (size_t i = 0; i < refs->creator_count; i++) {
        if (!look_at_creator(copy, cluster, &refs->creators[i].creator, present, err))
            return false;
    }
    if (!pack_set_add_refs(&needed, refs, err))
        return false;
    pack_set_settle(&needed);
    if (!pack_set_subtract(&needed, &present->present, &missing, err))
        return false;
    pack_set_settle(&missing);
    char own_refs[STORAGE_NAME_LIMIT];
    snprintf(own_refs, sizeof own_refs, "c/%s/b/%s/refs", cluster, fate->bid.text);
    if (copy_is_unusable(copy, own_refs))
        memcpy(lacking, own_refs, sizeof own_refs);
    if (missing.count > 0) {
        const PackRange *range = &missing.ranges[0];
        (range->is_map ? map_pack_name : pack_name)(lacking, cluster, &range->creator,
                                                    range->first_pack);
    }
    return true;
}

/* About this backup's objects at the source, not about the storage. */
static bool
is_about_the_backup(CairnErrorKind kind)
{
    return kind == CAIRN_NOT_FOUND || kind == CAIRN_CORRUPT || kind == CAIRN_MISMATCH ||
           kind == CAIRN_UNSUPPORTED;
}

/*
 * why: "" when its fate may be copied. Without the source's keys nobody can tell what a backup
 * needs; then nothing may be missing from this run at all.
 */
static bool
judge(Copy *copy, const char *cluster, const BackupId *bid, Present *present,
      char why[CAIRN_ERROR_MESSAGE_SIZE], CairnError *err)
{
    char lacking[STORAGE_NAME_LIMIT];
    MarkState marks;

    why[0] = '\0';
    if (copy->repository == NULL) {
        if (copy->report->damaged + copy->report->conflicts > 0)
            snprintf(why, CAIRN_ERROR_MESSAGE_SIZE,
                     "objects could not be copied, and without the keys nobody can tell whether it "
                     "needs them");
        return true;
    }
    SCOPED(Fate) fate = fate_read(copy->repository, cluster, bid, NULL, err);
    if (fate != NULL && !fate->committed)
        return true; /* a revocation needs nothing */
    bool read = fate != NULL && mark_read(copy->repository, cluster, bid, &marks, err);
    if (read && marks.expired)
        return true; /* nobody restores it, and its packs may be going */
    read = read && find_lacking(copy, cluster, fate, present, lacking, err);
    if (!read) {
        if (!is_about_the_backup(err->kind))
            return false;
        snprintf(why, CAIRN_ERROR_MESSAGE_SIZE, "%s", err->message);
        cairn_error_clear(err);
        return true;
    }
    if (lacking[0] != '\0')
        snprintf(why, CAIRN_ERROR_MESSAGE_SIZE, "'%s', which it needs, is not in the copy%s",
                 lacking, copy->unusable_count > 0 ? ", or not whole" : "");
    else if (copy->unusable_more)
        snprintf(why, CAIRN_ERROR_MESSAGE_SIZE,
                 "more is damaged in the copy than is kept in mind, and it may need some of that");
    return true;
}

static bool
copy_fate(Copy *copy, const char *cluster, const BackupId *bid, Present *present, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT], why[CAIRN_ERROR_MESSAGE_SIZE];
    CopyReport *report = copy->report;
    bool there = false;
    uint64_t size;

    snprintf(name, sizeof name, "c/%s/b/%s/fate", cluster, bid->text);
    const bool was_there = storage_exists(copy->to, name, &size, err);
    if (!was_there && err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    why[0] = '\0';
    if (!was_there && !judge(copy, cluster, bid, present, why, err))
        return false;
    if (why[0] == '\0' && !copy_one(copy, name, &there, err))
        return false;
    if (why[0] != '\0')
        copy_note(copy, name, why);
    report->backups_present += there && was_there ? 1 : 0;
    report->backups_copied += there && !was_there ? 1 : 0;
    report->backups_withheld += there ? 0 : 1;
    return true;
}

bool
copy_backups(Copy *copy, const char *cluster, const BackupId *ids, size_t count, CairnError *err)
{
    SCOPED_PRESENT present = {0};

    if (!copy_beside(copy, cluster, ids, count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!copy_fate(copy, cluster, &ids[i], &present, err))
            return false;
    }
    return true;
}
