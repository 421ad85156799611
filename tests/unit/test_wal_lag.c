/* What one list of runs has and another lacks. */
#include "repository/wal_lag.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/wal_fixture.h"

#include <errno.h>
#include <string.h>

enum { SEGMENTS = 24, ROUNDS = 20000 };

/* Runs of a row of bits, and how many there are. */
static size_t
runs_of(uint32_t bits, WalRun runs[SEGMENTS])
{
    size_t count = 0;
    for (uint64_t i = 0; i < SEGMENTS; i++) {
        if ((bits >> i & 1) == 0)
            continue;
        if (count > 0 && runs[count - 1].last_segment + 1 == i)
            runs[count - 1].last_segment = i;
        else
            runs[count++] = (WalRun){.first_segment = i, .last_segment = i};
    }
    return count;
}

static void
compare(uint32_t has, uint32_t lacks, uint64_t floor)
{
    WalRun has_runs[SEGMENTS], lacks_runs[SEGMENTS];
    const size_t has_count = runs_of(has, has_runs), lacks_count = runs_of(lacks, lacks_runs);
    uint64_t expected = 0, first = 0, last = 0, found_first = 0, found_last = 0;

    for (uint64_t i = floor; i < SEGMENTS; i++) {
        if ((has >> i & 1) == 0 || (lacks >> i & 1) != 0)
            continue;
        first = expected == 0 ? i : first;
        last = i;
        expected++;
    }
    const uint64_t count = wal_runs_beyond(has_runs, has_count, lacks_runs, lacks_count, floor,
                                           &found_first, &found_last);
    assert_int_equal(count, expected);
    if (expected > 0) {
        assert_int_equal(found_first, first);
        assert_int_equal(found_last, last);
    }
}

static void
test_every_lacking_segment_is_counted_once(void **state)
{
    uint64_t random = 4711;
    (void)state;
    compare(0, 0, 0);
    compare(0xffffff, 0, 0);
    compare(0xffffff, 0xffffff, 0);
    compare(0xff, 0xff00, 4);
    for (int i = 0; i < ROUNDS; i++) {
        const uint32_t has = (uint32_t)test_random(&random) & 0xffffff;
        const uint32_t lacks = (uint32_t)test_random(&random) & 0xffffff;
        compare(has, i % 2 == 0 ? lacks : has & lacks, test_random_below(&random, SEGMENTS + 1));
    }
}

/* -- two repositories */

enum { SEGMENT_SIZE = 1 << 20 };

static void
plant(const WalFixture *fixture, const char *name)
{
    CairnError err = {0};

    assert_true(storage_put(repository_storage(fixture->repository), name, "rubbish", 7, &err));
}

/* The other has segments 1 to 3, this one 1. */
static void
open_both(WalFixture *mine, WalFixture *theirs)
{
    wal_fixture_open(mine, SEGMENT_SIZE);
    wal_fixture_open(theirs, SEGMENT_SIZE);
    wal_fixture_store_segment(mine, 1, 1);
    for (uint64_t segment = 1; segment <= 3; segment++)
        wal_fixture_store_segment(theirs, 1, segment);
}

static void
test_systems_that_can_be_read_are_compared_and_the_others_named(void **state)
{
    static WalFixture mine, theirs;
    CairnError err = {0};
    WalLag lag;
    char text[2048];

    (void)state;
    open_both(&mine, &theirs);
    assert_true(wal_lag_find(mine.repository, theirs.repository, "main", &lag, &err));
    wal_lag_unread_text(&lag, "near", "far", text, sizeof text);
    assert_string_equal(text, "");
    plant(&mine, "c/main/i/0000000000000001-15");
    assert_true(wal_lag_find(mine.repository, theirs.repository, "main", &lag, &err));
    assert_int_equal(lag.segments, 2);
    assert_string_equal(lag.first, "000000010000000000000002");
    assert_string_equal(lag.last, "000000010000000000000003");
    assert_int_equal(lag.unread.count, 1);
    wal_lag_unread_text(&lag, "near", "far", text, sizeof text);
    assert_non_null(strstr(text, "'c/main/i/0000000000000001-15' in 'near'"));
    wal_fixture_close(&mine);
    wal_fixture_close(&theirs);
}

static void
test_a_record_that_only_the_other_cannot_read_is_named_as_its(void **state)
{
    static WalFixture mine, theirs;
    CairnError err = {0};
    WalLag lag;
    char text[2048];
    const Incarnation second = {.system_id = 2, .major = 15, .wal_segment_size = SEGMENT_SIZE};

    (void)state;
    open_both(&mine, &theirs);
    assert_true(incarnation_record(mine.repository, "main", &second, &err));
    plant(&theirs, "c/main/i/0000000000000002-15");
    assert_true(wal_lag_find(mine.repository, theirs.repository, "main", &lag, &err));
    assert_int_equal(lag.segments, 2);
    assert_int_equal(lag.unread.count, 1);
    wal_lag_unread_text(&lag, "near", "far", text, sizeof text);
    assert_non_null(strstr(text, "'c/main/i/0000000000000002-15' in 'far'"));
    wal_fixture_close(&mine);
    wal_fixture_close(&theirs);
}

/* Of the systems before the one that failed there is a count, but it is not the answer. */
static void
test_a_comparison_that_fails_has_counted_nothing(void **state)
{
    static WalFixture mine, theirs;
    CairnError err = {0};
    const Incarnation second = {.system_id = 2, .major = 15, .wal_segment_size = SEGMENT_SIZE};
    bool done = false;

    (void)state;
    open_both(&mine, &theirs);
    assert_true(incarnation_record(mine.repository, "main", &second, &err));
    assert_true(incarnation_record(theirs.repository, "main", &second, &err));
    for (unsigned call = 1; !done; call++) {
        WalLag lag = {0};
        fault_disk_reset(&theirs.disk);
        theirs.disk.fail[FAULT_OPEN] = (Fault){.at_call = call, .error = EIO};
        done = wal_lag_find(mine.repository, theirs.repository, "main", &lag, &err);
        cairn_error_clear(&err);
        assert_int_equal(lag.segments, done ? 2 : 0);
        assert_true(done || lag.first[0] == '\0');
    }
    wal_fixture_close(&mine);
    wal_fixture_close(&theirs);
}

/* What a newer pgcairn wrote is nothing to be removed. */
static void
test_what_another_version_wrote_is_not_said_to_be_removed(void **state)
{
    WalLag lag = {.unread = {.count = 1, .object = "c/main/i/0000000000000001-15"}};
    char text[2048];

    (void)state;
    cairn_error(&lag.unread.problem, CAIRN_UNSUPPORTED, "format 2");
    cairn_error_hint(&lag.unread.problem, "use a newer one");
    wal_lag_unread_text(&lag, "near", "far", text, sizeof text);
    assert_non_null(strstr(text, "use a newer one"));
    assert_null(strstr(text, "remove"));
    cairn_error_clear(&lag.unread.problem);
    cairn_error(&lag.unread.problem, CAIRN_MISMATCH, "another's");
    cairn_error_hint(&lag.unread.problem, "somebody has access");
    wal_lag_unread_text(&lag, "near", "far", text, sizeof text);
    assert_non_null(strstr(text, "remove"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_systems_that_can_be_read_are_compared_and_the_others_named),
        cmocka_unit_test(test_a_record_that_only_the_other_cannot_read_is_named_as_its),
        cmocka_unit_test(test_a_comparison_that_fails_has_counted_nothing),
        cmocka_unit_test(test_what_another_version_wrote_is_not_said_to_be_removed),
        cmocka_unit_test(test_every_lacking_segment_is_counted_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
