/*
 * A repository host that says what it was told to: a right welcome if wanted, and then, each time
 * the client says something, the next frame of a row of bytes; at their end it closes, or falls
 * silent.
 *
 * Time stands still for the client, so that no answer is late, until it has said something that a
 * silent one heard and will not answer: then each look at the clock is a second. A fuzzer, whose
 * liar and client may well wait for each other, goes by the real clock.
 *
 * Ownership: ssh_liar_end joins its thread; the bytes are borrowed until then. One connection: a
 * second start is UNAVAILABLE.
 */
#ifndef PGCAIRN_TESTS_SSH_LIAR_H
#define PGCAIRN_TESTS_SSH_LIAR_H

#include "storage/ssh.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct {
    const uint8_t *bytes;
    size_t size;
    bool welcomes; /* rightly, before anything else */
    bool silent;   /* at the end it stays */
    bool by_real_clock;
    /* its own */
    bool started;
    int fd;
    pthread_t thread;
    Clock clock;
    World world; /* with that clock */
    atomic_bool is_overdue;
    _Atomic int64_t now_ns;
} SshLiar;

/* Over it, with timeouts of a second and a half of that time. */
Storage *ssh_liar_connect(SshLiar *liar, CairnError *err);
void ssh_liar_end(SshLiar *liar);

#endif
