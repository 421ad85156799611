#include "common/timestamp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

static void
test_format_shows_utc_and_leaves_out_an_empty_fraction(void **state)
{
    (void)state;
    char text[TIMESTAMP_TEXT_SIZE];
    timestamp_format(text, 0);
    assert_string_equal(text, "1970-01-01 00:00:00+00");
    timestamp_format(text, POSTGRES_EPOCH_US + 1);
    assert_string_equal(text, "2000-01-01 00:00:00.000001+00");
    timestamp_format(text, -1);
    assert_string_equal(text, "1969-12-31 23:59:59.999999+00");
    timestamp_format_label(text, INT64_C(1795390300123456));
    assert_string_equal(text, "20261122-233140");
}

static void
test_format_agrees_with_gmtime(void **state)
{
    (void)state;
    for (int64_t time_s = -INT64_C(60000000000); time_s < INT64_C(200000000000);
         time_s += INT64_C(86399) * 1009) {
        const time_t time = (time_t)time_s;
        struct tm parts;
        char expected[64];
        char text[TIMESTAMP_TEXT_SIZE];
        gmtime_r(&time, &parts);
        snprintf(expected, sizeof expected, "%04d-%02d-%02d %02d:%02d:%02d+00",
                 parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min,
                 parts.tm_sec);
        timestamp_format(text, time_s * 1000000);
        assert_string_equal(text, expected);
    }
}

static void
test_format_survives_the_ends_of_its_range(void **state)
{
    (void)state;
    char text[TIMESTAMP_TEXT_SIZE];
    timestamp_format(text, INT64_MAX);
    assert_string_equal(text, "294247-01-10 04:00:54.775807+00");
    timestamp_format(text, INT64_MIN);
    assert_true(text[0] == '-');
}

static void
test_parse_reads_what_people_write(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool has_zone;
        int64_t time_us;
    } CASES[] = {
        {"1970-01-01 00:00:00+00", true, 0},
        {"2000-01-01T00:00Z", true, POSTGRES_EPOCH_US},
        {"2000-01-01 00:00", false, POSTGRES_EPOCH_US},
        {"2000-01-01 00:00:00.5+00", true, POSTGRES_EPOCH_US + 500000},
        {"2000-01-01 00:00:00.000001", false, POSTGRES_EPOCH_US + 1},
        {"2000-01-01 01:00:00+01", true, POSTGRES_EPOCH_US},
        {"2000-01-01 05:30:00 +05:30", true, POSTGRES_EPOCH_US},
        {"1999-12-31 20:30:00-0330", true, POSTGRES_EPOCH_US},
        {"2000-02-29 00:00:00+00", true, POSTGRES_EPOCH_US + INT64_C(59) * 86400000000},
        {"2026-11-22 23:31:40.123456+00", true, INT64_C(1795390300123456)},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CairnError err = {0};
        Timestamp parsed;
        assert_true(timestamp_parse(CASES[i].text, &parsed, &err));
        assert_true(parsed.has_zone == CASES[i].has_zone);
        assert_true(parsed.time_us == CASES[i].time_us);
    }
}

static void
test_parse_refuses_everything_else(void **state)
{
    (void)state;
    static const char *const CASES[] = {
        "",
        "now",
        "2026-11-22",
        "2026-11-22 ",
        "2026-11-22 23",
        "2026-13-22 23:31:40+00",
        "2026-00-22 23:31:40+00",
        "2026-11-31 23:31:40+00",
        "2026-02-29 23:31:40+00",
        "2100-02-29 23:31:40+00",
        "2026-11-22 24:00:00+00",
        "2026-11-22 23:60:00+00",
        "2026-11-22 23:31:60+00",
        "2026-11-22 23:31:40.+00",
        "2026-11-22 23:31:40.1234567+00",
        "2026-11-22 23:31:40+",
        "2026-11-22 23:31:40+1",
        "2026-11-22 23:31:40+16",
        "2026-11-22 23:31:40+01:60",
        "2026-11-22 23:31:40+01:00x",
        "2026-11-22 23:31:40 ",
        "2026-11-22  23:31:40",
        "26-11-22 23:31:40",
        "+2026-11-22 23:31:40",
        "0000-11-22 23:31:40",
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CairnError err = {0};
        Timestamp parsed;
        if (timestamp_parse(CASES[i], &parsed, &err))
            fail_msg("accepted '%s'", CASES[i]);
        assert_int_equal(err.kind, CAIRN_USAGE);
    }
}

static void
test_parse_explains_why_zone_names_are_refused(void **state)
{
    (void)state;
    static const char *const CASES[] = {"2026-11-22 23:31:40 CET", "2026-11-22 23:31:40CET",
                                        "2026-11-22 23:31 Europe/Berlin"};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CairnError err = {0};
        Timestamp parsed;
        assert_false(timestamp_parse(CASES[i], &parsed, &err));
        assert_int_equal(err.kind, CAIRN_USAGE);
        assert_non_null(strstr(err.hint, "ambiguous"));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format_shows_utc_and_leaves_out_an_empty_fraction),
        cmocka_unit_test(test_format_agrees_with_gmtime),
        cmocka_unit_test(test_format_survives_the_ends_of_its_range),
        cmocka_unit_test(test_parse_reads_what_people_write),
        cmocka_unit_test(test_parse_refuses_everything_else),
        cmocka_unit_test(test_parse_explains_why_zone_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
