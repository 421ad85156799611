#include "repository/wal_piece.h"

#include "repository/wal_archive.h"
#include "repository/wal_missing.h"
#include "repository/wal_object.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MIB = 1 << 20, SEGMENT = 5 };

#define SEGMENT_5 "000000010000000000000005"
#define TOKEN "0123456789abcdef"

typedef struct {
    WalFixture wal;
    uint8_t *segment;
    WalPieceName first;
    atomic_bool merged;
    int source; /* holds the segment, as the receiver's spool would */
} Lab;

static int
setup(void **state)
{
    static Lab lab;
    char path[300];

    wal_fixture_open(&lab.wal, MIB);
    lab.segment = wal_fixture_segment(&lab.wal, 1, SEGMENT);
    snprintf(path, sizeof path, "%s/source", lab.wal.root);
    lab.source = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(lab.source >= 0);
    assert_int_equal(pwrite(lab.source, lab.segment, MIB, 0), MIB);
    *state = &lab;
    return 0;
}

static int
teardown(void **state)
{
    Lab *lab = *state;

    close(lab->source);
    free(lab->segment);
    wal_fixture_close(&lab->wal);
    return 0;
}

static WalPieceName
put(Lab *lab, uint32_t offset, uint32_t size)
{
    CairnError err = {0};
    WalPieceName name;

    assert_true(wal_piece_put(lab->wal.store, 1, SEGMENT, lab->source, offset, size, &name, &err));
    assert_int_equal(name.offset, offset);
    return name;
}

/* What the pieces give is the segment's first `size` bytes, and no more. */
static void
expect_pieces(Lab *lab, uint32_t size)
{
    CairnError err = {0};
    SCOPED(WalPieces) pieces = wal_pieces_open(lab->wal.store, 1, SEGMENT, &err);
    uint8_t *data = malloc(MIB);
    uint8_t *expected = calloc(1, MIB);

    assert_non_null(pieces);
    assert_int_equal(wal_pieces_size(pieces), size);
    memcpy(expected, lab->segment, size);
    assert_true(wal_pieces_pread(pieces, data, MIB, 0, &err));
    assert_memory_equal(data, expected, MIB);
    assert_true(wal_pieces_fetch(pieces, lab->wal.file, &err));
    assert_true(wal_fixture_fetched_equals(&lab->wal, expected, MIB));
    free(data);
    free(expected);
}

static void
test_names_are_parsed_exactly(void **state)
{
    static const char *const WRONG[] = {
        SEGMENT_5,
        SEGMENT_5 ".tail." TOKEN ".0000000",
        SEGMENT_5 ".tail." TOKEN ".000000001",
        SEGMENT_5 ".tail." TOKEN ".00100000", /* no offset of a segment of 1 MiB */
        SEGMENT_5 ".tail." TOKEN ".0000000a",
        SEGMENT_5 ".tail.0123456789ABCDEF.00000000",
        SEGMENT_5 ".tail." TOKEN "-00000000",
        "00000001000000000000000G.tail." TOKEN ".00000000",
        "000000010000000000001000.tail." TOKEN ".00000000", /* no segment of 1 MiB */
        SEGMENT_5 ".partial.01234567",
        "",
    };
    WalPieceName name;
    (void)state;

    assert_true(wal_piece_name_parse(SEGMENT_5 ".tail." TOKEN ".000FFFFF", MIB, &name));
    assert_int_equal(name.timeline, 1);
    assert_int_equal(name.segment, SEGMENT);
    assert_int_equal(name.offset, 0xfffff);
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++)
        assert_false(wal_piece_name_parse(WRONG[i], MIB, &name));
}

static void
test_pieces_make_the_segment_as_far_as_they_go(void **state)
{
    put(*state, 0, 100);
    expect_pieces(*state, 100);
    put(*state, 100, 8192);
    put(*state, 8292, 300000);
    expect_pieces(*state, 308292);
}

static void
test_a_hole_ends_what_is_there(void **state)
{
    put(*state, 0, 8192);
    put(*state, 8193, 8192);
    expect_pieces(*state, 8192);
}

static void
test_without_the_first_byte_there_is_nothing(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};

    put(lab, 8192, 8192);
    SCOPED(WalPieces) pieces = wal_pieces_open(lab->wal.store, 1, SEGMENT, &err);
    assert_non_null(pieces);
    assert_int_equal(wal_pieces_size(pieces), 0);
    assert_true(wal_pieces_broken(pieces));
    assert_false(wal_pieces_fetch(pieces, lab->wal.file, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_pieces_of_two_receivers_overlap_without_harm(void **state)
{
    put(*state, 0, 20000);
    put(*state, 0, 500);
    put(*state, 500, 200);
    put(*state, 15000, 70000);
    put(*state, 20000, 10);
    expect_pieces(*state, 85000);
}

static void
test_a_merged_piece_takes_the_place_of_small_ones(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    const WalPieceName first = put(lab, 0, 1000);
    const WalPieceName second = put(lab, 1000, 1000);

    put(lab, 0, 2000);
    assert_true(wal_piece_remove(lab->wal.store, &first, &err));
    assert_true(wal_piece_remove(lab->wal.store, &second, &err));
    assert_true(wal_piece_remove(lab->wal.store, &second, &err)); /* absent already */
    expect_pieces(lab, 2000);
}

static void
damage(Lab *lab, const WalPieceName *name, off_t offset)
{
    char below[128];
    uint8_t byte;

    snprintf(below, sizeof below, "00000001/00000000/%s", name->name);
    const int fd = open(wal_fixture_object_path(&lab->wal, below), O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

static void
test_a_damaged_piece_is_found_and_never_delivered(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    const WalPieceName name = put(lab, 0, 65536);

    assert_true(wal_store_verify(lab->wal.store, name.name, &err));
    damage(lab, &name, 300); /* in its frame: header and index are good */
    assert_false(wal_store_verify(lab->wal.store, name.name, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    cairn_error_clear(&err);
    SCOPED(WalPieces) pieces = wal_pieces_open(lab->wal.store, 1, SEGMENT, &err);
    assert_non_null(pieces);
    assert_false(wal_pieces_fetch(pieces, lab->wal.file, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_behind_a_piece_with_a_damaged_header_nothing_is_used(void **state)
{
    Lab *lab = *state;

    put(lab, 0, 1000);
    const WalPieceName second = put(lab, 1000, 1000);
    put(lab, 2000, 1000);
    damage(lab, &second, 9);
    expect_pieces(lab, 1000);
}

/* -- who gets it -- */

static bool
unfinished_serves(Lab *lab)
{
    CairnError err = {0};

    if (wal_store_fetch_unfinished(lab->wal.store, SEGMENT_5, false, lab->wal.file, &err))
        return true;
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    return false;
}

/* More was received, and acknowledged: to end recovery here silently would lose it. */
static void
expect_damage(Lab *lab, uint32_t good_size)
{
    CairnError err = {0};
    WalUnfinished unfinished;

    assert_false(wal_store_fetch_unfinished(lab->wal.store, SEGMENT_5, false, lab->wal.file, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    cairn_error_clear(&err);
    assert_true(wal_store_unfinished(lab->wal.store, 1, SEGMENT, &unfinished, &err));
    assert_true(unfinished.found);
    assert_true(unfinished.broken);
    assert_int_equal(unfinished.segment, SEGMENT);
    assert_int_equal(unfinished.size, good_size);
}

static void
test_a_damaged_piece_in_the_middle_is_no_end(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};

    put(lab, 0, 50000);
    const WalPieceName second = put(lab, 50000, 1000);
    put(lab, 51000, 1000);
    damage(lab, &second, 9);
    expect_damage(lab, 50000);
    /* Whoever knows that no more is needed gets the good beginning. */
    assert_true(wal_store_fetch_unfinished(lab->wal.store, SEGMENT_5, true, lab->wal.file, &err));
    memset(lab->segment + 50000, 0, MIB - 50000);
    assert_true(wal_fixture_fetched_equals(&lab->wal, lab->segment, MIB));
}

static void
test_a_missing_piece_in_the_middle_is_no_end(void **state)
{
    put(*state, 0, 50000);
    put(*state, 51000, 1000);
    expect_damage(*state, 50000);
}

static void
test_damage_of_all_pieces_is_not_absence(void **state)
{
    Lab *lab = *state;
    const WalPieceName only = put(lab, 0, 50000);

    damage(lab, &only, 9);
    expect_damage(lab, 0);
}

static void
test_pieces_of_a_segment_that_is_whole_are_absent(void **state)
{
    Lab *lab = *state;

    put(lab, 8192, 50000); /* being removed */
    wal_fixture_store(&lab->wal, SEGMENT_5, lab->segment, MIB);
    assert_false(unfinished_serves(lab));
}

/* A receiver merges what a reader has listed already. */
static void
test_pieces_merged_while_they_are_read(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    const WalPieceName first = put(lab, 0, 9000);
    const WalPieceName second = put(lab, 9000, 1000);
    SCOPED(WalPieces) pieces = wal_pieces_open(lab->wal.store, 1, SEGMENT, &err);
    SCOPED(WalPieces) read = wal_pieces_open(lab->wal.store, 1, SEGMENT, &err);
    uint8_t page[2000];

    assert_non_null(pieces);
    assert_non_null(read);
    put(lab, 0, 10000);
    assert_true(wal_piece_remove(lab->wal.store, &first, &err));
    assert_true(wal_piece_remove(lab->wal.store, &second, &err));
    assert_true(wal_pieces_pread(read, page, sizeof page, 8000, &err));
    assert_memory_equal(page, lab->segment + 8000, sizeof page);
    assert_true(wal_pieces_fetch(pieces, lab->wal.file, &err));
    memset(lab->segment + 10000, 0, MIB - 10000);
    assert_true(wal_fixture_fetched_equals(&lab->wal, lab->segment, MIB));
}

enum { MERGED_SIZE = 10000, MERGES = 100 };

/* Small pieces become a bigger one and the other way round: all bytes are there at any time. */
static void *
merge_again_and_again(void *context)
{
    Lab *lab = context;
    CairnError err = {0};
    SCOPED(WalStore)
    store = wal_store_open(lab->wal.repository, "main", &lab->wal.incarnation, &err);
    WalPieceName merged = lab->first, first, second;
    bool good = store != NULL;

    for (int i = 0; good && i < MERGES; i++) {
        good = wal_piece_put(store, 1, SEGMENT, lab->source, 0, 5000, &first, &err) &&
               wal_piece_put(store, 1, SEGMENT, lab->source, 5000, MERGED_SIZE - 5000, &second,
                             &err) &&
               wal_piece_remove(store, &merged, &err) &&
               wal_piece_put(store, 1, SEGMENT, lab->source, 0, MERGED_SIZE, &merged, &err) &&
               wal_piece_remove(store, &first, &err) && wal_piece_remove(store, &second, &err);
    }
    atomic_store(&lab->merged, true);
    return good ? lab : NULL;
}

/* At worst they cannot be had now; never less than what is there. */
static void
test_a_reader_never_takes_a_merge_for_the_end(void **state)
{
    Lab *lab = *state;
    pthread_t thread;
    void *result;

    CairnError err = {0};
    lab->first = put(lab, 0, MERGED_SIZE);
    atomic_store(&lab->merged, false);
    assert_int_equal(pthread_create(&thread, NULL, merge_again_and_again, lab), 0);
    while (!atomic_load(&lab->merged)) {
        SCOPED(WalPieces) pieces = wal_pieces_open(lab->wal.store, 1, SEGMENT, &err);
        if (pieces == NULL)
            assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
        else
            assert_int_equal(wal_pieces_size(pieces), MERGED_SIZE);
        assert_true(pieces == NULL || !wal_pieces_broken(pieces));
        cairn_error_clear(&err);
    }
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, lab);
}

static void
test_only_the_newest_segment_is_served_unfinished(void **state)
{
    Lab *lab = *state;

    assert_false(unfinished_serves(lab));
    put(lab, 0, 50000);
    assert_true(unfinished_serves(lab));
    wal_fixture_store_segment(&lab->wal, 1, SEGMENT - 1);
    assert_true(unfinished_serves(lab));
    wal_fixture_store_segment(&lab->wal, 1, SEGMENT + 1);
    assert_false(unfinished_serves(lab));
}

static void
test_pieces_of_a_later_segment_show_a_hole(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    WalSuccessor successor;

    put(lab, 0, 50000);
    assert_true(wal_store_successor(lab->wal.store, "000000010000000000000004", &successor, &err));
    assert_true(successor.found);
    assert_true(wal_store_successor(lab->wal.store, SEGMENT_5, &successor, &err));
    assert_false(successor.found);
}

/* The segment's first `size` bytes, as rescue stores what a dead server left. */
static void
store_partial(Lab *lab, uint32_t size)
{
    uint8_t *partial = calloc(1, MIB);

    memcpy(partial, lab->segment, size);
    wal_fixture_store(&lab->wal, SEGMENT_5 ".partial", partial, MIB);
    free(partial);
}

/* As what is served, and what the archive reads. */
static void
expect_unfinished(Lab *lab, uint32_t size)
{
    CairnError err = {0};
    uint8_t *expected = calloc(1, MIB);
    uint8_t *data = malloc(MIB);
    uint32_t read_size;

    memcpy(expected, lab->segment, size);
    assert_true(unfinished_serves(lab));
    assert_true(wal_fixture_fetched_equals(&lab->wal, expected, MIB));
    SCOPED(WalSegmentReader)
    reader = wal_store_read_pieces(lab->wal.store, 1, SEGMENT, &read_size, &err);
    assert_non_null(reader);
    assert_true(wal_segment_reader_pread(reader, data, MIB, 0, &err));
    assert_memory_equal(data, expected, MIB);
    free(expected);
    free(data);
}

static void
test_a_partial_or_the_pieces_whichever_reaches_further(void **state)
{
    Lab *lab = *state;

    store_partial(lab, 50000);
    assert_false(unfinished_serves(lab)); /* alone it serves nobody */
    put(lab, 0, 30000);
    expect_unfinished(lab, 50000);
    put(lab, 30000, 40000);
    expect_unfinished(lab, 70000);
    store_partial(lab, 90000); /* two of them: nobody knows which is right */
    expect_unfinished(lab, 70000);
}

static void
store_history(Lab *lab, uint32_t low)
{
    char text[64];

    snprintf(text, sizeof text, "1\t0/%X\tx\n", low);
    wal_fixture_store(&lab->wal, "00000002.history", text, strlen(text));
}

/* Behind the fork lies what never happened on the way to the newer timeline. */
static void
test_a_segment_with_a_fork_is_not_served_unfinished(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    WalUnfinished unfinished;

    put(lab, 0, 50000);
    store_history(lab, SEGMENT * MIB + 20000);
    assert_false(unfinished_serves(lab));
    assert_true(wal_store_unfinished(lab->wal.store, 1, SEGMENT, &unfinished, &err));
    assert_true(unfinished.found);
    assert_int_equal(unfinished.size, 0);
}

static void
test_a_fork_before_the_segment_does_not_matter(void **state)
{
    put(*state, 0, 50000);
    store_history(*state, SEGMENT * MIB - 20000);
    expect_unfinished(*state, 50000);
}

static void
test_the_archive_goes_on_into_the_unfinished_segment(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    WalRecord last;
    int64_t newest_us;
    bool found = false;
    const uint64_t start = (uint64_t)(SEGMENT - 1) * MIB;

    wal_fixture_store_segment(&lab->wal, 1, SEGMENT - 1);
    put(lab, 0, 300000);
    put(lab, 300000, 100000);
    SCOPED(WalArchive)
    archive = wal_archive_load(lab->wal.repository, "main", &lab->wal.incarnation, &err);
    assert_non_null(archive);
    const WalTimeline *timeline = wal_archive_find(archive, 1);
    assert_int_equal(timeline->unfinished_segment, SEGMENT);
    assert_int_equal(timeline->unfinished_size, 400000);
    assert_int_equal(wal_archive_unbroken_end(archive, timeline->history, start),
                     (uint64_t)SEGMENT * MIB + 400000);
    /* Segments of the fixture do not follow one another: its own start it is. */
    assert_true(wal_archive_tail(archive, timeline->history, (uint64_t)SEGMENT * MIB, &last,
                                 &newest_us, &found, &err));
    assert_true(found);
    assert_true(last.end_lsn > (uint64_t)SEGMENT * MIB + 300000);
    assert_true(last.end_lsn <= (uint64_t)SEGMENT * MIB + 400000);
}

/* Segment 4 is missing: what lies behind it must not make it look like the end. */
static void
test_pieces_behind_a_hole_are_a_stored_end(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    const uint64_t start = (uint64_t)(SEGMENT - 2) * MIB;
    char names[2][WAL_NAME_SIZE];

    wal_fixture_store_segment(&lab->wal, 1, SEGMENT - 2);
    put(lab, 0, 300000);
    SCOPED(WalArchive)
    archive = wal_archive_load(lab->wal.repository, "main", &lab->wal.incarnation, &err);
    assert_non_null(archive);
    const WalTimeline *timeline = wal_archive_find(archive, 1);
    assert_true(timeline->has_unfinished);
    assert_int_equal(timeline->unfinished_segment, SEGMENT);
    assert_int_equal(timeline->unfinished_size, 0);
    assert_int_equal(wal_timeline_stored_end(timeline), SEGMENT);
    assert_int_equal(wal_archive_unbroken_end(archive, timeline->history, start),
                     (uint64_t)(SEGMENT - 1) * MIB);
    const uint64_t end = wal_missing_stored_end(archive, timeline->history);
    assert_int_equal(end, (uint64_t)SEGMENT * MIB);
    assert_int_equal(wal_archive_missing(archive, timeline->history, start, end, names, 2), 1);
    assert_string_equal(names[0], "000000010000000000000004");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_parsed_exactly),
        cmocka_unit_test_setup_teardown(test_pieces_make_the_segment_as_far_as_they_go, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_hole_ends_what_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_the_first_byte_there_is_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_pieces_of_two_receivers_overlap_without_harm, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_merged_piece_takes_the_place_of_small_ones, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_piece_is_found_and_never_delivered, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_behind_a_piece_with_a_damaged_header_nothing_is_used,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_piece_in_the_middle_is_no_end, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_missing_piece_in_the_middle_is_no_end, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_damage_of_all_pieces_is_not_absence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces_of_a_segment_that_is_whole_are_absent, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_pieces_merged_while_they_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces_behind_a_hole_are_a_stored_end, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_reader_never_takes_a_merge_for_the_end, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_only_the_newest_segment_is_served_unfinished, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_pieces_of_a_later_segment_show_a_hole, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_partial_or_the_pieces_whichever_reaches_further,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_with_a_fork_is_not_served_unfinished, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_fork_before_the_segment_does_not_matter, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_the_archive_goes_on_into_the_unfinished_segment, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
