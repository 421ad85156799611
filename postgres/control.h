/*
 * global/pg_control (facts 8): read, never written.
 */
#ifndef PGCAIRN_POSTGRES_CONTROL_H
#define PGCAIRN_POSTGRES_CONTROL_H

#include "common/error.h"
#include "common/world.h"

#include <stdint.h>

enum { CONTROL_FILE_SIZE = 8192 };

typedef enum {
    CONTROL_STARTING_UP,
    CONTROL_SHUT_DOWN,
    CONTROL_SHUT_DOWN_IN_RECOVERY,
    CONTROL_SHUTTING_DOWN,
    CONTROL_IN_CRASH_RECOVERY,
    CONTROL_IN_ARCHIVE_RECOVERY,
    CONTROL_IN_PRODUCTION,
} ControlState;

typedef struct {
    int major; /* from pg_control_version and catalog version */
    uint64_t system_id;
    uint32_t control_version;
    uint32_t catalog_version;
    ControlState state;
    uint64_t checkpoint_lsn;
    uint64_t redo_lsn;
    uint32_t checkpoint_timeline;
    int64_t checkpoint_time_s;
    uint64_t min_recovery_lsn;
    uint32_t min_recovery_timeline;
    int32_t wal_level; /* 0 minimal, 1 replica, 2 logical */
    int32_t max_connections;
    int32_t max_worker_processes;
    int32_t max_wal_senders;
    int32_t max_prepared_xacts;
    int32_t max_locks_per_xact;
    uint32_t block_size;
    uint32_t relation_segment_blocks;
    uint32_t wal_block_size;
    uint32_t wal_segment_size;
    uint32_t data_checksum_version; /* 0 off */
} ControlFile;

/* CORRUPT for a wrong CRC or size, UNSUPPORTED for an unknown version, MISMATCH for foreign byte
   order or a block size other than 8192. */
bool control_parse(const void *data, size_t size, ControlFile *control_out,
                   CairnError *err) MUST_CHECK;
/* Of a data directory, whose server may run: it rewrites the file in place, so a torn read is tried
 * again for half a second. */
bool control_read(const World *world, int pgdata_fd, ControlFile *control_out,
                  CairnError *err) MUST_CHECK;

#endif
