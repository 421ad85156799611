#include "postgres/connection_intern.h"

#include <stdlib.h>
#include <string.h>

enum { QUERY_TIMEOUT_MS = 60 * 1000 };

void
connection_close(Connection *connection)
{
    if (connection == NULL)
        return;
    PQfinish(connection->libpq);
    free(connection);
}

PGconn *
connection_libpq(Connection *connection)
{
    return connection->libpq;
}

int
connection_major(const Connection *connection)
{
    return connection->major;
}

const char *
connection_server_version(const Connection *connection)
{
    return connection->version;
}

static bool
send_query(Connection *connection, const char *sql, const char *const *parameters, CairnError *err)
{
    if (connection->libpq == NULL)
        return cairn_error(err, CAIRN_UNAVAILABLE, "the connection to the server is closed");

    int count = 0;
    while (parameters != NULL && parameters[count] != NULL)
        count++;
    /* A walsender knows the simple protocol only. */
    CAIRN_ASSERT(count == 0 || connection->kind == CONNECTION_SQL);
    const int sent =
        connection->kind == CONNECTION_REPLICATION
            ? PQsendQuery(connection->libpq, sql)
            : PQsendQueryParams(connection->libpq, sql, count, NULL, parameters, NULL, NULL, 0);
    if (!sent)
        return connection_result_error(connection, NULL, "unable to send a query", err);
    return true;
}

static bool
check_shape(const PGresult *result, const char *sql, QueryShape shape, CairnError *err)
{
    const int rows = PQntuples(result);
    const int columns = PQnfields(result);
    if (columns != shape.columns) {
        return cairn_error(err, CAIRN_UNSUPPORTED, "query answered %d columns instead of %d: %s",
                           columns, shape.columns, sql);
    }
    if (rows < shape.min_rows || (shape.max_rows >= 0 && rows > shape.max_rows))
        return cairn_error(err, CAIRN_UNSUPPORTED, "query answered %d rows: %s", rows, sql);
    return true;
}

PGresult *
connection_query(Connection *connection, const char *sql, const char *const *parameters,
                 QueryShape shape, CairnError *err)
{
    if (!send_query(connection, sql, parameters, err))
        return NULL;

    const int timeout_ms = shape.timeout_ms > 0 ? shape.timeout_ms : QUERY_TIMEOUT_MS;
    const int64_t deadline_ms = connection_now_ms() + timeout_ms;
    SCOPED_RESULT kept = NULL;
    for (;;) {
        const ConnectionWait waited = connection_wait_result(connection, deadline_ms);
        if (waited != CONNECTION_WAIT_AGAIN) {
            connection_wait_error(connection, waited, err);
            if (waited != CONNECTION_WAIT_FAILED)
                connection_cancel_and_drain(connection);
            return NULL;
        }
        PGresult *result = PQgetResult(connection->libpq);
        if (result == NULL)
            break;
        PQclear(kept);
        kept = result;
    }

    const ExecStatusType status = PQresultStatus(kept);
    if (kept == NULL || (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)) {
        connection_result_error(connection, kept, "query failed", err);
        return NULL;
    }
    if (!check_shape(kept, sql, shape, err))
        return NULL;
    return take(&kept);
}

char *
connection_query_text(Connection *connection, const char *sql, const char *const *parameters,
                      CairnError *err)
{
    SCOPED_RESULT result = connection_query(
        connection, sql, parameters, (QueryShape){.columns = 1, .min_rows = 1, .max_rows = 1}, err);
    if (result == NULL)
        return NULL;
    char *text = strdup(PQgetvalue(result, 0, 0));
    if (text == NULL)
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return text;
}

/* The rows of a COPY that was begun. Fed to sink as they come. */
static bool
read_copy_rows(Connection *connection, int64_t deadline_ms, ConnectionSink *sink, void *context,
               CairnError *err)
{
    for (;;) {
        char *row = NULL;
        const int size = PQgetCopyData(connection->libpq, &row, 1);
        if (size > 0) {
            const bool taken = sink(context, row, (size_t)size, err);
            PQfreemem(row);
            if (!taken)
                return false;
        } else if (size == 0) {
            const ConnectionWait waited = connection_wait(connection, deadline_ms);
            if (waited != CONNECTION_WAIT_AGAIN)
                return connection_wait_error(connection, waited, err);
        } else if (size == -1) {
            return true; /* whole, or an error that the next result tells */
        } else {
            return connection_result_error(connection, NULL, "copy failed", err);
        }
    }
}

static bool
copy_out(Connection *connection, int64_t deadline_ms, ConnectionSink *sink, void *context,
         CairnError *err)
{
    for (bool begun = false;;) {
        const ConnectionWait waited = connection_wait_result(connection, deadline_ms);
        if (waited != CONNECTION_WAIT_AGAIN)
            return connection_wait_error(connection, waited, err);
        SCOPED_RESULT result = PQgetResult(connection->libpq);
        if (result == NULL)
            return true;
        const ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_COPY_OUT && !begun) {
            begun = true;
            if (!read_copy_rows(connection, deadline_ms, sink, context, err))
                return false;
        } else if (status != PGRES_COMMAND_OK) {
            return connection_result_error(connection, result, "query failed", err);
        }
    }
}

bool
connection_copy_out(Connection *connection, const char *sql, int timeout_ms, ConnectionSink *sink,
                    void *context, CairnError *err)
{
    if (!send_query(connection, sql, NULL, err))
        return false;
    const bool copied = copy_out(connection, connection_now_ms() + timeout_ms, sink, context, err);
    /* A COPY that was begun cannot be drained like a query: libpq goes on to answer that it is in
       one. */
    if (!copied && connection->libpq != NULL &&
        PQtransactionStatus(connection->libpq) == PQTRANS_ACTIVE)
        connection_abandon(connection);
    return copied;
}
