/*
 * Decoded units out of packs: open packs shared by all threads, a decoder for each.
 *
 * Memory: what the open packs take (pack_cache) plus, for each reader, a buffer of decoded frames
 * and a window of stored ones that lie near each other and are fetched in one read. Errors: CORRUPT
 * names the pack; storage errors pass through. Threads: a FrameSource is shared, a FrameReader
 * belongs to one thread.
 */
#ifndef PGCAIRN_RESTORE_FRAME_SOURCE_H
#define PGCAIRN_RESTORE_FRAME_SOURCE_H

#include "common/scoped.h"
#include "restore/pack_cache.h"

#include <stdint.h>

enum {
    RAW_BUFFER = 4 * FRAME_SIZE, /* so much is decoded, handed on and written in one piece */
    READ_WINDOW = 1 << 19,
    READ_GAP = 1 << 16, /* unwanted bytes between wanted ones are cheaper than one more read */
};

typedef struct FrameSource FrameSource;
/* cache_bytes: for packs that are kept open though nobody reads them. */
FrameSource *frame_source_new(Repository *repository, const char *cluster, size_t cache_bytes,
                              CairnError *err) MUST_CHECK;
void frame_source_free(FrameSource *source);
SCOPED_TYPE(FrameSource, frame_source_free);

typedef struct FrameReader FrameReader;
FrameReader *frame_reader_new(FrameSource *source, CairnError *err) MUST_CHECK;
void frame_reader_free(FrameReader *reader);
SCOPED_TYPE(FrameReader, frame_reader_free);

/* Consecutive slots that are wanted, for the units from `unit` on of whatever the caller makes. */
typedef struct {
    uint32_t creator; /* the caller's number for the backup whose pack it is */
    uint32_t pack;
    uint32_t slot;
    uint16_t units; /* 1 or more */
    uint16_t unit;
} SlotRun;

/* Half-open. */
typedef struct {
    uint32_t first_slot;
    uint32_t end_slot;
} SlotRange;

/* Gets `units` units from `done` on of the run; data is borrowed for the call. */
typedef bool FrameSink(void *context, const SlotRun *run, uint32_t done, const uint8_t *data,
                       uint32_t units, CairnError *err);

/*
 * Sends every unit of the runs, all of one pack of backup bid and ascending by slot, to sink. As
 * long as runs do not overlap, each frame is fetched and decoded once. *unreadable_out, filled when
 * it is reading that failed (else empty): the slots that could not be had.
 */
bool frame_reader_each(FrameReader *reader, const BackupId *bid, const SlotRun *runs, size_t count,
                       FrameSink *sink, void *context, SlotRange *unreadable_out,
                       CairnError *err) MUST_CHECK;

/*
 * The units from `slot` on that lie in one buffer: at most `wanted`, at least one. A large `wanted`
 * lets frames behind be read along. data_out is borrowed until the next call.
 */
bool frame_reader_units(FrameReader *reader, const BackupId *bid, uint32_t pack, uint32_t slot,
                        uint64_t wanted, const uint8_t **data_out, uint32_t *units_out,
                        CairnError *err) MUST_CHECK;

/* Frames decoded by all readers so far, for tests: what restoring costs. */
uint64_t frame_source_decoded(const FrameSource *source);

#endif
