/*
 * The moments that can be reached, as a tree of timelines: on each the windows, from the end of a
 * backup to the end of unbroken WAL, and the holes.
 *
 * What lies before the fork of a timeline is its parent's, and shown there. Units: half-open LSNs,
 * microseconds since 1970 UTC. Memory: a few hundred bytes a timeline, hole and window.
 * Ownership: everything lives in the tree's arena; backups are the catalog's.
 * Errors: the repository's; WAL that cannot be read ends a window and is told there.
 * Threads: one thread.
 */
#ifndef PGCAIRN_RESTORE_WINDOWS_H
#define PGCAIRN_RESTORE_WINDOWS_H

#include "common/arena.h"
#include "repository/wal_archive.h"
#include "restore/plan_windows.h"

typedef struct {
    const CatalogBackup *backup; /* the first one; of a window that began on the parent, there */
    size_t backup_count;         /* usable ones within */
    uint64_t from_lsn, to_lsn;
    int64_t from_us, to_us; /* newest time that a record states; 0: none does */
    bool inherited;         /* it began before the fork: from_lsn is the fork */
    const char *problem;    /* where the WAL cannot be read; NULL */
} Window;

typedef struct {
    uint64_t start_lsn, end_lsn;
    uint64_t segment_count;
    char first_segment[WAL_NAME_SIZE];
    char last_segment[WAL_NAME_SIZE];
    bool acknowledged; /* somebody decided to live with it */
} WindowHole;

typedef struct {
    uint32_t timeline;
    uint32_t parent; /* 0: none, or not known */
    uint64_t fork_lsn;
    bool history_missing;
    const char *history_problem; /* it is there and unreadable: why; NULL */
    bool is_leaf;
    Window *windows;
    size_t window_count;
    WindowHole *holes;
    size_t hole_count;
} WindowTimeline;

typedef struct {
    Arena *arena;
    WindowTimeline *timelines; /* ascending */
    size_t count;
} WindowTree;

/* candidates: as plan_windows.h has them. */
WindowTree *windows_read(WalArchive *archive, const PlanCandidates *candidates,
                         CairnError *err) MUST_CHECK;
void windows_free(WindowTree *tree);
SCOPED_TYPE(WindowTree, windows_free);

#endif
