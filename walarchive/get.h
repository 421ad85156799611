/*
 * get: one WAL file from the repository to where recovery wants it.
 *
 * PostgreSQL takes "not there" for the end of WAL and may promote, so that answer is given only
 * when it is proven: the repository answered, the file is absent, and nothing that is stored shows
 * that it ever existed (wal_store_successor). Everything else is trouble, tried again until the
 * retry time is over. Crash: %p is absent or whole; a temporary file `<name>.<16 hex>.pgcairn` may
 * stay beside it and is removed by a later get of a history file, which every recovery begins with.
 * Threads: one call at a time.
 */
#ifndef PGCAIRN_WALARCHIVE_GET_H
#define PGCAIRN_WALARCHIVE_GET_H

#include "common/config.h"
#include "common/error.h"
#include "common/world.h"

typedef struct {
    /* Nearest first: the first that has the file whole gives it (get_places.h). Proven absent is
       what none of them has, and all have answered. */
    const RepositoryConfig *const *repositories;
    size_t repository_count;
    const char *cluster;
    const char *file_name;     /* %f */
    const char *path;          /* %p */
    const char *pgdata;        /* NULL: told by path */
    const char *overflow_path; /* what push put there is taken from there; NULL: none */
    int64_t retry_ms;
    /* Segment that ends what recovery to its target needs, before a hole; NULL: not said. The hole
     * behind it is then no trouble: PostgreSQL reads ahead of what it replays. */
    const char *hole_after;
    /* Segments that are fetched ahead by a background process (prefetch.h), 0: none. */
    int prefetch;
    int jobs;
    const char *spool_path; /* where they wait; NULL: in the data directory */
} WalGet;

typedef enum {
    WAL_GET_DELIVERED,
    WAL_GET_ABSENT,  /* proven; err tells what was looked for */
    WAL_GET_BLIP,    /* trouble, but a standby asked for a segment: it can stream or ask again */
    WAL_GET_TROUBLE, /* recovery must stop rather than take this for the end */
} WalGetResult;

/* err is filled for everything but DELIVERED. */
WalGetResult wal_get(const World *world, const WalGet *get, CairnError *err) MUST_CHECK;

#endif
