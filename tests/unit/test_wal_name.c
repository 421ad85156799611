#include "postgres/wal_name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const uint32_t MIB = 1 << 20;

static void
test_lsn_texts_round_trip(void **state)
{
    static const struct {
        uint64_t lsn;
        const char *text;
    } cases[] = {
        {0, "0/0"},
        {UINT64_C(0x3000028), "0/3000028"},
        {UINT64_C(0x1200000000), "12/0"},
        {UINT64_MAX, "FFFFFFFF/FFFFFFFF"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[LSN_TEXT_SIZE];
        uint64_t lsn;
        lsn_format(text, cases[i].lsn);
        assert_string_equal(text, cases[i].text);
        assert_true(lsn_parse(text, &lsn));
        assert_int_equal(lsn, cases[i].lsn);
    }
}

static void
test_lsn_parse_takes_padded_and_lower_case_digits(void **state)
{
    uint64_t lsn;

    (void)state;
    assert_true(lsn_parse("0/03000028", &lsn)); /* as PostgreSQL 19 writes it */
    assert_int_equal(lsn, 0x3000028);
    assert_true(lsn_parse("ab/cdef", &lsn));
    assert_int_equal(lsn, UINT64_C(0xAB0000CDEF));
}

static void
test_lsn_parse_refuses_everything_else(void **state)
{
    static const char *const texts[] = {
        "",      "/",           "0",    "0/",          "/0",  "0/0/0", " 0/0", "0/0 ",
        "0x1/0", "123456789/0", "-1/0", "0/123456789", "0/G", "+1/0",  "0//0", "0/0\n"};
    uint64_t lsn = 77;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_false(lsn_parse(texts[i], &lsn));
    assert_int_equal(lsn, 77);
}

static void
test_only_powers_of_two_from_1_mib_to_1_gib_are_segment_sizes(void **state)
{
    (void)state;
    for (uint64_t size = MIB; size <= UINT64_C(1) << 30; size *= 2)
        assert_true(wal_segment_size_valid(size));
    assert_false(wal_segment_size_valid(0));
    assert_false(wal_segment_size_valid(MIB / 2));
    assert_false(wal_segment_size_valid(3 * (uint64_t)MIB));
    assert_false(wal_segment_size_valid(UINT64_C(1) << 31));
    assert_false(wal_segment_size_valid((UINT64_C(1) << 32) + MIB));
}

static void
test_segment_names_follow_the_segment_size(void **state)
{
    static const struct {
        uint32_t size_mib;
        uint64_t lsn;
        const char *name;
    } cases[] = {
        {1, UINT64_C(0x1FFF00000), "000000020000000100000FFF"},
        {1, UINT64_C(0x200000000), "000000020000000200000000"},
        {16, UINT64_C(0x1000000), "000000020000000000000001"},
        {16, UINT64_C(0x1FF000000), "0000000200000001000000FF"},
        {16, UINT64_C(0x200000000), "000000020000000200000000"},
        {64, UINT64_C(0x1FC000000), "00000002000000010000003F"},
        {1024, UINT64_C(0x1C0000000), "000000020000000100000003"},
        {1024, UINT64_C(0xFFFFFFFFC0000000), "00000002FFFFFFFF00000003"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint32_t segment_size = cases[i].size_mib * MIB;
        char name[WAL_NAME_SIZE];
        uint32_t timeline;
        uint64_t number;

        wal_segment_name(name, 2, wal_segment_of(cases[i].lsn, segment_size), segment_size);
        assert_string_equal(name, cases[i].name);
        assert_true(wal_segment_parse(name, segment_size, &timeline, &number));
        assert_int_equal(timeline, 2);
        assert_int_equal(number, cases[i].lsn / segment_size);
    }
}

static void
test_a_low_part_beyond_the_segment_size_is_no_segment(void **state)
{
    static const struct {
        uint32_t size_mib;
        const char *name;
    } cases[] = {
        {1, "000000010000000000001000"},
        {16, "000000010000000000000100"},
        {64, "000000010000000000000040"},
        {1024, "000000010000000000000004"},
    };
    uint32_t timeline;
    uint64_t number;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_false(wal_segment_parse(cases[i].name, cases[i].size_mib * MIB, &timeline, &number));
    assert_false(wal_segment_parse("00000001000000000000000a", 16 * MIB, &timeline, &number));
    assert_false(wal_segment_parse("00000001000000000000000", 16 * MIB, &timeline, &number));
    assert_false(wal_segment_parse("0000000100000000000000001", 16 * MIB, &timeline, &number));
}

static void
test_the_segment_before_a_boundary_is_the_one_that_ends_there(void **state)
{
    (void)state;
    assert_int_equal(wal_segment_of(UINT64_C(0x3000000), 16 * MIB), 3);
    assert_int_equal(wal_segment_before(UINT64_C(0x3000000), 16 * MIB), 2);
    assert_int_equal(wal_segment_before(UINT64_C(0x3000001), 16 * MIB), 3);
}

/* The answers of pg_switch_wal are PostgreSQL's own, tests/system/test_support.py asks it. */
static void
test_the_segment_that_a_switch_completed(void **state)
{
    (void)state;
    assert_int_equal(wal_segment_switched(UINT64_C(0x3000078), MIB), 48);
    assert_int_equal(wal_segment_switched(UINT64_C(0x30FFFF8), MIB), 48);
    assert_int_equal(wal_segment_switched(UINT64_C(0x3100000), MIB), 48); /* nothing to switch */
    assert_int_equal(wal_segment_switched(UINT64_C(0x3100028), MIB),
                     48); /* ends with the segment */
    assert_int_equal(wal_segment_switched(UINT64_C(0x3100030), MIB), 49); /* 8 bytes in the next */
}

static void
test_archivable_names_are_told_apart(void **state)
{
    CairnError err = {0};
    WalFileName file;

    (void)state;
    assert_true(wal_file_name_parse("00000003000000AB000000CD", &file, &err));
    assert_int_equal(file.kind, WAL_FILE_SEGMENT);
    assert_int_equal(file.timeline, 3);
    assert_int_equal(file.log, 0xAB);
    assert_int_equal(file.low, 0xCD);
    assert_true(wal_file_name_parse("00000003000000AB000000CD.partial", &file, &err));
    assert_int_equal(file.kind, WAL_FILE_PARTIAL);
    assert_true(wal_file_name_parse("00000003000000AB000000CD.00000028.backup", &file, &err));
    assert_int_equal(file.kind, WAL_FILE_BACKUP_HISTORY);
    assert_true(wal_file_name_parse("0000000A.history", &file, &err));
    assert_int_equal(file.kind, WAL_FILE_HISTORY);
    assert_int_equal(file.timeline, 10);
    assert_int_equal(file.log, 0);
}

static void
test_other_names_are_refused(void **state)
{
    static const char *const names[] = {
        "",
        ".",
        "..",
        "00000001",
        ".history",
        "00000000.history",
        "0000000a.history",
        "00000002.history.partial",
        "00000002.historY",
        "000000010000000000000001.",
        "000000010000000000000001.partia",
        "000000010000000000000001.partial ",
        "000000010000000000000001/",
        "../../0000000100000000000000",
        "00000001000000000000/001",
        "000000010000000000001000",
        "000000000000000000000001",
        "000000010000000000000001.28.backup",
        "000000010000000000000001.0000002x.backup",
        "000000010000000000000001.00000028.backup.gz",
        "000000010000000000000001.gz",
        "RECOVERYXLOG",
        "0000000100000000000000010000000100000000000000010000000100000000000000010000000100000000",
    };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CairnError err = {0};
        WalFileName file;
        if (wal_file_name_parse(names[i], &file, &err))
            fail_msg("'%s' was accepted", names[i]);
        assert_int_equal(err.kind, CAIRN_USAGE);
    }
}

static void
test_magics_and_majors_belong_together(void **state)
{
    (void)state;
    assert_int_equal(wal_magic_of_major(15), 0xD110);
    assert_int_equal(wal_magic_of_major(16), 0xD113);
    assert_int_equal(wal_magic_of_major(17), 0xD116);
    assert_int_equal(wal_magic_of_major(18), 0xD118);
    for (int major = 0; major < 30; major++) {
        const uint16_t magic = wal_magic_of_major(major);
        const bool known = major >= POSTGRES_MAJOR_MIN && major <= POSTGRES_MAJOR_MAX;
        assert_int_equal(magic != 0, known);
        assert_int_equal(wal_major_of_magic(magic), known ? major : 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lsn_texts_round_trip),
        cmocka_unit_test(test_lsn_parse_takes_padded_and_lower_case_digits),
        cmocka_unit_test(test_lsn_parse_refuses_everything_else),
        cmocka_unit_test(test_only_powers_of_two_from_1_mib_to_1_gib_are_segment_sizes),
        cmocka_unit_test(test_segment_names_follow_the_segment_size),
        cmocka_unit_test(test_a_low_part_beyond_the_segment_size_is_no_segment),
        cmocka_unit_test(test_the_segment_before_a_boundary_is_the_one_that_ends_there),
        cmocka_unit_test(test_the_segment_that_a_switch_completed),
        cmocka_unit_test(test_archivable_names_are_told_apart),
        cmocka_unit_test(test_other_names_are_refused),
        cmocka_unit_test(test_magics_and_majors_belong_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
