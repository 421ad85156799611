/*
 * Deleting WAL that no backup needs any more. What is needed is the caller's to know
 * (collect_wal.c); here it is only applied, segment by segment.
 *
 * Units: half-open LSN ranges. Timeline history files are never deleted: they say how timelines
 * hang together. Memory: the names of one log (4 GiB of WAL). Threads: as the store: one.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_EXPIRE_H
#define PGCAIRN_REPOSITORY_WAL_EXPIRE_H

#include "repository/removals.h"
#include "repository/wal_store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How far a timeline had got when somebody looked. */
typedef struct {
    uint32_t timeline;
    uint64_t last_segment;
} WalReach;

/* Timelines with at least one segment. malloc'ed (returned owned). */
bool wal_expire_reach(WalStore *store, WalReach **reach_out, size_t *count_out,
                      CairnError *err) MUST_CHECK;

typedef struct {
    uint64_t start_lsn, end_lsn;
} LsnRange;

typedef struct {
    uint64_t floor_lsn;   /* only segments that end at or before it go */
    const LsnRange *kept; /* but none that touches one of these */
    size_t kept_count;
    const WalReach *reach; /* nor any beyond these: they came later than the look */
    size_t reach_count;
    bool dry_run; /* count only */
    Removals *removals;
} WalExpiry;

/* Adds what was deleted to the two counts, also before a failure. */
bool wal_expire(WalStore *store, const WalExpiry *expiry, uint64_t *files, uint64_t *bytes,
                CairnError *err) MUST_CHECK;

#endif
