#include "repository/pack_finisher.h"

#include "common/queue.h"

#include <stdlib.h>
#include <string.h>

enum { PACKS_WAITING = 1 };

/* A pack on its way, with its number. */
typedef struct {
    PackWriter *pack;
    uint32_t number;
} FullPack;

struct PackFinisher {
    PackFinisherOptions options;
    Queue *packs;
    pthread_t *threads;
    int running;
    uint32_t given; /* the giving thread's */
    pthread_mutex_t mutex;
    pthread_cond_t turn;
    bool stopped;              /* under the mutex: a failure or cancel, nobody's turn comes */
    PackFinisherResult result; /* likewise; pack_count is the number whose turn it is */
    uint32_t capacity;         /* of result.digests */
};

static void
full_pack_free(FullPack *full)
{
    pack_writer_free(full->pack);
    free(full);
}

static void
abandon_pack(void *full)
{
    full_pack_free(full);
}

/* Under the mutex. */
static bool
make_room(PackFinisher *finisher, uint32_t number, CairnError *err)
{
    if (number < finisher->capacity)
        return true;
    const uint32_t capacity = 2 * number + 16;
    PackFinisherResult *result = &finisher->result;
    void *digests = realloc(result->digests, capacity * sizeof *result->digests);
    if (digests == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    result->digests = digests;
    finisher->capacity = capacity;
    return true;
}

/* What is known of a durable pack. */
typedef struct {
    uint8_t digest[SHA256_SIZE];
    uint64_t stored;
    ByteWriter frame_table;
} FinishedPack;

/* Under the mutex, when it is the pack's turn. */
static bool
enter(PackFinisher *finisher, uint32_t number, const FinishedPack *finished, CairnError *err)
{
    const PackFinisherOptions *options = &finisher->options;
    PackFinisherResult *result = &finisher->result;
    if (!make_room(finisher, number, err))
        return false;
    memcpy(result->digests[number], finished->digest, SHA256_SIZE);
    result->stored_bytes += finished->stored;
    pthread_mutex_lock(options->map_mutex);
    bool added = map_builder_add_frame_table(options->map, number, finished->frame_table.data,
                                             finished->frame_table.size, err);
    pthread_mutex_unlock(options->map_mutex);
    return added;
}

/* False without an error: somebody else failed first. */
static bool
enter_in_turn(PackFinisher *finisher, uint32_t number, const FinishedPack *finished,
              CairnError *err)
{
    pthread_mutex_lock(&finisher->mutex);
    while (!finisher->stopped && finisher->result.pack_count != number)
        pthread_cond_wait(&finisher->turn, &finisher->mutex);
    const bool entered = !finisher->stopped && enter(finisher, number, finished, err);
    if (entered)
        finisher->result.pack_count++;
    pthread_cond_broadcast(&finisher->turn);
    pthread_mutex_unlock(&finisher->mutex);
    return entered;
}

/* A crash after this leaves a durable pack that nothing refers to. Takes full. */
static bool
finish(PackFinisher *finisher, FullPack *full, CairnError *err)
{
    FinishedPack finished = {0};
    const uint32_t number = full->number;
    uint64_t units;
    bool good = pack_finish(full->pack, finished.digest, &units, &finished.stored,
                            &finished.frame_table, err);
    full_pack_free(full); /* its memory, before the wait for its turn */
    good = good && enter_in_turn(finisher, number, &finished, err);
    byte_writer_free(&finished.frame_table);
    return good;
}

static void
stop(PackFinisher *finisher)
{
    pthread_mutex_lock(&finisher->mutex);
    finisher->stopped = true;
    pthread_cond_broadcast(&finisher->turn);
    pthread_mutex_unlock(&finisher->mutex);
}

static void *
finisher_main(void *argument)
{
    PackFinisher *finisher = argument;
    for (FullPack *full; (full = queue_pop(finisher->packs)) != NULL;) {
        CairnError err = {0};
        if (finish(finisher, full, &err))
            continue;
        stop(finisher);
        if (err.kind != CAIRN_OK)
            finisher->options.on_failure(finisher->options.context, &err);
        return NULL;
    }
    return NULL;
}

PackFinisher *
pack_finisher_start(const PackFinisherOptions *options, CairnError *err)
{
    CAIRN_ASSERT(options->threads >= 1);
    PackFinisher *created = calloc(1, sizeof *created);
    if (created == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    created->options = *options;
    CAIRN_ASSERT(pthread_mutex_init(&created->mutex, NULL) == 0);
    CAIRN_ASSERT(pthread_cond_init(&created->turn, NULL) == 0);
    SCOPED(PackFinisher) finisher = created;
    finisher->threads = calloc((size_t)options->threads, sizeof *finisher->threads);
    if (finisher->threads == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    finisher->packs = queue_new(PACKS_WAITING, abandon_pack, err);
    if (finisher->packs == NULL)
        return NULL;
    for (; finisher->running < options->threads; finisher->running++) {
        if (pthread_create(&finisher->threads[finisher->running], NULL, finisher_main, finisher) !=
            0) {
            cairn_error(err, CAIRN_INTERNAL, "unable to start a thread");
            return NULL;
        }
    }
    return take(&finisher);
}

bool
pack_finisher_give(PackFinisher *finisher, PackWriter *pack)
{
    FullPack *full = malloc(sizeof *full);
    CAIRN_ASSERT(full != NULL);
    *full = (FullPack){pack, finisher->given};
    if (!queue_push(finisher->packs, full)) {
        free(full);
        return false;
    }
    finisher->given++;
    return true;
}

static void
join_threads(PackFinisher *finisher)
{
    for (int i = 0; i < finisher->running; i++)
        pthread_join(finisher->threads[i], NULL);
    finisher->running = 0;
}

const PackFinisherResult *
pack_finisher_join(PackFinisher *finisher)
{
    queue_close(finisher->packs);
    join_threads(finisher);
    return &finisher->result;
}

void
pack_finisher_cancel(PackFinisher *finisher)
{
    stop(finisher);
    queue_cancel(finisher->packs);
}

void
pack_finisher_free(PackFinisher *finisher)
{
    if (finisher == NULL)
        return;
    if (finisher->running > 0) {
        pack_finisher_cancel(finisher);
        join_threads(finisher);
    }
    queue_free(finisher->packs);
    pthread_mutex_destroy(&finisher->mutex);
    pthread_cond_destroy(&finisher->turn);
    free(finisher->threads);
    free(finisher->result.digests);
    free(finisher);
}
