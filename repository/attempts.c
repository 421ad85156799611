#include "repository/attempts.h"

#include "common/bytes.h"
#include "common/log.h"
#include "repository/fate.h"
#include "repository/intent.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Attempts that fail one after another hold about the same. */
enum { SALVAGE_LIMIT = 8 };

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

/* This object is missing or unreadable; anything else is about the storage as a whole. */
static bool
is_about_the_object(CairnErrorKind kind)
{
    return kind == CAIRN_NOT_FOUND || kind == CAIRN_CORRUPT || kind == CAIRN_UNSUPPORTED ||
           kind == CAIRN_MISMATCH;
}

/* One directory of an attempt. */
typedef struct {
    Repository *repository;
    const char *prefix;
    bool only_temporary;
} Removal;

static bool remove_all(Removal removal, CairnError *err);

static StorageListNext
remove_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    const Removal *removal = context;
    char name[STORAGE_NAME_LIMIT];
    int size = snprintf(name, sizeof name, "%s/%s", removal->prefix, entry->name);
    if (size < 0 || (size_t)size >= sizeof name)
        return STORAGE_LIST_GO_ON; /* no name of ours is so long */
    bool removed = true;
    if (entry->is_directory)
        removed = remove_all((Removal){removal->repository, name, removal->only_temporary}, err);
    else if (!removal->only_temporary)
        removed = storage_remove(repository_storage(removal->repository), name, err);
    return removed ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
}

/* Temporary files of writers that are gone. A live one that loses its file fails at its link:
 * nothing is lost. */
static bool
sweep(Repository *repository, const char *prefix, CairnError *err)
{
    const World *world = repository_world(repository);
    return storage_sweep(repository_storage(repository), prefix,
                         world->clock->wall_us(world->clock), err);
}

static bool
remove_all(Removal removal, CairnError *err)
{
    return storage_list(repository_storage(removal.repository), removal.prefix, remove_entry,
                        &removal, err) &&
           sweep(removal.repository, removal.prefix, err);
}

/* Packs, map packs and temporary files, or the last alone. */
static bool
remove_packs(Repository *repository, const char *cluster, const BackupId *bid, bool only_temporary,
             CairnError *err)
{
    static const char *const parts[] = {"p", "m"};
    char prefix[STORAGE_NAME_LIMIT];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        snprintf(prefix, sizeof prefix, "c/%s/b/%s/%s", cluster, bid->text, parts[i]);
        if (!remove_all((Removal){repository, prefix, only_temporary}, err))
            return false;
    }
    snprintf(prefix, sizeof prefix, "c/%s/b/%s", cluster, bid->text);
    return sweep(repository, prefix, err);
}

/*
 * May the packs go? Yes where the fate says that its own writer removes them; such an attempt is
 * nobody's salvage source. What anybody else revoked may be one by now, and what has no fate may
 * still get one.
 */
static bool
packs_may_go(Repository *repository, const char *cluster, const BackupId *bid)
{
    CairnError ignored = {0};
    SCOPED(Fate) fate = fate_read(repository, cluster, bid, NULL, &ignored);
    return fate != NULL && !fate->committed && fate->packs_go;
}

/* The fate first; packs go only when it says so. Taken already and not by us: left as it is. */
static bool
abandon_and_remove(Repository *repository, const char *cluster, const BackupId *bid,
                   const char *token, const char *reason, CairnError *err)
{
    if (!fate_abandon(repository, cluster, bid, token, reason, err)) {
        if (err->kind != CAIRN_CONFLICT || !packs_may_go(repository, cluster, bid))
            return false;
        cairn_error_clear(err);
    }
    return remove_packs(repository, cluster, bid, false, err);
}

static bool
has_no_fate(Repository *repository, const char *cluster, const BackupId *bid)
{
    CairnError err = {0};
    SCOPED(Fate) fate = fate_read(repository, cluster, bid, NULL, &err);
    return fate == NULL && err.kind == CAIRN_NOT_FOUND;
}

/*
 * On a full disk something must go before the revocation finds room. Of our own attempt that is
 * everything: only this process could commit it, and it is giving up; and without a fate it is
 * nobody's salvage source.
 */
void
attempts_abandon(Repository *repository, const char *cluster, const BackupId *bid,
                 const char *token, const char *reason, bool keep_packs)
{
    CairnError err = {0};
    bool done = keep_packs ? fate_revoke(repository, cluster, bid, token, reason, &err)
                           : abandon_and_remove(repository, cluster, bid, token, reason, &err);
    if (!done && err.kind == CAIRN_NO_SPACE && has_no_fate(repository, cluster, bid)) {
        CairnError second = {0};
        if (remove_packs(repository, cluster, bid, false, &second)) {
            cairn_error_clear(&err);
            done = abandon_and_remove(repository, cluster, bid, token, reason, &err);
        }
    }
    if (!done)
        log_debug("attempt %s is left as it is: %s", bid->text, err.message);
}

/* True when the intent says that its process was one of this host and is gone. */
static bool
is_dead(Repository *repository, const char *cluster, const BackupId *bid, char token[17],
        bool *dead_out, CairnError *err)
{
    *dead_out = false;
    SCOPED(Intent) intent = intent_read(repository, cluster, bid, err);
    if (intent == NULL) {
        /* Without a readable intent nobody can say whose it is: it is left alone. */
        if (!is_about_the_object(err->kind))
            return false;
        cairn_error_clear(err);
        return true;
    }
    memcpy(token, intent->token, sizeof intent->token);
    *dead_out = host_is_dead(&intent->host);
    return true;
}

/*
 * The fate and the temporary files: its packs are salvage from now on, and a collector's business.
 * Its process seems to be gone, but containers may share a host name and machines an id, and a
 * writer that lives after all finds its slot taken. On a full disk it stays undecided, which keeps
 * what it may need.
 */
static bool
revoke_if_dead(Repository *repository, const char *cluster, const BackupId *bid, CairnError *err)
{
    bool dead = false;
    char token[17] = "";
    /* Where a name can be created twice, a fate that is still on its way from a process that is
       gone could replace ours: only people decide there, by `collect --revoke`. */
    if (!storage_creates_exclusively(repository_storage(repository)))
        return true;
    if (!is_dead(repository, cluster, bid, token, &dead, err))
        return false;
    if (!dead)
        return true;
    log_info("revoking the dead attempt %s of this host", bid->text);
    CairnError ignored = {0};
    if (!fate_revoke(repository, cluster, bid, token, "its process is gone", &ignored))
        log_debug("attempt %s is left as it is: %s", bid->text, ignored.message);
    cairn_error_clear(&ignored);
    if (!remove_packs(repository, cluster, bid, true, &ignored))
        log_debug("temporary files of attempt %s stay: %s", bid->text, ignored.message);
    return true;
}

/* What can be told of an attempt from its fate alone. */
typedef enum {
    ATTEMPT_OPEN,
    ATTEMPT_REVOKED,   /* by somebody else: its packs may be salvage */
    ATTEMPT_ABANDONED, /* by its own writer */
    ATTEMPT_COMMITTED,
    ATTEMPT_UNREADABLE
} AttemptState;

/* Only a storage that does not answer is a failure. */
static bool
attempt_state(Repository *repository, const char *cluster, const BackupId *bid,
              uint8_t *fate_sha256_out, AttemptState *state_out, CairnError *err)
{
    SCOPED(Fate) fate = fate_read(repository, cluster, bid, fate_sha256_out, err);
    if (fate != NULL) {
        *state_out = fate->committed  ? ATTEMPT_COMMITTED
                     : fate->packs_go ? ATTEMPT_ABANDONED
                                      : ATTEMPT_REVOKED;
        return true;
    }
    *state_out = err->kind == CAIRN_NOT_FOUND ? ATTEMPT_OPEN : ATTEMPT_UNREADABLE;
    if (!is_about_the_object(err->kind))
        return false;
    cairn_error_clear(err);
    return true;
}

static bool
fate_is_named(Repository *repository, const char *cluster, const BackupId *bid, bool *named_out,
              CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    uint64_t size;
    snprintf(name, sizeof name, "c/%s/b/%s/fate", cluster, bid->text);
    *named_out = storage_exists(repository_storage(repository), name, &size, err) ||
                 err->kind != CAIRN_NOT_FOUND;
    if (err->kind == CAIRN_OK)
        return true;
    if (!is_about_the_object(err->kind))
        return false;
    cairn_error_clear(err);
    return true;
}

bool
attempts_revoke_dead(Repository *repository, const char *cluster, CairnError *err)
{
    SCOPED_MEMORY BackupId *ids = NULL;
    size_t count;
    if (!attempts_list(repository, cluster, &ids, &count, err))
        return false;
    bool committed_seen = false;
    for (size_t i = count; i-- > 0;) {
        bool named;
        if (!fate_is_named(repository, cluster, &ids[i], &named, err))
            return false;
        if (!named) {
            if (!revoke_if_dead(repository, cluster, &ids[i], err))
                return false;
            continue;
        }
        /* A writer that gave up may have died before its packs were gone. Backups come in between
           sooner or later, so it is enough to look at those after the newest one, and a long
           history costs nothing. */
        AttemptState state;
        if (committed_seen)
            continue;
        if (!attempt_state(repository, cluster, &ids[i], NULL, &state, err))
            return false;
        committed_seen = state == ATTEMPT_COMMITTED;
        CairnError ignored = {0};
        if (state == ATTEMPT_ABANDONED &&
            !remove_packs(repository, cluster, &ids[i], false, &ignored))
            log_debug("packs of the abandoned attempt %s stay: %s", ids[i].text, ignored.message);
    }
    return true;
}

bool
attempts_fence_dead(Repository *repository, const char *cluster, CairnError *err)
{
    SCOPED_MEMORY BackupId *ids = NULL;
    size_t count;
    if (!attempts_list(repository, cluster, &ids, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        bool named;
        if (!fate_is_named(repository, cluster, &ids[i], &named, err) ||
            (!named && !revoke_if_dead(repository, cluster, &ids[i], err)))
            return false;
    }
    return true;
}

static StorageListNext
note_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)entry;
    (void)err;
    *(bool *)context = true;
    return STORAGE_LIST_STOP;
}

static bool
has_packs(Repository *repository, const char *cluster, const BackupId *bid, bool *has_out,
          CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    snprintf(prefix, sizeof prefix, "c/%s/b/%s/p", cluster, bid->text);
    *has_out = false;
    return storage_list(repository_storage(repository), prefix, note_entry, has_out, err);
}

bool
attempts_salvage(Repository *repository, const char *cluster, BackupId **ids_out, size_t *count_out,
                 CairnError *err)
{
    SCOPED_MEMORY BackupId *ids = NULL;
    size_t count, found = 0;
    if (!attempts_list(repository, cluster, &ids, &count, err))
        return false;
    SCOPED_MEMORY BackupId *salvage = calloc(SALVAGE_LIMIT, sizeof *salvage);
    if (salvage == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = count; i-- > 0 && found < SALVAGE_LIMIT;) {
        AttemptState state;
        bool has = false;
        if (!attempt_state(repository, cluster, &ids[i], NULL, &state, err))
            return false;
        if (state == ATTEMPT_COMMITTED)
            break;
        if (state == ATTEMPT_REVOKED && !has_packs(repository, cluster, &ids[i], &has, err))
            return false;
        if (has)
            salvage[found++] = ids[i];
    }
    *ids_out = take(&salvage);
    *count_out = found;
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
        AttemptState state;
        if (!attempt_state(repository, cluster, &ids[i], fate_sha256_out, &state, err))
            return false;
        if (state == ATTEMPT_COMMITTED) {
            *bid_out = ids[i];
            return true;
        }
        /* Unfinished, revoked, or unreadable: verify and info report the last. */
    }
    memset(bid_out, 0, sizeof *bid_out);
    memset(fate_sha256_out, 0, SHA256_SIZE);
    return true;
}
