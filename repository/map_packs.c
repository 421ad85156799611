#include "repository/map_packs.h"

#include "repository/pack.h"

#include <pthread.h>
#include <stdio.h>

/* Beside one for each walk: what they will come back to. */
enum { KEPT_OPEN = 8 };

typedef struct {
    BackupId creator;
    uint32_t pack;
    ObjectReader *object; /* owned; NULL: being opened, if it has users, else free */
    int users;
    uint64_t used; /* for least-recently-used */
} OpenPack;

struct MapPacks {
    Repository *repository;
    char cluster[CLUSTER_NAME_LIMIT + 1];
    pthread_mutex_t mutex;
    pthread_cond_t opened; /* or could not be */
    uint64_t clock;
    int count;
    OpenPack open[];
};

MapPacks *
map_packs_new(Repository *repository, const char *cluster, int walks, CairnError *err)
{
    const int count = walks + KEPT_OPEN;
    MapPacks *packs = calloc(1, sizeof *packs + (size_t)count * sizeof(OpenPack));
    if (packs == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    packs->repository = repository;
    packs->count = count;
    snprintf(packs->cluster, sizeof packs->cluster, "%s", cluster);
    pthread_mutex_init(&packs->mutex, NULL);
    pthread_cond_init(&packs->opened, NULL);
    return packs;
}

void
map_packs_free(MapPacks *packs)
{
    if (packs == NULL)
        return;
    for (int i = 0; i < packs->count; i++)
        object_reader_free(packs->open[i].object);
    pthread_mutex_destroy(&packs->mutex);
    pthread_cond_destroy(&packs->opened);
    free(packs);
}

/* NULL: it is neither open nor being opened. */
static OpenPack *
find(MapPacks *packs, const BackupId *creator, uint32_t pack)
{
    for (int i = 0; i < packs->count; i++) {
        OpenPack *open = &packs->open[i];
        if ((open->object != NULL || open->users > 0) && open->pack == pack &&
            backup_id_equal(&open->creator, creator))
            return open;
    }
    return NULL;
}

/* There is one, since there are more places than walks: free, or that nobody has had for longest.
 */
static OpenPack *
make_room(MapPacks *packs)
{
    OpenPack *oldest = NULL;
    for (int i = 0; i < packs->count; i++) {
        OpenPack *open = &packs->open[i];
        if (open->users == 0 && (oldest == NULL || open->used < oldest->used))
            oldest = open;
    }
    CAIRN_ASSERT(oldest != NULL);
    object_reader_free(oldest->object);
    oldest->object = NULL;
    oldest->used = 0;
    return oldest;
}

static ObjectReader *
open_pack(const MapPacks *packs, const BackupId *creator, uint32_t pack, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    map_pack_name(name, packs->cluster, creator, pack);
    /* As verify opens it for itself: several threads are at it, and what is larger is none. */
    ObjectReader *object =
        object_open_within(packs->repository, name, OBJECT_MAP, OBJECT_SMALL_LIMIT, err);
    if (object != NULL)
        object_drop_index(object); /* nodes are known by their references */
    return object;
}

ObjectReader *
map_packs_get(MapPacks *packs, const BackupId *creator, uint32_t pack, CairnError *err)
{
    pthread_mutex_lock(&packs->mutex);
    OpenPack *open;
    while ((open = find(packs, creator, pack)) != NULL && open->object == NULL)
        pthread_cond_wait(&packs->opened, &packs->mutex);
    if (open == NULL) {
        open = make_room(packs);
        open->creator = *creator;
        open->pack = pack;
        open->users = 1; /* ours from here on: nobody touches it until it has an object */
        pthread_mutex_unlock(&packs->mutex);
        ObjectReader *object = open_pack(packs, creator, pack, err);
        pthread_mutex_lock(&packs->mutex);
        open->object = object;
        open->users = 0;
        pthread_cond_broadcast(&packs->opened);
    }
    ObjectReader *object = open->object;
    if (object != NULL) {
        open->users++;
        open->used = ++packs->clock;
    }
    pthread_mutex_unlock(&packs->mutex);
    return object;
}

void
map_packs_give_back(MapPacks *packs, const ObjectReader *reader)
{
    pthread_mutex_lock(&packs->mutex);
    for (int i = 0; i < packs->count; i++) {
        if (packs->open[i].object == reader)
            packs->open[i].users--;
    }
    pthread_mutex_unlock(&packs->mutex);
}
