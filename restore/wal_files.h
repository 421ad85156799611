/*
 * WAL beside a restore: the backup's own segments into the new pg_wal, and what an old pg_wal had
 * not archived yet into the repository.
 */
#ifndef PGCAIRN_RESTORE_WAL_FILES_H
#define PGCAIRN_RESTORE_WAL_FILES_H

#include "repository/wal_store.h"
#include "restore/plan.h"
#include "restore/target_directory.h"

/* How many segments the backup needs from its start to its stop. */
uint64_t wal_files_count(const RestorePlan *plan);

/* Reads all that wal_files_lay will lay: what is damaged must be known before the target changes.
 */
bool wal_files_check(WalStore *store, const RestorePlan *plan, CairnError *err) MUST_CHECK;

/* Segments of start..stop and the history of the timeline, each marked as archived (.done). */
bool wal_files_lay(WalStore *store, const RestorePlan *plan, const World *world,
                   TargetDirectory *directory, CairnError *err) MUST_CHECK;

/* What an old pg_wal says of itself. */
typedef struct {
    bool waits;      /* a file there waits to be archived (.ready), or may: no archive_status */
    bool identified; /* a segment tells whose it is; one that waits is asked before others */
    uint64_t system_id;
    int major;
} WalFilesOwner;
bool wal_files_find_owner(const World *world, int pgdata_fd, WalFilesOwner *owner_out,
                          CairnError *err) MUST_CHECK;

typedef struct {
    size_t count;                    /* files that were new to the repository */
    char partial[WAL_NAME_SIZE + 8]; /* stored so: the newest timeline's first; empty: none is */
    uint64_t partial_lsn;
} Rescued;

/*
 * Every file of the old pg_wal that waits to be archived (.ready), stored; and the segment that was
 * being written, from the last checkpoint on, as .partial. pgdata_fd: the old data directory.
 *
 * Where pg_wal has no archive_status, every file there waits: a segment that the next one follows,
 * and whose records go on into it, is stored whole, any other as .partial; a warning says so.
 * MISMATCH when there is WAL of another system.
 */
bool wal_files_rescue(WalStore *store, const World *world, int pgdata_fd, uint64_t checkpoint_lsn,
                      Rescued *rescued_out, CairnError *err) MUST_CHECK;

#endif
