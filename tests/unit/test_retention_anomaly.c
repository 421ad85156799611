#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/calendar.h"
#include "tests/unit/support/retention_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY CALENDAR_DAY_US
#define HOUR (DAY / 24)
#define NOW "2026-11-27"

/* Twenty good days until yesterday. */
static RetentionCase *
good_case(void)
{
    RetentionCase *test = retention_case("last 3", NOW, "");
    retention_case_series(test, "2026-11-07T02:00", DAY, 20, 5);
    return test;
}

/* Exactly one anomaly: of this kind, with this text; frozen, and no longer once it is accepted. */
static void
expect_one(RetentionCase *test, RetentionAnomalyKind kind, const char *text)
{
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    if (plan->anomaly_count != 1)
        fail_msg("%zu anomalies, the last: %s", plan->anomaly_count,
                 plan->anomaly_count > 0 ? plan->anomalies[plan->anomaly_count - 1].text : "-");
    assert_int_equal(plan->anomalies[0].kind, kind);
    if (strstr(plan->anomalies[0].text, text) == NULL)
        fail_msg("'%s' not in '%s'", text, plan->anomalies[0].text);
    char accept[64];
    snprintf(accept, sizeof accept, "--accept=%s", retention_anomaly_name(kind));
    assert_non_null(strstr(plan->anomalies[0].remedy, accept));
    assert_true(plan->frozen);
    SCOPED(RetentionPlan) other = retention_plan_make(&test->input, ~(1U << kind));
    assert_true(other->frozen);
    SCOPED(RetentionPlan) accepted = retention_plan_make(&test->input, 1U << kind);
    assert_false(accepted->frozen);
    assert_true(accepted->anomalies[0].accepted);
}

static void
expect_none(RetentionCase *test)
{
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    if (plan->anomaly_count > 0)
        fail_msg("%s", plan->anomalies[0].text);
    assert_false(plan->frozen);
}

static void
a_good_history_is_not_odd(void **state)
{
    (void)state;
    RetentionCase *test = good_case();
    expect_none(test);
    /* Ten minutes of difference between two hosts are none. */
    test->input.now_us = test->backups[19].stopped_us - 9 * HOUR / 60;
    test->input.newest_object_us = 0;
    expect_none(test);
    free(test);
    test = retention_case("last 3", NOW, "");
    expect_none(test);
    free(test);
}

static void
a_clock_that_is_behind_freezes(void **state)
{
    (void)state;
    RetentionCase *test = good_case();
    test->input.now_us = test->backups[19].stopped_us - HOUR;
    test->input.newest_object_us = 0;
    expect_one(test, ANOMALY_CLOCK, "but backup 2026-11-26T02:00 ended at 2026-11-26 02:00:00+00");
    /* An expired one's fate says the same. */
    test->backups[19].expired = true;
    expect_one(test, ANOMALY_CLOCK, "but backup 2026-11-26T02:00 ended at");
    test->input.newest_object_us = test->input.now_us + DAY;
    test->backups[19].stopped_us -= 2 * HOUR;
    expect_one(test, ANOMALY_CLOCK, "but the storage has an object of");
    free(test);
}

static void
a_clock_that_is_ahead_freezes(void **state)
{
    (void)state;
    RetentionCase *test = good_case();
    test->input.newest_object_us = test->input.now_us - DAY;
    expect_none(test);
    test->input.newest_object_us -= 1;
    expect_one(test, ANOMALY_CLOCK, "nothing in the repository is younger than");
    /* Ten years ahead, with a backup that this very run made by the same clock. */
    test->input.now_us += 3650 * DAY;
    test->input.newest_object_us = test->input.now_us;
    test->backups[19].started_us = test->backups[19].stopped_us = test->input.now_us - HOUR;
    expect_one(test, ANOMALY_CLOCK,
               "between 2026-11-25 02:00:00+00 and 2036-11-24 02:00:00+00 "
               "there is no backup");
    /* A week later a schedule that really slept goes on by itself. */
    test->input.now_us += 8 * DAY;
    test->input.newest_object_us = test->input.now_us;
    expect_none(test);
    free(test);
}

static void
graves_tell_the_rhythm(void **state)
{
    (void)state;
    RetentionCase *test = good_case();
    /* Forty days thinned out by retention are no gap, for their fates are there. */
    retention_case_series(test, "2026-11-26T04:00", HOUR, 3, 1);
    for (size_t i = 1; i < 20; i++)
        test->backups[i].expired = true;
    test->backups[0].started_us = test->backups[0].stopped_us -= 20 * DAY;
    expect_none(test);
    free(test);
}

static void
an_lsn_that_goes_back_freezes(void **state)
{
    (void)state;
    RetentionCase *test = good_case();
    test->backups[10].start_lsn = test->backups[5].start_lsn;
    test->backups[10].stop_lsn = test->backups[5].stop_lsn;
    expect_one(test, ANOMALY_ORDER,
               "the LSN goes back: 2026-11-17T02:00 (starts at a lower LSN "
               "than 2026-11-16T02:00");
    test->backups[10].released = true;
    expect_none(test);
    test->backups[10].released = false;
    test->backups[10].expired = true;
    expect_none(test);
    test->backups[10].expired = false;
    /* On another timeline it may. */
    test->backups[10].timeline = 2;
    expect_none(test);
    test->backups[10].timeline = 1;
    /* Two that ran beside each other: the id was drawn before the checkpoint. */
    test->backups[9].stopped_us = test->backups[10].started_us + 1;
    test->backups[10].start_lsn = test->backups[9].start_lsn - 1;
    expect_none(test);
    free(test);
}

static void
a_server_time_that_goes_back_freezes(void **state)
{
    (void)state;
    RetentionCase *test = good_case();
    test->backups[19].started_us -= 3 * DAY;
    test->backups[19].stopped_us -= 3 * DAY;
    expect_one(test, ANOMALY_ORDER,
               "the server's time goes back: 2026-11-26T02:00 (is dated "
               "before 2026-11-25T02:00");
    free(test);
}

static void
an_unknown_system_freezes(void **state)
{
    (void)state;
    RetentionCase *test = good_case();
    test->backups[19].system_id = 7;
    expect_one(test, ANOMALY_INCARNATION, "never was that system: 2026-11-26T02:00 (system 7");
    test->incarnations[1] = (RetentionIncarnation){7, 17};
    test->input.incarnation_count = 2;
    expect_none(test);
    test->backups[19].major = 18;
    expect_one(test, ANOMALY_INCARNATION, "PostgreSQL 18");
    free(test);
}

static void
an_unusual_size_freezes_until_a_person_releases_it(void **state)
{
    (void)state;
    RetentionCase *test = good_case();
    const uint64_t usual = test->backups[0].size_bytes;
    for (size_t i = 0; i < 20; i++)
        test->backups[i].is_full = false;
    test->backups[17].size_bytes = usual / 10 - 1;
    expect_one(test, ANOMALY_SIZE, "2026-11-24T02:00 (1073741823 bytes, usual are 10737418240)");
    test->backups[17].size_bytes = 11 * usual;
    expect_one(test, ANOMALY_SIZE, "2026-11-24T02:00");
    test->backups[17].size_bytes = 10 * usual;
    expect_none(test);
    /* Many small ones never become the measure... */
    for (size_t i = 6; i < 20; i++)
        test->backups[i].size_bytes = usual / 100;
    expect_one(test, ANOMALY_SIZE,
               "2026-11-13T02:00 (107374182 bytes, usual are 10737418240), "
               "2026-11-14T02:00");
    SCOPED(RetentionPlan) plan = retention_plan_make(&test->input, 0);
    assert_non_null(strstr(plan->anomalies[0].text, "and 11 more"));
    /* ...until one is released: from there on it is the usual size. */
    test->backups[6].released = true;
    expect_none(test);
    free(test);
    /* Growing is fine. */
    test = good_case();
    for (size_t i = 0; i < 20; i++)
        test->backups[i].size_bytes = usual * (i + 1);
    expect_none(test);
    free(test);
}

static void
a_thousand_fakes_freeze(void **state)
{
    (void)state;
    RetentionCase *test = good_case();
    retention_case_series(test, "2026-11-27T00:00", HOUR / 60, 20, 1);
    expect_none(test);
    retention_case_series(test, "2026-11-27T00:20", HOUR / 60, 1, 1);
    expect_one(test, ANOMALY_RATE, "21 backups within the hour from 2026-11-27 00:00:00+00 on");
    free(test);
}

static void
missing_and_unreadable_fates_freeze(void **state)
{
    (void)state;
    RetentionCase *test = good_case();
    test->backups[8].unreadable = true;
    expect_one(test, ANOMALY_FATES, "1 backup cannot be read: 2026-11-15T02:00 (sequence 9)");
    test->backups[8].unreadable = false;
    memset(test->backups[9].previous.text + 11, 'b', 16);
    expect_one(test, ANOMALY_FATES, "2026-11-16T02:00 (came after 0000000009-bbbbbbbbbbbbbbbb)");
    free(test);
}

static void
too_many_at_once_freeze(void **state)
{
    (void)state;
    RetentionCase *test = retention_case("last 3", NOW, "");
    retention_case_series(test, "2026-08-17T02:00", DAY, 103, 1);
    test->input.now_us = test->input.newest_object_us = test->backups[102].stopped_us;
    expect_none(test);
    retention_case_series(test, "2026-11-28T02:00", DAY, 1, 1);
    test->input.now_us = test->input.newest_object_us = test->backups[103].stopped_us;
    expect_one(test, ANOMALY_COUNT, "101 backups would go at once: more than 100");
    free(test);
}

static void
names_of_anomalies_are_read_back(void **state)
{
    (void)state;
    RetentionAnomalyKind kind;
    for (int i = 0; i < ANOMALY_KINDS; i++) {
        assert_true(
            retention_anomaly_parse(retention_anomaly_name((RetentionAnomalyKind)i), &kind));
        assert_int_equal(kind, i);
    }
    assert_false(retention_anomaly_parse("all", &kind));
    assert_false(retention_anomaly_parse("", &kind));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_history_is_not_odd),
        cmocka_unit_test(a_clock_that_is_behind_freezes),
        cmocka_unit_test(a_clock_that_is_ahead_freezes),
        cmocka_unit_test(graves_tell_the_rhythm),
        cmocka_unit_test(an_lsn_that_goes_back_freezes),
        cmocka_unit_test(a_server_time_that_goes_back_freezes),
        cmocka_unit_test(an_unknown_system_freezes),
        cmocka_unit_test(an_unusual_size_freezes_until_a_person_releases_it),
        cmocka_unit_test(a_thousand_fakes_freeze),
        cmocka_unit_test(missing_and_unreadable_fates_freeze),
        cmocka_unit_test(too_many_at_once_freeze),
        cmocka_unit_test(names_of_anomalies_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
