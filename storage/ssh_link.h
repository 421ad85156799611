/*
 * A connection to the repository host that several threads use at once: frames out, answers in.
 *
 * Requests: whoever waits for an answer reads for everybody (one leads, the others sleep), so there
 * is no thread of its own, and what is sent never waits for what is to be read. A connection that
 * broke makes all requests on it fail as LOST; the next ssh_link_connect makes a new one, of the
 * next generation. What may be asked again is the caller's to know.
 *
 * Errors: why there is no connection: DENIED, USAGE, UNSUPPORTED, UNAVAILABLE, or what the server
 * said to the hello (NOT_FOUND: no such place). A broken one is UNAVAILABLE, whatever broke it, and
 * so is a place that was there at the first connection and is not now, or holds another repository
 * (system_errno ESTALE): it says nothing of any object. Memory: 1.5 MiB. Threads: any. Fork: in a
 * child process it begins anew, without a connection.
 */
#ifndef PGCAIRN_STORAGE_SSH_LINK_H
#define PGCAIRN_STORAGE_SSH_LINK_H

#include "common/bytes.h"
#include "common/scoped.h"
#include "common/world.h"
#include "storage/ssh_child.h"
#include "storage/ssh_protocol.h"

typedef struct SshLink SshLink;

typedef struct {
    const World *world;
    const char *host; /* for messages; borrowed */
    /* A connected child; context is borrowed. */
    bool (*start)(void *context, SshChild *child_out, CairnError *err);
    void *context;
    bool create;          /* the place is made where it is missing and that is allowed */
    int64_t connect_ms;   /* from the start of ssh to the server's welcome */
    int64_t stall_ms;     /* without any sign from the other side while one waits */
    int64_t reconnect_ms; /* how long a broken connection is tried again */
} SshLinkOptions;

/* From now on a broken connection, or one that does not come about, costs no more than that. */
void ssh_link_set_patience(SshLink *link, int64_t patience_ms);

SshLink *ssh_link_new(const SshLinkOptions *options, CairnError *err) MUST_CHECK;
void ssh_link_free(SshLink *link);
SCOPED_TYPE(SshLink, ssh_link_free);

/* Connects where there is no connection. One that worked before and broke is tried again, with
 * growing pauses, for reconnect_ms. *generation_out: of the connection, for what follows. */
bool ssh_link_connect(SshLink *link, uint64_t *generation_out, CairnError *err) MUST_CHECK;
/* Of the last connection. */
void ssh_link_welcome(SshLink *link, SshWelcome *welcome_out);

typedef enum {
    SSH_PENDING,
    SSH_ANSWERED, /* DONE or DATA */
    SSH_REFUSED,  /* FAILED: err says so */
    SSH_LOST,     /* the connection broke before the answer: err says how */
} SshRequestState;

/* One request; lives until it is not PENDING any more. Zeros but for what the caller sets. */
typedef struct SshRequest SshRequest;
struct SshRequest {
    /* set by the caller; where the answer's payload goes */
    void *data; /* READ: exactly data_size bytes */
    size_t data_size;
    ByteWriter *payload; /* DONE and ENTRIES: appended; NULL: must be empty */
    size_t payload_limit;
    bool listing; /* its payload comes by ENTRIES */
    /* set by the link */
    SshRequestState state;
    CairnError err;
    uint32_t id;
    SshRequest *next;
};

/* Sends; SSH_LOST at once where the connection is not of this generation any more. payload may be
 * NULL. Never waits but for room to send. */
void ssh_link_send(SshLink *link, uint64_t generation, SshRequest *request, SshFrameType type,
                   uint32_t handle, const void *payload, size_t size);
/* Until it is not PENDING. */
void ssh_link_wait(SshLink *link, const SshRequest *request);
/* What has no answer. False when that connection is gone, without a reason. */
bool ssh_link_post(SshLink *link, uint64_t generation, SshFrameType type, uint32_t handle,
                   const void *payload, size_t size) MUST_CHECK;

/* Numbers for writers and readers of one generation; false when all are taken, or the connection is
 * gone. What is returned late, to another generation, does no harm. */
bool ssh_link_take_writer(SshLink *link, uint64_t generation, uint32_t *handle_out) MUST_CHECK;
void ssh_link_return_writer(SshLink *link, uint64_t generation, uint32_t handle);
bool ssh_link_take_reader(SshLink *link, uint64_t generation, uint32_t *handle_out) MUST_CHECK;
void ssh_link_return_reader(SshLink *link, uint64_t generation, uint32_t handle);
/* After CREATE was answered: what was said of an earlier writer of this number is void. */
void ssh_link_writer_opened(SshLink *link, uint64_t generation, uint32_t handle);
/* True once the server said that this writer failed; err is set then. */
bool ssh_link_writer_failed(SshLink *link, uint64_t generation, uint32_t handle, CairnError *err);

/* Fills err with why the connection of the last generation ended. */
void ssh_link_explain(SshLink *link, CairnError *err);

#endif
