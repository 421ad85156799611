#include "restore/restore_memory.h"

#include "common/memory_plan.h"
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

bool
restore_memory_plan(uint64_t max_memory_bytes, uint64_t storage_bytes, int jobs,
                    RestoreMemory *memory_out, CairnError *err)
{
    /* Each worker holds a pack open, and so does the reader of single files. */
    const MemoryNeeds needs = {.purpose = "restore",
                               .fixed_bytes =
                                   RESTORE_FIXED_MEMORY + storage_bytes + RESTORE_PACK_MEMORY,
                               .worker_bytes = RESTORE_WORKER_MEMORY + RESTORE_PACK_MEMORY,
                               .usual_bytes = RESTORE_DEFAULT_MEMORY,
                               .cache_wanted_bytes = RESTORE_CACHE_WANTED,
                               .cache_limit_bytes = RESTORE_CACHE_MEMORY};
    RestoreMemory memory;

    CAIRN_ASSERT(jobs >= 1 && jobs < READERS_LIMIT);
    if (!memory_plan(&needs, max_memory_bytes, jobs, &memory.jobs, &memory.cache_bytes, err))
        return false;
    *memory_out = memory;
    return true;
}
