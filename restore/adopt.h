/*
 * A restored copy becomes a cluster that archives: under a name of its own, or in the original's
 * place.
 *
 * Rewrites the identity file, lets the history files of timelines that began here be archived, and
 * takes our archive_mode=off out of postgresql.auto.conf. A running server sees the latter at its
 * next restart. Errors: NOT_FOUND (no data directory), USAGE (neither copy nor standby, bad name),
 * REFUSED (the original's place, for a copy that goes on in the original's timeline), CORRUPT
 * settings or history. Crash: running again completes it.
 */
#ifndef PGCAIRN_RESTORE_ADOPT_H
#define PGCAIRN_RESTORE_ADOPT_H

#include "common/world.h"
#include "repository/identity.h"

typedef struct {
    Identity identity;        /* what the file says now */
    size_t history_count;     /* history files that wait to be archived */
    uint32_t silent_timeline; /* one that began while nothing was archived; 0: there is none */
    uint64_t silent_from_lsn; /* where it began: not all of its WAL from here on will be archived */
} Adopted;

/* as_cluster NULL: the original's place. */
bool adopt_run(const World *world, const char *pgdata, const char *as_cluster, Adopted *adopted_out,
               CairnError *err) MUST_CHECK;

#endif
