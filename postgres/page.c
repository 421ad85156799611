#include "postgres/page.h"

#include "common/bytes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/*
 * The checksum sees a page as 64 rows of 32 words and keeps one sum a column, so that 32 lanes can
 * run side by side.
 */
enum { CHECKSUM_COLUMNS = 32, CHECKSUM_ROW_SIZE = 128, CHECKSUM_ROWS = 64 };
enum { PAGE_CHECKSUM_OFFSET = 8, PAGE_UPPER_OFFSET = 14 };

#define CHECKSUM_PRIME UINT32_C(16777619)

static const uint32_t checksum_start[CHECKSUM_COLUMNS] = {
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
};

/* The first row with the stored checksum taken as zero: the page itself stays untouched. */
static void
copy_first_row(uint8_t row[CHECKSUM_ROW_SIZE], const void *page)
{
    memcpy(row, page, CHECKSUM_ROW_SIZE);
    put_u16(row + PAGE_CHECKSUM_OFFSET, 0);
}

static void
mix_row(uint32_t sums[CHECKSUM_COLUMNS], const uint8_t *row)
{
    for (size_t i = 0; i < CHECKSUM_COLUMNS; i++) {
        const uint32_t t = sums[i] ^ get_u32(row + 4 * i);
        sums[i] = (t * CHECKSUM_PRIME) ^ (t >> 17);
    }
}

static uint32_t
sum_page_generic(const void *page)
{
    static const uint8_t zero_row[CHECKSUM_ROW_SIZE];
    uint8_t first_row[CHECKSUM_ROW_SIZE];
    copy_first_row(first_row, page);

    uint32_t sums[CHECKSUM_COLUMNS];
    memcpy(sums, checksum_start, sizeof sums);
    mix_row(sums, first_row);
    for (size_t row = 1; row < CHECKSUM_ROWS; row++)
        mix_row(sums, (const uint8_t *)page + row * CHECKSUM_ROW_SIZE);
    mix_row(sums, zero_row);
    mix_row(sums, zero_row);

    uint32_t result = 0;
    for (size_t i = 0; i < CHECKSUM_COLUMNS; i++)
        result ^= sums[i];
    return result;
}

static uint16_t
fold(uint32_t sum, uint32_t block)
{
    return (uint16_t)((sum ^ block) % 65535 + 1);
}

uint16_t
page_checksum_generic(const void *page, uint32_t block)
{
    return fold(sum_page_generic(page), block);
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) static inline __m256i
mix8_avx2(__m256i sum, __m256i words)
{
    const __m256i t = _mm256_xor_si256(sum, words);
    const __m256i product = _mm256_mullo_epi32(t, _mm256_set1_epi32((int)CHECKSUM_PRIME));
    return _mm256_xor_si256(product, _mm256_srli_epi32(t, 17));
}

__attribute__((target("avx2"))) static inline void
mix_row_avx2(__m256i sums[4], const uint8_t *row)
{
    for (size_t i = 0; i < 4; i++) {
        const __m256i words = _mm256_loadu_si256((const __m256i *)(const void *)(row + 32 * i));
        sums[i] = mix8_avx2(sums[i], words);
    }
}

__attribute__((target("avx2"))) static uint32_t
sum_page_avx2(const void *page)
{
    static const uint8_t zero_row[CHECKSUM_ROW_SIZE];
    uint8_t first_row[CHECKSUM_ROW_SIZE];
    copy_first_row(first_row, page);

    __m256i sums[4];
    for (size_t i = 0; i < 4; i++)
        sums[i] = _mm256_loadu_si256((const __m256i *)(const void *)(checksum_start + 8 * i));
    mix_row_avx2(sums, first_row);
    for (size_t row = 1; row < CHECKSUM_ROWS; row++)
        mix_row_avx2(sums, (const uint8_t *)page + row * CHECKSUM_ROW_SIZE);
    mix_row_avx2(sums, zero_row);
    mix_row_avx2(sums, zero_row);

    const __m256i halves =
        _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
    uint32_t lanes[8];
    memcpy(lanes, &halves, sizeof lanes);
    uint32_t result = 0;
    for (size_t i = 0; i < 8; i++)
        result ^= lanes[i];
    return result;
}

uint16_t
page_checksum(const void *page, uint32_t block)
{
    /* Reads a word that libgcc filled at start: cheap, and no state of ours between threads. */
    if (__builtin_cpu_supports("avx2"))
        return fold(sum_page_avx2(page), block);
    return page_checksum_generic(page, block);
}

#else

uint16_t
page_checksum(const void *page, uint32_t block)
{
    return page_checksum_generic(page, block);
}

#endif

bool
bytes_are_zero(const void *data, size_t size)
{
    const uint8_t *bytes = data;

    /* 64 bytes a step without a branch inside; most pages that are not zero leave at the first. */
    while (size >= 64) {
        const uint64_t any = (get_u64(bytes) | get_u64(bytes + 8)) |
                             (get_u64(bytes + 16) | get_u64(bytes + 24)) |
                             (get_u64(bytes + 32) | get_u64(bytes + 40)) |
                             (get_u64(bytes + 48) | get_u64(bytes + 56));
        if (any != 0)
            return false;
        bytes += 64;
        size -= 64;
    }
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++)
        any |= bytes[i];
    return any == 0;
}

uint64_t
page_lsn(const void *page)
{
    return (uint64_t)get_u32(page) << 32 | get_u32((const uint8_t *)page + 4);
}

PageVerdict
page_verify(const void *page, uint32_t block, uint64_t backup_start_lsn)
{
    const uint8_t *bytes = page;

    /* The server never writes a checksum into a page without content: only zeros are good then. */
    if (get_u16(bytes + PAGE_UPPER_OFFSET) == 0)
        return bytes_are_zero(page, PAGE_SIZE_BYTES) ? PAGE_NEW : PAGE_BAD;

    if (get_u16(bytes + PAGE_CHECKSUM_OFFSET) == page_checksum(page, block))
        return PAGE_GOOD;
    return page_lsn(page) >= backup_start_lsn ? PAGE_GOOD : PAGE_BAD;
}
