/* Secrets that a command prints: a password manager, a KMS, systemd-creds. */
#include "common/secret_intern.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { POLL_MS = 100, WAIT_MS = 1 };

typedef struct {
    pid_t pid;
    int output; /* read end; -1: closed */
} Child;

/* sh in a process group of its own, with no signal blocked or ignored, and nothing of ours open:
   all our descriptors are O_CLOEXEC. */
static int
spawn_shell(const char *command, int output, pid_t *pid_out)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGINT);
    sigaddset(&defaults, SIGTERM);
    /* posix_spawn takes no const; nothing is written through these. */
    char *arguments[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c",
                         (char *)(uintptr_t)command, NULL};

    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    int failed = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (failed == 0)
        failed = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    if (failed == 0)
        failed = posix_spawn(pid_out, "/bin/sh", &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return failed;
}

static bool
start(const char *command, Child *child, CairnError *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return cairn_error_errno(err, "unable to make a pipe");
    const int failed = spawn_shell(command, ends[1], &child->pid);
    close(ends[1]);
    if (failed != 0) {
        close(ends[0]);
        errno = failed;
        return cairn_error_errno(err, "unable to run passphrase-command");
    }
    child->output = ends[0];
    return true;
}

static bool
took_too_long(int timeout_s, CairnError *err)
{
    return cairn_error(err, CAIRN_UNAVAILABLE, "passphrase-command took longer than %d seconds",
                       timeout_s);
}

/* Reads until end of output, the limit or the deadline. */
static bool
read_output(const World *world, const Child *child, int timeout_s, int64_t deadline_ns,
            Secret *secret, CairnError *err)
{
    const Clock *clock = world->clock;
    const size_t limit = secret->size;
    secret->size = 0;
    while (secret->size < limit) {
        struct pollfd wait = {.fd = child->output, .events = POLLIN};
        const int ready = poll(&wait, 1, POLL_MS);
        if (ready < 0 && errno != EINTR)
            return cairn_error_errno(err, "unable to wait for passphrase-command");
        if (ready > 0) {
            const ssize_t count =
                read(child->output, secret->data + secret->size, limit - secret->size);
            if (count == 0)
                return true;
            if (count < 0 && errno != EINTR)
                return cairn_error_errno(err, "unable to read from passphrase-command");
            secret->size += count > 0 ? (size_t)count : 0;
        }
        if (clock->monotonic_ns(clock) > deadline_ns)
            return took_too_long(timeout_s, err);
    }
    return cairn_error(err, CAIRN_USAGE, "passphrase-command prints more than %zu bytes",
                       limit - 1);
}

/* Ends it, whatever it does. */
static void
give_up(const Child *child)
{
    int status;
    kill(-child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        continue;
}

/* Its exit status. A command that closed its output and goes on has until the deadline. */
static bool
finish(const World *world, const Child *child, int timeout_s, int64_t deadline_ns, CairnError *err)
{
    const Clock *clock = world->clock;
    int status = 0;
    for (;;) {
        const pid_t ended = waitpid(child->pid, &status, WNOHANG);
        if (ended == child->pid)
            break;
        if (ended < 0 && errno != EINTR)
            return cairn_error_errno(err, "unable to wait for passphrase-command");
        if (clock->monotonic_ns(clock) > deadline_ns) {
            give_up(child);
            return took_too_long(timeout_s, err);
        }
        clock->sleep_ms(clock, WAIT_MS);
    }
    if (WIFSIGNALED(status))
        return cairn_error(err, CAIRN_UNAVAILABLE, "passphrase-command was ended by signal %d",
                           WTERMSIG(status));
    if (WEXITSTATUS(status) != 0) {
        cairn_error(err, CAIRN_UNAVAILABLE, "passphrase-command failed with exit status %d",
                    WEXITSTATUS(status));
        return cairn_error_hint(err, "it runs as this user, with this environment: try it by hand");
    }
    return true;
}

Secret *
secret_run_command(const World *world, const char *command, int timeout_s, CairnError *err)
{
    SCOPED(Secret) secret = secret_new(SECRET_TEXT_LIMIT, err);
    Child child = {.pid = -1, .output = -1};
    const Clock *clock = world->clock;
    /* The shell's start is counted too, however long it is before we run again. */
    const int64_t deadline_ns = clock->monotonic_ns(clock) + timeout_s * INT64_C(1000000000);
    if (secret == NULL || !start(command, &child, err))
        return NULL;
    const bool whole = read_output(world, &child, timeout_s, deadline_ns, secret, err);
    close(child.output);
    if (!whole)
        give_up(&child);
    if (!whole || !finish(world, &child, timeout_s, deadline_ns, err) ||
        !secret_trim_line(secret, "passphrase-command", err))
        return NULL;
    return take(&secret);
}
