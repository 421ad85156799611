#include "common/timestamp.h"

#include "common/calendar.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SECOND_US CALENDAR_SECOND_US
#define DAY_S INT64_C(86400)

void
timestamp_format(char text[TIMESTAMP_TEXT_SIZE], int64_t time_us)
{
    const CivilTime t = calendar_civil_of_time(time_us);
    int length = snprintf(text, TIMESTAMP_TEXT_SIZE, "%04" PRId64 "-%02u-%02u %02u:%02u:%02u",
                          t.year, t.month, t.day, t.hour, t.minute, t.second);
    if (t.microsecond != 0)
        length +=
            snprintf(text + length, TIMESTAMP_TEXT_SIZE - (size_t)length, ".%06u", t.microsecond);
    snprintf(text + length, TIMESTAMP_TEXT_SIZE - (size_t)length, "+00");
}

void
timestamp_format_label(char text[TIMESTAMP_TEXT_SIZE], int64_t time_us)
{
    const CivilTime t = calendar_civil_of_time(time_us);
    snprintf(text, TIMESTAMP_TEXT_SIZE, "%04" PRId64 "%02u%02u-%02u%02u%02u", t.year, t.month,
             t.day, t.hour, t.minute, t.second);
}

/* Exactly count digits at *at; moves on when they are there. */
static bool
read_digits(const char **at, unsigned count, unsigned *value_out)
{
    unsigned value = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!isdigit((unsigned char)(*at)[i]))
            return false;
        value = value * 10 + (unsigned)((*at)[i] - '0');
    }
    *at += count;
    *value_out = value;
    return true;
}

static bool
skip_char(const char **at, char c)
{
    if (**at != c)
        return false;
    (*at)++;
    return true;
}

static bool
read_date(const char **at, CivilTime *t)
{
    unsigned year;
    if (!read_digits(at, 4, &year) || !skip_char(at, '-') || !read_digits(at, 2, &t->month) ||
        !skip_char(at, '-') || !read_digits(at, 2, &t->day)) {
        return false;
    }
    t->year = year;
    return year >= 1 && t->month >= 1 && t->month <= 12 && t->day >= 1 &&
           t->day <= calendar_days_in_month(year, t->month);
}

static bool
read_clock(const char **at, CivilTime *t)
{
    if (!read_digits(at, 2, &t->hour) || !skip_char(at, ':') || !read_digits(at, 2, &t->minute))
        return false;
    if (skip_char(at, ':')) {
        if (!read_digits(at, 2, &t->second))
            return false;
        if (skip_char(at, '.')) {
            unsigned weight = 100000;
            unsigned digit;
            if (!isdigit((unsigned char)**at))
                return false;
            /* A seventh digit is refused: rounding could move a recovery target past a commit. */
            for (; weight > 0 && read_digits(at, 1, &digit); weight /= 10)
                t->microsecond += digit * weight;
        }
    }
    return t->hour < 24 && t->minute < 60 && t->second < 60;
}

/* "Z", "+01", "-03:30", "+0530"; offset_s is what is east of UTC. */
static bool
read_zone(const char **at, bool *has_zone, int64_t *offset_s)
{
    const char *after_space = *at;
    skip_char(&after_space, ' ');
    *has_zone = true;
    *offset_s = 0;
    if (*after_space == '\0') {
        *has_zone = false;
        return **at == '\0';
    }
    *at = after_space;
    if (skip_char(at, 'Z'))
        return true;

    const bool west = **at == '-';
    if (!west && **at != '+')
        return false;
    (*at)++;
    unsigned hours;
    unsigned minutes = 0;
    if (!read_digits(at, 2, &hours))
        return false;
    if (**at != '\0') {
        skip_char(at, ':');
        if (!read_digits(at, 2, &minutes))
            return false;
    }
    *offset_s = (west ? -1 : 1) * (int64_t)(hours * 3600 + minutes * 60);
    return hours < 16 && minutes < 60;
}

bool
timestamp_parse(const char *text, Timestamp *timestamp_out, CairnError *err)
{
    const char *at = text;
    CivilTime t = {0};
    bool has_zone;
    int64_t offset_s;
    bool clock_read = false;

    if (read_date(&at, &t) && (skip_char(&at, ' ') || skip_char(&at, 'T')))
        clock_read = read_clock(&at, &t);
    if (!clock_read || !read_zone(&at, &has_zone, &offset_s) || *at != '\0') {
        cairn_error(err, CAIRN_USAGE, "unable to read time '%.100s'", text);
        if (clock_read && (isalpha((unsigned char)*at)))
            return cairn_error_hint(err, "names of time zones are ambiguous; give the offset from "
                                         "UTC, for example 2026-11-22 23:31:40+01");
        return cairn_error_hint(err, "write it like 2026-11-22 23:31:40.123456+00");
    }

    const int64_t seconds = calendar_days_of_date(t.year, t.month, t.day) * DAY_S +
                            (int64_t)t.hour * 3600 + (int64_t)t.minute * 60 + t.second - offset_s;
    *timestamp_out = (Timestamp){
        .has_zone = has_zone,
        .time_us = seconds * SECOND_US + t.microsecond,
    };
    return true;
}
