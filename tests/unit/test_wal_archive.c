#include "repository/wal_archive.h"

#include "common/bytes.h"
#include "common/digest.h"
#include "postgres/wal_page.h"
#include "repository/wal_piece.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

/* Timeline 2 left 1 in segment 7; timeline 3 left 2 exactly where its segment 9 begins. */
static const char history_2[] = "1\t0/700100\tx\n";
static const char history_3[] = "1\t0/700100\tx\n2\t0/900000\tx\n";

static int
setup(void **state)
{
    static WalFixture fixture;

    wal_fixture_open(&fixture, MIB);
    *state = &fixture;
    return 0;
}

static int
teardown(void **state)
{
    wal_fixture_close(*state);
    return 0;
}

static void
store_range(WalFixture *fixture, uint32_t timeline, uint64_t first, uint64_t last)
{
    for (uint64_t number = first; number <= last; number++)
        wal_fixture_store_segment(fixture, timeline, number);
}

static WalArchive *
load(WalFixture *fixture)
{
    CairnError err = {0};
    WalArchive *archive =
        wal_archive_load(fixture->repository, "main", &fixture->incarnation, &err);

    if (archive == NULL)
        print_message("%s\n", err.message);
    assert_non_null(archive);
    return archive;
}

/* Timelines 1 (5 to 8), 2 (7 to 8), 3 (9 to 12): a complete tree, 1 having gone on past the fork.
 */
static WalArchive *
load_tree(WalFixture *fixture)
{
    store_range(fixture, 1, 5, 8);
    store_range(fixture, 2, 7, 8);
    store_range(fixture, 3, 9, 12);
    wal_fixture_store(fixture, "00000002.history", history_2, strlen(history_2));
    wal_fixture_store(fixture, "00000003.history", history_3, strlen(history_3));
    return load(fixture);
}

static void
test_the_tree_knows_its_timelines_and_leaves(void **state)
{
    SCOPED(WalArchive) archive = load_tree(*state);

    assert_int_equal(wal_archive_timeline_count(archive), 3);
    assert_true(wal_archive_find(archive, 1)->is_leaf);
    assert_false(wal_archive_find(archive, 2)->is_leaf);
    assert_true(wal_archive_find(archive, 3)->is_leaf);
    assert_null(wal_archive_find(archive, 4));
    assert_int_equal(wal_archive_find(archive, 1)->history->stretch_count, 1);
    assert_int_equal(wal_archive_find(archive, 3)->history->stretch_count, 3);
}

static void
test_a_timeline_that_ended_at_its_fork_is_no_leaf(void **state)
{
    WalFixture *fixture = *state;

    store_range(fixture, 1, 5, 6);
    store_range(fixture, 2, 7, 8);
    wal_fixture_store(fixture, "00000002.history", history_2, strlen(history_2));
    SCOPED(WalArchive) archive = load(fixture);
    assert_false(wal_archive_find(archive, 1)->is_leaf);
}

static void
test_a_history_that_is_not_stored_stays_unknown(void **state)
{
    WalFixture *fixture = *state;

    store_range(fixture, 1, 5, 6);
    store_range(fixture, 2, 7, 7);
    SCOPED(WalArchive) archive = load(fixture);
    assert_non_null(wal_archive_find(archive, 1)->history);
    assert_null(wal_archive_find(archive, 2)->history);
}

static void
overwrite(WalFixture *fixture, const char *below, const char *bytes)
{
    FILE *file = fopen(wal_fixture_object_path(fixture, below), "w");

    assert_non_null(file);
    assert_true(fputs(bytes, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void
test_a_damaged_history_is_told_of_its_timeline_alone(void **state)
{
    WalFixture *fixture = *state;
    const WalTimeline *timeline;

    wal_archive_free(load_tree(fixture));
    overwrite(fixture, "00000002/history", "rubbish");
    SCOPED(WalArchive) archive = load(fixture);

    timeline = wal_archive_find(archive, 2);
    assert_null(timeline->history);
    assert_non_null(strstr(timeline->history_problem, "/00000002/history"));
    assert_int_equal(timeline->run_count, 1);
    assert_null(wal_archive_find(archive, 1)->history_problem);
    assert_int_equal(wal_archive_find(archive, 3)->history->stretch_count, 3);
    assert_true(wal_archive_find(archive, 1)->is_leaf);
    assert_ptr_equal(wal_archive_unreadable_history(archive, 1), timeline);
    assert_null(wal_archive_unreadable_history(archive, 2));
}

/* Whole and intact, but another object's. */
static void
test_another_timelines_history_in_its_place_is_damage_too(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    char from[1024];

    wal_archive_free(load_tree(fixture));
    snprintf(from, sizeof from, "%s", wal_fixture_object_path(fixture, "00000003/history"));
    assert_int_equal(remove(wal_fixture_object_path(fixture, "00000002/history")), 0);
    assert_int_equal(link(from, wal_fixture_object_path(fixture, "00000002/history")), 0);
    assert_false(wal_store_verify(fixture->store, "00000002.history", &err));
    SCOPED(WalArchive) archive = load(fixture);
    assert_non_null(wal_archive_find(archive, 2)->history_problem);
    assert_non_null(wal_archive_find(archive, 3)->history);
}

/* A header that says "encrypted", every checksum right, where nothing is: no key could open it. */
static void
test_a_history_that_says_it_is_encrypted_where_nothing_is_is_damage_too(void **state)
{
    enum { AT_AEAD = 28, AT_KEY_MODE = 29, AT_HEADER_CRC = 188 };
    WalFixture *fixture = *state;
    uint8_t header[AT_HEADER_CRC];

    wal_archive_free(load_tree(fixture));
    const int fd = open(wal_fixture_object_path(fixture, "00000002/history"), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, header, sizeof header, 0), sizeof header);
    header[AT_AEAD] = 1;
    header[AT_KEY_MODE] = 1;
    const uint32_t crc = crc32c(0, header, sizeof header);
    assert_int_equal(pwrite(fd, header, sizeof header, 0), sizeof header);
    assert_int_equal(pwrite(fd, &crc, sizeof crc, AT_HEADER_CRC), sizeof crc);
    assert_int_equal(close(fd), 0);
    SCOPED(WalArchive) archive = load(fixture);
    assert_non_null(wal_archive_find(archive, 2)->history_problem);
    assert_non_null(wal_archive_find(archive, 3)->history);
}

/* Nobody reads a history of the timeline that began with the cluster. */
static void
test_rubbish_as_history_of_timeline_1_is_nothing_to_it(void **state)
{
    WalFixture *fixture = *state;

    store_range(fixture, 1, 5, 6);
    overwrite(fixture, "00000001/history", "rubbish");
    SCOPED(WalArchive) archive = load(fixture);
    assert_non_null(wal_archive_find(archive, 1)->history);
}

static size_t
missing(const WalArchive *archive, uint32_t timeline, uint64_t start_lsn, uint64_t end_lsn,
        char (*names)[WAL_NAME_SIZE], size_t capacity)
{
    return wal_archive_missing(archive, wal_archive_find(archive, timeline)->history, start_lsn,
                               end_lsn, names, capacity);
}

static void
test_nothing_is_missing_on_a_complete_path(void **state)
{
    SCOPED(WalArchive) archive = load_tree(*state);

    assert_int_equal(missing(archive, 3, 0x500028, 0xD00000, NULL, 0), 0);
    assert_int_equal(missing(archive, 1, 0x500028, 0x900000, NULL, 0), 0);
    assert_int_equal(missing(archive, 1, 0x500028, 0x500028, NULL, 0), 0);
}

static void
test_missing_segments_are_counted_and_the_first_ones_named(void **state)
{
    WalFixture *fixture = *state;
    char names[3][WAL_NAME_SIZE];

    store_range(fixture, 1, 5, 6);
    store_range(fixture, 1, 9, 9);
    SCOPED(WalArchive) archive = load(fixture);
    assert_int_equal(missing(archive, 1, 0x480000, 0xC00001, names, 3), 6);
    assert_string_equal(names[0], "000000010000000000000004");
    assert_string_equal(names[1], "000000010000000000000007");
    assert_string_equal(names[2], "000000010000000000000008");
    assert_int_equal(missing(archive, 1, 0x480000, 0xC00001, NULL, 0), 6);
    /* An end at a border does not need the segment that begins there. */
    assert_int_equal(missing(archive, 1, 0x900000, 0xA00000, NULL, 0), 0);
    assert_int_equal(missing(archive, 1, 0x900000, 0xA00001, NULL, 0), 1);
}

static void
test_a_segment_with_a_fork_is_needed_under_the_newer_name(void **state)
{
    WalFixture *fixture = *state;
    char names[4][WAL_NAME_SIZE];

    store_range(fixture, 1, 5, 8);
    store_range(fixture, 2, 8, 8);
    store_range(fixture, 3, 10, 12);
    wal_fixture_store(fixture, "00000002.history", history_2, strlen(history_2));
    wal_fixture_store(fixture, "00000003.history", history_3, strlen(history_3));
    SCOPED(WalArchive) archive = load(fixture);

    assert_int_equal(missing(archive, 3, 0x500028, 0xD00000, names, 4), 2);
    assert_string_equal(names[0], "000000020000000000000007");
    assert_string_equal(names[1], "000000030000000000000009");
    /* As long as the range ends before the fork the older name will do. */
    assert_int_equal(missing(archive, 3, 0x500028, 0x700100, names, 4), 0);
    assert_int_equal(missing(archive, 3, 0x500028, 0x700101, names, 4), 1);
    assert_int_equal(missing(archive, 3, 0x500028, 0x900000, names, 4), 1);
}

static void
test_two_forks_in_one_segment_need_only_the_newest_name(void **state)
{
    static const char history[] = "1\t0/700100\tx\n2\t0/700200\tx\n";
    WalFixture *fixture = *state;
    char names[4][WAL_NAME_SIZE];

    store_range(fixture, 1, 5, 6);
    store_range(fixture, 3, 8, 8);
    wal_fixture_store(fixture, "00000003.history", history, strlen(history));
    SCOPED(WalArchive) archive = load(fixture);
    assert_int_equal(missing(archive, 3, 0x500028, 0x900000, names, 4), 1);
    assert_string_equal(names[0], "000000030000000000000007");
}

static uint64_t
unbroken_end(const WalArchive *archive, uint32_t timeline, uint64_t start_lsn)
{
    return wal_archive_unbroken_end(archive, wal_archive_find(archive, timeline)->history,
                                    start_lsn);
}

static void
test_unbroken_wal_ends_at_the_first_hole(void **state)
{
    WalFixture *fixture = *state;

    store_range(fixture, 1, 5, 6);
    store_range(fixture, 1, 8, 9);
    SCOPED(WalArchive) archive = load(fixture);
    assert_int_equal(unbroken_end(archive, 1, 0x500028), 0x700000);
    assert_int_equal(unbroken_end(archive, 1, 0x700028), 0x700028);
    assert_int_equal(unbroken_end(archive, 1, 0x800000), 0xA00000);
    assert_int_equal(unbroken_end(archive, 1, 0x400028), 0x400028);
}

static void
test_unbroken_wal_goes_on_over_forks(void **state)
{
    WalFixture *fixture = *state;

    SCOPED(WalArchive) archive = load_tree(fixture);
    assert_int_equal(unbroken_end(archive, 3, 0x500028), 0xD00000);
    assert_int_equal(unbroken_end(archive, 2, 0x500028), 0x900000);
    assert_int_equal(unbroken_end(archive, 1, 0x500028), 0x900000);
}

static void
test_unbroken_wal_ends_before_a_fork_whose_segment_is_missing(void **state)
{
    WalFixture *fixture = *state;

    store_range(fixture, 1, 5, 8);
    store_range(fixture, 2, 8, 8);
    wal_fixture_store(fixture, "00000002.history", history_2, strlen(history_2));
    SCOPED(WalArchive) archive = load(fixture);
    assert_int_equal(unbroken_end(archive, 2, 0x500028), 0x700000);
}

/* A timeline may have left it in just that segment: what was received of it may serve nobody. */
static void
test_an_unfinished_segment_promises_nothing_beside_a_damaged_history(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    WalPieceName piece;
    uint8_t *data = wal_fixture_segment(fixture, 1, 7);

    store_range(fixture, 1, 5, 6);
    wal_fixture_store(fixture, "00000002.history", history_2, strlen(history_2));
    assert_int_equal(pwrite(fixture->file, data, MIB, 0), MIB);
    free(data);
    assert_true(wal_piece_put(fixture->store, 1, 7, fixture->file, 0, 65536, &piece, &err));
    overwrite(fixture, "00000002/history", "rubbish");
    SCOPED(WalArchive) archive = load(fixture);
    const WalTimeline *timeline = wal_archive_find(archive, 1);
    assert_true(timeline->has_unfinished && timeline->unfinished_broken);
    assert_int_equal(timeline->unfinished_size, 0);
    assert_int_equal(unbroken_end(archive, 1, 0x500028), 0x700000);
}

/* Records on timeline 1 from segment 5 on, on timeline 2 from the fork in 6, a commit and a switch
   in 7; then idle segments that say nothing of time. Returns the last commit's LSN. */
static uint64_t
store_forked_records(WalFixture *fixture, uint64_t idle_count)
{
    WalBuilder builder;
    char history[64];
    char name[WAL_NAME_SIZE];

    wal_builder_init(&builder, 15, MIB, 5 * MIB);
    while (builder.next_lsn < 6 * MIB + MIB / 2)
        wal_builder_filler(&builder, 4000);
    wal_builder_commit(&builder, 7, 1000000);
    const uint64_t fork_lsn = builder.next_lsn;
    builder.timeline = 2;
    while (builder.next_lsn < 7 * MIB + MIB / 2)
        wal_builder_filler(&builder, 4000);
    const uint64_t commit_lsn = wal_builder_commit(&builder, 8, 2000000);
    wal_builder_switch(&builder);
    for (uint64_t i = 0; i < idle_count; i++) {
        wal_builder_filler(&builder, 4000);
        wal_builder_switch(&builder);
    }

    const size_t size = (size_t)(3 + idle_count) * MIB;
    uint8_t *all = calloc(1, size);
    assert_non_null(all);
    memcpy(all, builder.data, builder.size < size ? builder.size : size);
    wal_builder_free(&builder);
    snprintf(history, sizeof history, "1\t0/%X\tx\n", (unsigned)fork_lsn);
    wal_fixture_store(fixture, "00000002.history", history, strlen(history));
    for (uint64_t i = 0; i < 3 + idle_count; i++) {
        wal_segment_name(name, i == 0 ? 1 : 2, 5 + i, MIB);
        wal_fixture_store(fixture, name, all + i * MIB, MIB);
    }
    free(all);
    return commit_lsn;
}

static void
test_records_are_read_along_a_path(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    const uint64_t commit_lsn = store_forked_records(fixture, 0);
    SCOPED(WalArchive) archive = load(fixture);
    const TimelineHistory *path = wal_archive_find(archive, 2)->history;
    SCOPED(WalArchiveReader) reader = wal_archive_read(archive, path, 5 * MIB + 40, false, &err);
    WalRecord record = {0};
    size_t commits = 0;
    bool found = true;

    assert_non_null(reader);
    while (found) {
        assert_true(wal_reader_next(wal_archive_reader_records(reader), &record, &found, &err));
        if (found && record.kind == WAL_RECORD_COMMIT) {
            commits++;
            assert_true(commits == 1 || record.start_lsn == commit_lsn);
        }
    }
    assert_int_equal(commits, 2);
    assert_int_equal(wal_archive_reader_timeline(reader, 5 * MIB + 40), 1);
    assert_int_equal(wal_archive_reader_timeline(reader, 6 * MIB + 40), 2);
}

static void
test_the_tail_is_the_last_record_and_the_newest_time(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    store_forked_records(fixture, 0);
    SCOPED(WalArchive) archive = load(fixture);
    const TimelineHistory *path = wal_archive_find(archive, 2)->history;
    WalRecord last = {0};
    int64_t newest_us = 0;
    bool found = false;

    assert_true(wal_archive_tail(archive, path, 5 * MIB + 40, &last, &newest_us, &found, &err));
    assert_true(found);
    assert_int_equal(last.kind, WAL_RECORD_SWITCH);
    assert_int_equal(last.end_lsn, 8 * MIB);
    assert_int_equal(newest_us, 2000000);
    assert_true(wal_archive_tail(archive, path, 9 * MIB, &last, &newest_us, &found, &err));
    assert_false(found);
}

static void
test_the_newest_time_is_looked_for_in_earlier_segments(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    store_forked_records(fixture, 5);
    SCOPED(WalArchive) archive = load(fixture);
    const TimelineHistory *path = wal_archive_find(archive, 2)->history;
    WalRecord last = {0};
    int64_t newest_us = 0;
    bool found = false;

    assert_true(wal_archive_tail(archive, path, 5 * MIB + 40, &last, &newest_us, &found, &err));
    assert_true(found);
    assert_int_equal(last.end_lsn, 13 * MIB);
    assert_int_equal(newest_us, 2000000);
}

static void
test_a_damaged_segment_is_an_error_not_the_end(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    store_forked_records(fixture, 0);
    SCOPED(WalArchive) archive = load(fixture);
    const TimelineHistory *path = wal_archive_find(archive, 2)->history;
    const char *object =
        wal_fixture_object_path(fixture, "00000002/00000000/000000020000000000000006");
    WalRecord record;
    bool found = true;
    bool read = true;

    FILE *file = fopen(object, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, 500, SEEK_SET), 0);
    assert_int_equal(fputc('!', file), '!');
    assert_int_equal(fclose(file), 0);
    SCOPED(WalArchiveReader) reader = wal_archive_read(archive, path, 5 * MIB + 40, false, &err);
    assert_non_null(reader);
    while (read && found)
        read = wal_reader_next(wal_archive_reader_records(reader), &record, &found, &err);
    assert_false(read);
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_an_empty_archive_loads(void **state)
{
    SCOPED(WalArchive) archive = load(*state);
    TimelineHistory path;

    timeline_history_root(1, &path);
    assert_int_equal(wal_archive_timeline_count(archive), 0);
    assert_int_equal(wal_archive_missing(archive, &path, 0x500028, 0x700000, NULL, 0), 2);
    assert_int_equal(wal_archive_unbroken_end(archive, &path, 0x500028), 0x500028);
}

#define ARCHIVE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ARCHIVE_TEST(test_the_tree_knows_its_timelines_and_leaves),
        ARCHIVE_TEST(test_a_timeline_that_ended_at_its_fork_is_no_leaf),
        ARCHIVE_TEST(test_a_history_that_is_not_stored_stays_unknown),
        ARCHIVE_TEST(test_a_damaged_history_is_told_of_its_timeline_alone),
        ARCHIVE_TEST(test_another_timelines_history_in_its_place_is_damage_too),
        ARCHIVE_TEST(test_a_history_that_says_it_is_encrypted_where_nothing_is_is_damage_too),
        ARCHIVE_TEST(test_rubbish_as_history_of_timeline_1_is_nothing_to_it),
        ARCHIVE_TEST(test_an_unfinished_segment_promises_nothing_beside_a_damaged_history),
        ARCHIVE_TEST(test_nothing_is_missing_on_a_complete_path),
        ARCHIVE_TEST(test_missing_segments_are_counted_and_the_first_ones_named),
        ARCHIVE_TEST(test_a_segment_with_a_fork_is_needed_under_the_newer_name),
        ARCHIVE_TEST(test_two_forks_in_one_segment_need_only_the_newest_name),
        ARCHIVE_TEST(test_unbroken_wal_ends_at_the_first_hole),
        ARCHIVE_TEST(test_unbroken_wal_goes_on_over_forks),
        ARCHIVE_TEST(test_unbroken_wal_ends_before_a_fork_whose_segment_is_missing),
        ARCHIVE_TEST(test_records_are_read_along_a_path),
        ARCHIVE_TEST(test_the_tail_is_the_last_record_and_the_newest_time),
        ARCHIVE_TEST(test_the_newest_time_is_looked_for_in_earlier_segments),
        ARCHIVE_TEST(test_a_damaged_segment_is_an_error_not_the_end),
        ARCHIVE_TEST(test_an_empty_archive_loads),
    };
    return cmocka_run_group_tests_name("wal_archive", tests, NULL, NULL);
}
