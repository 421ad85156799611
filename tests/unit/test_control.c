#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "common/digest.h"
#include "postgres/control.h"

/* The first 292 bytes of a real file (15, initdb -k, in production); zeros follow. */
static const char real_control[] =
    "7b368685aed9036b1405000025770d0c0600000000000000f3da036b0000000070171c0300000000"
    "38171c030000000001000000010000000100000000000000e7020000000000000060000001000000"
    "00000000cc02000001000000010000000100000000000000dbda036b000000000000000000000000"
    "e702000000000000e803000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000010000000000000064000000080000000a0000000000000040000000"
    "00000000080000000000000087d63241002000000000020000200000000000014000000020000000"
    "cc07000000080000010000000100000024b6084623ecbb504415fc23c31bf1a9611872691ecd861d"
    "ab37c2da7bdc514c7d78b96e";

enum { REAL_SIZE = 292, CRC_15 = 288, CRC_18 = 292 };

static void
make_real(uint8_t file[CONTROL_FILE_SIZE])
{
    memset(file, 0, CONTROL_FILE_SIZE);
    assert_true(hex_decode(file, REAL_SIZE, real_control));
}

static void
seal(uint8_t file[CONTROL_FILE_SIZE], size_t crc_offset)
{
    put_u32(file + crc_offset, crc32c(0, file, crc_offset));
}

/* The same cluster as another version would describe it. */
static void
make_version(uint8_t file[CONTROL_FILE_SIZE], uint32_t control_version, uint32_t catalog_version)
{
    const bool is_18 = control_version == 1800;
    make_real(file);
    put_u32(file + 8, control_version);
    put_u32(file + 12, catalog_version);
    if (is_18) {
        memmove(file + 257, file + 256, 32);
        file[256] = 1;
        memset(file + 289, 0, 3);
    }
    seal(file, is_18 ? CRC_18 : CRC_15);
}

static CairnErrorKind
kind_of(const void *data, size_t size)
{
    CairnError err = {0};
    ControlFile control;
    if (control_parse(data, size, &control, &err))
        return CAIRN_OK;
    assert_true(err.kind != CAIRN_OK);
    return err.kind;
}

static void
test_control_parse_reads_a_real_file(void **state)
{
    (void)state;
    uint8_t file[CONTROL_FILE_SIZE];
    make_real(file);

    CairnError err = {0};
    ControlFile control;
    assert_true(control_parse(file, sizeof file, &control, &err));
    assert_int_equal(control.major, 15);
    assert_true(control.system_id == UINT64_C(7711246330576123515));
    assert_int_equal(control.control_version, 1300);
    assert_int_equal(control.catalog_version, 202209061);
    assert_int_equal(control.state, CONTROL_IN_PRODUCTION);
    assert_true(control.checkpoint_lsn == 0x31c1770);
    assert_true(control.redo_lsn == 0x31c1738);
    assert_int_equal(control.checkpoint_timeline, 1);
    assert_true(control.checkpoint_time_s == 1795414747);
    assert_true(control.min_recovery_lsn == 0);
    assert_int_equal(control.min_recovery_timeline, 0);
    assert_int_equal(control.wal_level, 1);
    assert_int_equal(control.max_connections, 100);
    assert_int_equal(control.max_worker_processes, 8);
    assert_int_equal(control.max_wal_senders, 10);
    assert_int_equal(control.max_prepared_xacts, 0);
    assert_int_equal(control.max_locks_per_xact, 64);
    assert_int_equal(control.block_size, 8192);
    assert_int_equal(control.relation_segment_blocks, 131072);
    assert_int_equal(control.wal_block_size, 8192);
    assert_int_equal(control.wal_segment_size, 16 << 20);
    assert_int_equal(control.data_checksum_version, 1);
}

static void
test_control_parse_knows_15_to_18(void **state)
{
    (void)state;
    static const struct {
        uint32_t control_version;
        uint32_t catalog_version;
        int major;
    } versions[] = {
        {1300, 202209061, 15}, {1300, 202307071, 16}, {1700, 202406281, 17}, {1800, 202506291, 18}};

    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        uint8_t file[CONTROL_FILE_SIZE];
        make_version(file, versions[i].control_version, versions[i].catalog_version);
        CairnError err = {0};
        ControlFile control;
        assert_true(control_parse(file, sizeof file, &control, &err));
        assert_int_equal(control.major, versions[i].major);
        assert_int_equal(control.data_checksum_version, 1);
    }
}

static void
test_control_parse_refuses_other_versions(void **state)
{
    (void)state;
    static const struct {
        uint32_t control_version;
        uint32_t catalog_version;
    } versions[] = {{1300, 202107181}, /* 14 */
                    {1300, 202007201},
                    {1201, 201909212},
                    {1902, 202606281},
                    {0, 0}};
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        uint8_t file[CONTROL_FILE_SIZE];
        make_version(file, versions[i].control_version, versions[i].catalog_version);
        assert_int_equal(kind_of(file, sizeof file), CAIRN_UNSUPPORTED);
    }
}

static void
test_control_parse_detects_every_flipped_bit(void **state)
{
    (void)state;
    for (int is_18 = 0; is_18 <= 1; is_18++) {
        uint8_t file[CONTROL_FILE_SIZE];
        make_version(file, is_18 ? 1800 : 1300, is_18 ? 202506291 : 202209061);
        assert_int_equal(kind_of(file, sizeof file), CAIRN_OK);
        const size_t covered = (is_18 ? CRC_18 : CRC_15) + 4;
        for (size_t bit = 0; bit < covered * 8; bit++) {
            file[bit / 8] ^= (uint8_t)(1 << bit % 8);
            const CairnErrorKind kind = kind_of(file, sizeof file);
            const bool in_version = bit / 8 >= 8 && bit / 8 < 16;
            assert_true(kind == CAIRN_CORRUPT || (in_version && kind == CAIRN_UNSUPPORTED));
            file[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

static void
test_control_parse_refuses_a_wrong_size(void **state)
{
    (void)state;
    uint8_t file[CONTROL_FILE_SIZE + 1] = {0};
    make_real(file);
    assert_int_equal(kind_of(file, 0), CAIRN_CORRUPT);
    assert_int_equal(kind_of(file, 512), CAIRN_CORRUPT);
    assert_int_equal(kind_of(file, CONTROL_FILE_SIZE - 1), CAIRN_CORRUPT);
    assert_int_equal(kind_of(file, CONTROL_FILE_SIZE + 1), CAIRN_CORRUPT);
}

static void
test_control_parse_refuses_foreign_machines(void **state)
{
    (void)state;
    uint8_t file[CONTROL_FILE_SIZE];
    make_version(file, __builtin_bswap32(1300), __builtin_bswap32(202209061));
    assert_int_equal(kind_of(file, sizeof file), CAIRN_MISMATCH);

    static const struct {
        size_t offset;
        uint32_t value;
        CairnErrorKind kind;
    } cases[] = {
        {204, 4, CAIRN_MISMATCH},      /* alignment */
        {212, 0, CAIRN_MISMATCH},      /* floating point */
        {216, 16384, CAIRN_MISMATCH},  /* block size */
        {224, 4096, CAIRN_MISMATCH},   /* WAL block size */
        {220, 0, CAIRN_CORRUPT},       /* relation segment */
        {228, 0, CAIRN_CORRUPT},       /* WAL segment */
        {228, 3 << 20, CAIRN_CORRUPT}, /* no power of two */
        {228, 1 << 19, CAIRN_CORRUPT}, /* too small */
        {228, UINT32_C(1) << 31, CAIRN_CORRUPT},
        {16, 7, CAIRN_CORRUPT}, /* state */
        {16, UINT32_MAX, CAIRN_CORRUPT},
        {172, 3, CAIRN_CORRUPT}, /* wal_level */
        {172, UINT32_MAX, CAIRN_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_real(file);
        put_u32(file + cases[i].offset, cases[i].value);
        seal(file, CRC_15);
        assert_int_equal(kind_of(file, sizeof file), cases[i].kind);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_control_parse_reads_a_real_file),
        cmocka_unit_test(test_control_parse_knows_15_to_18),
        cmocka_unit_test(test_control_parse_refuses_other_versions),
        cmocka_unit_test(test_control_parse_detects_every_flipped_bit),
        cmocka_unit_test(test_control_parse_refuses_a_wrong_size),
        cmocka_unit_test(test_control_parse_refuses_foreign_machines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
