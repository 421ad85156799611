#include "repository/backup_writer.h"

#include "repository/commit.h"
#include "repository/object.h"
#include "repository/pack_pipeline.h"

#include <stdio.h>
#include <string.h>

enum {
    REFS_LAYOUT = 1,
    JOB_MEMORY = 544 << 10,  /* raw and stored buffer of one job in flight */
    FIXED_MEMORY = 24 << 20, /* libraries, libpq, map sort and nodes, directories of three packs */
    WORKER_MEMORY = 1 << 20, /* codec state and stack */
    DEFAULT_MEMORY = 64 << 20,
    JOBS_A_WORKER_MIN = 2,
    JOBS_A_WORKER_MAX = 3,
};

struct BackupWriter {
    Repository *repository;
    BackupWriterOptions options;
    Commit *commit;
    MapBuilder *map;
    PackPipeline *pipeline;
};

/* As many jobs in flight as the memory allows, within what is useful. */
static bool
plan_memory(const BackupWriterOptions *options, size_t *in_flight_out, CairnError *err)
{
    uint64_t limit = options->max_memory_bytes != 0 ? options->max_memory_bytes : DEFAULT_MEMORY;
    uint64_t jobs = (uint64_t)options->jobs;
    uint64_t fixed = FIXED_MEMORY + jobs * WORKER_MEMORY;
    uint64_t least = fixed + (jobs * JOBS_A_WORKER_MIN + 2) * JOB_MEMORY;
    if (limit < least) {
        cairn_error(err, CAIRN_USAGE, "%llu MiB of memory are too little for %d workers",
                    (unsigned long long)(limit >> 20), options->jobs);
        return cairn_error_hint(err, "use --max-memory=%lluMiB or more, or fewer --jobs",
                                (unsigned long long)((least >> 20) + 1));
    }
    uint64_t in_flight = (limit - fixed) / JOB_MEMORY;
    uint64_t most = jobs * JOBS_A_WORKER_MAX + 2;
    *in_flight_out = (size_t)(in_flight < most ? in_flight : most);
    return true;
}

static bool
start_pipeline(BackupWriter *writer, size_t in_flight, CairnError *err)
{
    const BackupWriterOptions *options = &writer->options;
    writer->map = map_builder_new(writer->repository, options->cluster, commit_id(writer->commit),
                                  options->scratch_directory, err);
    if (writer->map == NULL)
        return false;
    writer->pipeline = pack_pipeline_start(
        &(PackPipelineOptions){
            .repository = writer->repository,
            .cluster = options->cluster,
            .bid = commit_id(writer->commit),
            .map = writer->map,
            .jobs = options->jobs,
            .jobs_in_flight = in_flight,
            .check = options->check,
            .check_context = options->check_context,
        },
        err);
    return writer->pipeline != NULL;
}

BackupWriter *
backup_writer_begin(Repository *repository, const BackupWriterOptions *options, CairnError *err)
{
    size_t in_flight = 0;
    if (!plan_memory(options, &in_flight, err))
        return NULL;
    SCOPED(BackupWriter) writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    writer->repository = repository;
    writer->options = *options;
    writer->commit = commit_begin(repository,
                                  &(CommitOptions){
                                      .cluster = options->cluster,
                                      .system_id = options->system_id,
                                      .major = options->major,
                                      .type = "full",
                                      .wal_floor_lsn = options->wal_floor_lsn,
                                  },
                                  err);
    if (writer->commit == NULL || !start_pipeline(writer, in_flight, err))
        return NULL;
    return take(&writer);
}

void
backup_writer_free(BackupWriter *writer)
{
    if (writer == NULL)
        return;
    pack_pipeline_free(writer->pipeline);
    map_builder_free(writer->map);
    commit_free(writer->commit); /* the last: its packs are removed when nobody writes any more */
    free(writer);
}

const BackupId *
backup_writer_id(const BackupWriter *writer)
{
    return commit_id(writer->commit);
}

bool
backup_writer_directory(BackupWriter *writer, MapClass class, const char *path, uint32_t mode,
                        CairnError *err)
{
    return pack_pipeline_directory(writer->pipeline, class, path, mode, err);
}

bool
backup_writer_file_begin(BackupWriter *writer, MapClass class, const char *path, uint32_t mode,
                         CairnError *err)
{
    return pack_pipeline_file_begin(writer->pipeline, class, path, mode, err);
}

bool
backup_writer_data(BackupWriter *writer, const void *data, size_t size, CairnError *err)
{
    return pack_pipeline_data(writer->pipeline, data, size, err);
}

bool
backup_writer_file_end(BackupWriter *writer, uint64_t *size_out, uint32_t *crc32c_out,
                       CairnError *err)
{
    return pack_pipeline_file_end(writer->pipeline, size_out, crc32c_out, err);
}

/* A full backup needs its own packs and nobody else's: one creator, a range a pack. */
static bool
write_refs(BackupWriter *writer, const PackPipelineResult *packs, uint32_t map_pack_count,
           uint8_t digest_out[SHA256_SIZE], CairnError *err)
{
    const BackupId *bid = commit_id(writer->commit);
    SCOPED_BYTES ByteWriter refs = {0};
    byte_writer_u16(&refs, REFS_LAYOUT);
    byte_writer_u16(&refs, 0);
    byte_writer_varint(&refs, 1);
    byte_writer_bytes(&refs, bid->text, BACKUP_ID_LENGTH);
    byte_writer_varint(&refs, packs->pack_count);
    for (uint32_t i = 0; i < packs->pack_count; i++) {
        byte_writer_varint(&refs, 0);
        byte_writer_varint(&refs, 1);
        byte_writer_varint(&refs, packs->live_units[i]);
    }
    byte_writer_varint(&refs, 1);
    byte_writer_varint(&refs, 0);
    byte_writer_varint(&refs, map_pack_count);
    byte_writer_varint(&refs, 0);

    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/%s/b/%s/refs", writer->options.cluster, bid->text);
    return byte_writer_check(&refs, err) &&
           object_put_small(writer->repository, name, OBJECT_REFS, backup_id_sequence(bid),
                            refs.data, refs.size, digest_out, err);
}

static bool
add_digest(void *context, const uint8_t digest[SHA256_SIZE], CairnError *err)
{
    return sha256_update(context, digest, SHA256_SIZE, err);
}

bool
backup_writer_finish_data(BackupWriter *writer, Fate *fate, CairnError *err)
{
    SCOPED(Sha256) digests = sha256_new(err);
    if (digests == NULL)
        return false;
    PackPipelineResult packs;
    MapResult map;
    if (!pack_pipeline_finish(writer->pipeline, digests, &packs, err) ||
        !map_builder_finish(writer->map, add_digest, digests, &map, err) ||
        !sha256_finish(digests, fate->packs_sha256, err) ||
        !write_refs(writer, &packs, map.map_pack_count, fate->refs_sha256, err))
        return false;
    fate->bid = *commit_id(writer->commit);
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
backup_writer_commit(BackupWriter *writer, Fate *fate, CairnError *err)
{
    return commit_publish(writer->commit, fate, err);
}
