/*
 * **repo renew**: everything that backups need which are kept (committed and not expired) stays
 * locked for lock-days from now on.
 *
 * That is the descriptor, the key slots, and of each cluster: fates, refs and marks of those
 * backups, the packs that they refer to, incarnations, and all WAL that is stored: what the policy
 * lets go of, collect has removed. Of a backup whose fate or refs cannot be read it is all that
 * lies below its own id. Not what only speeds things up or documents (recovery index, evidence,
 * probes), nor what runs leave behind.
 *
 * Errors: UNSUPPORTED where the storage locks nothing; NOT_FOUND when it has nothing of the
 * cluster; the storage's own for what must be listed. What cannot be locked is counted. Memory:
 * packs as ranges, the catalog of one cluster. Threads: one caller; `jobs` inside.
 */
#ifndef PGCAIRN_REPOSITORY_RENEW_H
#define PGCAIRN_REPOSITORY_RENEW_H

#include "repository/object_locks.h"
#include "repository/repository.h"

typedef struct {
    const char *cluster; /* NULL: all */
    bool only_ask;
    int jobs; /* 0: default */
} RenewOptions;

typedef struct {
    uint64_t backups;    /* that are kept */
    uint64_t unreadable; /* of them, or nobody knows: their fate or refs cannot be read */
    CairnError problem;  /* of the first of those */
    ObjectLockCounts locks;
} RenewReport;

bool renew_run(Repository *repository, const RenewOptions *options, RenewReport *report_out,
               CairnError *err) MUST_CHECK;

#endif
