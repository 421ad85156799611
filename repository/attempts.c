#include "repository/attempts.h"

#include "common/bytes.h"
#include "common/log.h"
#include "repository/fate.h"
#include "repository/host.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    BackupId *ids;
    size_t count, capacity;
} IdList;

static StorageListNext
list_id(void *context, const StorageEntry *entry, CairnError *err)
{
    IdList *list = context;
    BackupId id;
    if (!backup_id_parse(entry->name, &id))
        return STORAGE_LIST_GO_ON;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        BackupId *ids = realloc(list->ids, capacity * sizeof *ids);
        if (ids == NULL) {
            cairn_error(err, CAIRN_INTERNAL, "out of memory");
            return STORAGE_LIST_FAILED;
        }
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return STORAGE_LIST_GO_ON;
}

static int
by_id(const void *a, const void *b)
{
    return strcmp(((const BackupId *)a)->text, ((const BackupId *)b)->text);
}

bool
attempts_list(Repository *repository, const char *cluster, BackupId **ids_out, size_t *count_out,
              CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    snprintf(prefix, sizeof prefix, "c/%s/b", cluster);
    IdList list = {0};
    if (!storage_list(repository_storage(repository), prefix, list_id, &list, err)) {
        free(list.ids);
        return false;
    }
    if (list.count > 0)
        qsort(list.ids, list.count, sizeof *list.ids, by_id);
    *ids_out = list.ids;
    *count_out = list.count;
    return true;
}

bool
attempts_next_id(Repository *repository, const char *cluster, BackupId *id_out, CairnError *err)
{
    SCOPED_MEMORY BackupId *ids = NULL;
    size_t count;
    char token[17];
    if (!attempts_list(repository, cluster, &ids, &count, err) ||
        !random_token(repository_world(repository), token, err))
        return false;
    uint64_t sequence = count == 0 ? 1 : backup_id_sequence(&ids[count - 1]) + 1;
    char text[64];
    snprintf(text, sizeof text, "%010" PRIu64 "-%s", sequence, token);
    if (!backup_id_parse(text, id_out))
        return cairn_error(err, CAIRN_UNSUPPORTED, "the sequence of backup ids is used up");
    return true;
}

static StorageListNext
remove_below(void *context, const StorageEntry *entry, CairnError *err)
{
    /* context: storage, then the prefix that is being listed */
    const char *prefix = ((const char *const *)context)[1];
    Storage *storage = ((Storage *const *)context)[0];
    char name[STORAGE_NAME_LIMIT];
    int size = snprintf(name, sizeof name, "%s/%s", prefix, entry->name);
    if (size < 0 || (size_t)size >= sizeof name)
        return STORAGE_LIST_GO_ON;
    if (entry->is_directory) {
        const void *below[] = {storage, name};
        return storage_list(storage, name, remove_below, below, err) ? STORAGE_LIST_GO_ON
                                                                     : STORAGE_LIST_FAILED;
    }
    return storage_remove(storage, name, err) ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
}

/* Packs, map packs and temporary files of an attempt that can never become a backup. */
static bool
remove_packs(Repository *repository, const char *cluster, const BackupId *bid, CairnError *err)
{
    Storage *storage = repository_storage(repository);
    static const char *const parts[] = {"p", "m"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char prefix[STORAGE_NAME_LIMIT];
        snprintf(prefix, sizeof prefix, "c/%s/b/%s/%s", cluster, bid->text, parts[i]);
        const void *context[] = {storage, prefix};
        if (!storage_list(storage, prefix, remove_below, context, err))
            return false;
    }
    char prefix[STORAGE_NAME_LIMIT];
    snprintf(prefix, sizeof prefix, "c/%s/b/%s/p/000", cluster, bid->text);
    const World *world = repository_world(repository);
    return storage_sweep(storage, prefix, world->clock->wall_us(world->clock), err);
}

void
attempts_abandon(Repository *repository, const char *cluster, const BackupId *bid, const char *token,
                 const char *reason)
{
    CairnError err = {0};
    bool revoked = fate_revoke(repository, cluster, bid, token, reason, &err);
    if (!revoked && err.kind == CAIRN_NO_SPACE) {
        /* Only this process could have committed the attempt, and it is giving up: its packs are nobody's. They make
           the room that the revocation needs. */
        CairnError second = {0};
        if (remove_packs(repository, cluster, bid, &second)) {
            cairn_error_clear(&err);
            revoked = fate_revoke(repository, cluster, bid, token, reason, &err);
        }
    }
    if (revoked) {
        CairnError second = {0};
        if (remove_packs(repository, cluster, bid, &second))
            return;
        err = second;
    }
    log_debug("attempt %s is left as it is: %s", bid->text, err.message);
}

/* True when the intent says that its process was one of this host and is gone. */
static bool
is_dead(Repository *repository, const char *cluster, const BackupId *bid, char token[17], bool *dead_out,
        CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/%s/b/%s/intent", cluster, bid->text);
    *dead_out = false;
    SCOPED_JSON json_t *intent = json_get(repository, name, OBJECT_INTENT, NULL, err);
    if (intent == NULL) {
        /* Without a readable intent nobody can say whose it is: it is left alone. */
        bool storage_works = err->kind == CAIRN_NOT_FOUND || err->kind == CAIRN_CORRUPT ||
                             err->kind == CAIRN_UNSUPPORTED || err->kind == CAIRN_MISMATCH;
        if (storage_works)
            cairn_error_clear(err);
        return storage_works;
    }
    CairnError unreadable = {0};
    JsonReader fields = json_reader(intent, name, &unreadable);
    Host host = {0};
    snprintf(host.host, sizeof host.host, "%s", json_read_text(&fields, "host"));
    snprintf(host.machine_id, sizeof host.machine_id, "%s", json_read_text(&fields, "machine_id"));
    snprintf(host.boot_id, sizeof host.boot_id, "%s", json_read_text(&fields, "boot_id"));
    host.pid = (int)json_read_integer(&fields, "pid", 1, INT32_MAX);
    host.process_start = json_read_u64_text(&fields, "process_start");
    snprintf(token, 17, "%s", json_read_text(&fields, "token"));
    *dead_out = !fields.failed && host_is_dead(&host);
    return true;
}

static bool
fate_exists(Repository *repository, const char *cluster, const BackupId *bid, bool *exists_out,
            CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    uint64_t size;
    snprintf(name, sizeof name, "c/%s/b/%s/fate", cluster, bid->text);
    *exists_out = storage_exists(repository_storage(repository), name, &size, err);
    if (!*exists_out && err->kind == CAIRN_NOT_FOUND) {
        cairn_error_clear(err);
        return true;
    }
    return *exists_out;
}

bool
attempts_revoke_dead(Repository *repository, const char *cluster, CairnError *err)
{
    SCOPED_MEMORY BackupId *ids = NULL;
    size_t count;
    if (!attempts_list(repository, cluster, &ids, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        bool exists, dead = false;
        char token[17] = "";
        if (!fate_exists(repository, cluster, &ids[i], &exists, err) ||
            (!exists && !is_dead(repository, cluster, &ids[i], token, &dead, err)))
            return false;
        if (dead) {
            log_info("revoking the dead attempt %s of this host", ids[i].text);
            attempts_abandon(repository, cluster, &ids[i], token, "its process is gone");
        }
    }
    return true;
}

bool
attempts_newest_committed(Repository *repository, const char *cluster, BackupId *bid_out,
                          uint8_t fate_sha256_out[SHA256_SIZE], CairnError *err)
{
    SCOPED_MEMORY BackupId *ids = NULL;
    size_t count;
    if (!attempts_list(repository, cluster, &ids, &count, err))
        return false;
    for (size_t i = count; i-- > 0;) {
        CairnError unreadable = {0};
        SCOPED(Fate) fate = fate_read(repository, cluster, &ids[i], fate_sha256_out, &unreadable);
        if (fate == NULL) {
            if (unreadable.kind == CAIRN_UNAVAILABLE || unreadable.kind == CAIRN_IO ||
                unreadable.kind == CAIRN_DENIED) {
                *err = unreadable;
                return false;
            }
            continue; /* unfinished, or unreadable: verify and info report those */
        }
        if (fate->committed) {
            *bid_out = ids[i];
            return true;
        }
    }
    memset(bid_out, 0, sizeof *bid_out);
    memset(fate_sha256_out, 0, SHA256_SIZE);
    return true;
}
