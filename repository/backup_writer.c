#include "repository/backup_writer.h"

#include "common/log.h"
#include "repository/attempts.h"
#include "repository/backup_base.h"
#include "repository/commit.h"
#include "repository/object.h"
#include "repository/pack.h"
#include "repository/pack_pipeline.h"

#include <stdio.h>
#include <string.h>

enum {
    JOB_MEMORY = 544 << 10,  /* raw and stored buffer of one job in flight */
    FIXED_MEMORY = 18 << 20, /* libraries, libpq, map sort and nodes */
    DIRECTORIES_MEMORY = 3 * PACK_DIRECTORY_LIMIT,
    BASE_MEMORY = 4 << 20, /* of the parent and of salvage, beside fingerprints */
    FINGERPRINTS_MEMORY_MIN = 2 << 20,
    WORKER_MEMORY = 1 << 20, /* codec state and stack */
    DEFAULT_MEMORY = 64 << 20,
    JOBS_A_WORKER_MIN = 2,
    JOBS_A_WORKER_MAX = 3,
    /* Where the storage holds objects in memory. Beside the packs that are on their way, one waits,
       one is filled, and one is the map's. */
    HELD_PACK_MIN = 2 << 20,
    HELD_PACK_MAX = 16 << 20,
    HELD_FINISHERS_MIN = 2,
    HELD_FINISHERS_MAX = 8,
    HELD_OTHERS = 3,
    HELD_DIRECTORY_SHARE = 8, /* of a pack, at most, and as much while it is put together */
};

struct BackupWriter {
    Repository *repository;
    BackupWriterOptions options;
    Commit *commit;
    BackupBase *base;
    MapBuilder *map;
    PackPipeline *pipeline;
    const char *type;
    BackupId parent;           /* "": none */
    CairnError parent_problem; /* why there is no parent although one was asked for */
    BackupCounts counts;
};

/* What the memory is for. */
typedef struct {
    size_t jobs_in_flight;
    size_t fingerprints_bytes;
    PackPlan packs;
} MemoryPlan;

/* What so many packs of a size take that are held until they are stored. */
static uint64_t
held_bytes(int finishers, uint64_t pack_size)
{
    const uint64_t each = pack_size + JOB_MEMORY + 2 * pack_size / HELD_DIRECTORY_SHARE;
    return ((uint64_t)finishers + HELD_OTHERS) * each;
}

/* How large packs get. bytes: what may be spent on holding them. Larger ones first, then more at
 * once. */
static PackPlan
plan_held_packs(uint64_t bytes)
{
    PackPlan plan = {.pack_size = HELD_PACK_MIN, .finishers = HELD_FINISHERS_MIN};
    while (plan.pack_size + (1 << 20) <= HELD_PACK_MAX &&
           held_bytes(plan.finishers, plan.pack_size + (1 << 20)) <= bytes)
        plan.pack_size += 1 << 20;
    while (plan.finishers < HELD_FINISHERS_MAX &&
           held_bytes(plan.finishers + 1, plan.pack_size) <= bytes)
        plan.finishers++;
    plan.directory_limit = plan.pack_size / HELD_DIRECTORY_SHARE;
    return plan;
}

/* First what must be, then packs where they are held, fingerprints of earlier packs, then as many
 * jobs in flight as are of use. compares: there is a parent, or salvage. */
static bool
plan_memory(const BackupWriterOptions *options, StorageMemory storage, bool compares,
            MemoryPlan *plan_out, CairnError *err)
{
    const bool held = storage.writer_bytes > 0;
    uint64_t limit = options->max_memory_bytes != 0 ? options->max_memory_bytes : DEFAULT_MEMORY;
    uint64_t jobs = (uint64_t)options->jobs;
    uint64_t fixed = FIXED_MEMORY + jobs * WORKER_MEMORY + storage.reader_bytes +
                     (compares ? BASE_MEMORY + FINGERPRINTS_MEMORY_MIN : 0) +
                     (held ? held_bytes(HELD_FINISHERS_MIN, HELD_PACK_MIN) : DIRECTORIES_MEMORY);
    uint64_t least = fixed + (jobs * JOBS_A_WORKER_MIN + 2) * JOB_MEMORY;
    if (limit < least) {
        cairn_error(err, CAIRN_USAGE, "%llu MiB of memory are too little for %d workers",
                    (unsigned long long)(limit >> 20), options->jobs);
        return cairn_error_hint(err, "use --max-memory=%lluMiB or more, or fewer --jobs",
                                (unsigned long long)((least >> 20) + 1));
    }
    PackPlan packs = {PACK_TARGET_SIZE, PACK_DIRECTORY_LIMIT, 1};
    if (held) {
        const uint64_t first = held_bytes(HELD_FINISHERS_MIN, HELD_PACK_MIN);
        packs = plan_held_packs(first + (limit - least));
        const uint64_t beyond = held_bytes(packs.finishers, packs.pack_size) - first;
        fixed += beyond;
        least += beyond;
    }
    uint64_t more = limit - least;
    if (more > FINGERPRINTS_MEMORY - FINGERPRINTS_MEMORY_MIN)
        more = FINGERPRINTS_MEMORY - FINGERPRINTS_MEMORY_MIN;
    if (!compares)
        more = 0;
    uint64_t in_flight = (limit - fixed - more) / JOB_MEMORY;
    uint64_t most = jobs * JOBS_A_WORKER_MAX + 2;
    *plan_out = (MemoryPlan){.jobs_in_flight = (size_t)(in_flight < most ? in_flight : most),
                             .fingerprints_bytes = FINGERPRINTS_MEMORY_MIN + (size_t)more,
                             .packs = packs};
    return true;
}

static bool
start_pipeline(BackupWriter *writer, const MemoryPlan *plan, CairnError *err)
{
    const BackupWriterOptions *options = &writer->options;
    writer->map = map_builder_new(writer->repository, options->cluster, commit_id(writer->commit),
                                  options->scratch_directory, err);
    if (writer->map == NULL)
        return false;
    const MapSources sources = backup_base_map_sources(writer->base);
    map_builder_draw_on(writer->map, &sources);
    map_builder_limit_packs(writer->map, plan->packs.pack_size);
    writer->pipeline = pack_pipeline_start(
        &(PackPipelineOptions){
            .repository = writer->repository,
            .cluster = options->cluster,
            .bid = commit_id(writer->commit),
            .map = writer->map,
            .source = backup_base_units(writer->base),
            .jobs = options->jobs,
            .jobs_in_flight = plan->jobs_in_flight,
            .packs = plan->packs,
            .check = options->check,
            .check_context = options->check_context,
        },
        err);
    return writer->pipeline != NULL;
}

/* The intent names whom the backup may draw on before any of it is read: a collector either sees
 * that, or we see what it condemned. */
static bool
begin_commit(BackupWriter *writer, const Fate *parent, const BackupId *salvage,
             size_t salvage_count, CairnError *err)
{
    const BackupWriterOptions *options = &writer->options;
    writer->commit = commit_begin(writer->repository,
                                  &(CommitOptions){
                                      .cluster = options->cluster,
                                      .system_id = options->system_id,
                                      .major = options->major,
                                      .type = parent != NULL ? options->type : "full",
                                      .wal_floor_lsn = options->wal_floor_lsn,
                                      .parent = parent != NULL ? &parent->bid : NULL,
                                      .salvage = salvage,
                                      .salvage_count = salvage_count,
                                  },
                                  err);
    return writer->commit != NULL;
}

/* Begins the attempt; where its sources are being collected, once more without any. */
static bool
claim(BackupWriter *writer, const Fate **parent, const BackupId *salvage, size_t *salvage_count,
      CairnError *err)
{
    if (begin_commit(writer, *parent, salvage, *salvage_count, err))
        return true;
    if (err->kind != CAIRN_REFUSED || (*parent == NULL && *salvage_count == 0))
        return false;
    if (*parent != NULL)
        writer->parent_problem = *err;
    cairn_error_clear(err);
    *parent = NULL;
    *salvage_count = 0;
    return begin_commit(writer, NULL, NULL, 0, err);
}

static bool
open_base(BackupWriter *writer, CairnError *err)
{
    const BackupWriterOptions *options = &writer->options;
    SCOPED_MEMORY BackupId *salvage = NULL;
    size_t salvage_count = 0;
    const StorageMemory storage = storage_memory(repository_storage(writer->repository));
    MemoryPlan plan;
    const Fate *parent = options->parent;
    if (!attempts_revoke_dead(writer->repository, options->cluster, err) ||
        !attempts_salvage(writer->repository, options->cluster, &salvage, &salvage_count, err))
        return false;
    if (parent == NULL && salvage_count > 0 && !plan_memory(options, storage, true, &plan, err)) {
        log_info("nothing is salvaged: %s", err->message); /* a full backup can do without */
        cairn_error_clear(err);
        salvage_count = 0;
    }
    if (!plan_memory(options, storage, parent != NULL || salvage_count > 0, &plan, err) ||
        !claim(writer, &parent, salvage, &salvage_count, err))
        return false;
    writer->base =
        backup_base_open(&(BackupBaseOptions){.repository = writer->repository,
                                              .cluster = options->cluster,
                                              .bid = commit_id(writer->commit),
                                              .parent = parent,
                                              .salvage = salvage,
                                              .salvage_count = salvage_count,
                                              .scratch_directory = options->scratch_directory,
                                              .refresh_percent = options->refresh_percent},
                         &writer->parent_problem, err);
    if (writer->base == NULL)
        return false;
    writer->type = backup_base_has_parent(writer->base) ? options->type : "full";
    if (backup_base_has_parent(writer->base))
        writer->parent = parent->bid;
    if (salvage_count > 0)
        log_info("what %zu revoked attempts left is used where it is still the same",
                 salvage_count);
    return start_pipeline(writer, &plan, err);
}

BackupWriter *
backup_writer_begin(Repository *repository, const BackupWriterOptions *options, CairnError *err)
{
    MemoryPlan plan;
    CAIRN_ASSERT(options->parent == NULL || options->type != NULL);
    /* Before anything is asked of the storage: what cannot work is refused at once. */
    if (!plan_memory(options, storage_memory(repository_storage(repository)),
                     options->parent != NULL, &plan, err))
        return NULL;
    SCOPED(BackupWriter) writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    writer->repository = repository;
    writer->options = *options;
    if (!open_base(writer, err))
        return NULL;
    writer->options.parent = NULL; /* borrowed for this call */
    return take(&writer);
}

void
backup_writer_free(BackupWriter *writer)
{
    if (writer == NULL)
        return;
    pack_pipeline_free(writer->pipeline);
    map_builder_free(writer->map);
    backup_base_free(writer->base);
    commit_free(writer->commit); /* the last: its packs are removed when nobody writes any more */
    free(writer);
}

const BackupId *
backup_writer_id(const BackupWriter *writer)
{
    return commit_id(writer->commit);
}

const char *
backup_writer_type(const BackupWriter *writer, const char **why_full_out)
{
    *why_full_out = writer->parent_problem.kind != CAIRN_OK ? writer->parent_problem.message : NULL;
    return writer->type;
}

const BackupCounts *
backup_writer_counts(const BackupWriter *writer)
{
    return &writer->counts;
}

/* Where the disk is full, what was stored would stand in the way of the next run: it goes. */
static bool
noted(BackupWriter *writer, bool good, const CairnError *err)
{
    if (!good && err->kind == CAIRN_NO_SPACE)
        commit_drop_packs(writer->commit);
    return good;
}

bool
backup_writer_directory(BackupWriter *writer, MapClass class, const char *path, uint32_t mode,
                        CairnError *err)
{
    return noted(writer, pack_pipeline_directory(writer->pipeline, class, path, mode, err), err);
}

bool
backup_writer_file_begin(BackupWriter *writer, MapClass class, const char *path, uint32_t mode,
                         CairnError *err)
{
    return noted(writer, pack_pipeline_file_begin(writer->pipeline, class, path, mode, err), err);
}

bool
backup_writer_data(BackupWriter *writer, const void *data, size_t size, CairnError *err)
{
    return noted(writer, pack_pipeline_data(writer->pipeline, data, size, err), err);
}

bool
backup_writer_file_end(BackupWriter *writer, uint64_t *size_out, uint32_t *crc32c_out,
                       CairnError *err)
{
    return noted(writer, pack_pipeline_file_end(writer->pipeline, size_out, crc32c_out, err), err);
}

static bool
write_refs(BackupWriter *writer, uint8_t digest_out[SHA256_SIZE], CairnError *err)
{
    const BackupId *bid = commit_id(writer->commit);
    SCOPED_BYTES ByteWriter refs = {0};
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/%s/b/%s/refs", writer->options.cluster, bid->text);
    return refs_builder_finish(backup_base_refs(writer->base), &refs, err) &&
           object_put_small(writer->repository, name, OBJECT_REFS, backup_id_sequence(bid),
                            refs.data, refs.size, digest_out, err);
}

static void
fill_counts(BackupWriter *writer, const PackPipelineResult *packs, const MapResult *map)
{
    const UnitSource *units = backup_base_units(writer->base);
    const UnitSourceCounts none = {0};
    const UnitSourceCounts *source = units != NULL ? unit_source_counts(units) : &none;
    writer->counts = (BackupCounts){.compared = source->compared,
                                    .stored = packs->stored_units,
                                    .refreshed = source->refreshed,
                                    .salvaged = packs->salvage_units,
                                    .shared_nodes = map->shared_nodes,
                                    .lost = backup_base_lost(writer->base)};
}

static bool
add_digest(void *context, const uint8_t digest[SHA256_SIZE], CairnError *err)
{
    return sha256_update(context, digest, SHA256_SIZE, err);
}

static bool
finish_data(BackupWriter *writer, Fate *fate, CairnError *err)
{
    SCOPED(Sha256) digests = sha256_new(err);
    if (digests == NULL)
        return false;
    PackPipelineResult packs;
    MapResult map;
    if (!pack_pipeline_finish(writer->pipeline, digests, &packs, err) ||
        !map_builder_finish(writer->map, add_digest, digests, &map, err) ||
        !sha256_finish(digests, fate->packs_sha256, err) ||
        !write_refs(writer, fate->refs_sha256, err))
        return false;
    fill_counts(writer, &packs, &map);
    fate->bid = *commit_id(writer->commit);
    fate->type = arena_strdup(fate->arena, writer->type);
    fate->parent = writer->parent;
    memcpy(fate->token, commit_token(writer->commit), sizeof fate->token);
    fate->map_root = map.root;
    fate->pack_count = packs.pack_count;
    fate->map_pack_count = map.map_pack_count;
    fate->file_count = map.file_count;
    fate->size_bytes = map.size_bytes;
    fate->stored_bytes = packs.stored_bytes + map.map_bytes;
    fate->map_bytes = map.map_bytes;
    return true;
}

bool
backup_writer_finish_data(BackupWriter *writer, Fate *fate, CairnError *err)
{
    return noted(writer, finish_data(writer, fate, err), err);
}

bool
backup_writer_commit(BackupWriter *writer, Fate *fate, CairnError *err)
{
    return commit_publish(writer->commit, fate, err);
}
