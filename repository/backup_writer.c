#include "repository/backup_writer.h"

#include "common/timestamp.h"
#include "repository/attempts.h"
#include "repository/host.h"
#include "repository/json.h"
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

/*
 * The commit protocol, and what a crash right after each step leaves:
 *
 *  P1 intent durable            an unfinished attempt; collectors keep whatever it might name
 *  P2 packs durable             some packs that nothing refers to
 *  P3 map packs, refs durable   the same
 *  P4 directories synced        storage_commit did it with each object
 *  P5 last look                 our intent still stands; the directories above it are synced again,
 * whoever made them P6 fate created once         no fate: no backup. A fate: everything it names is
 * durable already, so both outcomes of a power cut before P7 are consistent P7 directory synced
 * only now success is reported
 *
 * P6 answers CONFLICT when somebody revoked us meanwhile: the slot is single-use, so a writer that
 * slept through its own revocation can never publish a backup whose packs may be gone.
 */
struct BackupWriter {
    Repository *repository;
    BackupWriterOptions options;
    BackupId bid;
    char token[17];
    MapBuilder *map;
    PackPipeline *pipeline;
    bool intent_written;
    bool decided; /* a commit record exists, or may exist: nothing is to be revoked or removed any
                     more */
};

static void
object_name(const BackupWriter *writer, const char *last, char *name)
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/b/%s/%s", writer->options.cluster, writer->bid.text,
             last);
}

static bool
write_intent(BackupWriter *writer, CairnError *err)
{
    const World *world = repository_world(writer->repository);
    const BackupWriterOptions *options = &writer->options;
    Host self;
    host_self(&self);
    SCOPED_JSON json_t *intent = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:s, s:o, s:i, s:s, s:n, s:[], s:o}", "token",
        writer->token, "host", self.host, "machine_id", self.machine_id, "boot_id", self.boot_id,
        "pid", self.pid, "process_start", json_u64_text(self.process_start), "started_at",
        json_time(world->clock->wall_us(world->clock)), "program", "pgcairn " PGCAIRN_VERSION,
        "system_id", json_u64_text(options->system_id), "major", options->major, "type", "full",
        "parent", "salvage", "wal_floor",
        options->wal_floor_lsn != 0 ? json_lsn(options->wal_floor_lsn) : json_null());
    char name[STORAGE_NAME_LIMIT];
    object_name(writer, "intent", name);
    if (!json_put(writer->repository, name, OBJECT_INTENT, backup_id_sequence(&writer->bid), intent,
                  NULL, err))
        return cairn_error_wrap(err, "unable to write the intent of backup %s", writer->bid.text);
    writer->intent_written = true;
    return true;
}

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
    writer->map = map_builder_new(writer->repository, options->cluster, &writer->bid,
                                  options->scratch_directory, err);
    if (writer->map == NULL)
        return false;
    writer->pipeline = pack_pipeline_start(
        &(PackPipelineOptions){
            .repository = writer->repository,
            .cluster = options->cluster,
            .bid = &writer->bid,
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
    if (!attempts_revoke_dead(repository, options->cluster, err) ||
        !random_token(repository_world(repository), writer->token, err) ||
        !attempts_next_id(repository, options->cluster, &writer->bid, err) ||
        !write_intent(writer, err) || !start_pipeline(writer, in_flight, err))
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
    if (writer->intent_written && !writer->decided) {
        attempts_abandon(writer->repository, writer->options.cluster, &writer->bid, writer->token,
                         "the backup failed");
    }
    free(writer);
}

const BackupId *
backup_writer_id(const BackupWriter *writer)
{
    return &writer->bid;
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
    SCOPED_BYTES ByteWriter refs = {0};
    byte_writer_u16(&refs, REFS_LAYOUT);
    byte_writer_u16(&refs, 0);
    byte_writer_varint(&refs, 1);
    byte_writer_bytes(&refs, writer->bid.text, BACKUP_ID_LENGTH);
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
    object_name(writer, "refs", name);
    return byte_writer_check(&refs, err) &&
           object_put_small(writer->repository, name, OBJECT_REFS, backup_id_sequence(&writer->bid),
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
    fate->bid = writer->bid;
    memcpy(fate->token, writer->token, sizeof fate->token);
    fate->map_root = map.root;
    fate->pack_count = packs.pack_count;
    fate->map_pack_count = map.map_pack_count;
    fate->file_count = map.file_count;
    fate->size_bytes = map.size_bytes;
    fate->stored_bytes = packs.stored_bytes + map.map_bytes;
    fate->map_bytes = map.map_bytes;
    return true;
}

/* P5. An intent that vanished or changed means that somebody works on this attempt outside the
 * protocol. */
static bool
last_look(BackupWriter *writer, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    object_name(writer, "intent", name);
    SCOPED_JSON json_t *intent = json_get(writer->repository, name, OBJECT_INTENT, NULL, err);
    if (intent == NULL)
        return cairn_error_wrap(err, "last look before the commit of backup %s", writer->bid.text);
    JsonReader fields = json_reader(intent, name, err);
    const char *token = json_read_text(&fields, "token");
    if (fields.failed)
        return false;
    if (strcmp(token, writer->token) != 0)
        return cairn_error(err, CAIRN_REFUSED, "the intent of backup %s is not ours any more",
                           writer->bid.text);
    /* `c/<cluster>/b` may be the work of a process that died before it synced what it made. */
    return storage_make_durable(repository_storage(writer->repository), name, err);
}

/* The slot is taken: by our own commit whose answer was lost, or by somebody who revoked us. */
static bool
settle_conflict(BackupWriter *writer, const Fate *fate, CairnError *err)
{
    cairn_error_clear(err);
    SCOPED(Fate)
    found = fate_read(writer->repository, writer->options.cluster, &writer->bid, NULL, err);
    if (found == NULL)
        return false;
    if (found->committed && strcmp(found->token, fate->token) == 0) {
        char name[STORAGE_NAME_LIMIT];
        object_name(writer, "fate", name);
        return storage_make_durable(repository_storage(writer->repository), name, err);
    }
    cairn_error(err, CAIRN_REFUSED, "backup %s was revoked by another process", writer->bid.text);
    return cairn_error_hint(err, "run the backup again");
}

bool
backup_writer_commit(BackupWriter *writer, Fate *fate, CairnError *err)
{
    CAIRN_ASSERT(strcmp(fate->cluster, writer->options.cluster) == 0);
    if (!attempts_newest_committed(writer->repository, writer->options.cluster, &fate->previous_bid,
                                   fate->previous_sha256, err) ||
        !last_look(writer, err))
        return false;
    if (fate_commit(writer->repository, fate, err) ||
        (err->kind == CAIRN_CONFLICT && settle_conflict(writer, fate, err))) {
        writer->decided = true;
        return true;
    }
    /* A failure between link and directory sync leaves a fate that may survive: reading tells. When
       it is there it is a whole backup, so nothing of it may be removed. */
    CairnError ignored = {0};
    SCOPED(Fate)
    found = fate_read(writer->repository, writer->options.cluster, &writer->bid, NULL, &ignored);
    bool revoked = found != NULL && !found->committed;
    writer->decided = !revoked && ignored.kind != CAIRN_NOT_FOUND;
    return cairn_error_wrap(err, "unable to commit backup %s", writer->bid.text);
}
