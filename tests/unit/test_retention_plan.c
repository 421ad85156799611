#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/calendar.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/retention_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY CALENDAR_DAY_US
#define HOUR (DAY / 24)

typedef struct {
    const char *what;
    const char *policy;
    const char *now;
    const char *backups;
    const char *kept;
} KeptRow;

/* Times are 03:00 UTC unless said; `now` is 27 November 2026, a Friday. */
static const KeptRow KEPT[] = {
    {"no policy lets nothing go", "none", "2026-11-27", "F2020-01-01 F2021-01-01! F2026-11-26",
     "2020-01-01 2021-01-01 2026-11-26"},
    {"pitr keeps the window and what its start is restored from", "pitr 3d", "2026-11-27",
     "F2026-11-20 I2026-11-22 I2026-11-23 I2026-11-25 I2026-11-26",
     "2026-11-23 2026-11-25 2026-11-26"},
    {"a backup that ends exactly at the start of the window is its start", "pitr 3d", "2026-11-27",
     "F2026-11-23 F2026-11-24 F2026-11-26", "2026-11-24 2026-11-26"},
    {"pitr keeps the newest one, however old it is", "pitr 3d", "2026-11-27",
     "F2026-10-01 F2026-10-02", "2026-10-02"},
    {"the start of the window is a good backup", "pitr 3d", "2026-11-27",
     "F2026-11-20 F2026-11-22! F2026-11-23? F2026-11-26",
     "2026-11-20 2026-11-22 2026-11-23 2026-11-26"},
    {"full keeps the newest fulls and everything since", "full 2", "2026-11-27",
     "F2026-11-01 I2026-11-02 F2026-11-08 I2026-11-09 F2026-11-15 I2026-11-16",
     "2026-11-08 2026-11-09 2026-11-15 2026-11-16"},
    {"fewer fulls than asked for let nothing go", "full 3", "2026-11-27",
     "I2026-11-01 F2026-11-08 I2026-11-09 F2026-11-15",
     "2026-11-01 2026-11-08 2026-11-09 "
     "2026-11-15"},
    {"a damaged full is no full", "full 2", "2026-11-27",
     "F2026-11-01 I2026-11-02 F2026-11-08! F2026-11-15",
     "2026-11-01 2026-11-02 2026-11-08 2026-11-15"},
    /* pgBackRest's own example: 20 days, fulls of 25 and 35 days ago: the latter goes. */
    {"full by time keeps the newest full that is old enough", "full 20d", "2026-11-27",
     "F2026-10-23 I2026-10-24 F2026-11-02 I2026-11-03 F2026-11-20",
     "2026-11-02 2026-11-03 "
     "2026-11-20"},
    {"full by time lets nothing go while no full is old enough", "full 20d", "2026-11-27",
     "I2026-10-01 F2026-11-08 F2026-11-20", "2026-10-01 2026-11-08 2026-11-20"},
    {"last counts any type", "last 2", "2026-11-27", "F2026-11-01 I2026-11-02 I2026-11-03",
     "2026-11-02 2026-11-03"},
    {"last does not count what is not whole", "last 2", "2026-11-27",
     "F2026-11-01 I2026-11-02 I2026-11-03! I2026-11-04? I2026-11-05",
     "2026-11-02 2026-11-03 2026-11-04 2026-11-05"},
    {"redundancy of Barman is last", "REDUNDANCY 1", "2026-11-27", "F2026-11-01 F2026-11-02",
     "2026-11-02"},
    {"daily keeps the newest of each day, in UTC", "daily 2", "2026-11-27",
     "F2026-11-25T00:00 F2026-11-25T23:59 F2026-11-26T00:00 F2026-11-26T12:00",
     "2026-11-25T23:59 2026-11-26T12:00"},
    {"the day on which Europe's clocks go back is one day", "daily 1", "2026-10-26",
     "F2026-10-25T00:30 F2026-10-25T01:30 F2026-10-25T23:30", "2026-10-25T23:30"},
    {"days without backups don't count", "daily 3", "2026-11-27",
     "F2026-01-01 F2026-03-01 F2026-05-01 F2026-07-01", "2026-03-01 2026-05-01 2026-07-01"},
    {"weeks begin on Monday", "weekly 2", "2026-11-27",
     "F2026-11-15 F2026-11-16 F2026-11-22 F2026-11-23", "2026-11-22 2026-11-23"},
    {"a week over New Year is one week", "weekly 2", "2027-01-10",
     "F2026-12-27 F2026-12-28 F2027-01-03 F2027-01-04", "2027-01-03 2027-01-04"},
    {"months end where they end", "monthly 3", "2028-04-01",
     "F2028-01-31T23:59 F2028-02-28 F2028-02-29T23:59 F2028-03-01T00:00 F2028-03-31",
     "2028-01-31T23:59 2028-02-29T23:59 2028-03-31"},
    {"February of a common year has 28 days", "monthly 2", "2026-03-02",
     "F2026-02-27 F2026-02-28 F2026-03-01", "2026-02-28 2026-03-01"},
    {"years are calendar years", "yearly 2", "2026-11-27",
     "F2024-12-31T23:59 F2025-01-01T00:00 F2025-12-31T23:59 F2026-01-01T00:00",
     "2025-12-31T23:59 2026-01-01T00:00"},
    {"hourly", "hourly 2", "2026-11-27",
     "F2026-11-26T01:00 F2026-11-26T01:59 F2026-11-26T02:00 F2026-11-26T02:10",
     "2026-11-26T01:59 2026-11-26T02:10"},
    {"of two at the same moment the higher sequence is newer", "daily 1", "2026-11-27",
     "F2026-11-26T03:00 I2026-11-26", "2026-11-26"},
    {"what is damaged is not the newest of its day", "daily 2", "2026-11-27",
     "F2026-11-24 F2026-11-25T01:00 F2026-11-25T02:00! F2026-11-26T01:00 F2026-11-26T02:00?",
     "2026-11-25T01:00 2026-11-26T01:00 2026-11-26T02:00"},
    {"a damaged newest one never makes the last good one go", "last 1", "2026-11-27",
     "F2026-11-20 F2026-11-24 F2026-11-25! F2026-11-26!", "2026-11-24 2026-11-25 2026-11-26"},
    {"nothing good at all lets nothing go", "last 1", "2026-11-27",
     "F2026-11-20! F2026-11-24? F2026-11-25!", "2026-11-20 2026-11-24 2026-11-25"},
    {"old damage goes", "last 1", "2026-11-27", "F2026-11-20! F2026-11-21? F2026-11-25",
     "2026-11-25"},
    {"min holds more than the window does", "pitr 1d; min 3", "2026-11-27",
     "F2026-10-01 F2026-10-02 F2026-10-03 F2026-10-04", "2026-10-02 2026-10-03 2026-10-04"},
    {"min counts good ones", "pitr 1d; min 2", "2026-11-27", "F2026-10-01 F2026-10-02! F2026-10-03",
     "2026-10-01 2026-10-03"},
    {"kept by hand stays", "last 1", "2026-11-27",
     "F2026-10-01^ F2026-10-02!^ F2026-10-03 F2026-10-04", "2026-10-01 2026-10-02 2026-10-04"},
    {"expired ones count no more", "last 2", "2026-11-27",
     "F2026-10-01 F2026-10-02 F2026-10-03~ F2026-10-04", "2026-10-02 2026-10-04"},
    {"the unreadable is never touched", "last 1", "2026-11-27",
     "F2026-10-01# F2026-10-02 F2026-10-03", "2026-10-01 2026-10-03"},
    {"rules add up", "pitr 2d; daily 3; monthly 2", "2026-11-27",
     "F2026-09-30 F2026-10-30 F2026-10-31 F2026-11-20 F2026-11-23 F2026-11-24 F2026-11-25 "
     "F2026-11-26",
     "2026-10-31 2026-11-24 2026-11-25 2026-11-26"},
    {"a date far in the future takes one place and no more", "daily 2", "2026-11-27",
     "F2026-11-24 F2026-11-25 F2099-01-01 F2026-11-26", "2099-01-01 2026-11-26"},
};

static void
rules_keep_what_they_say(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof KEPT / sizeof KEPT[0]; i++) {
        RetentionCase *test = retention_case(KEPT[i].policy, KEPT[i].now, KEPT[i].backups);
        SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
        char *kept = retention_kept(plan);
        if (strcmp(kept, KEPT[i].kept) != 0)
            fail_msg("%s:\n kept   %s\n wanted %s", KEPT[i].what, kept, KEPT[i].kept);
        assert_int_equal(plan->keep_count + plan->expire_count, plan->live_count);
        free(kept);
        free(test);
    }
}

static void
expect_reasons(const RetentionPlan *plan, const char *label, const char *wanted)
{
    char *reasons = retention_reasons(plan, label);
    assert_string_equal(reasons, wanted);
    free(reasons);
}

static void
every_decision_has_its_reasons_in_words(void **state)
{
    (void)state;
    RetentionCase *test = retention_case(
        "pitr 2d; hourly 1; daily 2; weekly 2; monthly 2; yearly 1; min 1", "2026-11-27",
        "F2026-10-30^ F2026-11-10 F2026-11-12! F2026-11-15 I2026-11-23 "
        "I2026-11-24 I2026-11-25T05:00! I2026-11-26");
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    expect_reasons(plan, "2026-10-30", "monthly 2026-10, kept by hand");
    expect_reasons(plan, "2026-11-10", "no rule keeps it");
    expect_reasons(plan, "2026-11-12", "damaged, counts for no rule");
    expect_reasons(plan, "2026-11-15", "weekly 2026-W46");
    expect_reasons(plan, "2026-11-23", "no rule keeps it");
    expect_reasons(plan, "2026-11-24", "pitr 2d (start of the window), daily 2026-11-24");
    expect_reasons(plan, "2026-11-25T05:00", "damaged, within the window");
    expect_reasons(plan, "2026-11-26",
                   "pitr 2d, hourly 2026-11-26 03:00, daily 2026-11-26, weekly 2026-W48, monthly "
                   "2026-11, yearly 2026, min 1, last good backup");
    free(test);
}

static void
only_what_is_before_every_window_is_isolated(void **state)
{
    (void)state;
    RetentionCase *test = retention_case("pitr 2d; monthly 3", "2026-11-27",
                                         "F2026-09-30 F2026-10-15^ F2026-10-31 F2026-11-24 "
                                         "F2026-11-26");
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    assert_int_equal(plan->expire_count, 0);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(plan->decisions[i].isolated, i < 3);
    free(test);

    /* Nobody said that WAL may go. */
    test =
        retention_case("monthly 3; daily 2", "2026-11-27", "F2026-09-30 F2026-10-31 F2026-11-26");
    SCOPED(RetentionPlan) calendar_only = retention_plan_make(&test->input, 0);
    for (size_t i = 0; i < 3; i++)
        assert_false(calendar_only->decisions[i].isolated);
    free(test);
}

/*
 * Backups on timeline 1 until 10 November; on the 12th the server was restored to a moment before
 * the last of them (timeline 2), and backed up again only on the 20th. The window begins on the
 * 15th: its start, on timeline 2, can only be restored from the backup before the fork.
 */
static void
the_start_of_a_window_is_on_the_branch_that_lives(void **state)
{
    (void)state;
    RetentionCase *test = retention_case("pitr 12d", "2026-11-27",
                                         "F2026-11-01 F2026-11-05 F2026-11-10 F2026-11-20/2");
    retention_case_timeline(test, 1, 0, 0, true);
    retention_case_timeline(test, 2, 1, 2 * TEST_LSN_STEP + 0x2000, true);
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    char *kept = retention_kept(plan);
    assert_string_equal(kept, "2026-11-05 2026-11-10 2026-11-20");
    free(kept);
    free(test);
}

static void
a_branch_that_was_left_before_the_window_needs_no_start(void **state)
{
    (void)state;
    RetentionCase *test = retention_case("pitr 2d", "2026-11-27",
                                         "F2026-10-01 F2026-11-05 F2026-11-20/2 F2026-11-26/2");
    retention_case_timeline(test, 1, 0, 0, true);
    retention_case_timeline(test, 2, 1, TEST_LSN_STEP + 0x2000, true);
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    char *kept = retention_kept(plan);
    assert_string_equal(kept, "2026-11-20 2026-11-26");
    free(kept);
    free(test);
}

/* After pg_upgrade the cluster is another system with LSNs of its own. */
static void
two_incarnations_are_kept_apart(void **state)
{
    (void)state;
    RetentionCase *test = retention_case(
        "pitr 7d", "2026-11-27", "F2026-11-10 F2026-11-18 F2026-11-22 F2026-11-24@2 F2026-11-26@2");
    test->incarnations[1] = (RetentionIncarnation){2, 17};
    test->input.incarnation_count = 2;
    test->backups[3].start_lsn = test->backups[3].stop_lsn = 0x5000;
    test->backups[4].start_lsn = test->backups[4].stop_lsn = 0x6000;
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    char *kept = retention_kept(plan);
    assert_string_equal(kept, "2026-11-18 2026-11-22 2026-11-24 2026-11-26");
    assert_false(plan->frozen);
    free(kept);
    free(test);

    /* The old system was still archiving when the new one was backed up for the first time, before
     * the window; then it was backed up once more, in it. */
    test = retention_case("pitr 7d", "2026-11-27",
                          "F2026-11-10 F2026-11-15@2 F2026-11-22 F2026-11-26@2");
    test->incarnations[1] = (RetentionIncarnation){2, 17};
    test->input.incarnation_count = 2;
    SCOPED(RetentionPlan) both = retention_plan_make(&test->input, 0);
    kept = retention_kept(both);
    assert_string_equal(kept, "2026-11-10 2026-11-15 2026-11-22 2026-11-26");
    free(kept);
    free(test);
}

/* What is random here: types, gaps, damage, marks, rules. */
static void
whatever_comes_the_last_good_backup_and_kept_ones_stay(void **state)
{
    static const char *const POLICIES[] = {"pitr 1h",
                                           "full 1",
                                           "full 1h",
                                           "last 1",
                                           "daily 1",
                                           "yearly 1",
                                           "pitr 3d; daily 7; min 2",
                                           "hourly 1; weekly 2; monthly 2"};
    (void)state;
    uint64_t random = 20261127;
    for (size_t round = 0; round < 3000; round++) {
        RetentionCase *test = retention_case(POLICIES[round % 8], "2026-11-27", "");
        retention_case_series(test, "2026-11-01",
                              (int64_t)(1 + test_random_below(&random, 30)) * HOUR,
                              test_random_below(&random, 20), 1);
        size_t last_good = SIZE_MAX;
        for (size_t i = 0; i < test->input.backup_count; i++) {
            RetentionBackup *backup = &test->backups[i];
            backup->is_full = test_random_below(&random, 3) == 0;
            backup->damaged = test_random_below(&random, 3) == 0;
            backup->wal_complete = test_random_below(&random, 4) != 0;
            backup->expired = test_random_below(&random, 4) == 0;
            backup->kept = test_random_below(&random, 6) == 0;
            backup->stopped_us += (int64_t)test_random_below(&random, 40) * DAY - 20 * DAY;
            if (!backup->damaged && backup->wal_complete && !backup->expired)
                last_good = i;
        }
        SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
        for (size_t i = 0; i < test->input.backup_count; i++) {
            const RetentionDecision *decision = &plan->decisions[i];
            const RetentionBackup *backup = &test->backups[i];
            assert_int_equal(decision->live, !backup->expired);
            if (i == last_good || (backup->kept && decision->live))
                assert_true(decision->keep);
            if (decision->live)
                assert_true(decision->reason_count > 0);
            if (decision->live && (last_good == SIZE_MAX || i > last_good))
                assert_true(decision->keep);
        }
        free(test);
    }
}

/* Deciding after each backup leaves the same as deciding once at the end: else what a schedule
 * keeps would depend on how often expire runs, and the forecast would be wrong. */
static void
deciding_every_time_leaves_what_deciding_once_leaves(void **state)
{
    (void)state;
    RetentionCase *once =
        retention_case("pitr 3d; full 2; daily 5; weekly 3; monthly 2; min 2", "2026-11-27", "");
    retention_case_series(once, "2026-07-01T02:10", 7 * HOUR, 500, 9);
    RetentionCase *often = malloc(sizeof *often);
    assert_non_null(often);
    *often = *once;
    often->input.policy = &often->policy;
    often->input.backups = often->backups;
    often->input.timelines = often->timelines;
    often->input.incarnations = often->incarnations;
    for (size_t count = 1; count <= 500; count++) {
        often->input.backup_count = count;
        often->input.now_us = often->backups[count - 1].stopped_us + HOUR;
        SCOPED(RetentionPlan) plan = retention_plan_make(&often->input, 0);
        for (size_t i = 0; i < count; i++)
            often->backups[i].expired |= plan->decisions[i].live && !plan->decisions[i].keep;
    }
    once->input.now_us = often->input.now_us;
    SCOPED(RetentionPlan) plan = retention_plan_make(&once->input, 0);
    for (size_t i = 0; i < 500; i++)
        assert_int_equal(plan->decisions[i].keep, !often->backups[i].expired);
    free(once);
    free(often);
}

/* Timeline 2 may have left 1 anywhere; 3 it cannot have left. */
static void
an_unreadable_history_keeps_all_that_its_timeline_may_come_from(void **state)
{
    (void)state;
    static const char BACKUPS[] =
        "F2026-10-01 F2026-10-02 F2026-11-01?/2 F2026-11-02/3 F2026-11-26/3 F2026-11-20@7";
    RetentionCase *test = retention_case("last 1; pitr 1d", "2026-11-27", BACKUPS);
    retention_case_timeline(test, 1, 0, 0, false);
    retention_case_timeline(test, 2, 0, 0, true);
    retention_case_timeline(test, 3, 1, test->backups[1].stop_lsn + 1, true);
    SCOPED(RetentionPlan) known = retention_plan_make(&test->input, 0);
    SCOPED_MEMORY char *kept_before = retention_kept(known);
    assert_null(strstr(kept_before, "2026-10-01"));
    assert_null(strstr(kept_before, "2026-11-01"));

    test->timelines[1].unreadable = true;
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    SCOPED_MEMORY char *kept = retention_kept(plan);
    SCOPED_MEMORY char *reasons = retention_reasons(plan, "2026-10-01");
    assert_non_null(strstr(kept, "2026-10-01"));
    assert_non_null(strstr(kept, "2026-10-02"));
    assert_non_null(strstr(kept, "2026-11-01"));
    assert_null(strstr(kept, "2026-11-02"));
    assert_string_equal(reasons, "00000002.history is damaged");
    /* With the WAL after them: nobody knows which of it leads to that timeline. */
    for (size_t i = 0; i < test->input.backup_count; i++)
        assert_false(plan->decisions[i].isolated);
    free(test);
}

/* Its record is gone or damaged, so that its WAL cannot be found: no reason to let it go. */
static void
a_backup_whose_system_cannot_be_told_stays_whoever_released_it(void **state)
{
    (void)state;
    RetentionCase *test =
        retention_case("last 1", "2026-11-27", "F2026-10-01?=@7 F2026-10-02?= F2026-11-26");
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    SCOPED_MEMORY char *kept = retention_kept(plan);
    SCOPED_MEMORY char *reasons = retention_reasons(plan, "2026-10-01");
    assert_false(plan->frozen);
    assert_string_equal(kept, "2026-10-01 2026-11-26");
    assert_string_equal(reasons, "its system's record is missing or unreadable");

    test->incarnations[1] = (RetentionIncarnation){7, 17};
    test->input.incarnation_count = 2;
    SCOPED(RetentionPlan) told = retention_plan_make(&test->input, 0);
    SCOPED_MEMORY char *kept_then = retention_kept(told);
    assert_string_equal(kept_then, "2026-11-26");
    free(test);
}

static void
a_plan_says_which_windows_it_gives_up(void **state)
{
    (void)state;
    RetentionCase *test =
        retention_case("pitr 2d; monthly 2", "2026-11-27",
                       "F2026-10-30 F2026-10-31 F2026-11-02 F2026-11-03 F2026-11-24 F2026-11-26");
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    /* All of October's end up to the window is one: its moments lie between kept points. */
    assert_int_equal(plan->lost_count, 1);
    assert_int_equal(plan->lost[0].from_us, retention_test_time("2026-10-30"));
    assert_int_equal(plan->lost[0].to_us, retention_test_time("2026-11-24"));
    assert_int_equal(plan->lost[0].to_lsn, test->backups[4].stop_lsn);

    /* Where WAL went before, only the backups' own moments are lost. */
    test->backups[0].reach_lsn = test->backups[0].stop_lsn;
    test->backups[1].reach_lsn = test->backups[1].stop_lsn;
    test->backups[2].reach_lsn = test->backups[2].stop_lsn + 5;
    test->backups[3].reach_lsn = test->backups[3].stop_lsn;
    SCOPED(RetentionPlan) thinned = retention_plan_make(&test->input, 0);
    assert_int_equal(thinned->lost_count, 3);
    assert_int_equal(thinned->lost[0].to_us, retention_test_time("2026-10-30"));
    assert_int_equal(thinned->lost[1].from_us, retention_test_time("2026-11-02"));
    assert_int_equal(thinned->lost[1].to_us, 0);
    assert_int_equal(thinned->lost[1].to_lsn, test->backups[2].stop_lsn + 5);
    free(test);

    /* Without a rule about moments WAL stays, and with it every moment after the oldest kept one.
     */
    test = retention_case("daily 2", "2026-11-27",
                          "F2026-11-20T01:00 F2026-11-20T02:00 "
                          "F2026-11-21T01:00 F2026-11-21T02:00");
    SCOPED(RetentionPlan) daily = retention_plan_make(&test->input, 0);
    assert_int_equal(daily->expire_count, 2);
    assert_int_equal(daily->lost_count, 1);
    assert_int_equal(daily->lost[0].to_us, retention_test_time("2026-11-20T02:00"));
    /* Unless it has a hole before them. */
    test->backups[1].reach_lsn = test->backups[1].stop_lsn;
    SCOPED(RetentionPlan) broken = retention_plan_make(&test->input, 0);
    assert_int_equal(broken->lost_count, 2);
    free(test);
}

static void
the_forecast_follows_the_rhythm(void **state)
{
    (void)state;
    RetentionCase *test =
        retention_case("pitr 7d; daily 14; monthly 12; yearly 3", "2026-11-27", "");
    retention_case_series(test, "2026-10-01T01:00", DAY, 58, 7);
    SCOPED(RetentionForecast) forecast = retention_forecast(&test->input);
    assert_int_equal(forecast->cadence_us, DAY);
    assert_int_equal(forecast->fulls_one_in, 6); /* 5 fulls among the last 31 */
    assert_int_equal(forecast->taken_count, 365);
    assert_false(forecast->capped);
    /* 14 days (the window's within), 11 earlier ends of months, and 2026's last is one of them. */
    assert_int_equal(forecast->backup_count, 14 + 11);
    assert_true(forecast->backups[0].is_future);
    assert_string_equal(forecast->backups[0].reasons[0], "monthly 2026-12");
    assert_string_equal(forecast->backups[0].reasons[1], "yearly 2026");
    assert_int_equal(forecast->continuous_from_us, retention_test_time("2027-11-20T01:00"));
    free(test);
}

static void
the_forecast_keeps_what_is_kept_by_hand_and_foresees_nothing_from_nothing(void **state)
{
    (void)state;
    RetentionCase *test = retention_case("last 2", "2026-11-27", "F2026-11-25^ F2026-11-26");
    SCOPED(RetentionForecast) forecast = retention_forecast(&test->input);
    assert_int_equal(forecast->cadence_us, 0);
    assert_int_equal(forecast->taken_count, 0);
    assert_int_equal(forecast->backup_count, 2);
    free(test);

    test = retention_case("last 2", "2026-11-27", "F2026-11-24^ F2026-11-25 F2026-11-26");
    SCOPED(RetentionForecast) kept = retention_forecast(&test->input);
    assert_int_equal(kept->backup_count, 3);
    assert_string_equal(kept->backups[0].label, "2026-11-24");
    assert_false(kept->backups[0].is_future);
    assert_true(kept->backups[1].is_future);
    free(test);

    /* Every minute, and an id that leaves no room. */
    test = retention_case("last 2", "2026-11-27", "");
    retention_case_series(test, "2026-11-27T01:00", HOUR / 60, 100, 1);
    SCOPED(RetentionForecast) capped = retention_forecast(&test->input);
    assert_true(capped->capped);
    assert_int_equal(capped->backup_count, 2);
    memset(test->backups[99].bid.text, '9', 10);
    SCOPED(RetentionForecast) absurd = retention_forecast(&test->input);
    assert_int_equal(absurd->taken_count, 0);
    free(test);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_keep_what_they_say),
        cmocka_unit_test(every_decision_has_its_reasons_in_words),
        cmocka_unit_test(only_what_is_before_every_window_is_isolated),
        cmocka_unit_test(the_start_of_a_window_is_on_the_branch_that_lives),
        cmocka_unit_test(a_branch_that_was_left_before_the_window_needs_no_start),
        cmocka_unit_test(two_incarnations_are_kept_apart),
        cmocka_unit_test(whatever_comes_the_last_good_backup_and_kept_ones_stay),
        cmocka_unit_test(deciding_every_time_leaves_what_deciding_once_leaves),
        cmocka_unit_test(an_unreadable_history_keeps_all_that_its_timeline_may_come_from),
        cmocka_unit_test(a_backup_whose_system_cannot_be_told_stays_whoever_released_it),
        cmocka_unit_test(a_plan_says_which_windows_it_gives_up),
        cmocka_unit_test(the_forecast_follows_the_rhythm),
        cmocka_unit_test(the_forecast_keeps_what_is_kept_by_hand_and_foresees_nothing_from_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
