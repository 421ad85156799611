/*
 * Between the files that make up targets.h: targets.c (the question), targets_files.c (which names
 * to believe), targets_follow.c (what became of a table's file), targets_database.c (DROP
 * DATABASE), targets_around.c (commits near a time).
 */
#ifndef PGCAIRN_RESTORE_TARGETS_INTERN_H
#define PGCAIRN_RESTORE_TARGETS_INTERN_H

#include "restore/targets.h"

typedef struct {
    Repository *repository;
    const TargetsOptions *options;
    Targets *result;
    WalArchive *archive;
    WalLedger *ledger;
    const TimelineHistory *path; /* searched */
    PlanCandidates candidates;   /* newest first, restorable */
    const NamedFiles *live;      /* of this system; NULL: not known */
} TargetsSearch;

/* False when there is no room: it is counted as left out. */
Moment *targets_add(TargetsSearch *search);

void targets_sort(Targets *result);

/* One stretch of WAL: from where names were true to where newer ones were. */
typedef struct {
    const NamedFiles *files;
    const NamedFiles *later; /* what newer names, or a running server, still know; may be NULL */
    uint64_t from_lsn;
    uint64_t to_lsn;
    bool backwards; /* the names are those of now: what made these files? */
} FollowRequest;
/* Adds a moment for each commit in it that took a file away, or gave its table another one. */
bool targets_follow(TargetsSearch *search, const FollowRequest *request,
                    CairnError *err) MUST_CHECK;

/* Moments before whatever took away the files that are asked for. */
bool targets_search_files(TargetsSearch *search, CairnError *err) MUST_CHECK;
bool targets_search_database(TargetsSearch *search, CairnError *err) MUST_CHECK;
bool targets_search_around(TargetsSearch *search, CairnError *err) MUST_CHECK;

/* What "was not found" rests on: "from A to B", and what of it could not be looked at. */
enum { TARGETS_SEARCHED_SIZE = 200 };
void targets_searched(const TargetsSearch *search, char text[TARGETS_SEARCHED_SIZE]);

/* The first byte of what DROP DATABASE wrote of itself, whose removal of files is at lsn. */
bool targets_before_database_drop(TargetsSearch *search, uint64_t lsn, uint32_t xid,
                                  uint64_t *before_out, CairnError *err) MUST_CHECK;

#endif
