/*
 * The archive module's helper process: pushes one file after the other, as it is asked to on one
 * descriptor, and answers on another (serve_protocol.h).
 *
 * Each file goes through wal_push, so it is checked as a push of its own would be: whose data
 * directory, whose WAL, which repository. Only the repository stays open in between.
 *
 * What waits in overflow-path goes along after the answer, in a time limit of its own: a file
 * system that hangs there keeps no file from being archived.
 *
 * Errors: what fails with a file is its answer, and the next one may do better. The server ends
 * when its input does, which is how it learns of the archiver's death; when a signal asks it to;
 * and after a file that took longer than the limit, since what hangs is best left to a fresh
 * process. Crash: as wal_push.
 * Threads: the process's first one, after cancel_install; a watchdog beside it.
 */
#ifndef PGCAIRN_WALARCHIVE_PUSH_SERVER_H
#define PGCAIRN_WALARCHIVE_PUSH_SERVER_H

#include "walarchive/push.h"

typedef struct {
    int input_fd;
    int output_fd;
    int64_t timeout_ms; /* for one file */
    /* Before each file: everything of push_out but path and kept, as it is configured now; borrowed
       until the next call. changed: since the last call, so that nothing of before is kept. */
    bool (*prepare)(void *context, const char *path, WalPush *push_out, bool *changed_out,
                    CairnError *err);
    /* After each file: what the server's log shall know. */
    void (*report)(void *context, const char *path, const WalPushed *pushed, bool done);
    /* When files of overflow-path went into the repository, or could not. */
    void (*report_shipped)(void *context, const WalPushed *pushed);
    void *context;
} PushServerOptions;

/* True: the input ended between two files, or a signal has come. False: it cannot go on, and why.
 */
bool push_server_run(const World *world, const PushServerOptions *options,
                     CairnError *err) MUST_CHECK;

#endif
