#include "repository/wal_store.h"

#include "common/bytes.h"
#include "repository/object.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MIB = 1 << 20 };

#define SEGMENT_5 "000000010000000000000005"
#define OBJECT_5 "00000001/00000000/" SEGMENT_5

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
test_other_content_is_refused_naming_both_sides(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);
    CairnError err = {0};
    char host[128] = "";

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    segment[MIB / 2] ^= 1;
    const PutResult other = wal_fixture_put(fixture, SEGMENT_5, segment, MIB);
    assert_int_equal(other.err.kind, CAIRN_CONFLICT);
    gethostname(host, sizeof host - 1);
    assert_non_null(strstr(other.err.message, "pushed by"));
    assert_non_null(strstr(other.err.message, host));
    assert_non_null(strstr(other.err.message, "differ from 0/580000 on"));
    assert_true(other.err.hint[0] != '\0');

    segment[MIB / 2] ^= 1;
    assert_true(wal_fixture_fetch(fixture, SEGMENT_5, &err));
    assert_true(wal_fixture_fetched_equals(fixture, segment, MIB));
    free(segment);
}

static void
test_a_different_tail_after_the_switch_counts_as_identical(void **state)
{
    WalFixture *fixture = *state;
    size_t used;
    uint8_t *segment = wal_fixture_short_segment(fixture, 1, 5, true, &used);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    memset(segment + used + 100, 0xAB, MIB - used - 100);
    const PutResult other = wal_fixture_put(fixture, SEGMENT_5, segment, MIB);
    assert_true(other.done);
    assert_true(other.existed);
    assert_true(other.tail_differs);
    free(segment);
}

static void
test_a_different_tail_after_the_last_record_counts_as_identical(void **state)
{
    WalFixture *fixture = *state;
    size_t used;
    uint8_t *segment = wal_fixture_short_segment(fixture, 1, 5, false, &used);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    memset(segment + used, 0xAB, 5000);
    const PutResult other = wal_fixture_put(fixture, SEGMENT_5, segment, MIB);
    assert_true(other.done && other.existed && other.tail_differs);
    free(segment);
}

static void
test_a_difference_in_the_last_byte_of_a_record_is_a_conflict(void **state)
{
    WalFixture *fixture = *state;
    size_t used;
    uint8_t *segment = wal_fixture_short_segment(fixture, 1, 5, true, &used);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    segment[used - 1] ^= 1; /* the CRC of the switch record */
    assert_int_equal(wal_fixture_put(fixture, SEGMENT_5, segment, MIB).err.kind, CAIRN_CONFLICT);
    free(segment);
}

static void
test_a_difference_in_a_record_that_began_earlier_is_a_conflict(void **state)
{
    WalFixture *fixture = *state;
    WalBuilder builder;
    uint8_t *segment = calloc(1, MIB);

    /* No CRC within the segment covers the rest of a record that began in the one before. */
    assert_non_null(segment);
    wal_builder_init(&builder, 15, MIB, 4 * MIB);
    while (builder.next_lsn < 5 * MIB - 3000)
        wal_builder_filler(&builder, 2000);
    wal_builder_filler(&builder, 20000);
    wal_builder_filler(&builder, 2000);
    wal_builder_switch(&builder);
    memcpy(segment, wal_builder_at(&builder, 5 * MIB),
           builder.size - MIB < MIB ? builder.size - MIB : MIB);
    wal_builder_free(&builder);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    segment[9000] ^= 1;
    assert_int_equal(wal_fixture_put(fixture, SEGMENT_5, segment, MIB).err.kind, CAIRN_CONFLICT);
    free(segment);
}

static void
test_more_records_than_stored_are_a_conflict(void **state)
{
    WalFixture *fixture = *state;
    size_t shorter_used;
    size_t longer_used;
    uint8_t *shorter = wal_fixture_short_segment(fixture, 1, 5, false, &shorter_used);
    uint8_t *longer = wal_fixture_short_segment(fixture, 1, 5, true, &longer_used);

    assert_memory_equal(shorter, longer, shorter_used);
    wal_fixture_store(fixture, SEGMENT_5, shorter, MIB);
    assert_int_equal(wal_fixture_put(fixture, SEGMENT_5, longer, MIB).err.kind, CAIRN_CONFLICT);
    free(shorter);
    free(longer);
}

static void
test_other_history_is_always_refused(void **state)
{
    static const char one[] = "1\t0/2CAEE40\tno recovery target specified\n";
    static const char other[] = "1\t0/2CAEE48\tno recovery target specified\n";

    wal_fixture_store(*state, "00000002.history", one, strlen(one));
    assert_true(wal_fixture_put(*state, "00000002.history", one, strlen(one)).existed);
    assert_int_equal(wal_fixture_put(*state, "00000002.history", other, strlen(other)).err.kind,
                     CAIRN_CONFLICT);
}

static void
test_versions_of_a_partial_stand_side_by_side(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    bool present = false;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);

    wal_fixture_store(fixture, SEGMENT_5 ".partial", segment, MIB);
    assert_true(wal_fixture_put(fixture, SEGMENT_5 ".partial", segment, MIB).existed);
    segment[MIB - 1] ^= 1;
    wal_fixture_store(fixture, SEGMENT_5 ".partial", segment, MIB);
    assert_false(wal_fixture_fetch(fixture, SEGMENT_5 ".partial", &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);

    /* And neither answers for the full segment. */
    cairn_error_clear(&err);
    assert_true(wal_store_has(fixture->store, SEGMENT_5, &present, &err));
    assert_false(present);
    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    free(segment);
}

/* What is refused at the door. */
typedef struct {
    const char *title;
    const char *name;
    void (*mutilate)(uint8_t *segment, size_t *size);
    CairnErrorKind kind;
} Refusal;

static void
change_system(uint8_t *segment, size_t *size)
{
    (void)size;
    segment[24] ^= 1;
}

static void
change_major(uint8_t *segment, size_t *size)
{
    (void)size;
    put_u16(segment, wal_magic_of_major(16));
}

static void
change_address(uint8_t *segment, size_t *size)
{
    (void)size;
    put_u64(segment + 8, 6 * MIB);
}

static void
change_timeline(uint8_t *segment, size_t *size)
{
    (void)size;
    put_u32(segment + 4, 2);
}

static void
change_segment_size(uint8_t *segment, size_t *size)
{
    (void)size;
    put_u32(segment + 32, 16 * MIB);
    put_u64(segment + 8, 0);
}

static void
truncate_segment(uint8_t *segment, size_t *size)
{
    (void)segment;
    *size -= 8192;
}

static void
clear_all(uint8_t *segment, size_t *size)
{
    memset(segment, 0, *size);
}

static void
change_nothing(uint8_t *segment, size_t *size)
{
    (void)segment;
    (void)size;
}

static const Refusal refusals[] = {
    {"another system", SEGMENT_5, change_system, CAIRN_MISMATCH},
    {"another version", SEGMENT_5, change_major, CAIRN_MISMATCH},
    {"another address", SEGMENT_5, change_address, CAIRN_MISMATCH},
    {"a newer timeline than its name", SEGMENT_5, change_timeline, CAIRN_MISMATCH},
    {"another segment size", SEGMENT_5, change_segment_size, CAIRN_MISMATCH},
    {"a truncated segment", SEGMENT_5, truncate_segment, CAIRN_MISMATCH},
    {"a truncated partial", SEGMENT_5 ".partial", truncate_segment, CAIRN_MISMATCH},
    {"all zeros", SEGMENT_5, clear_all, CAIRN_CORRUPT},
    {"another segment's name", "000000010000000000000006", change_nothing, CAIRN_MISMATCH},
    {"a name that no segment of this size has", "000000010000000000001000", change_nothing,
     CAIRN_USAGE},
    {"a name that is none", "pg_control", change_nothing, CAIRN_USAGE},
    {"a history file that is none", "00000002.history", change_nothing, CAIRN_CORRUPT},
};

static void
test_what_does_not_belong_is_refused_and_leaves_nothing(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    uint32_t *timelines = NULL;
    size_t count = 1;

    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        size_t size = MIB;
        size_t used;
        uint8_t *segment = wal_fixture_short_segment(fixture, 1, 5, true, &used);

        refusals[i].mutilate(segment, &size);
        const PutResult result = wal_fixture_put(fixture, refusals[i].name, segment, size);
        if (result.err.kind != refusals[i].kind)
            print_message("%s: %s\n", refusals[i].title, result.err.message);
        assert_int_equal(result.err.kind, refusals[i].kind);
        free(segment);
    }
    assert_true(wal_store_timelines(fixture->store, &timelines, &count, &err));
    assert_int_equal(count, 0);
    free(timelines);
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
    char name[STORAGE_NAME_LIMIT];
    uint64_t offset;
    size_t used;
    uint8_t *segment = wal_fixture_short_segment(fixture, 1, 5, true, &used);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    snprintf(name, sizeof name, "%s",
             wal_fixture_object_path(fixture, OBJECT_5) + strlen(fixture->root) + 1);

    /* The same object again, each of its checksums right, with another digest of the content. */
    ObjectReader *reader = object_open(fixture->repository, name, OBJECT_WAL, &err);
    assert_non_null(reader);
    const ByteReader index = object_index(reader);
    const size_t body_size = (size_t)(object_body_end(reader) - object_body_start(reader));
    uint8_t *body = malloc(body_size);
    uint8_t *changed = malloc(index.size);
    assert_true(body != NULL && changed != NULL);
    assert_true(object_pread(reader, body, body_size, object_body_start(reader), &err));
    memcpy(changed, index.data, index.size);
    changed[DIGEST_AT] ^= 1;
    object_reader_free(reader);
    assert_true(storage_remove(repository_storage(fixture->repository), name, &err));
    SCOPED(ObjectWriter) writer = object_create(fixture->repository, name, OBJECT_WAL, 0, &err);
    assert_non_null(writer);
    assert_true(object_append(writer, body, body_size, &offset, &err));
    assert_true(object_finish(writer, changed, index.size, NULL, &err));

    assert_false(wal_fixture_fetch(fixture, SEGMENT_5, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    free(body);
    free(changed);
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
test_coverage_is_runs_with_holes_between(void **state)
{
    static const uint64_t stored[] = {5, 6, 7, 9, 4095, 4096, 4097, 9000};
    static const uint64_t expected[][2] = {{5, 7}, {9, 9}, {4095, 4097}, {9000, 9000}};
    WalFixture *fixture = *state;
    CairnError err = {0};
    WalRun *runs = NULL;
    size_t count = 0;
    size_t used;
    uint8_t *partial = wal_fixture_short_segment(fixture, 1, 8, false, &used);

    for (size_t i = 0; i < sizeof stored / sizeof stored[0]; i++)
        wal_fixture_store_segment(fixture, 1, stored[i]);
    wal_fixture_store_segment(fixture, 2, 8);
    wal_fixture_store(fixture, "000000010000000000000008.partial", partial, MIB);
    free(partial);

    assert_true(wal_store_coverage(fixture->store, 1, &runs, &count, &err));
    assert_int_equal(count, 4);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(runs[i].first_segment, expected[i][0]);
        assert_int_equal(runs[i].last_segment, expected[i][1]);
        assert_true(runs[i].stored_bytes > 0);
    }
    free(runs);
    assert_true(wal_store_coverage(fixture->store, 3, &runs, &count, &err));
    assert_int_equal(count, 0);
    free(runs);
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

static bool
successor_of(WalFixture *fixture, const char *name)
{
    CairnError err = {0};
    WalSuccessor successor = {0};
    const bool done = wal_store_successor(fixture->store, name, &successor, &err);

    if (!done)
        print_message("%s: %s\n", name, err.message);
    assert_true(done);
    assert_true(successor.found == (successor.name[0] != '\0'));
    return successor.found;
}

static void
test_a_segment_is_a_hole_only_when_something_later_is_stored(void **state)
{
    WalFixture *fixture = *state;
    size_t used;
    uint8_t *partial = wal_fixture_short_segment(fixture, 1, 5000, false, &used);

    assert_false(successor_of(fixture, SEGMENT_5));
    wal_fixture_store_segment(fixture, 1, 4);
    assert_false(successor_of(fixture, SEGMENT_5));
    wal_fixture_store_segment(fixture, 2, 9); /* another timeline, of which nothing is known */
    assert_false(successor_of(fixture, SEGMENT_5));
    wal_fixture_store_segment(fixture, 1, 6);
    assert_true(successor_of(fixture, SEGMENT_5));
    assert_false(successor_of(fixture, "000000010000000000000007"));
    wal_fixture_store(fixture, "000000010000000100000388.partial", partial, MIB);
    assert_true(successor_of(fixture, "000000010000000000000007"));
    assert_false(successor_of(fixture, "000000010000000100000388"));
    free(partial);
}

static void
test_a_timeline_that_forked_later_proves_a_hole(void **state)
{
    /* Timeline 3 left 2 in segment 9, and 2 left 1 in segment 7. */
    static const char history[] = "1\t0/700100\tx\n2\t0/900100\tx\n";
    WalFixture *fixture = *state;

    wal_fixture_store(fixture, "00000003.history", history, strlen(history));
    assert_true(successor_of(fixture, "000000010000000000000006"));
    assert_false(successor_of(fixture, "000000010000000000000007")); /* the fork's own */
    assert_false(successor_of(fixture, "000000010000000000000008"));
    assert_true(successor_of(fixture, "000000020000000000000008"));
    assert_false(successor_of(fixture, "000000020000000000000009"));
    assert_false(successor_of(fixture, "000000030000000000000009"));
}

static void
test_a_history_file_is_a_hole_only_when_its_timeline_left_traces(void **state)
{
    static const char history[] = "1\t0/700100\tx\n2\t0/900100\tx\n";
    WalFixture *fixture = *state;

    assert_false(successor_of(fixture, "00000002.history"));
    wal_fixture_store_segment(fixture, 1, 4);
    assert_false(successor_of(fixture, "00000002.history"));
    wal_fixture_store_segment(fixture, 5, 8);
    assert_false(successor_of(fixture, "00000002.history"));
    assert_true(successor_of(fixture, "00000005.history"));
    wal_fixture_store(fixture, "00000003.history", history, strlen(history));
    assert_true(successor_of(fixture, "00000002.history"));
    assert_false(successor_of(fixture, "00000004.history"));
    assert_false(successor_of(fixture, "00000001.history"));
}

static void
test_the_oldest_timeline_needs_no_history(void **state)
{
    wal_fixture_store_segment(*state, 5, 8);
    assert_false(successor_of(*state, "00000005.history"));
}

#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_a_full_segment_comes_back_byte_for_byte),
        STORE_TEST(test_the_zero_tail_costs_nothing_and_comes_back),
        cmocka_unit_test(test_a_segment_of_64_mib_comes_back),
        STORE_TEST(test_files_of_the_other_kinds_come_back),
        STORE_TEST(test_pushing_again_is_success_and_syncs_again),
        STORE_TEST(test_success_of_a_second_push_waits_for_its_sync),
        STORE_TEST(test_other_content_is_refused_naming_both_sides),
        STORE_TEST(test_a_different_tail_after_the_switch_counts_as_identical),
        STORE_TEST(test_a_different_tail_after_the_last_record_counts_as_identical),
        STORE_TEST(test_a_difference_in_the_last_byte_of_a_record_is_a_conflict),
        STORE_TEST(test_a_difference_in_a_record_that_began_earlier_is_a_conflict),
        STORE_TEST(test_more_records_than_stored_are_a_conflict),
        STORE_TEST(test_other_history_is_always_refused),
        STORE_TEST(test_versions_of_a_partial_stand_side_by_side),
        STORE_TEST(test_what_does_not_belong_is_refused_and_leaves_nothing),
        STORE_TEST(test_an_older_timeline_in_the_first_page_is_the_copied_start_of_a_fork),
        STORE_TEST(test_a_flipped_byte_anywhere_in_the_object_is_never_delivered),
        STORE_TEST(test_frames_that_are_whole_but_not_what_was_digested_are_never_delivered),
        STORE_TEST(test_a_truncated_object_is_corrupt_not_absent),
        STORE_TEST(test_an_object_under_another_name_is_refused),
        STORE_TEST(test_absence_is_not_found),
        STORE_TEST(test_nothing_is_visible_before_it_is_synced),
        STORE_TEST(test_coverage_is_runs_with_holes_between),
        STORE_TEST(test_a_segment_reader_delivers_any_bytes),
        STORE_TEST(test_a_segment_is_a_hole_only_when_something_later_is_stored),
        STORE_TEST(test_a_timeline_that_forked_later_proves_a_hole),
        STORE_TEST(test_a_history_file_is_a_hole_only_when_its_timeline_left_traces),
        STORE_TEST(test_the_oldest_timeline_needs_no_history),
    };
    return cmocka_run_group_tests_name("wal_store", tests, NULL, NULL);
}
