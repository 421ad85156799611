/*
 * The commit protocol: how an attempt comes to be a backup, or never does (docs/format.md, "Fate").
 *
 * What: the id, the intent, the last look and the single-use fate, which is the one thing that
 * makes a backup exist. Not the packs, the map and refs: the caller makes those in between, each
 * durable by itself, below commit_id's name.
 * Ownership: a Commit copies its options' ids; the cluster's name and the repository are borrowed
 * as long as it lives. Threads: one thread.
 * Errors: REFUSED when another process revoked the attempt or may not let it go on (the hint says
 * to run again); anything of the storage. After a failure of commit_publish free the commit; where
 * the fate may be there all the same, nothing of the attempt is removed.
 * Crash: each step's remains are listed in commit.c; before the fate exists there is no backup.
 *
 *     commit_begin, { packs, map, refs below commit_id }, commit_publish, commit_free
 */
#ifndef PGCAIRN_REPOSITORY_COMMIT_H
#define PGCAIRN_REPOSITORY_COMMIT_H

#include "repository/backup_id.h"
#include "repository/fate.h"
#include "repository/repository.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *cluster;
    uint64_t system_id;
    int major;
    const char *type;        /* "full" | "incr" | "diff"; borrowed for the call */
    uint64_t wal_floor_lsn;  /* 0: unknown */
    const BackupId *parent;  /* whose packs the backup may refer to; NULL: none */
    const BackupId *salvage; /* dead attempts whose packs it may refer to */
    size_t salvage_count;
} CommitOptions;

typedef struct Commit Commit;

/* Revokes dead attempts of this host, draws an id, makes the intent durable and claims the sources:
 * REFUSED when one of them may not be referred to (claim.h). */
Commit *commit_begin(Repository *repository, const CommitOptions *options,
                     CairnError *err) MUST_CHECK;

/* The attempt's id, and the token that its intent and fate carry; valid as long as the commit. */
const BackupId *commit_id(const Commit *commit);
const char *commit_token(const Commit *commit);

/*
 * Publishes: fate describes data that is durable already. Sets its bid, token and what it says of
 * the backup before it. True: the backup exists and survives a power cut.
 */
bool commit_publish(Commit *commit, Fate *fate, CairnError *err) MUST_CHECK;

/* The attempt failed for want of space: commit_free removes its packs instead of leaving them for
   the next one to salvage. */
void commit_drop_packs(Commit *commit);
/* Not published: revokes the attempt. */
void commit_free(Commit *commit);
SCOPED_TYPE(Commit, commit_free);

#endif
