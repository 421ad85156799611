#include "codec/codec.h"

#include "codec/codec_intern.h"

#include <stdlib.h>
#include <string.h>

enum { CODEC_COUNT = CODEC_ZSTD + 1 };

static const CodecRow NONE_ROW = {.name = "none"};

static const CodecRow *const ROWS[CODEC_COUNT] = {
    [CODEC_NONE] = &NONE_ROW,
    [CODEC_LZ4] = &codec_lz4_row,
    [CODEC_ZSTD] = &codec_zstd_row,
};

struct CodecContext {
    CodecId id;
    int level;
    void *compress_state;
    void *decompress_states[CODEC_COUNT];
    Aead *aead;
    void *room;
    size_t room_size;
};

/* NULL for an id that no row has; ids come from files. */
static const CodecRow *
row_of(CodecId id)
{
    return (unsigned)id < CODEC_COUNT ? ROWS[id] : NULL;
}

CodecContext *
codec_open(CodecId id, int level, CairnError *err)
{
    const CodecRow *row = row_of(id);
    if (row == NULL) {
        cairn_error(err, CAIRN_UNSUPPORTED, "unknown compression %u", (unsigned)id);
        return NULL;
    }
    if (level != 0 && (level < row->level_min || level > row->level_max)) {
        cairn_error(err, CAIRN_USAGE, "compression level %d is out of range: %s has %d to %d",
                    level, row->name, row->level_min, row->level_max);
        return NULL;
    }
    CodecContext *codec = calloc(1, sizeof *codec);
    if (codec == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    codec->id = id;
    codec->level = level;
    return codec;
}

void
codec_close(CodecContext *codec)
{
    if (codec == NULL)
        return;
    if (codec->compress_state != NULL)
        ROWS[codec->id]->free_compress_state(codec->compress_state);
    for (size_t id = 0; id < CODEC_COUNT; id++) {
        if (codec->decompress_states[id] != NULL)
            ROWS[id]->free_decompress_state(codec->decompress_states[id]);
    }
    aead_free(codec->aead);
    free(codec->room);
    free(codec);
}

bool
codec_id_of_name(const char *name, CodecId *id_out, CairnError *err)
{
    for (unsigned id = 0; id < CODEC_COUNT; id++) {
        if (strcmp(ROWS[id]->name, name) == 0) {
            *id_out = (CodecId)id;
            return true;
        }
    }
    return cairn_error(err, CAIRN_USAGE, "unknown compression '%.50s': expected none, lz4 or zstd",
                       name);
}

CodecId
codec_id(const CodecContext *codec)
{
    return codec->id;
}

const char *
codec_name(CodecId id)
{
    const CodecRow *row = row_of(id);
    return row != NULL ? row->name : "unknown";
}

size_t
codec_bound(const CodecContext *codec, size_t raw_size)
{
    CAIRN_ASSERT(raw_size <= CODEC_RAW_LIMIT);
    const CodecRow *row = ROWS[codec->id];
    return row->bound != NULL ? row->bound(raw_size) : raw_size;
}

bool
codec_compress(CodecContext *codec, const void *raw, size_t raw_size, void *stored,
               size_t stored_capacity, size_t *stored_size_out, CodecId *id_out, CairnError *err)
{
    CAIRN_ASSERT(raw_size <= CODEC_RAW_LIMIT);
    CAIRN_ASSERT(stored_capacity >= codec_bound(codec, raw_size));

    const CodecRow *row = ROWS[codec->id];
    size_t stored_size = 0;
    if (row->compress != NULL && raw_size > 0 &&
        !row->compress(&codec->compress_state, codec->level, raw, raw_size, stored, stored_capacity,
                       &stored_size, err)) {
        return false;
    }
    if (stored_size > 0 && stored_size < raw_size) {
        *stored_size_out = stored_size;
        *id_out = codec->id;
        return true;
    }
    if (raw_size > 0)
        memcpy(stored, raw, raw_size);
    *stored_size_out = raw_size;
    *id_out = CODEC_NONE;
    return true;
}

bool
codec_decompress(CodecContext *codec, CodecId id, const void *stored, size_t stored_size, void *raw,
                 size_t raw_size, CairnError *err)
{
    const CodecRow *row = row_of(id);
    if (row == NULL)
        return cairn_error(err, CAIRN_UNSUPPORTED, "unknown compression %u", (unsigned)id);
    /* raw_size is declared by the file; nothing of ours declares more. */
    if (raw_size > CODEC_RAW_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT, "a block declares %zu bytes, more than %d", raw_size,
                           CODEC_RAW_LIMIT);
    if (row->decompress == NULL) {
        if (stored_size != raw_size)
            return cairn_error(err, CAIRN_CORRUPT, "a block of %zu bytes holds %zu", raw_size,
                               stored_size);
        if (raw_size > 0)
            memcpy(raw, stored, raw_size);
        return true;
    }
    /* Nothing of ours compresses nothing; the libraries need not see such lengths. */
    if (raw_size == 0 || stored_size == 0)
        return cairn_error(err, CAIRN_CORRUPT, "an empty %s block", row->name);
    return row->decompress(&codec->decompress_states[id], stored, stored_size, raw, raw_size, err);
}

Aead *
codec_aead(CodecContext *codec, CairnError *err)
{
    if (codec->aead == NULL)
        codec->aead = aead_new(err);
    return codec->aead;
}

void *
codec_room(CodecContext *codec, size_t size, CairnError *err)
{
    if (codec->room == NULL || codec->room_size < size) {
        free(codec->room);
        codec->room_size = size;
        codec->room = malloc(size > 0 ? size : 1);
        if (codec->room == NULL)
            cairn_error(err, CAIRN_INTERNAL, "out of memory");
    }
    return codec->room;
}
