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

#include "walarchive/push_all.h"

typedef struct {
    int input_fd;
    int output_fd;
    int64_t timeout_ms; /* for one file */
    /* Before each file: everything of push_out but path and kept, as it is configured now; borrowed
       until the next call. changed: since the last call, so that nothing of before is kept. */
    bool (*prepare)(void *context, const char *path, WalPushAll *push_out, bool *changed_out,
                    CairnError *err);
    /* After each file: what the server's log shall know. */
    void (*report)(void *context, const char *path, const WalPushedAll *pushed);
    /* When files of overflow-path went into a repository, or could not. Its name, where there are
       several; else NULL. */
    void (*report_shipped)(void *context, const WalPushed *pushed, const char *repository);
    void *context;
} PushServerOptions;

/* Where a repository that is not required hangs, the process ends itself after the answer, by
   _exit (push_all.h): what hangs is best left to a fresh one.
   True: the input ended between two files, or a signal has come. False: it cannot go on, and why.
 */
bool push_server_run(const World *world, const PushServerOptions *options,
                     CairnError *err) MUST_CHECK;

#endif
