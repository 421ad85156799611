#include <postgres.h>

#include "walarchive/module/helper.h"

#include <miscadmin.h>
#include <storage/latch.h>
#include <utils/pidfile.h>
#include <utils/wait_event.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum {
    /* The helper gives up so much earlier than we kill it that it can still say why. */
    HELPER_MARGIN_S = 2,
    END_PATIENCE_MS = 1000, /* of a helper that was told to end */
    KILL_PATIENCE_MS = 200,
    POLL_MS = 5,
    PAUSE_FIRST_MS = 2000, /* after a second unexpected end in a row, doubled for each one more */
    PAUSE_LIMIT_MS = 30000,
    PAUSE_STOPPING_MS = 10000,
    UNREAPED_LIMIT = 8,
};

typedef struct {
    char text[SERVE_LINE_LIMIT + SERVE_MESSAGE_LIMIT + SERVE_HINT_LIMIT];
    size_t size;
} Received;

/* One helper a process, as there is one archiver. */
static struct {
    pid_t pid; /* 0: none runs */
    int fd;
    bool ready; /* has said hello */
    uint64 serial;
    char command[MAXPGPATH];
    char config[MAXPGPATH];
    char cluster[NAMEDATALEN * 4];
    int timeout_s;
    Received received;

    int unexpected_ends; /* in a row */
    int64 pause_until_ms;

    /* Killed, but not gone: a process in a kernel wait, on a file system that does not answer. */
    pid_t unreaped[UNREAPED_LIMIT];
    int unreaped_count;
} helper;

static int64
now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void pg_attribute_printf(2, 3) fail(HelperAnswer *answer, const char *format, ...)
{
    va_list args;

    answer->done = false;
    answer->hint[0] = '\0';
    va_start(args, format);
    vsnprintf(answer->message, sizeof answer->message, format, args);
    va_end(args);
}

static void
advise(HelperAnswer *answer, const char *hint)
{
    strlcpy(answer->hint, hint, sizeof answer->hint);
}

/* -- the end of a helper */

static bool
is_gone(pid_t pid, int *status)
{
    const pid_t result = waitpid(pid, status, WNOHANG);

    /* ECHILD: somebody else has asked; there is nothing left to wait for. */
    return result == pid || (result < 0 && errno == ECHILD);
}

static bool
wait_gone(pid_t pid, int patience_ms, int *status)
{
    const int64 limit_ms = now_ms() + patience_ms;

    while (!is_gone(pid, status)) {
        if (now_ms() >= limit_ms)
            return false;
        pg_usleep(POLL_MS * 1000L);
    }
    return true;
}

static void
reap_late_ones(void)
{
    int kept = 0;

    for (int i = 0; i < helper.unreaped_count; i++) {
        int status = 0;

        if (!is_gone(helper.unreaped[i], &status))
            helper.unreaped[kept++] = helper.unreaped[i];
    }
    helper.unreaped_count = kept;
}

/* patience_ms: how long it may take to end by itself; *status is set when it did. */
static bool
end_helper(int patience_ms, int *status)
{
    const pid_t pid = helper.pid;

    if (pid == 0)
        return false;
    close(helper.fd);
    helper.pid = 0;
    helper.fd = -1;
    helper.ready = false;
    helper.received.size = 0;
    if (wait_gone(pid, patience_ms, status))
        return true;
    kill(pid, SIGKILL);
    int ignored = 0;
    if (!wait_gone(pid, KILL_PATIENCE_MS, &ignored) && helper.unreaped_count < UNREAPED_LIMIT)
        helper.unreaped[helper.unreaped_count++] = pid;
    return false;
}

void
helper_stop(void)
{
    int status = 0;

    end_helper(END_PATIENCE_MS, &status);
}

static void
pause_for(int64 duration_ms)
{
    helper.pause_until_ms = now_ms() + duration_ms;
}

/* The first end costs nothing: the server waits a second before it asks again. */
static void
count_unexpected_end(void)
{
    int64 pause_ms = PAUSE_FIRST_MS;

    helper.unexpected_ends++;
    for (int i = 2; i < helper.unexpected_ends && pause_ms < PAUSE_LIMIT_MS; i++)
        pause_ms *= 2;
    if (helper.unexpected_ends > 1)
        pause_for(Min(pause_ms, PAUSE_LIMIT_MS));
}

static bool
server_is_stopping(void)
{
    char text[MAXPGPATH * 2];
    const int fd = open("postmaster.pid", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    const ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0)
        return false;
    text[size] = '\0';
    const char *line = text;
    for (int number = 1; number < LOCK_FILE_LINE_PM_STATUS; number++) {
        line = strchr(line, '\n');
        if (line == NULL)
            return false;
        line++;
    }
    return strncmp(line, PM_STATUS_STOPPING, strlen(PM_STATUS_STOPPING)) == 0;
}

/*
 * After a file that took long in vain. The server offers a file three times, a second apart, also
 * when it is stopping: then one timeout is all that it shall wait for.
 */
static void
pause_when_stopping(void)
{
    if (server_is_stopping())
        pause_for(PAUSE_STOPPING_MS);
}

/* The connection has ended, or the helper says what no helper says. */
static void
helper_died(HelperAnswer *answer, const char *what)
{
    const bool was_ready = helper.ready;
    int status = 0;

    if (!end_helper(END_PATIENCE_MS, &status))
        fail(answer, "its helper process %s; it was killed", what);
    else if (WIFSIGNALED(status))
        fail(answer, "its helper process was ended by signal %d", WTERMSIG(status));
    else
        fail(answer, "its helper process ended with exit code %d", WEXITSTATUS(status));
    if (was_ready)
        advise(answer, "The file is not archived; the server will offer it again, to a new "
                       "helper process.");
    else
        advise(answer, "Is pgcairn_archive.command the pgcairn-wal of this version? What it said "
                       "stands above in the server's log.");
    count_unexpected_end();
}

static void
helper_hangs(HelperAnswer *answer)
{
    int status = 0;

    end_helper(0, &status);
    fail(answer, "no answer within %d s; the helper process was killed", helper.timeout_s);
    advise(answer, "Look at the disks and mounts of the repository; pgcairn_archive.timeout gives "
                   "a slow one longer.");
    count_unexpected_end();
    pause_when_stopping();
}

/* -- its beginning */

static bool
settings_changed(const HelperSettings *settings)
{
    return strcmp(helper.command, settings->command) != 0 ||
           strcmp(helper.config, settings->config) != 0 ||
           strcmp(helper.cluster, settings->cluster) != 0 ||
           helper.timeout_s != settings->timeout_s;
}

static bool
remember_settings(const HelperSettings *settings)
{
    helper.timeout_s = settings->timeout_s;
    return strlcpy(helper.command, settings->command, sizeof helper.command) <
               sizeof helper.command &&
           strlcpy(helper.config, settings->config, sizeof helper.config) < sizeof helper.config &&
           strlcpy(helper.cluster, settings->cluster, sizeof helper.cluster) <
               sizeof helper.cluster;
}

/*
 * A process group of its own: what is sent to the archiver's group when the server stops at once
 * must not cut a push short; the end of its input ends it. Signals as a fresh program expects them:
 * the archiver ignores some.
 */
static int
set_attributes(posix_spawnattr_t *attributes)
{
    sigset_t all;
    sigset_t none;

    sigfillset(&all);
    sigemptyset(&none);
    int failure = posix_spawnattr_setflags(
        attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (failure == 0)
        failure = posix_spawnattr_setpgroup(attributes, 0);
    if (failure == 0)
        failure = posix_spawnattr_setsigmask(attributes, &none);
    if (failure == 0)
        failure = posix_spawnattr_setsigdefault(attributes, &all);
    return failure;
}

/* Standard error stays the server's: what the helper logs goes into the server's log. */
static int
set_actions(posix_spawn_file_actions_t *actions, int fd)
{
    int failure = posix_spawn_file_actions_adddup2(actions, fd, STDIN_FILENO);

    if (failure == 0)
        failure = posix_spawn_file_actions_adddup2(actions, fd, STDOUT_FILENO);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
    /* Old servers leave descriptors open across exec. */
    if (failure == 0)
        failure = posix_spawn_file_actions_addclosefrom_np(actions, STDERR_FILENO + 1);
#endif
    return failure;
}

static int
spawn(int fd, pid_t *pid)
{
    char timeout[32];
    char *words[9];
    int count = 0;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;

    snprintf(timeout, sizeof timeout, "%d", Max(helper.timeout_s - HELPER_MARGIN_S, 1));
    words[count++] = helper.command;
    words[count++] = "serve";
    words[count++] = "--timeout";
    words[count++] = timeout;
    if (helper.config[0] != '\0') {
        words[count++] = "--config";
        words[count++] = helper.config;
    }
    if (helper.cluster[0] != '\0') {
        words[count++] = "--cluster";
        words[count++] = helper.cluster;
    }
    words[count] = NULL;

    int failure = posix_spawnattr_init(&attributes);
    if (failure != 0)
        return failure;
    failure = posix_spawn_file_actions_init(&actions);
    if (failure == 0) {
        failure = set_attributes(&attributes);
        if (failure == 0)
            failure = set_actions(&actions, fd);
        if (failure == 0)
            failure = posix_spawn(pid, helper.command, &actions, &attributes, words, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    posix_spawnattr_destroy(&attributes);
    return failure;
}

static bool
start_helper(const HelperSettings *settings, HelperAnswer *answer)
{
    int ends[2];
    pid_t pid = 0;

    if (!remember_settings(settings)) {
        fail(answer, "a setting of pgcairn_archive is too long");
        return false;
    }
    if (helper.unreaped_count == UNREAPED_LIMIT) {
        fail(answer, "%d helper processes were killed and do not end", UNREAPED_LIMIT);
        advise(answer, "They wait for a file system that does not answer: look at the disks and "
                       "mounts of the repository.");
        return false;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        fail(answer, "unable to make a socket: %s", strerror(errno));
        return false;
    }
    const int failure = spawn(ends[1], &pid);
    close(ends[1]);
    if (failure != 0) {
        close(ends[0]);
        fail(answer, "unable to start '%s': %s", settings->command, strerror(failure));
        advise(answer, "Set pgcairn_archive.command to the absolute path of pgcairn-wal; the "
                       "server's user must be allowed to run it.");
        count_unexpected_end();
        return false;
    }
    helper.pid = pid;
    helper.fd = ends[0];
    helper.serial = 0;
    helper.received.size = 0;
    helper.ready = false;
    return true;
}

/* -- talking to it */

static uint32
wait_event(void)
{
#if PG_VERSION_NUM >= 170000
    static uint32 event = 0;

    if (event == 0)
        event = WaitEventExtensionNew("PgcairnArchive");
    return event;
#else
    return PG_WAIT_EXTENSION;
#endif
}

typedef enum { IO_DONE, IO_ENDED, IO_TIMEOUT } IoResult;

/*
 * Waits until the socket is ready for `event`. A latch that was set is reset here and set again
 * before we return to the server (*latch_was_set): what woke it, a request to stop above all, is
 * looked at in its main loop and nowhere else.
 */
static bool
wait_for_socket(int event, int64 limit_ms, bool *latch_was_set)
{
    for (;;) {
        const int64 left_ms = limit_ms - now_ms();
        if (left_ms <= 0)
            return false;
        const int events =
            WaitLatchOrSocket(MyLatch, WL_LATCH_SET | event | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
                              helper.fd, (long)left_ms, wait_event());
        if (events & WL_LATCH_SET) {
            ResetLatch(MyLatch);
            *latch_was_set = true;
            /* Barriers, for which a DROP DATABASE may be waiting. */
            CHECK_FOR_INTERRUPTS();
        }
        if (events & event)
            return true;
    }
}

static IoResult
send_line(const char *line, size_t size, int64 limit_ms, bool *latch_was_set)
{
    size_t sent = 0;

    while (sent < size) {
        const ssize_t part = send(helper.fd, line + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (part >= 0)
            sent += (size_t)part;
        else if (errno != EINTR && errno != EAGAIN)
            return IO_ENDED;
        else if (!wait_for_socket(WL_SOCKET_WRITEABLE, limit_ms, latch_was_set))
            return IO_TIMEOUT;
    }
    return IO_DONE;
}

/* Receives until `size` bytes are there. Never more than the buffer: an answer fits. */
static IoResult
receive(size_t size, int64 limit_ms, bool *latch_was_set)
{
    Received *received = &helper.received;

    while (received->size < size) {
        const ssize_t part = recv(helper.fd, received->text + received->size,
                                  sizeof received->text - received->size, MSG_DONTWAIT);
        if (part > 0)
            received->size += (size_t)part;
        else if (part == 0 || (errno != EINTR && errno != EAGAIN))
            return IO_ENDED;
        else if (!wait_for_socket(WL_SOCKET_READABLE, limit_ms, latch_was_set))
            return IO_TIMEOUT;
    }
    return IO_DONE;
}

static IoResult
receive_line(char line[SERVE_LINE_LIMIT], int64 limit_ms, bool *latch_was_set)
{
    Received *received = &helper.received;

    for (;;) {
        const char *end = memchr(received->text, '\n', received->size);
        if (end != NULL && end - received->text < SERVE_LINE_LIMIT) {
            const size_t size = (size_t)(end - received->text);
            memcpy(line, received->text, size);
            line[size] = '\0';
            received->size -= size + 1;
            memmove(received->text, end + 1, received->size);
            return IO_DONE;
        }
        if (received->size >= SERVE_LINE_LIMIT)
            return IO_ENDED;
        const IoResult result = receive(received->size + 1, limit_ms, latch_was_set);
        if (result != IO_DONE)
            return result;
    }
}

/* A piece of text that was received; no log shall obey what a file name or a disk put into it. */
static void
take_text(char *text, size_t size)
{
    Received *received = &helper.received;

    for (size_t i = 0; i < size; i++) {
        const unsigned char byte = (unsigned char)received->text[i];
        text[i] = byte < ' ' || byte == 0x7f ? ' ' : (char)byte;
    }
    text[size] = '\0';
    received->size -= size;
    memmove(received->text, received->text + size, received->size);
}

static bool
parse_answer(const char *line, bool *done, size_t *message_size, size_t *hint_size)
{
    unsigned long long serial = 0;
    unsigned long message = 0;
    unsigned long hint = 0;
    char status[16];
    char rest = '\0';

    if (sscanf(line, "%llu %15s %lu %lu%c", &serial, status, &message, &hint, &rest) != 4 ||
        serial != helper.serial || message > SERVE_MESSAGE_LIMIT || hint > SERVE_HINT_LIMIT)
        return false;
    *done = strcmp(status, SERVE_DONE) == 0;
    *message_size = message;
    *hint_size = hint;
    return *done || strcmp(status, SERVE_FAILED) == 0;
}

static IoResult
read_answer(int64 limit_ms, bool *latch_was_set, HelperAnswer *answer)
{
    char line[SERVE_LINE_LIMIT];
    size_t message_size = 0;
    size_t hint_size = 0;
    bool done = false;

    IoResult result = receive_line(line, limit_ms, latch_was_set);
    if (result != IO_DONE)
        return result;
    if (!parse_answer(line, &done, &message_size, &hint_size))
        return IO_ENDED;
    result = receive(message_size + hint_size, limit_ms, latch_was_set);
    if (result != IO_DONE)
        return result;
    take_text(answer->message, message_size);
    take_text(answer->hint, hint_size);
    if (helper.received.size != 0)
        return IO_ENDED; /* more than it was asked for */
    answer->done = done;
    return IO_DONE;
}

static IoResult
read_hello(int64 limit_ms, bool *latch_was_set)
{
    char line[SERVE_LINE_LIMIT];

    if (helper.ready)
        return IO_DONE;
    const IoResult result = receive_line(line, limit_ms, latch_was_set);
    if (result != IO_DONE)
        return result;
    helper.ready = strcmp(line, SERVE_HELLO) == 0;
    return helper.ready ? IO_DONE : IO_ENDED;
}

static IoResult
ask(const char *path, int64 limit_ms, bool *latch_was_set, HelperAnswer *answer)
{
    char line[SERVE_LINE_LIMIT];

    IoResult result = read_hello(limit_ms, latch_was_set);
    if (result != IO_DONE)
        return result;
    const int size = snprintf(line, sizeof line, "%" PRIu64 " %s\n", ++helper.serial, path);
    if (size < 0 || size >= (int)sizeof line)
        return IO_ENDED;
    result = send_line(line, (size_t)size, limit_ms, latch_was_set);
    return result == IO_DONE ? read_answer(limit_ms, latch_was_set, answer) : result;
}

static bool
paused(HelperAnswer *answer)
{
    const int64 left_ms = helper.pause_until_ms - now_ms();

    if (left_ms <= 0)
        return false;
    fail(answer, "waiting after the last failure, for another %d s", (int)(left_ms / 1000) + 1);
    return true;
}

/*
 * One that has ended since the last file must not cost this one a failure: it was told to, or
 * killed while idle. Its socket tells.
 */
static void
forget_dead_helper(void)
{
    char byte;
    int status = 0;

    if (helper.pid != 0 && recv(helper.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
        ereport(LOG, (errmsg("pgcairn_archive: the helper process %d has ended, another is started",
                             (int)helper.pid)));
        end_helper(END_PATIENCE_MS, &status);
        count_unexpected_end();
    }
}

void
helper_archive(const HelperSettings *settings, const char *path, HelperAnswer *answer)
{
    const int64 start_ms = now_ms();
    const int64 limit_ms = start_ms + (int64)settings->timeout_s * 1000;
    bool latch_was_set = false;

    reap_late_ones();
    if (settings_changed(settings)) {
        helper_stop();
        helper.pause_until_ms = 0; /* perhaps that is what was wrong */
    }
    forget_dead_helper();
    if (paused(answer) || (helper.pid == 0 && !start_helper(settings, answer)))
        return;

    switch (ask(path, limit_ms, &latch_was_set, answer)) {
    case IO_DONE:
        helper.unexpected_ends = 0;
        if (!answer->done && 2 * (now_ms() - start_ms) > limit_ms - start_ms)
            pause_when_stopping();
        break;
    case IO_ENDED:
        helper_died(answer, "does not speak as one");
        break;
    case IO_TIMEOUT:
        helper_hangs(answer);
        break;
    }
    if (latch_was_set)
        SetLatch(MyLatch);
}
