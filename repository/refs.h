/*
 * Reference summaries: which packs of which backups a backup needs (docs/format.md, "Refs").
 * Reading: Refs. Making: RefsBuilder counts what the map comes to refer to, 16 to 32 bytes a pack.
 * Ownership: freed with refs_free, refs_builder_free. Threads: one thread at a time.
 */
#ifndef PGCAIRN_REPOSITORY_REFS_H
#define PGCAIRN_REPOSITORY_REFS_H

#include "common/bytes.h"
#include "common/scoped.h"
#include "repository/creator_table.h"
#include "repository/fate.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    BackupId creator;
    bool is_map; /* map packs, else data packs */
    uint32_t first_pack;
    uint32_t pack_count;
    uint64_t live_units;
} RefsRange;

/* Of one creator: its data packs' ranges, then its map packs', each ascending. */
typedef struct {
    BackupId creator;
    size_t first;
    size_t data_count, map_count;
} RefsCreator;

typedef struct {
    RefsRange *ranges;
    size_t count;
    RefsCreator *creators;
    size_t creator_count;
} Refs;

/* CORRUPT also when it is not the one that the fate names. */
Refs *refs_read(Repository *repository, const Fate *fate, CairnError *err) MUST_CHECK;
void refs_free(Refs *refs);
/* The stored bytes, into an empty Refs. */
bool refs_parse(const void *content, size_t size, Refs *refs, CairnError *err) MUST_CHECK;
/* The range that holds a pack; NULL: the backup does not refer to it. */
const RefsRange *refs_find(const Refs *refs, const BackupId *creator, bool is_map, uint32_t pack);
bool refs_mention(const Refs *refs, const BackupId *creator, bool is_map, uint32_t pack);
SCOPED_TYPE(Refs, refs_free);

typedef struct RefsBuilder RefsBuilder;
/* creators: what the numbers below mean; borrowed. */
RefsBuilder *refs_builder_new(const CreatorTable *creators, CairnError *err) MUST_CHECK;
void refs_builder_free(RefsBuilder *builder);
/* A run of the map refers to units of a data pack. */
bool refs_builder_units(RefsBuilder *builder, uint32_t creator, uint32_t pack, uint64_t units,
                        CairnError *err) MUST_CHECK;
/* A node of this map pack is part of the map. */
bool refs_builder_node(RefsBuilder *builder, uint32_t creator, uint32_t pack,
                       CairnError *err) MUST_CHECK;
/* The summary as it is stored, into an empty writer. Nothing may be added afterwards. */
bool refs_builder_finish(RefsBuilder *builder, ByteWriter *refs, CairnError *err) MUST_CHECK;
SCOPED_TYPE(RefsBuilder, refs_builder_free);

#endif
