#include "postgres/connection.h"

#include "common/bytes.h"
#include "common/cancel.h"
#include "common/log.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    QUERY_TIMEOUT_MS = 60 * 1000,
    CONNECT_TIMEOUT_S = 10,
    DRAIN_TIMEOUT_MS = 5 * 1000,
    POLL_SLICE_MS = 500,
    CONNINFO_KEYWORDS_LIMIT = 128,
    SQLSTATE_LENGTH = 5,
};

struct Connection {
    PGconn *libpq; /* NULL once broken: sticky */
    ConnectionKind kind;
    int major;
    char version[128];
};

static int64_t
monotonic_ms(void)
{
    struct timespec now;
    CAIRN_ASSERT(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* One line of text: what a server says in several lines becomes "a; b". */
static void
flatten(char *text_out, size_t capacity, const char *text)
{
    size_t at = 0;
    for (const char *next = text; *next != '\0' && at + 3 < capacity; next++) {
        if (*next != '\n') {
            text_out[at++] = *next == '\t' ? ' ' : *next;
        } else if (next[1] != '\0') {
            text_out[at++] = ';';
            text_out[at++] = ' ';
        }
    }
    text_out[at] = '\0';
}

static bool
state_is(const char *sqlstate, const char *prefix)
{
    return strncmp(sqlstate, prefix, strlen(prefix)) == 0;
}

/* What a caller may do about an SQLSTATE. */
static CairnErrorKind
kind_of_sqlstate(const char *sqlstate)
{
    static const struct {
        const char *prefix;
        CairnErrorKind kind;
    } KINDS[] = {
        {"57P", CAIRN_UNAVAILABLE}, /* shutdown, crash, still starting */
        {"08", CAIRN_UNAVAILABLE},
        {"53300", CAIRN_UNAVAILABLE}, /* too many connections or walsenders */
        {"53200", CAIRN_UNAVAILABLE},
        {"53100", CAIRN_NO_SPACE},
        {"28", CAIRN_DENIED},
        {"42501", CAIRN_DENIED},
        {"3D000", CAIRN_USAGE}, /* no such database */
        {"0A000", CAIRN_UNSUPPORTED},
        {"42883", CAIRN_UNSUPPORTED}, /* a function that this version lacks */
        {"55", CAIRN_REFUSED},        /* not in prerequisite state: promoted meanwhile, busy */
        {"58", CAIRN_IO},
        {"XX001", CAIRN_CORRUPT},
        {"XX002", CAIRN_CORRUPT},
    };
    if (state_is(sqlstate, "57014"))
        return cancel_requested() ? CAIRN_CANCELLED : CAIRN_UNAVAILABLE;
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        if (state_is(sqlstate, KINDS[i].prefix))
            return KINDS[i].kind;
    }
    return CAIRN_INTERNAL;
}

/*
 * libpq keeps no SQLSTATE of a failed connection attempt, and messages are translated; in verbose
 * mode the text has it after the severity: "FATAL:  28000: no pg_hba.conf entry". Takes it out of
 * the text.
 */
static bool
take_sqlstate(char *text, char sqlstate_out[SQLSTATE_LENGTH + 1])
{
    static const char DIGITS[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (char *at = strstr(text, ":  "); at != NULL; at = strstr(at + 1, ":  ")) {
        const char *state = at + 3;
        if (strspn(state, DIGITS) == SQLSTATE_LENGTH &&
            strncmp(state + SQLSTATE_LENGTH, ": ", 2) == 0) {
            memcpy(sqlstate_out, state, SQLSTATE_LENGTH);
            sqlstate_out[SQLSTATE_LENGTH] = '\0';
            memmove(at + 3, state + SQLSTATE_LENGTH + 2, strlen(state + SQLSTATE_LENGTH + 2) + 1);
            return true;
        }
    }
    return false;
}

static bool
connect_error(PGconn *libpq, CairnError *err)
{
    char text[CAIRN_ERROR_MESSAGE_SIZE];
    char sqlstate[SQLSTATE_LENGTH + 1] = "";
    snprintf(text, sizeof text, "%s", PQerrorMessage(libpq));
    const bool has_state = take_sqlstate(text, sqlstate);
    char *location = strstr(text, "\nLOCATION:  ");
    if (location != NULL)
        *location = '\0';

    char line[CAIRN_ERROR_MESSAGE_SIZE];
    flatten(line, sizeof line, text);
    CairnErrorKind kind = has_state ? kind_of_sqlstate(sqlstate) : CAIRN_UNAVAILABLE;
    if (PQconnectionNeedsPassword(libpq))
        kind = CAIRN_DENIED;
    cairn_error(err, kind, "unable to connect: %s", line);
    memcpy(err->sqlstate, sqlstate, sizeof sqlstate);
    if (kind == CAIRN_DENIED) {
        cairn_error_hint(err,
                         "`pgcairn init --print` shows the role and the pg_hba.conf lines that "
                         "pgcairn needs; passwords belong in a passfile (~/.pgpass)");
    }
    return false;
}

typedef struct {
    const char *keywords[CONNINFO_KEYWORDS_LIMIT + 1];
    const char *values[CONNINFO_KEYWORDS_LIMIT + 1];
    size_t count;
} ConnectParameters;

static const char *
parameter_get(const ConnectParameters *parameters, const char *keyword)
{
    for (size_t i = 0; i < parameters->count; i++) {
        if (strcmp(parameters->keywords[i], keyword) == 0)
            return parameters->values[i];
    }
    return NULL;
}

static void
parameter_set(ConnectParameters *parameters, const char *keyword, const char *value)
{
    CAIRN_ASSERT(parameters->count < CONNINFO_KEYWORDS_LIMIT);
    parameters->keywords[parameters->count] = keyword;
    parameters->values[parameters->count++] = value;
}

/* What neither the conninfo nor the environment says. */
static void
parameter_default(ConnectParameters *parameters, const char *keyword, const char *variable,
                  const char *value)
{
    const bool in_environment = variable != NULL && getenv(variable) != NULL;
    if (parameter_get(parameters, keyword) == NULL && !in_environment)
        parameter_set(parameters, keyword, value);
}

/* What a connection is opened for. */
typedef struct {
    const char *conninfo;
    ConnectionKind kind;
    const char *purpose;
    const char *database; /* instead of the conninfo's own; NULL: that one */
} ConnectionWish;

static void
parameters_fill(ConnectParameters *parameters, const PQconninfoOption *options,
                const ConnectionWish *wish)
{
    for (const PQconninfoOption *option = options; option != NULL && option->keyword != NULL;
         option++) {
        /* Ours to say: a replication keyword would turn an SQL connection into something else. */
        if (option->val != NULL && strcmp(option->keyword, "replication") != 0 &&
            (wish->database == NULL || strcmp(option->keyword, "dbname") != 0)) {
            parameter_set(parameters, option->keyword, option->val);
        }
    }
    if (wish->database != NULL)
        parameter_set(parameters, "dbname", wish->database);
    parameter_default(parameters, "fallback_application_name", NULL, wish->purpose);
    parameter_default(parameters, "keepalives_idle", NULL, "30");
    parameter_default(parameters, "keepalives_interval", NULL, "10");
    parameter_default(parameters, "keepalives_count", NULL, "3");
    parameter_default(parameters, "tcp_user_timeout", NULL, "60000");
    if (wish->kind == CONNECTION_REPLICATION) {
        parameter_set(parameters, "replication", "true");
        return;
    }
    /* libpq's default is a database named like the user, which nobody makes for pgcairn's role. A
       service file may name one, and an explicit value would hide it. */
    if (parameter_get(parameters, "service") == NULL && getenv("PGSERVICE") == NULL)
        parameter_default(parameters, "dbname", "PGDATABASE", "postgres");
    parameter_default(parameters, "client_encoding", "PGCLIENTENCODING", "UTF8");
}

/* Our own loop instead of PQconnectdb: it asks for signals, and the verbosity can be set in
 * between. */
static bool
connect_loop(PGconn *libpq, int64_t deadline_ms, CairnError *err)
{
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    while (status != PGRES_POLLING_OK) {
        if (status == PGRES_POLLING_FAILED)
            return connect_error(libpq, err);
        if (!cancel_check(err))
            return false;
        if (monotonic_ms() >= deadline_ms)
            return cairn_error(err, CAIRN_UNAVAILABLE, "unable to connect: timeout expired");

        struct pollfd socket = {.fd = PQsocket(libpq),
                                .events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        const int ready = poll(&socket, 1, POLL_SLICE_MS);
        if (ready < 0 && errno != EINTR)
            return cairn_error_errno(err, "unable to wait for the server");
        if (ready > 0)
            status = PQconnectPoll(libpq);
    }
    return true;
}

static int64_t
connect_deadline(const ConnectParameters *parameters)
{
    const char *text = parameter_get(parameters, "connect_timeout");
    if (text == NULL)
        text = getenv("PGCONNECT_TIMEOUT");
    long seconds = text != NULL ? strtol(text, NULL, 10) : CONNECT_TIMEOUT_S;
    if (seconds <= 0 || seconds > 24 * 3600)
        seconds = 24 * 3600; /* libpq: zero or negative waits for ever */
    const char *hosts = parameter_get(parameters, "host");
    int host_count = 1;
    for (const char *comma = hosts; comma != NULL && (comma = strchr(comma, ',')) != NULL; comma++)
        host_count++;
    return monotonic_ms() + (int64_t)seconds * 1000 * host_count;
}

static void
on_notice(void *context, const char *message)
{
    (void)context;
    char line[1024];
    flatten(line, sizeof line, message);
    log_debug("server: %s", line);
}

static bool
check_server(Connection *connection, CairnError *err)
{
    connection->major = PQserverVersion(connection->libpq) / 10000;
    const char *version = PQparameterStatus(connection->libpq, "server_version");
    snprintf(connection->version, sizeof connection->version, "%s", version != NULL ? version : "");
    if (connection->major <= 0)
        return cairn_error(err, CAIRN_UNSUPPORTED, "the server does not say its version");
    if (connection->kind == CONNECTION_REPLICATION)
        return true;

    /* Nothing on anybody's search_path gets between us and the catalog. */
    SCOPED_RESULT settings = connection_query(
        connection, "SELECT pg_catalog.set_config('search_path', 'pg_catalog', false)", NULL,
        (QueryShape){.columns = 1, .min_rows = 1, .max_rows = 1}, err);
    return settings != NULL;
}

static PGconn *
connect_parameters(const ConnectionWish *wish, CairnError *err)
{
    PQconninfoOption *options = NULL;
    if (wish->conninfo != NULL && wish->conninfo[0] != '\0') {
        char *parse_error = NULL; /* may quote a password: never shown */
        options = PQconninfoParse(wish->conninfo, &parse_error);
        PQfreemem(parse_error);
        if (options == NULL) {
            cairn_error(err, CAIRN_USAGE, "conninfo does not parse");
            cairn_error_hint(
                err, "it reads like `host=/run/postgresql user=pgcairn` or postgresql://...");
            return NULL;
        }
    }
    ConnectParameters parameters = {.count = 0};
    parameters_fill(&parameters, options, wish);
    PGconn *libpq = PQconnectStartParams(parameters.keywords, parameters.values, 0);
    const int64_t deadline_ms = connect_deadline(&parameters);
    PQconninfoFree(options);

    bool connected = false;
    if (libpq == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
    } else if (PQstatus(libpq) == CONNECTION_BAD) {
        connect_error(libpq, err);
    } else {
        PQsetErrorVerbosity(libpq, PQERRORS_VERBOSE);
        PQsetNoticeProcessor(libpq, on_notice, NULL);
        connected = connect_loop(libpq, deadline_ms, err);
        PQsetErrorVerbosity(libpq, PQERRORS_DEFAULT);
    }
    if (!connected) {
        PQfinish(libpq);
        return NULL;
    }
    return libpq;
}

static Connection *
open_connection(const ConnectionWish *wish, CairnError *err)
{
    SCOPED(Connection) connection = calloc(1, sizeof *connection);
    if (connection == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    connection->kind = wish->kind;
    connection->libpq = connect_parameters(wish, err);
    if (connection->libpq == NULL || !check_server(connection, err))
        return NULL;
    return take(&connection);
}

Connection *
connection_open(const char *conninfo, ConnectionKind kind, const char *purpose, CairnError *err)
{
    return open_connection(
        &(ConnectionWish){.conninfo = conninfo, .kind = kind, .purpose = purpose}, err);
}

Connection *
connection_open_database(const char *conninfo, const char *database, const char *purpose,
                         CairnError *err)
{
    return open_connection(
        &(ConnectionWish){
            .conninfo = conninfo, .kind = CONNECTION_SQL, .purpose = purpose, .database = database},
        err);
}

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

static void
send_cancel(PGconn *libpq)
{
    char ignored[256]; /* the query may have ended by itself; what follows tells */
    PGcancel *cancel = PQgetCancel(libpq);
    if (cancel != NULL && !PQcancel(cancel, ignored, sizeof ignored))
        log_debug("unable to send a cancel request: %s", ignored);
    PQfreeCancel(cancel);
}

void
connection_abandon(Connection *connection)
{
    if (connection->libpq == NULL)
        return;
    if (PQtransactionStatus(connection->libpq) == PQTRANS_ACTIVE)
        send_cancel(connection->libpq);
    PQfinish(connection->libpq);
    connection->libpq = NULL;
}

ConnectionWait
connection_wait(Connection *connection, int64_t deadline_ms)
{
    if (cancel_requested())
        return CONNECTION_WAIT_CANCELLED;
    /* TLS may hold bytes that the socket no longer shows. */
    if (PQsslInUse(connection->libpq) && PQconsumeInput(connection->libpq) == 0)
        return CONNECTION_WAIT_FAILED;

    int timeout_ms = POLL_SLICE_MS;
    if (deadline_ms > 0) {
        const int64_t left_ms = deadline_ms - monotonic_ms();
        if (left_ms <= 0)
            return CONNECTION_WAIT_TIMEOUT;
        if (left_ms < timeout_ms)
            timeout_ms = (int)left_ms;
    }
    struct pollfd socket = {.fd = PQsocket(connection->libpq), .events = POLLIN};
    const int ready = poll(&socket, 1, timeout_ms);
    if (ready < 0 && errno != EINTR)
        return CONNECTION_WAIT_FAILED;
    if (ready > 0 && PQconsumeInput(connection->libpq) == 0)
        return CONNECTION_WAIT_FAILED;
    return CONNECTION_WAIT_AGAIN;
}

/* Waits until PQgetResult would not block. deadline_ms 0: none. */
static ConnectionWait
wait_result(Connection *connection, int64_t deadline_ms)
{
    while (PQisBusy(connection->libpq)) {
        const ConnectionWait waited = connection_wait(connection, deadline_ms);
        if (waited != CONNECTION_WAIT_AGAIN)
            return waited;
    }
    return CONNECTION_WAIT_AGAIN;
}

bool
connection_wait_error(Connection *connection, ConnectionWait waited, CairnError *err)
{
    switch (waited) {
    case CONNECTION_WAIT_CANCELLED:
        if (cancel_check(err))
            cairn_error(err, CAIRN_CANCELLED, "interrupted");
        break;
    case CONNECTION_WAIT_TIMEOUT:
        cairn_error(err, CAIRN_UNAVAILABLE, "the server did not answer in time");
        break;
    case CONNECTION_WAIT_FAILED:
    case CONNECTION_WAIT_AGAIN:
        connection_result_error(connection, NULL, "unable to read from the server", err);
        break;
    }
    return false;
}

PGresult *
connection_next_result(Connection *connection, CairnError *err)
{
    const ConnectionWait waited = wait_result(connection, 0);
    if (waited != CONNECTION_WAIT_AGAIN) {
        connection_wait_error(connection, waited, err);
        return NULL;
    }
    PGresult *result = PQgetResult(connection->libpq);
    if (result == NULL)
        cairn_error(err, CAIRN_CORRUPT, "the server's answer ended early");
    return result;
}

/* After a timeout: leaves the connection clean, or closes it. */
static void
cancel_and_drain(Connection *connection)
{
    send_cancel(connection->libpq);
    const int64_t deadline_ms = monotonic_ms() + DRAIN_TIMEOUT_MS;
    for (;;) {
        while (PQisBusy(connection->libpq)) {
            struct pollfd socket = {.fd = PQsocket(connection->libpq), .events = POLLIN};
            const int64_t left_ms = deadline_ms - monotonic_ms();
            if (left_ms <= 0 || poll(&socket, 1, (int)left_ms) < 0 ||
                PQconsumeInput(connection->libpq) == 0) {
                PQfinish(connection->libpq);
                connection->libpq = NULL;
                return;
            }
        }
        PGresult *result = PQgetResult(connection->libpq);
        if (result == NULL)
            return;
        PQclear(result);
    }
}

bool
connection_result_error(Connection *connection, const PGresult *result, const char *what,
                        CairnError *err)
{
    char line[CAIRN_ERROR_MESSAGE_SIZE / 2];
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (sqlstate == NULL) {
        PGconn *libpq = connection->libpq;
        const char *message = libpq != NULL ? PQerrorMessage(libpq) : "the connection is closed";
        if (PQresultStatus(result) == PGRES_FATAL_ERROR && result != NULL)
            message = PQresultErrorMessage(result);
        flatten(line, sizeof line, message);
        const bool lost = libpq == NULL || PQstatus(libpq) == CONNECTION_BAD;
        return cairn_error(err, lost ? CAIRN_UNAVAILABLE : CAIRN_INTERNAL, "%s: %s", what, line);
    }

    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
    const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    flatten(line, sizeof line, primary != NULL ? primary : "");
    cairn_error(err, kind_of_sqlstate(sqlstate), "%s: %s", what, line);
    snprintf(err->sqlstate, sizeof err->sqlstate, "%.5s", sqlstate);
    if (detail != NULL || hint != NULL) {
        char text[CAIRN_ERROR_HINT_SIZE];
        snprintf(text, sizeof text, "%s%s%s", detail != NULL ? detail : "",
                 detail != NULL && hint != NULL ? "\n" : "", hint != NULL ? hint : "");
        flatten(line, sizeof line, text);
        cairn_error_hint(err, "%s", line);
    }
    return false;
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
    const int64_t deadline_ms = monotonic_ms() + timeout_ms;
    SCOPED_RESULT kept = NULL;
    for (;;) {
        const ConnectionWait waited = wait_result(connection, deadline_ms);
        if (waited != CONNECTION_WAIT_AGAIN) {
            connection_wait_error(connection, waited, err);
            if (waited != CONNECTION_WAIT_FAILED)
                cancel_and_drain(connection);
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
        const ConnectionWait waited = wait_result(connection, deadline_ms);
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
    const bool copied = copy_out(connection, monotonic_ms() + timeout_ms, sink, context, err);
    /* A COPY that was begun cannot be drained like a query: libpq goes on to answer that it is in
       one. */
    if (!copied && connection->libpq != NULL &&
        PQtransactionStatus(connection->libpq) == PQTRANS_ACTIVE)
        connection_abandon(connection);
    return copied;
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

/* A value as conninfo writes it: quoted where it must be. */
static void
append_conninfo_value(ByteWriter *text, const char *value)
{
    const bool quoted = value[0] == '\0' || strpbrk(value, " '\\\t\n") != NULL;
    if (quoted)
        byte_writer_u8(text, '\'');
    for (const char *next = value; *next != '\0'; next++) {
        if (*next == '\'' || *next == '\\')
            byte_writer_u8(text, '\\');
        byte_writer_u8(text, (uint8_t)*next);
    }
    if (quoted)
        byte_writer_u8(text, '\'');
}

char *
connection_conninfo_redacted(const char *conninfo)
{
    if (conninfo == NULL || conninfo[0] == '\0')
        return strdup("(libpq's environment)");
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    if (options == NULL)
        return strdup("(does not parse)");

    SCOPED_BYTES ByteWriter text = {0};
    for (const PQconninfoOption *option = options; option->keyword != NULL; option++) {
        /* libpq marks passwords by "*"; passfile and the like are only paths. */
        if (option->val == NULL || strchr(option->dispchar, '*') != NULL ||
            strstr(option->keyword, "password") != NULL) {
            continue;
        }
        if (text.size > 0)
            byte_writer_u8(&text, ' ');
        byte_writer_bytes(&text, option->keyword, strlen(option->keyword));
        byte_writer_u8(&text, '=');
        append_conninfo_value(&text, option->val);
    }
    PQconninfoFree(options);
    byte_writer_u8(&text, '\0');
    CairnError ignored = {0};
    return byte_writer_check(&text, &ignored) ? strdup((const char *)text.data) : NULL;
}
