#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/calendar.h"

#define DAY CALENDAR_DAY_US

/* Weeks of ISO 8601, as given by `date +%G-W%V`. */
static void
iso_weeks_belong_to_the_year_of_their_thursday(void **state)
{
    static const struct {
        int64_t year;
        unsigned month, day;
        int64_t iso_year;
        unsigned week;
    } ROWS[] = {
        {2026, 11, 27, 2026, 48}, {2026, 12, 31, 2026, 53}, {2027, 1, 3, 2026, 53},
        {2027, 1, 4, 2027, 1},    {2024, 12, 30, 2025, 1},  {2023, 1, 1, 2022, 52},
        {2020, 12, 31, 2020, 53}, {1970, 1, 1, 1970, 1},    {1969, 12, 28, 1969, 52},
    };
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        int64_t year;
        unsigned week;
        const int64_t days = calendar_days_of_date(ROWS[i].year, ROWS[i].month, ROWS[i].day);
        calendar_iso_week(days * DAY + DAY - 1, &year, &week);
        assert_int_equal(year, ROWS[i].iso_year);
        assert_int_equal(week, ROWS[i].week);
    }
}

static void
weeks_begin_on_monday_at_midnight(void **state)
{
    (void)state;
    const int64_t monday = calendar_days_of_date(2026, 11, 23) * DAY;
    assert_int_equal(calendar_week_number(monday - 1), calendar_week_number(monday) - 1);
    assert_int_equal(calendar_week_number(monday + 7 * DAY - 1), calendar_week_number(monday));
    assert_int_equal(calendar_week_number(monday + 7 * DAY), calendar_week_number(monday) + 1);
}

static void
every_day_of_eight_centuries_comes_back(void **state)
{
    (void)state;
    int64_t month_number = calendar_month_number(calendar_days_of_date(1600, 1, 1) * DAY);
    for (int64_t days = calendar_days_of_date(1600, 1, 1); days < calendar_days_of_date(2400, 1, 1);
         days++) {
        const CivilTime t = calendar_civil_of_time(days * DAY + DAY - 1);
        assert_int_equal(calendar_days_of_date(t.year, t.month, t.day), days);
        assert_true(t.day <= calendar_days_in_month(t.year, t.month));
        assert_int_equal(t.hour, 23);
        const int64_t number = calendar_month_number(days * DAY);
        assert_int_equal(number, t.day == 1 && days != calendar_days_of_date(1600, 1, 1)
                                     ? month_number + 1
                                     : month_number);
        month_number = number;
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(iso_weeks_belong_to_the_year_of_their_thursday),
        cmocka_unit_test(weeks_begin_on_monday_at_midnight),
        cmocka_unit_test(every_day_of_eight_centuries_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
