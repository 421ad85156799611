/*
 * The one helper process of an archiver: `pgcairn-wal serve`, started when the first file comes and
 * kept for the ones that follow.
 *
 * Everything runs in the archiver, so nothing here may harm it: waits end at a deadline, at the
 * postmaster's death, and let interrupts be served; a helper that does not answer is killed and
 * never waited for. Errors: an outcome with a text, except what PostgreSQL's own functions throw;
 * after such an ERROR the caller calls helper_stop. Memory: static. Threads: the archiver's only.
 */
#ifndef PGCAIRN_WALARCHIVE_MODULE_HELPER_H
#define PGCAIRN_WALARCHIVE_MODULE_HELPER_H

#include "walarchive/serve_protocol.h"

#include <stdbool.h>

/* What the helper is started with: another one is started when any of it changes. */
typedef struct {
    const char *command; /* absolute path of pgcairn-wal */
    const char *config;  /* "": the helper's default */
    const char *cluster; /* "": the only one */
    int timeout_s;       /* for one file, start of the helper included */
} HelperSettings;

typedef struct {
    bool done; /* durable in the repository */
    char message[SERVE_MESSAGE_LIMIT + 1];
    char hint[SERVE_HINT_LIMIT + 1]; /* "" for none */
} HelperAnswer;

/* One file to its end, or until the timeout. *answer is always filled. */
void helper_archive(const HelperSettings *settings, const char *path, HelperAnswer *answer);

/* Ends the helper: it sees the end of its input, and is killed when it does not end soon. */
void helper_stop(void);

#endif
