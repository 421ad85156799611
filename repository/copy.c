#include "repository/copy.h"

#include "common/cancel.h"
#include "common/log.h"
#include "repository/attempts.h"
#include "repository/copy_intern.h"
#include "repository/copy_object.h"
#include "repository/object.h"
#include "repository/pack.h"
#include "repository/pin.h"
#include "repository/replica.h"
#include "storage/connect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- both ends */

/* Without the keys it is a storage, which is all that a copy of everything needs. */
static bool
open_source(Copy *copy, CairnError *err)
{
    const CopyOptions *options = copy->options;
    const bool chosen = options->set_count > 0 || options->has_since;
    CairnError why = {0};

    copy->repository = repository_open(options->world, options->from, &why);
    if (copy->repository != NULL) {
        copy->from = repository_storage(copy->repository);
        return true;
    }
    /* No key, or none that opens it; all else is trouble with the source itself. */
    if (chosen || (why.kind != CAIRN_DENIED && why.kind != CAIRN_USAGE)) {
        *err = why;
        return false;
    }
    log_warn("%s; all of it can be copied without", why.message);
    copy->owns_from = true;
    copy->from = storage_connect(options->world, options->from, false, err);
    return copy->from != NULL;
}

/* The descriptor of a replica that is copied in turn has the other name. */
static const char *
descriptor_of(const Copy *copy, PlaceKind kind)
{
    /* An open repository shows it under the usual name. */
    return copy->repository == NULL && kind == PLACE_REPLICA ? REPLICA_DESCRIPTOR : DESCRIPTOR_NAME;
}

static bool
read_id(Copy *copy, const char *descriptor, CairnError *err)
{
    uint8_t header[OBJECT_HEADER_SIZE], trailer[OBJECT_TRAILER_SIZE];
    ObjectSeal seal;
    SCOPED(StorageReader) reader = storage_open(copy->from, descriptor, err);

    if (reader == NULL || !storage_pread(reader, header, sizeof header, 0, err))
        return false;
    if (reader->size_bytes < sizeof header + sizeof trailer)
        return cairn_error(err, CAIRN_CORRUPT, "'%s' is too short", descriptor);
    if (!storage_pread(reader, trailer, sizeof trailer, reader->size_bytes - sizeof trailer, err) ||
        !object_check_seal(header, trailer, DESCRIPTOR_NAME, NULL, &seal, err))
        return false;
    memcpy(copy->repository_id, seal.repository_id, sizeof copy->repository_id);
    return true;
}

static bool
check_target(const Copy *copy, CairnError *err)
{
    PlaceKind kind;

    if (!replica_look(copy->to, &kind, err))
        return false;
    if (kind != PLACE_REPOSITORY)
        return true;
    cairn_error(err, CAIRN_REFUSED, "repository '%s' is no replica", copy->options->to->name);
    return cairn_error_hint(err, "it has its own backups, or was promoted; copy into an empty "
                                 "place");
}

/* First of all, so that nobody ever takes half a copy for a repository to write to. */
static bool
begin_target(Copy *copy, CairnError *err)
{
    PlaceKind kind;
    CairnError other = {0};

    if (!replica_look(copy->from, &kind, err))
        return false;
    if (kind == PLACE_EMPTY && copy->repository == NULL)
        return cairn_error(err, CAIRN_NOT_FOUND, "'%s' is no repository",
                           copy->options->from->name);
    const char *descriptor = descriptor_of(copy, kind);
    CopyObject object = {.from = copy->from,
                         .to = copy->to,
                         .from_name = descriptor,
                         .to_name = REPLICA_DESCRIPTOR,
                         .name = DESCRIPTOR_NAME};
    if (!read_id(copy, descriptor, err) || !check_target(copy, err))
        return false;
    if (copy_object(&object, &other))
        return true;
    *err = other;
    if (err->kind == CAIRN_CONFLICT) {
        cairn_error_clear(err);
        cairn_error(err, CAIRN_CONFLICT, "repository '%s' is a replica of another repository",
                    copy->options->to->name);
        return cairn_error_hint(err, "copy into an empty place");
    }
    return cairn_error_wrap(err, "unable to begin the replica");
}

static bool
open_ends(Copy *copy, CairnError *err)
{
    const CopyOptions *options = copy->options;
    char from[STORAGE_PLACE_TEXT_SIZE], to[STORAGE_PLACE_TEXT_SIZE];

    storage_place_text(options->from, from);
    storage_place_text(options->to, to);
    if (strcmp(from, to) == 0)
        return cairn_error(err, CAIRN_USAGE, "'%s' and '%s' are the same place",
                           options->from->name, options->to->name);
    if (!open_source(copy, err))
        return cairn_error_wrap(err, "source");
    copy->to = storage_connect(options->world, options->to, true, err);
    if (copy->to == NULL)
        return cairn_error_wrap(err, "repository '%s'", options->to->name);
    return begin_target(copy, err);
}

static void
close_ends(Copy *copy)
{
    storage_close(copy->to);
    if (copy->owns_from)
        storage_close(copy->from);
    repository_close(copy->repository);
    pthread_mutex_destroy(&copy->mutex);
}

/* -- one cluster, all of it */

typedef struct {
    char (*names)[STORAGE_NAME_LIMIT];
    size_t count;
} Names;

static StorageListNext
list_directory(void *context, const StorageEntry *entry, CairnError *err)
{
    Names *names = context;

    if (!entry->is_directory)
        return STORAGE_LIST_GO_ON;
    char(*grown)[STORAGE_NAME_LIMIT] = reallocarray(names->names, names->count + 1, sizeof *grown);
    if (grown == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return STORAGE_LIST_FAILED;
    }
    names->names = grown;
    snprintf(names->names[names->count++], STORAGE_NAME_LIMIT, "%s", entry->name);
    return STORAGE_LIST_GO_ON;
}

typedef struct {
    BackupId *ids;
    size_t count, capacity;
} Ids;

static StorageListNext
list_id(void *context, const StorageEntry *entry, CairnError *err)
{
    Ids *ids = context;
    BackupId id;

    if (!backup_id_parse(entry->name, &id))
        return STORAGE_LIST_GO_ON;
    if (ids->count == ids->capacity) {
        const size_t capacity = ids->capacity == 0 ? 64 : 2 * ids->capacity;
        BackupId *grown = reallocarray(ids->ids, capacity, sizeof *grown);
        if (grown == NULL) {
            cairn_error(err, CAIRN_INTERNAL, "out of memory");
            return STORAGE_LIST_FAILED;
        }
        ids->ids = grown;
        ids->capacity = capacity;
    }
    ids->ids[ids->count++] = id;
    return STORAGE_LIST_GO_ON;
}

static int
by_id(const void *a, const void *b)
{
    return strcmp(((const BackupId *)a)->text, ((const BackupId *)b)->text);
}

static bool
has_object(Copy *copy, const char *cluster, const BackupId *bid, const char *part, bool *has_out,
           CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    uint64_t size;

    snprintf(name, sizeof name, "c/%s/b/%s/%s", cluster, bid->text, part);
    *has_out = storage_exists(copy->from, name, &size, err);
    if (!*has_out && err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    return true;
}

/*
 * decided: whose fate is decided now. What they need is at the source by now, or goes only after
 * they have been marked as expired. Ascending.
 * others: where packs may lie that those need, although no backup of that id exists. A copy of
 * chosen backups has such ones; an attempt that is under way, which has an intent, is nobody's
 * source.
 */
static bool
list_backups(Copy *copy, const char *cluster, Ids *decided, Ids *others, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    size_t count = 0;

    snprintf(name, sizeof name, "c/%s/b", cluster);
    if (!storage_list(copy->from, name, list_id, decided, err) ||
        (others->ids = calloc(decided->count + 1, sizeof *others->ids)) == NULL)
        return err->kind != CAIRN_OK ? false : cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < decided->count; i++) {
        bool has_fate, has_intent = false;
        if (!has_object(copy, cluster, &decided->ids[i], "fate", &has_fate, err) ||
            (!has_fate && !has_object(copy, cluster, &decided->ids[i], "intent", &has_intent, err)))
            return false;
        if (has_fate)
            decided->ids[count++] = decided->ids[i];
        else if (!has_intent)
            others->ids[others->count++] = decided->ids[i];
    }
    decided->count = count;
    if (count > 0)
        qsort(decided->ids, count, sizeof *decided->ids, by_id);
    return true;
}

static bool
add_parts(Copy *copy, const char *cluster, const char *const *parts, size_t count, CairnError *err)
{
    for (size_t i = 0; i < count; i++) {
        char prefix[STORAGE_NAME_LIMIT];
        snprintf(prefix, sizeof prefix, "c/%s/%s", cluster, parts[i]);
        if (!copy_add_tree(copy, prefix, NULL, NULL, err))
            return false;
    }
    return true;
}

static bool
copy_parts(Copy *copy, const char *cluster, const char *const *parts, size_t count, CairnError *err)
{
    if (!copy_begin(copy, err))
        return false;
    if (!add_parts(copy, cluster, parts, count, err))
        CAIRN_ASSERT(err->kind != CAIRN_OK);
    return copy_end(copy, err);
}

static bool
copy_packs(Copy *copy, const char *cluster, const Ids *ids, CairnError *err)
{
    if (!copy_begin(copy, err))
        return false;
    for (size_t i = 0; i < ids->count; i++) {
        char data[64], map[64];
        snprintf(data, sizeof data, "b/%s/p", ids->ids[i].text);
        snprintf(map, sizeof map, "b/%s/m", ids->ids[i].text);
        if (!add_parts(copy, cluster, (const char *const[]){data, map}, 2, err))
            break;
    }
    return copy_end(copy, err);
}

static bool
copy_all_of(Copy *copy, const char *cluster, CairnError *err)
{
    Ids decided = {0}, others = {0};
    const bool done =
        list_backups(copy, cluster, &decided, &others, err) &&
        copy_parts(copy, cluster, (const char *const[]){"i"}, 1, err) &&
        copy_packs(copy, cluster, &decided, err) && copy_packs(copy, cluster, &others, err) &&
        copy_parts(copy, cluster, (const char *const[]){"w", "cat"}, 2, err) &&
        check_target(copy, err) && copy_backups(copy, cluster, decided.ids, decided.count, err);
    free(decided.ids);
    free(others.ids);
    return done;
}

/* -- chosen backups of one */

static bool
is_chosen_by_time(const CopyOptions *options, const CatalogBackup *backup)
{
    return options->has_since && backup->presence == BACKUP_COMMITTED &&
           backup->fate->started_us >= options->since_us;
}

/* chosen has room for all of the catalog. */
static bool
choose(const CopyOptions *options, const Catalog *catalog, const CatalogBackup **chosen,
       size_t *count_out, CairnError *err)
{
    SCOPED_MEMORY bool *wanted = calloc(catalog->count + 1, sizeof *wanted);

    if (wanted == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < options->set_count; i++) {
        const CatalogBackup *found = catalog_find(catalog, options->sets[i], err);
        if (found == NULL)
            return false;
        wanted[found - catalog->backups] = true;
    }
    *count_out = 0;
    for (size_t i = 0; i < catalog->count; i++) {
        if (wanted[i] || is_chosen_by_time(options, &catalog->backups[i]))
            chosen[(*count_out)++] = &catalog->backups[i];
    }
    return *count_out > 0 || cairn_error(err, CAIRN_NOT_FOUND, "no backup is as young as that");
}

static bool
copy_needed_packs(Copy *copy, const char *cluster, const PackSet *needed, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];

    if (!copy_begin(copy, err))
        return false;
    for (size_t i = 0; i < needed->count; i++) {
        const PackRange *range = &needed->ranges[i];
        bool added = true;
        for (uint32_t n = 0; n < range->pack_count && added; n++) {
            (range->is_map ? map_pack_name : pack_name)(name, cluster, &range->creator,
                                                        range->first_pack + n);
            added = copy_add(copy, name);
        }
        if (!added)
            break;
    }
    return copy_end(copy, err);
}

static bool
find_needed(Copy *copy, const CatalogBackup *const *chosen, size_t count, PackSet *needed,
            CairnError *err)
{
    for (size_t i = 0; i < count; i++) {
        SCOPED(Refs) refs = refs_read(copy->repository, chosen[i]->fate, err);
        if (refs == NULL || !pack_set_add_refs(needed, refs, err))
            return cairn_error_wrap(err, "backup %s", chosen[i]->fate->label);
    }
    pack_set_settle(needed);
    return true;
}

static bool
copy_chosen_backups(Copy *copy, const char *cluster, const CatalogBackup *const *chosen,
                    size_t count, CairnError *err)
{
    SCOPED_PACK_SET needed = {0};
    SCOPED_MEMORY BackupId *ids = calloc(count + 1, sizeof *ids);
    SCOPED(Pin) pin = NULL;

    if (ids == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < count; i++)
        ids[i] = chosen[i]->bid;
    return pin_take_or_warn(copy->repository, cluster, "copy", ids, count, &pin, err) &&
           find_needed(copy, chosen, count, &needed, err) &&
           copy_parts(copy, cluster, (const char *const[]){"i"}, 1, err) &&
           copy_needed_packs(copy, cluster, &needed, err) &&
           copy_chosen_wal(copy, cluster, chosen, count, err) && check_target(copy, err) &&
           copy_backups(copy, cluster, ids, count, err);
}

static bool
copy_chosen(Copy *copy, CairnError *err)
{
    const CopyOptions *options = copy->options;
    SCOPED(Catalog) catalog = catalog_read(copy->repository, options->cluster, err);
    if (catalog == NULL)
        return false;
    SCOPED_MEMORY const CatalogBackup **chosen =
        calloc(catalog->count + 1, sizeof(const CatalogBackup *));
    size_t count = 0;

    if (chosen == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return choose(options, catalog, chosen, &count, err) &&
           copy_chosen_backups(copy, options->cluster, chosen, count, err);
}

/* -- all of it */

static bool
copy_keys(Copy *copy, CairnError *err)
{
    if (!copy_begin(copy, err))
        return false;
    if (!copy_add_tree(copy, "keys", NULL, NULL, err))
        CAIRN_ASSERT(err->kind != CAIRN_OK);
    return copy_end(copy, err);
}

static bool
copy_clusters(Copy *copy, CairnError *err)
{
    const char *only = copy->options->cluster;
    Names names = {0};
    bool found = false;
    bool done = storage_list(copy->from, "c", list_directory, &names, err);

    for (size_t i = 0; i < names.count && done; i++) {
        if ((only != NULL && strcmp(only, names.names[i]) != 0) ||
            !cluster_name_valid(names.names[i]))
            continue;
        found = true;
        done = copy_all_of(copy, names.names[i], err);
    }
    free(names.names);
    if (done && only != NULL && !found)
        return cairn_error(err, CAIRN_NOT_FOUND, "the repository has nothing of cluster '%s'",
                           only);
    return done;
}

static CopyReport *
new_report(void)
{
    CopyReport *report = calloc(1, sizeof *report);

    CAIRN_ASSERT(report != NULL);
    report->arena = arena_new();
    report->problems = arena_alloc(report->arena, COPY_PROBLEMS_LISTED * sizeof *report->problems);
    return report;
}

CopyReport *
copy_run(const CopyOptions *options, CairnError *err)
{
    const bool chosen = options->set_count > 0 || options->has_since;
    SCOPED(CopyReport) report = new_report();
    Copy copy = {.options = options, .report = report, .mutex = PTHREAD_MUTEX_INITIALIZER};

    CAIRN_ASSERT(!chosen || options->cluster != NULL);
    const bool done = open_ends(&copy, err) && copy_keys(&copy, err) &&
                      (chosen ? copy_chosen(&copy, err) : copy_clusters(&copy, err));
    close_ends(&copy);
    return done ? take(&report) : NULL;
}

void
copy_report_free(CopyReport *report)
{
    if (report == NULL)
        return;
    arena_free(report->arena);
    free(report);
}
