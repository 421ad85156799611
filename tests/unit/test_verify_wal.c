/* What verify says of WAL: which moments a hole cuts, and whom damage touches. */
#include "repository/verify.h"
#include "tests/unit/support/verify_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static void
test_damaged_wal_of_a_backup_ends_its_proof(void **state)
{
    VerifyFixture *fixture = *state;
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    mutilate_middle(fixture, verify_fixture_segment(fixture, 3), NULL);
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    assert_true(verify_fixture_is_damaged(fixture, SECOND) &&
                !verify_fixture_is_verified(fixture, SECOND));
    assert_true(verify_fixture_is_verified(fixture, FIRST) &&
                verify_fixture_is_verified(fixture, THIRD));
    assert_false(
        verify_fixture_is_suspect(fixture, &fixture->bids[SECOND], 0)); /* its packs are good */
    mutilate_middle(fixture, verify_fixture_segment(fixture, 3), NULL);
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    assert_true(verify_fixture_is_verified(fixture, SECOND));
}

static void
test_missing_wal_says_which_moments_it_cuts(void **state)
{
    VerifyFixture *fixture = *state;
    char name[WAL_NAME_SIZE];
    mutilate_remove(fixture, verify_fixture_segment(fixture, 4), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_QUICK, 0);
    wal_segment_name(name, 1, 4, VERIFY_SEGMENT);
    const VerifyFinding *finding = verify_find(report, name);
    assert_non_null(finding);
    const VerifyMoments *moments = finding->moments;
    assert_non_null(moments);
    assert_int_equal(moments->timeline, 1);
    assert_int_equal(moments->from_lsn, 4 * VERIFY_SEGMENT);
    assert_true(moments->from_us == verify_fixture_time(3));
    assert_string_equal(moments->backups, "first, second");
    assert_true(moments->reachable_again);
    assert_string_equal(moments->next, "third");
    assert_int_equal(moments->to_lsn, 5 * VERIFY_SEGMENT + 0x4000);
    assert_int_equal(report->finding_count, 1);
    assert_int_equal(report->good_backup_count, 3); /* each by itself is whole */
}

static void
test_a_longer_hole_is_one_finding(void **state)
{
    VerifyFixture *fixture = *state;
    char name[WAL_NAME_SIZE];
    for (uint64_t segment = 2; segment <= 4; segment++)
        mutilate_remove(fixture, verify_fixture_segment(fixture, segment), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    wal_segment_name(name, 1, 2, VERIFY_SEGMENT);
    const VerifyFinding *finding = verify_find(report, name);
    assert_non_null(finding);
    assert_int_equal(report->finding_count, 1);
    assert_string_equal(finding->backups, "second");
    assert_non_null(finding->moments);
    assert_int_equal(finding->moments->from_lsn, 2 * VERIFY_SEGMENT);
    assert_true(finding->moments->from_us == verify_fixture_time(1));
    assert_string_equal(finding->moments->backups, "first, second");
    assert_string_equal(finding->moments->next, "third");
    assert_false(verify_fixture_is_verified(fixture, SECOND) ||
                 verify_fixture_is_damaged(fixture, SECOND));
}

static void
test_damaged_wal_at_the_end_cuts_off_everything_after_it(void **state)
{
    VerifyFixture *fixture = *state;
    mutilate_middle(fixture, verify_fixture_segment(fixture, 6), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, verify_fixture_segment(fixture, 6));
    assert_non_null(finding);
    assert_non_null(finding->moments);
    assert_false(finding->moments->reachable_again);
    assert_string_equal(finding->moments->backups, "first, second, third");
    assert_true(finding->moments->from_us == verify_fixture_time(5));
    assert_int_equal(report->good_backup_count, 3);
}

static void
test_wal_that_no_backup_reaches_cuts_nothing(void **state)
{
    VerifyFixture *fixture = *state;
    verify_fixture_expire(fixture, &fixture->bids[FIRST]);
    mutilate_remove(fixture, verify_fixture_segment(fixture, 1), NULL);
    mutilate_remove(fixture, verify_fixture_segment(fixture, 2), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    assert_int_equal(report->finding_count, 0);
}

static void
test_a_damaged_history_file_touches_who_ends_on_its_timeline(void **state)
{
    VerifyFixture *fixture = *state;
    static const char history[] = "1\t0/680000\tno recovery target specified\n";
    char name[STORAGE_NAME_LIMIT], *end;
    wal_fixture_store(&fixture->wal, "00000002.history", history, sizeof history - 1);
    snprintf(name, sizeof name, "%s", verify_fixture_segment(fixture, 1));
    end = strstr(name, "/00000001/");
    assert_non_null(end);
    memcpy(end, "/00000002/history", sizeof "/00000002/history");
    mutilate_body(fixture, name, NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, name);
    assert_non_null(finding);
    assert_string_equal(finding->backups, ""); /* all of ours end on timeline 1 */
    assert_int_equal(report->good_backup_count, 3);
}

/* What one backup needs: far away an answer takes its time, wherever the segments are. */
static void
test_segments_of_one_backup_are_looked_for_several_at_a_time(void **state)
{
    VerifyFixture *fixture = *state;
    CairnError err = {0};
    const VerifyOptions options = {
        .cluster = "main", .selector = "long", .scope = VERIFY_FULL, .jobs = 4};

    verify_fixture_add_long(fixture, "long", 3, 5);
    verify_fixture_meet_asking(fixture, 3);
    SCOPED(VerifyReport) report = verify_run(fixture->repository, &options, &err);
    assert_non_null(report);
    assert_int_equal(report->finding_count, 0);
    assert_int_equal(report->wal_file_count, 3);
    assert_int_equal(verify_fixture_meetings(), 1);
}

static void
test_a_missing_segment_of_one_backup_is_named_and_not_counted(void **state)
{
    VerifyFixture *fixture = *state;
    CairnError err = {0};
    char name[WAL_NAME_SIZE];
    const VerifyOptions options = {.cluster = "main", .selector = "long", .scope = VERIFY_QUICK};

    const BackupId bid = verify_fixture_add_long(fixture, "long", 3, 5);
    SCOPED(VerifyReport) before = verify_run(fixture->repository, &options, &err);
    assert_non_null(before);
    mutilate_remove(fixture, verify_fixture_segment(fixture, 4), NULL);
    SCOPED(VerifyReport) report = verify_run(fixture->repository, &options, &err);
    assert_non_null(report);
    wal_segment_name(name, 1, 4, VERIFY_SEGMENT);
    const VerifyFinding *finding = verify_find(report, name);
    assert_non_null(finding);
    assert_int_equal(finding->kind, FINDING_MISSING);
    assert_string_equal(finding->backups, "long");
    assert_null(finding->moments);
    assert_int_equal(report->finding_count, 1);
    assert_int_equal(report->wal_file_count, 2);
    assert_int_equal(report->good_backup_count, 0);
    assert_false(verify_fixture_look_up(fixture, &bid).damaged); /* it may still come */
}

/* More than there is room for, before the cluster's own by name. */
static void
test_records_of_systems_without_number_hide_no_wal(void **state)
{
    VerifyFixture *fixture = *state;
    CairnError err = {0};
    SCOPED(VerifyReport) before = verify_fixture_run(fixture, VERIFY_FULL, 0);
    for (unsigned i = 0; i < INCARNATION_LIMIT + 10; i++) {
        char name[64];
        snprintf(name, sizeof name, "c/main/i/%016x-15", i);
        assert_true(storage_put(repository_storage(fixture->repository), name, "rubbish", 7, &err));
    }
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    assert_int_equal(report->wal_file_count, before->wal_file_count);
    assert_int_equal(report->finding_count, before->finding_count + INCARNATION_LIMIT + 10);
    assert_int_equal(report->good_backup_count, before->good_backup_count);
    assert_non_null(verify_find(report, "c/main/i/0000000000000000-15"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        VERIFY_TEST(test_damaged_wal_of_a_backup_ends_its_proof),
        VERIFY_TEST(test_missing_wal_says_which_moments_it_cuts),
        VERIFY_TEST(test_a_longer_hole_is_one_finding),
        VERIFY_TEST(test_damaged_wal_at_the_end_cuts_off_everything_after_it),
        VERIFY_TEST(test_wal_that_no_backup_reaches_cuts_nothing),
        VERIFY_TEST(test_a_damaged_history_file_touches_who_ends_on_its_timeline),
        VERIFY_TEST_FAR(test_segments_of_one_backup_are_looked_for_several_at_a_time),
        VERIFY_TEST(test_a_missing_segment_of_one_backup_is_named_and_not_counted),
        VERIFY_TEST(test_records_of_systems_without_number_hide_no_wal),
    };
    return cmocka_run_group_tests_name("verify_wal", tests, NULL, NULL);
}
