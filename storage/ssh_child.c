#include "storage/ssh_child.h"

#include "common/scoped.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { EXIT_NOT_FOUND = 127, EXIT_SSH = 255 };
enum { END_WAIT_MS = 2000, EXPLAIN_WAIT_MS = 1000, STEP_MS = 5 };

/* ---- starting ---- */

static bool
set_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    /* What we ignore or block would be ignored and blocked there, too. */
    static const int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGCHLD};
    for (size_t i = 0; i < sizeof SIGNALS / sizeof SIGNALS[0]; i++)
        sigaddset(&defaults, SIGNALS[i]);
    return posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                    POSIX_SPAWN_SETSID) == 0 &&
           posix_spawnattr_setsigmask(attributes, &none) == 0 &&
           posix_spawnattr_setsigdefault(attributes, &defaults) == 0;
}

static int
spawn(char *const *argv, int socket_fd, int said_fd, pid_t *pid_out)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return ENOMEM;
    if (posix_spawnattr_init(&attributes) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return ENOMEM;
    }
    int failure = ENOMEM;
    if (set_attributes(&attributes) &&
        posix_spawn_file_actions_adddup2(&actions, socket_fd, STDIN_FILENO) == 0 &&
        posix_spawn_file_actions_adddup2(&actions, socket_fd, STDOUT_FILENO) == 0 &&
        posix_spawn_file_actions_adddup2(&actions, said_fd, STDERR_FILENO) == 0)
        failure = posix_spawnp(pid_out, argv[0], &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failure;
}

/* Above the standard ones: where a caller closed those, dup2 onto itself would leave CLOEXEC set.
 */
static bool
move_up(int *fd)
{
    if (*fd > STDERR_FILENO)
        return true;
    const int moved = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (moved < 0)
        return false;
    close(*fd);
    *fd = moved;
    return true;
}

bool
ssh_child_start(char *const *argv, SshChild *child_out, CairnError *err)
{
    int sockets[2], pipes[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
        return cairn_error_errno(err, "unable to make a socket for '%s'", argv[0]);
    SCOPED_FD ours = sockets[0];
    SCOPED_FD theirs = sockets[1];
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return cairn_error_errno(err, "unable to make a pipe for '%s'", argv[0]);
    SCOPED_FD said = pipes[0];
    SCOPED_FD says = pipes[1];
    if (!move_up(&ours) || !move_up(&theirs) || !move_up(&said) || !move_up(&says) ||
        fcntl(said, F_SETFL, O_NONBLOCK) != 0)
        return cairn_error_errno(err, "unable to prepare descriptors for '%s'", argv[0]);

    SshChild child = SSH_CHILD_NONE;
    errno = spawn(argv, theirs, says, &child.pid);
    if (errno == ENOENT) {
        cairn_error(err, CAIRN_USAGE, "unable to start '%s': there is no such program", argv[0]);
        return cairn_error_hint(err, "install the ssh client, or set ssh-command");
    }
    if (errno != 0)
        return cairn_error_errno(err, "unable to start '%s'", argv[0]);
    child.socket_fd = take_fd(&ours);
    child.said_fd = take_fd(&said);
    *child_out = child;
    return true;
}

/* ---- what it said ---- */

static void
keep_said(SshChild *child, const char *text, size_t size)
{
    if (size > SSH_SAID_SIZE) {
        text += size - SSH_SAID_SIZE;
        size = SSH_SAID_SIZE;
    }
    const size_t over =
        child->said_size + size > SSH_SAID_SIZE ? child->said_size + size - SSH_SAID_SIZE : 0;
    memmove(child->said, child->said + over, child->said_size - over);
    child->said_size -= over;
    memcpy(child->said + child->said_size, text, size);
    child->said_size += size;
    child->said[child->said_size] = '\0';
}

void
ssh_child_listen(SshChild *child)
{
    char text[SSH_SAID_SIZE];
    while (child->said_fd >= 0) {
        const ssize_t size = read(child->said_fd, text, sizeof text);
        if (size > 0) {
            keep_said(child, text, (size_t)size);
        } else if (size < 0 && errno == EINTR) {
            continue;
        } else if (size < 0 && errno == EAGAIN) {
            return;
        } else {
            close(child->said_fd);
            child->said_fd = -1;
        }
    }
}

/* One line, without what could confuse a terminal. */
static void
one_line(const char *said, char *line, size_t limit)
{
    size_t size = 0;
    for (; *said != '\0' && size < limit; said++) {
        const bool ends = *said == '\n' || *said == '\r';
        if (ends && (size == 0 || line[size - 1] == ' '))
            continue;
        line[size++] = ends ? ' ' : *said < ' ' || *said > '~' ? '?' : *said;
    }
    while (size > 0 && line[size - 1] == ' ')
        size--;
    line[size] = '\0';
}

/* ---- its end ---- */

/* True when it has ended (or is none of ours); *status_out is -1 when nobody knows how. */
static bool
has_ended(SshChild *child, int *status_out)
{
    *status_out = -1;
    if (child->pid == 0)
        return true;
    pid_t ended;
    do {
        ended = waitpid(child->pid, status_out, WNOHANG);
    } while (ended < 0 && errno == EINTR);
    if (ended == 0)
        return false;
    if (ended < 0)
        *status_out = -1;
    child->pid = 0;
    return true;
}

static bool
wait_ended(SshChild *child, const Clock *clock, int limit_ms, int *status_out)
{
    for (int waited = 0; !has_ended(child, status_out); waited += STEP_MS) {
        if (waited >= limit_ms)
            return false;
        ssh_child_listen(child);
        clock->sleep_ms(clock, STEP_MS);
    }
    return true;
}

typedef struct {
    const char *sign;
    CairnErrorKind kind;
    const char *hint;
} Saying;

/* OpenSSH's messages, which are not translated. */
static const Saying SAYINGS[] = {
    {"REMOTE HOST IDENTIFICATION HAS CHANGED", CAIRN_DENIED,
     "the repository host has another key than the one in known_hosts: find out why before you "
     "replace it"},
    {"Host key verification failed", CAIRN_DENIED,
     "the repository host's key is not in known_hosts of this user: connect once by hand, as the "
     "user that runs pgcairn, and compare its fingerprint"},
    {"Permission denied (", CAIRN_DENIED,
     "is the public key of this user in authorized_keys on the repository host? `pgcairn init "
     "--print` shows the line; try it by hand, as the user that runs pgcairn"},
    {"Too many authentication failures", CAIRN_DENIED,
     "name the key: IdentityFile and IdentitiesOnly in ssh_config, or -i in ssh-command"},
    {"UNPROTECTED PRIVATE KEY FILE", CAIRN_DENIED,
     "the private key must be readable by its owner only"},
    {"Could not resolve hostname", CAIRN_UNAVAILABLE, "is host right? It is what ssh takes"},
    {"Connection refused", CAIRN_UNAVAILABLE, "does sshd run there, on this port?"},
};

static const Saying *
known_saying(const char *said)
{
    for (size_t i = 0; i < sizeof SAYINGS / sizeof SAYINGS[0]; i++) {
        if (strstr(said, SAYINGS[i].sign) != NULL)
            return &SAYINGS[i];
    }
    return NULL;
}

void
ssh_child_explain(SshChild *child, const Clock *clock, const char *host, bool before_hello,
                  CairnError *err)
{
    char said[SSH_SAID_SIZE + 1];
    int status;
    const bool ended = wait_ended(child, clock, EXPLAIN_WAIT_MS, &status);
    const int code = ended && status != -1 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    ssh_child_listen(child);
    one_line(child->said, said, sizeof said - 1);
    const Saying *saying = before_hello ? known_saying(child->said) : NULL;

    if (saying != NULL) {
        cairn_error(err, saying->kind, "no connection to repository host '%s': ssh said: %s", host,
                    said);
        cairn_error_hint(err, "%s", saying->hint);
    } else if (before_hello && code == EXIT_NOT_FOUND) {
        cairn_error(err, CAIRN_USAGE, "repository host '%s' does not find pgcairn: %s", host, said);
        cairn_error_hint(err, "install it there, or set remote-program to its path");
    } else if (before_hello) {
        cairn_error(err, CAIRN_UNAVAILABLE, "no connection to repository host '%s'%s%s", host,
                    said[0] != '\0' ? ": " : ": ssh ended without a word", said);
        cairn_error_hint(err, "try it by hand, as the user that runs pgcairn: ssh %s", host);
    } else {
        cairn_error(err, CAIRN_UNAVAILABLE, "the connection to repository host '%s' ended%s%s",
                    host, said[0] != '\0' ? ": " : "", said);
    }
}

void
ssh_child_forget(SshChild *child)
{
    *child = SSH_CHILD_NONE;
}

void
ssh_child_end(SshChild *child, const Clock *clock)
{
    int status;
    if (child->socket_fd >= 0)
        close(child->socket_fd);
    /* Everything that counts has been answered: nothing is lost by not waiting for a good-bye. */
    if (child->pid != 0)
        kill(child->pid, SIGTERM);
    if (!wait_ended(child, clock, END_WAIT_MS, &status)) {
        kill(child->pid, SIGKILL);
        while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
            continue;
    }
    if (child->said_fd >= 0)
        close(child->said_fd);
    *child = SSH_CHILD_NONE;
}
