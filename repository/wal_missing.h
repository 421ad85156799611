/*
 * Which segments a recovery could want and the repository lacks: from the oldest backup on, along
 * every path of timelines, up to the last segment that is stored of it.
 *
 * Units: segments, by timeline and number. Memory: at most WAL_MISSING_LIMIT entries; more are only
 * counted. Threads: one.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_MISSING_H
#define PGCAIRN_REPOSITORY_WAL_MISSING_H

#include "repository/catalog.h"
#include "repository/wal_archive.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WAL_MISSING_LIMIT = 65536 };

typedef struct {
    uint32_t timeline;
    uint64_t segment;
    const TimelineHistory *path; /* one that needs it; borrowed from the archive */
} WalMissing;

/*
 * Ascending by timeline and segment, each once. malloc'ed (returned owned). *more_out: how many did
 * not fit, counted once for each path that needs them.
 */
bool wal_missing_find(const WalArchive *archive, const Catalog *catalog, WalMissing **missing_out,
                      size_t *count_out, uint64_t *more_out, CairnError *err) MUST_CHECK;

/* End of the last segment that is stored of a path; 0 when none is. */
uint64_t wal_missing_stored_end(const WalArchive *archive, const TimelineHistory *path);

#endif
