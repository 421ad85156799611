/* Zstandard frames. Their own content size must agree with what the container declares. */
#include "codec/codec_intern.h"
#include "common/lazy_library.h"

#include <pthread.h>
#include <zstd.h>

/* Loaded at first use, since a call that finds its answer ready moves no bytes. A function that is
   missing here does not link: add it to both lists. */
/* clang-format off */
#define FUNCTIONS(FUNCTION) \
    FUNCTION(ZSTD_compressBound) \
    FUNCTION(ZSTD_compressCCtx) \
    FUNCTION(ZSTD_createCCtx) \
    FUNCTION(ZSTD_createDCtx) \
    FUNCTION(ZSTD_decompressDCtx) \
    FUNCTION(ZSTD_findFrameCompressedSize) \
    FUNCTION(ZSTD_freeCCtx) \
    FUNCTION(ZSTD_freeDCtx) \
    FUNCTION(ZSTD_getErrorName) \
    FUNCTION(ZSTD_isError)
/* clang-format on */

static struct {
#define MEMBER(name) __typeof__(name) *name;
    FUNCTIONS(MEMBER)
#undef MEMBER
} zstd;
static pthread_once_t load_once = PTHREAD_ONCE_INIT;

static void
load(void)
{
    void *library = lazy_library_open("libzstd.so." LAZY_LIBRARY_VERSION(ZSTD_VERSION_MAJOR));

#define FIND(name) *(void **)&zstd.name = lazy_library_find(library, #name);
    FUNCTIONS(FIND)
#undef FIND
}

static __typeof__(zstd) *
loaded(void)
{
    pthread_once(&load_once, load);
    return &zstd;
}

#define ZSTD_compressBound(...) loaded()->ZSTD_compressBound(__VA_ARGS__)
#define ZSTD_compressCCtx(...) loaded()->ZSTD_compressCCtx(__VA_ARGS__)
#define ZSTD_createCCtx(...) loaded()->ZSTD_createCCtx(__VA_ARGS__)
#define ZSTD_createDCtx(...) loaded()->ZSTD_createDCtx(__VA_ARGS__)
#define ZSTD_decompressDCtx(...) loaded()->ZSTD_decompressDCtx(__VA_ARGS__)
#define ZSTD_findFrameCompressedSize(...) loaded()->ZSTD_findFrameCompressedSize(__VA_ARGS__)
#define ZSTD_freeCCtx(...) loaded()->ZSTD_freeCCtx(__VA_ARGS__)
#define ZSTD_freeDCtx(...) loaded()->ZSTD_freeDCtx(__VA_ARGS__)
#define ZSTD_getErrorName(...) loaded()->ZSTD_getErrorName(__VA_ARGS__)
#define ZSTD_isError(...) loaded()->ZSTD_isError(__VA_ARGS__)

/* More would need a different window and much memory; negative levels lose to lz4. */
enum { LEVEL_DEFAULT = 3, LEVEL_MIN = 1, LEVEL_MAX = 19 };

static size_t
zstd_bound(size_t raw_size)
{
    return ZSTD_compressBound(raw_size);
}

static bool
zstd_compress(void **state, int level, const void *raw, size_t raw_size, void *stored,
              size_t capacity, size_t *stored_size_out, CairnError *err)
{
    if (*state == NULL)
        *state = ZSTD_createCCtx();
    if (*state == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    const size_t size = ZSTD_compressCCtx(*state, stored, capacity, raw, raw_size,
                                          level == 0 ? LEVEL_DEFAULT : level);
    if (ZSTD_isError(size))
        return cairn_error(err, CAIRN_INTERNAL, "zstd is unable to compress %zu bytes: %s",
                           raw_size, ZSTD_getErrorName(size));
    *stored_size_out = size;
    return true;
}

static bool
zstd_decompress(void **state, const void *stored, size_t stored_size, void *raw, size_t raw_size,
                CairnError *err)
{
    if (*state == NULL)
        *state = ZSTD_createDCtx();
    if (*state == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    /* One frame and nothing behind it; ZSTD_decompress would take several in a row. */
    if (ZSTD_findFrameCompressedSize(stored, stored_size) != stored_size)
        return cairn_error(err, CAIRN_CORRUPT, "damaged zstd block");
    const size_t size = ZSTD_decompressDCtx(*state, raw, raw_size, stored, stored_size);
    if (ZSTD_isError(size) || size != raw_size)
        return cairn_error(err, CAIRN_CORRUPT, "damaged zstd block: %s", ZSTD_getErrorName(size));
    return true;
}

static void
free_compress_state(void *state)
{
    ZSTD_freeCCtx(state);
}

static void
free_decompress_state(void *state)
{
    ZSTD_freeDCtx(state);
}

const CodecRow codec_zstd_row = {
    .name = "zstd",
    .level_min = LEVEL_MIN,
    .level_max = LEVEL_MAX,
    .bound = zstd_bound,
    .compress = zstd_compress,
    .decompress = zstd_decompress,
    .free_compress_state = free_compress_state,
    .free_decompress_state = free_decompress_state,
};
