/*
 * How much memory verify may take: --max-memory becomes a number of workers and room for map nodes.
 *
 * Units: bytes, of what is resident at most. Errors: USAGE when not even one worker fits; the hint
 * names the least. Threads: any.
 */
#ifndef PGCAIRN_REPOSITORY_VERIFY_MEMORY_H
#define PGCAIRN_REPOSITORY_VERIFY_MEMORY_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

enum {
    VERIFY_FIXED_MEMORY = 16 << 20, /* libraries, ranges of packs, findings, jobs that wait */
    VERIFY_WORKER_MEMORY =
        9 << 20, /* a window, decoded frames, codec states, the index of a pack at its largest */
    VERIFY_USUAL_MEMORY = 64 << 20,
    VERIFY_NODE_MEMORY = 32 << 20, /* map nodes that were proven: more is no use */
    VERIFY_NODES_WANTED = 8 << 20, /* where nobody has said how much may be taken */
};

typedef struct {
    int jobs;
    size_t node_bytes; /* for map nodes that several backups share; 0: each walk reads its own */
} VerifyMemory;

/* storage_bytes: what the storage's readers hold. max_memory_bytes 0: VERIFY_USUAL_MEMORY, or what
 * jobs need. jobs: as many as are wanted; fewer where more do not fit. */
bool verify_memory_plan(uint64_t max_memory_bytes, uint64_t storage_bytes, int jobs,
                        VerifyMemory *memory_out, CairnError *err) MUST_CHECK;

#endif
