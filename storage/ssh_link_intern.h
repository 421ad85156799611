/*
 * One connection to a repository host, as the files behind ssh_link.h share it: ssh_link.c (its
 * life), ssh_link_frames.c (what goes through it) and ssh_link_handles.c. Nobody else includes
 * this.
 *
 * All but ssh_link_lock and ssh_link_now_ns are called under the lock.
 */
#ifndef PGCAIRN_STORAGE_SSH_LINK_INTERN_H
#define PGCAIRN_STORAGE_SSH_LINK_INTERN_H

#include "storage/ssh_link.h"

#include <pthread.h>
#include <sys/types.h>

enum { SSH_LINK_OUT_SIZE = 1 << 20, SSH_LINK_IN_SIZE = 512 << 10 };

typedef enum { LINK_CLOSED, LINK_GREETING, LINK_CONNECTED } LinkState;

struct SshLink {
    SshLinkOptions options;
    pid_t owner;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int wake_fd; /* ends the leader's sleep */

    LinkState state;
    uint64_t generation;
    SshChild child;
    bool worked;        /* there was a connection once */
    bool connecting;    /* some thread is at it */
    int64_t gave_up_ns; /* when the last attempts came to nothing; 0: never */
    CairnError reason;  /* why there is none any more */
    SshWelcome welcome;
    char identity[SSH_IDENTITY_SIZE + 1]; /* of the repository that was met first; "": none yet */
    SshRequest *hello;                    /* while GREETING */

    bool leading;  /* some thread polls, without the lock */
    bool out_dead; /* the other side reads no more; it may still have said why */
    int64_t last_sign_ns;
    uint8_t *out;
    size_t out_start, out_end;
    uint8_t *in;
    size_t in_size;
    SshRequest *pending;
    uint32_t next_id;

    bool writer_taken[SSH_WRITER_LIMIT];
    CairnError *writer_failed[SSH_WRITER_LIMIT]; /* NULL: no word of it */
    bool reader_taken[SSH_READER_LIMIT];
};

/* ssh_link.c */

/* In a child process the connection is given up first: it is the parent's. */
void ssh_link_lock(SshLink *link);
void ssh_link_unlock(SshLink *link);
int64_t ssh_link_now_ns(const SshLink *link);
bool ssh_link_is_current(const SshLink *link, uint64_t generation);

/* ssh_link_frames.c */

/* The end of the connection: who waits learns of it. link->reason is filled. */
void ssh_link_lose(SshLink *link);
/* The answer to one who asks of a connection that ended: lost, with the reason. */
void ssh_link_lost(const SshLink *link, SshRequest *request);
/* There is room. */
void ssh_link_append(SshLink *link, const SshFrame *frame, const void *payload);
void ssh_link_flush(SshLink *link);
void ssh_link_wake(SshLink *link);
/* Waits for something to happen, as leader or for the leader, and gives up the lock meanwhile. Not
   while CLOSED. */
void ssh_link_step(SshLink *link);

/* ssh_link_handles.c */
void ssh_link_forget_handles(SshLink *link);

#endif
