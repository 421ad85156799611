/*
 * Decoded units out of packs: open packs shared by all threads, a decoder for each.
 *
 * Memory: the directories of as many packs as may be open plus, for each reader, one decoded frame
 * and a window of stored frames that lie side by side and are fetched in one read. Errors: CORRUPT
 * names the pack; storage errors pass through. Threads: a FrameSource is shared, a FrameReader
 * belongs to one thread.
 */
#ifndef PGCAIRN_RESTORE_FRAME_SOURCE_H
#define PGCAIRN_RESTORE_FRAME_SOURCE_H

#include "common/scoped.h"
#include "repository/pack.h"

#include <stdint.h>

enum { PACKS_KEPT_OPEN = 8, READERS_LIMIT = 64, READ_WINDOW = 1 << 19 };

typedef struct FrameSource FrameSource;
/* packs_open: as many are kept open, or one a reader if those are more. */
FrameSource *frame_source_new(Repository *repository, const char *cluster, size_t packs_open,
                              CairnError *err) MUST_CHECK;
void frame_source_free(FrameSource *source);
SCOPED_TYPE(FrameSource, frame_source_free);

typedef struct FrameReader FrameReader;
FrameReader *frame_reader_new(FrameSource *source, CairnError *err) MUST_CHECK;
void frame_reader_free(FrameReader *reader);
SCOPED_TYPE(FrameReader, frame_reader_free);

/*
 * The units from `slot` on that lie in its frame: at most `wanted`, at least one. A large `wanted`
 * lets frames behind be read along. data_out is borrowed until the next call.
 */
bool frame_reader_units(FrameReader *reader, const BackupId *bid, uint32_t pack, uint32_t slot,
                        uint64_t wanted, const uint8_t **data_out, uint32_t *units_out,
                        CairnError *err) MUST_CHECK;

#endif
