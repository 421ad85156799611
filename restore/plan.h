/*
 * Which backup, which timeline, and where recovery will stop: chosen and proven from the repository
 * before any byte is written.
 *
 * What: PostgreSQL's own rules for targets are played through on the records that the repository
 * holds, so a plan says what the server will do, not what we hope. A target that lies before every
 * backup, in a gap, after the archive's end, or on a branch that no backup reaches is refused, with
 * what can be reached instead in the hint; it is never replaced by something near.
 * Time: targets by LSN, immediate, default: constant in the amount of WAL. By time, xid, name: one
 * pass over the WAL from the newest backup that can serve.
 * Errors: REFUSED (unreachable, ambiguous, incomplete, damaged without force), NOT_FOUND (no such
 * backup, timeline, transaction or restore point), and the repository's own.
 * Ownership: a plan borrows from the catalog. Threads: one thread.
 */
#ifndef PGCAIRN_RESTORE_PLAN_H
#define PGCAIRN_RESTORE_PLAN_H

#include "common/scoped.h"
#include "repository/catalog.h"
#include "repository/wal_archive.h"
#include "restore/target.h"

#include <stdbool.h>
#include <stdint.h>

/* Where recovery stops. end_lsn: everything before it is replayed, nothing after. */
typedef struct {
    bool has_record;
    WalRecord record; /* recovery stops before or after this record */
    bool before;
    uint64_t end_lsn;
    int64_t last_commit_us; /* newest commit or abort that was read below end_lsn; 0: none was */
} StopPoint;

enum { PLAN_VALUE_SIZE = 128 };

typedef struct {
    const CatalogBackup *backup;
    Incarnation incarnation;
    Target target;
    TimelineHistory *path; /* proven path; owned */
    uint32_t timeline;   /* what recovery_target_timeline says; 0: "latest" (standbys) or nothing */
    const char *setting; /* "recovery_target_lsn" and so on; NULL when there is none */
    char value[PLAN_VALUE_SIZE];
    bool inclusive;
    StopPoint stop;
    uint64_t unbroken_end_lsn;      /* of the path's whole segments; 0: not looked for */
    char hole_after[WAL_NAME_SIZE]; /* last whole segment before a hole with more WAL behind it,
                                       when there is a target to stop at; "" else */
    uint32_t closed_by;    /* it can be read, but opens for writing only once the history of this
                              timeline is stored; 0: it opens */
    bool closed_by_damage; /* that history is stored, and unreadable */
} RestorePlan;

typedef struct {
    const char *cluster;
    const char *set;     /* label, BID, "latest" (as if not said) or NULL */
    bool force;          /* a damaged backup is taken when `set` names it */
    bool without_wal;    /* nothing is laid into pg_wal: with TARGET_NONE none needs to be there */
    WalArchive *archive; /* of the newest backup's system, for who makes many plans; NULL: loaded */
} PlanOptions;

RestorePlan *plan_make(Repository *repository, const Catalog *catalog, const Target *target,
                       const PlanOptions *options, CairnError *err) MUST_CHECK;
void plan_free(RestorePlan *plan);
SCOPED_TYPE(RestorePlan, plan_free);

enum { PLAN_STOP_TEXT_SIZE = 320 };
/* "after the restore point 'x' at 0/5000060 (2026-...)": for people. */
void plan_describe_stop(char text[PLAN_STOP_TEXT_SIZE], const RestorePlan *plan);

#endif
