/*
 * First steps: a repository where none is, the cluster's incarnation in it, and what a DBA puts
 * where.
 *
 * Both steps may be repeated: what exists is left as it is and told.
 * Threads: one thread.
 */
#ifndef PGCAIRN_AGENT_INIT_H
#define PGCAIRN_AGENT_INIT_H

#include "common/bytes.h"
#include "common/config.h"
#include "postgres/connection.h"
#include "repository/incarnation.h"

#include <stdbool.h>

/* Opens the repository, making it first where none is. USAGE (with the choices) when encryption is
 * not stated. */
Repository *init_repository(const World *world, const RepositoryConfig *config, bool *created_out,
                            CairnError *err) MUST_CHECK;

/* Records the server's system as `cluster`. *existed_out: it was known. REFUSED when the cluster
   is known as another system and another_system is false: most likely it is the wrong server. Of
   records that cannot be read a warning; CORRUPT and so on when it is the server's own, or when
   there are no others and another_system is false: then too it was another system. */
bool init_cluster(Repository *repository, const char *cluster, Connection *server,
                  bool another_system, Incarnation *incarnation_out, bool *existed_out,
                  CairnError *err) MUST_CHECK;

typedef struct {
    const char *program;     /* absolute path of pgcairn */
    const char *wal_program; /* absolute path of pgcairn-wal */
    const char *config_file; /* absolute */
    const char *cluster;
    const char *conninfo; /* NULL: nothing is configured yet */
    const char *repository;
    const char *repository_path;
    const char *repository_host; /* of type ssh; NULL: the repository is a directory here */
    bool several_clusters;       /* then commands must name theirs */
} InitPrintOptions;

/* Appends role SQL, pg_hba.conf, postgresql.conf, cron and pgcairn.conf lines. */
bool init_print(const InitPrintOptions *options, ByteWriter *text, CairnError *err) MUST_CHECK;

#endif
