#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/retention_policy.h"
#include "common/timestamp.h"

#include <string.h>

static int64_t
at(const char *text)
{
    CairnError err = {0};
    Timestamp timestamp;
    assert_true(timestamp_parse(text, &timestamp, &err));
    return timestamp.time_us;
}

static void
each_rule_is_read_and_written_back(void **state)
{
    static const struct {
        const char *text;
        const char *written;
    } ROWS[] = {
        {"pitr 14d; daily 30; weekly 12; monthly 24; yearly 7; min 2",
         "pitr 14d; daily 30; weekly 12; monthly 24; yearly 7; min 2"},
        {"full 4", "full 4"},
        {"full 14d", "full 14d"},
        {"last 20", "last 20"},
        {"hourly 48;daily 7", "hourly 48; daily 7"},
        {"  PITR 36H ;\tDaily 7 ; ", "pitr 36h; daily 7"},
        {"RECOVERY WINDOW OF 4 WEEKS", "pitr 4w"},
        {"recovery window of 1 day", "pitr 1d"},
        {"Recovery Window Of 6 MONTHS", "pitr 6m"},
        {"REDUNDANCY 3", "last 3"},
        {"pitr 2y", "pitr 2y"},
        {"last 10000", "last 10000"},
        {"none", "none"},
        {"NONE", "none"},
        {NULL, "none"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        CairnError err = {0};
        RetentionPolicy policy, again;
        char text[RETENTION_TEXT_SIZE];
        if (!retention_policy_parse(ROWS[i].text, &policy, &err))
            fail_msg("%s: %s", ROWS[i].text, err.message);
        retention_policy_format(&policy, text);
        assert_string_equal(text, ROWS[i].written);
        assert_true(retention_policy_parse(text, &again, &err));
        assert_int_equal(again.count, policy.count);
        for (size_t k = 0; k < policy.count; k++)
            assert_memory_equal(&again.rules[k], &policy.rules[k], sizeof again.rules[k]);
    }
}

static void
what_is_wrong_is_named_with_its_position(void **state)
{
    static const struct {
        const char *text;
        const char *message;
    } ROWS[] = {
        {"", "expected pitr, full, last, hourly, daily, weekly, monthly, yearly or min at position "
             "1, where it ends"},
        {"dayly 3", "at position 1, not 'dayly'"},
        {"pitr 14d; dayly 3", "at position 11, not 'dayly'"},
        {"pitr 14", "expected one of the units h, d, w, m, y at position 8, where it ends"},
        {"pitr 14 d", "expected one of the units h, d, w, m, y at position 8"},
        {"pitr 14x", "expected one of the units h, d, w, m, y at position 8, not 'x'"},
        {"pitr 14days", "at position 8, not 'days'"},
        {"pitr d", "expected a duration such as 14d at position 6, not 'd'"},
        {"daily 3d", "expected a plain number of backups at position 8, not 'd'"},
        {"daily", "expected a number at position 6, where it ends"},
        {"daily -3", "expected a number at position 7, not '-3'"},
        {"full x", "expected a number or a duration such as 14d at position 6, not 'x'"},
        {"daily 0", "expected a number from 1 to 10000 at position 7"},
        {"daily 10001", "expected a number from 1 to 10000"},
        {"daily 99999999999999999999", "expected a number from 1 to 10000"},
        {"daily 3, weekly 4", "expected ';' or the end at position 8, not ','"},
        {"daily 3 weekly 4", "expected ';' or the end at position 9, not 'weekly'"},
        {"daily 3; daily 4", "position 10 says again what 'daily 3' has said"},
        {"redundancy 3; last 4", "position 15 says again what 'last 3' has said"},
        {"none; daily 3", "at position 1, not 'none'"},
        {"min 3", "'min' is a floor below other rules"},
        {"recovery window 4 weeks",
         "expected 'recovery window of 4 weeks' at position 17, not '4'"},
        {"recovery window of 4 years",
         "expected days, weeks or months at position 22, not 'years'"},
        {"recovery window of weeks", "expected a number at position 20, not 'weeks'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        CairnError err = {0};
        RetentionPolicy policy;
        if (retention_policy_parse(ROWS[i].text, &policy, &err))
            fail_msg("'%s' was taken", ROWS[i].text);
        assert_int_equal(err.kind, CAIRN_USAGE);
        if (strstr(err.message, ROWS[i].message) == NULL)
            fail_msg("'%s' not in '%s'", ROWS[i].message, err.message);
        assert_true(err.hint[0] != '\0');
    }
}

static void
windows_go_back_by_the_calendar(void **state)
{
    static const struct {
        RetentionRule rule;
        const char *now;
        const char *start;
    } ROWS[] = {
        {{RETAIN_PITR, 36, RETENTION_HOURS}, "2026-11-27 05:00+00", "2026-11-25 17:00+00"},
        {{RETAIN_PITR, 14, RETENTION_DAYS}, "2026-11-27 05:00+00", "2026-11-13 05:00+00"},
        {{RETAIN_PITR, 4, RETENTION_WEEKS}, "2026-11-27 05:00+00", "2026-10-30 05:00+00"},
        /* Clocks went back in Europe on 25 October 2026: a day is 24 hours all the same. */
        {{RETAIN_PITR, 1, RETENTION_DAYS}, "2026-10-25 12:00+00", "2026-10-24 12:00+00"},
        {{RETAIN_PITR, 1, RETENTION_MONTHS},
         "2026-03-31 23:59:59.5+00",
         "2026-02-28 23:59:59.5+00"},
        {{RETAIN_PITR, 1, RETENTION_MONTHS}, "2028-03-31 01:00+00", "2028-02-29 01:00+00"},
        {{RETAIN_PITR, 12, RETENTION_MONTHS}, "2028-02-29 01:00+00", "2027-02-28 01:00+00"},
        {{RETAIN_PITR, 1, RETENTION_YEARS}, "2028-02-29 01:00+00", "2027-02-28 01:00+00"},
        {{RETAIN_PITR, 4, RETENTION_YEARS}, "2028-02-29 01:00+00", "2024-02-29 01:00+00"},
        {{RETAIN_PITR, 11, RETENTION_MONTHS}, "2027-10-31 00:00+00", "2026-11-30 00:00+00"},
        {{RETAIN_PITR, 1, RETENTION_MONTHS}, "2026-01-15 08:00+00", "2025-12-15 08:00+00"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        char text[TIMESTAMP_TEXT_SIZE], wanted[TIMESTAMP_TEXT_SIZE];
        timestamp_format(text, retention_window_start(&ROWS[i].rule, at(ROWS[i].now)));
        timestamp_format(wanted, at(ROWS[i].start));
        assert_string_equal(text, wanted);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_is_read_and_written_back),
        cmocka_unit_test(what_is_wrong_is_named_with_its_position),
        cmocka_unit_test(windows_go_back_by_the_calendar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
