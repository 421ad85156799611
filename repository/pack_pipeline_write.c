/* The writer: done jobs, in order. Their frames go into packs, their files into the map. */
#include "repository/pack_pipeline_intern.h"

/* A file that ends with more runs than this does not wait for its last units' frame to fill. */
enum { RUNS_WAITING_MAX = 1024 };

/* Hands the open pack over to be made durable. */
static bool
finish_pack(PackPipeline *pipeline, CairnError *err)
{
    if (pipeline->pack == NULL)
        return true;
    if (!pack_finisher_give(pipeline->finisher, pipeline->pack))
        return pack_pipeline_report(pipeline, err);
    pipeline->pack = NULL;
    return true;
}

static bool
ensure_pack(PackPipeline *pipeline, uint32_t slots, CairnError *err)
{
    if (pipeline->pack != NULL &&
        (pack_size_so_far(pipeline->pack) >= pipeline->options.packs.pack_size ||
         pipeline->pack_slots + slots > PACK_SLOT_LIMIT ||
         pack_directory_size_so_far(pipeline->pack) >= pipeline->options.packs.directory_limit) &&
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

bool
pack_pipeline_write(PackPipeline *pipeline, FrameJob *job, CodecContext *codec, CairnError *err)
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

bool
pack_pipeline_write_rest(PackPipeline *pipeline, CodecContext *codec, CairnError *err)
{
    return write_gathered(pipeline, codec, err) && finish_pack(pipeline, err);
}
