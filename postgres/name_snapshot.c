#include "postgres/name_snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A catalogue of a million relations takes seconds. */
enum { LIST_TIMEOUT_MS = 10 * 60 * 1000 };

static const char LIST_DATABASES_SQL[] =
    "COPY (SELECT oid, dattablespace, datname FROM pg_catalog.pg_database ORDER BY oid) TO STDOUT";
/* Without datallowconn nobody can connect (template0): there is nothing to be told. */
static const char DATABASES_SQL[] =
    "SELECT oid, datname FROM pg_catalog.pg_database WHERE datallowconn ORDER BY oid";
/* Somebody who rewrites pg_class must not keep a backup waiting. */
static const char LOCK_TIMEOUT_SQL[] = "SELECT pg_catalog.set_config('lock_timeout', '10s', false)";
/* Partitions after all others, so that a reader has met their table. */
static const char RELATIONS_SQL[] =
    "COPY (SELECT c.oid, COALESCE(pg_catalog.pg_relation_filenode(c.oid), 0),"
    " CASE WHEN c.reltablespace = 0 THEN d.dattablespace ELSE c.reltablespace END,"
    " CASE WHEN c.relispartition THEN COALESCE(pg_catalog.pg_partition_root(c.oid)::oid, 0) ELSE 0 "
    "END,"
    " c.relkind, n.nspname, c.relname"
    " FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " CROSS JOIN (SELECT dattablespace FROM pg_catalog.pg_database"
    " WHERE datname = pg_catalog.current_database()) d"
    " WHERE c.relkind IN ('r', 'i', 'S', 't', 'm', 'p') AND c.relpersistence <> 't'"
    " ORDER BY c.relispartition) TO STDOUT";

void
name_entry_format(char entry[NAME_ENTRY_SIZE], uint32_t database_oid)
{
    snprintf(entry, NAME_ENTRY_SIZE, "names/%" PRIu32, database_oid);
}

/* Rows of one list; the list begins with its first row, so that what never came is no list. */
typedef struct {
    const NameSink *sink;
    const char *entry;
    bool begun;
    bool sink_failed;
} ListCopy;

static bool
take_row(void *context, const void *data, size_t size, CairnError *err)
{
    ListCopy *copy = context;
    const NameSink *sink = copy->sink;
    if (!copy->begun && !sink->begin(sink->context, copy->entry, err)) {
        copy->sink_failed = true;
        return false;
    }
    copy->begun = true;
    copy->sink_failed = !sink->data(sink->context, data, size, err);
    return !copy->sink_failed;
}

/* *why_out: what the server said when it did not send all; else "". */
static bool
copy_list(Connection *connection, const char *sql, const char *entry, const NameSink *sink,
          CairnError *why_out, CairnError *err)
{
    ListCopy copy = {.sink = sink, .entry = entry};
    CairnError problem = {0};
    const bool copied =
        connection_copy_out(connection, sql, LIST_TIMEOUT_MS, take_row, &copy, &problem);
    if (!copied && (copy.sink_failed || problem.kind == CAIRN_CANCELLED)) {
        *err = problem;
        return false;
    }
    if (copied && !take_row(&copy, "\\.\n", 3, err))
        return false;
    if (!copied)
        *why_out = problem;
    return !copy.begun || sink->end(sink->context, err);
}

/* Bytes of an SQL_ASCII database need not be UTF-8, and the server would refuse to send them as
 * such. */
static bool
prepare_session(Connection *connection, CairnError *err)
{
    const char *encoding = PQparameterStatus(connection_libpq(connection), "server_encoding");
    const bool raw = encoding != NULL && strcmp(encoding, "SQL_ASCII") == 0;
    const char *const parameters[] = {raw ? "SQL_ASCII" : "UTF8", NULL};
    SCOPED_RESULT lock = connection_query(connection, LOCK_TIMEOUT_SQL, NULL,
                                          (QueryShape){.columns = 1, .max_rows = 1}, err);
    if (lock == NULL)
        return false;
    SCOPED_RESULT client =
        connection_query(connection, "SELECT pg_catalog.set_config('client_encoding', $1, false)",
                         parameters, (QueryShape){.columns = 1, .max_rows = 1}, err);
    return client != NULL;
}

static bool
read_database(const char *conninfo, uint32_t oid, const char *name, const NameSink *sink,
              CairnError *err)
{
    char entry[NAME_ENTRY_SIZE];
    CairnError problem = {0};
    SCOPED(Connection)
    connection = connection_open_database(conninfo, name, "pgcairn names", &problem);
    name_entry_format(entry, oid);
    if (connection != NULL && prepare_session(connection, &problem) &&
        !copy_list(connection, RELATIONS_SQL, entry, sink, &problem, err))
        return false;
    if (problem.kind == CAIRN_CANCELLED) {
        *err = problem;
        return false;
    }
    if (problem.kind != CAIRN_OK)
        sink->unreadable(sink->context, name, problem.message);
    return true;
}

bool
name_snapshot_read(const char *conninfo, Connection *server, const char *only, const NameSink *sink,
                   CairnError *err)
{
    CairnError problem = {0};
    if (!copy_list(server, LIST_DATABASES_SQL, NAME_DATABASES_ENTRY, sink, &problem, err))
        return false;
    SCOPED_RESULT databases =
        problem.kind == CAIRN_OK
            ? connection_query(server, DATABASES_SQL, NULL,
                               (QueryShape){.columns = 2, .max_rows = -1}, &problem)
            : NULL;
    if (databases == NULL) {
        *err = problem;
        return cairn_error_wrap(err, "names of databases");
    }
    for (int row = 0; row < PQntuples(databases); row++) {
        const char *name = PQgetvalue(databases, row, 1);
        const uint32_t oid = (uint32_t)strtoul(PQgetvalue(databases, row, 0), NULL, 10);
        if (only != NULL && strcmp(only, name) != 0)
            continue;
        if (!read_database(conninfo, oid, name, sink, err))
            return false;
    }
    return true;
}
