/* A WAL file that is stored already: the same, or another one of its name. */
#include "repository/wal_store.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

#define SEGMENT_5 "000000010000000000000005"

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

/* It has the digest of what it stored, and can't read it. */
static void
test_a_host_that_only_seals_says_that_it_cannot_compare(void **state)
{
    WalFixture *fixture = *state;
    size_t used;

    if (repository_is_encrypted(fixture->repository))
        return;
    repository_take_keyring(fixture->repository, test_keyring(KEY_MODE_SEALED, false));
    uint8_t *segment = wal_fixture_short_segment(fixture, 1, 5, true, &used);
    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    const PutResult again = wal_fixture_put(fixture, SEGMENT_5, segment, MIB);
    assert_true(again.done && again.existed);
    memset(segment + used + 100, 0xAB, MIB - used - 100);
    const PutResult other = wal_fixture_put(fixture, SEGMENT_5, segment, MIB);
    assert_int_equal(other.err.kind, CAIRN_CONFLICT);
    assert_non_null(strstr(other.err.message, "pushed by"));
    assert_non_null(strstr(other.err.hint, "only seals"));
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WAL_FIXTURE_TEST(test_other_content_is_refused_naming_both_sides),
        WAL_FIXTURE_TEST(test_a_different_tail_after_the_switch_counts_as_identical),
        WAL_FIXTURE_TEST(test_a_different_tail_after_the_last_record_counts_as_identical),
        WAL_FIXTURE_TEST(test_a_host_that_only_seals_says_that_it_cannot_compare),
        WAL_FIXTURE_TEST(test_a_difference_in_the_last_byte_of_a_record_is_a_conflict),
        WAL_FIXTURE_TEST(test_a_difference_in_a_record_that_began_earlier_is_a_conflict),
        WAL_FIXTURE_TEST(test_more_records_than_stored_are_a_conflict),
        WAL_FIXTURE_TEST(test_other_history_is_always_refused),
        WAL_FIXTURE_TEST(test_versions_of_a_partial_stand_side_by_side),
    };
    return cmocka_run_group_tests_name("wal_conflict", tests, NULL, NULL);
}
