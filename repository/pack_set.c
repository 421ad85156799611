#include "repository/pack_set.h"

#include <string.h>

void
pack_set_free(PackSet *set)
{
    free(set->ranges);
    *set = (PackSet){0};
}

static int
by_place(const void *a, const void *b)
{
    const PackRange *left = a, *right = b;
    const int order = memcmp(left->creator.text, right->creator.text, BACKUP_ID_LENGTH);
    if (order != 0)
        return order;
    if (left->is_map != right->is_map)
        return left->is_map ? 1 : -1;
    return (left->first_pack > right->first_pack) - (left->first_pack < right->first_pack);
}

static uint32_t
range_end(const PackRange *range)
{
    return range->first_pack + range->pack_count;
}

static bool
same_kind(const PackRange *a, const PackRange *b)
{
    return a->is_map == b->is_map && backup_id_equal(&a->creator, &b->creator);
}

void
pack_set_settle(PackSet *set)
{
    if (!set->unsettled || set->count == 0)
        return;
    qsort(set->ranges, set->count, sizeof *set->ranges, by_place);
    size_t kept = 0;
    for (size_t i = 1; i < set->count; i++) {
        PackRange *last = &set->ranges[kept];
        const PackRange *next = &set->ranges[i];
        if (same_kind(last, next) && next->first_pack <= range_end(last)) {
            if (range_end(next) > range_end(last))
                last->pack_count = range_end(next) - last->first_pack;
        } else {
            set->ranges[++kept] = *next;
        }
    }
    set->count = kept + 1;
    set->unsettled = false;
}

/* Summaries of many backups name the same ranges over and over: those go before memory grows. */
static bool
make_room(PackSet *set, CairnError *err)
{
    if (set->count < set->capacity)
        return true;
    pack_set_settle(set);
    if (set->count < set->capacity / 2)
        return true;
    const size_t capacity = set->capacity == 0 ? 64 : 2 * set->capacity;
    PackRange *ranges = reallocarray(set->ranges, capacity, sizeof *ranges);
    if (ranges == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    set->ranges = ranges;
    set->capacity = capacity;
    return true;
}

bool
pack_set_add(PackSet *set, PackRange range, CairnError *err)
{
    CAIRN_ASSERT(range.first_pack <= PACK_NUMBER_LIMIT &&
                 range.pack_count <= PACK_NUMBER_LIMIT - range.first_pack + 1);
    if (range.pack_count == 0)
        return true;
    if (set->count > 0) {
        /* Mostly they come in order. */
        PackRange *last = &set->ranges[set->count - 1];
        if (same_kind(last, &range) && range.first_pack == range_end(last)) {
            last->pack_count += range.pack_count;
            set->unsettled = true;
            return true;
        }
    }
    if (!make_room(set, err))
        return false;
    set->ranges[set->count++] = range;
    set->unsettled = true;
    return true;
}

bool
pack_set_add_all(PackSet *set, const PackSet *other, CairnError *err)
{
    for (size_t i = 0; i < other->count; i++) {
        if (!pack_set_add(set, other->ranges[i], err))
            return false;
    }
    return true;
}

bool
pack_set_add_refs(PackSet *set, const Refs *refs, CairnError *err)
{
    for (size_t i = 0; i < refs->count; i++) {
        const RefsRange *range = &refs->ranges[i];
        const PackRange added = {.creator = range->creator,
                                 .is_map = range->is_map,
                                 .first_pack = range->first_pack,
                                 .pack_count = range->pack_count};
        if (!pack_set_add(set, added, err))
            return false;
    }
    return true;
}

/* The first range that ends after the place where `wanted` begins; count when there is none. */
static size_t
first_after(const PackSet *set, const PackRange *wanted)
{
    size_t low = 0, high = set->count;
    CAIRN_ASSERT(!set->unsettled);
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const PackRange *range = &set->ranges[middle];
        const bool before = same_kind(range, wanted) ? range_end(range) <= wanted->first_pack
                                                     : by_place(range, wanted) < 0;
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool
pack_set_overlaps(const PackSet *set, const PackRange *range)
{
    const size_t at = first_after(set, range);
    return range->pack_count > 0 && at < set->count && same_kind(&set->ranges[at], range) &&
           set->ranges[at].first_pack < range_end(range);
}

bool
pack_set_has(const PackSet *set, const BackupId *creator, bool is_map, uint32_t pack)
{
    const PackRange wanted = {
        .creator = *creator, .is_map = is_map, .first_pack = pack, .pack_count = 1};
    return pack_set_overlaps(set, &wanted);
}

/* Walks the pieces of one range that the set covers, or those that it does not. */
static bool
add_pieces(PackSet *result, const PackRange *range, const PackSet *cover, bool covered,
           CairnError *err)
{
    uint32_t at = range->first_pack;
    const uint32_t end = range_end(range);
    for (size_t i = first_after(cover, range); i < cover->count && at < end; i++) {
        const PackRange *other = &cover->ranges[i];
        if (!same_kind(other, range) || other->first_pack >= end)
            break;
        const uint32_t begin = other->first_pack > at ? other->first_pack : at;
        const uint32_t stop = range_end(other) < end ? range_end(other) : end;
        PackRange piece = *range;
        piece.first_pack = covered ? begin : at;
        piece.pack_count = covered ? stop - begin : begin - at;
        if (!pack_set_add(result, piece, err))
            return false;
        at = stop;
    }
    PackRange rest = *range;
    rest.first_pack = at;
    rest.pack_count = end - at;
    return covered || pack_set_add(result, rest, err);
}

static bool
combine(const PackSet *a, const PackSet *b, bool covered, PackSet *result_out, CairnError *err)
{
    CAIRN_ASSERT(!a->unsettled && !b->unsettled);
    for (size_t i = 0; i < a->count; i++) {
        if (!add_pieces(result_out, &a->ranges[i], b, covered, err))
            return false;
    }
    pack_set_settle(result_out);
    return true;
}

bool
pack_set_intersect(const PackSet *a, const PackSet *b, PackSet *result_out, CairnError *err)
{
    return combine(a, b, true, result_out, err);
}

bool
pack_set_subtract(const PackSet *a, const PackSet *b, PackSet *result_out, CairnError *err)
{
    return combine(a, b, false, result_out, err);
}

size_t
pack_set_of_creator(const PackSet *set, const BackupId *creator, size_t *first_out)
{
    const PackRange wanted = {.creator = *creator};
    const size_t first = first_after(set, &wanted);
    size_t count = 0;
    while (first + count < set->count &&
           backup_id_equal(&set->ranges[first + count].creator, creator))
        count++;
    *first_out = first;
    return count;
}

void
pack_set_remove_creator(PackSet *set, const BackupId *creator)
{
    size_t first;
    const size_t count = pack_set_of_creator(set, creator, &first);
    if (count == 0)
        return;
    memmove(set->ranges + first, set->ranges + first + count,
            (set->count - first - count) * sizeof *set->ranges);
    set->count -= count;
}

uint64_t
pack_set_packs(const PackSet *set)
{
    uint64_t packs = 0;
    for (size_t i = 0; i < set->count; i++)
        packs += set->ranges[i].pack_count;
    return packs;
}
