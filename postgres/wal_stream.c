#include "postgres/wal_stream.h"

#include "common/cancel.h"
#include "postgres/wal_name.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SQLSTATE_REMOVED "58P01" /* undefined_file */

enum { SEND_TIMEOUT_MS = 30 * 1000, WAIT_SLICE_MS = 500 };

struct WalStream {
    Connection *connection;
    uint32_t timeline;
    uint64_t next_lsn; /* of the byte that comes next */
    bool copying;
    char *message; /* libpq's buffer of the last message */
    /* The end of the timeline was the answer to the command: told by the first wal_stream_next. */
    bool ended;
    WalStreamEvent end;
};

/* What a caller may do about it, where the SQLSTATE's class says too little. Always false. */
static bool
stream_error(WalStream *stream, const PGresult *result, const char *what, CairnError *err)
{
    static const struct {
        const char *sqlstate;
        CairnErrorKind kind;
    } KINDS[] = {
        {SQLSTATE_REMOVED, CAIRN_NOT_FOUND},
        {"42704", CAIRN_NOT_FOUND},   /* no such slot */
        {"55006", CAIRN_UNAVAILABLE}, /* in use: mostly our predecessor, whose end is not noticed */
        {"XX000", CAIRN_MISMATCH}, /* a position that is not in this server's history, or ahead */
    };

    connection_result_error(stream->connection, result, what, err);
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        if (strcmp(err->sqlstate, KINDS[i].sqlstate) == 0)
            err->kind = KINDS[i].kind;
    }
    return false;
}

/* The connection is of no more use. Always false. */
static bool
lost(WalStream *stream, const char *what, CairnError *err)
{
    connection_result_error(stream->connection, NULL, what, err);
    err->kind = CAIRN_UNAVAILABLE;
    return false;
}

bool
wal_stream_removed(const CairnError *err)
{
    return strcmp(err->sqlstate, SQLSTATE_REMOVED) == 0;
}

/* What follows an error is only its end; the connection stays usable. Always false. */
static bool
drain(PGconn *libpq)
{
    for (PGresult *rest; (rest = PQgetResult(libpq)) != NULL;)
        PQclear(rest);
    return false;
}

static bool
parse_next_timeline(WalStream *stream, const PGresult *result, CairnError *err)
{
    uint64_t lsn = 0;
    char *end = NULL;

    if (PQntuples(result) != 1 || PQnfields(result) != 2)
        return cairn_error(err, CAIRN_UNSUPPORTED, "end of timeline: answer not understood");
    errno = 0;
    const unsigned long long timeline = strtoull(PQgetvalue(result, 0, 0), &end, 10);
    if (errno != 0 || *end != '\0' || timeline > UINT32_MAX || timeline <= stream->timeline ||
        !lsn_parse(PQgetvalue(result, 0, 1), &lsn) || lsn == 0 || lsn > stream->next_lsn) {
        return cairn_error(err, CAIRN_UNSUPPORTED, "end of timeline %" PRIu32 ": impossible answer",
                           stream->timeline);
    }
    stream->end = (WalStreamEvent){
        .kind = WAL_STREAM_END_OF_TIMELINE, .next_timeline = (uint32_t)timeline, .next_lsn = lsn};
    return true;
}

/* After CopyDone of both sides, or instead of a copy: where the next timeline begins, or nothing
   when the server shuts down. */
static bool
read_end(WalStream *stream, PGresult *taken, CairnError *err)
{
    SCOPED_RESULT result = taken;

    stream->copying = false;
    stream->ended = true;
    stream->end = (WalStreamEvent){.kind = WAL_STREAM_SERVER_STOPPED};
    while (result != NULL) {
        const ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_TUPLES_OK) {
            if (!parse_next_timeline(stream, result, err))
                return drain(connection_libpq(stream->connection));
        } else if (status != PGRES_COMMAND_OK) {
            stream_error(stream, result, "WAL stream", err);
            return drain(connection_libpq(stream->connection));
        }
        PQclear(take(&result));
        result = PQgetResult(connection_libpq(stream->connection));
    }
    return true;
}

WalStream *
wal_stream_start(Connection *connection, const WalStreamStart *start, CairnError *err)
{
    char command[192];
    char lsn[LSN_TEXT_SIZE];
    PGconn *libpq = connection_libpq(connection);
    SCOPED(WalStream) stream = calloc(1, sizeof *stream);

    if (stream == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    *stream = (WalStream){
        .connection = connection, .timeline = start->timeline, .next_lsn = start->start_lsn};
    lsn_format(lsn, start->start_lsn);
    snprintf(command, sizeof command, "START_REPLICATION%s%s PHYSICAL %s TIMELINE %" PRIu32,
             start->slot != NULL ? " SLOT " : "", start->slot != NULL ? start->slot : "", lsn,
             start->timeline);
    if (libpq == NULL || !PQsendQuery(libpq, command)) {
        connection_result_error(connection, NULL, "unable to start streaming", err);
        return NULL;
    }
    SCOPED_RESULT result = connection_next_result(connection, err);
    if (result == NULL)
        return NULL;
    const ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_COPY_BOTH) {
        stream->copying = true;
        return take(&stream);
    }
    /* A timeline that ended where we would begin is told at once. */
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
        return read_end(stream, take(&result), err) ? take(&stream) : NULL;
    stream_error(stream, result, "unable to start streaming", err);
    if (start->slot != NULL)
        cairn_error_wrap(err, "slot '%s'", start->slot);
    drain(libpq);
    return NULL;
}

void
wal_stream_free(WalStream *stream)
{
    if (stream == NULL)
        return;
    PQfreemem(stream->message);
    free(stream);
}

/* Our side closes, the server's results follow. */
static bool
copy_done(WalStream *stream, CairnError *err)
{
    PGconn *libpq = connection_libpq(stream->connection);
    SCOPED_RESULT result = connection_next_result(stream->connection, err);

    if (result == NULL)
        return false;
    if (PQresultStatus(result) == PGRES_COPY_IN) {
        if (PQputCopyEnd(libpq, NULL) <= 0 || PQflush(libpq) < 0)
            return connection_result_error(stream->connection, NULL, "end of the WAL stream", err);
        PQclear(take(&result));
        result = connection_next_result(stream->connection, err);
        if (result == NULL)
            return false;
    }
    return read_end(stream, take(&result), err);
}

static bool
handle_message(WalStream *stream, size_t size, WalStreamEvent *event, CairnError *err)
{
    WalMessage *message = &event->message;

    if (!wal_message_parse(stream->message, size, message, err))
        return false;
    event->kind = message->kind == WAL_MESSAGE_DATA ? WAL_STREAM_DATA : WAL_STREAM_KEEPALIVE;
    if (message->kind != WAL_MESSAGE_DATA)
        return true;
    if (message->start_lsn != stream->next_lsn) {
        char expected[LSN_TEXT_SIZE];
        char got[LSN_TEXT_SIZE];
        lsn_format(expected, stream->next_lsn);
        lsn_format(got, message->start_lsn);
        return cairn_error(err, CAIRN_CORRUPT, "the server sent WAL of %s where %s was due", got,
                           expected);
    }
    stream->next_lsn += message->size;
    return true;
}

/* True: an event is there, or *event NOTHING. */
static bool
take_message(WalStream *stream, WalStreamEvent *event, CairnError *err)
{
    PGconn *libpq = connection_libpq(stream->connection);

    PQfreemem(take(&stream->message));
    const int size = PQgetCopyData(libpq, &stream->message, 1);
    if (size > 0)
        return handle_message(stream, (size_t)size, event, err);
    if (size == 0)
        return true;
    if (size == -1) {
        if (!copy_done(stream, err))
            return false;
        *event = stream->end;
        return true;
    }
    return lost(stream, "WAL stream", err);
}

/* *readable_out: the server sent something. */
static bool
wait_for(const WalStream *stream, int timeout_ms, int wake_fd, bool read, bool *readable_out,
         CairnError *err)
{
    struct pollfd waits[2] = {
        {.fd = read ? PQsocket(connection_libpq(stream->connection)) : -1, .events = POLLIN},
        {.fd = wake_fd, .events = POLLIN},
    };
    /* A signal that comes just before poll is seen after a slice at the latest. */
    const int ready = poll(waits, 2, timeout_ms < WAIT_SLICE_MS ? timeout_ms : WAIT_SLICE_MS);

    if (ready < 0 && errno != EINTR)
        return cairn_error_errno(err, "unable to wait for the server");
    *readable_out = ready > 0 && waits[0].revents != 0;
    return true;
}

bool
wal_stream_next(WalStream *stream, int timeout_ms, int wake_fd, bool read,
                WalStreamEvent *event_out, CairnError *err)
{
    bool readable = true;
    WalStreamEvent event = {.kind = WAL_STREAM_NOTHING};

    if (stream->ended) {
        *event_out = stream->end;
        return true;
    }
    if (read && !take_message(stream, &event, err))
        return false;
    if (event.kind == WAL_STREAM_NOTHING) {
        PGconn *libpq = connection_libpq(stream->connection);
        const bool pending =
            read && PQsslInUse(libpq) && PQconsumeInput(libpq) != 0 && PQisBusy(libpq) == 0;
        if (!wait_for(stream, pending ? 0 : timeout_ms, wake_fd, read, &readable, err))
            return false;
        if (read && readable && PQconsumeInput(libpq) == 0)
            return lost(stream, "WAL stream", err);
        if (read && (readable || pending) && !take_message(stream, &event, err))
            return false;
    }
    *event_out = event;
    return true;
}

/* Until libpq's buffer is empty; what the server sends meanwhile is read, or both would wait. */
static bool
flush_out(WalStream *stream, CairnError *err)
{
    PGconn *libpq = connection_libpq(stream->connection);

    for (int waited_ms = 0;; waited_ms += WAIT_SLICE_MS) {
        const int left = PQflush(libpq);
        if (left == 0)
            return true;
        if (left < 0 || waited_ms > SEND_TIMEOUT_MS)
            break;
        struct pollfd wait = {.fd = PQsocket(libpq), .events = POLLIN | POLLOUT};
        if (poll(&wait, 1, WAIT_SLICE_MS) > 0 && (wait.revents & POLLIN) != 0 &&
            PQconsumeInput(libpq) == 0)
            break;
    }
    return lost(stream, "unable to report to the server", err);
}

bool
wal_stream_report(WalStream *stream, const WalStatus *status, CairnError *err)
{
    uint8_t bytes[WAL_MESSAGE_STATUS_SIZE];

    if (!stream->copying)
        return true;
    wal_message_status(bytes, status);
    if (PQputCopyData(connection_libpq(stream->connection), (const char *)bytes,
                      (int)sizeof bytes) <= 0)
        return lost(stream, "unable to report to the server", err);
    return flush_out(stream, err);
}

bool
wal_stream_end(WalStream *stream, CairnError *err)
{
    PGconn *libpq = connection_libpq(stream->connection);

    if (!stream->copying)
        return true;
    stream->copying = false;
    if (PQputCopyEnd(libpq, NULL) <= 0)
        return connection_result_error(stream->connection, NULL, "end of the WAL stream", err);
    return flush_out(stream, err);
}

bool
wal_stream_is_local(Connection *connection)
{
    struct sockaddr_storage ours = {0}, theirs = {0};
    socklen_t ours_size = sizeof ours, theirs_size = sizeof theirs;
    const int fd = PQsocket(connection_libpq(connection));

    if (getsockname(fd, (struct sockaddr *)&ours, &ours_size) != 0 ||
        getpeername(fd, (struct sockaddr *)&theirs, &theirs_size) != 0)
        return true; /* in doubt, the unsafe answer must not be allowed */
    if (ours.ss_family == AF_UNIX || ours.ss_family != theirs.ss_family)
        return true;
    /* A connection to one's own address comes from that address. */
    if (ours.ss_family == AF_INET)
        return memcmp(&((struct sockaddr_in *)&ours)->sin_addr,
                      &((struct sockaddr_in *)&theirs)->sin_addr, sizeof(struct in_addr)) == 0;
    return memcmp(&((struct sockaddr_in6 *)&ours)->sin6_addr,
                  &((struct sockaddr_in6 *)&theirs)->sin6_addr, sizeof(struct in6_addr)) == 0;
}
