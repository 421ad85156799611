/*
 * What the files of a connection share. Inside postgres/ only.
 *
 * connection.c        queries and COPY
 * connection_open.c   conninfo, opening
 * connection_wait.c   waiting for the server, and giving up: deadlines, silence, cancel
 * connection_error.c  what the server says as an error of ours
 */
#ifndef PGCAIRN_POSTGRES_CONNECTION_INTERN_H
#define PGCAIRN_POSTGRES_CONNECTION_INTERN_H

#include "postgres/connection.h"

/* Signals are asked for this often. */
enum { CONNECTION_SLICE_MS = 500 };

struct Connection {
    PGconn *libpq; /* NULL once broken: sticky */
    ConnectionKind kind;
    int major;
    char version[128];
    ConnectionSilence silence; /* limit_ms 0: not watched */
    int64_t quiet_since_ms;    /* 0: something came */
    CairnError silence_error;  /* what `ask` said */
};

int64_t connection_now_ms(void);

/* Waits until PQgetResult would not block. deadline_ms 0: none. */
ConnectionWait connection_wait_result(Connection *connection, int64_t deadline_ms) MUST_CHECK;
/* After a timeout: leaves the connection clean, or closes it. */
void connection_cancel_and_drain(Connection *connection);

/* One line of text: what a server says in several lines becomes "a; b". */
void connection_flatten(char *text_out, size_t capacity, const char *text);
/* An attempt that failed, made in verbose mode. Always false. */
bool connection_connect_error(PGconn *libpq, CairnError *err);

#endif
