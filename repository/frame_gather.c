#include "repository/frame_gather.h"

#include <string.h>

typedef struct {
    PipelineFile *file;
    size_t run; /* in the file's region */
    uint64_t unit;
    uint32_t tail_bytes;
} WaitingUnit;

struct FrameGather {
    uint32_t slots_per_frame;
    uint32_t count;
    WaitingUnit units[FRAME_SLOTS];
    uint8_t fingerprints[FRAME_SLOTS][FINGERPRINT_SIZE];
    uint8_t raw[FRAME_SIZE];
    uint8_t *stored;
};

FrameGather *
frame_gather_new(uint32_t slots_per_frame, CodecContext *codec, CairnError *err)
{
    SCOPED(FrameGather) gather = calloc(1, sizeof *gather);
    if (gather == NULL || (gather->stored = malloc(codec_bound(codec, FRAME_SIZE))) == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    CAIRN_ASSERT(slots_per_frame >= 1 && slots_per_frame <= FRAME_SLOTS);
    gather->slots_per_frame = slots_per_frame;
    return take(&gather);
}

/* Takes a file's units off the list; true when it ended and is complete. */
static bool
release(FrameGather *gather, PipelineFile *file)
{
    for (uint32_t i = 0; i < gather->count; i++) {
        if (gather->units[i].file == file)
            gather->units[i].file = NULL;
    }
    return file->ended;
}

void
frame_gather_free(FrameGather *gather)
{
    if (gather == NULL)
        return;
    for (uint32_t i = 0; i < gather->count; i++) {
        PipelineFile *file = gather->units[i].file;
        if (file != NULL && release(gather, file))
            pipeline_file_free(file);
    }
    free(gather->stored);
    free(gather);
}

uint32_t
frame_gather_count(const FrameGather *gather)
{
    return gather->count;
}

bool
frame_gather_is_full(const FrameGather *gather)
{
    return gather->count == gather->slots_per_frame;
}

bool
frame_gather_add(FrameGather *gather, PipelineFile *file, uint64_t unit, uint32_t tail_bytes,
                 const uint8_t *raw, const uint8_t fingerprint[FINGERPRINT_SIZE], CairnError *err)
{
    CAIRN_ASSERT(!frame_gather_is_full(gather));
    WaitingUnit *waiting = &gather->units[gather->count];
    *waiting = (WaitingUnit){.file = file, .unit = unit, .tail_bytes = tail_bytes};
    if (!pipeline_file_wait(file, &waiting->run, err))
        return false;
    memcpy(gather->raw + (size_t)gather->count * UNIT_SIZE, raw, UNIT_SIZE);
    memcpy(gather->fingerprints[gather->count], fingerprint, FINGERPRINT_SIZE);
    gather->count++;
    return true;
}

bool
frame_gather_compress(FrameGather *gather, CodecContext *codec, PackFrame *frame_out,
                      CairnError *err)
{
    CAIRN_ASSERT(gather->count > 0);
    const size_t raw_size = (size_t)gather->count * UNIT_SIZE;
    size_t stored_size;
    CodecId codec_id;
    if (!codec_compress(codec, gather->raw, raw_size, gather->stored,
                        codec_bound(codec, FRAME_SIZE), &stored_size, &codec_id, err))
        return false;
    *frame_out = (PackFrame){.stored = gather->stored,
                             .stored_size = (uint32_t)stored_size,
                             .codec = (uint8_t)codec_id,
                             .slot_count = (uint8_t)gather->count,
                             .fingerprints = gather->fingerprints};
    return true;
}

/* Units of one file that follow each other, from the first one on. */
static uint32_t
stretch(const FrameGather *gather, uint32_t first)
{
    const WaitingUnit *units = &gather->units[first];
    uint32_t count = 1;
    while (first + count < gather->count && units[count].file == units->file &&
           units[count].unit == units->unit + count && units[count - 1].tail_bytes == 0)
        count++;
    return count;
}

bool
frame_gather_placed(FrameGather *gather, PackWriter *pack, uint32_t pack_number,
                    uint32_t first_slot, FileComplete *complete, void *context, CairnError *err)
{
    for (uint32_t i = 0; i < gather->count;) {
        const WaitingUnit *first = &gather->units[i];
        uint32_t count = stretch(gather, i);
        if (!pack_add_run(pack, first->file->entry.class, first->file->path, first->unit, count,
                          gather->units[i + count - 1].tail_bytes, err))
            return false;
        i += count;
    }
    for (uint32_t i = 0; i < gather->count; i++) {
        PipelineFile *file = gather->units[i].file;
        MapRun *run = &file->runs[gather->units[i].run];
        run->pack = pack_number;
        run->slot = first_slot + i;
        file->waiting--;
    }
    for (uint32_t i = 0; i < gather->count; i++) {
        PipelineFile *file = gather->units[i].file;
        if (file == NULL || !release(gather, file))
            continue;
        if (!complete(context, file, err))
            return false;
    }
    gather->count = 0;
    return true;
}
