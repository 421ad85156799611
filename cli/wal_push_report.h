/*
 * What a push leaves for the server's log, whoever called it: archive_command or the archive
 * module. What the process that pushes ahead has to say gets there this way too.
 */
#ifndef PGCAIRN_CLI_WAL_PUSH_REPORT_H
#define PGCAIRN_CLI_WAL_PUSH_REPORT_H

#include "walarchive/push.h"

/* done: what wal_push said; the error of one that failed is the caller's to tell. */
void wal_push_report(const char *path, const WalPushed *pushed, bool done);

/* What wal_push_ship said. */
void wal_push_report_shipped(const WalPushed *pushed);

#endif
