#include "walarchive/push_server.h"

#include "common/cancel.h"
#include "common/log.h"
#include "walarchive/serve_protocol.h"
#include "walarchive/watchdog.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert((int)CAIRN_ERROR_MESSAGE_SIZE <= (int)SERVE_MESSAGE_LIMIT,
               "every message fits an answer");
_Static_assert((int)CAIRN_ERROR_HINT_SIZE <= (int)SERVE_HINT_LIMIT, "every hint fits an answer");

typedef struct {
    const World *world;
    const PushServerOptions *options;
    PushKept *kept[CONFIG_REPOSITORIES_LIMIT]; /* one for each repository, by its place */
    WalPushAll request;                        /* the last one */
    bool left_behind;
    char input[SERVE_LINE_LIMIT];
    size_t input_size;
} PushServer;

typedef enum { LINE_READ, LINE_END, LINE_FAILED } LineResult;

/* Signals that ask us to end are let in here only, so that none slips in between looking and
   waiting. */
static void
wait_for_input(int fd)
{
    sigset_t ending;
    sigset_t before;
    struct pollfd wanted = {.fd = fd, .events = POLLIN};

    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ending, &before);
    if (!cancel_requested()) {
        const int ready = ppoll(&wanted, 1, NULL, &before);
        (void)ready; /* whatever woke us: the read that follows tells */
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static LineResult
read_more(PushServer *server, CairnError *err)
{
    const int fd = server->options->input_fd;

    wait_for_input(fd);
    if (cancel_requested())
        return LINE_END;
    const ssize_t size =
        read(fd, server->input + server->input_size, sizeof server->input - server->input_size);
    if (size > 0) {
        server->input_size += (size_t)size;
        return LINE_READ;
    }
    if (size == 0)
        return LINE_END;
    if (errno == EINTR || errno == EAGAIN)
        return LINE_READ;
    if (errno == ECONNRESET)
        return LINE_END;
    cairn_error_errno(err, "unable to read the next request");
    return LINE_FAILED;
}

/* One line without its break. */
static LineResult
read_line(PushServer *server, char line[SERVE_LINE_LIMIT], CairnError *err)
{
    for (;;) {
        const char *end = memchr(server->input, '\n', server->input_size);

        if (end != NULL) {
            const size_t size = (size_t)(end - server->input);
            memcpy(line, server->input, size);
            line[size] = '\0';
            server->input_size -= size + 1;
            memmove(server->input, end + 1, server->input_size);
            return LINE_READ;
        }
        if (server->input_size == sizeof server->input) {
            cairn_error(err, CAIRN_UNSUPPORTED, "a request is longer than %d bytes",
                        SERVE_LINE_LIMIT);
            return LINE_FAILED;
        }
        const LineResult result = read_more(server, err);
        if (result != LINE_READ)
            return result;
    }
}

/* Where the path begins in the line; NULL for what is no request. */
static const char *
parse_request(const char *line, uint64_t *serial_out)
{
    char *end = NULL;

    if (line[0] < '0' || line[0] > '9')
        return NULL;
    errno = 0;
    *serial_out = strtoull(line, &end, 10);
    if (errno != 0 || *end != ' ' || end[1] == '\0' || strlen(end + 1) > SERVE_PATH_LIMIT)
        return NULL;
    return end + 1;
}

/* False: nobody listens any more, which is how an archiver's death looks from here. */
static bool
write_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        const ssize_t written = write(fd, text, size);

        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        text += written;
        size -= (size_t)written;
    }
    return true;
}

static bool
answer(const PushServer *server, uint64_t serial, bool done, CairnError *err)
{
    char text[SERVE_LINE_LIMIT + SERVE_MESSAGE_LIMIT + SERVE_HINT_LIMIT];
    const bool failed = !done;
    if (failed && err->kind == CAIRN_OK)
        cairn_error(err, CAIRN_INTERNAL, "it failed, and nobody said why");
    const char *hint = failed ? log_hint(err) : NULL;
    const size_t message_size = failed ? strlen(err->message) : 0;
    const size_t hint_size = hint != NULL ? strlen(hint) : 0;
    const int size = snprintf(text, sizeof text, "%" PRIu64 " %s %zu %zu\n%s%s", serial,
                              failed ? SERVE_FAILED : SERVE_DONE, message_size, hint_size,
                              failed ? err->message : "", hint != NULL ? hint : "");

    CAIRN_ASSERT(size > 0 && (size_t)size < sizeof text);
    return write_all(server->options->output_fd, text, (size_t)size);
}

static void
forget_kept(PushServer *server)
{
    for (size_t i = 0; i < CONFIG_REPOSITORIES_LIMIT; i++) {
        if (server->kept[i] != NULL)
            push_kept_forget(server->kept[i]);
    }
}

static void
free_kept(PushServer *server)
{
    for (size_t i = 0; i < CONFIG_REPOSITORIES_LIMIT; i++)
        push_kept_free(server->kept[i]);
}

static bool
fill_request(PushServer *server, const char *path, CairnError *err)
{
    WalPushAll *request = &server->request;

    for (size_t i = 0; i < request->count; i++) {
        if (server->kept[i] == NULL && (server->kept[i] = push_kept_new(err)) == NULL)
            return false;
        request->pushes[i].path = path;
        request->pushes[i].kept = server->kept[i];
        request->pushes[i].ship_later = true;
    }
    return true;
}

static bool
push(PushServer *server, const char *path, CairnError *err)
{
    const PushServerOptions *options = server->options;
    WalPushedAll pushed = {0};
    bool changed = false;

    server->request = (WalPushAll){0};
    if (!options->prepare(options->context, path, &server->request, &changed, err))
        return false;
    if (changed)
        forget_kept(server);
    if (!fill_request(server, path, err))
        return false;
    const bool done = wal_push_all(server->world, &server->request, &pushed, err);
    options->report(options->context, path, &pushed);
    server->left_behind = pushed.left_behind;
    return done;
}

static bool
push_in_time(PushServer *server, const char *path, CairnError *err)
{
    const int64_t timeout_ms = server->options->timeout_ms;

    watchdog_arm(timeout_ms, path);
    const bool done = push(server, path, err);
    watchdog_disarm();
    if (!done && err->kind == CAIRN_CANCELLED && watchdog_expired()) {
        cairn_error_clear(err);
        cairn_error(err, CAIRN_UNAVAILABLE, "not finished after %" PRId64 " s", timeout_ms / 1000);
        cairn_error_hint(err, "PostgreSQL will try again; pgcairn_archive.timeout gives it longer");
    }
    return done;
}

/* The file has its answer. When overflow-path hangs, the process ends, and another one begins with
   the next file: before the archiver has lost its patience with that. */
static void
ship_in_time(PushServer *server, const char *path)
{
    const PushServerOptions *options = server->options;
    const WalPushAll *request = &server->request;

    watchdog_arm(options->timeout_ms / 2, path);
    for (size_t i = 0; i < request->count; i++) {
        WalPushed pushed = {0};

        if (request->pushes[i].overflow_path != NULL)
            wal_push_ship(server->world, &request->pushes[i], &pushed);
        if (pushed.shipped > 0 || pushed.trouble[0] != '\0')
            options->report_shipped(options->context, &pushed,
                                    request->count > 1 ? request->pushes[i].repository->name
                                                       : NULL);
    }
    watchdog_disarm();
}

static bool
serve(PushServer *server, CairnError *err)
{
    char line[SERVE_LINE_LIMIT];

    for (;;) {
        uint64_t serial = 0;
        CairnError failure = {0};
        const LineResult result = read_line(server, line, err);

        if (result != LINE_READ)
            return result == LINE_END;
        const char *path = parse_request(line, &serial);
        if (path == NULL)
            return cairn_error(err, CAIRN_UNSUPPORTED, "a request is not understood");
        const bool done = push_in_time(server, path, &failure);
        /* Cancellation is not taken back; a new process starts clean. */
        const bool heard = answer(server, serial, done, &failure);
        if (server->left_behind)
            _exit(0);
        if (!heard || cancel_requested())
            return true;
        if (done)
            ship_in_time(server, path);
        if (cancel_requested())
            return true;
    }
}

bool
push_server_run(const World *world, const PushServerOptions *options, CairnError *err)
{
    static const char HELLO[] = SERVE_HELLO "\n";
    PushServer server = {.world = world, .options = options};

    if (!watchdog_prepare(err))
        return false;
    const bool done =
        !write_all(options->output_fd, HELLO, sizeof HELLO - 1) || serve(&server, err);
    free_kept(&server);
    return done;
}
