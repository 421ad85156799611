/*
 * What the server waits to have archived: pg_wal/archive_status/<name>.ready, the first of them in
 * the order in which the server asks for them (history files first, then by name).
 *
 * Memory: READY_LIMIT names, however many are ready; the server looks as far ahead itself. Errors:
 * by errno; a name that PostgreSQL would not archive is passed over. Threads: any, one list each.
 */
#ifndef PGCAIRN_WALARCHIVE_READY_LIST_H
#define PGCAIRN_WALARCHIVE_READY_LIST_H

#include "common/error.h"
#include "common/world.h"
#include "postgres/wal_name.h"

#include <stdbool.h>
#include <stddef.h>

enum { READY_LIMIT = 64 };

typedef struct {
    char names[READY_LIMIT][WAL_FILE_NAME_LIMIT];
    size_t count;
    size_t total; /* all that are ready, also those beyond the limit */
} ReadyList;

bool ready_list_read(const World *world, int pgdata_fd, ReadyList *list_out,
                     CairnError *err) MUST_CHECK;

/* Is any ready but `name`? Ends at the first one found; false also when it cannot be told. */
bool ready_list_has_other(const World *world, int pgdata_fd, const char *name);

/* Is `name` still ready? True when it cannot be told. */
bool ready_list_holds(const World *world, int pgdata_fd, const char *name);

#endif
