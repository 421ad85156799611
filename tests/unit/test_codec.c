#include "codec/codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { SIZE = 128 * 1024 };

static uint8_t text[SIZE];  /* compresses well */
static uint8_t noise[SIZE]; /* does not compress */

static const CodecId IDS[] = {CODEC_NONE, CODEC_LZ4, CODEC_ZSTD};
enum { ID_COUNT = 3 };

static int
fill(void **state)
{
    (void)state;
    uint32_t x = 1;
    for (size_t i = 0; i < SIZE; i++) {
        x = x * 1664525 + 1013904223;
        noise[i] = (uint8_t)(x >> 24);
        text[i] = (uint8_t)((uint8_t) "pgcairn "[i % 8] + (x >> 31));
    }
    return 0;
}

static void
round_trip(CodecContext *codec, const uint8_t *raw, size_t raw_size, CodecId *id, size_t *size)
{
    CairnError err = {0};
    const size_t bound = codec_bound(codec, raw_size);
    SCOPED_MEMORY uint8_t *stored = malloc(bound + 1);
    SCOPED_MEMORY uint8_t *back = malloc(raw_size + 1);
    back[raw_size] = 0xa5;
    assert_true(codec_compress(codec, raw, raw_size, stored, bound, size, id, &err));
    assert_true(*size <= bound);
    assert_true(codec_decompress(codec, *id, stored, *size, back, raw_size, &err));
    assert_memory_equal(back, raw, raw_size);
    assert_int_equal(back[raw_size], 0xa5);
}

static void
test_every_codec_and_level_gives_back_what_it_took(void **state)
{
    (void)state;
    static const struct {
        CodecId id;
        int level;
    } CASES[] = {{CODEC_NONE, 0}, {CODEC_LZ4, 0},  {CODEC_LZ4, 1},  {CODEC_LZ4, 3},
                 {CODEC_LZ4, 12}, {CODEC_ZSTD, 0}, {CODEC_ZSTD, 1}, {CODEC_ZSTD, 9}};
    static const size_t SIZES[] = {0, 1, 5, 100, 8192, SIZE};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CairnError err = {0};
        SCOPED(CodecContext) codec = codec_open(CASES[i].id, CASES[i].level, &err);
        assert_non_null(codec);
        for (size_t j = 0; j < sizeof SIZES / sizeof SIZES[0]; j++) {
            CodecId id;
            size_t size;
            round_trip(codec, text, SIZES[j], &id, &size);
            if (SIZES[j] >= 8192 && CASES[i].id != CODEC_NONE) {
                assert_int_equal(id, CASES[i].id);
                assert_true(size < SIZES[j]);
            }
            round_trip(codec, noise, SIZES[j], &id, &size);
            assert_int_equal(id, CODEC_NONE); /* never larger than raw */
            assert_int_equal(size, SIZES[j]);
        }
    }
}

static void
test_any_context_decompresses_every_codec(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(CodecContext) reader = codec_open(CODEC_NONE, 0, &err);
    for (size_t i = 0; i < ID_COUNT; i++) {
        SCOPED(CodecContext) writer = codec_open(IDS[i], 0, &err);
        SCOPED_MEMORY uint8_t *stored = malloc(codec_bound(writer, SIZE));
        SCOPED_MEMORY uint8_t *back = malloc(SIZE);
        size_t size;
        CodecId id;
        assert_true(codec_compress(writer, text, SIZE, stored, codec_bound(writer, SIZE), &size,
                                   &id, &err));
        assert_int_equal(id, IDS[i]);
        assert_true(codec_decompress(reader, id, stored, size, back, SIZE, &err));
        assert_memory_equal(back, text, SIZE);
    }
}

static void
expect_corrupt(CodecContext *codec, CodecId id, const uint8_t *stored, size_t size, size_t raw_size)
{
    CairnError err = {0};
    SCOPED_MEMORY uint8_t *exact = malloc(size > 0 ? size : 1); /* so that ASan sees overreads */
    SCOPED_MEMORY uint8_t *back = malloc(raw_size > 0 ? raw_size : 1);
    if (size > 0)
        memcpy(exact, stored, size);
    assert_false(codec_decompress(codec, id, exact, size, back, raw_size, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_a_wrong_size_is_corrupt(void **state)
{
    (void)state;
    CairnError err = {0};
    for (size_t i = 0; i < ID_COUNT; i++) {
        SCOPED(CodecContext) codec = codec_open(IDS[i], 0, &err);
        SCOPED_MEMORY uint8_t *stored = calloc(1, codec_bound(codec, SIZE) + 1);
        size_t size;
        CodecId id;
        assert_true(
            codec_compress(codec, text, SIZE, stored, codec_bound(codec, SIZE), &size, &id, &err));
        expect_corrupt(codec, id, stored, size, SIZE - 1);
        expect_corrupt(codec, id, stored, size, SIZE + 1);
        expect_corrupt(codec, id, stored, size, 0);
        expect_corrupt(codec, id, stored, size - 1, SIZE);
        expect_corrupt(codec, id, stored, size / 2, SIZE);
        expect_corrupt(codec, id, stored, 0, SIZE);
        expect_corrupt(codec, id, stored, size + 1, SIZE); /* a byte behind the end */
    }
}

static void
test_a_second_frame_behind_a_block_is_corrupt(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(CodecContext) codec = codec_open(CODEC_ZSTD, 0, &err);
    const size_t bound = codec_bound(codec, SIZE);
    SCOPED_MEMORY uint8_t *stored = malloc(bound + 8);
    size_t size;
    CodecId id;
    assert_true(codec_compress(codec, text, SIZE, stored, bound, &size, &id, &err));
    /* An empty skippable frame, which the library would step over. */
    memcpy(stored + size, "\x50\x2a\x4d\x18\0\0\0\0", 8);
    expect_corrupt(codec, id, stored, size + 8, SIZE);
}

static void
test_bombs_are_refused(void **state)
{
    (void)state;
    CairnError err = {0};
    static uint8_t zeros[CODEC_RAW_LIMIT];
    for (size_t i = 1; i < ID_COUNT; i++) {
        SCOPED(CodecContext) codec = codec_open(IDS[i], 0, &err);
        SCOPED_MEMORY uint8_t *stored = malloc(codec_bound(codec, CODEC_RAW_LIMIT));
        size_t size;
        CodecId id;
        assert_true(codec_compress(codec, zeros, CODEC_RAW_LIMIT, stored,
                                   codec_bound(codec, CODEC_RAW_LIMIT), &size, &id, &err));
        assert_true(size < 8192);
        expect_corrupt(codec, id, stored, size, 100);                 /* would write a million */
        expect_corrupt(codec, id, stored, size, CODEC_RAW_LIMIT + 1); /* declared too large */
    }
}

static void
test_damage_never_gets_out_of_bounds(void **state)
{
    (void)state;
    CairnError err = {0};
    enum { RAW = 4096 };
    for (size_t i = 1; i < ID_COUNT; i++) {
        SCOPED(CodecContext) codec = codec_open(IDS[i], 0, &err);
        SCOPED_MEMORY uint8_t *stored = malloc(codec_bound(codec, RAW));
        SCOPED_MEMORY uint8_t *back = malloc(RAW);
        size_t size;
        CodecId id;
        assert_true(
            codec_compress(codec, text, RAW, stored, codec_bound(codec, RAW), &size, &id, &err));
        SCOPED_MEMORY uint8_t *damaged = malloc(size);
        for (size_t at = 0; at < size; at++) {
            memcpy(damaged, stored, size);
            damaged[at] ^= (uint8_t)(1 + at % 255);
            /* A flip may decode to other bytes (digests are the container's); no more than that. */
            if (!codec_decompress(codec, id, damaged, size, back, RAW, &err)) {
                assert_int_equal(err.kind, CAIRN_CORRUPT);
                cairn_error_clear(&err);
            }
        }
        /* Still in working order afterwards. */
        assert_true(codec_decompress(codec, id, stored, size, back, RAW, &err));
        assert_memory_equal(back, text, RAW);
    }
}

static void
test_ids_names_and_levels_are_checked(void **state)
{
    (void)state;
    CairnError err = {0};
    CodecId id;
    for (size_t i = 0; i < ID_COUNT; i++) {
        assert_true(codec_id_of_name(codec_name(IDS[i]), &id, &err));
        assert_int_equal(id, IDS[i]);
    }
    assert_false(codec_id_of_name("gzip", &id, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    cairn_error_clear(&err);
    assert_null(codec_open((CodecId)3, 0, &err));
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);

    static const struct {
        CodecId id;
        int level;
    } CASES[] = {
        {CODEC_NONE, 1}, {CODEC_LZ4, 13}, {CODEC_LZ4, -1}, {CODEC_ZSTD, 20}, {CODEC_ZSTD, -1}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        cairn_error_clear(&err);
        assert_null(codec_open(CASES[i].id, CASES[i].level, &err));
        assert_int_equal(err.kind, CAIRN_USAGE);
    }

    cairn_error_clear(&err);
    SCOPED(CodecContext) codec = codec_open(CODEC_LZ4, 0, &err);
    uint8_t byte;
    assert_false(codec_decompress(codec, (CodecId)77, "x", 1, &byte, 1, &err));
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_codec_and_level_gives_back_what_it_took),
        cmocka_unit_test(test_any_context_decompresses_every_codec),
        cmocka_unit_test(test_a_wrong_size_is_corrupt),
        cmocka_unit_test(test_a_second_frame_behind_a_block_is_corrupt),
        cmocka_unit_test(test_bombs_are_refused),
        cmocka_unit_test(test_damage_never_gets_out_of_bounds),
        cmocka_unit_test(test_ids_names_and_levels_are_checked),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
