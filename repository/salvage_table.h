/*
 * What revoked attempts left in their packs, by path and unit, out of the packs' own directories
 * there is no map of an attempt that never ended. Compared by content only.
 *
 * Memory: the sorter's (MAP_SORT_MEMORY) while it is made, then one file's record. Scratch: about
 * 60 bytes and a path for every stretch of units. Packs that cannot be opened hold nothing.
 * Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_SALVAGE_TABLE_H
#define PGCAIRN_REPOSITORY_SALVAGE_TABLE_H

#include "repository/creator_table.h"
#include "repository/map.h"

typedef struct {
    Repository *repository;
    const char *cluster;
    const CreatorTable *creators; /* borrowed */
    uint32_t first_salvage;       /* attempts: the table's creators from this number on */
    const char *scratch_directory;
} SalvageTableOptions;

/* Consecutive units of a file, all in one region, in consecutive slots of a pack. */
typedef struct {
    uint64_t first_unit;
    uint32_t units;
    uint32_t tail_bytes; /* of the last unit when it is short, else 0 */
    uint32_t creator, pack, slot;
} SalvageRun;

typedef struct SalvageTable SalvageTable;
SalvageTable *salvage_table_new(const SalvageTableOptions *options, CairnError *err) MUST_CHECK;
void salvage_table_free(SalvageTable *table);
/* Makes a file the current one. *found_out false: no attempt left anything of it. */
bool salvage_table_file(SalvageTable *table, MapClass class, const char *path, bool *found_out,
                        CairnError *err) MUST_CHECK;
/* The next run of the current file that begins before end_unit; runs may overlap. */
bool salvage_table_next(SalvageTable *table, uint64_t end_unit, SalvageRun *run_out);
SCOPED_TYPE(SalvageTable, salvage_table_free);

#endif
