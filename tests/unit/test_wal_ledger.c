#include "repository/wal_ledger.h"

#include "repository/object.h"
#include "repository/wal_log_index.h"
#include "repository/wal_piece.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Segments of 1 MiB: 4096 a log. These pass from log 0 into log 1. */
enum { MIB = 1 << 20, FIRST = 4092, LAST = 4098, LOG_1 = 4096 };

/* A few commits, a restore point, a switch. */
static void
store_segment(WalFixture *fixture, uint64_t number)
{
    WalBuilder builder;
    char name[WAL_NAME_SIZE];
    uint8_t *segment = calloc(1, MIB);

    assert_non_null(segment);
    wal_builder_init(&builder, fixture->incarnation.major, MIB, number * MIB);
    builder.system_id = fixture->incarnation.system_id;
    builder.timeline = 1;
    for (uint32_t i = 0; i < number % 5 + 1; i++)
        wal_builder_commit(&builder, 1000 + i, INT64_C(1795435200000000) + i);
    wal_builder_restore_point(&builder, INT64_C(1795435200000000), "point");
    wal_builder_switch(&builder);
    memcpy(segment, builder.data, builder.size < MIB ? builder.size : MIB);
    wal_segment_name(name, 1, number, MIB);
    wal_fixture_store(fixture, name, segment, MIB);
    wal_builder_free(&builder);
    free(segment);
}

static int
setup(void **state)
{
    static WalFixture fixture;

    wal_fixture_open(&fixture, MIB);
    for (uint64_t number = FIRST; number <= LAST; number++)
        store_segment(&fixture, number);
    *state = &fixture;
    return 0;
}

static int
setup_sealing(void **state)
{
    static WalFixture fixture;

    wal_fixture_open_sealing(&fixture, MIB);
    for (uint64_t number = FIRST; number <= LAST; number++)
        store_segment(&fixture, number);
    *state = &fixture;
    return 0;
}

static int
teardown(void **state)
{
    wal_fixture_close(*state);
    return 0;
}

/* What a walk saw, as numbers. */
typedef struct {
    uint64_t numbers[16];
    uint64_t records[16];
    size_t count;
    size_t stop_after;
    bool all_complete;
} Seen;

static bool
see(void *context, const WalLedgerSegment *segment, bool *stop_io, CairnError *err)
{
    Seen *seen = context;
    (void)err;
    assert_true(seen->count < 16);
    assert_int_equal(segment->timeline, 1);
    assert_int_equal(segment->facts->start_lsn, segment->number * MIB);
    seen->all_complete = (seen->count == 0 || seen->all_complete) && segment->complete;
    seen->records[seen->count] = segment->facts->record_count;
    seen->numbers[seen->count++] = segment->number;
    *stop_io = seen->count == seen->stop_after;
    return true;
}

static WalArchive *
load(WalFixture *fixture)
{
    CairnError err = {0};
    WalArchive *archive =
        wal_archive_load(fixture->repository, "main", &fixture->incarnation, &err);
    assert_non_null(archive);
    return archive;
}

static void
walk(WalArchive *archive, uint64_t from, uint64_t to, Seen *seen, WalLedgerCounts *counts)
{
    CairnError err = {0};
    SCOPED(WalLedger) ledger = wal_ledger_open(archive, false, &err);
    assert_non_null(ledger);
    const WalLedgerRange range = {.path = wal_archive_find(archive, 1)->history,
                                  .from_lsn = from * MIB,
                                  .to_lsn = to == UINT64_MAX ? to : to * MIB};
    if (!wal_ledger_walk(ledger, &range, see, seen, &err))
        fail_msg("%s", err.message);
    *counts = *wal_ledger_counts(ledger);
}

static void
test_a_walk_sees_each_stored_segment_of_its_range_once(void **state)
{
    SCOPED(WalArchive) archive = load(*state);
    WalLedgerCounts counts;
    Seen all = {0}, some = {0}, one = {.stop_after = 1};

    walk(archive, 0, UINT64_MAX, &all, &counts);
    assert_int_equal(all.count, LAST - FIRST + 1);
    for (size_t i = 0; i < all.count; i++)
        assert_int_equal(all.numbers[i], FIRST + i);
    assert_true(all.all_complete && all.records[0] > 0);
    assert_int_equal(counts.stored, all.count);
    assert_int_equal(counts.decoded + counts.unreadable + counts.indexed, 0);

    walk(archive, FIRST + 1, FIRST + 3, &some, &counts);
    assert_int_equal(some.count, 2);
    assert_int_equal(some.numbers[0], FIRST + 1);

    walk(archive, 0, UINT64_MAX, &one, &counts);
    assert_int_equal(one.count, 1);
}

static void
test_a_hole_is_passed_over(void **state)
{
    WalFixture *fixture = *state;
    char below[128];
    snprintf(below, sizeof below, "00000001/00000000/%08X%08X%08X", 1, 0, FIRST + 2);
    assert_int_equal(remove(wal_fixture_object_path(fixture, below)), 0);

    SCOPED(WalArchive) archive = load(fixture);
    WalLedgerCounts counts;
    Seen seen = {0};
    walk(archive, 0, UINT64_MAX, &seen, &counts);
    assert_int_equal(seen.count, LAST - FIRST);
    assert_int_equal(seen.numbers[2], FIRST + 3);

    /* Where the range begins inside, a hole is one that somebody should know of. */
    Seen inside = {0};
    walk(archive, FIRST, UINT64_MAX, &inside, &counts);
    assert_int_equal(counts.missing, 1);
    assert_int_equal(counts.end_lsn, (uint64_t)(LAST + 1) * MIB);
}

/* Pieces of the segment behind the last one, of its first `size` bytes: without its switch. */
static void
store_pieces(WalFixture *fixture, uint64_t number, uint32_t size)
{
    CairnError err = {0};
    WalPieceName name;
    uint8_t *segment = wal_fixture_segment(fixture, 1, number);

    assert_int_equal(pwrite(fixture->file, segment, MIB, 0), MIB);
    assert_true(wal_piece_put(fixture->store, 1, number, fixture->file, 0, size, &name, &err));
    free(segment);
}

static void
walk_with_unfinished(WalArchive *archive, Seen *seen, WalLedgerCounts *counts)
{
    CairnError err = {0};
    SCOPED(WalLedger) ledger = wal_ledger_open(archive, false, &err);
    const WalLedgerRange range = {.path = wal_archive_find(archive, 1)->history,
                                  .from_lsn = (uint64_t)FIRST * MIB,
                                  .to_lsn = UINT64_MAX,
                                  .with_unfinished = true};
    if (!wal_ledger_walk(ledger, &range, see, seen, &err))
        fail_msg("%s", err.message);
    *counts = *wal_ledger_counts(ledger);
}

static void
test_the_unfinished_segment_is_seen_by_who_asks_for_it(void **state)
{
    WalFixture *fixture = *state;
    WalLedgerCounts counts;
    Seen without = {0}, with = {0};

    store_pieces(fixture, LAST + 1, 300000);
    SCOPED(WalArchive) archive = load(fixture);
    walk(archive, FIRST, UINT64_MAX, &without, &counts);
    assert_int_equal(without.count, LAST - FIRST + 1);
    walk_with_unfinished(archive, &with, &counts);
    assert_int_equal(with.count, LAST - FIRST + 2);
    assert_int_equal(with.numbers[with.count - 1], LAST + 1);
    assert_true(with.records[with.count - 1] > 0);
    assert_int_equal(counts.missing + counts.unreadable, 0);
    assert_int_equal(counts.end_lsn, (uint64_t)(LAST + 1) * MIB + 300000);
}

static void
test_an_unfinished_segment_behind_a_hole_was_not_searched(void **state)
{
    WalFixture *fixture = *state;
    WalLedgerCounts counts;
    Seen seen = {0};

    store_pieces(fixture, LAST + 3, 300000);
    SCOPED(WalArchive) archive = load(fixture);
    walk_with_unfinished(archive, &seen, &counts);
    assert_int_equal(seen.count, LAST - FIRST + 1);
    assert_int_equal(counts.missing, 2);
    assert_int_equal(counts.unreadable, 1);
}

/* What the storage does not let us read is no hole and no damage. */
static void
test_a_segment_that_may_not_be_read_ends_the_walk(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    Seen seen = {0};
    SCOPED(WalArchive) archive = load(fixture);
    SCOPED(WalLedger) ledger = wal_ledger_open(archive, true, &err);
    const WalLedgerRange range = {.path = wal_archive_find(archive, 1)->history,
                                  .from_lsn = (uint64_t)FIRST * MIB,
                                  .to_lsn = (uint64_t)(LAST + 1) * MIB};
    fault_disk_reset(&fixture->disk);
    fixture->disk.fail[FAULT_OPEN] = (Fault){.at_call = 2, .error = EACCES};
    const bool walked = wal_ledger_walk(ledger, &range, see, &seen, &err);
    fault_disk_reset(&fixture->disk);
    assert_false(walked);
    assert_int_equal(err.kind, CAIRN_DENIED);
}

/* A host that only seals has facts beside each segment; pieces have none, and their bytes are not
   for it. */
static void
test_what_is_sealed_is_passed_over(void **state)
{
    WalFixture *fixture = *state;
    WalLedgerCounts counts;
    Seen seen = {0};

    store_pieces(fixture, LAST + 1, 300000);
    SCOPED(WalArchive) archive = load(fixture);
    walk_with_unfinished(archive, &seen, &counts);
    assert_int_equal(seen.count, LAST - FIRST + 1);
    assert_int_equal(counts.unreadable, 1);
}

/* And what it may not read at all is not taken for sealed, nor for the end of the WAL. */
static void
test_a_denied_read_is_not_taken_for_a_sealed_body(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    WalRecord last;
    int64_t newest_us = 0;
    bool found = false;

    test_a_segment_that_may_not_be_read_ends_the_walk(state);
    SCOPED(WalArchive) archive = load(fixture);
    const TimelineHistory *path = wal_archive_find(archive, 1)->history;
    assert_true(
        wal_archive_tail(archive, path, (uint64_t)FIRST * MIB, &last, &newest_us, &found, &err));
    assert_true(found && newest_us > 0);
    fault_disk_reset(&fixture->disk);
    fixture->disk.fail[FAULT_OPEN] = (Fault){.at_call = 1, .error = EACCES};
    const bool told =
        wal_archive_tail(archive, path, (uint64_t)FIRST * MIB, &last, &newest_us, &found, &err);
    fault_disk_reset(&fixture->disk);
    assert_false(told);
    assert_int_equal(err.kind, CAIRN_DENIED);
}

static void
reindex(WalArchive *archive, size_t logs, size_t written)
{
    CairnError err = {0};
    WalReindexReport report = {0};
    if (!wal_ledger_reindex(archive, &report, &err))
        fail_msg("%s", err.message);
    assert_int_equal(report.log_count, logs);
    assert_int_equal(report.written_count, written);
}

static void
test_the_index_tells_the_same_for_logs_that_do_not_grow(void **state)
{
    SCOPED(WalArchive) archive = load(*state);
    WalLedgerCounts counts;
    Seen before = {0}, after = {0};

    walk(archive, 0, UINT64_MAX, &before, &counts);
    reindex(archive, 1, 1);
    reindex(archive, 1, 0);
    walk(archive, 0, UINT64_MAX, &after, &counts);
    assert_int_equal(counts.indexed, LOG_1 - FIRST);
    assert_int_equal(counts.stored, LAST + 1 - LOG_1);
    assert_int_equal(after.count, before.count);
    assert_memory_equal(after.records, before.records, sizeof before.records);
    assert_true(after.all_complete);
}

/* Segments 10 and 11 of log 0, a commit crossing from one into the other. */
static void
store_crossing(WalFixture *fixture)
{
    enum { FROM = 10, SEGMENTS = 2 };
    WalBuilder builder;
    uint8_t *segments = calloc(SEGMENTS, MIB);

    wal_builder_init(&builder, fixture->incarnation.major, MIB, (uint64_t)FROM * MIB);
    builder.system_id = fixture->incarnation.system_id;
    builder.timeline = 1;
    while (builder.size < MIB + 1000)
        wal_builder_commit(&builder, 1000, INT64_C(1795435200000000));
    wal_builder_switch(&builder);
    memcpy(segments, builder.data,
           builder.size < SEGMENTS * (size_t)MIB ? builder.size : SEGMENTS * (size_t)MIB);
    for (size_t i = 0; i < SEGMENTS; i++) {
        char name[WAL_NAME_SIZE];
        wal_segment_name(name, 1, FROM + i, MIB);
        wal_fixture_store(fixture, name, segments + i * MIB, MIB);
    }
    wal_builder_free(&builder);
    free(segments);
}

/* On the other side of the fork that commit may never have happened. */
static void
test_a_record_that_crosses_into_a_fork_is_in_no_index(void **state)
{
    static const char history[] = "1\t0/B00000\tx\n"; /* where segment 11 begins */
    WalFixture *fixture = *state;
    WalLedgerCounts counts;
    Seen before = {0}, after = {0};

    store_crossing(fixture);
    {
        SCOPED(WalArchive) archive = load(fixture);
        reindex(archive, 1, 1);
        walk(archive, 0, UINT64_MAX, &before, &counts);
        assert_true(before.all_complete);
        assert_int_equal(counts.indexed, 2 + LOG_1 - FIRST);
    }
    wal_fixture_store(fixture, "00000002.history", history, strlen(history));
    SCOPED(WalArchive) archive = load(fixture);
    reindex(archive, 1, 1);
    walk(archive, 0, UINT64_MAX, &after, &counts);
    assert_int_equal(counts.indexed, 1 + LOG_1 - FIRST);
    assert_memory_equal(after.records, before.records, sizeof before.records);
}

/* An index of log 0 as an enemy would write it, under the next number. */
static void
put_index(WalFixture *fixture, uint32_t generation, const void *content, size_t size)
{
    char name[160];
    CairnError err = {0};
    snprintf(name, sizeof name, "c/main/cat/%016llx-%d/00000001/00000000.%u",
             (unsigned long long)fixture->incarnation.system_id, fixture->incarnation.major,
             generation);
    if (!object_put_small(fixture->repository, name, OBJECT_CATALOG, 0, content, size, NULL, &err))
        fail_msg("%s", err.message);
}

static void
write_head(ByteWriter *bytes, uint32_t timeline, uint32_t log, uint32_t segment_size)
{
    byte_writer_u16(bytes, 1);
    byte_writer_u32(bytes, timeline);
    byte_writer_u32(bytes, log);
    byte_writer_u32(bytes, segment_size);
}

static void
test_an_index_that_lies_is_as_none(void **state)
{
    WalFixture *fixture = *state;
    SCOPED(WalArchive) archive = load(fixture);
    static const struct {
        const char *name;
        uint32_t timeline, log, segment_size;
        uint64_t count, low, size;
        size_t bytes;
    } cases[] = {
        {"another timeline", 2, 0, MIB, 1, FIRST, 4, 4},
        {"another log", 1, 1, MIB, 1, FIRST, 4, 4},
        {"another segment size", 1, 0, 16 * MIB, 1, FIRST, 4, 4},
        {"more entries than segments", 1, 0, MIB, 5000, FIRST, 4, 4},
        {"a segment that a log does not have", 1, 0, MIB, 1, 4096, 4, 4},
        {"an entry that is cut", 1, 0, MIB, 1, FIRST, 100, 4},
        {"bytes behind the last entry", 1, 0, MIB, 1, FIRST, 4, 5},
        {"facts that are none", 1, 0, MIB, 1, FIRST, 4, 4},
        {"no facts at all", 1, 0, MIB, 1, FIRST, 0, 0},
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        SCOPED_BYTES ByteWriter bytes = {0};
        WalLedgerCounts counts;
        Seen seen = {0};
        write_head(&bytes, cases[i].timeline, cases[i].log, cases[i].segment_size);
        byte_writer_varint(&bytes, cases[i].count);
        byte_writer_varint(&bytes, cases[i].low);
        byte_writer_varint(&bytes, cases[i].size);
        for (size_t k = 0; k < cases[i].bytes; k++)
            byte_writer_u8(&bytes, 0xff);
        put_index(fixture, i + 1, bytes.data, bytes.size);
        walk(archive, 0, UINT64_MAX, &seen, &counts);
        if (counts.indexed != 0 || counts.stored != seen.count || seen.count != LAST - FIRST + 1)
            fail_msg("%s was believed", cases[i].name);
    }
    reindex(archive, 1, 1); /* all of them are replaced */
    reindex(archive, 1, 0);
}

static void
test_an_empty_index_is_one(void **state)
{
    WalFixture *fixture = *state;
    SCOPED(WalArchive) archive = load(fixture);
    SCOPED_BYTES ByteWriter bytes = {0};
    WalLedgerCounts counts;
    Seen seen = {0};
    write_head(&bytes, 1, 0, MIB);
    byte_writer_varint(&bytes, 0);
    put_index(fixture, 1, bytes.data, bytes.size);
    walk(archive, 0, UINT64_MAX, &seen, &counts);
    assert_int_equal(counts.stored, LAST - FIRST + 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_walk_sees_each_stored_segment_of_its_range_once,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_hole_is_passed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_unfinished_segment_is_seen_by_who_asks_for_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_unfinished_segment_behind_a_hole_was_not_searched,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_index_tells_the_same_for_logs_that_do_not_grow,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_record_that_crosses_into_a_fork_is_in_no_index,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_that_may_not_be_read_ends_the_walk, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_is_sealed_is_passed_over, setup_sealing,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_denied_read_is_not_taken_for_a_sealed_body,
                                        setup_sealing, teardown),
        cmocka_unit_test_setup_teardown(test_an_index_that_lies_is_as_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_empty_index_is_one, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
