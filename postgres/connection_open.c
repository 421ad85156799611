/* From a conninfo to a connection that is ready for us; a conninfo as it may be shown. */
#include "postgres/connection_intern.h"

#include "common/bytes.h"
#include "common/cancel.h"
#include "common/log.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT_TIMEOUT_S = 10, CONNINFO_KEYWORDS_LIMIT = 128 };

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
            return connection_connect_error(libpq, err);
        if (!cancel_check(err))
            return false;
        if (connection_now_ms() >= deadline_ms)
            return cairn_error(err, CAIRN_UNAVAILABLE, "unable to connect: timeout expired");

        struct pollfd socket = {.fd = PQsocket(libpq),
                                .events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        const int ready = poll(&socket, 1, CONNECTION_SLICE_MS);
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
    return connection_now_ms() + (int64_t)seconds * 1000 * host_count;
}

static void
on_notice(void *context, const char *message)
{
    (void)context;
    char line[1024];
    connection_flatten(line, sizeof line, message);
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
        connection_connect_error(libpq, err);
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
