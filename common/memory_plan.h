/*
 * --max-memory as a number of workers and room for a cache: as many workers as were asked for and
 * fit, and what is then left for the cache.
 *
 * Units: bytes, of what is resident at most. Errors: USAGE when not even one worker fits; the hint
 * names the least. Threads: any.
 */
#ifndef PGCAIRN_COMMON_MEMORY_PLAN_H
#define PGCAIRN_COMMON_MEMORY_PLAN_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *purpose;   /* a verb: "restore" */
    uint64_t fixed_bytes;  /* without any worker */
    uint64_t worker_bytes; /* for each */
    /* Where nobody says how much may be taken: so much, or what the workers and a useful cache
     * need. */
    uint64_t usual_bytes;
    uint64_t cache_wanted_bytes;
    uint64_t cache_limit_bytes; /* more is no use */
} MemoryNeeds;

/* max_bytes 0: nobody has said. jobs: as many as are wanted, at least one. */
bool memory_plan(const MemoryNeeds *needs, uint64_t max_bytes, int jobs, int *jobs_out,
                 size_t *cache_bytes_out, CairnError *err) MUST_CHECK;

#endif
