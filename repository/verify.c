#include "repository/verify_intern.h"

#include "repository/evidence.h"
#include "repository/pin.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void
verify_report_free(VerifyReport *report)
{
    if (report == NULL)
        return;
    arena_free(report->arena);
    free(report);
}

/* Docs/format.md says so, and evidence of every version means the same by it. */
bool
verify_slice_of(const char *name, uint32_t slices, uint32_t *slice_out, CairnError *err)
{
    uint8_t digest[SHA256_SIZE];
    CAIRN_ASSERT(slices > 0);
    if (!sha256_of(name, strlen(name), digest, err))
        return false;
    *slice_out = 1 + (uint32_t)(get_u64(digest) % slices);
    return true;
}

bool
verify_reads(Verify *verify, const char *name, bool *reads_out, CairnError *err)
{
    uint32_t slice = 0;
    if (verify->options->scope == VERIFY_SAMPLE &&
        !verify_slice_of(name, verify->options->slices, &slice, err))
        return false;
    *reads_out = verify->options->scope == VERIFY_FULL ||
                 (verify->options->scope == VERIFY_SAMPLE && slice == verify->slice);
    return true;
}

bool
verify_object(Verify *verify, const char *name, ObjectKind kind, const VerifySubject *subject,
              bool *ok_out, CairnError *err)
{
    bool reads;
    *ok_out = false;
    verify->report->object_count++;
    SCOPED(ObjectReader) reader = object_open(verify->repository, name, kind, err);
    if (reader == NULL)
        return verify_note(verify, subject, err);
    verify->report->byte_count += object_stored_size(reader);
    progress_add(verify->options->progress, object_stored_size(reader));
    progress_draw(verify->options->progress);
    if (!verify_reads(verify, name, &reads, err))
        return false;
    if (reads && !object_scrub(reader, err))
        return verify_note(verify, subject, err);
    *ok_out = true;
    return true;
}

Refs *
verify_refs(Verify *verify, uint32_t index, CairnError *err)
{
    BackupCheck *check = &verify->checks[index];
    if (!check->wanted || check->gone || check->no_refs)
        return NULL;
    const CatalogBackup *backup = &verify->catalog->backups[index];
    Refs *refs = refs_read(verify->repository, backup->fate, err);
    if (refs != NULL)
        return refs;
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/%s/b/%s/refs", verify->options->cluster, backup->bid.text);
    check->no_refs = true;
    /* When it is not for us to note, err stays filled: the caller ends. */
    const bool noted =
        verify_note(verify, &(VerifySubject){.object = name, .needed_by = {&index, 1}}, err);
    CAIRN_ASSERT(noted == (err->kind == CAIRN_OK));
    return NULL;
}

/* Small objects beside the packs: intent, marks, evidence. What is none of ours is left alone. */
typedef struct {
    Verify *verify;
    char prefix[STORAGE_NAME_LIMIT];
    uint32_t index;
} SmallWalk;

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

static StorageListNext
verify_small(void *context, const StorageEntry *entry, CairnError *err)
{
    SmallWalk *walk = context;
    Verify *verify = walk->verify;
    ObjectKind kind;
    char name[STORAGE_NAME_LIMIT + 256];
    bool ok;
    if (entry->is_directory || !small_kind(entry->name, &kind))
        return STORAGE_LIST_GO_ON;
    int size = snprintf(name, sizeof name, "%s/%s", walk->prefix, entry->name);
    if (size < 0 || (size_t)size >= STORAGE_NAME_LIMIT)
        return STORAGE_LIST_GO_ON;
    const bool needed = verify->checks[walk->index].wanted && rests_on(kind);
    const VerifySubject subject = {
        .object = name, .needed_by = {&walk->index, needed}, .may_vanish = true};
    if (kind == OBJECT_REFS && needed) {
        verify->report->object_count++; /* verify_refs reads it */
        verify->report->byte_count += entry->size_bytes;
        return STORAGE_LIST_GO_ON;
    }
    return verify_object(verify, name, kind, &subject, &ok, err) ? STORAGE_LIST_GO_ON
                                                                 : STORAGE_LIST_FAILED;
}

static bool
verify_small_objects(Verify *verify, CairnError *err)
{
    for (uint32_t i = 0; i < verify->catalog->count; i++) {
        if (verify->options->selector != NULL && !verify->checks[i].wanted)
            continue;
        SmallWalk walk = {.verify = verify, .index = i};
        snprintf(walk.prefix, sizeof walk.prefix, "c/%s/b/%s", verify->options->cluster,
                 verify->catalog->backups[i].bid.text);
        if (!storage_list(repository_storage(verify->repository), walk.prefix, verify_small, &walk,
                          err))
            return false;
    }
    return true;
}

static bool
verify_descriptor(Verify *verify, CairnError *err)
{
    bool ok;
    const VerifySubject subject = {.object = "pgcairn.repo"};
    return verify->options->selector != NULL ||
           verify_object(verify, subject.object, OBJECT_REPOSITORY, &subject, &ok, err);
}

/* Which backups this run is about. */
static bool
choose_backups(Verify *verify, CairnError *err)
{
    const Catalog *catalog = verify->catalog;
    const CatalogBackup *chosen = NULL;
    if (verify->options->selector != NULL) {
        chosen = catalog_find(catalog, verify->options->selector, err);
        if (chosen == NULL)
            return false;
    }
    for (size_t i = 0; i < catalog->count; i++) {
        const CatalogBackup *backup = &catalog->backups[i];
        verify->checks[i].wanted =
            backup->presence == BACKUP_COMMITTED && (chosen == NULL || chosen == backup);
    }
    return true;
}

/* The slice after the one that was read last, by whomever: their evidence counts the runs. */
static bool
choose_slice(Verify *verify, CairnError *err)
{
    const uint32_t slices = verify->options->slices;
    SCOPED_MEMORY EvidenceList *list = malloc(sizeof *list);
    uint64_t highest = 0;
    if (list == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < verify->catalog->count; i++) {
        const BackupId *bid = &verify->catalog->backups[i].bid;
        if (!verify->checks[i].wanted)
            continue;
        if (!evidence_list_read(verify->repository, verify->options->cluster, bid, list, err))
            return false;
        const uint64_t run =
            evidence_highest_run(verify->repository, verify->options->cluster, bid, list, slices);
        if (run > highest)
            highest = run;
    }
    verify->run = highest + 1;
    verify->slice = (uint32_t)(highest % slices) + 1;
    return true;
}

static bool
choose_scope(Verify *verify, CairnError *err)
{
    char *scope = verify->report->scope;
    const size_t size = sizeof verify->report->scope;
    if (verify->options->scope != VERIFY_SAMPLE) {
        snprintf(scope, size, "%s", verify->options->scope == VERIFY_FULL ? "full" : "quick");
        return true;
    }
    if (!choose_slice(verify, err))
        return false;
    snprintf(scope, size, "sample %" PRIu32 "/%" PRIu32, verify->slice, verify->options->slices);
    return true;
}

static bool
check_options(const VerifyOptions *options, CairnError *err)
{
    if (options->scope != VERIFY_SAMPLE)
        return true;
    if (options->selector != NULL)
        return cairn_error(err, CAIRN_USAGE, "a sample is taken of everything, not of one backup");
    if (options->slices < EVIDENCE_SLICES_MIN || options->slices > EVIDENCE_SLICES_MAX)
        return cairn_error(err, CAIRN_USAGE, "a sample is one of %d to %d slices",
                           EVIDENCE_SLICES_MIN, EVIDENCE_SLICES_MAX);
    return true;
}

static bool
open_tools(Verify *verify, CairnError *err)
{
    verify->codec = repository_codec(verify->repository, err);
    if (verify->codec == NULL)
        return false;
    verify->fingerprints = repository_digest(verify->repository, DIGEST_FINGERPRINT, err);
    if (verify->fingerprints == NULL)
        return false;
    verify->nodes = map_cache_new(VERIFY_NODE_CACHE, err);
    if (verify->nodes == NULL)
        return false;
    verify->checks = calloc(verify->catalog->count + 1, sizeof *verify->checks);
    verify->label_indexes = calloc(verify->catalog->count + 1, sizeof *verify->label_indexes);
    verify->slots = calloc(PACK_SLOTS_KNOWN, sizeof *verify->slots);
    verify->raw = malloc(FRAME_SIZE);
    verify->stored = malloc(OBJECT_FRAME_LIMIT);
    if (verify->checks == NULL || verify->label_indexes == NULL || verify->slots == NULL ||
        verify->raw == NULL || verify->stored == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return true;
}

static void
close_tools(Verify *verify)
{
    if (verify->codec != NULL)
        codec_close(verify->codec);
    for (size_t i = 0; verify->checks != NULL && i < verify->catalog->count; i++)
        free(verify->checks[i].objects);
    keyed_digest_free(verify->fingerprints);
    map_cache_free(verify->nodes);
    damaged_packs_free(&verify->packs);
    free(verify->checks);
    free(verify->label_indexes);
    free(verify->slots);
    free(verify->raw);
    free(verify->stored);
}

VerifyReport *
verify_run(Repository *repository, const VerifyOptions *options, CairnError *err)
{
    if (!check_options(options, err))
        return NULL;
    SCOPED(Catalog) catalog = catalog_read(repository, options->cluster, err);
    if (catalog == NULL)
        return NULL;
    SCOPED(Pin) pin = NULL; /* what expires meanwhile is not found damaged */
    if (!pin_catalog_or_warn(repository, options->cluster, "verify", catalog, &pin, err))
        return NULL;
    SCOPED(VerifyReport) report = calloc(1, sizeof *report);
    CAIRN_ASSERT(report != NULL);
    report->arena = arena_new();
    report->findings =
        arena_alloc(report->arena, VERIFY_FINDINGS_LISTED * sizeof *report->findings);

    __attribute__((cleanup(close_tools))) Verify verify = {
        .repository = repository, .options = options, .catalog = catalog, .report = report};
    if (!open_tools(&verify, err) || !choose_backups(&verify, err) || !choose_scope(&verify, err))
        return NULL;
    if (!verify_descriptor(&verify, err) || !verify_small_objects(&verify, err) ||
        !verify_packs(&verify, err) || !verify_maps(&verify, err) || !verify_wal(&verify, err) ||
        !verify_conclude(&verify, err))
        return NULL;
    return take(&report);
}
