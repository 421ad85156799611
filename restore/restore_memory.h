/*
 * How much memory a restore may take: --max-memory becomes a number of workers and room for packs.
 *
 * Units: bytes, of what is resident at most. Errors: USAGE when not even one worker fits; the hint
 * names the least. Threads: any.
 */
#ifndef PGCAIRN_RESTORE_RESTORE_MEMORY_H
#define PGCAIRN_RESTORE_RESTORE_MEMORY_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

enum {
    RESTORE_FIXED_MEMORY = 16 << 20, /* libraries, map nodes, one batch of small files, the queue */
    RESTORE_WORKER_MEMORY = 2 << 20, /* decoded frames, read window, codec state, a job, its CRCs */
    RESTORE_PACK_MEMORY = 4 << 20,   /* directory of a pack at its largest, while it is opened */
    RESTORE_DEFAULT_MEMORY = 64 << 20,
    RESTORE_CACHE_MEMORY = 32 << 20, /* frame tables of packs that are kept open: more is no use */
    RESTORE_CACHE_WANTED = 8 << 20,  /* where nobody has said how much may be taken */
};

typedef struct {
    int jobs;
    size_t cache_bytes; /* for packs that are open though nobody reads them */
} RestoreMemory;

/* storage_bytes: what the storage's readers hold. max_memory_bytes 0: RESTORE_DEFAULT_MEMORY, or
 * what jobs need. jobs: as many as are wanted; fewer where more do not fit. */
bool restore_memory_plan(uint64_t max_memory_bytes, uint64_t storage_bytes, int jobs,
                         RestoreMemory *memory_out, CairnError *err) MUST_CHECK;

#endif
