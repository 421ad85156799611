/*
 * Fetching ahead of recovery: a short-lived background process that get starts, and that fills the
 * recovery's spool (get_spool.h) with the segments that come next.
 *
 * It follows the timeline of the last segment that was delivered, asks the repository for each
 * segment, and stops where nothing is stored, and before a segment in which another timeline
 * leaves this one: which way recovery goes there, only recovery knows. What it does not find it
 * forgets. Everything it stores was verified like any get.
 *
 * It ends when nothing was taken for some seconds, when recovery is over or its server gone, and at
 * the first trouble: the next get sees that itself. At most one runs for a recovery; a lock says
 * so. Its memory: two frames a worker. Space: the window, at most 1 GiB of it, and only where the
 * file system has four times as much to spare.
 *
 * Threads: call it while the process has one thread, since it forks.
 */
#ifndef PGCAIRN_WALARCHIVE_PREFETCH_H
#define PGCAIRN_WALARCHIVE_PREFETCH_H

#include "walarchive/get_spool.h"

enum { PREFETCH_DEFAULT = 8, PREFETCH_MAX = 64, PREFETCH_JOBS_DEFAULT = 2, PREFETCH_JOBS_MAX = 16 };

typedef struct {
    GetSpoolOptions where;
    int window; /* segments */
    int jobs;
} Prefetch;

/* Starts the process unless one is there; returns at once. The spool is open. Never fails: what
 * could not be started is not missed. */
void prefetch_start(const World *world, const Prefetch *prefetch, const GetSpool *spool);

#endif
