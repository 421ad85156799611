/*
 * Points in time as microseconds since 1970-01-01 UTC, and their texts.
 * PostgreSQL's own epoch (2000-01-01) is POSTGRES_EPOCH_US later.
 */
#ifndef PGCAIRN_COMMON_TIMESTAMP_H
#define PGCAIRN_COMMON_TIMESTAMP_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

#define POSTGRES_EPOCH_US INT64_C(946684800000000)

enum { TIMESTAMP_TEXT_SIZE = 48 };

/* "2026-11-22 23:31:40.123456+00" (fraction left out when zero). */
void timestamp_format(char text[TIMESTAMP_TEXT_SIZE], int64_t time_us);
/* "20261122-233140": the stem of a backup label. */
void timestamp_format_label(char text[TIMESTAMP_TEXT_SIZE], int64_t time_us);

typedef struct {
    bool has_zone; /* false: year..fraction were read, time_us is as if UTC */
    int64_t time_us;
} Timestamp;

/*
 * "2026-11-22 23:31:40[.123456][+01[:00]|Z]", "T" for the space, seconds optional. USAGE for
 * anything else; zone abbreviations and names are refused with a hint (they are ambiguous twice a
 * year).
 */
bool timestamp_parse(const char *text, Timestamp *timestamp_out, CairnError *err) MUST_CHECK;

#endif
