/*
 * What the server waits to have archived: pg_wal/archive_status/<name>.ready, the first of them in
 * the order in which the server asks for them.
 *
 * Memory: READY_LIMIT names, however many are ready. Errors: by errno; a name that PostgreSQL would
 * not archive is passed over. Threads: any, one list each.
 */
#ifndef PGCAIRN_WALARCHIVE_READY_LIST_H
#define PGCAIRN_WALARCHIVE_READY_LIST_H

#include "common/error.h"
#include "common/world.h"
#include "postgres/archive_queue.h"

#include <stdbool.h>

enum { READY_LIMIT = ARCHIVE_QUEUE_LIMIT };

typedef ArchiveQueue ReadyList;

bool ready_list_read(const World *world, int pgdata_fd, ReadyList *list_out,
                     CairnError *err) MUST_CHECK;

/* Is any ready but `name`? Ends at the first one found; false also when it cannot be told. */
bool ready_list_has_other(const World *world, int pgdata_fd, const char *name);

/* Is `name` still ready? True when it cannot be told. */
bool ready_list_holds(const World *world, int pgdata_fd, const char *name);

#endif
