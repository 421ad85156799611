#include "postgres/wal_message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static const uint8_t DATA[] = {
    'w', 0,   0,    0,    1,    2,    0,    0,    0x28, /* starts at 1/2000028 */
    0,   0,   0,    1,    2,    0,    0,    0x30,       /* the server has 1/2000030 */
    0,   2,   0x8f, 0x5c, 0x11, 0x22, 0x33, 0x44,       /* time */
    'a', 'b', 'c',
};

static const uint8_t KEEPALIVE[] = {
    'k', 0, 0, 0, 1, 2, 0, 0, 0x30, 0, 2, 0x8f, 0x5c, 0x11, 0x22, 0x33, 0x44, 1,
};

static void
expect_corrupt(const void *bytes, size_t size)
{
    CairnError err = {0};
    WalMessage message = {.size = 77};

    assert_false(wal_message_parse(bytes, size, &message, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_int_equal(message.size, 77); /* outputs are written on success only */
}

static void
test_data_is_taken_apart(void **state)
{
    CairnError err = {0};
    WalMessage message;
    (void)state;

    assert_true(wal_message_parse(DATA, sizeof DATA, &message, &err));
    assert_int_equal(message.kind, WAL_MESSAGE_DATA);
    assert_int_equal(message.start_lsn, UINT64_C(0x102000028));
    assert_int_equal(message.server_lsn, UINT64_C(0x102000030));
    assert_int_equal(message.sent_us, INT64_C(0x00028f5c11223344));
    assert_int_equal(message.size, 3);
    assert_memory_equal(message.data, "abc", 3);
}

static void
test_a_keepalive_is_taken_apart(void **state)
{
    CairnError err = {0};
    WalMessage message;
    (void)state;

    assert_true(wal_message_parse(KEEPALIVE, sizeof KEEPALIVE, &message, &err));
    assert_int_equal(message.kind, WAL_MESSAGE_KEEPALIVE);
    assert_int_equal(message.server_lsn, UINT64_C(0x102000030));
    assert_true(message.reply_requested);
    assert_int_equal(message.size, 0);
}

static void
test_what_no_server_sends_is_refused(void **state)
{
    uint8_t bytes[sizeof DATA];
    uint8_t keepalive[sizeof KEEPALIVE + 1] = {0};
    (void)state;

    expect_corrupt(DATA, 0);
    expect_corrupt("x", 1);
    expect_corrupt("s0000000", 8);
    for (size_t size = 1; size < WAL_MESSAGE_DATA_HEADER; size++)
        expect_corrupt(DATA, size);

    memcpy(bytes, DATA, sizeof bytes);
    memset(bytes + 1, 0, 8);
    expect_corrupt(bytes, sizeof bytes); /* nothing begins at 0/0 */
    memset(bytes + 1, 0xff, 8);
    expect_corrupt(bytes, sizeof bytes); /* its end would overflow */

    memcpy(keepalive, KEEPALIVE, sizeof KEEPALIVE);
    expect_corrupt(keepalive, sizeof KEEPALIVE - 1);
    expect_corrupt(keepalive, sizeof KEEPALIVE + 1);
    keepalive[17] = 2;
    expect_corrupt(keepalive, sizeof KEEPALIVE);
}

static void
test_data_beyond_the_limit_is_refused(void **state)
{
    const size_t size = WAL_MESSAGE_DATA_HEADER + (size_t)WAL_MESSAGE_DATA_LIMIT + 1;
    uint8_t *bytes = calloc(1, size);
    CairnError err = {0};
    WalMessage message;
    (void)state;

    assert_non_null(bytes);
    memcpy(bytes, DATA, sizeof DATA);
    assert_true(wal_message_parse(bytes, size - 1, &message, &err));
    expect_corrupt(bytes, size);
    free(bytes);
}

static void
test_a_status_is_the_34_bytes_that_a_server_reads(void **state)
{
    static const uint8_t expected[WAL_MESSAGE_STATUS_SIZE] = {
        'r', 0, 0, 0, 1, 2, 0, 0, 0x30, 0,    0,    0,    1,    2,    0,    0,    0x28,
        0,   0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 1,
    };
    uint8_t bytes[WAL_MESSAGE_STATUS_SIZE];
    (void)state;

    wal_message_status(bytes, &(WalStatus){.write_lsn = UINT64_C(0x102000030),
                                           .flush_lsn = UINT64_C(0x102000028),
                                           .sent_us = -2,
                                           .reply_requested = true});
    assert_memory_equal(bytes, expected, sizeof expected);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_is_taken_apart),
        cmocka_unit_test(test_a_keepalive_is_taken_apart),
        cmocka_unit_test(test_what_no_server_sends_is_refused),
        cmocka_unit_test(test_data_beyond_the_limit_is_refused),
        cmocka_unit_test(test_a_status_is_the_34_bytes_that_a_server_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
