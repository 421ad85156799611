#include "restore/frame_source.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct FrameSource {
    Repository *repository;
    PackCache *packs;
    atomic_uint_fast64_t decoded;
    atomic_size_t reader_count;
};

struct FrameReader {
    FrameSource *source;
    CodecContext *codec;
    OpenPack *open; /* in use; NULL at first */
    /* Slots [raw_slot, raw_slot + raw_count) are decoded in raw. */
    uint32_t raw_slot;
    uint32_t raw_count;
    /* The stored bytes of frames [window_first, window_end) are in window, the first at
     * window_offset of the pack. */
    uint32_t window_first;
    uint32_t window_end;
    uint64_t window_offset;
    uint8_t *raw;
    uint8_t *window;
};

/* A frame with its place among the slots. */
typedef struct {
    uint32_t number;
    uint32_t first_slot;
    uint32_t end_slot;
} Frame;

FrameSource *
frame_source_new(Repository *repository, const char *cluster, size_t cache_bytes, CairnError *err)
{
    SCOPED(FrameSource) source = calloc(1, sizeof *source);
    if (source == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    source->repository = repository;
    source->packs = pack_cache_new(repository, cluster, cache_bytes, err);
    return source->packs == NULL ? NULL : take(&source);
}

void
frame_source_free(FrameSource *source)
{
    if (source == NULL)
        return;
    CAIRN_ASSERT(source->reader_count == 0);
    pack_cache_free(source->packs);
    free(source);
}

uint64_t
frame_source_decoded(const FrameSource *source)
{
    return atomic_load(&source->decoded);
}

FrameReader *
frame_reader_new(FrameSource *source, CairnError *err)
{
    SCOPED(FrameReader) reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->source = source;
    CAIRN_ASSERT(atomic_fetch_add(&source->reader_count, 1) < READERS_LIMIT);

    reader->raw = malloc(RAW_BUFFER);
    reader->window = malloc(READ_WINDOW);
    if (reader->raw == NULL || reader->window == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->codec = repository_codec(source->repository, err);
    return reader->codec == NULL ? NULL : take(&reader);
}

static void
release_pack(FrameReader *reader)
{
    if (reader->open == NULL)
        return;
    pack_cache_give_back(reader->source->packs, reader->open);
    reader->open = NULL;
    reader->raw_count = 0;
    reader->window_first = reader->window_end = 0;
}

void
frame_reader_free(FrameReader *reader)
{
    if (reader == NULL)
        return;
    release_pack(reader);
    atomic_fetch_sub(&reader->source->reader_count, 1);
    if (reader->codec != NULL)
        codec_close(reader->codec);
    free(reader->raw);
    free(reader->window);
    free(reader);
}

static bool
use_pack(FrameReader *reader, const BackupId *bid, uint32_t pack, CairnError *err)
{
    if (reader->open != NULL && open_pack_is(reader->open, bid, pack))
        return true;
    release_pack(reader);
    reader->open = pack_cache_use(reader->source->packs, bid, pack, err);
    return reader->open != NULL;
}

static bool
find_frame(const PackReader *pack, uint32_t slot, Frame *frame_out, CairnError *err)
{
    uint32_t slots;
    if (!pack_find(pack, slot, &frame_out->number, &frame_out->first_slot, &slots, err))
        return false;
    frame_out->end_slot = frame_out->first_slot + slots;
    return true;
}

/* The frame behind; false at the pack's end. */
static bool
step(const PackReader *pack, Frame *frame)
{
    uint64_t offset;
    uint32_t stored_size;
    uint32_t raw_size;
    if (frame->number + 1 >= pack_frame_count(pack))
        return false;
    frame->number++;
    pack_frame_extent(pack, frame->number, &offset, &stored_size, &raw_size);
    frame->first_slot = frame->end_slot;
    frame->end_slot += raw_size / UNIT_SIZE;
    return true;
}

/*
 * Brings the stored bytes of the frame into the window, and of wanted ones behind it. runs: the one
 * that asks, and those after it.
 */
static bool
fill_window(FrameReader *reader, const Frame *first, const SlotRun *runs, size_t count,
            CairnError *err)
{
    const PackReader *pack = open_pack_reader(reader->open);
    uint64_t start;
    uint64_t offset;
    uint32_t stored_size;
    uint32_t raw_size;

    if (first->number >= reader->window_first && first->number < reader->window_end)
        return true;
    pack_frame_extent(pack, first->number, &start, &stored_size, &raw_size);
    CAIRN_ASSERT(stored_size <= READ_WINDOW);
    uint64_t end = start + stored_size;
    uint32_t window_end = first->number + 1;

    for (Frame frame = *first; step(pack, &frame);) {
        while (count > 0 && runs->slot + runs->units <= frame.first_slot) {
            runs++;
            count--;
        }
        if (count == 0)
            break;
        pack_frame_extent(pack, frame.number, &offset, &stored_size, &raw_size);
        if (offset - end > READ_GAP || offset - start + stored_size > READ_WINDOW)
            break;
        if (runs->slot < frame.end_slot) {
            end = offset + stored_size;
            window_end = frame.number + 1;
        }
    }

    reader->window_first = reader->window_end = 0;
    if (!pack_pread(pack, reader->window, (size_t)(end - start), start, err))
        return false;
    reader->window_first = first->number;
    reader->window_end = window_end;
    reader->window_offset = start;
    return true;
}

static bool
decode(FrameReader *reader, const Frame *frame, uint8_t *raw, CairnError *err)
{
    const PackReader *pack = open_pack_reader(reader->open);
    uint64_t offset;
    uint32_t stored_size;
    uint32_t raw_size;

    pack_frame_extent(pack, frame->number, &offset, &stored_size, &raw_size);
    atomic_fetch_add_explicit(&reader->source->decoded, 1, memory_order_relaxed);
    return pack_decode_frame(pack, frame->number, reader->codec,
                             reader->window + (offset - reader->window_offset), raw, err);
}

/*
 * Decodes the frame of `slot`, which the first run asks for, and as many behind it as that run goes
 * on into and the buffer takes.
 */
static bool
load(FrameReader *reader, uint32_t slot, const SlotRun *runs, size_t count,
     SlotRange *unreadable_out, CairnError *err)
{
    const PackReader *pack = open_pack_reader(reader->open);
    const uint32_t wanted_end = runs->slot + runs->units;
    Frame frame;

    reader->raw_count = 0;
    if (!find_frame(pack, slot, &frame, err)) {
        *unreadable_out = (SlotRange){slot, UINT32_MAX};
        return false;
    }
    const uint32_t first_slot = frame.first_slot;
    for (;;) {
        if (!fill_window(reader, &frame, runs, count, err) ||
            !decode(reader, &frame,
                    reader->raw + (size_t)(frame.first_slot - first_slot) * UNIT_SIZE, err)) {
            *unreadable_out = (SlotRange){frame.first_slot, frame.end_slot};
            return false;
        }
        const uint32_t slots = frame.end_slot - first_slot;
        if (frame.end_slot >= wanted_end || slots + FRAME_SLOTS > RAW_BUFFER / UNIT_SIZE ||
            !step(pack, &frame)) {
            reader->raw_slot = first_slot;
            reader->raw_count = slots;
            return true;
        }
    }
}

static bool
holds(const FrameReader *reader, uint32_t slot)
{
    return slot >= reader->raw_slot && slot - reader->raw_slot < reader->raw_count;
}

static bool
send_run(FrameReader *reader, const SlotRun *runs, size_t count, FrameSink *sink, void *context,
         SlotRange *unreadable_out, CairnError *err)
{
    for (uint32_t done = 0; done < runs->units;) {
        const uint32_t slot = runs->slot + done;
        if (!holds(reader, slot) && !load(reader, slot, runs, count, unreadable_out, err))
            return false;
        const uint32_t behind = reader->raw_slot + reader->raw_count - slot;
        const uint32_t left = runs->units - done;
        const uint32_t units = left < behind ? left : behind;
        const uint8_t *data = reader->raw + (size_t)(slot - reader->raw_slot) * UNIT_SIZE;
        if (!sink(context, runs, done, data, units, err))
            return false;
        done += units;
    }
    return true;
}

bool
frame_reader_each(FrameReader *reader, const BackupId *bid, const SlotRun *runs, size_t count,
                  FrameSink *sink, void *context, SlotRange *unreadable_out, CairnError *err)
{
    *unreadable_out = (SlotRange){0};
    CAIRN_ASSERT(count > 0);
    if (!use_pack(reader, bid, runs->pack, err)) {
        *unreadable_out = (SlotRange){0, UINT32_MAX};
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (!send_run(reader, &runs[i], count - i, sink, context, unreadable_out, err))
            return false;
    }
    return true;
}

bool
frame_reader_units(FrameReader *reader, const BackupId *bid, uint32_t pack, uint32_t slot,
                   uint64_t wanted, const uint8_t **data_out, uint32_t *units_out, CairnError *err)
{
    SlotRange unreadable;
    const SlotRun run = {
        .pack = pack,
        .slot = slot,
        .units = (uint16_t)(wanted < REGION_UNITS ? wanted : REGION_UNITS),
    };
    if (!use_pack(reader, bid, pack, err) ||
        (!holds(reader, slot) && !load(reader, slot, &run, 1, &unreadable, err))) {
        return false;
    }
    const uint32_t behind = reader->raw_slot + reader->raw_count - slot;
    *data_out = reader->raw + (size_t)(slot - reader->raw_slot) * UNIT_SIZE;
    *units_out = run.units < behind ? run.units : behind;
    return true;
}
