#include "walarchive/get_places.h"

#include "common/log.h"
#include "storage/storage.h"

#include <inttypes.h>
#include <string.h>

/* One try's: who asks for the file is the one that is patient. */
enum { STORAGE_PATIENCE_MS = 10000 };

void
get_places_init(GetPlaces *places, const World *world, const RepositoryConfig *const *repositories,
                size_t count, const char *cluster, const ControlFile *control)
{
    CAIRN_ASSERT(count > 0 && count <= CONFIG_REPOSITORIES_LIMIT);
    *places = (GetPlaces){.world = world, .cluster = cluster, .control = control, .count = count};
    for (size_t i = 0; i < count; i++)
        places->places[i].config = repositories[i];
}

void
get_places_share(const GetPlaces *places, GetPlaces *other_out)
{
    *other_out = *places;
    for (size_t i = 0; i < other_out->count; i++) {
        other_out->places[i].borrowed = other_out->places[i].repository != NULL;
        other_out->places[i].store = NULL;
    }
}

void
get_places_close(GetPlaces *places)
{
    for (size_t i = 0; i < places->count; i++) {
        GetPlace *place = &places->places[i];

        wal_store_close(place->store);
        if (!place->borrowed)
            repository_close(place->repository);
        place->store = NULL;
        place->repository = NULL;
    }
}

/* Here NOT_FOUND of repository or incarnation is trouble: a path not mounted, or a wrong setting.
 */
static bool
find_incarnation(const GetPlaces *places, GetPlace *place, CairnError *err)
{
    const ControlFile *control = places->control;

    if (!incarnation_get(place->repository, places->cluster, control->system_id, control->major,
                         &place->incarnation, err)) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        cairn_error(err, CAIRN_MISMATCH,
                    "cluster '%s' of the repository never was system %" PRIu64 " of PostgreSQL %d",
                    places->cluster, control->system_id, control->major);
        return cairn_error_hint(err, "name the cluster whose WAL this server needs with --cluster");
    }
    if (place->incarnation.wal_segment_size != control->wal_segment_size)
        return cairn_error(err, CAIRN_MISMATCH,
                           "the repository's WAL segments have %" PRIu32
                           " bytes, this server's %" PRIu32,
                           place->incarnation.wal_segment_size, control->wal_segment_size);
    return true;
}

static bool
open_store(const GetPlaces *places, GetPlace *place, CairnError *err)
{
    if (place->repository == NULL) {
        place->repository = repository_open(places->world, place->config, err);
        if (place->repository == NULL) {
            if (err->kind == CAIRN_NOT_FOUND)
                err->kind = CAIRN_UNAVAILABLE; /* not mounted is no answer */
            return false;
        }
        storage_set_patience(repository_storage(place->repository), STORAGE_PATIENCE_MS);
    }
    if (!find_incarnation(places, place, err))
        return false;
    place->store = wal_store_open(place->repository, places->cluster, &place->incarnation, err);
    return place->store != NULL;
}

WalStore *
get_places_store(GetPlaces *places, size_t index, CairnError *err)
{
    GetPlace *place = &places->places[index];

    if (place->store == NULL && !open_store(places, place, err) && places->count > 1)
        cairn_error_wrap(err, "repository '%s'", place->config->name);
    return place->store;
}

/* NULL and NOT_FOUND: it has none. */
static bool
is_same_history(WalStore *one, WalStore *other, uint32_t timeline, bool *same_out, CairnError *err)
{
    size_t size, other_size;
    SCOPED_MEMORY char *text = wal_store_history(one, timeline, &size, err);
    SCOPED_MEMORY char *other_text =
        text != NULL ? wal_store_history(other, timeline, &other_size, err) : NULL;

    *same_out = true;
    if (other_text == NULL) {
        const bool absent = err->kind == CAIRN_NOT_FOUND;
        if (absent)
            cairn_error_clear(err);
        return absent;
    }
    *same_out = size == other_size && memcmp(text, other_text, size) == 0;
    return true;
}

/* Of the repositories that were asked before this one: is its timeline the same one? What was out
   of reach cannot tell. */
static bool
check_histories(GetPlaces *places, size_t index, const char *file_name, CairnError *err)
{
    WalFileName file;

    if (!wal_file_name_parse(file_name, &file, err))
        return false;
    if (file.kind == WAL_FILE_HISTORY)
        return true;
    for (size_t i = 0; i < index; i++) {
        const GetPlace *place = &places->places[i];
        CairnError unreadable = {0};
        bool same = true;

        if (place->store == NULL ||
            !is_same_history(place->store, places->places[index].store, file.timeline, &same,
                             &unreadable) ||
            same)
            continue;
        cairn_error(err, CAIRN_CORRUPT,
                    "repositories '%s' and '%s' hold different histories of timeline %" PRIu32,
                    place->config->name, places->places[index].config->name, file.timeline);
        return cairn_error_hint(err, "two servers were promoted to that timeline; name the "
                                     "repository of the one that you want with --repository");
    }
    return true;
}

static bool
fetch_from(GetPlaces *places, size_t index, const char *file_name, int fd, CairnError *err)
{
    WalStore *store = get_places_store(places, index, err);

    if (store == NULL)
        return false;
    /* What another one left there is garbage. */
    if (index > 0 && places->world->disk->ftruncate(places->world->disk, fd, 0) != 0)
        return cairn_error_errno(err, "unable to begin '%s' anew", file_name);
    if (!wal_store_fetch(store, file_name, fd, err)) {
        if (places->count > 1 && err->kind != CAIRN_NOT_FOUND)
            cairn_error_wrap(err, "repository '%s'", places->places[index].config->name);
        return false;
    }
    return index == 0 || check_histories(places, index, file_name, err);
}

bool
get_places_fetch(GetPlaces *places, const char *file_name, int fd, CairnError *err)
{
    CairnError trouble = {0};
    CairnError absence = {0};

    for (size_t i = 0; i < places->count; i++) {
        CairnError failure = {0};

        if (fetch_from(places, i, file_name, fd, &failure)) {
            if (i > 0)
                log_info("'%s' comes from repository '%s': %s", file_name,
                         places->places[i].config->name,
                         trouble.kind != CAIRN_OK ? trouble.message : absence.message);
            return true;
        }
        if (failure.kind == CAIRN_CANCELLED) {
            *err = failure;
            return false;
        }
        if (failure.kind == CAIRN_NOT_FOUND)
            absence = failure;
        else if (trouble.kind == CAIRN_OK)
            trouble = failure;
    }
    *err = trouble.kind != CAIRN_OK ? trouble : absence;
    return false;
}
