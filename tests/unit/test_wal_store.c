#include "repository/wal_store.h"

#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

#define SEGMENT_5 "000000010000000000000005"
#define OBJECT_5 "00000001/00000000/" SEGMENT_5

static void
expect_round_trip(WalFixture *fixture, const char *name, const void *data, size_t size)
{
    CairnError err = {0};
    bool present = false;

    wal_fixture_store(fixture, name, data, size);
    assert_true(wal_fixture_fetch(fixture, name, &err));
    assert_true(wal_fixture_fetched_equals(fixture, data, size));
    assert_true(wal_store_verify(fixture->store, name, &err));
    assert_true(wal_store_has(fixture->store, name, &present, &err));
    assert_true(present);
}

static void
test_a_full_segment_comes_back_byte_for_byte(void **state)
{
    uint8_t *segment = wal_fixture_segment(*state, 1, 5);

    expect_round_trip(*state, SEGMENT_5, segment, MIB);
    free(segment);
}

static void
test_the_zero_tail_costs_nothing_and_comes_back(void **state)
{
    WalFixture *fixture = *state;
    struct stat status;
    size_t used;
    uint8_t *segment = wal_fixture_short_segment(fixture, 1, 5, true, &used);

    expect_round_trip(fixture, SEGMENT_5, segment, MIB);
    assert_int_equal(stat(wal_fixture_object_path(fixture, OBJECT_5), &status), 0);
    assert_true(status.st_size < 8192);
    free(segment);
}

static void
test_a_segment_of_64_mib_comes_back(void **state)
{
    static WalFixture fixture;
    (void)state;

    wal_fixture_open(&fixture, 64 * MIB);
    uint8_t *segment = wal_fixture_segment(&fixture, 1, 70);
    expect_round_trip(&fixture, "000000010000000100000006", segment, 64 * (size_t)MIB);
    free(segment);
    wal_fixture_close(&fixture);
}

static void
test_files_of_the_other_kinds_come_back(void **state)
{
    static const char history[] = "1\t0/2CAEE40\tno recovery target specified\n";
    static const char backup[] = "START WAL LOCATION: 0/500028 (file 000000010000000000000005)\n";
    uint8_t *segment = wal_fixture_segment(*state, 1, 5);

    expect_round_trip(*state, "00000002.history", history, strlen(history));
    expect_round_trip(*state, SEGMENT_5 ".00000028.backup", backup, strlen(backup));
    expect_round_trip(*state, SEGMENT_5 ".partial", segment, MIB);
    free(segment);
}

static void
test_pushing_again_is_success_and_syncs_again(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    fault_disk_reset(&fixture->disk);
    const PutResult again = wal_fixture_put(fixture, SEGMENT_5, segment, MIB);
    assert_true(again.done);
    assert_true(again.existed);
    assert_false(again.tail_differs);
    assert_true(fixture->disk.calls[FAULT_FSYNC] >= 1);
    assert_true(fixture->disk.calls[FAULT_FSYNC_DIRECTORY] >= 1);
    assert_int_equal(fixture->disk.calls[FAULT_LINK], 0);
    free(segment);
}

static void
test_success_of_a_second_push_waits_for_its_sync(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    fault_disk_reset(&fixture->disk);
    fixture->disk.fail[FAULT_FSYNC] = (Fault){.at_call = 1, .error = 5 /* EIO */};
    assert_int_equal(wal_fixture_put(fixture, SEGMENT_5, segment, MIB).err.kind, CAIRN_IO);
    free(segment);
}

static void
test_an_older_timeline_in_the_first_page_is_the_copied_start_of_a_fork(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);

    expect_round_trip(fixture, "000000020000000000000005", segment, MIB);
    free(segment);
}

static void
test_a_flipped_byte_anywhere_in_the_object_is_never_delivered(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);
    struct stat status;
    CairnError err = {0};

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    free(segment);
    const char *path = wal_fixture_object_path(fixture, OBJECT_5);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &status), 0);

    /* Every byte of header, index and trailer, and a sample of the body. */
    const off_t body_end = status.st_size - 400;
    for (off_t at = 0; at < status.st_size; at += at < 192 || at >= body_end ? 1 : 9973) {
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);

        const bool verified = wal_store_verify(fixture->store, SEGMENT_5, &err);
        if (verified)
            print_message("byte %lld\n", (long long)at);
        assert_false(verified);
        assert_true(err.kind == CAIRN_CORRUPT || err.kind == CAIRN_MISMATCH ||
                    err.kind == CAIRN_UNSUPPORTED);
        cairn_error_clear(&err);
        if (at >= 192 && at < body_end) {
            assert_false(wal_fixture_fetch(fixture, SEGMENT_5, &err));
            assert_int_equal(err.kind, CAIRN_CORRUPT);
            cairn_error_clear(&err);
        }
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    assert_true(wal_store_verify(fixture->store, SEGMENT_5, &err));
    close(fd);
}

static void
test_frames_that_are_whole_but_not_what_was_digested_are_never_delivered(void **state)
{
    enum { DIGEST_AT = 20 };
    WalFixture *fixture = *state;
    CairnError err = {0};
    size_t used;
    uint8_t *segment = wal_fixture_short_segment(fixture, 1, 5, true, &used);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    wal_fixture_forge(fixture, SEGMENT_5, false, DIGEST_AT, 1);
    assert_false(wal_fixture_fetch(fixture, SEGMENT_5, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    free(segment);
}

static void
test_a_truncated_object_is_corrupt_not_absent(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);
    CairnError err = {0};

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    const char *path = wal_fixture_object_path(fixture, OBJECT_5);
    for (off_t size = 200000; size >= 0; size = size == 0 ? -1 : size / 10) {
        assert_int_equal(truncate(path, size), 0);
        assert_false(wal_fixture_fetch(fixture, SEGMENT_5, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        cairn_error_clear(&err);
        /* And a push over it does not claim success. */
        assert_int_equal(wal_fixture_put(fixture, SEGMENT_5, segment, MIB).err.kind, CAIRN_CORRUPT);
    }
    free(segment);
}

static void
test_an_object_under_another_name_is_refused(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);
    CairnError err = {0};
    char from[1024];

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    snprintf(from, sizeof from, "%s", wal_fixture_object_path(fixture, OBJECT_5));
    const char *to = wal_fixture_object_path(fixture, "00000001/00000000/000000010000000000000006");
    assert_int_equal(rename(from, to), 0);
    assert_false(wal_fixture_fetch(fixture, "000000010000000000000006", &err));
    assert_int_equal(err.kind, CAIRN_MISMATCH);
    free(segment);
}

static void
test_absence_is_not_found(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    bool present = true;
    size_t size;

    assert_false(wal_fixture_fetch(fixture, SEGMENT_5, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    cairn_error_clear(&err);
    assert_null(wal_store_history(fixture->store, 2, &size, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    cairn_error_clear(&err);
    assert_true(wal_store_has(fixture->store, SEGMENT_5, &present, &err));
    assert_false(present);
}

static void
test_nothing_is_visible_before_it_is_synced(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);
    CairnError err = {0};
    bool present = true;

    fixture->disk.fail[FAULT_FSYNC] = (Fault){.at_call = 1, .error = 5 /* EIO */};
    assert_int_equal(wal_fixture_put(fixture, SEGMENT_5, segment, MIB).err.kind, CAIRN_IO);
    fault_disk_reset(&fixture->disk);
    assert_true(wal_store_has(fixture->store, SEGMENT_5, &present, &err));
    assert_false(present);

    fault_disk_reset(&fixture->disk);
    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    assert_true(fault_disk_order(&fixture->disk, FAULT_FSYNC, FAULT_LINK));
    assert_true(fault_disk_order(&fixture->disk, FAULT_LINK, FAULT_FSYNC_DIRECTORY));
    free(segment);
}

static void
test_a_segment_reader_delivers_any_bytes(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);
    uint8_t bytes[3000];
    CairnError err = {0};

    memset(segment + MIB - 300000, 0, 300000);
    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    SCOPED(WalSegmentReader) reader = wal_store_read(fixture->store, 1, 5, &err);
    assert_non_null(reader);
    for (uint64_t offset = 0; offset + sizeof bytes <= MIB; offset += 70001) {
        assert_true(wal_segment_reader_pread(reader, bytes, sizeof bytes, offset, &err));
        assert_memory_equal(bytes, segment + offset, sizeof bytes);
    }
    /* Across the border of two frames, and across the beginning of the zero tail. */
    assert_true(wal_segment_reader_pread(reader, bytes, sizeof bytes, 131072 - 1000, &err));
    assert_memory_equal(bytes, segment + 131072 - 1000, sizeof bytes);
    assert_true(wal_segment_reader_pread(reader, bytes, sizeof bytes, MIB - 301000, &err));
    assert_memory_equal(bytes, segment + MIB - 301000, sizeof bytes);
    assert_null(wal_store_read(fixture->store, 1, 6, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    free(segment);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WAL_FIXTURE_TEST(test_a_full_segment_comes_back_byte_for_byte),
        WAL_FIXTURE_TEST(test_the_zero_tail_costs_nothing_and_comes_back),
        cmocka_unit_test(test_a_segment_of_64_mib_comes_back),
        WAL_FIXTURE_TEST(test_files_of_the_other_kinds_come_back),
        WAL_FIXTURE_TEST(test_pushing_again_is_success_and_syncs_again),
        WAL_FIXTURE_TEST(test_success_of_a_second_push_waits_for_its_sync),
        WAL_FIXTURE_TEST(test_an_older_timeline_in_the_first_page_is_the_copied_start_of_a_fork),
        WAL_FIXTURE_TEST(test_a_flipped_byte_anywhere_in_the_object_is_never_delivered),
        WAL_FIXTURE_TEST(test_frames_that_are_whole_but_not_what_was_digested_are_never_delivered),
        WAL_FIXTURE_TEST(test_a_truncated_object_is_corrupt_not_absent),
        WAL_FIXTURE_TEST(test_an_object_under_another_name_is_refused),
        WAL_FIXTURE_TEST(test_absence_is_not_found),
        WAL_FIXTURE_TEST(test_nothing_is_visible_before_it_is_synced),
        WAL_FIXTURE_TEST(test_a_segment_reader_delivers_any_bytes),
    };
    return cmocka_run_group_tests_name("wal_store", tests, NULL, NULL);
}
