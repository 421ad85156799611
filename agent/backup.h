/*
 * Takes a backup of a running server into a repository: a full one, or one that stores only what
 * changed since its parent. Either is a complete map of the cluster.
 *
 * The steps: ask the server who it is, choose a parent, write the intent, capture configuration
 * outside the data directory, receive BASE_BACKUP into packs, check the server's manifest file by
 * file, commit, and wait for the WAL of start..stop. Errors: those of server and storage; nothing
 * half-published is left. A report is filled once the backup is committed, also when what follows
 * is not good: see BackupOutcome. Threads: the caller's, plus the repository's pipeline.
 */
#ifndef PGCAIRN_AGENT_BACKUP_H
#define PGCAIRN_AGENT_BACKUP_H

#include "common/config.h"
#include "repository/backup_writer.h"
#include "repository/fate.h"
#include "repository/object_locks.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stdint.h>

enum { BACKUP_MISSING_WAL_LISTED = 16 };

typedef enum {
    BACKUP_TYPE_AUTO, /* incremental where there is a usable parent, else full */
    BACKUP_TYPE_FULL, /* every frame anew */
    BACKUP_TYPE_INCR, /* compared with the newest backup */
    BACKUP_TYPE_DIFF, /* compared with the newest full one */
} BackupType;

typedef struct {
    const ClusterConfig *cluster;
    BackupType type;
    unsigned refresh_percent; /* of the cluster: what may be stored anew only to gather it */
    const char *name;         /* --label; NULL: none */
    bool fast_checkpoint;
    bool show_progress;
    int jobs;
    uint32_t max_rate_kb;      /* 0: unlimited */
    uint64_t max_memory_bytes; /* 0: default */
    int wal_timeout_s;
    int server_timeout_s; /* how long the server may be silent before it is asked whether it lives
                           */
} BackupOptions;

/* Committed in any case. */
typedef enum {
    BACKUP_WAL_COMPLETE,
    BACKUP_COPIED,  /* WAL is missing after the time-out */
    BACKUP_DAMAGED, /* the server's pages failed their checksums */
} BackupOutcome;

typedef struct {
    Fate *fate; /* owned by the report */
    BackupOutcome outcome;
    const char *parent_label; /* of the backup that it was compared with, in the fate's arena; NULL:
                                 none */
    char why_full[512];       /* why it is full though that was not asked for; "" when it was */
    BackupCounts counts;
    int lock_days;          /* that all it needs should stay locked; 0: nothing locks */
    ObjectLockCounts locks; /* of what it needs and is older than itself */
    double copy_seconds;
    double wal_wait_seconds;
    size_t missing_wal_count;
    char missing_wal[BACKUP_MISSING_WAL_LISTED][64];
} BackupReport;

void backup_report_free(BackupReport *report);
SCOPED_TYPE(BackupReport, backup_report_free);

/* Returned owned; NULL: there is no backup. */
BackupReport *backup_run(Repository *repository, const BackupOptions *options,
                         CairnError *err) MUST_CHECK;

#endif
