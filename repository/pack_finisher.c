#include "repository/pack_finisher.h"

#include "common/queue.h"

enum { PACKS_WAITING = 1 };

struct PackFinisher {
    PackFinisherOptions options;
    Queue *packs;
    pthread_t thread;
    bool running;
    PackFinisherResult result; /* the thread's, until it is joined */
};

static void
abandon_pack(void *pack)
{
    pack_writer_free(pack);
}

static bool
make_room(PackFinisherResult *result, CairnError *err)
{
    const size_t count = (size_t)result->pack_count + 1;
    void *digests = realloc(result->digests, count * sizeof *result->digests);
    if (digests == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    result->digests = digests;
    return true;
}

/* A crash after this leaves a durable pack that nothing refers to. */
static bool
finish(PackFinisher *finisher, PackWriter *pack, CairnError *err)
{
    PackFinisherResult *result = &finisher->result;
    const uint32_t number = result->pack_count;
    SCOPED_BYTES ByteWriter frame_table = {0};
    uint64_t stored, units;
    if (!make_room(result, err) ||
        !pack_finish(pack, result->digests[number], &units, &stored, &frame_table, err))
        return false;
    result->stored_bytes += stored;
    result->pack_count++;
    pthread_mutex_lock(finisher->options.map_mutex);
    bool added = map_builder_add_frame_table(finisher->options.map, number, frame_table.data,
                                             frame_table.size, err);
    pthread_mutex_unlock(finisher->options.map_mutex);
    return added;
}

static void *
finisher_main(void *argument)
{
    PackFinisher *finisher = argument;
    for (PackWriter *pack; (pack = queue_pop(finisher->packs)) != NULL;) {
        CairnError err = {0};
        bool finished = finish(finisher, pack, &err);
        pack_writer_free(pack);
        if (!finished) {
            finisher->options.on_failure(finisher->options.context, &err);
            return NULL;
        }
    }
    return NULL;
}

PackFinisher *
pack_finisher_start(const PackFinisherOptions *options, CairnError *err)
{
    SCOPED(PackFinisher) finisher = calloc(1, sizeof *finisher);
    if (finisher == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    finisher->options = *options;
    finisher->packs = queue_new(PACKS_WAITING, abandon_pack, err);
    if (finisher->packs == NULL)
        return NULL;
    if (pthread_create(&finisher->thread, NULL, finisher_main, finisher) != 0) {
        cairn_error(err, CAIRN_INTERNAL, "unable to start a thread");
        return NULL;
    }
    finisher->running = true;
    return take(&finisher);
}

bool
pack_finisher_give(PackFinisher *finisher, PackWriter *pack)
{
    return queue_push(finisher->packs, pack);
}

const PackFinisherResult *
pack_finisher_join(PackFinisher *finisher)
{
    queue_close(finisher->packs);
    if (finisher->running)
        pthread_join(finisher->thread, NULL);
    finisher->running = false;
    return &finisher->result;
}

void
pack_finisher_cancel(PackFinisher *finisher)
{
    queue_cancel(finisher->packs);
}

void
pack_finisher_free(PackFinisher *finisher)
{
    if (finisher == NULL)
        return;
    if (finisher->running) {
        pack_finisher_cancel(finisher);
        pthread_join(finisher->thread, NULL);
    }
    queue_free(finisher->packs);
    free(finisher->result.digests);
    free(finisher);
}
