/*
 * Is archiving falling behind, since when, what waits in pg_wal, and how long the disk lasts.
 *
 * What: one look at a server (archiving_ask), and a judgement of it (archiving_judge, pure). Red
 * within a minute: a file that has waited longer than ARCHIVING_BEHIND_US is behind, one that
 * failed last is failing at once.
 *
 * Units: microseconds since 1970 UTC by the server's clock; bytes. Ownership: plain values, texts
 * in the struct. Errors: what the role may not see is unknown, each part by itself; only an
 * unreachable server is an error. Threads: one thread.
 */
#ifndef PGCAIRN_AGENT_ARCHIVING_H
#define PGCAIRN_AGENT_ARCHIVING_H

#include "common/config.h"
#include "postgres/connection.h"
#include "postgres/wal_name.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ARCHIVING_SLOTS = 16,
    ARCHIVING_SLOT_NAME_SIZE = 64,
    ARCHIVING_TEXT_SIZE = 1024,
    ARCHIVING_RATE_FILES = 3, /* that wait: fewer tell no rate */
};

#define ARCHIVING_BEHIND_US (INT64_C(50) * 1000000)
#define ARCHIVING_SLOT_BYTES (UINT64_C(1) << 30) /* a slot that holds back more is named */

typedef struct {
    char name[ARCHIVING_SLOT_NAME_SIZE];
    bool active;
    bool lost;
    uint64_t held_bytes;
} ArchivingSlot;

typedef struct {
    uint64_t system_id;
    uint32_t segment_size;
    bool archives; /* archive_mode, and for a standby: always */
    int64_t now_us;
    uint64_t lsn; /* that was written, or replayed on a standby */

    /* pg_stat_archiver; 0 and "": never */
    int64_t archived_us, failed_us;
    char archived[WAL_FILE_NAME_LIMIT], failed[WAL_FILE_NAME_LIMIT];
    uint64_t failed_count;

    bool ready_known; /* files in archive_status */
    uint64_t ready_count;
    int64_t ready_oldest_us, ready_newest_us;
    char ready_oldest[WAL_FILE_NAME_LIMIT];

    bool wal_known; /* size of pg_wal */
    uint64_t wal_bytes;
    double average_rate; /* bytes a second since statistics began; 0: not known */

    bool free_known; /* space of pg_wal's file system, where it is this host's */
    uint64_t free_bytes;

    ArchivingSlot slots[ARCHIVING_SLOTS]; /* the ones that hold most */
    size_t slot_count;
} Archiving;

bool archiving_ask(Connection *connection, const World *world, const ClusterConfig *cluster,
                   Archiving *archiving_out, CairnError *err) MUST_CHECK;

typedef enum { ARCHIVING_NONE, ARCHIVING_FINE, ARCHIVING_BEHIND, ARCHIVING_FAILING } ArchivingState;

typedef struct {
    ArchivingState state;
    int64_t since_us; /* BEHIND, FAILING: when the oldest thing that waits became ready */
    uint64_t waiting; /* files; guessed from positions where archive_status is not readable */
    bool waiting_is_guess;
    uint64_t waiting_bytes;
    double rate;          /* of new WAL, bytes a second; 0: not known */
    int64_t disk_lasts_s; /* at that rate; -1: not known */
} ArchivingVerdict;

ArchivingVerdict archiving_judge(const Archiving *archiving);

/* "none", "up-to-date", "behind", "failing" */
const char *archiving_state_name(ArchivingState state);
/* One line for people, without its name in front. */
void archiving_format(const Archiving *archiving, const ArchivingVerdict *verdict,
                      char text_out[ARCHIVING_TEXT_SIZE]);
/* Slots that hold back much, or lost their WAL; false: there is none. */
bool archiving_format_slots(const Archiving *archiving,
                            char text_out[ARCHIVING_TEXT_SIZE]) MUST_CHECK;
json_t *archiving_json(const Archiving *archiving, const ArchivingVerdict *verdict);

#endif
