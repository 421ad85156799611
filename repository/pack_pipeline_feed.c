/* The feeder: files as they come, cut into units and put into jobs for the workers. */
#include "repository/pack_pipeline_intern.h"

#include "postgres/page.h"

#include <string.h>

enum { EVENTS_WITHOUT_DATA = 256, EVENTS_WITH_DATA = 4096 };

/* A job to fill, waiting for one when all are in flight. */
static bool
ensure_job(PackPipeline *pipeline, CairnError *err)
{
    if (pipeline->job == NULL)
        pipeline->job = job_ring_begin(pipeline->ring);
    return pipeline->job != NULL || pack_pipeline_report(pipeline, err);
}

void
pack_pipeline_dispatch(PackPipeline *pipeline)
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
        pack_pipeline_dispatch(pipeline);
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
        pack_pipeline_dispatch(pipeline);
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
