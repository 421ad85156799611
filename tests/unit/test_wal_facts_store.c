/* Facts on their way through the repository. */
#include "common/bytes.h"
#include "repository/object.h"
#include "repository/wal_facts_format.h"
#include "repository/wal_object.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static WalFacts *
facts_of(WalFixture *fixture, uint64_t number, bool expect_stored)
{
    CairnError err = {0};
    bool stored = !expect_stored;
    WalFacts *facts = wal_store_facts(fixture->store, 1, number, &stored, &err);

    if (facts == NULL)
        fail_msg("no facts: %s", err.message);
    assert_int_equal(stored, expect_stored);
    return facts;
}

static void
expect_same(const WalFacts *a, const WalFacts *b)
{
    SCOPED_BYTES ByteWriter first = {0};
    SCOPED_BYTES ByteWriter second = {0};

    wal_facts_format(a, &first);
    wal_facts_format(b, &second);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
}

/* Segment 5 with the records of a switch, and the tail of zeros that follows it. */
static void
test_a_pushed_segment_has_its_facts(void **state)
{
    WalFixture *fixture = *state;
    size_t used;
    uint8_t *segment = wal_fixture_short_segment(fixture, 1, 5, true, &used);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    SCOPED(WalFacts) facts = facts_of(fixture, 5, true);
    assert_int_equal(facts->flags, 0);
    assert_int_equal(facts->record_count, 6);
    assert_int_equal(facts->start_lsn, 5 * MIB);
    assert_int_equal(facts->end_lsn, 6 * MIB);
    assert_int_equal(facts->event_count, 1);
    assert_int_equal(facts->events[0].kind, WAL_EVENT_SWITCH);
    assert_int_equal(facts->events[0].lsn, 5 * MIB + used - 24);
    free(segment);
}

static void
test_an_object_without_facts_is_read_anew(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);

    fixture->store->without_facts = true;
    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    fixture->store->without_facts = false;
    uint8_t *next = wal_fixture_segment(fixture, 1, 6);
    wal_fixture_store(fixture, "000000010000000000000006", next, MIB);

    SCOPED(WalFacts) read_anew = facts_of(fixture, 5, false);
    SCOPED(WalFacts) stored = facts_of(fixture, 6, true);
    assert_true(read_anew->record_count > 100);
    assert_int_equal(read_anew->record_count, stored->record_count);
    assert_true(read_anew->tail_lsn > 0);

    /* The same segment with facts is the same segment. */
    const PutResult again = wal_fixture_put(fixture, SEGMENT_5, segment, MIB);
    assert_true(again.done && again.existed && !again.tail_differs);
    free(segment);
    free(next);
}

static void
test_stored_facts_are_those_of_the_stored_bytes(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    SCOPED(WalFacts) stored = facts_of(fixture, 5, true);
    assert_int_equal(unlink(wal_fixture_object_path(fixture, OBJECT_5)), 0);
    fixture->store->without_facts = true;
    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    fixture->store->without_facts = false;
    SCOPED(WalFacts) read_anew = facts_of(fixture, 5, false);
    expect_same(stored, read_anew);
    free(segment);
}

static void
test_unreadable_facts_stop_nobody(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);

    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    SCOPED(WalFacts) before = facts_of(fixture, 5, true);
    wal_fixture_forge(fixture, SEGMENT_5, true, 0, 98); /* a layout that nobody knows */
    SCOPED(WalFacts) after = facts_of(fixture, 5, false);
    expect_same(before, after);
    assert_true(wal_fixture_fetch(fixture, SEGMENT_5, &err));
    assert_true(wal_fixture_fetched_equals(fixture, segment, MIB));
    assert_true(wal_store_verify(fixture->store, SEGMENT_5, &err));
    const PutResult again = wal_fixture_put(fixture, SEGMENT_5, segment, MIB);
    assert_true(again.done && again.existed);
    free(segment);
}

/* Records that cannot be read are no reason to refuse the only copy of them. */
static void
test_a_segment_with_broken_records_is_archived(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);

    memset(segment + 3 * 8192 - 100, 0xA5, 5000);
    wal_fixture_store(fixture, SEGMENT_5, segment, MIB);
    SCOPED(WalFacts) facts = facts_of(fixture, 5, true);
    assert_int_equal(facts->flags & WAL_FACTS_ENDED_EARLY, WAL_FACTS_ENDED_EARLY);
    assert_true(facts->end_lsn <= 5 * MIB + 3 * 8192);
    assert_true(wal_fixture_fetch(fixture, SEGMENT_5, &err));
    assert_true(wal_fixture_fetched_equals(fixture, segment, MIB));
    free(segment);
}

static void
test_a_read_that_fails_while_facts_are_read_fails_the_push(void **state)
{
    WalFixture *fixture = *state;
    uint8_t *segment = wal_fixture_segment(fixture, 1, 5);
    bool failed = false;

    for (unsigned number = 1;; number++) {
        fault_disk_reset(&fixture->disk);
        fixture->disk.fail[FAULT_READ] = (Fault){.at_call = number, .error = EIO};
        const PutResult result = wal_fixture_put(fixture, SEGMENT_5, segment, MIB);
        if (result.done)
            break;
        failed = true;
        assert_int_equal(result.err.kind, CAIRN_IO);
    }
    assert_true(failed);
    free(segment);
}

static void
test_a_segment_that_is_absent_has_no_facts(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    bool stored;

    assert_null(wal_store_facts(fixture->store, 1, 9, &stored, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_pushed_segment_has_its_facts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_object_without_facts_is_read_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stored_facts_are_those_of_the_stored_bytes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_facts_stop_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_with_broken_records_is_archived, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_read_that_fails_while_facts_are_read_fails_the_push,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_that_is_absent_has_no_facts, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
