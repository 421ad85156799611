#include "postgres/wal_slot.h"

#include "postgres/wal_name.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool
wal_slot_name_check(const char *name, CairnError *err)
{
    const size_t size = strlen(name);

    if (size > 0 && size <= WAL_SLOT_NAME_LIMIT &&
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == size)
        return true;
    cairn_error(err, CAIRN_USAGE, "'%.100s' is no name of a replication slot", name);
    return cairn_error_hint(err, "1 to %d of a-z, 0-9 and _", WAL_SLOT_NAME_LIMIT);
}

/* A command about a slot; sqlstate's kind is the caller's to refine. */
static PGresult *
slot_command(Connection *connection, const char *format, const char *name, int columns, int rows,
             CairnError *err)
{
    char command[160];

    if (!wal_slot_name_check(name, err))
        return NULL;
    snprintf(command, sizeof command, format, name);
    PGresult *result =
        connection_query(connection, command, NULL,
                         (QueryShape){.columns = columns, .min_rows = rows, .max_rows = rows}, err);
    if (result == NULL)
        cairn_error_wrap(err, "replication slot '%s'", name);
    return result;
}

bool
wal_slot_create(Connection *connection, const char *name, CairnError *err)
{
    SCOPED_RESULT result = slot_command(
        connection, "CREATE_REPLICATION_SLOT %s PHYSICAL (RESERVE_WAL)", name, 4, 1, err);

    if (result != NULL)
        return true;
    if (strcmp(err->sqlstate, "42710") == 0)
        err->kind = CAIRN_CONFLICT;
    if (strcmp(err->sqlstate, "53400") == 0) {
        err->kind = CAIRN_REFUSED;
        cairn_error_hint(err, "drop a slot that nobody uses, or raise max_replication_slots");
    }
    return false;
}

bool
wal_slot_drop(Connection *connection, const char *name, CairnError *err)
{
    SCOPED_RESULT result = slot_command(connection, "DROP_REPLICATION_SLOT %s", name, 0, 0, err);

    if (result != NULL)
        return true;
    if (strcmp(err->sqlstate, "42704") == 0)
        err->kind = CAIRN_NOT_FOUND;
    if (strcmp(err->sqlstate, "55006") == 0)
        cairn_error_hint(err, "a receiver is using it: stop that first");
    return false;
}

bool
wal_slot_read(Connection *connection, const char *name, WalSlot *slot_out, CairnError *err)
{
    WalSlot slot = {0};
    SCOPED_RESULT result = slot_command(connection, "READ_REPLICATION_SLOT %s", name, 3, 1, err);

    if (result == NULL)
        return false;
    slot.exists = !PQgetisnull(result, 0, 0);
    slot.reserved = slot.exists && !PQgetisnull(result, 0, 1) && !PQgetisnull(result, 0, 2);
    if (slot.reserved) {
        char *end = NULL;
        errno = 0;
        const unsigned long long timeline = strtoull(PQgetvalue(result, 0, 2), &end, 10);
        if (errno != 0 || *end != '\0' || timeline == 0 || timeline > UINT32_MAX ||
            !lsn_parse(PQgetvalue(result, 0, 1), &slot.restart_lsn) || slot.restart_lsn == 0)
            return cairn_error(err, CAIRN_UNSUPPORTED, "replication slot '%s': not understood",
                               name);
        slot.restart_timeline = (uint32_t)timeline;
    }
    *slot_out = slot;
    return true;
}
