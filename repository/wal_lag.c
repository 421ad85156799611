#include "repository/wal_lag.h"

#include "repository/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A stretch that is lacking. */
static void
count_stretch(uint64_t first, uint64_t last, uint64_t *count, uint64_t *first_out,
              uint64_t *last_out)
{
    if (first > last)
        return;
    if (*count == 0)
        *first_out = first;
    *last_out = last;
    *count += last - first + 1;
}

uint64_t
wal_runs_beyond(const WalRun *has, size_t has_count, const WalRun *lacks, size_t lacks_count,
                uint64_t floor, uint64_t *first_out, uint64_t *last_out)
{
    uint64_t count = 0;
    size_t at = 0;

    for (size_t i = 0; i < has_count; i++) {
        uint64_t next = has[i].first_segment > floor ? has[i].first_segment : floor;
        while (at < lacks_count && lacks[at].last_segment < next)
            at++;
        for (size_t k = at; k < lacks_count && lacks[k].first_segment <= has[i].last_segment; k++) {
            if (lacks[k].first_segment > next)
                count_stretch(next, lacks[k].first_segment - 1, &count, first_out, last_out);
            if (lacks[k].last_segment >= next)
                next = lacks[k].last_segment + 1;
        }
        count_stretch(next, has[i].last_segment, &count, first_out, last_out);
    }
    return count;
}

/* The segment that the oldest backup begins in. */
static bool
find_oldest_backup(Repository *repository, const char *cluster, const Incarnation *incarnation,
                   bool *found_out, uint64_t *segment_out, CairnError *err)
{
    SCOPED(Catalog) catalog = catalog_read(repository, cluster, err);

    *found_out = false;
    if (catalog == NULL)
        return false;
    for (size_t i = 0; i < catalog->count; i++) {
        const CatalogBackup *backup = &catalog->backups[i];
        if (backup->presence != BACKUP_COMMITTED ||
            backup->fate->system_id != incarnation->system_id ||
            backup->fate->major != incarnation->major)
            continue;
        const uint64_t segment = backup->fate->start_lsn / incarnation->wal_segment_size;
        if (!*found_out || segment < *segment_out)
            *segment_out = segment;
        *found_out = true;
    }
    return true;
}

/* The oldest segment of any timeline; UINT64_MAX: there is none. */
static bool
find_oldest_segment(WalStore *store, uint64_t *segment_out, CairnError *err)
{
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t count = 0;

    *segment_out = UINT64_MAX;
    if (!wal_store_timelines(store, &timelines, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        SCOPED_MEMORY WalRun *runs = NULL;
        size_t run_count = 0;
        if (!wal_store_coverage(store, timelines[i], &runs, &run_count, err))
            return false;
        if (run_count > 0 && runs[0].first_segment < *segment_out)
            *segment_out = runs[0].first_segment;
    }
    return true;
}

static bool
find_floor(Repository *repository, WalStore *store, const char *cluster, uint64_t *floor_out,
           CairnError *err)
{
    bool found;

    if (!find_oldest_backup(repository, cluster, wal_store_incarnation(store), &found, floor_out,
                            err))
        return false;
    return found || find_oldest_segment(store, floor_out, err);
}

static bool
compare_timeline(WalStore *lacking, WalStore *other, uint32_t timeline, uint64_t floor, WalLag *lag,
                 CairnError *err)
{
    const uint32_t segment_size = wal_store_incarnation(other)->wal_segment_size;
    SCOPED_MEMORY WalRun *has = NULL;
    SCOPED_MEMORY WalRun *lacks = NULL;
    size_t has_count = 0, lacks_count = 0;
    uint64_t first = 0, last = 0;

    if (!wal_store_coverage(other, timeline, &has, &has_count, err) ||
        !wal_store_coverage(lacking, timeline, &lacks, &lacks_count, err))
        return false;
    const uint64_t count =
        wal_runs_beyond(has, has_count, lacks, lacks_count, floor, &first, &last);
    if (count == 0)
        return true;
    if (lag->segments == 0)
        wal_segment_name(lag->first, timeline, first, segment_size);
    wal_segment_name(lag->last, timeline, last, segment_size);
    lag->segments += count;
    return true;
}

static bool
compare_system(Repository *lacking, Repository *other, const char *cluster,
               const Incarnation *incarnation, WalLag *lag, CairnError *err)
{
    SCOPED(WalStore) mine = wal_store_open(lacking, cluster, incarnation, err);
    SCOPED(WalStore)
    theirs = mine != NULL ? wal_store_open(other, cluster, incarnation, err) : NULL;
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t count = 0;
    uint64_t floor = 0;

    if (theirs == NULL || !find_floor(lacking, mine, cluster, &floor, err) ||
        !wal_store_timelines(theirs, &timelines, &count, err))
        return false;
    if (floor == UINT64_MAX)
        floor = 0; /* it has nothing at all: it lacks everything */
    for (size_t i = 0; i < count; i++) {
        if (!compare_timeline(mine, theirs, timelines[i], floor, lag, err))
            return false;
    }
    return true;
}

static bool
compare_known(Repository *lacking, Repository *other, const char *cluster, const Incarnation *known,
              WalLag *lag, CairnError *err)
{
    const IncarnationId id = {.system_id = known->system_id, .major = known->major};
    const bool is_first = lag->unread.count == 0;
    Incarnation same;

    if (incarnation_get(other, cluster, id.system_id, id.major, &same, err))
        return compare_system(lacking, other, cluster, known, lag, err);
    if (err->kind == CAIRN_NOT_FOUND) {
        cairn_error_clear(err);
        return true;
    }
    if (!incarnation_note_trouble(&lag->unread, cluster, &id, err))
        return false;
    lag->unread_in_other = lag->unread_in_other || is_first;
    return true;
}

bool
wal_lag_find(Repository *lacking, Repository *other, const char *cluster, WalLag *lag_out,
             CairnError *err)
{
    SCOPED_MEMORY Incarnation *known = calloc(INCARNATION_LIMIT, sizeof *known);
    WalLag lag = {0};
    size_t count = 0;

    if (known == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!incarnation_list(lacking, cluster, known, &count, &lag.unread, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!compare_known(lacking, other, cluster, &known[i], &lag, err))
            return false;
    }
    *lag_out = lag;
    return true;
}

void
wal_lag_unread_text(const WalLag *lag, const char *lacking, const char *other, char *text,
                    size_t size)
{
    const IncarnationTrouble *unread = &lag->unread;

    text[0] = '\0';
    if (unread->count > 0)
        snprintf(text, size,
                 "%zu systems are not compared, since their records cannot be read; the first is "
                 "'%s' in '%s' (%s); %s",
                 unread->count, unread->object, lag->unread_in_other ? other : lacking,
                 unread->problem.message, incarnation_remedy(&unread->problem));
}
