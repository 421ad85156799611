/*
 * wal_facts DIRECTORY SEGMENT...
 *
 * What the facts of a segment cost: stores each segment in a new repository in DIRECTORY (which
 * must not exist; lz4), twice a round, with facts and without, one right after the other and in
 * turns first. Prints for each segment the smallest CPU time of ROUNDS for either and the size of
 * the facts' share, and at the end the ratio of the sums. CPU time is this thread's, system calls
 * included, from the open file to the durable object; the start of a process is not in it, so a
 * push of pgcairn-wal is dearer and the share of the facts smaller.
 */
#include "common/world.h"
#include "postgres/wal_page.h"
#include "repository/repository.h"
#include "repository/wal_object.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 7 };

static void
die(const char *what, const CairnError *err)
{
    fprintf(stderr, "wal_facts: %s: %s\n", what, err != NULL ? err->message : strerror(errno));
    exit(1);
}

static double
cpu_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static Incarnation
incarnation_of(const char *path)
{
    uint8_t page[WAL_LONG_HEADER_SIZE];
    CairnError err = {0};
    WalIdentity identity;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || pread(fd, page, sizeof page, 0) != (ssize_t)sizeof page)
        die(path, NULL);
    close(fd);
    if (!wal_identity_read(page, sizeof page, &identity, &err))
        die(path, &err);
    return (Incarnation){.system_id = identity.system_id,
                         .major = identity.major,
                         .wal_segment_size = identity.segment_size};
}

/* CPU ms of one put; a cluster's name makes it a new one. */
static double
put_ms(Repository *repository, const Incarnation *incarnation, const char *cluster,
       const char *path, bool without_facts)
{
    CairnError err = {0};
    bool existed;
    bool tail_differs;
    const char *slash = strrchr(path, '/');

    SCOPED(WalStore) store = wal_store_open(repository, cluster, incarnation, &err);
    if (store == NULL || !wal_store_prepare(store, &err))
        die(cluster, &err);
    store->without_facts = without_facts;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(path, NULL);
    const double before = cpu_ms();
    if (!wal_store_put(store, slash != NULL ? slash + 1 : path, fd, &existed, &tail_differs, &err))
        die(path, &err);
    const double after = cpu_ms();
    close(fd);
    if (existed)
        die(path, &(CairnError){.message = "was stored before"});
    return after - before;
}

typedef struct {
    double without_ms;
    double with_ms;
} Cost;

static Cost
measure(Repository *repository, const Incarnation *incarnation, const char *path)
{
    Cost cost = {.without_ms = 1e9, .with_ms = 1e9};

    for (int round = 0; round < ROUNDS; round++) {
        for (int turn = 0; turn < 2; turn++) {
            const bool without = (turn + round) % 2 == 0;
            double *least = without ? &cost.without_ms : &cost.with_ms;
            char cluster[32];

            snprintf(cluster, sizeof cluster, "%s-%d", without ? "plain" : "facts", round);
            const double ms = put_ms(repository, incarnation, cluster, path, without);
            if (ms < *least)
                *least = ms;
        }
    }
    return cost;
}

int
main(int argc, char **argv)
{
    CairnError err = {0};
    const World *world = world_real();
    Cost sum = {0};

    if (argc < 3) {
        fprintf(stderr, "usage: wal_facts DIRECTORY SEGMENT...\n");
        return 2;
    }
    const RepositoryConfig config = {.name = "bench", .path = argv[1], .encryption = "none"};
    if (!repository_init(world, &config, &err))
        die(argv[1], &err);
    SCOPED(Repository) repository = repository_open(world, &config, &err);
    if (repository == NULL)
        die(argv[1], &err);

    const Incarnation incarnation = incarnation_of(argv[2]);
    for (int i = 2; i < argc; i++) {
        const Cost cost = measure(repository, &incarnation, argv[i]);
        printf("%s without %.2f ms, with %.2f ms: %+.1f %%\n", argv[i], cost.without_ms,
               cost.with_ms, (cost.with_ms / cost.without_ms - 1) * 100);
        sum.without_ms += cost.without_ms;
        sum.with_ms += cost.with_ms;
    }
    printf("all: facts add %.1f %% of the CPU time of a push\n",
           (sum.with_ms / sum.without_ms - 1) * 100);
    return 0;
}
