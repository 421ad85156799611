/*
 * Compressors behind one table; each codec is one file and one row.
 *
 * Units: whole blocks (frames), at most CODEC_RAW_LIMIT raw bytes.
 * Errors: CORRUPT when a block does not decode to exactly the declared raw size; INTERNAL for a
 * library's failure; UNSUPPORTED for an id no build of ours knows.
 * Threads: one CodecContext a thread.
 */
#ifndef PGCAIRN_CODEC_CODEC_H
#define PGCAIRN_CODEC_CODEC_H

#include "codec/aead.h"
#include "common/error.h"
#include "common/scoped.h"

#include <stddef.h>
#include <stdint.h>

/* Stored in the format: never renumber. */
typedef enum { CODEC_NONE = 0, CODEC_LZ4 = 1, CODEC_ZSTD = 2 } CodecId;

enum { CODEC_RAW_LIMIT = 1 << 20 };

typedef struct CodecContext CodecContext;

/* level 0: the codec's default. USAGE when level is out of its range, UNSUPPORTED for an unknown
 * id. */
CodecContext *codec_open(CodecId id, int level, CairnError *err) MUST_CHECK;
void codec_close(CodecContext *codec);
SCOPED_TYPE(CodecContext, codec_close);

/* "none", "lz4", "zstd"; USAGE for another name. */
bool codec_id_of_name(const char *name, CodecId *id_out, CairnError *err) MUST_CHECK;
const char *codec_name(CodecId id);
CodecId codec_id(const CodecContext *codec);

/* Most bytes that codec_compress can write for raw_size. */
size_t codec_bound(const CodecContext *codec, size_t raw_size);

/*
 * Compress raw into stored (capacity at least codec_bound). *id_out is what the bytes are: the
 * context's codec, or CODEC_NONE (raw bytes copied) when compressing did not help.
 */
bool codec_compress(CodecContext *codec, const void *raw, size_t raw_size, void *stored,
                    size_t stored_capacity, size_t *stored_size_out, CodecId *id_out,
                    CairnError *err) MUST_CHECK;

/* Decompress into exactly raw_size bytes. Any id; keeps its own lazily made state for each. */
bool codec_decompress(CodecContext *codec, CodecId id, const void *stored, size_t stored_size,
                      void *raw, size_t raw_size, CairnError *err) MUST_CHECK;

/* For blocks that are encrypted: the thread's cipher, and room for what it opens before that is
   decompressed. Made when first asked for, borrowed from the context; the room's content lasts
   until it is asked for again. */
Aead *codec_aead(CodecContext *codec, CairnError *err) MUST_CHECK;
void *codec_room(CodecContext *codec, size_t size, CairnError *err) MUST_CHECK;

#endif
