#include "repository/commit.h"

#include "common/timestamp.h"
#include "repository/attempts.h"
#include "repository/claim.h"
#include "repository/host.h"
#include "repository/json.h"
#include "repository/pack.h"
#include "repository/refs.h"

#include <stdio.h>
#include <string.h>

/*
 * What a crash right after each step leaves:
 *
 *  P1 intent durable            an unfinished attempt; collectors keep whatever it might name
 *     claim                    each source may be referred to: the intent keeps it from now on
 *  P2 packs durable             some packs that nothing refers to
 *  P3 map packs, refs durable   the same
 *  P4 directories synced        storage_commit did it with each object; those of salvage sources
 *                               are synced now
 *  P5 last look                 our intent still stands; the directories above it are synced again,
 *                               whoever made them
 *  P6 fate created once         no fate: no backup. A fate: everything it names is durable already,
 *                               so both outcomes of a power cut before P7 are consistent
 *  P7 directory synced          only now success is reported
 *
 * P6 answers CONFLICT when somebody revoked us meanwhile: the slot is single-use, so a writer that
 * slept through its own revocation can never publish a backup whose packs may be gone.
 */
struct Commit {
    Repository *repository;
    CommitOptions options; /* parent and salvage point at what follows */
    BackupId parent;
    BackupId *salvage;
    BackupId bid;
    char token[17];
    bool intent_written;
    bool drop_packs;
    bool decided; /* a commit record exists, or may exist: nothing is to be revoked or removed any
                     more */
};

static void
object_name(const Commit *commit, const char *last, char *name)
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/b/%s/%s", commit->options.cluster, commit->bid.text,
             last);
}

/* Everything that the attempt may refer to beside what it makes itself. */
static json_t *
salvage_json(const CommitOptions *options)
{
    json_t *array = json_array();
    for (size_t i = 0; i < options->salvage_count && array != NULL; i++) {
        if (json_array_append_new(array, json_string(options->salvage[i].text)) != 0) {
            json_decref(array);
            return NULL; /* a list that lost an entry would leave its packs to a collector */
        }
    }
    return array;
}

static bool
write_intent(Commit *commit, CairnError *err)
{
    const World *world = repository_world(commit->repository);
    const CommitOptions *options = &commit->options;
    Host self;
    host_self(&self);
    SCOPED_JSON json_t *intent =
        json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:s, s:o, s:i, s:s, s:o, s:o, s:o}", "token",
                  commit->token, "host", self.host, "machine_id", self.machine_id, "boot_id",
                  self.boot_id, "pid", self.pid, "process_start", json_u64_text(self.process_start),
                  "started_at", json_time(world->clock->wall_us(world->clock)), "program",
                  "pgcairn " PGCAIRN_VERSION, "system_id", json_u64_text(options->system_id),
                  "major", options->major, "type", options->type, "parent",
                  options->parent != NULL ? json_string(options->parent->text) : json_null(),
                  "salvage", salvage_json(options), "wal_floor",
                  options->wal_floor_lsn != 0 ? json_lsn(options->wal_floor_lsn) : json_null());
    char name[STORAGE_NAME_LIMIT];
    object_name(commit, "intent", name);
    if (!json_put(commit->repository, name, OBJECT_INTENT, backup_id_sequence(&commit->bid), intent,
                  NULL, err))
        return cairn_error_wrap(err, "unable to write the intent of backup %s", commit->bid.text);
    commit->intent_written = true;
    return true;
}

static bool
copy_options(Commit *commit, const CommitOptions *options, CairnError *err)
{
    commit->options = *options;
    if (options->parent != NULL) {
        commit->parent = *options->parent;
        commit->options.parent = &commit->parent;
    }
    commit->salvage = calloc(options->salvage_count + 1, sizeof *commit->salvage);
    if (commit->salvage == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (options->salvage_count > 0)
        memcpy(commit->salvage, options->salvage, options->salvage_count * sizeof *commit->salvage);
    commit->options.salvage = commit->salvage;
    return true;
}

/* After the intent is durable, on no account before: see claim.h. */
static bool
check_claim(const Commit *commit, CairnError *err)
{
    return claim_check(commit->repository, commit->options.cluster,
                       &(ClaimSources){.parent = commit->options.parent,
                                       .salvage = commit->options.salvage,
                                       .salvage_count = commit->options.salvage_count},
                       err);
}

Commit *
commit_begin(Repository *repository, const CommitOptions *options, CairnError *err)
{
    SCOPED(Commit) commit = calloc(1, sizeof *commit);
    if (commit == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    commit->repository = repository;
    if (!copy_options(commit, options, err) ||
        !attempts_revoke_dead(repository, options->cluster, err) ||
        !random_token(repository_world(repository), commit->token, err) ||
        !attempts_next_id(repository, options->cluster, &commit->bid, err) ||
        !write_intent(commit, err) || !check_claim(commit, err))
        return NULL;
    return take(&commit);
}

void
commit_drop_packs(Commit *commit)
{
    commit->drop_packs = true;
}

void
commit_free(Commit *commit)
{
    if (commit == NULL)
        return;
    if (commit->intent_written && !commit->decided) {
        attempts_abandon(commit->repository, commit->options.cluster, &commit->bid, commit->token,
                         "the backup failed", !commit->drop_packs);
    }
    free(commit->salvage);
    free(commit);
}

const BackupId *
commit_id(const Commit *commit)
{
    return &commit->bid;
}

const char *
commit_token(const Commit *commit)
{
    return commit->token;
}

/* P5. An intent that vanished or changed means that somebody works on this attempt outside the
 * protocol. */
static bool
last_look(Commit *commit, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    object_name(commit, "intent", name);
    SCOPED_JSON json_t *intent = json_get(commit->repository, name, OBJECT_INTENT, NULL, err);
    if (intent == NULL)
        return cairn_error_wrap(err, "last look before the commit of backup %s", commit->bid.text);
    JsonReader fields = json_reader(intent, name, err);
    const char *token = json_read_text(&fields, "token");
    if (fields.failed)
        return false;
    if (strcmp(token, commit->token) != 0)
        return cairn_error(err, CAIRN_REFUSED, "the intent of backup %s is not ours any more",
                           commit->bid.text);
    /* `c/<cluster>/b` may be the work of a process that died before it synced what it made. */
    return storage_make_durable(repository_storage(commit->repository), name, err);
}

static bool
is_salvage(const Commit *commit, const BackupId *creator)
{
    for (size_t i = 0; i < commit->options.salvage_count; i++) {
        if (backup_id_equal(&commit->salvage[i], creator))
            return true;
    }
    return false;
}

/* P4 for what is not ours: a dead attempt may have died, or its disk failed, between a pack's name
   and the sync of its directory. A parent's packs were durable before its fate. The summary says
   which packs these are; a listing may be too old to have them. */
static bool
sync_salvage(const Commit *commit, const Fate *fate, CairnError *err)
{
    if (commit->options.salvage_count == 0)
        return true;
    SCOPED(Refs) refs = refs_read(commit->repository, fate, err);
    if (refs == NULL)
        return false;
    for (size_t i = 0; i < refs->count; i++) {
        const RefsRange *range = &refs->ranges[i];
        for (uint32_t k = 0; k < range->pack_count && is_salvage(commit, &range->creator); k++) {
            char name[STORAGE_NAME_LIMIT];
            (range->is_map ? map_pack_name : pack_name)(name, fate->cluster, &range->creator,
                                                        range->first_pack + k);
            if (!storage_make_durable(repository_storage(commit->repository), name, err))
                return cairn_error_wrap(err, "unable to sync a pack of the dead attempt %s",
                                        range->creator.text);
        }
    }
    return true;
}

/* The slot is taken: by our own commit whose answer was lost, or by somebody who revoked us. */
static bool
settle_conflict(Commit *commit, const Fate *fate, CairnError *err)
{
    cairn_error_clear(err);
    SCOPED(Fate)
    found = fate_read(commit->repository, commit->options.cluster, &commit->bid, NULL, err);
    if (found == NULL)
        return false;
    if (found->committed && strcmp(found->token, fate->token) == 0) {
        char name[STORAGE_NAME_LIMIT];
        object_name(commit, "fate", name);
        return storage_make_durable(repository_storage(commit->repository), name, err);
    }
    cairn_error(err, CAIRN_REFUSED, "backup %s was revoked by another process", commit->bid.text);
    return cairn_error_hint(err, "run the backup again");
}

bool
commit_publish(Commit *commit, Fate *fate, CairnError *err)
{
    CAIRN_ASSERT(strcmp(fate->cluster, commit->options.cluster) == 0);
    fate->bid = commit->bid;
    memcpy(fate->token, commit->token, sizeof fate->token);
    if (!attempts_newest_committed(commit->repository, commit->options.cluster, &fate->previous_bid,
                                   fate->previous_sha256, err) ||
        !sync_salvage(commit, fate, err) || !last_look(commit, err) || !check_claim(commit, err))
        return false;
    if (fate_commit(commit->repository, fate, err) ||
        (err->kind == CAIRN_CONFLICT && settle_conflict(commit, fate, err))) {
        commit->decided = true;
        return true;
    }
    /* A failure between link and directory sync leaves a fate that may survive: reading tells. When
       it is there it is a whole backup, so nothing of it may be removed. */
    CairnError ignored = {0};
    SCOPED(Fate)
    found = fate_read(commit->repository, commit->options.cluster, &commit->bid, NULL, &ignored);
    bool revoked = found != NULL && !found->committed;
    commit->decided = !revoked && ignored.kind != CAIRN_NOT_FOUND;
    return cairn_error_wrap(err, "unable to commit backup %s", commit->bid.text);
}
