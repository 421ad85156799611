#include "common/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void
test_varints_come_back_and_are_as_short_as_can_be(void **state)
{
    (void)state;
    static const struct {
        uint64_t value;
        size_t size;
    } CASES[] = {{0, 1},     {127, 1},        {128, 2},       {16383, 2},
                 {16384, 3}, {UINT32_MAX, 5}, {INT64_MAX, 9}, {UINT64_MAX, 10}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        SCOPED_BYTES ByteWriter writer = {0};
        byte_writer_varint(&writer, CASES[i].value);
        assert_int_equal(writer.size, CASES[i].size);
        ByteReader reader = byte_reader(writer.data, writer.size);
        assert_true(byte_reader_varint(&reader) == CASES[i].value);
        assert_true(byte_reader_done(&reader));
    }
}

static void
test_damaged_varints_fail_the_reader(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } CASES[] = {
        {"", 0},
        {"\x80", 1},                                          /* cut */
        {"\x80\x00", 2},                                      /* a longer form of 0 */
        {"\xff\x80\x00", 3},                                  /* a longer form of 127 */
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10},     /* bit 64 */
        {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11}, /* eleven bytes */
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        ByteReader reader = byte_reader(CASES[i].bytes, CASES[i].size);
        assert_true(byte_reader_varint(&reader) == 0);
        assert_true(reader.failed);
        assert_int_equal(byte_reader_left(&reader), 0);
    }
}

static void
test_varint_limit_is_inclusive(void **state)
{
    (void)state;
    ByteReader good = byte_reader("\x64", 1);
    assert_true(byte_reader_varint_max(&good, 100) == 100);
    assert_false(good.failed);
    ByteReader bad = byte_reader("\x65", 1);
    assert_true(byte_reader_varint_max(&bad, 100) == 0);
    assert_true(bad.failed);
}

static void
test_reader_failure_is_sticky(void **state)
{
    (void)state;
    ByteReader reader = byte_reader("\x01\x02\x03", 3);
    assert_int_equal(byte_reader_u16(&reader), 0x0201);
    assert_int_equal(byte_reader_u32(&reader), 0);
    assert_int_equal(byte_reader_u8(&reader),
                     0); /* one byte is left, but not for a failed reader */
    assert_null(byte_reader_bytes(&reader, 0));
    assert_false(byte_reader_done(&reader));
}

static void
test_reader_refuses_huge_lengths(void **state)
{
    (void)state;
    ByteReader reader = byte_reader("abc", 3);
    byte_reader_u8(&reader);
    assert_null(byte_reader_bytes(&reader, SIZE_MAX));
    assert_true(reader.failed);
}

static void
test_writer_and_reader_agree_on_little_endian(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter writer = {0};
    byte_writer_u8(&writer, 0x01);
    byte_writer_u16(&writer, 0x0302);
    byte_writer_u32(&writer, 0x07060504);
    byte_writer_u64(&writer, 0x0f0e0d0c0b0a0908);
    byte_writer_bytes(&writer, NULL, 0);
    assert_int_equal(writer.size, 15);
    for (uint8_t i = 0; i < 15; i++)
        assert_int_equal(writer.data[i], i + 1);
    ByteReader reader = byte_reader(writer.data, writer.size);
    assert_int_equal(byte_reader_u8(&reader), 0x01);
    assert_int_equal(byte_reader_u16(&reader), 0x0302);
    assert_int_equal(byte_reader_u32(&reader), 0x07060504);
    assert_true(byte_reader_u64(&reader) == 0x0f0e0d0c0b0a0908);
    assert_true(byte_reader_done(&reader));
}

static void
test_writer_grows_and_fails_for_good(void **state)
{
    (void)state;
    SCOPED_BYTES ByteWriter writer = {0};
    for (uint32_t i = 0; i < 10000; i++)
        byte_writer_u32(&writer, i);
    CairnError err = {0};
    assert_true(byte_writer_check(&writer, &err));
    assert_int_equal(get_u32(writer.data + 4 * 9999), 9999);

    byte_writer_bytes(&writer, "x", SIZE_MAX - 5); /* overflows before anything is copied */
    byte_writer_u8(&writer, 1);
    assert_int_equal(writer.size, 40000);
    assert_false(byte_writer_check(&writer, &err));
    assert_int_equal(err.kind, CAIRN_INTERNAL);
}

static void
test_hex_goes_both_ways_and_refuses_others(void **state)
{
    (void)state;
    char text[9];
    hex_encode(text, "\x00\x9f\xab\xff", 4);
    assert_string_equal(text, "009fabff");
    uint8_t bytes[4];
    assert_true(hex_decode(bytes, 4, "009fabff"));
    assert_memory_equal(bytes, "\x00\x9f\xab\xff", 4);
    assert_false(hex_decode(bytes, 4, "009FABFF"));
    assert_false(hex_decode(bytes, 4, "009fabf"));
    assert_false(hex_decode(bytes, 4, "009fabfg"));
    assert_false(hex_decode(bytes, 4, ""));
}

static void
test_formatted_text_is_whole_however_long(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED_BYTES ByteWriter text = {0};
    char long_path[20001];
    memset(long_path, 'p', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    byte_writer_format(&text, "%s", "");
    assert_int_equal(text.size, 0);
    byte_writer_format(&text, "%d: ", 7);
    byte_writer_format(&text, "'%s'\n", long_path);
    assert_true(byte_writer_check(&text, &err));
    assert_int_equal(text.size, 3 + sizeof long_path - 1 + 3);
    assert_memory_equal(text.data, "7: 'ppp", 7);
    assert_memory_equal(text.data + text.size - 3, "p'\n", 3);
    text.failed = true;
    byte_writer_format(&text, "more");
    assert_int_equal(text.size, 3 + sizeof long_path - 1 + 3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_varints_come_back_and_are_as_short_as_can_be),
        cmocka_unit_test(test_formatted_text_is_whole_however_long),
        cmocka_unit_test(test_damaged_varints_fail_the_reader),
        cmocka_unit_test(test_varint_limit_is_inclusive),
        cmocka_unit_test(test_reader_failure_is_sticky),
        cmocka_unit_test(test_reader_refuses_huge_lengths),
        cmocka_unit_test(test_writer_and_reader_agree_on_little_endian),
        cmocka_unit_test(test_writer_grows_and_fails_for_good),
        cmocka_unit_test(test_hex_goes_both_ways_and_refuses_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
