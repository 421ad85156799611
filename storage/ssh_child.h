/*
 * The process on this end of a connection to the repository host: the system's ssh.
 *
 * Started without a shell, in a session of its own: Ctrl-C for pgcairn is not for it, so that what
 * is under way is ended in order. Its standard input and output are one socket; of what it says on
 * standard error the last SSH_SAID_SIZE bytes are kept, since that is where ssh explains itself.
 *
 * Ownership: ssh_child_end closes and waits. Threads: one at a time. Fork: a child of this process
 * that inherits one calls ssh_child_forget.
 */
#ifndef PGCAIRN_STORAGE_SSH_CHILD_H
#define PGCAIRN_STORAGE_SSH_CHILD_H

#include "common/error.h"
#include "common/world.h"

#include <sys/types.h>

enum { SSH_SAID_SIZE = 1024 };

typedef struct {
    pid_t pid;     /* 0: none (tests connect a socket) */
    int socket_fd; /* -1: not connected */
    int said_fd;   /* its standard error; -1: none, or at its end */
    char said[SSH_SAID_SIZE + 1];
    size_t said_size;
} SshChild;

#define SSH_CHILD_NONE ((SshChild){.socket_fd = -1, .said_fd = -1})

/* argv: NULL-terminated, argv[0] is looked for in PATH. */
bool ssh_child_start(char *const *argv, SshChild *child_out, CairnError *err) MUST_CHECK;

/* Takes in what it said, without waiting. */
void ssh_child_listen(SshChild *child);

/* After its output ended: why, in an error that fits (DENIED for keys, USAGE for a missing program,
 * else UNAVAILABLE), with what it said. Waits for it a moment. before_hello: nothing came of it
 * yet. */
void ssh_child_explain(SshChild *child, const Clock *clock, const char *host, bool before_hello,
                       CairnError *err);

/* Closes, ends it and waits; all fields as in SSH_CHILD_NONE then. */
void ssh_child_end(SshChild *child, const Clock *clock);
/* Without touching what belongs to the parent process by now. */
void ssh_child_forget(SshChild *child);

#endif
