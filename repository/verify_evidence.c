/* What a run leaves behind: evidence beside each backup, and who is whole in the report. */
#include "repository/verify_intern.h"

#include "common/log.h"
#include "common/parallel.h"
#include "repository/evidence.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Damage that stood, or had ended, when this run began: what it has read since is news of that. */
static json_t *
seen_json(const CatalogBackup *backup)
{
    json_t *seen = json_array();
    for (size_t i = 0; i < backup->damage_count; i++)
        json_array_append_new(seen, json_string(backup->damages[i]));
    return seen;
}

static bool
add_evidence(Verify *verify, uint32_t index, const char *kind, json_t *result, CairnError *err)
{
    /* Whoever could say so of every backup could make retention let go of them. */
    if (strcmp(kind, "damaged") == 0 &&
        storage_is_create_only(repository_storage(verify->repository))) {
        log_warn("this connection is create-only, so the damage of backup %s is reported and not "
                 "recorded: run `pgcairn verify` on the repository host",
                 verify->catalog->backups[index].bid.text);
        json_decref(result);
        return true;
    }
    if (verify->options->scope == VERIFY_SAMPLE)
        json_object_set_new(result, "run", json_integer((json_int_t)verify->run));
    SCOPED_MEMORY char *text = json_dumps(result, JSON_COMPACT);
    json_decref(result);
    if (text == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return catalog_add_evidence(verify->repository, verify->options->cluster,
                                &verify->catalog->backups[index].bid, kind, verify->report->scope,
                                text, err);
}

/* Damaged packs that a summary names; *news_out: one of them is in no evidence yet. */
static json_t *
packs_json(const Verify *verify, const Refs *refs, const DamagedPacks *known, bool *news_out)
{
    json_t *packs = json_array();
    for (size_t i = 0; i < verify->packs.count; i++) {
        const DamagedPack *pack = &verify->packs.packs[i];
        char text[BACKUP_ID_LENGTH + 16];
        if (!refs_mention(refs, &pack->creator, false, pack->pack))
            continue;
        snprintf(text, sizeof text, "%s/%" PRIu32, pack->creator.text, pack->pack);
        json_array_append_new(packs, json_string(text));
        *news_out |= !damaged_packs_contain(known, &pack->creator, pack->pack);
    }
    return packs;
}

static json_t *
objects_json(const BackupCheck *check)
{
    json_t *objects = json_array();
    for (size_t i = 0; i < check->object_count && i < DAMAGE_OBJECTS_LISTED; i++)
        json_array_append_new(objects, json_string(check->objects[i]));
    return objects;
}

/* complete: no pack beyond those named is known to be damaged. */
static bool
add_damage(Verify *verify, uint32_t index, json_t *packs, bool complete, CairnError *err)
{
    const BackupCheck *check = &verify->checks[index];
    json_t *result =
        json_pack("{s:o, s:b, s:o, s:I}", "packs", packs, "packs_complete", complete, "objects",
                  objects_json(check), "object_count", (json_int_t)check->object_count);
    if (result == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return add_evidence(verify, index, "damaged", result, err);
}

/* Says it once: what stands in evidence already is not said again by every nightly run. */
static bool
record_damage(Verify *verify, uint32_t index, bool *added_out, CairnError *err)
{
    const CatalogBackup *backup = &verify->catalog->backups[index];
    SCOPED_DAMAGED_PACKS DamagedPacks known = {0};
    if (!damage_read(verify->repository, verify->options->cluster, &backup->bid, &known, err))
        return false;
    bool news = !known.standing;
    SCOPED(Refs) refs = verify_refs(verify, index, err);
    if (refs == NULL && err->kind != CAIRN_OK)
        return false;
    json_t *packs = refs != NULL ? packs_json(verify, refs, &known, &news) : json_array();
    const bool complete = refs != NULL && !verify->packs.all;
    news |= !complete && !known.all;
    *added_out = news;
    if (!news) {
        json_decref(packs);
        return true;
    }
    return add_damage(verify, index, packs, complete, err);
}

static bool
record_proof(Verify *verify, uint32_t index, CairnError *err)
{
    json_t *result = json_pack("{s:o}", "seen", seen_json(&verify->catalog->backups[index]));
    if (result == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    const char *kind = verify->report->scrub_only ? "scrubbed" : "verified";
    return add_evidence(verify, index, kind, result, err);
}

static void
report_damaged(VerifyReport *report, const CatalogBackup *backup)
{
    report->damaged_backups[report->damaged_backup_count++] =
        arena_strdup(report->arena, backup->fate->label);
}

/* Nothing is wrong with it in what this run has read; but it read not all, and damage that was
 * found before may stand. */
static bool
count_good(Verify *verify, const CatalogBackup *backup, CairnError *err)
{
    SCOPED_DAMAGED_PACKS DamagedPacks known = {0};
    if (backup->damage_count > 0 &&
        !damage_read(verify->repository, verify->options->cluster, &backup->bid, &known, err))
        return false;
    if (known.standing)
        report_damaged(verify->report, backup);
    else
        verify->report->good_backup_count++;
    return true;
}

static bool
is_proven(const Verify *verify, uint32_t index)
{
    const BackupCheck *check = &verify->checks[index];
    /* Whoever only scrubs proves nothing that slices could add up to. */
    const bool proves = verify->options->scope == VERIFY_FULL ||
                        (verify->options->scope == VERIFY_SAMPLE && !verify->report->scrub_only);
    return proves && check->wanted && !check->gone && !check->damaged && !check->unproven;
}

static bool
record_proof_of(void *context, size_t index, CairnError *err)
{
    Verify *verify = context;
    return !is_proven(verify, (uint32_t)index) || record_proof(verify, (uint32_t)index, err);
}

/* *added_out: evidence was written that carries the number of a sampled run. */
static bool
conclude_backup(Verify *verify, uint32_t index, bool *added_out, CairnError *err)
{
    const BackupCheck *check = &verify->checks[index];
    const CatalogBackup *backup = &verify->catalog->backups[index];
    verify->report->backup_count++;
    *added_out = is_proven(verify, index);
    if (check->damaged) {
        report_damaged(verify->report, backup);
        return record_damage(verify, index, added_out, err);
    }
    if (check->unproven)
        return true; /* nothing is proven either way */
    return count_good(verify, backup, err);
}

/* Where no backup got evidence of a sampled run, a note says that it took place: else an unreadable
 * object would hold the rotation up, and the rest would never be read. */
static bool
note_run(Verify *verify, CairnError *err)
{
    for (uint32_t i = (uint32_t)verify->catalog->count; i-- > 0;) {
        if (!verify->checks[i].wanted || verify->checks[i].gone)
            continue;
        json_t *result = json_object();
        if (result == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return add_evidence(verify, i, "sampled", result, err);
    }
    return true;
}

/* A backup that was made while we read, on packs that we found damaged. */
static bool
conclude_latecomer(Verify *verify, const CatalogBackup *backup, CairnError *err)
{
    const DamagedPacks nothing_known = {0};
    bool hit = false;
    SCOPED(Refs) refs = refs_read(verify->repository, backup->fate, err);
    if (refs == NULL) {
        cairn_error_clear(err); /* the next run is about it */
        return true;
    }
    json_t *packs = packs_json(verify, refs, &nothing_known, &hit);
    if (!hit) {
        json_decref(packs);
        return true;
    }
    char object[STORAGE_NAME_LIMIT];
    snprintf(object, sizeof object, "c/%s/b/%s", verify->options->cluster, backup->bid.text);
    cairn_error(err, CAIRN_CORRUPT,
                "backup %s was made meanwhile and needs %zu packs that are missing or damaged",
                backup->fate->label, json_array_size(packs));
    if (!verify_note(verify, &(VerifySubject){.object = object}, err)) {
        json_decref(packs);
        return false;
    }
    report_damaged(verify->report, backup);
    json_t *result = json_pack("{s:o, s:b, s:[], s:i}", "packs", packs, "packs_complete",
                               !verify->packs.all, "objects", "object_count", 0);
    SCOPED_MEMORY char *text = result != NULL ? json_dumps(result, JSON_COMPACT) : NULL;
    json_decref(result);
    return text != NULL ? catalog_add_evidence(verify->repository, verify->options->cluster,
                                               &backup->bid, "damaged", "quick", text, err)
                        : cairn_error(err, CAIRN_INTERNAL, "out of memory");
}

static bool
knows(const Catalog *catalog, const BackupId *bid)
{
    for (size_t i = 0; i < catalog->count; i++) {
        if (backup_id_equal(&catalog->backups[i].bid, bid))
            return catalog->backups[i].presence == BACKUP_COMMITTED;
    }
    return false;
}

/* A new backup may have trusted what we had not read yet. */
static bool
conclude_latecomers(Verify *verify, CairnError *err)
{
    if (verify->packs.count == 0 || verify->options->selector != NULL)
        return true;
    SCOPED(Catalog) now = catalog_read(verify->repository, verify->options->cluster, err);
    if (now == NULL)
        return false;
    const size_t room = verify->report->damaged_backup_count + now->count;
    const char **labels = arena_alloc(verify->report->arena, (room + 1) * sizeof *labels);
    memcpy(labels, verify->report->damaged_backups,
           verify->report->damaged_backup_count * sizeof *labels);
    verify->report->damaged_backups = labels;
    for (size_t i = 0; i < now->count; i++) {
        const CatalogBackup *backup = &now->backups[i];
        if (backup->presence == BACKUP_COMMITTED && !knows(verify->catalog, &backup->bid) &&
            !conclude_latecomer(verify, backup, err))
            return false;
    }
    return true;
}

bool
verify_conclude(Verify *verify, CairnError *err)
{
    /* Proofs come first: damage that was found before ends with them, and is counted after. */
    const int at_once = verify_requests_at_once(verify);
    if (!verify_look_who_is_left(verify, err) ||
        !parallel_each(verify->catalog->count, at_once, record_proof_of, verify, err))
        return false;
    bool counted = false;
    VerifyReport *report = verify->report;
    report->damaged_backups =
        arena_alloc(report->arena, (verify->catalog->count + 1) * sizeof *report->damaged_backups);
    for (uint32_t i = 0; i < verify->catalog->count; i++) {
        bool added;
        if (!verify->checks[i].wanted || verify->checks[i].gone)
            continue;
        if (!conclude_backup(verify, i, &added, err))
            return false;
        counted |= added;
    }
    if (verify->options->scope == VERIFY_SAMPLE && !counted && !note_run(verify, err))
        return false;
    return conclude_latecomers(verify, err);
}
