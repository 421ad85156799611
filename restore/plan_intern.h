/*
 * What the files of the plan share: plan.c makes it, plan_refuse.c says why none can be made.
 * Nobody else includes this.
 */
#ifndef PGCAIRN_RESTORE_PLAN_INTERN_H
#define PGCAIRN_RESTORE_PLAN_INTERN_H

#include "common/arena.h"
#include "restore/plan.h"
#include "restore/plan_windows.h"

typedef struct {
    Repository *repository;
    const Catalog *catalog;
    const Target *target;
    const PlanOptions *options;
    Arena *arena;
    PlanCandidates candidates;
    bool set_by_hand;     /* one backup, named by --set */
    size_t earlier_count; /* backups of an earlier system, which only --set reaches */
    Incarnation incarnation;
    WalArchive *archive;
} Planner;

/* All of them false, with err filled: why, and what can be reached instead. */
bool plan_refuse(Planner *planner, CairnErrorKind kind, const char *why, CairnError *err);
/*
 * Stored WAL of which nobody knows where it belongs: it may be the newest there is, so it is never
 * passed over. (Where a later timeline's history tells of it, it is no leaf.)
 */
bool plan_refuse_without_history(Planner *planner, uint32_t timeline, CairnErrorKind kind,
                                 const char *more, CairnError *err);
/* Its history is there and unreadable. CORRUPT. more: what that means here, after "is damaged". */
bool plan_refuse_damaged_history(Planner *planner, const WalTimeline *timeline, const char *more,
                                 CairnError *err);

#endif
