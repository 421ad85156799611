/*
 * The data directory that a WAL command works for: found, opened, and asked whose it is.
 *
 * PostgreSQL runs archive_command and restore_command in the data directory and names files below
 * it, so a relative path means the current directory; an absolute one must be <data
 * directory>/pg_wal/<file>. Errors: USAGE when it cannot be told, with what to say instead.
 */
#ifndef PGCAIRN_WALARCHIVE_DATA_DIRECTORY_H
#define PGCAIRN_WALARCHIVE_DATA_DIRECTORY_H

#include "common/error.h"
#include "common/world.h"
#include "postgres/control.h"

/* pgdata: what the user said, or NULL. path: the %p of PostgreSQL. The descriptor is the caller's;
   -1 on failure. */
int data_directory_open(const World *world, const char *pgdata, const char *path,
                        CairnError *err) MUST_CHECK;

/* Whose it is: control_read. */
bool data_directory_control(const World *world, int pgdata_fd, ControlFile *control_out,
                            CairnError *err) MUST_CHECK;

#endif
