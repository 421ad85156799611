/*
 * Dates of the Gregorian calendar, in UTC: what lies behind texts of times, and behind "the newest
 * of each month".
 *
 * Units: microseconds and days since 1970-01-01 UTC; months 1 to 12. Pure.
 */
#ifndef PGCAIRN_COMMON_CALENDAR_H
#define PGCAIRN_COMMON_CALENDAR_H

#include <stdint.h>

#define CALENDAR_SECOND_US INT64_C(1000000)
#define CALENDAR_DAY_US (INT64_C(86400) * CALENDAR_SECOND_US)

typedef struct {
    int64_t year;
    unsigned month; /* 1 to 12 */
    unsigned day;   /* 1 to 31 */
    unsigned hour;
    unsigned minute;
    unsigned second;
    unsigned microsecond;
} CivilTime;

/* Days since 1970-01-01 of a date, carried back before the calendar's invention as PostgreSQL does.
 */
int64_t calendar_days_of_date(int64_t year, unsigned month, unsigned day);
unsigned calendar_days_in_month(int64_t year, unsigned month);
CivilTime calendar_civil_of_time(int64_t time_us);

/* Numbers that are the same within one hour, day, ISO week (from Monday), month or year, and one
 * higher in the next. */
int64_t calendar_hour_number(int64_t time_us);
int64_t calendar_day_number(int64_t time_us);
int64_t calendar_week_number(int64_t time_us);
int64_t calendar_month_number(int64_t time_us);
int64_t calendar_year_number(int64_t time_us);
/* ISO 8601: the week belongs to the year that has its Thursday. */
void calendar_iso_week(int64_t time_us, int64_t *year_out, unsigned *week_out);

/* The same day and time of day that many months earlier; the month's last day where it has no such
 * day: one month before 31 March is 28 or 29 February. */
int64_t calendar_months_before(int64_t time_us, int64_t months);

#endif
