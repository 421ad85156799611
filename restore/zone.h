/*
 * Times that people type, with or without a time zone.
 *
 * A time that says its offset from UTC is taken as it is. One that does not is read in the zone
 * given (an IANA name such as Europe/Berlin, UTC, or an offset such as +01:00) and refused when no
 * zone is given, or when that hour came twice or never there. Threads: one thread; TZ is changed
 * for the moment of the call.
 */
#ifndef PGCAIRN_RESTORE_ZONE_H
#define PGCAIRN_RESTORE_ZONE_H

#include "common/error.h"

#include <stdint.h>

/* zone NULL: zone-less text is USAGE, with the readings spelled out. */
bool zone_read_time(const char *text, const char *zone, int64_t *time_us_out,
                    CairnError *err) MUST_CHECK;

#endif
