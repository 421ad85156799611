/*
 * The history file of a server's timeline, kept in the repository. Inside agent/ only.
 *
 * A server archives a history file once, at the promotion. A cluster that was promoted before it
 * archived here has it in pg_wal only, and without it PostgreSQL refuses to recover on the
 * timeline.
 */
#ifndef PGCAIRN_AGENT_TIMELINE_KEEP_H
#define PGCAIRN_AGENT_TIMELINE_KEEP_H

#include "postgres/connection.h"
#include "repository/wal_store.h"

/*
 * Asks the server for it where the repository lacks it. True also when the server has none:
 * *lacking_out then says why, and is empty otherwise. False: storage failed, or the connection.
 */
enum { TIMELINE_LACKING_SIZE = 320 };
bool timeline_keep(Repository *repository, const char *cluster, const Incarnation *incarnation,
                   Connection *replication, uint32_t timeline,
                   char lacking_out[TIMELINE_LACKING_SIZE], CairnError *err) MUST_CHECK;

#endif
