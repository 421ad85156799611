/*
 * Physical replication slots, over a replication connection (facts 2.4).
 *
 * Errors: USAGE for a name that no slot can have, CONFLICT (create: it exists), NOT_FOUND (drop: it
 * does not), REFUSED (in use), and what the connection says. Threads: the connection's.
 */
#ifndef PGCAIRN_POSTGRES_WAL_SLOT_H
#define PGCAIRN_POSTGRES_WAL_SLOT_H

#include "postgres/connection.h"

enum { WAL_SLOT_NAME_LIMIT = 63 };

typedef struct {
    bool exists;
    bool reserved; /* it holds WAL from restart_lsn on */
    uint64_t restart_lsn;
    uint32_t restart_timeline;
} WalSlot;

bool wal_slot_name_check(const char *name, CairnError *err) MUST_CHECK;
/* Reserves WAL at once: without that it would hold nothing until the first report. */
bool wal_slot_create(Connection *connection, const char *name, CairnError *err) MUST_CHECK;
bool wal_slot_drop(Connection *connection, const char *name, CairnError *err) MUST_CHECK;
bool wal_slot_read(Connection *connection, const char *name, WalSlot *slot_out,
                   CairnError *err) MUST_CHECK;

#endif
