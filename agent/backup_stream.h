/*
 * Receives BASE_BACKUP into a BackupWriter and checks all that can be checked in the stream: clean
 * members, the label, pg_control, the manifest against what streamed. Inside agent/ only.
 */
#ifndef PGCAIRN_AGENT_BACKUP_STREAM_H
#define PGCAIRN_AGENT_BACKUP_STREAM_H

#include "agent/page_checks.h"
#include "common/progress.h"
#include "postgres/basebackup.h"
#include "postgres/server_facts.h"
#include "repository/backup_writer.h"

typedef struct {
    const World *world;
    BackupWriter *writer;
    const ServerFacts *facts;
    PageChecks *checks;
    const char *scratch_directory;
    bool show_progress;
} BackupStreamOptions;

/* Fills the fate's fields about start, stop, label, tablespaces, manifest and warnings. */
bool backup_stream_receive(Connection *connection, const BaseBackupOptions *request,
                           const BackupStreamOptions *options, Fate *fate,
                           CairnError *err) MUST_CHECK;

/* A warning for the backup's record; beyond FATE_WARNINGS_LISTED they are counted away silently. */
void fate_add_warning(Fate *fate, const char *text);

#endif
