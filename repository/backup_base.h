/*
 * What a backup in the making may draw on: its parent's map and packs, and what revoked attempts
 * left. Opened once the intent that names them is durable and claimed, so that no collector takes
 * them meanwhile. A parent whose map or summary is damaged is done without.
 *
 * Memory: FINGERPRINTS_MEMORY, about 5 MiB of buffers, 32 bytes a pack. Ownership: freed together,
 * after the pipeline and the map builder that use it. Threads: see each part's header.
 */
#ifndef PGCAIRN_REPOSITORY_BACKUP_BASE_H
#define PGCAIRN_REPOSITORY_BACKUP_BASE_H

#include "repository/fate.h"
#include "repository/map.h"
#include "repository/unit_source.h"

typedef struct {
    Repository *repository;
    const char *cluster;
    const BackupId *bid;     /* of the backup in the making */
    const Fate *parent;      /* NULL: none; borrowed for the call, as all here */
    const BackupId *salvage; /* revoked attempts */
    size_t salvage_count;
    const char *scratch_directory;
    size_t fingerprints_bytes; /* memory for fingerprints of earlier packs */
    unsigned refresh_percent;  /* of the parent's size: how much may be stored anew to gather it */
} BackupBaseOptions;

typedef struct BackupBase BackupBase;
/* parent_problem is filled when the parent could not be used (and the call succeeds all the same).
 */
BackupBase *backup_base_open(const BackupBaseOptions *options, CairnError *parent_problem,
                             CairnError *err) MUST_CHECK;
void backup_base_free(BackupBase *base);
bool backup_base_has_parent(const BackupBase *base);
/* Borrowed; NULL when there is neither parent nor salvage: every unit is stored. */
UnitSource *backup_base_units(BackupBase *base);
RefsBuilder *backup_base_refs(BackupBase *base);
MapSources backup_base_map_sources(BackupBase *base);
/* Packs and regions of the parent's map that could not be used. */
uint64_t backup_base_lost(const BackupBase *base);
SCOPED_TYPE(BackupBase, backup_base_free);

#endif
