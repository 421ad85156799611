/*
 * The repository host's side of `type = ssh`: serves one Storage over a pair of descriptors
 * (ssh_protocol.h), until the other side closes them.
 *
 * The client is not trusted: names are checked again, every frame is bounded, what breaks the
 * protocol ends the connection, and policy says what else is refused. A client can't name the
 * place. Memory: a frame for each of WORKERS and the reader, some kilobytes for each handle. Crash,
 * a connection that is cut: what was not committed is abandoned, nothing of it stays. Threads:
 * serve_run starts its own, and ends them.
 */
#ifndef PGCAIRN_STORAGE_SERVE_H
#define PGCAIRN_STORAGE_SERVE_H

#include "storage/serve_policy.h"
#include "storage/storage.h"

enum { SERVE_WORKERS = 4, SERVE_WORKERS_LIMIT = 16 };

typedef struct {
    const World *world;
    int input_fd, output_fd; /* borrowed */
    /* After the hello. create: the client is about to make something new there, and wants the place
       made if it is missing; without, what is no repository is to be NOT_FOUND, so that a file
       system that is not mounted is not taken for one without objects. Returned owned. */
    Storage *(*open)(void *context, bool create, CairnError *err);
    void *context;
    const char *place;   /* for people */
    const char *host;    /* this one's name, likewise */
    ServePolicy *policy; /* NULL: everything is allowed */
    int workers;         /* 0: everything in the calling thread, for tests */
} ServeOptions;

/* True when the client closed the connection; else what broke, of which the client was told if it
 * could be. */
bool serve_run(const ServeOptions *options, CairnError *err) MUST_CHECK;

#endif
