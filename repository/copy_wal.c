/* Which WAL chosen backups need: of their own range, or all from the oldest one on. */
#include "postgres/wal_name.h"
#include "repository/copy_intern.h"
#include "repository/incarnation.h"

#include <stdio.h>
#include <string.h>

/* Segments [first, last] of these timelines. */
typedef struct {
    uint32_t first_timeline, last_timeline;
    uint64_t first, last;
} Range;

typedef struct {
    uint32_t segment_size;
    Range *ranges;
    size_t count;
    bool all_acks; /* records of accepted holes, too */
} Ranges;

static Range
range_of(const Fate *fate, bool to_the_end)
{
    const uint64_t stop = fate->stop_lsn > 0 ? fate->stop_lsn - 1 : 0;

    return (Range){
        .first_timeline = to_the_end ? 0 : fate->start_timeline,
        .last_timeline = to_the_end ? UINT32_MAX : fate->stop_timeline,
        .first = fate->start_lsn / fate->wal_segment_size,
        .last = to_the_end ? UINT64_MAX : stop / fate->wal_segment_size,
    };
}

/* Segments, and what bears a segment's name: pieces, partial ones, backup history files. Histories
   always: they are small, and say what the timelines are. */
static bool
is_needed(void *context, const char *last, const char *name)
{
    const Ranges *ranges = context;
    char segment[WAL_NAME_SIZE];
    uint32_t timeline;
    uint64_t number;

    (void)name;
    if (strcmp(last, "history") == 0)
        return true;
    if (strncmp(last, "ack.", strlen("ack.")) == 0)
        return ranges->all_acks;
    snprintf(segment, sizeof segment, "%s", last);
    if (!wal_segment_parse(segment, ranges->segment_size, &timeline, &number))
        return false;
    for (size_t i = 0; i < ranges->count; i++) {
        const Range *range = &ranges->ranges[i];
        if (timeline >= range->first_timeline && timeline <= range->last_timeline &&
            number >= range->first && number <= range->last)
            return true;
    }
    return false;
}

static bool
is_first_of_its_system(const CatalogBackup *const *chosen, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (chosen[i]->fate->system_id == chosen[index]->fate->system_id &&
            chosen[i]->fate->major == chosen[index]->fate->major)
            return false;
    }
    return true;
}

static bool
copy_system(Copy *copy, const char *cluster, const CatalogBackup *const *chosen, size_t count,
            const Fate *system, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT], incarnation[INCARNATION_NAME_SIZE];
    SCOPED_MEMORY Range *list = calloc(count, sizeof *list);
    Ranges ranges = {.segment_size = system->wal_segment_size,
                     .ranges = list,
                     .all_acks = copy->options->has_since};

    if (list == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < count; i++) {
        const Fate *fate = chosen[i]->fate;
        if (fate->system_id == system->system_id && fate->major == system->major)
            list[ranges.count++] = range_of(fate, copy->options->has_since);
    }
    incarnation_name(incarnation, system->system_id, system->major);
    snprintf(prefix, sizeof prefix, "c/%s/w/%s", cluster, incarnation);
    return copy_add_tree(copy, prefix, is_needed, &ranges, err);
}

bool
copy_chosen_wal(Copy *copy, const char *cluster, const CatalogBackup *const *chosen, size_t count,
                CairnError *err)
{
    if (!copy_begin(copy, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (is_first_of_its_system(chosen, i) &&
            !copy_system(copy, cluster, chosen, count, chosen[i]->fate, err))
            break;
    }
    return copy_end(copy, err);
}
