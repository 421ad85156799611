/*
 * One target, one backup, one path of timelines: would recovery stop there? (Part of plan.)
 */
#ifndef PGCAIRN_RESTORE_PLAN_TARGET_H
#define PGCAIRN_RESTORE_PLAN_TARGET_H

#include "restore/plan.h"

typedef enum {
    REACH_PROVEN,
    REACH_OLDER_BACKUP, /* the target lies before this backup is consistent */
    REACH_ABSENT,       /* the unbroken WAL from this backup on does not hold the target */
    REACH_AMBIGUOUS,    /* several restore points of that name */
    REACH_INCOMPLETE,   /* the backup's own WAL is not all there */
} ReachVerdict;

typedef struct {
    ReachVerdict verdict;
    StopPoint stop; /* the rest: when PROVEN */
    const char *setting;
    char value[PLAN_VALUE_SIZE];
    bool inclusive;
    char why[256]; /* when not */
} Reach;

typedef struct {
    WalArchive *archive;
    const Target *target;
    const Fate *backup;
    const TimelineHistory *path;
    uint64_t
        until_lsn; /* records from here on were looked at before, without success; UINT64_MAX */
    bool first_of_name; /* several restore points of one name: the first is meant */
} ReachQuery;

/* End of the last segment that is stored for a path, whatever is missing before it. */
uint64_t plan_stored_end(const WalArchive *archive, const TimelineHistory *path,
                         uint32_t segment_size);
bool plan_reach(const ReachQuery *query, Reach *reach_out, CairnError *err) MUST_CHECK;

#endif
