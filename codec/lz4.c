/* LZ4 blocks, without the LZ4 frame around them: sizes and digests are the container's. */
#include "codec/codec_intern.h"
#include "common/lazy_library.h"

#include <lz4.h>
#include <lz4hc.h>
#include <pthread.h>

/* Loaded at first use, since a call that finds its answer ready moves no bytes. A function that is
   missing here does not link: add it to both lists. */
/* clang-format off */
#define FUNCTIONS(FUNCTION) \
    FUNCTION(LZ4_compressBound) \
    FUNCTION(LZ4_compress_HC_extStateHC) \
    FUNCTION(LZ4_compress_fast_extState) \
    FUNCTION(LZ4_decompress_safe) \
    FUNCTION(LZ4_sizeofState) \
    FUNCTION(LZ4_sizeofStateHC)
/* clang-format on */

static struct {
#define MEMBER(name) __typeof__(name) *name;
    FUNCTIONS(MEMBER)
#undef MEMBER
} lz4;
static pthread_once_t load_once = PTHREAD_ONCE_INIT;

static void
load(void)
{
    void *library = lazy_library_open("liblz4.so." LAZY_LIBRARY_VERSION(LZ4_VERSION_MAJOR));

#define FIND(name) *(void **)&lz4.name = lazy_library_find(library, #name);
    FUNCTIONS(FIND)
#undef FIND
}

static __typeof__(lz4) *
loaded(void)
{
    pthread_once(&load_once, load);
    return &lz4;
}

#define LZ4_compressBound(...) loaded()->LZ4_compressBound(__VA_ARGS__)
#define LZ4_compress_HC_extStateHC(...) loaded()->LZ4_compress_HC_extStateHC(__VA_ARGS__)
#define LZ4_compress_fast_extState(...) loaded()->LZ4_compress_fast_extState(__VA_ARGS__)
#define LZ4_decompress_safe(...) loaded()->LZ4_decompress_safe(__VA_ARGS__)
#define LZ4_sizeofState(...) loaded()->LZ4_sizeofState(__VA_ARGS__)
#define LZ4_sizeofStateHC(...) loaded()->LZ4_sizeofStateHC(__VA_ARGS__)

/*
 * Levels 0 to 2 are the fast compressor, 3 to 12 LZ4HC; the format is one and the same. Where no
 * level is said it looks for matches a little less eagerly: on wide rows of text a sixth faster,
 * for a hundredth of size.
 */
enum { FIRST_HC_LEVEL = 3, ACCELERATION_DEFAULT = 2, ACCELERATION_NONE = 1 };

static size_t
lz4_bound(size_t raw_size)
{
    return (size_t)LZ4_compressBound((int)raw_size);
}

static bool
lz4_compress(void **state, int level, const void *raw, size_t raw_size, void *stored,
             size_t capacity, size_t *stored_size_out, CairnError *err)
{
    const bool hc = level >= FIRST_HC_LEVEL;
    const int acceleration = level == 0 ? ACCELERATION_DEFAULT : ACCELERATION_NONE;
    if (*state == NULL)
        *state = malloc((size_t)(hc ? LZ4_sizeofStateHC() : LZ4_sizeofState()));
    if (*state == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    const int size =
        hc ? LZ4_compress_HC_extStateHC(*state, raw, stored, (int)raw_size, (int)capacity, level)
           : LZ4_compress_fast_extState(*state, raw, stored, (int)raw_size, (int)capacity,
                                        acceleration);
    if (size <= 0)
        return cairn_error(err, CAIRN_INTERNAL, "lz4 is unable to compress %zu bytes", raw_size);
    *stored_size_out = (size_t)size;
    return true;
}

static bool
lz4_decompress(void **state, const void *stored, size_t stored_size, void *raw, size_t raw_size,
               CairnError *err)
{
    (void)state;
    if (stored_size > (size_t)LZ4_compressBound(CODEC_RAW_LIMIT))
        return cairn_error(err, CAIRN_CORRUPT, "an lz4 block of %zu bytes is too large",
                           stored_size);
    const int size = LZ4_decompress_safe(stored, raw, (int)stored_size, (int)raw_size);
    if (size < 0 || (size_t)size != raw_size)
        return cairn_error(err, CAIRN_CORRUPT, "damaged lz4 block");
    return true;
}

const CodecRow codec_lz4_row = {
    .name = "lz4",
    .level_min = 1,
    .level_max = LZ4HC_CLEVEL_MAX,
    .bound = lz4_bound,
    .compress = lz4_compress,
    .decompress = lz4_decompress,
    .free_compress_state = free,
};
