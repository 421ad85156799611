/*
 * Waits until every segment that a committed backup needs is in the repository. Inside agent/ only.
 */
#ifndef PGCAIRN_AGENT_WAL_WAIT_H
#define PGCAIRN_AGENT_WAL_WAIT_H

#include "agent/backup.h"
#include "repository/incarnation.h"

/*
 * Looks into our own archive instead of the server's one-second polling. After timeout_s the names
 * that are still missing are in the report: count, and the first BACKUP_MISSING_WAL_LISTED of them.
 * False only for storage errors.
 */
bool wal_wait(Repository *repository, const char *cluster, const Incarnation *incarnation,
              const Fate *fate, int timeout_s, BackupReport *report, CairnError *err) MUST_CHECK;

#endif
