/*
 * A backup put into a directory so that PostgreSQL can recover from it: plan, check, write, commit.
 *
 * What holds at every moment: global/pg_control comes last, so half a restore cannot be started;
 * running again works (target_directory.h). Nothing is written or removed before the plan is
 * proven, the directory examined and the space counted. Errors: REFUSED (not empty, server running,
 * unreachable target), NO_SPACE, CORRUPT, and those of plan.h. Threads: one caller; `jobs` workers
 * inside.
 */
#ifndef PGCAIRN_RESTORE_RESTORE_H
#define PGCAIRN_RESTORE_RESTORE_H

#include "common/config.h"
#include "restore/plan.h"
#include "restore/settings.h"
#include "restore/wal_tail.h"

typedef enum { AS_UNSAID, AS_ORIGINAL, AS_CLONE, AS_STANDBY } RestoreAsChoice;

enum { RESTORE_JOBS_DEFAULT = 2 };

typedef struct {
    const World *world;
    Repository *repository;
    bool all_repositories; /* recovery asks every one that the cluster names for WAL, not this alone
                            */
    const char *cluster;
    const char *pgdata;      /* the cluster's configured one, or NULL */
    const char *config_file; /* that pgcairn-wal shall read; NULL: none */
    const char *wal_program; /* absolute path of pgcairn-wal */
    const char *to;
    Target target;
    const char *set;
    RestoreAsChoice as;
    const char *const *tablespace_mappings;
    size_t tablespace_mapping_count;
    bool no_wal;
    bool force;
    bool dry_run;
    int jobs;                  /* 0: default */
    uint64_t max_memory_bytes; /* 0: not bounded; see restore_memory.h */
    bool show_progress;
} RestoreOptions;

enum { RESTORE_PATH_SIZE = 4096 };

typedef struct {
    Catalog *catalog;  /* owned; the plan borrows from it */
    RestorePlan *plan; /* owned */
    char directory[RESTORE_PATH_SIZE];
    RestoreAs as;
    bool dry_run;
    bool wal_laid;
    size_t rescued_count;
    WalTail tail;                 /* replayed although it is no whole segment, when laid */
    char kept[WAL_NAME_SIZE + 8]; /* WAL in the repository that is not replayed, from kept_lsn */
    uint64_t kept_lsn;
    uint64_t file_count;
    uint64_t size_bytes;
    int64_t duration_us;
    bool made_up_hba;   /* no pg_hba.conf was in the backup */
    bool original_here; /* the cluster's configured pgdata is on this host: its port is taken */
    bool made_up_main;  /* no postgresql.conf was */
} RestoreResult;

bool restore_run(const RestoreOptions *options, RestoreResult *result_out,
                 CairnError *err) MUST_CHECK;
void restore_result_free(RestoreResult *result);

/* For people: what was done, what is proven, what to type next. */
void restore_describe(const RestoreResult *result, ByteWriter *text);
/* The lines to type, each ended by a newline; also part of restore_describe. */
void restore_next_steps(const RestoreResult *result, ByteWriter *text);

#endif
