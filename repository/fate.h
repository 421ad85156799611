/*
 * The fate of a backup: the one record that makes it exist, or revokes it for ever (docs/format.md,
 * "Fate").
 *
 * Ownership: strings live in the fate's own arena; fate_free frees all. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_FATE_H
#define PGCAIRN_REPOSITORY_FATE_H

#include "common/arena.h"
#include "repository/backup_id.h"
#include "repository/map.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FATE_CHECKSUM_FAILURES_LISTED = 1000, FATE_WARNINGS_LISTED = 100 };

typedef struct {
    uint32_t oid;
    const char *path;
} FateTablespace;

typedef struct {
    const char *path;
    uint64_t block;
} FateChecksumFailure;

typedef struct {
    Arena *arena;
    bool committed; /* false: REVOKED, and only bid, token and packs_go are filled */
    bool packs_go;  /* revoked by its own writer, which removes its packs: never to be salvaged */
    BackupId bid;
    char token[17];
    const char *label; /* 20261122-233140F */
    const char *name;  /* --label text, or NULL */
    const char *type;  /* "full", "incr", "diff" */
    BackupId parent;   /* whom it was compared with; "" for a full one */
    const char *cluster;
    uint64_t system_id;
    int major;
    const char *server_version;
    bool from_standby;
    uint64_t start_lsn;
    uint32_t start_timeline;
    uint64_t stop_lsn;
    uint32_t stop_timeline;
    uint32_t wal_segment_size;
    int64_t started_us;
    int64_t stopped_us;
    const char *backup_label;
    FateTablespace *tablespaces;
    size_t tablespace_count;
    bool data_checksums;
    bool damaged;
    FateChecksumFailure *checksum_failures; /* the first FATE_CHECKSUM_FAILURES_LISTED */
    size_t checksum_failures_listed;
    uint64_t checksum_failure_count;
    const char **warnings;
    size_t warning_count;
    MapNodeRef map_root;
    uint8_t refs_sha256[SHA256_SIZE];
    uint8_t packs_sha256[SHA256_SIZE];
    uint8_t manifest_sha256[SHA256_SIZE];
    uint32_t pack_count;
    uint32_t map_pack_count;
    uint64_t file_count;
    uint64_t size_bytes;
    uint64_t stored_bytes;
    uint64_t map_bytes;
    BackupId previous_bid; /* the newest committed backup before it, "" when there was none */
    uint8_t previous_sha256[SHA256_SIZE];
} Fate;

Fate *fate_new(void);
void fate_free(Fate *fate);
SCOPED_TYPE(Fate, fate_free);

/* NOT_FOUND: unfinished. Every field is checked. digest_out (may be NULL): the object's SHA-256. */
Fate *fate_read(Repository *repository, const char *cluster, const BackupId *bid,
                uint8_t *digest_out, CairnError *err) MUST_CHECK;
/* Takes the slot with a commit record. CONFLICT when it is taken (fate_read tells by whom). */
bool fate_commit(Repository *repository, const Fate *fate, CairnError *err) MUST_CHECK;
/* Takes the slot with a revocation; CONFLICT when it is taken. The packs stay: others may salvage
 * them from now on, so only a collector removes them. */
bool fate_revoke(Repository *repository, const char *cluster, const BackupId *bid,
                 const char *token, const char *reason, CairnError *err) MUST_CHECK;
/* The same by the attempt's own writer, which removes its packs next: nobody may salvage them. */
bool fate_abandon(Repository *repository, const char *cluster, const BackupId *bid,
                  const char *token, const char *reason, CairnError *err) MUST_CHECK;

#endif
