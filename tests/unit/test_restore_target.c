#include "restore/target.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* 2026-11-22 23:31:40 UTC */
#define MOMENT_US INT64_C(1795390300000000)

static Target
parse(TargetOptions options)
{
    Target target;
    CairnError err = {0};
    if (!target_parse(&options, &target, &err))
        fail_msg("%s", err.message);
    return target;
}

static CairnError
refused(TargetOptions options)
{
    Target target;
    CairnError err = {0};
    assert_false(target_parse(&options, &target, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    return err;
}

static void
test_nothing_said_means_the_end_of_the_archive(void **state)
{
    (void)state;
    const Target target = parse((TargetOptions){0});
    assert_int_equal(target.type, TARGET_DEFAULT);
    assert_int_equal(target.action, ACTION_UNSAID);
    assert_int_equal(target.timeline_choice, TIMELINE_UNSAID);
}

static void
test_short_forms_and_type_with_target_mean_the_same(void **state)
{
    (void)state;
    const Target by_short = parse((TargetOptions){.lsn = "0/3000028", .exclusive = true});
    const Target by_type =
        parse((TargetOptions){.type = "lsn", .value = "0/3000028", .exclusive = true});
    assert_memory_equal(&by_short, &by_type, sizeof by_short);
    assert_int_equal(by_short.lsn, 0x3000028);

    assert_string_equal(parse((TargetOptions){.name = "before x"}).name, "before x");
    assert_int_equal(parse((TargetOptions){.xid = "4294968039"}).xid, UINT64_C(4294968039));
    assert_int_equal(parse((TargetOptions){.immediate = true}).type, TARGET_IMMEDIATE);
    assert_int_equal(parse((TargetOptions){.type = "standby"}).type, TARGET_STANDBY);
}

static void
test_contradictions_are_refused(void **state)
{
    (void)state;
    static const TargetOptions options[] = {
        {.time = "2026-11-22 23:31:40+00", .lsn = "0/1"},
        {.immediate = true, .name = "x"},
        {.type = "lsn", .lsn = "0/1"},
        {.value = "0/1"},
        {.type = "time"},
        {.type = "immediate", .value = "x"},
        {.type = "newest"},
        {.exclusive = true},
        {.name = "x", .exclusive = true},
        {.action = "promote"},
        {.name = "x", .action = "explode"},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        refused(options[i]);
}

static void
test_values_that_do_not_parse_are_refused(void **state)
{
    (void)state;
    char long_name[80];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const TargetOptions options[] = {
        {.lsn = ""},        {.lsn = "0/0"},
        {.lsn = "3000028"}, {.xid = "-1"},
        {.xid = "2"},       {.xid = "12a"},
        {.name = ""},       {.name = long_name},
        {.name = "a\nb"},   {.time = "yesterday"},
        {.timeline = "0"},  {.timeline = "newest"},
        {.timeline = "-1"}, {.timeline = "4294967296"},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        refused(options[i]);
}

static void
test_timelines_are_words_or_numbers(void **state)
{
    (void)state;
    assert_int_equal(parse((TargetOptions){.timeline = "latest"}).timeline_choice, TIMELINE_LATEST);
    assert_int_equal(parse((TargetOptions){.timeline = "current"}).timeline_choice,
                     TIMELINE_CURRENT);
    const Target numbered = parse((TargetOptions){.timeline = "0x10"});
    assert_int_equal(numbered.timeline_choice, TIMELINE_NUMBER);
    assert_int_equal(numbered.timeline, 16);
}

static void
test_a_time_with_its_offset_is_taken_as_it_is(void **state)
{
    (void)state;
    const TargetOptions options = {.time = "2026-11-23 00:31:40+01", .timezone = "Asia/Tokyo"};
    assert_int_equal(parse(options).time_us, MOMENT_US);
}

static void
test_a_time_without_zone_is_refused_with_pasteable_readings(void **state)
{
    (void)state;
    setenv("TZ", "XXX-03", 1);
    tzset();
    const CairnError err = refused((TargetOptions){.time = "2026-11-22 23:31:40"});
    unsetenv("TZ");
    assert_non_null(strstr(err.hint, "--time='2026-11-22 23:31:40+00:00'"));
    assert_non_null(strstr(err.hint, "--time='2026-11-22 23:31:40+03:00'"));
    assert_non_null(strstr(err.hint, "SHOW timezone"));
}

static void
test_a_configured_zone_reads_times_without_one(void **state)
{
    (void)state;
    assert_int_equal(
        parse((TargetOptions){.time = "2026-11-22 23:31:40", .timezone = "UTC"}).time_us,
        MOMENT_US);
    assert_int_equal(
        parse((TargetOptions){.time = "2026-11-23 00:31:40", .timezone = "+01:00"}).time_us,
        MOMENT_US);
    refused((TargetOptions){.time = "2026-11-22 23:31:40", .timezone = "Mars/Olympus"});
    refused((TargetOptions){.time = "2026-11-22 23:31:40", .timezone = "../../etc/passwd"});
    if (access("/usr/share/zoneinfo/Europe/Berlin", R_OK) != 0)
        return; /* no zone data on this machine */
    assert_int_equal(
        parse((TargetOptions){.time = "2026-11-23 00:31:40", .timezone = "Europe/Berlin"}).time_us,
        MOMENT_US);
}

static void
test_hours_that_came_twice_or_never_are_refused(void **state)
{
    (void)state;
    if (access("/usr/share/zoneinfo/Europe/Berlin", R_OK) != 0)
        skip();
    const CairnError twice =
        refused((TargetOptions){.time = "2026-10-25 02:30:00", .timezone = "Europe/Berlin"});
    assert_non_null(strstr(twice.message, "twice"));
    const CairnError never =
        refused((TargetOptions){.time = "2026-03-29 02:30:00", .timezone = "Europe/Berlin"});
    assert_non_null(strstr(never.message, "never"));
    parse((TargetOptions){.time = "2026-10-25 03:30:00", .timezone = "Europe/Berlin"});
    parse((TargetOptions){.time = "2026-03-29 01:59:59", .timezone = "Europe/Berlin"});
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_said_means_the_end_of_the_archive),
        cmocka_unit_test(test_short_forms_and_type_with_target_mean_the_same),
        cmocka_unit_test(test_contradictions_are_refused),
        cmocka_unit_test(test_values_that_do_not_parse_are_refused),
        cmocka_unit_test(test_timelines_are_words_or_numbers),
        cmocka_unit_test(test_a_time_with_its_offset_is_taken_as_it_is),
        cmocka_unit_test(test_a_time_without_zone_is_refused_with_pasteable_readings),
        cmocka_unit_test(test_a_configured_zone_reads_times_without_one),
        cmocka_unit_test(test_hours_that_came_twice_or_never_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
