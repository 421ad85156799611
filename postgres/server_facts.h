/*
 * What a server says about itself, asked once over an SQL connection.
 * Strings live in the arena given. Threads: one thread.
 */
#ifndef PGCAIRN_POSTGRES_SERVER_FACTS_H
#define PGCAIRN_POSTGRES_SERVER_FACTS_H

#include "common/arena.h"
#include "postgres/connection.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int major;
    const char *server_version;
    uint64_t system_id;
    uint32_t wal_segment_size;
    uint32_t block_size;
    bool data_checksums;
    bool in_recovery;
    uint32_t timeline; /* that is written on; of a standby: of its last restartpoint */
    uint64_t redo_lsn; /* of the last checkpoint: a floor for WAL that a backup may need */
    const char *archive_mode;
    const char *archive_command; /* "" when not set */
    const char *archive_library; /* "" when not set */
    /* Settings of pgcairn's archive module; NULL when nothing sets them. */
    const char *module_command;
    const char *module_config;
    const char *module_cluster;
    const char *wal_level;
    const char *full_page_writes;
    const char *data_directory; /* NULL when the role may not read it */
    const char *timezone;
    int max_wal_senders;
    const char *user;
    bool is_superuser;
    bool has_replication;   /* REPLICATION attribute */
    bool may_switch_wal;    /* EXECUTE on pg_switch_wal */
    bool may_read_settings; /* pg_read_all_settings */
    bool may_read_files;    /* pg_read_server_files, or superuser */
    const char
        *in_place_tablespaces; /* comma-separated names, "" when none (facts 3.7: 15 loses them) */
} ServerFacts;

/* UNSUPPORTED for versions outside 15..18 and block sizes other than 8192. */
bool server_facts_read(Connection *connection, Arena *arena, ServerFacts *facts_out,
                       CairnError *err) MUST_CHECK;

#endif
