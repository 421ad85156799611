/*
 * The segment that the old cluster was writing when it ended. It is no whole segment, so the
 * repository holds it as `.partial`, which recovery never asks for: the last commits are in it.
 * Under its plain name in the new pg_wal it is replayed up to the end of its records.
 */
#ifndef PGCAIRN_RESTORE_WAL_TAIL_H
#define PGCAIRN_RESTORE_WAL_TAIL_H

#include "repository/wal_store.h"
#include "restore/plan.h"
#include "restore/target_directory.h"

typedef struct {
    bool stored;              /* as .partial, and the plan's WAL ends exactly where it begins */
    char name[WAL_NAME_SIZE]; /* of the segment */
    uint64_t start_lsn;       /* of the segment */
    char obstacle[160];       /* why it is not replayed; empty: it can be */
    bool laid;
    StopPoint stop; /* when laid: where recovery ends now */
} WalTail;

/* Only plans to the end of the WAL have one. */
bool wal_tail_find(WalStore *store, const RestorePlan *plan, WalTail *tail_out,
                   CairnError *err) MUST_CHECK;

/*
 * Lays it and reads it: records must follow the plan's last one without a break, otherwise it is
 * taken away again and tail->obstacle says why. old_fd: open on the old cluster's file (borrowed);
 * -1: the one stored version serves. Marked neither .done nor .ready: it is not archived whole.
 */
bool wal_tail_lay(WalStore *store, const RestorePlan *plan, const World *world,
                  TargetDirectory *directory, int old_fd, WalTail *tail,
                  CairnError *err) MUST_CHECK;

#endif
