/*
 * What a push leaves for the server's log, whoever called it: archive_command or the archive
 * module. What the process that pushes ahead has to say gets there this way too.
 */
#ifndef PGCAIRN_CLI_WAL_PUSH_REPORT_H
#define PGCAIRN_CLI_WAL_PUSH_REPORT_H

#include "walarchive/push_all.h"

/* After wal_push_all, whatever it said: the error that it returned is the caller's to tell, those
   of single repositories, where there are several, are told here. */
void wal_push_report_all(const char *path, const WalPushedAll *pushed);

/* What wal_push_ship said. repository: its name, where there are several; else NULL. */
void wal_push_report_shipped(const WalPushed *pushed, const char *repository);

#endif
