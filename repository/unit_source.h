/*
 * What is stored already of the files that stream by: for each unit, where the parent keeps it and
 * where a salvaged attempt does, with the fingerprint that says whether it is still the same.
 *
 * Fingerprints are fetched region by region, pack by pack, so that a region drawn from a hundred
 * packs opens each of them once. Also decides on refresh: a region that has become
 * scattered, or rests on packs that are mostly dead, is offered no parent's units, so that all of
 * it is stored anew, in one place, while it streams by.
 *
 * Memory: FINGERPRINTS_MEMORY and 24 bytes a unit of one region, twice with salvage (0.8 MiB).
 * Errors: of a storage that does not answer; what is damaged or missing is not offered.
 * Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_UNIT_SOURCE_H
#define PGCAIRN_REPOSITORY_UNIT_SOURCE_H

#include "repository/fingerprints.h"
#include "repository/parent_table.h"
#include "repository/salvage_table.h"

#define UNIT_CREATOR_NONE UINT32_MAX

/* Where a unit may be stored already. */
typedef struct {
    uint32_t creator; /* UNIT_CREATOR_NONE: nowhere */
    uint32_t pack, slot;
    uint32_t size; /* bytes of the unit: a fingerprint covers no padding */
    uint8_t fingerprint[FINGERPRINT_SIZE];
} UnitPlace;

enum { UNIT_SOURCES = 2 }; /* the parent, then salvage */

typedef struct {
    ParentTable *parent;   /* NULL: none; borrowed, as all here */
    SalvageTable *salvage; /* NULL: none */
    Fingerprints *prints;
    const CreatorTable *creators;
    const Refs *refs;       /* the parent's */
    uint64_t refresh_units; /* how many units may be stored anew only to gather them */
} UnitSourceOptions;

typedef struct {
    uint64_t compared;  /* units that the parent had */
    uint64_t refreshed; /* units whose region was stored anew on purpose */
    uint64_t regions_refreshed;
    uint64_t regions_postponed; /* that wanted it when the budget was spent */
} UnitSourceCounts;

typedef struct UnitSource UnitSource;
UnitSource *unit_source_new(const UnitSourceOptions *options, CairnError *err) MUST_CHECK;
void unit_source_free(UnitSource *source);
/* The next file; its regions follow in order. */
bool unit_source_file(UnitSource *source, MapClass class, const char *path,
                      CairnError *err) MUST_CHECK;
/* node_out: the parent's node of this region, which the map may refer to again; NULL: none.
   Borrowed until the next call. */
bool unit_source_region(UnitSource *source, uint64_t region, const MapNodeRef **node_out,
                        CairnError *err) MUST_CHECK;
/* Places of a unit of the current region that has this many bytes. True: there is one at least. */
bool unit_source_unit(UnitSource *source, uint64_t unit, uint32_t size,
                      UnitPlace places[UNIT_SOURCES]);
const UnitSourceCounts *unit_source_counts(const UnitSource *source);
SCOPED_TYPE(UnitSource, unit_source_free);

#endif
