#include "common/memory_plan.h"

#include "common/log.h"

static uint64_t
least_for(const MemoryNeeds *needs, int jobs)
{
    return needs->fixed_bytes + (uint64_t)jobs * needs->worker_bytes;
}

bool
memory_plan(const MemoryNeeds *needs, uint64_t max_bytes, int jobs, int *jobs_out,
            size_t *cache_bytes_out, CairnError *err)
{
    int fitting = jobs;

    CAIRN_ASSERT(jobs >= 1);
    if (max_bytes == 0) { /* whoever asks for many threads gets them */
        max_bytes = needs->usual_bytes;
        if (max_bytes < least_for(needs, jobs) + needs->cache_wanted_bytes)
            max_bytes = least_for(needs, jobs) + needs->cache_wanted_bytes;
    }
    if (max_bytes < least_for(needs, 1)) {
        cairn_error(err, CAIRN_USAGE, "%llu MiB of memory are too little to %s",
                    (unsigned long long)(max_bytes >> 20), needs->purpose);
        return cairn_error_hint(err, "use --max-memory=%lluMiB or more",
                                (unsigned long long)(least_for(needs, 1) >> 20));
    }
    while (max_bytes < least_for(needs, fitting))
        fitting--;
    if (fitting < jobs)
        log_info("the memory allowed is enough for %d of %d threads", fitting, jobs);
    const uint64_t spare = max_bytes - least_for(needs, fitting);
    *jobs_out = fitting;
    *cache_bytes_out =
        (size_t)(spare < needs->cache_limit_bytes ? spare : needs->cache_limit_bytes);
    return true;
}
