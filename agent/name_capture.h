/*
 * The names of relations and their files, stored with a backup (docs/format.md, "Names"), so that
 * `pgcairn targets` can tell what WAL dropped.
 *
 * Databases that the role may not connect to are said in one warning of the fate. Errors: the
 * writer's, and a server that does not list its databases. Memory: one row. Threads: one thread.
 */
#ifndef PGCAIRN_AGENT_NAME_CAPTURE_H
#define PGCAIRN_AGENT_NAME_CAPTURE_H

#include "postgres/connection.h"
#include "repository/backup_writer.h"

bool name_capture(const char *conninfo, Connection *server, BackupWriter *writer, Fate *fate,
                  CairnError *err) MUST_CHECK;

#endif
