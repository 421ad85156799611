/* WAL that push answered for, and that waits on this host: lost with it. */
#include "agent/info.h"

#include "common/timestamp.h"
#include "repository/wal_overflow.h"

#include <string.h>

/* For each repository one of each system; the first repository is the one that is shown. */
typedef struct {
    WalOverflowPlace *places;
    size_t count;
    size_t system_count;
} Places;

static bool
list(const World *world, const WalOverflowPlace *place, WalOverflowList *list_out, CairnError *err)
{
    SCOPED(WalOverflow) opened = wal_overflow_open(world, place, false, err);
    *list_out = (WalOverflowList){0};
    if (opened != NULL)
        return wal_overflow_list(opened, list_out, err);
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err); /* nothing was ever put there */
    return true;
}

/* What waits for one repository, of every system that the cluster has been: whose record is dated
   last says nothing of which one writes. */
static bool
add_up(const World *world, const WalOverflowPlace *places, size_t count, InfoOverflowOther *sum,
       CairnError *err)
{
    for (size_t i = 0; i < count; i++) {
        WalOverflowList waiting;
        if (!list(world, &places[i], &waiting, err))
            return false;
        sum->files += waiting.queue.total;
        sum->bytes += waiting.bytes;
        if (waiting.queue.total > 0 && (sum->oldest_us == 0 || waiting.oldest_us < sum->oldest_us))
            sum->oldest_us = waiting.oldest_us;
    }
    return true;
}

/* What is not known of one place hides nothing of the others. */
static void
look(Arena *arena, const World *world, const Places *places, InfoOverflow *overflow)
{
    WalOverflowOthers others;
    InfoOverflowOther own = {0};
    CairnError err = {0};
    const size_t systems = places->system_count;
    if (add_up(world, places->places, systems, &own, &err)) {
        overflow->files = own.files;
        overflow->bytes = own.bytes;
        overflow->oldest_us = own.oldest_us;
    } else {
        overflow->problem = arena_strdup(arena, err.message);
    }
    overflow->of_others = arena_alloc(arena, places->count * sizeof *overflow->of_others);
    for (size_t first = systems; first < places->count; first += systems) {
        InfoOverflowOther other = {.repository =
                                       arena_strdup(arena, places->places[first].repository->name)};
        cairn_error_clear(&err);
        if (!add_up(world, places->places + first, systems, &other, &err))
            other.problem = arena_strdup(arena, err.message);
        if (other.files > 0 || other.problem != NULL)
            overflow->of_others[overflow->of_other_count++] = other;
    }
    cairn_error_clear(&err);
    if (!wal_overflow_others(world, places->places, places->count, &others, &err)) {
        if (overflow->problem == NULL)
            overflow->others_problem = arena_strdup(arena, err.message);
        return;
    }
    overflow->others = others.files;
    if (others.unreadable > 0)
        overflow->others_problem =
            arena_printf(arena, "'%s': %s", others.unreadable_directory, others.problem.message);
}

/* Two sections of one place share what waits: it is told once. */
static bool
is_told(const WalOverflowPlace *places, size_t count, const WalOverflowPlace *place)
{
    char below[WAL_OVERFLOW_DIRECTORY_SIZE], other[WAL_OVERFLOW_DIRECTORY_SIZE];
    CairnError ignored = {0}; /* a place without a name holds nothing */
    if (!wal_overflow_directory(place, below, &ignored))
        return true;
    for (size_t i = 0; i < count; i++) {
        if (wal_overflow_directory(&places[i], other, &ignored) && strcmp(below, other) == 0)
            return true;
    }
    return false;
}

static void
add_repository(Places *places, const InfoCluster *cluster, const char *path,
               const RepositoryConfig *repository)
{
    for (size_t i = 0; i < cluster->incarnation_count; i++) {
        const Incarnation *incarnation = &cluster->incarnations[i].incarnation;
        places->places[places->count++] = (WalOverflowPlace){.path = path,
                                                             .repository = repository,
                                                             .cluster = cluster->name,
                                                             .system_id = incarnation->system_id,
                                                             .major = incarnation->major};
    }
}

void
info_look_overflow(Info *info, size_t cluster_index, const World *world, const char *path,
                   const RepositoryConfig *repository, const Config *config)
{
    CAIRN_ASSERT(cluster_index < info->cluster_count);
    InfoCluster *cluster = &info->clusters[cluster_index];
    const size_t configured = config_repository_count(config);
    if (cluster->incarnation_count == 0)
        return;
    Places places = {.places =
                         arena_alloc(info->arena, (configured + 1) * cluster->incarnation_count *
                                                      sizeof(WalOverflowPlace)),
                     .system_count = cluster->incarnation_count};
    add_repository(&places, cluster, path, repository);
    for (size_t i = 0; i < configured; i++) {
        const RepositoryConfig *other = config_repository_at(config, i);
        WalOverflowPlace place = places.places[0];
        place.repository = other;
        if (!is_told(places.places, places.count, &place))
            add_repository(&places, cluster, path, other);
    }
    cluster->overflow.asked = true;
    look(info->arena, world, &places, &cluster->overflow);
}
