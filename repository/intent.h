/*
 * The intent of an attempt: who makes it, and what it may refer to beside what it makes itself
 * (docs/format.md, "Intent"). Written by commit.c, first of all objects of an attempt.
 *
 * Ownership: freed with intent_free. Threads: one thread. Errors: NOT_FOUND; CORRUPT and the like
 * name the object: an intent that cannot be read is never one that claims nothing.
 */
#ifndef PGCAIRN_REPOSITORY_INTENT_H
#define PGCAIRN_REPOSITORY_INTENT_H

#include "repository/backup_id.h"
#include "repository/host.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { INTENT_SALVAGE_LIMIT = 4096 };

typedef struct {
    char token[17];
    Host host;
    int64_t started_us; /* of the writer's clock: for people */
    uint64_t system_id;
    int major;
    char type[16];
    BackupId parent; /* "": none */
    BackupId *salvage;
    size_t salvage_count;
    bool has_wal_floor;
    uint64_t wal_floor_lsn;
} Intent;

Intent *intent_read(Repository *repository, const char *cluster, const BackupId *bid,
                    CairnError *err) MUST_CHECK;
void intent_free(Intent *intent);
SCOPED_TYPE(Intent, intent_free);

#endif
