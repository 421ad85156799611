#include "restore/restore_memory.h"

#include "common/log.h"
#include "repository/pack_pipeline.h"
#include "restore/job_queue.h"

/* zstd's decoder keeps 128 KiB of blocks and tables; what a worker touches of its stack is small.
 * A job is sorted by qsort, which takes room for a second one. */
enum {
    CODEC_STATE = 192 << 10,
    STACK_TOUCHED = 64 << 10,
    FRAME_INFO = 24,
    JOB_RUNS = JOB_UNITS * sizeof(SlotRun),
};

_Static_assert(RAW_BUFFER + READ_WINDOW + CODEC_STATE + STACK_TOUCHED + sizeof(UnitCrcs) +
                       2 * JOB_RUNS <=
                   RESTORE_WORKER_MEMORY,
               "a worker takes more than is documented");
_Static_assert(PACK_DIRECTORY_LIMIT + PACK_SLOT_LIMIT * (FINGERPRINT_SIZE + FRAME_INFO) <=
                   RESTORE_PACK_MEMORY,
               "an open pack takes more than is documented");

/* Each worker holds a pack open, and so does the reader of single files. */
static uint64_t
least_for(int jobs)
{
    return RESTORE_FIXED_MEMORY + (uint64_t)jobs * RESTORE_WORKER_MEMORY +
           ((uint64_t)jobs + 1) * RESTORE_PACK_MEMORY;
}

bool
restore_memory_plan(uint64_t max_memory_bytes, int jobs, RestoreMemory *memory_out, CairnError *err)
{
    CAIRN_ASSERT(jobs >= 1 && jobs < READERS_LIMIT);
    RestoreMemory memory = {.jobs = jobs};

    if (max_memory_bytes == 0) { /* whoever asks for many threads gets them */
        max_memory_bytes = RESTORE_DEFAULT_MEMORY;
        if (max_memory_bytes < least_for(jobs) + RESTORE_CACHE_WANTED)
            max_memory_bytes = least_for(jobs) + RESTORE_CACHE_WANTED;
    }
    if (max_memory_bytes < least_for(1)) {
        cairn_error(err, CAIRN_USAGE, "%llu MiB of memory are too little to restore",
                    (unsigned long long)(max_memory_bytes >> 20));
        return cairn_error_hint(err, "use --max-memory=%lluMiB or more",
                                (unsigned long long)(least_for(1) >> 20));
    }
    while (max_memory_bytes < least_for(memory.jobs))
        memory.jobs--;
    if (memory.jobs < jobs)
        log_info("the memory allowed is enough for %d of %d threads", memory.jobs, jobs);
    const uint64_t spare = max_memory_bytes - least_for(memory.jobs);
    memory.cache_bytes = spare < RESTORE_CACHE_MEMORY ? (size_t)spare : RESTORE_CACHE_MEMORY;
    *memory_out = memory;
    return true;
}
