#include "repository/verify_memory.h"

#include "common/memory_plan.h"
#include "repository/object_scan.h"
#include "repository/pack.h"
#include "repository/wal_object.h"

/* zstd's decoder keeps 128 KiB of blocks and tables, and a frame may lie beside it decrypted; there
 * is one for packs and one for WAL. What a worker touches of its stack is small. */
enum {
    CODEC_STATE = (192 << 10) + FRAME_SIZE + 4096,
    STACK_TOUCHED = 64 << 10,
    FRAME_INFO = 24,
    TAIL_BYTES = sizeof(uint16_t),
    /* A file that the directory names: where, and how long its name is. */
    KEY_PLACE = sizeof(uint8_t *) + sizeof(uint32_t),
    SLOT_MEMORY = FRAME_INFO + TAIL_BYTES + KEY_PLACE,
    WAL_MEMORY = WAL_FRAME_SIZE + WAL_STORED_LIMIT,
};

_Static_assert(OBJECT_SCAN_WINDOW + FRAME_SIZE + WAL_MEMORY + 2 * CODEC_STATE + STACK_TOUCHED +
                       PACK_INDEX_LIMIT + PACK_SLOT_LIMIT * SLOT_MEMORY <=
                   VERIFY_WORKER_MEMORY,
               "a worker takes more than is documented");

bool
verify_memory_plan(uint64_t max_memory_bytes, uint64_t storage_bytes, int jobs,
                   VerifyMemory *memory_out, CairnError *err)
{
    const MemoryNeeds needs = {.purpose = "verify",
                               .fixed_bytes = VERIFY_FIXED_MEMORY + storage_bytes,
                               .worker_bytes = VERIFY_WORKER_MEMORY,
                               .usual_bytes = VERIFY_USUAL_MEMORY,
                               .cache_wanted_bytes = VERIFY_NODES_WANTED,
                               .cache_limit_bytes = VERIFY_NODE_MEMORY};
    VerifyMemory memory;
    if (!memory_plan(&needs, max_memory_bytes, jobs, &memory.jobs, &memory.node_bytes, err))
        return false;
    *memory_out = memory;
    return true;
}
