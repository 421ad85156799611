#include "common/calendar.h"

#include <stdbool.h>

static int64_t
floor_divide(int64_t value, int64_t by)
{
    return value / by - (value % by < 0 ? 1 : 0);
}

/* Years begin in March here, so that the leap day is the last of its year. */
int64_t
calendar_days_of_date(int64_t year, unsigned month, unsigned day)
{
    const int64_t y = month > 2 ? year : year - 1;
    const int64_t month_from_march = (month + 9) % 12;
    const int64_t leap_days = (y >= 0 ? y / 4 : (y - 3) / 4) - (y >= 0 ? y / 100 : (y - 99) / 100) +
                              (y >= 0 ? y / 400 : (y - 399) / 400);
    const int64_t day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    const int64_t days_to_1970 = 719468; /* from 0000-03-01 */
    return 365 * y + leap_days + day_of_year - days_to_1970;
}

unsigned
calendar_days_in_month(int64_t year, unsigned month)
{
    static const unsigned DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 && leap ? 29 : DAYS[month - 1];
}

CivilTime
calendar_civil_of_time(int64_t time_us)
{
    const int64_t seconds = floor_divide(time_us, CALENDAR_SECOND_US);
    const int64_t days = calendar_day_number(time_us);
    const unsigned second_of_day = (unsigned)(seconds - days * 86400);

    /* A guess that is never too late, then at most a few steps forward. */
    int64_t year = 1970 + floor_divide(days, 366);
    if (days < 0)
        year = 1970 + floor_divide(days, 365) - 1;
    while (calendar_days_of_date(year + 400, 1, 1) <= days)
        year += 400;
    while (calendar_days_of_date(year + 1, 1, 1) <= days)
        year++;
    unsigned month = 1;
    while (month < 12 && calendar_days_of_date(year, month + 1, 1) <= days)
        month++;

    return (CivilTime){
        .year = year,
        .month = month,
        .day = (unsigned)(days - calendar_days_of_date(year, month, 1)) + 1,
        .hour = second_of_day / 3600,
        .minute = second_of_day / 60 % 60,
        .second = second_of_day % 60,
        .microsecond = (unsigned)(time_us - seconds * CALENDAR_SECOND_US),
    };
}

int64_t
calendar_hour_number(int64_t time_us)
{
    return floor_divide(time_us, INT64_C(3600) * CALENDAR_SECOND_US);
}

int64_t
calendar_day_number(int64_t time_us)
{
    return floor_divide(time_us, CALENDAR_DAY_US);
}

/* 1970-01-01 was a Thursday: its week began three days before. */
int64_t
calendar_week_number(int64_t time_us)
{
    return floor_divide(calendar_day_number(time_us) + 3, 7);
}

int64_t
calendar_month_number(int64_t time_us)
{
    const CivilTime t = calendar_civil_of_time(time_us);
    return 12 * t.year + (int64_t)t.month - 1;
}

int64_t
calendar_year_number(int64_t time_us)
{
    return calendar_civil_of_time(time_us).year;
}

void
calendar_iso_week(int64_t time_us, int64_t *year_out, unsigned *week_out)
{
    const int64_t thursday = 7 * calendar_week_number(time_us);
    const int64_t year = calendar_year_number(thursday * CALENDAR_DAY_US);
    *year_out = year;
    *week_out = (unsigned)((thursday - calendar_days_of_date(year, 1, 1)) / 7) + 1;
}

int64_t
calendar_months_before(int64_t time_us, int64_t months)
{
    const CivilTime t = calendar_civil_of_time(time_us);
    const int64_t number = 12 * t.year + (int64_t)t.month - 1 - months;
    const int64_t year = floor_divide(number, 12);
    const unsigned month = (unsigned)(number - 12 * year) + 1;
    const unsigned last = calendar_days_in_month(year, month);
    const int64_t days = calendar_days_of_date(year, month, t.day < last ? t.day : last);
    return days * CALENDAR_DAY_US + (time_us - calendar_day_number(time_us) * CALENDAR_DAY_US);
}
