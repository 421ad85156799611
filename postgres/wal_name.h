/*
 * Names and positions of WAL: LSNs, timelines, segment numbers, file names (facts 5.1).
 *
 * Units: an LSN is a byte position; segment sizes are powers of two from 1 MiB to 1 GiB; ranges are
 * half-open. The segment that holds the byte before an LSN is wal_segment_before; the one that
 * pg_switch_wal completed when it answered an LSN is wal_segment_switched.
 */
#ifndef PGCAIRN_POSTGRES_WAL_NAME_H
#define PGCAIRN_POSTGRES_WAL_NAME_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

enum { LSN_TEXT_SIZE = 20, WAL_NAME_SIZE = 25, WAL_FILE_NAME_LIMIT = 64 };
enum { POSTGRES_MAJOR_MIN = 15, POSTGRES_MAJOR_MAX = 18 };

/* "0/3000028"; accepts any number of hex digits up to 8 on both sides. */
void lsn_format(char text[LSN_TEXT_SIZE], uint64_t lsn);
bool lsn_parse(const char *text, uint64_t *lsn_out) MUST_CHECK;

bool wal_segment_size_valid(uint64_t segment_size);
void wal_segment_name(char name[WAL_NAME_SIZE], uint32_t timeline, uint64_t segment_number,
                      uint32_t segment_size);
/* Exactly eight upper-case hex digits, of which names are made; what comes after them is the
   caller's to look at. Stops safely at a terminating NUL. */
bool wal_digits_parse(const char *text, uint32_t *value_out) MUST_CHECK;
/* False unless name is exactly 24 upper-case hex digits with a possible low part. */
bool wal_segment_parse(const char *name, uint32_t segment_size, uint32_t *timeline_out,
                       uint64_t *segment_number_out) MUST_CHECK;

/* A log is 4 GiB of WAL: segments of one share the first 16 digits of their names. */
static inline uint64_t
wal_segments_per_log(uint32_t segment_size)
{
    return (UINT64_C(1) << 32) / segment_size;
}

static inline uint64_t
wal_segment_of(uint64_t lsn, uint32_t segment_size)
{
    return lsn / segment_size;
}

static inline uint64_t
wal_segment_before(uint64_t lsn, uint32_t segment_size)
{
    return (lsn - 1) / segment_size;
}

/*
 * pg_switch_wal answers where its record ends, or, where nothing was written since the last switch,
 * the start of the unused segment. A record that ends with its segment leaves nothing to fill, and
 * its end counts as behind the next one's long page header, where else no switch can end.
 */
static inline uint64_t
wal_segment_switched(uint64_t lsn, uint32_t segment_size)
{
    enum { LONG_PAGE_HEADER_SIZE = 40 };
    const bool at_its_end = lsn % segment_size == LONG_PAGE_HEADER_SIZE;
    return wal_segment_before(at_its_end ? lsn - LONG_PAGE_HEADER_SIZE : lsn, segment_size);
}

typedef enum {
    WAL_FILE_SEGMENT,        /* 24 hex */
    WAL_FILE_PARTIAL,        /* 24 hex .partial */
    WAL_FILE_BACKUP_HISTORY, /* 24 hex . 8 hex .backup */
    WAL_FILE_HISTORY,        /* 8 hex .history */
    WAL_FILE_PIECE, /* ours alone: a piece of an unfinished segment; no name parses to it */
} WalFileKind;

typedef struct {
    WalFileKind kind;
    uint32_t timeline;
    uint32_t log; /* second group of eight digits; 0 for .history */
    uint32_t low; /* third group */
} WalFileName;

/* USAGE for anything that PostgreSQL would not archive; no slash, no leading dot ever passes. */
bool wal_file_name_parse(const char *name, WalFileName *file_out, CairnError *err) MUST_CHECK;

/* WAL page magic of a major version, 0 when unknown; and the reverse. */
uint16_t wal_magic_of_major(int major);
int wal_major_of_magic(uint16_t magic);

#endif
