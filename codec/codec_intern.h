/*
 * What codec.c asks of a compressor: one row a codec, one file each. Only codec/ includes this.
 *
 * State is made lazily by compress or decompress, kept in the slot, and freed by free_state.
 */
#ifndef PGCAIRN_CODEC_CODEC_INTERN_H
#define PGCAIRN_CODEC_CODEC_INTERN_H

#include "codec/codec.h"

typedef struct {
    const char *name;
    int level_min;
    int level_max;
    /* Most bytes that compress can write for raw_size. */
    size_t (*bound)(size_t raw_size);
    /* raw_size is not 0, capacity at least bound. */
    bool (*compress)(void **state, int level, const void *raw, size_t raw_size, void *stored,
                     size_t capacity, size_t *stored_size_out, CairnError *err);
    /* False with CORRUPT unless exactly raw_size bytes come out of exactly stored_size. */
    bool (*decompress)(void **state, const void *stored, size_t stored_size, void *raw,
                       size_t raw_size, CairnError *err);
    void (*free_compress_state)(void *state);
    void (*free_decompress_state)(void *state);
} CodecRow;

extern const CodecRow codec_lz4_row;
extern const CodecRow codec_zstd_row;

#endif
