#include "repository/catalog.h"

#include "common/parallel.h"
#include "repository/attempts.h"
#include "repository/evidence.h"
#include "repository/host.h"
#include "repository/json.h"
#include "repository/mark.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* What the listing below one backup said. */
typedef struct {
    CatalogBackup *backup;
    bool has_fate;
    EvidenceList evidence;
    MarkNames marks;
} BackupListing;

static StorageListNext
list_backup(void *context, const StorageEntry *entry, CairnError *err)
{
    BackupListing *listing = context;
    if (strcmp(entry->name, "fate") == 0) {
        listing->has_fate = true;
        listing->backup->stored_us = entry->modified_us;
    } else if (strncmp(entry->name, "ev.", 3) == 0) {
        evidence_list_add(&listing->evidence, entry->name, entry->modified_us);
    } else if (!mark_names_add(&listing->marks, entry->name, err)) {
        cairn_error_wrap(err, "backup %s", listing->backup->bid.text);
        return STORAGE_LIST_FAILED;
    }
    return STORAGE_LIST_GO_ON;
}

/* Backups are read by several threads, each into a place of its own; they share the arena. */
typedef struct {
    Repository *repository;
    const char *cluster;
    Catalog *catalog;
    pthread_mutex_t arena_lock;
} CatalogReading;

/* In the catalog's arena. */
static void *
keep(CatalogReading *reading, size_t size)
{
    pthread_mutex_lock(&reading->arena_lock);
    void *memory = arena_alloc(reading->catalog->arena, size);
    pthread_mutex_unlock(&reading->arena_lock);
    return memory;
}

static const char *
keep_text(CatalogReading *reading, const char *text)
{
    const size_t size = strlen(text) + 1;
    return memcpy(keep(reading, size), text, size);
}

/* What stands, and the tokens of all damage: a reading that begins now can end those, no others. */
static void
apply_evidence(CatalogReading *reading, const BackupListing *listing)
{
    CatalogBackup *backup = listing->backup;
    const EvidenceList *list = &listing->evidence;
    EvidenceState state;
    evidence_state(reading->repository, reading->cluster, &backup->bid, list, &state);
    backup->scrubbed = list->scrubbed;
    backup->failed = list->failed;
    backup->drilled = list->drilled;
    backup->drilled_us = state.drilled_us;
    backup->drill_duration_us = state.drill_duration_us;
    backup->verified = state.verified;
    backup->verified_us = state.verified ? state.verified_us : 0;
    backup->damaged = state.damaged;
    if (list->damage_count == 0)
        return;
    const char **damages = keep(reading, list->damage_count * sizeof *damages);
    backup->damage_count = list->damage_count;
    for (size_t i = 0; i < list->damage_count; i++)
        damages[i] = keep_text(reading, list->damages[i].token);
    backup->damages = damages;
}

/* Storage that cannot be reached is an error; an object that cannot be read makes this one backup
 * unreadable. */
static bool
is_about_the_object(CairnErrorKind kind)
{
    return kind == CAIRN_CORRUPT || kind == CAIRN_UNSUPPORTED || kind == CAIRN_MISMATCH;
}

static bool
read_backup(CatalogReading *reading, CatalogBackup *backup, CairnError *err)
{
    Repository *repository = reading->repository;
    const char *cluster = reading->cluster;
    char prefix[STORAGE_NAME_LIMIT];
    snprintf(prefix, sizeof prefix, "c/%s/b/%s", cluster, backup->bid.text);
    SCOPED_MEMORY BackupListing *listing = calloc(1, sizeof *listing);
    if (listing == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    listing->backup = backup;
    if (!storage_list(repository_storage(repository), prefix, list_backup, listing, err))
        return false;
    backup->presence = BACKUP_UNFINISHED;
    if (!listing->has_fate)
        return true;

    MarkState marks = {0};
    backup->fate = fate_read(repository, cluster, &backup->bid, NULL, err);
    if (backup->fate == NULL ||
        !mark_state(repository, cluster, &backup->bid, &listing->marks, &marks, err)) {
        if (!is_about_the_object(err->kind))
            return false;
        backup->presence = BACKUP_UNREADABLE;
        backup->problem = keep(reading, sizeof *backup->problem);
        *backup->problem = *err;
        cairn_error_clear(err);
        return true;
    }
    backup->kept = marks.kept;
    backup->released = marks.released;
    backup->pending = marks.pending;
    if (!backup->fate->committed)
        backup->presence = BACKUP_REVOKED;
    else
        backup->presence = marks.expired || marks.pending ? BACKUP_EXPIRED : BACKUP_COMMITTED;
    apply_evidence(reading, listing);
    backup->damaged |= backup->fate->committed && backup->fate->damaged;
    return true;
}

static Catalog *
catalog_new(size_t capacity)
{
    Catalog *catalog = calloc(1, sizeof *catalog);
    CAIRN_ASSERT(catalog != NULL);
    catalog->arena = arena_new();
    catalog->backups = arena_alloc(catalog->arena, (capacity + 1) * sizeof *catalog->backups);
    return catalog;
}

static bool
read_one(void *context, size_t index, CairnError *err)
{
    CatalogReading *reading = context;
    return read_backup(reading, &reading->catalog->backups[index], err);
}

/* All of the catalog's backups, of which the ids are known. */
static bool
read_all(Repository *repository, const char *cluster, Catalog *catalog, CairnError *err)
{
    CatalogReading reading = {.repository = repository, .cluster = cluster, .catalog = catalog};
    pthread_mutex_init(&reading.arena_lock, NULL);
    const bool done =
        parallel_each(catalog->count, storage_requests_at_once(repository_storage(repository)),
                      read_one, &reading, err);
    pthread_mutex_destroy(&reading.arena_lock);
    return done;
}

Catalog *
catalog_read(Repository *repository, const char *cluster, CairnError *err)
{
    SCOPED_MEMORY BackupId *ids = NULL;
    size_t count;
    if (!attempts_list(repository, cluster, &ids, &count, err))
        return NULL;

    SCOPED(Catalog) catalog = catalog_new(count);
    for (size_t i = 0; i < count; i++)
        catalog->backups[catalog->count++].bid = ids[i];
    return read_all(repository, cluster, catalog, err) ? take(&catalog) : NULL;
}

bool
catalog_has_expired(Repository *repository, const char *cluster, const BackupId *bid,
                    bool *expired_out, CairnError *err)
{
    SCOPED(Catalog) one = catalog_new(1);
    CatalogBackup *backup = &one->backups[one->count++];
    backup->bid = *bid;
    if (!read_all(repository, cluster, one, err))
        return false;
    *expired_out = backup->presence == BACKUP_EXPIRED;
    return true;
}

void
catalog_free(Catalog *catalog)
{
    if (catalog == NULL)
        return;
    for (size_t i = 0; i < catalog->count; i++)
        fate_free(catalog->backups[i].fate);
    arena_free(catalog->arena);
    free(catalog);
}

typedef struct {
    Arena *arena;
    const char **names;
    size_t count, capacity;
} NameList;

static StorageListNext
list_cluster(void *context, const StorageEntry *entry, CairnError *err)
{
    NameList *list = context;
    (void)err;
    if (!entry->is_directory || !cluster_name_valid(entry->name))
        return STORAGE_LIST_GO_ON;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
        const char **names = arena_alloc(list->arena, capacity * sizeof *names);
        if (list->count > 0)
            memcpy(names, list->names, list->count * sizeof *names);
        list->names = names;
        list->capacity = capacity;
    }
    list->names[list->count++] = arena_strdup(list->arena, entry->name);
    return STORAGE_LIST_GO_ON;
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool
catalog_clusters(Repository *repository, Arena *arena, const char ***names_out, size_t *count_out,
                 CairnError *err)
{
    NameList list = {.arena = arena};
    if (!storage_list(repository_storage(repository), "c", list_cluster, &list, err))
        return false;
    if (list.count > 0)
        qsort(list.names, list.count, sizeof *list.names, by_name);
    *names_out = list.names;
    *count_out = list.count;
    return true;
}

uint64_t
catalog_highest_sequence(const Catalog *catalog)
{
    return catalog->count == 0 ? 0 : backup_id_sequence(&catalog->backups[catalog->count - 1].bid);
}

static bool
is_usable(const CatalogBackup *backup)
{
    return backup->presence == BACKUP_COMMITTED && !backup->damaged;
}

static bool
matches(const CatalogBackup *backup, const char *selector)
{
    if (strcmp(backup->bid.text, selector) == 0)
        return true;
    return backup->fate != NULL && backup->fate->committed &&
           strcmp(backup->fate->label, selector) == 0;
}

const CatalogBackup *
catalog_find(const Catalog *catalog, const char *selector, CairnError *err)
{
    const CatalogBackup *found = NULL;
    bool latest = strcmp(selector, "latest") == 0;
    for (size_t i = catalog->count; i-- > 0;) {
        const CatalogBackup *backup = &catalog->backups[i];
        if (latest ? !is_usable(backup) : !matches(backup, selector))
            continue;
        if (found != NULL) {
            cairn_error(err, CAIRN_REFUSED, "'%s' names several backups", selector);
            cairn_error_hint(err, "use the backup id, such as %s or %s", found->bid.text,
                             backup->bid.text);
            return NULL;
        }
        found = backup;
        if (latest)
            break;
    }
    if (found == NULL) {
        cairn_error(err, CAIRN_NOT_FOUND, "there is no backup '%s'", selector);
        cairn_error_hint(err, "`pgcairn info` lists labels and ids");
        return NULL;
    }
    if (found->presence == BACKUP_UNREADABLE) {
        *err = *found->problem;
        return NULL;
    }
    return found;
}

bool
catalog_add_evidence(Repository *repository, const char *cluster, const BackupId *bid,
                     const char *kind, const char *scope, const char *result_json, CairnError *err)
{
    const World *world = repository_world(repository);
    char token[17], name[STORAGE_NAME_LIMIT];
    if (repository_is_replica(repository))
        return true;
    if (!random_token(world, token, err))
        return false;
    snprintf(name, sizeof name, "c/%s/b/%s/ev.%s.%s", cluster, bid->text, kind, token);
    json_t *result = result_json != NULL ? json_loads(result_json, 0, NULL) : json_object();
    SCOPED_JSON json_t *json = json_pack("{s:s, s:o, s:o, s:s, s:o}", "evidence", kind, "at",
                                         json_time(world->clock->wall_us(world->clock)), "by",
                                         host_json(), "scope", scope, "result", result);
    return json_put(repository, name, OBJECT_EVIDENCE, backup_id_sequence(bid), json, NULL, err);
}

size_t
catalog_systems(const Catalog *catalog, IncarnationId systems_out[INCARNATION_LIMIT])
{
    size_t count = 0;
    for (size_t i = catalog->count; i-- > 0 && count < INCARNATION_LIMIT;) {
        const Fate *fate = catalog->backups[i].fate;
        bool known = fate == NULL;
        for (size_t k = 0; k < count && !known; k++)
            known =
                systems_out[k].system_id == fate->system_id && systems_out[k].major == fate->major;
        if (!known)
            systems_out[count++] = (IncarnationId){fate->system_id, fate->major};
    }
    return count;
}
