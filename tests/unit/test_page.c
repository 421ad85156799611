#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "postgres/page.h"

/* Pages of a real cluster (15, initdb -k): mostly zeros, so that they fit here as runs of bytes. */
typedef struct {
    size_t offset;
    const char *hex;
} Run;

typedef struct {
    const char *name;
    uint32_t block;
    uint16_t checksum;

    Run runs[4];
} KnownPage;

static const KnownPage known_pages[] = {
    {.name = "base/5/3380",
     .block = 0,
     .checksum = 0x0010,
     .runs = {{4, "405c0301100000004800f01ff01f0420000000006231050004"},
              {62, "f0bf01"},
              {8188, "08"}}},
    {.name = "base/5/3599",
     .block = 0,
     .checksum = 0xc13e,
     .runs = {{4, "08380c013ec100004800f01ff01f0420000000006231050004"},
              {62, "f0bf01"},
              {8188, "08"}}},
    {.name = "base/5/2704",
     .block = 3,
     .checksum = 0x6432,
     .runs = {{4, "70251c01326400002400b01ff01f042000000000e89f1000b09f4000d09f30"},
              {8114, "0400010020605f70675f757365725f6d617070696e67"},
              {8146, "02000100186070675f6c617267656f626a65637400000000010000000820"},
              {8184, "0100000002"}}},
};

enum { KNOWN_PAGES = sizeof known_pages / sizeof known_pages[0] };

static void
make_page(const KnownPage *known, uint8_t page[PAGE_SIZE_BYTES])
{
    memset(page, 0, PAGE_SIZE_BYTES);
    for (size_t i = 0; i < 4 && known->runs[i].hex != NULL; i++) {
        const size_t size = strlen(known->runs[i].hex) / 2;
        assert_true(hex_decode(page + known->runs[i].offset, size, known->runs[i].hex));
    }
}

static void
fill_random(uint8_t page[PAGE_SIZE_BYTES], uint64_t seed)
{
    for (size_t i = 0; i < PAGE_SIZE_BYTES; i += 8) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        put_u64(page + i, seed ^ seed >> 29);
    }
}

static void
test_page_checksum_is_the_servers(void **state)
{
    (void)state;
    for (size_t i = 0; i < KNOWN_PAGES; i++) {
        uint8_t page[PAGE_SIZE_BYTES];
        make_page(&known_pages[i], page);
        assert_int_equal(get_u16(page + 8), known_pages[i].checksum);
        assert_int_equal(page_checksum(page, known_pages[i].block), get_u16(page + 8));
        assert_int_equal(page_checksum_generic(page, known_pages[i].block), get_u16(page + 8));
    }
}

static void
test_page_checksum_fast_and_generic_agree(void **state)
{
    (void)state;
    static uint8_t memory[PAGE_SIZE_BYTES + 1];
    for (uint32_t i = 0; i < 500; i++) {
        uint8_t *page = memory + i % 2; /* unaligned pages too */
        fill_random(page, i);
        assert_int_equal(page_checksum(page, i * 7919), page_checksum_generic(page, i * 7919));
    }
}

static void
test_page_checksum_ignores_only_its_own_field(void **state)
{
    (void)state;
    uint8_t page[PAGE_SIZE_BYTES];
    fill_random(page, 1);
    const uint16_t checksum = page_checksum(page, 5);
    for (size_t i = 0; i < PAGE_SIZE_BYTES; i++) {
        page[i] ^= 0x10;
        if (i == 8 || i == 9)
            assert_int_equal(page_checksum(page, 5), checksum);
        else
            assert_int_not_equal(page_checksum(page, 5), checksum);
        page[i] ^= 0x10;
    }
}

static void
test_page_checksum_leaves_the_page_alone(void **state)
{
    (void)state;
    uint8_t page[PAGE_SIZE_BYTES];
    uint8_t before[PAGE_SIZE_BYTES];
    fill_random(page, 2);
    memcpy(before, page, sizeof page);
    (void)page_checksum(page, 0);
    (void)page_checksum_generic(page, 0);
    assert_memory_equal(page, before, sizeof page);
}

static void
test_page_verify_accepts_good_pages_at_their_block_only(void **state)
{
    (void)state;
    for (size_t i = 0; i < KNOWN_PAGES; i++) {
        uint8_t page[PAGE_SIZE_BYTES];
        make_page(&known_pages[i], page);
        assert_int_equal(page_verify(page, known_pages[i].block, UINT64_MAX), PAGE_GOOD);
        assert_int_equal(page_verify(page, known_pages[i].block + 1, UINT64_MAX), PAGE_BAD);
    }
}

static void
test_page_verify_blames_only_pages_older_than_the_backup(void **state)
{
    (void)state;
    uint8_t page[PAGE_SIZE_BYTES];
    make_page(&known_pages[2], page);
    const uint64_t lsn = page_lsn(page);
    page[5000] ^= 1;
    assert_int_equal(page_verify(page, 3, lsn + 1), PAGE_BAD);
    assert_int_equal(page_verify(page, 3, lsn), PAGE_GOOD);
    assert_int_equal(page_verify(page, 3, lsn - 1), PAGE_GOOD);
}

static void
test_page_verify_knows_new_pages(void **state)
{
    (void)state;
    uint8_t page[PAGE_SIZE_BYTES] = {0};
    assert_int_equal(page_verify(page, 7, 0), PAGE_NEW);
    page[PAGE_SIZE_BYTES - 1] = 1;
    assert_int_equal(page_verify(page, 7, 0), PAGE_BAD);
}

static void
test_page_lsn_puts_the_high_half_first(void **state)
{
    (void)state;
    uint8_t page[PAGE_SIZE_BYTES] = {0x12, 0, 0, 0, 0x78, 0x56, 0x34, 0x02};
    assert_true(page_lsn(page) == UINT64_C(0x1202345678));
}

static void
test_bytes_are_zero_finds_a_bit_anywhere(void **state)
{
    (void)state;
    static uint8_t data[512];
    for (size_t size = 0; size <= 200; size++) {
        assert_true(bytes_are_zero(data + 1, size));
        data[0] = data[1 + size] = 0xff; /* neighbours do not count */
        assert_true(bytes_are_zero(data + 1, size));
        data[0] = data[1 + size] = 0;
        for (size_t i = 0; i < size; i++) {
            data[1 + i] = 0x80;
            assert_false(bytes_are_zero(data + 1, size));
            data[1 + i] = 0;
        }
    }
}

static void
test_relation_file_parse_reads_every_place(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        RelationFile file;
    } cases[] = {
        {"global/1262", {.tablespace = 1664, .relfilenode = 1262}},
        {"global/1262_vm", {.tablespace = 1664, .relfilenode = 1262, .fork = 2}},
        {"base/5/16384", {.tablespace = 1663, .database = 5, .relfilenode = 16384}},
        {"base/5/16384_fsm.2",
         {.tablespace = 1663, .database = 5, .relfilenode = 16384, .fork = 1, .segment = 2}},
        {"base/5/16384_init", {.tablespace = 1663, .database = 5, .relfilenode = 16384, .fork = 3}},
        {"base/4294967295/4294967295.32767",
         {.tablespace = 1663, .database = UINT32_MAX, .relfilenode = UINT32_MAX, .segment = 32767}},
        {"pg_tblspc/16400/PG_15_202209061/5/16385",
         {.tablespace = 16400, .database = 5, .relfilenode = 16385}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        RelationFile file;
        memset(&file, 0xee, sizeof file);
        assert_true(relation_file_parse(cases[i].path, &file));
        assert_int_equal(file.tablespace, cases[i].file.tablespace);
        assert_int_equal(file.database, cases[i].file.database);
        assert_int_equal(file.relfilenode, cases[i].file.relfilenode);
        assert_int_equal(file.fork, cases[i].file.fork);
        assert_int_equal(file.segment, cases[i].file.segment);
    }
}

static void
test_relation_file_parse_refuses_other_files(void **state)
{
    (void)state;
    static const char *const paths[] = {
        "",
        "base",
        "base/5",
        "base/5/",
        "base/5/PG_VERSION",
        "base/5/pg_filenode.map",
        "base/5/pg_internal.init",
        "base/5/t3_16384",
        "base/5/016384",
        "base/5/0",
        "base/5/16384.",
        "base/5/16384.0",
        "base/5/16384.01",
        "base/5/16384.32768",
        "base/5/16384_",
        "base/5/16384_fsm_vm",
        "base/5/16384_fsmx",
        "base/5/16384.1_fsm",
        "base/5/16384.1.1",
        "base/5/4294967296",
        "base/5/99999999999999999999999999",
        "base/x/16384",
        "base/5/6/16384",
        "global/5/16384",
        "global/pg_control",
        "global/",
        "pg_tblspc/16400/16385",
        "pg_tblspc/16400/PG_15/5/16385",
        "pg_tblspc/16400/PG_15_202209061/16385",
        "pg_tblspc/16400/XX_15_202209061/5/16385",
        "pg_wal/000000010000000000000001",
        "/base/5/16384",
        "base/5/16384/",
        "base/5/ 16384",
        "base/5/+16384",
    };
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        RelationFile file;
        if (relation_file_parse(paths[i], &file))
            fail_msg("accepted '%s'", paths[i]);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_checksum_is_the_servers),
        cmocka_unit_test(test_page_checksum_fast_and_generic_agree),
        cmocka_unit_test(test_page_checksum_ignores_only_its_own_field),
        cmocka_unit_test(test_page_checksum_leaves_the_page_alone),
        cmocka_unit_test(test_page_verify_accepts_good_pages_at_their_block_only),
        cmocka_unit_test(test_page_verify_blames_only_pages_older_than_the_backup),
        cmocka_unit_test(test_page_verify_knows_new_pages),
        cmocka_unit_test(test_page_lsn_puts_the_high_half_first),
        cmocka_unit_test(test_bytes_are_zero_finds_a_bit_anywhere),
        cmocka_unit_test(test_relation_file_parse_reads_every_place),
        cmocka_unit_test(test_relation_file_parse_refuses_other_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
