/*
 * The collector: deletes packs and WAL that no backup needs, safe beside backups,
 * restores, pushes and other collectors on any number of hosts. The protocol and why it is safe
 * stand in collect.c.
 *
 * What it never does: decide that a backup goes (marks say so), delete a fate or a mark, touch an
 * attempt that nobody revoked, follow a clock where data is at stake.
 * Units: seconds of grace, microseconds since 1970 UTC, bytes as stored.
 * Errors: CORRUPT and the like name the fate, intent, mark, pin, summary or condemn list that
 * cannot be read: then nothing is deleted. NO_SPACE where not even the small objects of the
 * protocol find room. After any failure the next run goes on.
 * Memory: about 200 bytes a backup and 40 bytes a range of packs. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_COLLECT_H
#define PGCAIRN_REPOSITORY_COLLECT_H

#include "repository/backup_id.h"
#include "repository/incarnation.h"
#include "repository/removals.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { COLLECT_GRACE_LOCAL_S = 3600, COLLECT_GRACE_SHARED_S = 86400, COLLECT_HOLDERS_LISTED = 16 };

typedef struct {
    const char *cluster;
    int64_t grace_s; /* between condemning and deleting; < 0: the storage's default */
    bool dry_run;    /* look and count, write and delete nothing */
    bool keep_wal;   /* packs only */
    /* Backups that are kept without a way to later moments: of their WAL only start to stop stays.
     * NULL: every backup keeps all WAL since its start. */
    const BackupId *without_pitr;
    size_t without_pitr_count;
} CollectOptions;

/* Somebody who makes the collector keep things: a reader's pin, an attempt without a fate. */
typedef struct {
    bool is_pin;
    char name[BACKUP_ID_LENGTH + 1]; /* token of a pin, id of an attempt */
    char host[65];                   /* "" when the attempt does not say */
    int64_t since_us;
} CollectHolder;

typedef struct {
    /* Deleted; in a dry run: what would be deleted now. */
    uint64_t packs, map_packs, wal_files, bytes;
    size_t
        backups_swept; /* expired backups and dead attempts that nothing but the grave is left of */
    /* Condemned, and deleted by a run after `waiting_until_us` by our clock. */
    bool waiting;
    uint64_t waiting_packs, waiting_bytes;
    size_t waiting_backups;
    int64_t waiting_until_us;
    size_t given_back; /* condemned, but alive again when we looked a second time */
    size_t pending;    /* backups whose un-expire did not finish: kept */
    Removals removals; /* what was deleted, and what may not be and stays (a lock, a policy) */
    IncarnationTrouble unread_incarnations; /* whose WAL was not looked at, and stays */
    bool clock_jumped; /* a condemn list is dated in the future and counts for nothing */
    size_t holder_count;
    CollectHolder holders[COLLECT_HOLDERS_LISTED];
} CollectReport;

/* The grace that this storage gets by default, in seconds. */
int64_t collect_default_grace(const Repository *repository);

/*
 * One run: deletes what earlier runs condemned at least `grace` ago and is still unneeded, and
 * condemns what is newly unneeded. report_out is written on success.
 */
bool collect_run(Repository *repository, const CollectOptions *options, CollectReport *report_out,
                 CairnError *err) MUST_CHECK;

/*
 * Takes the expiry of a backup back, in two steps (see collect_unexpire.c). REFUSED when it is not
 * expired, or when a collector is deleting it or has.
 */
bool collect_unexpire(Repository *repository, const char *cluster, const BackupId *bid,
                      const char *reason, CairnError *err) MUST_CHECK;

#endif
