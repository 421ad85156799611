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
    const ClusterConfig *cluster;       /* NULL when none is configured and it is not needed */
    const RepositoryConfig *repository; /* the one at hand: at first the first of them */
    const RepositoryConfig *repositories[CONFIG_REPOSITORIES_LIMIT];
    size_t repository_count;
} CliSession;

/*
 * Loads the configuration and resolves names: repositories by --repository, else those that the
 * cluster names, else the only one. needs_cluster false: a missing choice of cluster is no error, a
 * wrong
 * --cluster still is.
 */
bool cli_session_open(const World *world, const CommonOptions *common, bool needs_cluster,
                      CliSession *session_out, CairnError *err) MUST_CHECK;
void cli_session_close(CliSession *session);
#define SCOPED_SESSION __attribute__((cleanup(cli_session_close))) CliSession

/* By --log-level, else as configured. */
bool cli_log_level(const CommonOptions *common, const GlobalConfig *global,
                   CairnError *err) MUST_CHECK;

/* For what can be done in one repository only: USAGE when there are several to choose from. */
bool cli_only_repository(const CliSession *session, CairnError *err) MUST_CHECK;

/*
 * Does the same in each repository, session->repository being the one at hand; one that fails does
 * not keep the others from it. Each prints what it has to say itself; where there are several, a
 * line that names the repository comes before it (text), or all become one object with a member a
 * repository (json, see cli_print_json). Errors are printed here. Returns the worst exit code.
 */
typedef bool CliInRepository(const World *world, CliSession *session, void *context, int *code_out,
                             CairnError *err);
int cli_each_repository(const World *world, CliSession *session, bool json, CliInRepository *run,
                        void *context);

/* --output: true for json; USAGE for anything but text and json. */
bool cli_output_json(const CommonOptions *common, bool *json_out, CairnError *err) MUST_CHECK;

/* Prints the error and returns its exit code. */
int cli_failed(const CairnError *err);

/*
 * The beginning of a command. argument_out: where the one argument that is no option goes; it stays
 * as it is where none is given. NULL: the command takes none. False: there is nothing left to do,
 * --help was printed or an error was, and *code_out is the answer.
 */
bool cli_parse(const CommandHelp *command, CommonOptions *common, int argc, char **argv,
               const char **argument_out, int *code_out) MUST_CHECK;

/* Within cli_each_repository cli_print_json keeps what it is given, for the one object at the end.
 * To standard output, flushed and checked: a full disk or a closed pipe is no success. json is
   taken; NULL is out of memory. */
bool cli_print_json(json_t *json, CairnError *err) MUST_CHECK;
bool cli_print_text(const ByteWriter *text, CairnError *err) MUST_CHECK;

#endif
