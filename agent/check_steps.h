/*
 * What the files of `check` share; nobody else includes this.
 */
#ifndef PGCAIRN_AGENT_CHECK_STEPS_H
#define PGCAIRN_AGENT_CHECK_STEPS_H

#include "agent/check.h"
#include "postgres/server_facts.h"
#include "repository/catalog.h"
#include "repository/incarnation.h"

typedef struct {
    const CheckOptions *options;
    CheckReport *report;
    Repository *repository; /* NULL when it does not open */
    Connection *server;     /* NULL when it is out of reach */
    ServerFacts facts;
    bool facts_known;
    bool receives; /* a receiver of ours streams from it; known after check_archiving */
    Incarnation incarnation;
    bool incarnation_known;
} CheckRun;

void check_add(CheckRun *run, const char *name, CheckStatus status, const char *format, ...)
    PRINTF_LIKE(4, 5);
/* The error's message and hint as a result. Clears err. */
void check_add_error(CheckRun *run, const char *name, CheckStatus status, CairnError *err);

/* check_server.c */
void check_connection(CheckRun *run);
void check_privileges(CheckRun *run);
void check_replication(CheckRun *run);
void check_settings(CheckRun *run);
void check_tablespaces(CheckRun *run);

/* check_wal.c */
void check_archiving(CheckRun *run);
void check_wal_arrival(CheckRun *run);
void check_overflow(CheckRun *run);

/* check_keys.c */
void check_encryption(CheckRun *run);

/* check_others.c */
void check_other_repositories(CheckRun *run);

/* check_histories.c */
void check_histories(CheckRun *run);

/* check_batches.c */
void check_batches(CheckRun *run);

/* check_locks.c; newest NULL: there is no good one */
void check_locks(CheckRun *run, const Catalog *catalog, const CatalogBackup *newest);

/* check_archiving.c */
void check_archiving_state(CheckRun *run);

#endif
