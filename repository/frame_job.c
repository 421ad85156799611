#include "repository/frame_job.h"

#include <string.h>

FrameJob *
frame_job_new(size_t stored_capacity, bool compares, CairnError *err)
{
    FrameJob *job = calloc(1, sizeof *job);
    if (job == NULL || (job->raw = malloc((size_t)JOB_SLOTS * UNIT_SIZE)) == NULL ||
        (job->stored = malloc(stored_capacity)) == NULL ||
        (compares && (job->places = calloc(JOB_SLOTS, sizeof *job->places)) == NULL)) {
        frame_job_free(job);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    return job;
}

void
frame_job_reset(FrameJob *job)
{
    for (size_t i = 0; i < job->event_count; i++) {
        if (job->events[i].type == EVENT_END)
            pipeline_file_free(job->events[i].file);
        free(job->events[i].node);
    }
    job->event_count = 0;
    job->slot_count = 0;
    job->frame_count = 0;
    job->stored_count = job->framed_count = 0;
    job->done = false;
}

void
frame_job_free(void *pointer)
{
    FrameJob *job = pointer;
    if (job == NULL)
        return;
    frame_job_reset(job);
    free(job->events);
    free(job->raw);
    free(job->stored);
    free(job->places);
    free(job);
}

bool
frame_job_event(FrameJob *job, const FrameEvent *event, CairnError *err)
{
    FrameEvent *last = job->event_count > 0 ? &job->events[job->event_count - 1] : NULL;
    if (last != NULL && (event->type == EVENT_DATA || event->type == EVENT_ZERO) &&
        last->type == event->type && last->file == event->file &&
        last->first_unit + last->units == event->first_unit &&
        event->first_unit % REGION_UNITS != 0) {
        last->units += event->units;
        last->tail_bytes = event->tail_bytes;
        return true;
    }
    if (job->event_count == job->event_capacity) {
        size_t capacity = job->event_capacity == 0 ? 32 : 2 * job->event_capacity;
        FrameEvent *events = realloc(job->events, capacity * sizeof *events);
        if (events == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        job->events = events;
        job->event_capacity = capacity;
    }
    job->events[job->event_count++] = *event;
    return true;
}

static bool
fingerprint(FrameJob *job, const FrameTools *tools, uint32_t slot, uint32_t size, CairnError *err)
{
    uint8_t digest[KEYED_DIGEST_SIZE];
    if (!keyed_digest_of(tools->digest, job->raw + (size_t)slot * UNIT_SIZE, size, digest, err))
        return false;
    memcpy(job->fingerprints[slot], digest, FINGERPRINT_SIZE);
    return true;
}

static bool
process_extent(FrameJob *job, const FrameTools *tools, const FrameEvent *event, uint32_t first_slot,
               CairnError *err)
{
    if (tools->check != NULL && event->file->entry.class == MAP_CLASS_CLUSTER) {
        tools->check(tools->check_context, event->file->path, event->first_unit,
                     job->raw + (size_t)first_slot * UNIT_SIZE, event->units, event->tail_bytes);
    }
    for (uint32_t i = 0; i < event->units; i++) {
        bool is_tail = i + 1 == event->units && event->tail_bytes > 0;
        if (!fingerprint(job, tools, first_slot + i, is_tail ? event->tail_bytes : UNIT_SIZE, err))
            return false;
    }
    return true;
}

/* Which of its places, if any, holds just what this slot does. */
static uint8_t
compare(const FrameJob *job, uint32_t slot)
{
    for (unsigned i = 0; i < UNIT_SOURCES; i++) {
        const UnitPlace *place = &job->places[slot][i];
        if (place->creator != UNIT_CREATOR_NONE &&
            memcmp(place->fingerprint, job->fingerprints[slot], FINGERPRINT_SIZE) == 0)
            return (uint8_t)(UNIT_IN_PARENT + i);
    }
    return UNIT_STORED;
}

/* Moves the units that are to be stored to the front. */
static void
keep_changed(FrameJob *job)
{
    uint32_t kept = 0;
    for (uint32_t slot = 0; slot < job->slot_count; slot++) {
        job->outcomes[slot] = compare(job, slot);
        if (job->outcomes[slot] != UNIT_STORED)
            continue;
        if (kept != slot) {
            memcpy(job->raw + (size_t)kept * UNIT_SIZE, job->raw + (size_t)slot * UNIT_SIZE,
                   UNIT_SIZE);
            memcpy(job->fingerprints[kept], job->fingerprints[slot], FINGERPRINT_SIZE);
        }
        kept++;
    }
    job->stored_count = kept;
}

static bool
compress_frames(FrameJob *job, const FrameTools *tools, CairnError *err)
{
    size_t used = 0;
    for (uint32_t slot = 0; slot < job->framed_count;) {
        uint32_t slots = job->framed_count - slot;
        if (slots > tools->slots_per_frame)
            slots = tools->slots_per_frame;
        size_t raw_size = (size_t)slots * UNIT_SIZE, stored_size;
        JobFrame *frame = &job->frames[job->frame_count++];
        if (!codec_compress(tools->codec, job->raw + (size_t)slot * UNIT_SIZE, raw_size,
                            job->stored + used, codec_bound(tools->codec, raw_size), &stored_size,
                            &frame->codec, err))
            return false;
        frame->stored_offset = (uint32_t)used;
        frame->stored_size = (uint32_t)stored_size;
        frame->slot_count = slots;
        used += stored_size;
        slot += slots;
    }
    return true;
}

bool
frame_job_process(FrameJob *job, const FrameTools *tools, CairnError *err)
{
    uint32_t slot = 0;
    for (size_t i = 0; i < job->event_count; i++) {
        if (job->events[i].type != EVENT_DATA)
            continue;
        if (!process_extent(job, tools, &job->events[i], slot, err))
            return false;
        slot += job->events[i].units;
    }
    CAIRN_ASSERT(slot == job->slot_count);
    if (job->places != NULL) {
        keep_changed(job);
        job->framed_count = job->stored_count - job->stored_count % tools->slots_per_frame;
    } else {
        job->framed_count = job->stored_count = job->slot_count;
    }
    return compress_frames(job, tools, err);
}

PipelineFile *
pipeline_file_new(MapClass class, const char *path, MapEntryType type, uint32_t mode,
                  CairnError *err)
{
    PipelineFile *file = calloc(1, sizeof *file);
    if (file == NULL || (file->path = strdup(path)) == NULL) {
        free(file);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    file->entry = (MapEntry){.class = class, .path = file->path, .type = type, .mode = mode};
    return file;
}

void
pipeline_file_free(PipelineFile *file)
{
    if (file == NULL)
        return;
    free(file->runs);
    free(file->parent_node);
    map_draft_free(&file->draft);
    free(file->path);
    free(file);
}

/* A run that waits for a frame: no pack has this number. */
#define WAITING_PACK UINT32_MAX

static bool
continues(const MapRun *last, const MapRun *run)
{
    if (last->is_zero || run->is_zero)
        return last->is_zero && run->is_zero;
    return last->pack != WAITING_PACK && last->creator == run->creator && last->pack == run->pack &&
           last->slot + last->units == run->slot;
}

static bool
append_run(PipelineFile *file, const MapRun *run, CairnError *err)
{
    if (file->run_count == file->run_capacity) {
        size_t capacity = file->run_capacity == 0 ? 2 : 2 * file->run_capacity;
        MapRun *runs = realloc(file->runs, capacity * sizeof *runs);
        if (runs == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        file->runs = runs;
        file->run_capacity = capacity;
    }
    file->runs[file->run_count++] = *run;
    return true;
}

bool
pipeline_file_run(PipelineFile *file, const MapRun *run, CairnError *err)
{
    MapRun *last = file->run_count > 0 ? &file->runs[file->run_count - 1] : NULL;
    if (last != NULL && continues(last, run)) {
        last->units += run->units;
        return true;
    }
    return append_run(file, run, err);
}

bool
pipeline_file_wait(PipelineFile *file, size_t *index_out, CairnError *err)
{
    if (!append_run(file, &(MapRun){.units = 1, .pack = WAITING_PACK}, err))
        return false;
    *index_out = file->run_count - 1;
    file->waiting++;
    return true;
}

void
pipeline_file_merge(PipelineFile *file)
{
    CAIRN_ASSERT(file->waiting == 0);
    size_t kept = 0;
    for (size_t i = 0; i < file->run_count; i++) {
        if (kept > 0 && continues(&file->runs[kept - 1], &file->runs[i]))
            file->runs[kept - 1].units += file->runs[i].units;
        else
            file->runs[kept++] = file->runs[i];
    }
    file->run_count = kept;
}
