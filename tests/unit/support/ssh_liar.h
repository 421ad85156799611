/*
 * A repository host that says what it was told to: a right welcome if wanted, and then, each time
 * the client says something, the next frame of a row of bytes; at their end it closes, or falls
 * silent.
 *
 * Ownership: ssh_liar_end joins its thread; the bytes are borrowed until then. One connection: a
 * second start is UNAVAILABLE.
 */
#ifndef PGCAIRN_TESTS_SSH_LIAR_H
#define PGCAIRN_TESTS_SSH_LIAR_H

#include "storage/ssh.h"

#include <pthread.h>

typedef struct {
    const uint8_t *bytes;
    size_t size;
    bool welcomes; /* rightly, before anything else */
    bool silent;   /* at the end it stays */
    /* its own */
    bool started;
    int fd;
    pthread_t thread;
} SshLiar;

/* Over it, with timeouts of a second and a half. */
Storage *ssh_liar_connect(SshLiar *liar, CairnError *err);
void ssh_liar_end(SshLiar *liar);

#endif
