#include "common/bytes.h"
#include "postgres/wal_page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void
make_page(uint8_t page[WAL_LONG_HEADER_SIZE])
{
    put_u16(page, 0xD116);
    put_u16(page + 2, WAL_PAGE_LONG | WAL_PAGE_CONTINUES);
    put_u32(page + 4, 5);
    put_u64(page + 8, UINT64_C(0x1F3000000));
    put_u32(page + 16, 99);
    put_u32(page + 20, 0);
    put_u64(page + 24, UINT64_C(7301234567890123456));
    put_u32(page + 32, 1 << 24);
    put_u32(page + 36, WAL_PAGE_SIZE);
}

static void
test_a_first_page_identifies_its_segment(void **state)
{
    uint8_t page[WAL_LONG_HEADER_SIZE];
    CairnError err = {0};
    WalIdentity identity;

    (void)state;
    make_page(page);
    assert_true(wal_identity_read(page, sizeof page, &identity, &err));
    assert_int_equal(identity.major, 17);
    assert_int_equal(identity.timeline, 5);
    assert_int_equal(identity.lsn, UINT64_C(0x1F3000000));
    assert_int_equal(identity.system_id, UINT64_C(7301234567890123456));
    assert_int_equal(identity.segment_size, 1 << 24);
}

static void
test_strangers_are_mismatches_and_damage_is_corrupt(void **state)
{
    static const struct {
        const char *name;
        CairnErrorKind kind;
        size_t offset;
        uint32_t value;
        size_t width;
    } cases[] = {
        {"PostgreSQL 14", CAIRN_MISMATCH, 0, 0xD10D, 2},
        {"a later PostgreSQL", CAIRN_MISMATCH, 0, 0xD130, 2},
        {"zeros", CAIRN_CORRUPT, 0, 0, 2},
        {"foreign byte order", CAIRN_CORRUPT, 0, 0x16D1, 2},
        {"gzip", CAIRN_CORRUPT, 0, 0x8B1F, 2},
        {"an inner page", CAIRN_CORRUPT, 2, WAL_PAGE_CONTINUES, 2},
        {"unknown flags", CAIRN_CORRUPT, 2, WAL_PAGE_LONG | 0x10, 2},
        {"timeline 0", CAIRN_CORRUPT, 4, 0, 4},
        {"an address inside a segment", CAIRN_CORRUPT, 8, 0xF3002000, 4},
        {"an impossible segment size", CAIRN_CORRUPT, 32, 3 << 20, 4},
        {"a tiny segment size", CAIRN_CORRUPT, 32, 0, 4},
        {"other blocks", CAIRN_MISMATCH, 36, 32768, 4},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t page[WAL_LONG_HEADER_SIZE];
        CairnError err = {0};
        WalIdentity identity;

        make_page(page);
        if (cases[i].width == 2)
            put_u16(page + cases[i].offset, (uint16_t)cases[i].value);
        else
            put_u32(page + cases[i].offset, cases[i].value);
        if (wal_identity_read(page, sizeof page, &identity, &err))
            fail_msg("%s: accepted", cases[i].name);
        if (err.kind != cases[i].kind)
            fail_msg("%s: %s", cases[i].name, err.message);
    }
}

static void
test_a_page_shorter_than_its_header_is_corrupt(void **state)
{
    uint8_t page[WAL_LONG_HEADER_SIZE];

    (void)state;
    make_page(page);
    for (size_t size = 0; size < sizeof page; size++) {
        CairnError err = {0};
        WalIdentity identity;
        assert_false(wal_identity_read(page, size, &identity, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_first_page_identifies_its_segment),
        cmocka_unit_test(test_strangers_are_mismatches_and_damage_is_corrupt),
        cmocka_unit_test(test_a_page_shorter_than_its_header_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
