#include "repository/wal_ack.h"

#include "repository/wal_expire.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

static const uint64_t LOG = UINT64_C(1) << 32;

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

static bool
acknowledge(WalFixture *fixture, uint64_t first, uint64_t last, const char *reason, CairnError *err)
{
    WalAck ack = {.timeline = 1,
                  .start_lsn = first * MIB,
                  .end_lsn = (last + 1) * MIB,
                  .decision = WAL_ACK_GAP};

    snprintf(ack.reason, sizeof ack.reason, "%s", reason);
    return wal_ack_put(fixture->store, &ack, err);
}

/* Reason of what covers the segments, "" when nothing does. */
static const char *
covered(WalFixture *fixture, uint64_t first, uint64_t last)
{
    static char reason[WAL_ACK_REASON_SIZE];
    CairnError err = {0};
    SCOPED_MEMORY WalAck *acks = NULL;
    size_t count = 0;

    assert_true(
        wal_ack_find(fixture->store, 1, first * MIB, (last + 1) * MIB, &acks, &count, &err));
    const WalAck *ack = wal_ack_covering(acks, count, first * MIB, (last + 1) * MIB);
    snprintf(reason, sizeof reason, "%s", ack != NULL ? ack->reason : "");
    return reason;
}

static void
test_a_decision_comes_back_with_who_and_why(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    SCOPED_MEMORY WalAck *acks = NULL;
    size_t count = 0;
    char host[65] = "";

    assert_true(acknowledge(fixture, 5, 7, "the disk of that week burned", &err));
    assert_true(wal_ack_find(fixture->store, 1, 6 * MIB, 7 * MIB, &acks, &count, &err));
    assert_int_equal(count, 1);
    gethostname(host, sizeof host - 1);
    assert_string_equal(acks[0].host, host);
    assert_string_equal(acks[0].reason, "the disk of that week burned");
    assert_true(acks[0].user[0] != '\0');
    assert_true(acks[0].at_us > 0);
    assert_int_equal(acks[0].decision, WAL_ACK_GAP);
    assert_int_equal(acks[0].start_lsn, 5 * MIB);
    assert_int_equal(acks[0].end_lsn, 8 * MIB);
}

static void
test_a_hole_is_acknowledged_only_when_all_of_it_is(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};

    assert_string_equal(covered(fixture, 5, 7), "");
    assert_true(acknowledge(fixture, 5, 5, "one", &err));
    assert_true(acknowledge(fixture, 7, 8, "two", &err));
    assert_string_equal(covered(fixture, 5, 5), "one");
    assert_string_equal(covered(fixture, 5, 7), "");
    assert_string_equal(covered(fixture, 8, 9), "");
    assert_true(acknowledge(fixture, 6, 6, "three", &err));
    assert_true(covered(fixture, 5, 8)[0] != '\0');
}

static void
test_a_range_over_logs_is_found_from_each_of_them(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    const uint64_t per_log = LOG / MIB;

    assert_true(acknowledge(fixture, per_log - 2, 2 * per_log + 1, "months", &err));
    assert_string_equal(covered(fixture, per_log - 1, per_log - 1), "months");
    assert_string_equal(covered(fixture, 2 * per_log, 2 * per_log + 1), "months");
    assert_string_equal(covered(fixture, per_log - 2, 2 * per_log + 1), "months");
    assert_string_equal(covered(fixture, 2 * per_log, 2 * per_log + 2), "");
}

static void
test_what_is_stored_cannot_be_acknowledged(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};

    wal_fixture_store_segment(fixture, 1, 6);
    assert_false(acknowledge(fixture, 5, 7, "wrong", &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    assert_non_null(strstr(err.message, "000000010000000000000006"));
    assert_string_equal(covered(fixture, 5, 5), "");
}

static void
test_bad_ranges_and_missing_reasons_are_refused(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    WalAck ack = {.timeline = 1, .start_lsn = 5 * MIB, .end_lsn = 6 * MIB + 1, .reason = "x"};

    assert_false(wal_ack_put(fixture->store, &ack, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    cairn_error_clear(&err);
    assert_false(acknowledge(fixture, 5, 4, "empty", &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    cairn_error_clear(&err);
    assert_false(acknowledge(fixture, 5, 6, "", &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    cairn_error_clear(&err);
    assert_false(acknowledge(fixture, 0, UINT64_C(1) << 40, "all of it", &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
}

static void
test_an_acknowledgement_is_no_wal(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    SCOPED_MEMORY WalRun *runs = NULL;
    size_t count = 0;
    WalSuccessor successor;

    wal_fixture_store_segment(fixture, 1, 3);
    assert_true(acknowledge(fixture, 4, 9, "lost", &err));
    assert_true(wal_store_coverage(fixture->store, 1, &runs, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(runs[0].last_segment, 3);
    /* Were it a proof of later WAL, no recovery could end before it. */
    assert_true(wal_store_successor(fixture->store, "000000010000000000000004", &successor, &err));
    assert_false(successor.found);
}

static void
test_expiring_wal_leaves_acknowledgements(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    SCOPED_MEMORY WalReach *reach = NULL;
    size_t count = 0;
    uint64_t files = 0, bytes = 0;

    wal_fixture_store_segment(fixture, 1, 3);
    wal_fixture_store_segment(fixture, 1, 6);
    assert_true(acknowledge(fixture, 4, 5, "lost", &err));
    assert_true(wal_expire_reach(fixture->store, &reach, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(reach[0].last_segment, 6);
    Removals removals = {0};
    const WalExpiry expiry = {
        .floor_lsn = 100 * MIB, .reach = reach, .reach_count = count, .removals = &removals};
    assert_true(wal_expire(fixture->store, &expiry, &files, &bytes, &err));
    assert_int_equal(files, 2);
    assert_string_equal(covered(fixture, 4, 5), "lost");
}

/* The one acknowledgement that is there. */
static const char *
ack_path(const WalFixture *fixture)
{
    static char path[600];
    const char *directory_path = wal_fixture_object_path(fixture, "00000001/00000000");
    DIR *directory = opendir(directory_path);
    const struct dirent *entry;

    assert_non_null(directory);
    path[0] = '\0';
    while ((entry = readdir(directory)) != NULL) {
        if (strncmp(entry->d_name, "ack.", 4) == 0)
            snprintf(path, sizeof path, "%.300s/%.200s", directory_path, entry->d_name);
    }
    closedir(directory);
    assert_true(path[0] != '\0');
    return path;
}

static void
test_a_damaged_one_acknowledges_nothing(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};

    assert_true(acknowledge(fixture, 4, 5, "lost", &err));
    assert_int_equal(truncate(ack_path(fixture), 250), 0);
    assert_string_equal(covered(fixture, 4, 5), "");
}

static void
test_only_its_own_names_are_taken_for_one(void **state)
{
    static const char *const others[] = {
        "000000010000000000000005",
        "ack.0000000000500000-0000000000600000",
        "ack.0000000000500000-0000000000600000.0123456789abcde",
        "ack.0000000000500000-0000000000600000.0123456789abcdef0",
        "ack.0000000000500000-0000000000600000.0123456789abcdeg",
        "ack.000000000050000a-0000000000600000.0123456789abcdef",
        "ack.0000000000600000-0000000000600000.0123456789abcdef",
        "ack.00000000005000000000000000600000.0123456789abcdef",
        "ack.",
    };
    uint64_t start_lsn = 0, end_lsn = 0;
    (void)state;

    assert_true(wal_ack_name_parse("ack.0000000000500000-0000000000600000.0123456789abcdef",
                                   &start_lsn, &end_lsn));
    assert_int_equal(start_lsn, 0x500000);
    assert_int_equal(end_lsn, 0x600000);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(wal_ack_name_parse(others[i], &start_lsn, &end_lsn));
}

#define ACK_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ACK_TEST(test_a_decision_comes_back_with_who_and_why),
        ACK_TEST(test_a_hole_is_acknowledged_only_when_all_of_it_is),
        ACK_TEST(test_a_range_over_logs_is_found_from_each_of_them),
        ACK_TEST(test_what_is_stored_cannot_be_acknowledged),
        ACK_TEST(test_bad_ranges_and_missing_reasons_are_refused),
        ACK_TEST(test_an_acknowledgement_is_no_wal),
        ACK_TEST(test_expiring_wal_leaves_acknowledgements),
        ACK_TEST(test_a_damaged_one_acknowledges_nothing),
        cmocka_unit_test(test_only_its_own_names_are_taken_for_one),
    };
    return cmocka_run_group_tests_name("wal_ack", tests, NULL, NULL);
}
