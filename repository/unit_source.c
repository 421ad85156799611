#include "repository/unit_source.h"

#include <string.h>

/*
 * When a region is refreshed. Small regions always share frames and packs with others, so
 * how scattered they are says nothing; small packs cost nothing however dead they are.
 */
enum {
    REFRESH_SOURCES = 32,          /* packs that a region may draw on */
    REFRESH_UNITS_MIN = 256,       /* of a region, for being scattered to matter */
    REFRESH_PACK_SLOTS_MIN = 1024, /* of a base pack, for being dead to matter */
    /* Decode amplification in percent, and live share of the base pack in percent. */
    REFRESH_AMPLIFICATION = 150,
    REFRESH_LIVE = 50,
    /* Worse than this may use the whole budget; what is merely due leaves half of it to those. */
    URGENT_AMPLIFICATION = 250,
    URGENT_SOURCES = 64,
    URGENT_LIVE = 25,
};

/* A data run of the region. */
typedef struct {
    uint32_t creator, pack, slot;
    uint32_t units;
    uint32_t first; /* unit in the region */
} Stretch;

/* How a region lies in its packs. */
typedef struct {
    uint64_t units;       /* that are data */
    uint64_t frame_slots; /* of every frame that holds one of them */
    uint64_t packs;
    uint64_t base_units; /* of the pack that holds most of the region ... */
    uint64_t base_slots; /* ... what it holds in all ... */
    uint64_t base_live;  /* ... and what of it the parent needs */
} RegionShape;

typedef struct {
    UnitPlace *places; /* REGION_UNITS of them, those of the current region filled */
    uint64_t count;    /* filled */
} RegionPlaces;

struct UnitSource {
    UnitSourceOptions options;
    bool in_parent, in_salvage; /* the current file */
    uint64_t parent_size;
    uint64_t first_unit; /* of the current region */
    RegionPlaces parent, salvage;
    Stretch *stretches;
    size_t stretch_count, stretch_capacity;
    MapNodeRef node;
    uint64_t refresh_left;
    UnitSourceCounts counts;
};

UnitSource *
unit_source_new(const UnitSourceOptions *options, CairnError *err)
{
    SCOPED(UnitSource) source = calloc(1, sizeof *source);
    if (source == NULL ||
        (options->parent != NULL &&
         (source->parent.places = calloc(REGION_UNITS, sizeof(UnitPlace))) == NULL) ||
        (options->salvage != NULL &&
         (source->salvage.places = calloc(REGION_UNITS, sizeof(UnitPlace))) == NULL)) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    source->options = *options;
    source->refresh_left = options->refresh_units;
    return take(&source);
}

void
unit_source_free(UnitSource *source)
{
    if (source == NULL)
        return;
    free(source->parent.places);
    free(source->salvage.places);
    free(source->stretches);
    free(source);
}

const UnitSourceCounts *
unit_source_counts(const UnitSource *source)
{
    return &source->counts;
}

bool
unit_source_file(UnitSource *source, MapClass class, const char *path, CairnError *err)
{
    const UnitSourceOptions *options = &source->options;
    source->in_parent = source->in_salvage = false;
    source->parent.count = source->salvage.count = 0;
    return (options->parent == NULL ||
            parent_table_file(options->parent, class, path, &source->parent_size,
                              &source->in_parent, err)) &&
           (options->salvage == NULL ||
            salvage_table_file(options->salvage, class, path, &source->in_salvage, err));
}

/* Units of the region up to count: nowhere, until somebody says otherwise. */
static void
extend_places(RegionPlaces *places, uint64_t count)
{
    for (; places->count < count; places->count++)
        places->places[places->count].creator = UNIT_CREATOR_NONE;
}

static int
by_place(const void *a, const void *b)
{
    const Stretch *left = a, *right = b;
    if (left->creator != right->creator)
        return left->creator < right->creator ? -1 : 1;
    if (left->pack != right->pack)
        return left->pack < right->pack ? -1 : 1;
    return (left->slot > right->slot) - (left->slot < right->slot);
}

static bool
reserve_stretches(UnitSource *source, size_t count, CairnError *err)
{
    if (source->stretch_capacity >= count)
        return true;
    Stretch *stretches = realloc(source->stretches, count * sizeof *stretches);
    if (stretches == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    source->stretches = stretches;
    source->stretch_capacity = count;
    return true;
}

/* The region's data runs by pack and slot. */
static bool
sort_runs(UnitSource *source, const ParentRegion *region, CairnError *err)
{
    if (!reserve_stretches(source, region->count + 1, err))
        return false;
    uint64_t unit = 0;
    source->stretch_count = 0;
    for (size_t i = 0; i < region->count; i++) {
        const MapRun *run = &region->runs[i];
        if (!run->is_zero && run->creator != PARENT_CREATOR_UNKNOWN) {
            source->stretches[source->stretch_count++] = (Stretch){.creator = run->creator,
                                                                   .pack = run->pack,
                                                                   .slot = run->slot,
                                                                   .units = (uint32_t)run->units,
                                                                   .first = (uint32_t)unit};
        }
        unit += run->units;
    }
    if (source->stretch_count > 1)
        qsort(source->stretches, source->stretch_count, sizeof *source->stretches, by_place);
    return true;
}

/* Slots of the frames that hold this stretch and were not counted before; *frame is the first that
 * may not have been. */
static uint64_t
count_frames(const PackPrints *prints, const Stretch *stretch, uint32_t *frame)
{
    uint32_t low = *frame, high = prints->frame_count;
    while (low < high) { /* the first frame that ends behind the slot */
        uint32_t middle = low + (high - low) / 2;
        if (prints->frame_first[middle + 1] <= stretch->slot)
            low = middle + 1;
        else
            high = middle;
    }
    uint64_t slots = 0;
    for (; low < prints->frame_count && prints->frame_first[low] < stretch->slot + stretch->units;
         low++)
        slots += prints->frame_first[low + 1] - prints->frame_first[low];
    *frame = low;
    return slots;
}

static void
place_stretch(UnitSource *source, const PackPrints *prints, const Stretch *stretch)
{
    for (uint32_t i = 0; i < stretch->units; i++) {
        UnitPlace *place = &source->parent.places[stretch->first + i];
        uint64_t unit = source->first_unit + stretch->first + i;
        uint64_t left = source->parent_size - unit * UNIT_SIZE;
        place->creator = stretch->creator;
        place->pack = stretch->pack;
        place->slot = stretch->slot + i;
        place->size = left < UNIT_SIZE ? (uint32_t)left : UNIT_SIZE;
        memcpy(place->fingerprint, prints->fingerprints[stretch->slot + i], FINGERPRINT_SIZE);
    }
}

/* Stretches of one pack: count of them, beginning at stretches. */
static bool
place_pack(UnitSource *source, const Stretch *stretches, size_t count, RegionShape *shape,
           CairnError *err)
{
    const PackPrints *prints;
    if (!fingerprints_get(source->options.prints, stretches->creator, stretches->pack, &prints,
                          err))
        return false;
    if (prints == NULL)
        return true;
    uint32_t frame = 0;
    uint64_t units = 0;
    for (size_t i = 0; i < count; i++) {
        const Stretch *stretch = &stretches[i];
        if (stretch->slot >= prints->slot_count ||
            stretch->units > prints->slot_count - stretch->slot)
            continue; /* the map and the pack disagree: neither is believed */
        place_stretch(source, prints, stretch);
        units += stretch->units;
        shape->frame_slots += count_frames(prints, stretch, &frame);
    }
    shape->units += units;
    shape->packs++;
    if (units > shape->base_units) {
        const RefsRange *range = refs_find(
            source->options.refs, creator_table_get(source->options.creators, stretches->creator),
            false, stretches->pack);
        shape->base_units = units;
        shape->base_slots = prints->slot_count;
        /* A range of several packs does not say how many units of this one are live. */
        shape->base_live =
            range != NULL && range->pack_count == 1 ? range->live_units : prints->slot_count;
    }
    return true;
}

static bool
is_scattered(const RegionShape *shape, uint64_t amplification, uint64_t sources)
{
    return shape->units >= REFRESH_UNITS_MIN &&
           (shape->frame_slots * 100 > shape->units * amplification || shape->packs > sources);
}

static bool
is_mostly_dead(const RegionShape *shape, uint64_t live)
{
    return shape->base_slots >= REFRESH_PACK_SLOTS_MIN &&
           shape->base_live * 100 < shape->base_slots * live;
}

/* A streaming decision: nobody knows what the rest of the cluster will want, so half of the budget
 * is left to what is worst. */
static bool
decide_refresh(UnitSource *source, const RegionShape *shape)
{
    if (!is_scattered(shape, REFRESH_AMPLIFICATION, REFRESH_SOURCES) &&
        !is_mostly_dead(shape, REFRESH_LIVE))
        return false;
    bool urgent = is_scattered(shape, URGENT_AMPLIFICATION, URGENT_SOURCES) ||
                  is_mostly_dead(shape, URGENT_LIVE);
    uint64_t reserve = urgent ? 0 : source->options.refresh_units / 2;
    if (source->refresh_left < reserve + shape->units) {
        source->counts.regions_postponed++;
        return false;
    }
    source->refresh_left -= shape->units;
    source->counts.refreshed += shape->units;
    source->counts.regions_refreshed++;
    return true;
}

static bool
load_parent_region(UnitSource *source, uint64_t number, const MapNodeRef **node_out,
                   CairnError *err)
{
    ParentRegion region;
    if (!parent_table_region(source->options.parent, number, &region, err) ||
        !sort_runs(source, &region, err))
        return false;
    extend_places(&source->parent, region.count > 0 ? region.units : 0);
    if (region.has_node) {
        source->node = region.node;
        *node_out = &source->node;
    }
    RegionShape shape = {0};
    for (size_t i = 0; i < source->stretch_count;) {
        const Stretch *first = &source->stretches[i];
        size_t count = 1;
        while (i + count < source->stretch_count && first[count].creator == first->creator &&
               first[count].pack == first->pack)
            count++;
        if (!place_pack(source, first, count, &shape, err))
            return false;
        i += count;
    }
    if (decide_refresh(source, &shape)) {
        source->parent.count = 0;
        *node_out = NULL;
    }
    return true;
}

static bool
load_salvage_run(UnitSource *source, const SalvageRun *run, CairnError *err)
{
    const PackPrints *prints;
    if (!fingerprints_get(source->options.prints, run->creator, run->pack, &prints, err))
        return false;
    if (prints == NULL || run->first_unit < source->first_unit || run->slot >= prints->slot_count ||
        run->units > prints->slot_count - run->slot)
        return true;
    uint64_t first = run->first_unit - source->first_unit;
    CAIRN_ASSERT(first + run->units <= REGION_UNITS);
    extend_places(&source->salvage, first + run->units);
    for (uint32_t i = 0; i < run->units; i++) {
        UnitPlace *place = &source->salvage.places[first + i];
        bool is_tail = i + 1 == run->units && run->tail_bytes > 0;
        *place = (UnitPlace){.creator = run->creator,
                             .pack = run->pack,
                             .slot = run->slot + i,
                             .size = is_tail ? run->tail_bytes : UNIT_SIZE};
        memcpy(place->fingerprint, prints->fingerprints[run->slot + i], FINGERPRINT_SIZE);
    }
    return true;
}

bool
unit_source_region(UnitSource *source, uint64_t region, const MapNodeRef **node_out,
                   CairnError *err)
{
    *node_out = NULL;
    source->first_unit = region * REGION_UNITS;
    source->parent.count = source->salvage.count = 0;
    if (source->in_parent && !load_parent_region(source, region, node_out, err))
        return false;
    if (!source->in_salvage)
        return true;
    SalvageRun run;
    while (salvage_table_next(source->options.salvage, source->first_unit + REGION_UNITS, &run)) {
        if (!load_salvage_run(source, &run, err))
            return false;
    }
    return true;
}

static bool
look_up(const RegionPlaces *places, uint64_t unit, uint32_t size, UnitPlace *place_out)
{
    place_out->creator = UNIT_CREATOR_NONE;
    if (unit >= places->count || places->places[unit].creator == UNIT_CREATOR_NONE)
        return false;
    if (places->places[unit].size == size)
        *place_out = places->places[unit];
    return true;
}

bool
unit_source_unit(UnitSource *source, uint64_t unit, uint32_t size, UnitPlace places[UNIT_SOURCES])
{
    CAIRN_ASSERT(unit >= source->first_unit && unit - source->first_unit < REGION_UNITS);
    unit -= source->first_unit;
    source->counts.compared += look_up(&source->parent, unit, size, &places[0]);
    look_up(&source->salvage, unit, size, &places[1]);
    return places[0].creator != UNIT_CREATOR_NONE || places[1].creator != UNIT_CREATOR_NONE;
}
