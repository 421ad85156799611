/*
 * One connection to a server over libpq (facts 2.1, style 9).
 *
 * What: opens with our application name, keepalives and a connect timeout; SQL queries with bound
 * parameters; the raw PGconn for the streams in basebackup.c.
 * Errors: UNAVAILABLE (cannot connect, connection lost, server starting or shutting down: class 08,
 * 57P0x), DENIED (28xxx, 42501, pg_hba), FAILED queries keep their SQLSTATE; kinds by sqlstate.
 * Threads: one connection, one thread.
 */
#ifndef PGCAIRN_POSTGRES_CONNECTION_H
#define PGCAIRN_POSTGRES_CONNECTION_H

#include "common/error.h"
#include "common/scoped.h"

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { CONNECTION_SQL, CONNECTION_REPLICATION } ConnectionKind;

typedef struct Connection Connection;

/* conninfo NULL or "": libpq's own environment. purpose is shown in pg_stat_activity ("pgcairn
 * backup"). */
Connection *connection_open(const char *conninfo, ConnectionKind kind, const char *purpose,
                            CairnError *err) MUST_CHECK;
/* The same server by SQL, another database than the conninfo names. */
Connection *connection_open_database(const char *conninfo, const char *database,
                                     const char *purpose, CairnError *err) MUST_CHECK;
void connection_close(Connection *connection);
SCOPED_TYPE(Connection, connection_close);
PGconn *connection_libpq(Connection *connection); /* borrowed */
int connection_major(const Connection *connection);
/* "15.18 (Debian ...)" borrowed. */
const char *connection_server_version(const Connection *connection);

/* parameters are text, NULL-terminated array or NULL. Returned owned; exactly `columns` columns, at
   least min_rows and at most max_rows rows (max_rows -1: any). timeout_ms 0: the default 60 s; on
   timeout the query is cancelled and drained: UNAVAILABLE. */
typedef struct {
    int columns;
    int min_rows;
    int max_rows;
    int timeout_ms;
} QueryShape;
PGresult *connection_query(Connection *connection, const char *sql, const char *const *parameters,
                           QueryShape shape, CairnError *err) MUST_CHECK;
/* One value of one row, malloc'ed; NULL value is "". */
char *connection_query_text(Connection *connection, const char *sql, const char *const *parameters,
                            CairnError *err) MUST_CHECK;

/* COPY (...) TO STDOUT: each row goes to sink as it comes (text format: a line with its newline),
   so that memory does not grow with the answer. Where it fails, rows may have been handed over, and
   the connection is closed when it failed in the middle. */
typedef bool ConnectionSink(void *context, const void *data, size_t size, CairnError *err);
bool connection_copy_out(Connection *connection, const char *sql, int timeout_ms,
                         ConnectionSink *sink, void *context, CairnError *err) MUST_CHECK;

/* Fills err from a failed result (kind by SQLSTATE, the server's message, detail as hint). Always
 * false. */
bool connection_result_error(Connection *connection, const PGresult *result, const char *what,
                             CairnError *err);

/* For streams (basebackup.c), which have no deadline: a server may think for an hour. Where nothing
   came for limit_ms `ask` is called, and again after each further limit_ms; false and an error end
   the wait. Packets that a dead network swallows need no such care (keepalives see them), a proxy
   that answers for a server that is gone does. Borrowed until the connection is closed. */
typedef struct {
    int64_t limit_ms;
    bool (*ask)(void *context, int64_t silent_ms, CairnError *err);
    void *context;
} ConnectionSilence;
void connection_watch_silence(Connection *connection, const ConnectionSilence *silence);

/* For streams (basebackup.c). Waits a slice for bytes from the server and reads them; AGAIN: ask
   libpq once more. deadline_ms (monotonic) 0: none. */
typedef enum {
    CONNECTION_WAIT_AGAIN,
    CONNECTION_WAIT_TIMEOUT,
    CONNECTION_WAIT_SILENT,
    CONNECTION_WAIT_CANCELLED,
    CONNECTION_WAIT_FAILED,
} ConnectionWait;
ConnectionWait connection_wait(Connection *connection, int64_t deadline_ms) MUST_CHECK;
/* Fills err for anything but AGAIN. Always false. */
bool connection_wait_error(Connection *connection, ConnectionWait waited, CairnError *err);
/* The next result of a query that was sent, however long it takes; NULL and an error when there is
 * none. */
PGresult *connection_next_result(Connection *connection, CairnError *err) MUST_CHECK;
/* After the last result: true when nothing more comes. */
bool connection_end_of_results(Connection *connection, CairnError *err) MUST_CHECK;
/* Asks the server to stop what runs, and closes: every later call answers UNAVAILABLE. */
void connection_abandon(Connection *connection);

/* A conninfo as it may be shown: without passwords. malloc'ed (returned owned). */
char *connection_conninfo_redacted(const char *conninfo) MUST_CHECK;

static inline void
scoped_clear_result(PGresult **result)
{
    PQclear(*result);
}
#define SCOPED_RESULT __attribute__((cleanup(scoped_clear_result))) PGresult *

#endif
