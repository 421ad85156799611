#include "repository/refs_sweep.h"

#include <string.h>

/* Where a pack stands in the order of the sweep. */
typedef struct {
    BackupId creator;
    bool is_map;
    uint32_t pack;
} Position;

/* first.pack .. end - 1, needed by one backup. */
typedef struct {
    Position first;
    uint32_t end;
    uint32_t backup;
} Range;

typedef struct {
    const RefsSweep *sweep;
    Position from;  /* of this pass */
    Position until; /* exclusive, if bounded */
    bool bounded;

    Range *ranges;
    size_t count, capacity, most;

    /* Ranges that cover the pack in hand, and the backups behind them. */
    Range *active;
    size_t active_count, active_capacity;
    uint32_t *set;
} Pass;

static int
compare_groups(const Position *a, const Position *b)
{
    const int order = strcmp(a->creator.text, b->creator.text);
    return order != 0 ? order : (int)a->is_map - (int)b->is_map;
}

static int
compare_positions(const Position *a, const Position *b)
{
    const int order = compare_groups(a, b);
    return order != 0 ? order : (a->pack > b->pack) - (a->pack < b->pack);
}

static int
by_first(const void *a, const void *b)
{
    const Range *left = a, *right = b;
    const int order = compare_positions(&left->first, &right->first);
    return order != 0 ? order : (left->backup > right->backup) - (left->backup < right->backup);
}

/* Cuts what lies at the bound or after it off the range; false when nothing is left. */
static bool
clip_end(const Pass *pass, Range *range)
{
    if (!pass->bounded)
        return true;
    if (compare_positions(&range->first, &pass->until) >= 0)
        return false;
    if (compare_groups(&range->first, &pass->until) == 0 && range->end > pass->until.pack)
        range->end = pass->until.pack;
    return true;
}

static bool
clip_start(const Pass *pass, Range *range)
{
    const int order = compare_groups(&range->first, &pass->from);
    if (order != 0)
        return order > 0;
    if (range->end <= pass->from.pack)
        return false;
    if (range->first.pack < pass->from.pack)
        range->first.pack = pass->from.pack;
    return true;
}

static bool
grow(Pass *pass, CairnError *err)
{
    const size_t capacity = pass->capacity == 0 ? 256 : 2 * pass->capacity;
    Range *ranges = reallocarray(pass->ranges, capacity, sizeof *ranges);
    if (ranges == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    pass->ranges = ranges;
    pass->capacity = capacity;
    return true;
}

static size_t
range_limit(const RefsSweep *sweep)
{
    /* No backup names a pack twice, so that four times their number can always be cut in two. */
    const size_t limit = sweep->range_limit > 0 ? sweep->range_limit : REFS_SWEEP_RANGES;
    const size_t least = 4 * (size_t)sweep->backup_count;
    return limit > least ? limit : least;
}

/* Leaves the later half to the next pass. *shrunk_out false: all begin at one pack. */
static void
shrink(Pass *pass, bool *shrunk_out)
{
    qsort(pass->ranges, pass->count, sizeof *pass->ranges, by_first);
    size_t cut = pass->count / 2;
    while (cut < pass->count &&
           compare_positions(&pass->ranges[cut].first, &pass->ranges[0].first) == 0)
        cut++;
    *shrunk_out = cut < pass->count;
    if (!*shrunk_out)
        return;
    pass->until = pass->ranges[cut].first;
    pass->bounded = true;
    size_t kept = 0;
    for (size_t i = 0; i < pass->count; i++) {
        if (clip_end(pass, &pass->ranges[i]))
            pass->ranges[kept++] = pass->ranges[i];
    }
    pass->count = kept;
}

static bool
add_range(Pass *pass, const RefsRange *from, uint32_t backup, CairnError *err)
{
    Range range = {.first = {from->creator, from->is_map, from->first_pack},
                   .end = from->first_pack + from->pack_count,
                   .backup = backup};
    if (from->pack_count == 0 || !clip_start(pass, &range) || !clip_end(pass, &range))
        return true;
    if (pass->count == range_limit(pass->sweep)) {
        bool shrunk;
        shrink(pass, &shrunk);
        if (shrunk && !clip_end(pass, &range))
            return true;
    }
    if (pass->count == pass->capacity && !grow(pass, err))
        return false;
    pass->ranges[pass->count++] = range;
    if (pass->count > pass->most)
        pass->most = pass->count;
    return true;
}

static bool
gather(Pass *pass, CairnError *err)
{
    pass->count = 0;
    pass->bounded = false;
    for (uint32_t backup = 0; backup < pass->sweep->backup_count; backup++) {
        SCOPED(Refs) refs = pass->sweep->source(pass->sweep->context, backup, err);
        if (refs == NULL && err->kind != CAIRN_OK)
            return false;
        for (size_t i = 0; refs != NULL && i < refs->count; i++) {
            if (!add_range(pass, &refs->ranges[i], backup, err))
                return false;
        }
    }
    if (pass->count > 1)
        qsort(pass->ranges, pass->count, sizeof *pass->ranges, by_first);
    return true;
}

static bool
activate(Pass *pass, const Range *range, CairnError *err)
{
    if (pass->active_count == pass->active_capacity) {
        const size_t capacity = pass->active_capacity == 0 ? 64 : 2 * pass->active_capacity;
        Range *active = reallocarray(pass->active, capacity, sizeof *active);
        if (active == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        pass->active = active;
        uint32_t *set = reallocarray(pass->set, capacity, sizeof *set);
        if (set == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        pass->set = set;
        pass->active_capacity = capacity;
    }
    pass->active[pass->active_count++] = *range;
    return true;
}

static int
ascending(const void *a, const void *b)
{
    const uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static BackupSet
active_set(Pass *pass)
{
    size_t count = 0;
    for (size_t i = 0; i < pass->active_count; i++)
        pass->set[i] = pass->active[i].backup;
    qsort(pass->set, pass->active_count, sizeof *pass->set, ascending);
    for (size_t i = 0; i < pass->active_count; i++) {
        if (count == 0 || pass->set[count - 1] != pass->set[i])
            pass->set[count++] = pass->set[i];
    }
    return (BackupSet){pass->set, count};
}

/* First pack after `at` where the set changes. */
static uint32_t
next_change(const Pass *pass, const Range *upcoming)
{
    uint32_t change = UINT32_MAX;
    for (size_t i = 0; i < pass->active_count; i++) {
        if (pass->active[i].end < change)
            change = pass->active[i].end;
    }
    if (upcoming != NULL && compare_groups(&upcoming->first, &pass->active[0].first) == 0 &&
        upcoming->first.pack < change)
        change = upcoming->first.pack;
    return change;
}

static void
retire(Pass *pass, uint32_t at)
{
    size_t kept = 0;
    for (size_t i = 0; i < pass->active_count; i++) {
        if (pass->active[i].end > at)
            pass->active[kept++] = pass->active[i];
    }
    pass->active_count = kept;
}

static bool
visit_all(Pass *pass, CairnError *err)
{
    size_t next = 0;
    Position at = {0};
    pass->active_count = 0;
    while (next < pass->count || pass->active_count > 0) {
        if (pass->active_count == 0)
            at = pass->ranges[next].first;
        while (next < pass->count && compare_positions(&pass->ranges[next].first, &at) == 0) {
            if (!activate(pass, &pass->ranges[next++], err))
                return false;
        }
        const uint32_t change = next_change(pass, next < pass->count ? &pass->ranges[next] : NULL);
        const BackupSet set = active_set(pass);
        for (; at.pack < change; at.pack++) {
            if (!pass->sweep->visit(pass->sweep->context, &at.creator, at.is_map, at.pack, &set,
                                    err))
                return false;
        }
        retire(pass, at.pack);
    }
    return true;
}

static void
free_pass(Pass *pass)
{
    free(pass->ranges);
    free(pass->active);
    free(pass->set);
}

bool
refs_sweep(const RefsSweep *sweep, RefsSweepFigures *figures_out, CairnError *err)
{
    __attribute__((cleanup(free_pass))) Pass pass = {.sweep = sweep};
    uint32_t passes = 0;
    do {
        if (!gather(&pass, err))
            return false;
        passes++;
        if (!visit_all(&pass, err))
            return false;
        pass.from = pass.until;
    } while (pass.bounded);
    if (figures_out != NULL)
        *figures_out = (RefsSweepFigures){passes, pass.most};
    return true;
}
