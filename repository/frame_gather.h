/*
 * Changed units that are too few for a frame of their own, gathered in the stream's order until one
 * is full: scattered changes would otherwise be compressed page by page. Until then their runs wait
 * in the files' regions, and a file that ends waits for its last ones.
 *
 * Memory: one frame, raw and stored. Ownership: files that ended while they wait belong to the
 * gatherer. Threads: the pipeline's writer. Inside repository/ only.
 */
#ifndef PGCAIRN_REPOSITORY_FRAME_GATHER_H
#define PGCAIRN_REPOSITORY_FRAME_GATHER_H

#include "repository/frame_job.h"

typedef struct FrameGather FrameGather;
FrameGather *frame_gather_new(uint32_t slots_per_frame, CodecContext *codec,
                              CairnError *err) MUST_CHECK;
void frame_gather_free(FrameGather *gather); /* and files that ended while they waited */
/* Takes a copy of one unit, which becomes the next run of its file's region. Not when it is full.
 */
bool frame_gather_add(FrameGather *gather, PipelineFile *file, uint64_t unit, uint32_t tail_bytes,
                      const uint8_t *raw, const uint8_t fingerprint[FINGERPRINT_SIZE],
                      CairnError *err) MUST_CHECK;
uint32_t frame_gather_count(const FrameGather *gather);
bool frame_gather_is_full(const FrameGather *gather);
/* The frame of all that waits, compressed; borrowed until the next add. */
bool frame_gather_compress(FrameGather *gather, CodecContext *codec, PackFrame *frame_out,
                           CairnError *err) MUST_CHECK;
/* The frame went into pack, whose directory is told whose units they are; the runs have places now.
   Nothing waits any more; ended files that are complete are told about, and no longer ours. */
typedef bool FileComplete(void *context, PipelineFile *file, CairnError *err);
bool frame_gather_placed(FrameGather *gather, PackWriter *pack, uint32_t pack_number,
                         uint32_t first_slot, FileComplete *complete, void *context,
                         CairnError *err) MUST_CHECK;
SCOPED_TYPE(FrameGather, frame_gather_free);

#endif
