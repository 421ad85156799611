#include "repository/verify_intern.h"

#include "common/parallel.h"
#include "repository/evidence.h"
#include "repository/pin.h"
#include "repository/verify_memory.h"

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

static bool
read_object(VerifyWorker *worker, VerifyJob *job, CairnError *err)
{
    const Verify *verify = worker->verify;
    SCOPED(ObjectReader)
    reader =
        object_open_within(verify->repository, job->object, job->kind, OBJECT_SMALL_LIMIT, err);
    if (reader == NULL)
        return false;
    job->stored_size = object_stored_size(reader);
    progress_add(verify->options->progress, job->stored_size);
    return !job->reads_all || object_scrub(reader, err);
}

bool
verify_object(Verify *verify, const char *name, ObjectKind kind, const VerifySubject *subject,
              CairnError *err)
{
    VerifyJob job = {.read = read_object,
                     .kind = kind,
                     .may_vanish = subject->may_vanish,
                     .needed_by = subject->needed_by};
    snprintf(job.object, sizeof job.object, "%s", name);
    return verify_reads(verify, name, &job.reads_all, err) && verify_add(verify, &job, err);
}

int
verify_requests_at_once(const Verify *verify)
{
    return storage_requests_at_once(repository_storage(verify->repository));
}

bool
verify_has_refs(const Verify *verify, uint32_t index)
{
    const BackupCheck *check = &verify->checks[index];
    return check->wanted && !check->gone && !check->no_refs;
}

bool
verify_note_refs(Verify *verify, uint32_t index, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/%s/b/%s/refs", verify->options->cluster,
             verify->catalog->backups[index].bid.text);
    verify->checks[index].no_refs = true;
    return verify_note(verify, &(VerifySubject){.object = name, .needed_by = {&index, 1}}, err);
}

Refs *
verify_refs(Verify *verify, uint32_t index, CairnError *err)
{
    if (!verify_has_refs(verify, index))
        return NULL;
    Refs *refs = refs_read(verify->repository, verify->catalog->backups[index].fate, err);
    if (refs != NULL)
        return refs;
    /* When it is not for us to note, err stays filled: the caller ends. */
    const bool noted = verify_note_refs(verify, index, err);
    CAIRN_ASSERT(noted == (err->kind == CAIRN_OK));
    return NULL;
}

static bool
verify_descriptor(Verify *verify, CairnError *err)
{
    const VerifySubject subject = {.object = "pgcairn.repo"};
    return verify->options->selector != NULL ||
           verify_object(verify, subject.object, OBJECT_REPOSITORY, &subject, err);
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

/* Highest number of a sampled run, backup by backup. */
typedef struct {
    const Verify *verify;
    uint64_t *runs;
} RunNumbers;

static bool
read_run_number(void *context, size_t index, CairnError *err)
{
    const RunNumbers *numbers = context;
    const Verify *verify = numbers->verify;
    const BackupId *bid = &verify->catalog->backups[index].bid;
    if (!verify->checks[index].wanted)
        return true;
    SCOPED_MEMORY EvidenceList *list = malloc(sizeof *list);
    if (list == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!evidence_list_read(verify->repository, verify->options->cluster, bid, list, err))
        return false;
    numbers->runs[index] = evidence_highest_run(verify->repository, verify->options->cluster, bid,
                                                list, verify->options->slices);
    return true;
}

/* The slice after the one that was read last, by whomever: their evidence counts the runs. */
static bool
choose_slice(Verify *verify, CairnError *err)
{
    const size_t count = verify->catalog->count;
    SCOPED_MEMORY uint64_t *runs = calloc(count + 1, sizeof *runs);
    RunNumbers numbers = {verify, runs};
    uint64_t highest = 0;
    if (runs == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!parallel_each(count, verify_requests_at_once(verify), read_run_number, &numbers, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (runs[i] > highest)
            highest = runs[i];
    }
    verify->run = highest + 1;
    verify->slice = (uint32_t)(highest % verify->options->slices) + 1;
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
plan_memory(const Verify *verify, VerifyMemory *memory_out, CairnError *err)
{
    const VerifyOptions *options = verify->options;
    int jobs = options->jobs > 0 ? options->jobs : VERIFY_JOBS_DEFAULT;
    if (jobs > VERIFY_JOBS_LIMIT)
        jobs = VERIFY_JOBS_LIMIT;
    const StorageMemory storage = storage_memory(repository_storage(verify->repository));
    return verify_memory_plan(options->max_memory_bytes, storage.reader_bytes, jobs, memory_out,
                              err);
}

static bool
open_tools(Verify *verify, CairnError *err)
{
    VerifyMemory memory;
    if (!plan_memory(verify, &memory, err))
        return false;
    verify->nodes = map_cache_new(memory.node_bytes, err);
    verify->map_packs =
        verify->nodes != NULL
            ? map_packs_new(verify->repository, verify->options->cluster, memory.jobs, err)
            : NULL;
    verify->slots = verify->map_packs != NULL ? pack_slots_new(err) : NULL;
    if (verify->slots == NULL)
        return false;
    verify->checks = calloc(verify->catalog->count + 1, sizeof *verify->checks);
    verify->label_indexes = calloc(verify->catalog->count + 1, sizeof *verify->label_indexes);
    if (verify->checks == NULL || verify->label_indexes == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return verify_pool_begin(verify, memory.jobs, err);
}

static void
close_tools(Verify *verify)
{
    verify_pool_end(verify);
    for (size_t i = 0; verify->checks != NULL && i < verify->catalog->count; i++)
        free(verify->checks[i].objects);
    map_cache_free(verify->nodes);
    map_packs_free(verify->map_packs);
    pack_slots_free(verify->slots);
    damaged_packs_free(&verify->packs);
    free(verify->checks);
    free(verify->label_indexes);
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
    report->scrub_only = !repository_reads_data(repository);
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
