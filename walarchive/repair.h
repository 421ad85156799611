/*
 * repair: segments that are missing from the repository, looked for where they may still be, and
 * stored. And what comes right behind the end of what is stored, as far as a place has it.
 *
 * Looked for: everything that a recovery from the oldest backup on could want (wal_missing.h), and
 * history files of timelines whose origin nobody can tell. Where: directories of WAL (pg_wal of
 * this or of another node, an overflow or spool directory), and other repositories of the same
 * cluster. A segment is taken only when it is of this system and place, when its records can be
 * read to its end, and when they continue those of stored neighbours. A history, which does not say
 * whose it is, is taken from a directory only when pg_control beside it, or the segments in it, are
 * of this system, and from anywhere only when the stored WAL of its timeline agrees with it. It is
 * copied before it is looked at, since a running server may recycle the file meanwhile; storing is
 * as safe as a push.
 *
 * Errors: what a place does not have or has damaged is said of the segment, and the next place is
 * tried; only the repository's own failures are errors. Crash: what was stored stays. Threads: one.
 */
#ifndef PGCAIRN_WALARCHIVE_REPAIR_H
#define PGCAIRN_WALARCHIVE_REPAIR_H

#include "common/arena.h"
#include "common/config.h"
#include "common/world.h"
#include "postgres/wal_name.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REPAIR_PLACES_LIMIT = 64 };

typedef struct {
    const World *world;
    const RepositoryConfig *repository;
    const char *cluster;
    const char *const *directories; /* a data directory counts as its pg_wal */
    size_t directory_count;
    const RepositoryConfig *const *others; /* repositories to look into */
    size_t other_count;
    const char *overflow_path; /* of this host; NULL: none */
    bool dry_run;              /* look, store nothing */
} RepairOptions;

typedef struct {
    char name[WAL_FILE_NAME_LIMIT];
    bool found;         /* and stored, unless dry_run */
    const char *place;  /* where it was found; NULL: nowhere */
    const char *reason; /* why what was there is of no use; NULL: nothing was there */
    bool acknowledged;  /* still missing, and somebody decided to live with that */
} RepairFile;

typedef struct {
    Arena *arena;
    RepairFile *files; /* that were missing: histories first, then segments, ascending */
    size_t count;
    size_t found_count;
    uint64_t more;       /* missing ones that did not fit: run it again */
    const char **places; /* that were looked into */
    size_t place_count;
    const char **problems; /* places that could not be looked into, and why */
    size_t problem_count;
} RepairReport;

RepairReport *repair_run(const RepairOptions *options, CairnError *err) MUST_CHECK;
void repair_report_free(RepairReport *report);
SCOPED_TYPE(RepairReport, repair_report_free);

#endif
