/*
 * What one repository stores of a cluster's WAL and another lacks: where one of several fell
 * behind, it shows here, be it a hole or the newest end.
 *
 * Counted from the oldest backup of the one that lacks on, or, where it has none, from its own
 * oldest WAL: what lies before is of no use there. Whole segments only.
 * Memory: the runs of coverage of both. Threads: one.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_LAG_H
#define PGCAIRN_REPOSITORY_WAL_LAG_H

#include "repository/wal_store.h"

typedef struct {
    uint64_t segments;
    char first[WAL_NAME_SIZE], last[WAL_NAME_SIZE]; /* "" when there are none */
    IncarnationTrouble unread; /* systems that are not compared: a record cannot be read */
    bool unread_in_other;      /* the first of these records: in `other` */
} WalLag;

/* Of every system that both know as this cluster, and whose records can be read. */
bool wal_lag_find(Repository *lacking, Repository *other, const char *cluster, WalLag *lag_out,
                  CairnError *err) MUST_CHECK;

/* What `unread` says, and what to do; "" when it says nothing. The names are the repositories'. */
void wal_lag_unread_text(const WalLag *lag, const char *lacking, const char *other, char *text,
                         size_t size);

/* How many segments from `floor` on are in the runs `has` and not in `lacks`, both ascending; the
   first and last of them. */
uint64_t wal_runs_beyond(const WalRun *has, size_t has_count, const WalRun *lacks,
                         size_t lacks_count, uint64_t floor, uint64_t *first_out,
                         uint64_t *last_out);

#endif
