/*
 * A restored copy becomes a cluster that archives: under a name of its own, or in the original's
 * place.
 *
 * Rewrites the identity file and takes our archive_mode=off out of postgresql.auto.conf. A running
 * server sees the latter at its next restart. Errors: NOT_FOUND (no data directory), USAGE (neither
 * copy nor standby, bad name), CORRUPT settings.
 */
#ifndef PGCAIRN_RESTORE_ADOPT_H
#define PGCAIRN_RESTORE_ADOPT_H

#include "common/world.h"
#include "repository/identity.h"

/* as_cluster NULL: the original's place. identity_out: what the file says now. */
bool adopt_run(const World *world, const char *pgdata, const char *as_cluster,
               Identity *identity_out, CairnError *err) MUST_CHECK;

#endif
