/*
 * Makes full packs durable beside the pipeline: a sync takes as long as streaming a hundred
 * megabytes, an upload longer, and nobody should wait for it but the commit. Several threads where
 * several uploads at once are faster than one; the map hears of packs in the order in which they
 * were given.
 *
 * Memory: what `threads` + 1 packs take. Errors: the first failure is told through
 * on_failure, from a finisher's thread. Threads: give and join from one thread at a time.
 */
#ifndef PGCAIRN_REPOSITORY_PACK_FINISHER_H
#define PGCAIRN_REPOSITORY_PACK_FINISHER_H

#include "repository/map.h"
#include "repository/pack.h"

#include <pthread.h>

typedef struct {
    int threads;                /* 1 or more */
    MapBuilder *map;            /* gets each pack's frame table ... */
    pthread_mutex_t *map_mutex; /* ... under this lock */
    void (*on_failure)(void *context, const CairnError *err);
    void *context;
} PackFinisherOptions;

/* What finished; arrays by pack number, borrowed from the finisher, valid after join. */
typedef struct {
    uint32_t pack_count;
    uint64_t stored_bytes;
    uint8_t (*digests)[SHA256_SIZE];
} PackFinisherResult;

typedef struct PackFinisher PackFinisher;
PackFinisher *pack_finisher_start(const PackFinisherOptions *options, CairnError *err) MUST_CHECK;
/* Takes pack when true; false after a failure or cancel (the caller keeps it). Waits while one is
 * waiting and all threads are busy. */
bool pack_finisher_give(PackFinisher *finisher, PackWriter *pack) MUST_CHECK;
/* Waits until everything given is durable, or a failure was told. */
const PackFinisherResult *pack_finisher_join(PackFinisher *finisher);
/* Makes the threads stop after the packs at hand; every give answers false. */
void pack_finisher_cancel(PackFinisher *finisher);
void pack_finisher_free(PackFinisher *finisher); /* cancels and joins */
SCOPED_TYPE(PackFinisher, pack_finisher_free);

#endif
