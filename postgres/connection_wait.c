/* Waiting for the server, never without asking for signals; cancelling what it does. */
#include "postgres/connection_intern.h"

#include "common/cancel.h"
#include "common/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>

enum { DRAIN_TIMEOUT_MS = 5 * 1000, CANCEL_TIMEOUT_MS = 5 * 1000 };

int64_t
connection_now_ms(void)
{
    struct timespec now;
    CAIRN_ASSERT(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void
connection_watch_silence(Connection *connection, const ConnectionSilence *silence)
{
    connection->silence = *silence;
    connection->quiet_since_ms = 0;
}

/* Nothing came within a slice. False: it has been quiet for too long. */
static bool
bear_silence(Connection *connection)
{
    const ConnectionSilence *silence = &connection->silence;
    if (silence->limit_ms == 0)
        return true;
    const int64_t now_ms = connection_now_ms();
    if (connection->quiet_since_ms == 0)
        connection->quiet_since_ms = now_ms - CONNECTION_SLICE_MS;
    const int64_t silent_ms = now_ms - connection->quiet_since_ms;
    if (silent_ms < silence->limit_ms)
        return true;
    if (!silence->ask(silence->context, silent_ms, &connection->silence_error))
        return false;
    connection->quiet_since_ms = connection_now_ms();
    return true;
}

ConnectionWait
connection_wait(Connection *connection, int64_t deadline_ms)
{
    if (cancel_requested())
        return CONNECTION_WAIT_CANCELLED;
    /* TLS may hold bytes that the socket no longer shows. */
    if (PQsslInUse(connection->libpq) && PQconsumeInput(connection->libpq) == 0)
        return CONNECTION_WAIT_FAILED;

    int timeout_ms = CONNECTION_SLICE_MS;
    if (deadline_ms > 0) {
        const int64_t left_ms = deadline_ms - connection_now_ms();
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
    if (ready > 0)
        connection->quiet_since_ms = 0;
    return ready == 0 && !bear_silence(connection) ? CONNECTION_WAIT_SILENT : CONNECTION_WAIT_AGAIN;
}

ConnectionWait
connection_wait_result(Connection *connection, int64_t deadline_ms)
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
    case CONNECTION_WAIT_SILENT:
        *err = connection->silence_error;
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
    const ConnectionWait waited = connection_wait_result(connection, 0);
    if (waited != CONNECTION_WAIT_AGAIN) {
        connection_wait_error(connection, waited, err);
        return NULL;
    }
    PGresult *result = PQgetResult(connection->libpq);
    if (result == NULL)
        cairn_error(err, CAIRN_CORRUPT, "the server's answer ended early");
    return result;
}

bool
connection_end_of_results(Connection *connection, CairnError *err)
{
    const ConnectionWait waited = connection_wait_result(connection, 0);
    if (waited != CONNECTION_WAIT_AGAIN)
        return connection_wait_error(connection, waited, err);
    SCOPED_RESULT more = PQgetResult(connection->libpq);
    if (more == NULL)
        return true;
    if (PQresultStatus(more) == PGRES_FATAL_ERROR)
        return connection_result_error(connection, more, "end of a command", err);
    return cairn_error(err, CAIRN_UNSUPPORTED, "the server said more after its last result");
}

static void *
run_cancel(void *context)
{
    PGcancel *cancel = context;
    char ignored[256]; /* the query may have ended by itself; what follows tells */
    if (!PQcancel(cancel, ignored, sizeof ignored))
        log_debug("unable to send a cancel request: %s", ignored);
    PQfreeCancel(cancel);
    return NULL;
}

/* PQcancel waits without limit for an answer, which a network that is gone never gives: it is left
   behind then. */
static void
send_cancel(PGconn *libpq)
{
    PGcancel *cancel = PQgetCancel(libpq);
    pthread_t thread;
    if (cancel == NULL || pthread_create(&thread, NULL, run_cancel, cancel) != 0) {
        PQfreeCancel(cancel);
        return;
    }
    const int64_t until_ms = connection_now_ms() + CANCEL_TIMEOUT_MS;
    const struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    if (pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until) != 0)
        pthread_detach(thread);
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

void
connection_cancel_and_drain(Connection *connection)
{
    send_cancel(connection->libpq);
    const int64_t deadline_ms = connection_now_ms() + DRAIN_TIMEOUT_MS;
    for (;;) {
        while (PQisBusy(connection->libpq)) {
            struct pollfd socket = {.fd = PQsocket(connection->libpq), .events = POLLIN};
            const int64_t left_ms = deadline_ms - connection_now_ms();
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
