#include "restore/zone.h"

#include "common/scoped.h"
#include "common/timestamp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND_US INT64_C(1000000)
#define DAY_S INT64_C(86400)

enum { ZONE_NAME_LIMIT = 64, OFFSET_TEXT_SIZE = 16 };

/* Offset from UTC of the process's zone (east positive) at a moment. */
static int64_t
offset_at(int64_t utc_s)
{
    struct tm parts;
    const time_t moment = (time_t)utc_s;
    return localtime_r(&moment, &parts) == NULL ? 0 : parts.tm_gmtoff;
}

typedef enum { HOUR_ONCE, HOUR_TWICE, HOUR_NEVER } HourVerdict;

/*
 * Offset that holds when clocks of the process's zone show civil_s (seconds as if UTC). A change of
 * the clocks shows as two different offsets a day before and a day after.
 */
static HourVerdict
offset_of_civil(int64_t civil_s, int64_t *offset_out)
{
    const int64_t before = offset_at(civil_s - DAY_S);
    const int64_t after = offset_at(civil_s + DAY_S);
    const bool before_holds = offset_at(civil_s - before) == before;
    const bool after_holds = offset_at(civil_s - after) == after;

    *offset_out = before_holds ? before : after;
    if (before_holds && after_holds && before != after)
        return HOUR_TWICE;
    return before_holds || after_holds ? HOUR_ONCE : HOUR_NEVER;
}

static void
offset_format(char text[OFFSET_TEXT_SIZE], int64_t offset_s)
{
    const int64_t size = offset_s < 0 ? -offset_s : offset_s;
    snprintf(text, OFFSET_TEXT_SIZE, "%c%02d:%02d", offset_s < 0 ? '-' : '+', (int)(size / 3600),
             (int)(size / 60 % 60));
}

static bool
refuse_without_zone(const char *text, int64_t civil_s, CairnError *err)
{
    char local[OFFSET_TEXT_SIZE];
    int64_t offset_s;

    tzset();
    const HourVerdict verdict = offset_of_civil(civil_s, &offset_s);
    offset_format(local, offset_s);
    cairn_error(err, CAIRN_USAGE, "time '%.60s' does not say its time zone", text);
    return cairn_error_hint(
        err,
        "say which one is meant:\n"
        "  --time='%.60s+00:00'   UTC\n"
        "  --time='%.60s%s'   this machine's zone%s\n"
        "  --time='%.60s<offset>'   the server's: `SHOW timezone` tells it\n"
        "or set `timezone = Area/City` for the cluster in pgcairn.conf",
        text, text, local, verdict == HOUR_ONCE ? "" : " (whose clocks change in this hour)", text);
}

static bool
zone_name_valid(const char *zone)
{
    const size_t length = strlen(zone);
    return length > 0 && length < ZONE_NAME_LIMIT && zone[0] != '/' && strstr(zone, "..") == NULL &&
           strspn(zone, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-/") ==
               length;
}

/* The C library takes a zone that it cannot find for UTC without a word. */
static bool
zone_exists(const char *zone)
{
    char path[ZONE_NAME_LIMIT + 64];
    const char *directory = getenv("TZDIR");
    snprintf(path, sizeof path, "%.60s/%s",
             directory != NULL && *directory != '\0' ? directory : "/usr/share/zoneinfo", zone);
    return access(path, R_OK) == 0;
}

static HourVerdict
offset_in_named_zone(const char *zone, int64_t civil_s, int64_t *offset_out)
{
    const char *set = getenv("TZ");
    SCOPED_MEMORY char *before = set != NULL ? strdup(set) : NULL;
    char value[ZONE_NAME_LIMIT + 2];

    snprintf(value, sizeof value, ":%s", zone);
    CAIRN_ASSERT((set == NULL || before != NULL) && setenv("TZ", value, 1) == 0);
    tzset();
    const HourVerdict verdict = offset_of_civil(civil_s, offset_out);
    CAIRN_ASSERT((before != NULL ? setenv("TZ", before, 1) : unsetenv("TZ")) == 0);
    tzset();
    return verdict;
}

/* Reads text again with a fixed offset behind it: "+01:00", also "UTC". */
static bool
read_with_offset(const char *text, const char *offset, int64_t *time_us_out)
{
    char whole[160];
    Timestamp time;
    CairnError ignored = {0};

    snprintf(whole, sizeof whole, "%.100s%.20s", text, offset);
    if (!timestamp_parse(whole, &time, &ignored))
        return false;
    *time_us_out = time.time_us;
    return time.has_zone;
}

bool
zone_read_time(const char *text, const char *zone, int64_t *time_us_out, CairnError *err)
{
    Timestamp time;
    int64_t offset_s;

    if (!timestamp_parse(text, &time, err))
        return false;
    if (time.has_zone) {
        *time_us_out = time.time_us;
        return true;
    }

    const int64_t civil_s = time.time_us / SECOND_US - (time.time_us % SECOND_US < 0 ? 1 : 0);
    if (zone == NULL)
        return refuse_without_zone(text, civil_s, err);
    if (strcmp(zone, "UTC") == 0) {
        *time_us_out = time.time_us;
        return true;
    }
    if (zone[0] == '+' || zone[0] == '-') {
        if (read_with_offset(text, zone, time_us_out))
            return true;
        return cairn_error(err, CAIRN_USAGE, "unable to read timezone '%.60s'", zone);
    }
    if (!zone_name_valid(zone) || !zone_exists(zone)) {
        cairn_error(err, CAIRN_USAGE, "unknown timezone '%.60s'", zone);
        return cairn_error_hint(err, "add an offset to the time instead, such as '%.60s+00:00'",
                                text);
    }

    const HourVerdict verdict = offset_in_named_zone(zone, civil_s, &offset_s);
    if (verdict != HOUR_ONCE) {
        cairn_error(err, CAIRN_USAGE, "the clocks of %s showed '%.60s' %s", zone, text,
                    verdict == HOUR_TWICE ? "twice" : "never");
        return cairn_error_hint(err, "add the offset from UTC that is meant, such as +01:00");
    }
    *time_us_out = time.time_us - offset_s * SECOND_US;
    return true;
}
