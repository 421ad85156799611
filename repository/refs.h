/*
 * Reference summaries: which packs of which backups a backup needs (docs/format.md, "Refs").
 * Ownership: freed with refs_free. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_REFS_H
#define PGCAIRN_REPOSITORY_REFS_H

#include "common/scoped.h"
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

typedef struct {
    RefsRange *ranges;
    size_t count;
} Refs;

/* CORRUPT also when it is not the one that the fate names. */
Refs *refs_read(Repository *repository, const Fate *fate, CairnError *err) MUST_CHECK;
void refs_free(Refs *refs);
bool refs_mention(const Refs *refs, const BackupId *creator, bool is_map, uint32_t pack);
SCOPED_TYPE(Refs, refs_free);

#endif
