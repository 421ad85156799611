/*
 * BASE_BACKUP over a replication connection (facts 3): the stream of archives and the manifest.
 *
 * The caller gets checked tar members with cluster paths (tablespaces are pg_tblspc/<oid>/...),
 * their data, and the manifest's bytes; every byte of the stream has been accounted for when the
 * call returns true. A server ERROR after the end LSN with SQLSTATE XX001 (checksum failures) is no
 * failure of the copy: result.checksum_error is set, and the backup is damaged. Threads: one
 * thread, callbacks run inside the call.
 */
#ifndef PGCAIRN_POSTGRES_BASEBACKUP_H
#define PGCAIRN_POSTGRES_BASEBACKUP_H

#include "common/arena.h"
#include "postgres/backup_label.h"
#include "postgres/connection.h"
#include "postgres/tar.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const char *label; /* for backup_label: no newline */
    bool fast_checkpoint;
    uint32_t max_rate_kb; /* 0: unlimited */
    bool progress;        /* ask the server for the total */
} BaseBackupOptions;

typedef struct {
    /* After the start checkpoint, before the first member. total_bytes 0 when unknown. */
    bool (*started)(void *context, uint64_t start_lsn, uint32_t timeline,
                    const Tablespace *tablespaces, size_t tablespace_count, uint64_t total_bytes,
                    CairnError *err);
    bool (*member)(void *context, const TarMember *member, CairnError *err);
    bool (*data)(void *context, const uint8_t *data, size_t size, CairnError *err);
    bool (*member_end)(void *context, CairnError *err);
    bool (*manifest)(void *context, const uint8_t *data, size_t size, CairnError *err);
    void (*notice)(void *context, const char *severity, const char *message);
} BaseBackupCallbacks;

typedef struct {
    uint64_t start_lsn;
    uint32_t start_timeline;
    uint64_t stop_lsn;
    uint32_t stop_timeline;
    bool checksum_error;
} BaseBackupResult;

bool basebackup_run(Connection *connection, const BaseBackupOptions *options,
                    const BaseBackupCallbacks *callbacks, void *context,
                    BaseBackupResult *result_out, CairnError *err) MUST_CHECK;

/* IDENTIFY_SYSTEM. */
bool identify_system(Connection *connection, uint64_t *system_id_out, uint32_t *timeline_out,
                     CairnError *err) MUST_CHECK;

/* TIMELINE_HISTORY: content of <timeline>.history as the server has it, malloc'ed. */
char *timeline_history_ask(Connection *connection, uint32_t timeline, size_t *size_out,
                           CairnError *err) MUST_CHECK;

#endif
