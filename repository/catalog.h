/*
 * What backups there are: one listing of `b/` and the small objects below, read into one sorted
 * array.
 *
 * Memory: a few hundred bytes a backup. Threads: one caller; several read where the storage is far
 * away (storage_requests_at_once).
 */
#ifndef PGCAIRN_REPOSITORY_CATALOG_H
#define PGCAIRN_REPOSITORY_CATALOG_H

#include "repository/fate.h"
#include "repository/incarnation.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    BACKUP_UNFINISHED, /* no fate */
    BACKUP_REVOKED,
    BACKUP_COMMITTED,
    BACKUP_EXPIRED,
    BACKUP_UNREADABLE, /* fate damaged or of a newer format: never treated as absent */
} BackupPresence;

typedef struct {
    BackupId bid;
    BackupPresence presence;
    Fate *fate;          /* COMMITTED and EXPIRED */
    CairnError *problem; /* UNREADABLE */
    bool kept;           /* highest of keep and release is keep */
    bool released;       /* it is release */
    bool pending;        /* EXPIRED, but on its way back: unexpire-pending */
    int64_t stored_us;   /* when the fate was stored, as the storage says; 0: it does not */
    /* Of evidence (evidence.h): verified is proven whole with no damage standing. */
    bool scrubbed, verified, drilled, failed;
    bool damaged; /* damage stands, or the server itself sent broken pages */
    int64_t verified_us, drilled_us, drill_duration_us;
    const char **damages; /* tokens of all damage ever found, standing or not */
    size_t damage_count;
} CatalogBackup;

typedef struct {
    Arena *arena;
    CatalogBackup *backups; /* by sequence, then whole id */
    size_t count;
} Catalog;

Catalog *catalog_read(Repository *repository, const char *cluster, CairnError *err) MUST_CHECK;
void catalog_free(Catalog *catalog);
SCOPED_TYPE(Catalog, catalog_free);

/* Clusters that have anything in this repository. Names in arena. */
bool catalog_clusters(Repository *repository, Arena *arena, const char ***names_out,
                      size_t *count_out, CairnError *err) MUST_CHECK;

/* Highest sequence that any listed BID has; 0 when there is none. */
uint64_t catalog_highest_sequence(const Catalog *catalog);

/* The systems of the newest backups that can be read: how many. For incarnation_list_first. */
size_t catalog_systems(const Catalog *catalog, IncarnationId systems_out[INCARNATION_LIMIT]);

/* By label, BID or "latest" (newest COMMITTED and not damaged). NOT_FOUND; REFUSED when ambiguous.
 */
const CatalogBackup *catalog_find(const Catalog *catalog, const char *selector,
                                  CairnError *err) MUST_CHECK;

/* Has it been expired by now, whatever a catalog read earlier says? What cannot be read has not. */
bool catalog_has_expired(Repository *repository, const char *cluster, const BackupId *bid,
                         bool *expired_out, CairnError *err) MUST_CHECK;

/* Evidence and marks are added, never changed. token is drawn here. result_json may be NULL. A
   replica takes none: what was found there, only the finder knows. */
bool catalog_add_evidence(Repository *repository, const char *cluster, const BackupId *bid,
                          const char *kind, const char *scope, const char *result_json,
                          CairnError *err) MUST_CHECK;

#endif
