#include "repository/pack_pipeline.h"

#include "postgres/page.h"
#include "repository/frame_gather.h"
#include "repository/frame_job.h"
#include "repository/job_ring.h"
#include "repository/pack.h"
#include "repository/pack_finisher.h"

#include <pthread.h>
#include <string.h>

enum { EVENTS_WITHOUT_DATA = 256, EVENTS_WITH_DATA = 4096 };

/* A file that ends with more runs than this does not wait for its last units' frame to fill. */
enum { RUNS_WAITING_MAX = 1024 };

struct PackPipeline {
    PackPipelineOptions options;

    /* The feeding thread's. */
    FrameJob *job;      /* being filled */
    PipelineFile *file; /* open file */
    uint64_t file_size;
    uint32_t file_crc;
    uint8_t unit[UNIT_SIZE]; /* a unit that came in pieces */
    size_t unit_used;

    JobRing *ring;
    pthread_mutex_t mutex; /* of the failure */
    bool failed;
    CairnError error; /* the first failure */

    FrameTools *tools; /* one a worker */
    pthread_t *workers;
    int worker_count;

    /* The writer's: whichever worker writes just now, and the feeder's once all are joined. */
    PackWriter *pack;
    uint32_t pack_slots;
    uint32_t pack_count;
    FrameGather *gather; /* with a source only */
    PackPipelineResult counts;
    PackFinisher *finisher;
    pthread_mutex_t map_mutex; /* the writer adds files to the map, the finisher frame tables */
};

/* Keeps the first error and makes everybody stop. */
static void
fail(PackPipeline *pipeline, const CairnError *err)
{
    pthread_mutex_lock(&pipeline->mutex);
    if (!pipeline->failed) {
        pipeline->failed = true;
        pipeline->error = *err;
    }
    pthread_mutex_unlock(&pipeline->mutex);
    job_ring_cancel(pipeline->ring);
    pack_finisher_cancel(pipeline->finisher);
}

static void
finisher_failed(void *pipeline, const CairnError *err)
{
    fail(pipeline, err);
}

/* Gives the pipeline's failure to the feeding thread. */
static bool
report(PackPipeline *pipeline, CairnError *err)
{
    pthread_mutex_lock(&pipeline->mutex);
    *err = pipeline->error;
    pthread_mutex_unlock(&pipeline->mutex);
    if (err->kind == CAIRN_OK)
        cairn_error(err, CAIRN_INTERNAL, "pipeline stopped without an error");
    return false;
}

typedef struct {
    PackPipeline *pipeline;
    FrameTools *tools;
} WorkerStart;

/* Hands the open pack over to be made durable. */
static bool
finish_pack(PackPipeline *pipeline, CairnError *err)
{
    if (pipeline->pack == NULL)
        return true;
    if (!pack_finisher_give(pipeline->finisher, pipeline->pack))
        return report(pipeline, err);
    pipeline->pack = NULL;
    return true;
}

static bool
ensure_pack(PackPipeline *pipeline, uint32_t slots, CairnError *err)
{
    if (pipeline->pack != NULL &&
        (pack_size_so_far(pipeline->pack) >= PACK_TARGET_SIZE ||
         pipeline->pack_slots + slots > PACK_SLOT_LIMIT ||
         pack_directory_size_so_far(pipeline->pack) >= PACK_DIRECTORY_LIMIT) &&
        !finish_pack(pipeline, err))
        return false;
    if (pipeline->pack != NULL)
        return true;
    const PackPipelineOptions *options = &pipeline->options;
    pipeline->pack =
        pack_create(options->repository, options->cluster, options->bid, pipeline->pack_count, err);
    if (pipeline->pack == NULL)
        return false;
    pipeline->pack_count++;
    pipeline->pack_slots = 0;
    return true;
}

/* All units of the region have their places: it becomes part of the map. */
static bool
end_region(PackPipeline *pipeline, PipelineFile *file, CairnError *err)
{
    pipeline_file_merge(file);
    pthread_mutex_lock(&pipeline->map_mutex);
    bool added = map_builder_region(pipeline->options.map, &file->draft, file->runs,
                                    file->run_count, file->parent_node, err);
    pthread_mutex_unlock(&pipeline->map_mutex);
    file->run_count = 0;
    file->region_units = 0;
    free(file->parent_node);
    file->parent_node = NULL;
    return added;
}

/* Takes the file, which ended and waits for nothing. */
static bool
end_file(void *context, PipelineFile *file, CairnError *err)
{
    PackPipeline *pipeline = context;
    bool added = file->region_units == 0 || end_region(pipeline, file, err);
    if (added) {
        pthread_mutex_lock(&pipeline->map_mutex);
        added = map_builder_add_draft(pipeline->options.map, &file->entry, &file->draft, err);
        pthread_mutex_unlock(&pipeline->map_mutex);
    }
    pipeline_file_free(file);
    return added;
}

/* Writes what was gathered, full or not. */
static bool
write_gathered(PackPipeline *pipeline, CodecContext *codec, CairnError *err)
{
    FrameGather *gather = pipeline->gather;
    uint32_t count = gather != NULL ? frame_gather_count(gather) : 0, first_slot;
    PackFrame frame;
    if (count == 0)
        return true;
    if (!frame_gather_compress(gather, codec, &frame, err) || !ensure_pack(pipeline, count, err) ||
        !pack_append(pipeline->pack, &frame, &first_slot, err))
        return false;
    pipeline->pack_slots += count;
    return frame_gather_placed(gather, pipeline->pack, pipeline->pack_count - 1, first_slot,
                               end_file, pipeline, err);
}

/* Where a job's frames went. */
typedef struct {
    CodecContext *codec; /* of the writing worker */
    uint32_t pack;
    uint32_t first_slot;
    uint32_t slot;   /* of the job: the next one that events speak of */
    uint32_t stored; /* how many of the slots before it were stored */
} JobPlace;

/* One unit of a job with a source: in an earlier pack, in this job's frames, or still to be
 * gathered. */
static bool
write_unit(PackPipeline *pipeline, FrameJob *job, const FrameEvent *event, uint32_t index,
           JobPlace *place, CairnError *err)
{
    uint32_t slot = place->slot++;
    uint8_t outcome = job->outcomes[slot];
    MapRun run = {.units = 1};
    if (outcome != UNIT_STORED) {
        const UnitPlace *found = &job->places[slot][outcome - UNIT_IN_PARENT];
        run.creator = found->creator;
        run.pack = found->pack;
        run.slot = found->slot;
        *(outcome == UNIT_IN_PARENT ? &pipeline->counts.parent_units
                                    : &pipeline->counts.salvage_units) += 1;
        return pipeline_file_run(event->file, &run, err);
    }
    uint32_t stored = place->stored++;
    if (stored < job->framed_count) {
        run.pack = place->pack;
        run.slot = place->first_slot + stored;
        return pipeline_file_run(event->file, &run, err);
    }
    if (frame_gather_is_full(pipeline->gather) && !write_gathered(pipeline, place->codec, err))
        return false;
    return frame_gather_add(pipeline->gather, event->file, event->first_unit + index,
                            index + 1 == event->units ? event->tail_bytes : 0,
                            job->raw + (size_t)stored * UNIT_SIZE, job->fingerprints[stored], err);
}

static bool
write_units(PackPipeline *pipeline, FrameJob *job, const FrameEvent *event, JobPlace *place,
            CairnError *err)
{
    PipelineFile *file = event->file;
    if (event->type == EVENT_ZERO || job->places == NULL) {
        MapRun run = {.is_zero = event->type == EVENT_ZERO, .units = event->units};
        if (event->type == EVENT_DATA) {
            run.pack = place->pack;
            run.slot = place->first_slot + place->slot;
            place->slot += event->units;
        }
        if (!pipeline_file_run(file, &run, err))
            return false;
    } else {
        for (uint32_t i = 0; i < event->units; i++) {
            if (!write_unit(pipeline, job, event, i, place, err))
                return false;
        }
    }
    file->region_units += event->units;
    CAIRN_ASSERT(file->region_units <= REGION_UNITS);
    if (file->region_units < REGION_UNITS)
        return true;
    return (file->waiting == 0 || write_gathered(pipeline, place->codec, err)) &&
           end_region(pipeline, file, err);
}

static bool
write_event(PackPipeline *pipeline, FrameJob *job, FrameEvent *event, JobPlace *place,
            CairnError *err)
{
    PipelineFile *file = event->file;
    switch (event->type) {
    case EVENT_REGION:
        CAIRN_ASSERT(file->region_units == 0 && file->parent_node == NULL);
        file->parent_node = take(&event->node);
        return true;
    case EVENT_END:
        if (file->waiting > 0 && file->run_count > RUNS_WAITING_MAX &&
            !write_gathered(pipeline, place->codec, err))
            return false;
        event->type = EVENT_ZERO; /* its file is not the job's any more */
        event->file = NULL;
        file->ended = true;
        return file->waiting > 0 || end_file(pipeline, file, err);
    case EVENT_DATA:
    case EVENT_ZERO:
        break;
    }
    return write_units(pipeline, job, event, place, err);
}

/* Tells the pack's directory whose the units in the job's frames are. */
static bool
name_units(PackPipeline *pipeline, const FrameJob *job, CairnError *err)
{
    uint32_t slot = 0, stored = 0;
    for (size_t i = 0; i < job->event_count && stored < job->framed_count; i++) {
        const FrameEvent *event = &job->events[i];
        if (event->type != EVENT_DATA)
            continue;
        uint32_t end = slot + event->units, begin = slot;
        while (slot < end && stored < job->framed_count) {
            uint32_t first = slot;
            if (job->places == NULL) {
                slot = end;
            } else {
                while (slot < end && job->outcomes[slot] == UNIT_STORED &&
                       stored + (slot - first) < job->framed_count)
                    slot++;
            }
            if (slot == first) {
                slot++; /* stored elsewhere already */
                continue;
            }
            stored += slot - first;
            if (!pack_add_run(pipeline->pack, event->file->entry.class, event->file->path,
                              event->first_unit + (first - begin), slot - first,
                              slot == end ? event->tail_bytes : 0, err))
                return false;
        }
        slot = end;
    }
    CAIRN_ASSERT(stored == job->framed_count);
    return true;
}

/* All frames of a job go into one pack, so that their slots follow each other. */
static bool
write_frames(PackPipeline *pipeline, const FrameJob *job, uint32_t *first_slot_out, CairnError *err)
{
    PackFrame frames[JOB_SLOTS];
    uint32_t slots = 0;
    for (uint32_t i = 0; i < job->frame_count; i++) {
        const JobFrame *frame = &job->frames[i];
        frames[i] = (PackFrame){.stored = job->stored + frame->stored_offset,
                                .stored_size = frame->stored_size,
                                .codec = (uint8_t)frame->codec,
                                .slot_count = (uint8_t)frame->slot_count,
                                .fingerprints = job->fingerprints + slots};
        slots += frame->slot_count;
    }
    pipeline->pack_slots += slots;
    return pack_append_frames(pipeline->pack, frames, job->frame_count, first_slot_out, err) &&
           name_units(pipeline, job, err);
}

static bool
write_job(PackPipeline *pipeline, FrameJob *job, CodecContext *codec, CairnError *err)
{
    JobPlace place = {.codec = codec};
    if (job->framed_count > 0 && (!ensure_pack(pipeline, job->framed_count, err) ||
                                  !write_frames(pipeline, job, &place.first_slot, err)))
        return false;
    if (job->framed_count > 0)
        place.pack = pipeline->pack_count - 1;
    pipeline->counts.stored_units += job->stored_count;
    for (size_t i = 0; i < job->event_count; i++) {
        if (!write_event(pipeline, job, &job->events[i], &place, err))
            return false;
    }
    return true;
}

/* Writes every job whose turn has come. False: this worker shall end. */
static bool
write_done_jobs(PackPipeline *pipeline, CodecContext *codec, CairnError *err)
{
    for (FrameJob *job; (job = job_ring_next(pipeline->ring)) != NULL;) {
        if (!write_job(pipeline, job, codec, err))
            return false;
        job_ring_release(pipeline->ring);
    }
    return true;
}

static void *
worker_main(void *argument)
{
    WorkerStart start = *(WorkerStart *)argument;
    free(argument);
    PackPipeline *pipeline = start.pipeline;
    for (FrameJob *job; (job = job_ring_take(pipeline->ring)) != NULL;) {
        CairnError err = {0};
        bool processed = frame_job_process(job, start.tools, &err);
        if (processed)
            job_ring_done(pipeline->ring, job);
        if (!processed || !write_done_jobs(pipeline, start.tools->codec, &err)) {
            fail(pipeline, &err);
            return NULL;
        }
    }
    return NULL;
}

/*
 * lz4 works with 16-bit positions up to 64 KiB: a fifth faster than on 128 KiB, for a hundredth of
 * ratio. zstd gains from every KiB of context.
 */
static uint32_t
slots_per_frame_of(const CodecContext *codec)
{
    return codec_id(codec) == CODEC_LZ4 ? FRAME_SLOTS / 2 : FRAME_SLOTS;
}

static bool
make_ring(PackPipeline *pipeline, CairnError *err)
{
    SCOPED(CodecContext) codec = repository_codec(pipeline->options.repository, err);
    if (codec == NULL)
        return false;
    const uint32_t slots_per_frame = slots_per_frame_of(codec);
    const size_t stored_capacity = (JOB_SLOTS + slots_per_frame - 1) / slots_per_frame *
                                   codec_bound(codec, (size_t)slots_per_frame * UNIT_SIZE);
    const bool compares = pipeline->options.source != NULL;
    if (compares) {
        pipeline->gather = frame_gather_new(slots_per_frame, codec, err);
        if (pipeline->gather == NULL)
            return false;
    }
    pipeline->ring = job_ring_new(pipeline->options.jobs_in_flight, stored_capacity, compares, err);
    return pipeline->ring != NULL;
}

static bool
make_tools(PackPipeline *pipeline, FrameTools *tools, CairnError *err)
{
    tools->check = pipeline->options.check;
    tools->check_context = pipeline->options.check_context;
    tools->codec = repository_codec(pipeline->options.repository, err);
    if (tools->codec == NULL)
        return false;
    tools->slots_per_frame = slots_per_frame_of(tools->codec);
    tools->digest = repository_digest(pipeline->options.repository, DIGEST_FINGERPRINT, err);
    return tools->digest != NULL;
}

static bool
start_threads(PackPipeline *pipeline, CairnError *err)
{
    int jobs = pipeline->options.jobs;
    pipeline->tools = calloc((size_t)jobs, sizeof *pipeline->tools);
    pipeline->workers = calloc((size_t)jobs, sizeof *pipeline->workers);
    if (pipeline->tools == NULL || pipeline->workers == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (int i = 0; i < jobs; i++) {
        if (!make_tools(pipeline, &pipeline->tools[i], err))
            return false;
    }
    for (; pipeline->worker_count < jobs; pipeline->worker_count++) {
        WorkerStart *start = malloc(sizeof *start);
        if (start == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        *start = (WorkerStart){pipeline, &pipeline->tools[pipeline->worker_count]};
        if (pthread_create(&pipeline->workers[pipeline->worker_count], NULL, worker_main, start) !=
            0) {
            free(start);
            return cairn_error(err, CAIRN_INTERNAL, "unable to start a thread");
        }
    }
    return true;
}

PackPipeline *
pack_pipeline_start(const PackPipelineOptions *options, CairnError *err)
{
    SCOPED(PackPipeline) pipeline = calloc(1, sizeof *pipeline);
    if (pipeline == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    CAIRN_ASSERT(options->jobs >= 1 && options->jobs_in_flight > (size_t)options->jobs);
    pipeline->options = *options;
    pthread_mutex_init(&pipeline->mutex, NULL);
    pthread_mutex_init(&pipeline->map_mutex, NULL);
    pipeline->finisher =
        pack_finisher_start(&(PackFinisherOptions){.map = options->map,
                                                   .map_mutex = &pipeline->map_mutex,
                                                   .on_failure = finisher_failed,
                                                   .context = pipeline},
                            err);
    if (pipeline->finisher == NULL || !make_ring(pipeline, err) || !start_threads(pipeline, err))
        return NULL;
    return take(&pipeline);
}

static void
join_threads(PackPipeline *pipeline)
{
    for (int i = 0; i < pipeline->worker_count; i++)
        pthread_join(pipeline->workers[i], NULL);
    pipeline->worker_count = 0;
}

void
pack_pipeline_free(PackPipeline *pipeline)
{
    if (pipeline == NULL)
        return;
    if (pipeline->worker_count > 0) {
        CairnError stopped = {0};
        cairn_error(&stopped, CAIRN_CANCELLED, "backup abandoned");
        fail(pipeline, &stopped);
        join_threads(pipeline);
    }
    pack_finisher_free(pipeline->finisher); /* before the ring, which its failure would cancel */
    pack_writer_free(pipeline->pack);
    pipeline_file_free(pipeline->file);
    job_ring_free(pipeline->ring);
    frame_gather_free(pipeline->gather);
    for (int i = 0; pipeline->tools != NULL && i < pipeline->options.jobs; i++) {
        if (pipeline->tools[i].codec != NULL)
            codec_close(pipeline->tools[i].codec);
        keyed_digest_free(pipeline->tools[i].digest);
    }
    pthread_mutex_destroy(&pipeline->mutex);
    pthread_mutex_destroy(&pipeline->map_mutex);
    free(pipeline->tools);
    free(pipeline->workers);
    free(pipeline);
}

/* A job to fill, waiting for one when all are in flight. */
static bool
ensure_job(PackPipeline *pipeline, CairnError *err)
{
    if (pipeline->job == NULL)
        pipeline->job = job_ring_begin(pipeline->ring);
    return pipeline->job != NULL || report(pipeline, err);
}

static void
dispatch(PackPipeline *pipeline)
{
    if (pipeline->job == NULL || pipeline->job->event_count == 0)
        return;
    pipeline->job = NULL;
    job_ring_dispatch(pipeline->ring);
}

/* Entries without data must not pile up behind a frame that never fills. */
static void
dispatch_if_crowded(PackPipeline *pipeline)
{
    size_t limit = pipeline->job->slot_count == 0 ? EVENTS_WITHOUT_DATA : EVENTS_WITH_DATA;
    if (pipeline->job->event_count >= limit)
        dispatch(pipeline);
}

/* True: the job owns the file. False: it is still the caller's, and jobs on their way may be using
 * it. */
static bool
hand_over(PackPipeline *pipeline, PipelineFile *file, CairnError *err)
{
    FrameEvent event = {.type = EVENT_END, .file = file};
    return ensure_job(pipeline, err) && frame_job_event(pipeline->job, &event, err);
}

/* A region of the open file begins: asks what is known of it, and hands on the parent's node. */
static bool
begin_region(PackPipeline *pipeline, uint64_t region, CairnError *err)
{
    const MapNodeRef *node;
    if (!unit_source_region(pipeline->options.source, region, &node, err))
        return false;
    if (node == NULL)
        return true;
    FrameEvent event = {.type = EVENT_REGION, .file = pipeline->file};
    event.node = malloc(sizeof *event.node);
    if (event.node == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    *event.node = *node;
    if (ensure_job(pipeline, err) && frame_job_event(pipeline->job, &event, err))
        return true;
    free(event.node);
    return false;
}

/* One unit of the open file; size < UNIT_SIZE only for its short end. */
static bool
add_unit(PackPipeline *pipeline, const uint8_t *data, uint32_t size, uint64_t unit, CairnError *err)
{
    FrameEvent event = {.file = pipeline->file,
                        .first_unit = unit,
                        .units = 1,
                        .tail_bytes = size < UNIT_SIZE ? size : 0};
    UnitSource *source = pipeline->options.source;
    if (source != NULL && unit % REGION_UNITS == 0 &&
        !begin_region(pipeline, unit / REGION_UNITS, err))
        return false;
    if (!ensure_job(pipeline, err))
        return false;
    if (bytes_are_zero(data, size)) {
        event.type = EVENT_ZERO;
        if (!frame_job_event(pipeline->job, &event, err))
            return false;
        dispatch_if_crowded(pipeline);
        return true;
    }
    FrameJob *job = pipeline->job;
    uint8_t *slot = job->raw + (size_t)job->slot_count * UNIT_SIZE;
    memcpy(slot, data, size);
    memset(slot + size, 0, UNIT_SIZE - size);
    if (source != NULL)
        unit_source_unit(source, unit, size, job->places[job->slot_count]);
    event.type = EVENT_DATA;
    if (!frame_job_event(job, &event, err))
        return false;
    job->slot_count++;
    if (job->slot_count == JOB_SLOTS)
        dispatch(pipeline);
    return true;
}

bool
pack_pipeline_directory(PackPipeline *pipeline, MapClass class, const char *path, uint32_t mode,
                        CairnError *err)
{
    PipelineFile *directory = pipeline_file_new(class, path, MAP_DIRECTORY, mode, err);
    if (directory == NULL)
        return false;
    if (!hand_over(pipeline, directory, err)) {
        pipeline_file_free(directory);
        return false;
    }
    dispatch_if_crowded(pipeline);
    return true;
}

bool
pack_pipeline_file_begin(PackPipeline *pipeline, MapClass class, const char *path, uint32_t mode,
                         CairnError *err)
{
    CAIRN_ASSERT(pipeline->file == NULL);
    pipeline->file = pipeline_file_new(class, path, MAP_FILE, mode, err);
    pipeline->file_size = 0;
    pipeline->file_crc = 0;
    pipeline->unit_used = 0;
    return pipeline->file != NULL && (pipeline->options.source == NULL ||
                                      unit_source_file(pipeline->options.source, class, path, err));
}

bool
pack_pipeline_data(PackPipeline *pipeline, const uint8_t *data, size_t size, CairnError *err)
{
    CAIRN_ASSERT(pipeline->file != NULL);
    pipeline->file_crc = crc32c(pipeline->file_crc, data, size);
    while (size > 0) {
        uint64_t unit = pipeline->file_size / UNIT_SIZE;
        if (pipeline->unit_used == 0 && size >= UNIT_SIZE) {
            if (!add_unit(pipeline, data, UNIT_SIZE, unit, err))
                return false;
            pipeline->file_size += UNIT_SIZE;
            data += UNIT_SIZE;
            size -= UNIT_SIZE;
            continue;
        }
        size_t piece = UNIT_SIZE - pipeline->unit_used;
        if (piece > size)
            piece = size;
        memcpy(pipeline->unit + pipeline->unit_used, data, piece);
        pipeline->unit_used += piece;
        data += piece;
        size -= piece;
        if (pipeline->unit_used == UNIT_SIZE) {
            if (!add_unit(pipeline, pipeline->unit, UNIT_SIZE, unit, err))
                return false;
            pipeline->file_size += UNIT_SIZE;
            pipeline->unit_used = 0;
        }
    }
    return true;
}

bool
pack_pipeline_file_end(PackPipeline *pipeline, uint64_t *size_out, uint32_t *crc32c_out,
                       CairnError *err)
{
    CAIRN_ASSERT(pipeline->file != NULL);
    if (pipeline->unit_used > 0) {
        if (!add_unit(pipeline, pipeline->unit, (uint32_t)pipeline->unit_used,
                      pipeline->file_size / UNIT_SIZE, err))
            return false;
        pipeline->file_size += pipeline->unit_used;
    }
    PipelineFile *file = pipeline->file;
    file->entry.size_bytes = pipeline->file_size;
    file->entry.crc32c = pipeline->file_crc;
    file->entry.has_crc32c = true;
    if (!hand_over(pipeline, file, err))
        return false; /* freed with the pipeline, after its threads */
    pipeline->file = NULL;
    dispatch_if_crowded(pipeline);
    *size_out = pipeline->file_size;
    *crc32c_out = pipeline->file_crc;
    return true;
}

bool
pack_pipeline_finish(PackPipeline *pipeline, Sha256 *digests, PackPipelineResult *result_out,
                     CairnError *err)
{
    CAIRN_ASSERT(pipeline->file == NULL);
    dispatch(pipeline);
    job_ring_close(pipeline->ring);
    join_threads(pipeline);
    if (pipeline->failed)
        return report(pipeline, err);
    if (!write_gathered(pipeline, pipeline->tools[0].codec, err) || !finish_pack(pipeline, err))
        return false;
    const PackFinisherResult *packs = pack_finisher_join(pipeline->finisher);
    if (pipeline->failed)
        return report(pipeline, err);
    CAIRN_ASSERT(packs->pack_count == pipeline->pack_count);
    for (uint32_t i = 0; i < packs->pack_count; i++) {
        if (!sha256_update(digests, packs->digests[i], SHA256_SIZE, err))
            return false;
    }
    *result_out = pipeline->counts;
    result_out->pack_count = packs->pack_count;
    result_out->stored_bytes = packs->stored_bytes;
    return true;
}
