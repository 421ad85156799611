/*
 * simulate [--seed N | --seeds COUNT] [--from N] [--trace] [--stop]: runs stories of the simulator;
 * see tests/sim/README.md. Exit 1 when an invariant broke in any.
 */
#include "tests/sim/sim.h"

#include "common/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
say(const Sim *sim)
{
    static const char *const kinds[] = {"local", "nfs", "s3"};
    printf("seed %" PRIu64 ": %s, %" PRIu64 " steps, %u commits, %u revocations, %u crashes, "
           "%u power cuts, %u packs removed, %u restores, %u expiries, %u un-expiries, "
           "%u collections%s%s\n",
           sim->seed, kinds[sim->kind], sim->steps, sim->commits, sim->revocations, sim->crashes,
           sim->power_cuts, sim->packs_removed, sim->restores, sim->expiries, sim->unexpiries,
           sim->collections, sim->failed ? ": FAILED: " : "", sim->failure);
}

int
main(int argc, char **argv)
{
    uint64_t from = 1, count = 1000, failed = 0;
    bool trace = false, one = false, stop = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--stop") == 0) {
            stop = true;
        } else if (strcmp(argv[i], "--seed") == 0) {
            from = strtoull(value, NULL, 10);
            count = 1;
            one = true;
            i++;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            count = strtoull(value, NULL, 10);
            i++;
        } else if (strcmp(argv[i], "--from") == 0) {
            from = strtoull(value, NULL, 10);
            i++;
        } else {
            fprintf(stderr,
                    "usage: simulate [--seed N | --seeds COUNT] [--from N] [--trace] [--stop]\n");
            return 2;
        }
    }
    log_set_level(trace ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    Sim *sim = malloc(sizeof *sim);
    if (sim == NULL)
        return 1;
    for (uint64_t seed = from; seed < from + count && !(stop && failed > 0); seed++) {
        if (!sim_run(sim, seed, trace) || one)
            say(sim);
        failed += sim->failed;
        sim_free(sim);
    }
    free(sim);
    printf("%" PRIu64 " seeds, %" PRIu64 " failed\n", count, failed);
    return failed != 0;
}
