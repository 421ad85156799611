/*
 * What most commands begin with: configuration, the log level, which cluster, which repository.
 */
#ifndef PGCAIRN_CLI_SESSION_H
#define PGCAIRN_CLI_SESSION_H

#include "cli/options.h"
#include "common/bytes.h"
#include "common/config.h"

#include <jansson.h>

typedef struct {
    Config *config; /* owns what the others point to */
    const GlobalConfig *global;
    const ClusterConfig *cluster; /* NULL when none is configured and it is not needed */
    const RepositoryConfig *repository;
} CliSession;

/*
 * Loads the configuration and resolves names: repository by --repository, else the cluster's own,
 * else the only one. needs_cluster false: a missing choice of cluster is no error, a wrong
 * --cluster still is.
 */
bool cli_session_open(const World *world, const CommonOptions *common, bool needs_cluster,
                      CliSession *session_out, CairnError *err) MUST_CHECK;
void cli_session_close(CliSession *session);
#define SCOPED_SESSION __attribute__((cleanup(cli_session_close))) CliSession

/* --output: true for json; USAGE for anything but text and json. */
bool cli_output_json(const CommonOptions *common, bool *json_out, CairnError *err) MUST_CHECK;

/* Prints the error and returns its exit code. */
int cli_failed(const CairnError *err);

/* To standard output, flushed and checked: a full disk or a closed pipe is no success. json is
   taken; NULL is out of memory. */
bool cli_print_json(json_t *json, CairnError *err) MUST_CHECK;
bool cli_print_text(const ByteWriter *text, CairnError *err) MUST_CHECK;

#endif
