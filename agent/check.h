/*
 * Would a backup taken now be worth something? One line a condition, each with what to do about it.
 *
 * What: asks the repository and the server, and really switches a WAL segment and watches it
 * arrive. Changes nothing in the repository: its write probe is abandoned before it gets a name.
 * Ownership: texts live in the report's arena. Errors: a condition that fails is a result, not an
 * error. Threads: one thread.
 */
#ifndef PGCAIRN_AGENT_CHECK_H
#define PGCAIRN_AGENT_CHECK_H

#include "common/arena.h"
#include "common/config.h"
#include "common/world.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHECK_RESULTS_LIMIT = 48, CHECK_DEFAULT_TIMEOUT_S = 60 };

typedef enum { CHECK_OK, CHECK_WARNING, CHECK_FAILED } CheckStatus;

typedef struct {
    const char *name; /* "wal-arrival" */
    CheckStatus status;
    const char *text; /* what was found, and what to do; "" when OK says it all */
} CheckResult;

typedef struct {
    const World *world;
    const RepositoryConfig *repository;
    const ClusterConfig *cluster;
    const char *config_file;   /* for the first line; NULL: environment only */
    int timeout_s;             /* how long a switched segment may take */
    bool no_switch;            /* leave the server's WAL alone */
    const char *overflow_path; /* of the configuration; NULL: none */
    const char *spool_path;    /* likewise */
    /* All that the cluster names, `repository` among them: what they have and it lacks. */
    const RepositoryConfig *const *others;
    size_t other_count;
    /* Called as each result is known; may be NULL. */
    void (*report)(void *context, const CheckResult *result);
    void *context;
} CheckOptions;

typedef struct {
    Arena *arena;
    CheckResult results[CHECK_RESULTS_LIMIT];
    size_t count;
} CheckReport;

CheckReport *check_run(const CheckOptions *options);
void check_report_free(CheckReport *report);
SCOPED_TYPE(CheckReport, check_report_free);

/* The worst status of all. */
CheckStatus check_worst(const CheckReport *report);
/* "OK", "WARNING", "FAILED". */
const char *check_status_name(CheckStatus status);

#endif
