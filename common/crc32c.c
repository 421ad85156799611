/*
 * CRC-32C. Everything here works on the bare register: inversion before and after is crc32c's.
 *
 * A register holds a polynomial over GF(2), reflected: bit i is the coefficient of x^(31-i).
 * Reading n zero bytes multiplies it by x^(8n) modulo P. Three lanes of the CPU's instruction
 * (latency 3, one a cycle) are joined by such products.
 */
#include "common/digest.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    POLYNOMIAL = (int)0x82f63b78, /* reflected, x^32 left out */
    SLICES = 8,
    LANE_WORDS = 340, /* 3 * 340 * 8 = 8160: a page is one round and four words */
    LANE_WORDS_MIN = 8,
};

static uint32_t table[SLICES][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

#define ONE_REFLECTED UINT32_C(0x80000000) /* the polynomial 1 */

static void
make_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? (uint32_t)POLYNOMIAL : 0);
        table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (int slice = 1; slice < SLICES; slice++) {
            const uint32_t before = table[slice - 1][byte];
            table[slice][byte] = (before >> 8) ^ table[0][before & 255];
        }
    }
}

static uint32_t
update_word(uint32_t crc, uint64_t word)
{
    word ^= crc;
    uint32_t result = 0;
    for (int slice = SLICES - 1; slice >= 0; slice--) {
        result ^= table[slice][word & 255];
        word >>= 8;
    }
    return result;
}

static uint32_t
update_generic(uint32_t crc, const uint8_t *at, size_t size)
{
    pthread_once(&table_once, make_table);
    while (size >= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        crc = update_word(crc, word);
        at += sizeof word;
        size -= sizeof word;
    }
    while (size-- > 0)
        crc = (crc >> 8) ^ table[0][(crc ^ *at++) & 255];
    return crc;
}

/* a * b modulo P, both reflected. */
static uint32_t
multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (uint32_t bit = ONE_REFLECTED; bit != 0; bit >>= 1) {
        if ((a & bit) != 0)
            product ^= b;
        b = (b >> 1) ^ ((b & 1) != 0 ? (uint32_t)POLYNOMIAL : 0);
    }
    return product;
}

uint32_t
crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b)
{
    /* Inversions cancel: shifting the finished CRC of a over b's length is all that is needed. */
    uint32_t square = ONE_REFLECTED >> 8; /* x^8, one byte */
    uint32_t shifted = crc_a;
    for (; size_b != 0; size_b >>= 1) {
        if ((size_b & 1) != 0)
            shifted = multiply(shifted, square);
        square = multiply(square, square);
    }
    return shifted ^ crc_b;
}

/* page_shift[n][byte]: what byte n of a register becomes behind a page of zeros. */
static uint32_t page_shift[sizeof(uint32_t)][256];
static pthread_once_t page_shift_once = PTHREAD_ONCE_INIT;

static void
make_page_shift(void)
{
    for (unsigned n = 0; n < sizeof(uint32_t); n++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            const uint32_t low = UINT32_C(1) << bit;
            const uint32_t shifted = crc32c_combine(low << (8 * n), 0, CRC32C_PAGE_SIZE);
            for (uint32_t below = 0; below < low; below++)
                page_shift[n][low + below] = page_shift[n][below] ^ shifted;
        }
    }
}

uint32_t
crc32c_combine_pages(uint32_t crc, const uint32_t *page_crcs, size_t count)
{
    pthread_once(&page_shift_once, make_page_shift);
    for (size_t i = 0; i < count; i++) {
        crc = page_shift[0][crc & 255] ^ page_shift[1][crc >> 8 & 255] ^
              page_shift[2][crc >> 16 & 255] ^ page_shift[3][crc >> 24] ^ page_crcs[i];
    }
    return crc;
}

#if defined(__x86_64__)

/* lane_shift[n] is x^(64n - 33): see shift_words. */
static uint32_t lane_shift[2 * LANE_WORDS + 1];
static pthread_once_t lane_shift_once = PTHREAD_ONCE_INIT;

static void
make_lane_shift(void)
{
    pthread_once(&table_once, make_table);
    uint32_t power = ONE_REFLECTED >> 31; /* x^31 */
    for (size_t words = 1; words < sizeof lane_shift / sizeof lane_shift[0]; words++) {
        lane_shift[words] = power;
        power = update_word(power, 0);
    }
}

/*
 * crc * x^(64 * words). The carry-less product of two reflected registers, taken as a reflected
 * 64-bit one, is x times their product, and the CRC instruction multiplies by x^32 as it reduces:
 * hence 33 less in the table.
 */
__attribute__((target("sse4.2,pclmul"))) static uint32_t
shift_words(uint32_t crc, size_t words)
{
    const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)crc),
                                                 _mm_cvtsi32_si128((int)lane_shift[words]), 0);
    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

static inline uint64_t
load_word(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t
update_sse42(uint32_t crc, const uint8_t *at, size_t size)
{
    while (size >= 3 * LANE_WORDS_MIN * sizeof(uint64_t)) {
        size_t words = size / (3 * sizeof(uint64_t));
        if (words > LANE_WORDS)
            words = LANE_WORDS;
        const size_t lane_size = words * sizeof(uint64_t);
        const uint8_t *const second = at + lane_size;
        const uint8_t *const third = second + lane_size;
        uint64_t a = crc;
        uint64_t b = 0;
        uint64_t c = 0;
        for (size_t i = 0; i < lane_size; i += sizeof(uint64_t)) {
            a = _mm_crc32_u64(a, load_word(at + i));
            b = _mm_crc32_u64(b, load_word(second + i));
            c = _mm_crc32_u64(c, load_word(third + i));
        }
        crc = shift_words((uint32_t)a, 2 * words) ^ shift_words((uint32_t)b, words) ^ (uint32_t)c;
        at += 3 * lane_size;
        size -= 3 * lane_size;
    }
    uint64_t wide = crc;
    for (; size >= sizeof(uint64_t); size -= sizeof(uint64_t), at += sizeof(uint64_t))
        wide = _mm_crc32_u64(wide, load_word(at));
    crc = (uint32_t)wide;
    if (size >= sizeof(uint32_t)) {
        uint32_t half;
        memcpy(&half, at, sizeof half);
        crc = _mm_crc32_u32(crc, half);
        at += sizeof half;
        size -= sizeof half;
    }
    while (size-- > 0)
        crc = _mm_crc32_u8(crc, *at++);
    return crc;
}

static bool
have_sse42(void)
{
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

#endif

uint32_t
crc32c_portable(uint32_t crc, const void *data, size_t size)
{
    return ~update_generic(~crc, data, size);
}

uint32_t
crc32c(uint32_t crc, const void *data, size_t size)
{
#if defined(__x86_64__)
    if (have_sse42()) {
        if (size >= 3 * LANE_WORDS_MIN * sizeof(uint64_t)) /* the others need no table */
            pthread_once(&lane_shift_once, make_lane_shift);
        return ~update_sse42(~crc, data, size);
    }
#endif
    return crc32c_portable(crc, data, size);
}
