#include "agent/init.h"

#include "cli/commands.h"
#include "cli/session.h"
#include "common/log.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    bool print;
    bool server; /* --no-server */
    bool another_system;
} InitOptions;

/* This program and its neighbour, by absolute path: what archive_command needs. */
static bool
find_programs(char program[PATH_MAX], char wal_program[PATH_MAX], CairnError *err)
{
    const ssize_t size = readlink("/proc/self/exe", program, PATH_MAX - 1);
    if (size < 0)
        return cairn_error_errno(err, "unable to find this program's own path");
    program[size] = '\0';
    const char *slash = strrchr(program, '/');
    const int directory_size = slash != NULL ? (int)(slash - program) : 0;
    if (snprintf(wal_program, PATH_MAX, "%.*s/pgcairn-wal", directory_size, program) >= PATH_MAX)
        return cairn_error(err, CAIRN_UNSUPPORTED, "this program's path is too long");
    return true;
}

/* Where the configuration is, or will be. */
static bool
find_config_path(const CommonOptions *common, const GlobalConfig *global, char path[PATH_MAX],
                 CairnError *err)
{
    const char *named = global != NULL && global->file != NULL ? global->file : common->config;
    if (named == NULL)
        named = getenv("PGCAIRN_CONFIG");
    if (named == NULL)
        named = CONFIG_DEFAULT_PATH;
    char directory[PATH_MAX] = "";
    if (named[0] != '/' && getcwd(directory, sizeof directory) == NULL)
        return cairn_error_errno(err, "unable to find the current directory");
    const int size =
        snprintf(path, PATH_MAX, "%s%s%s", directory, named[0] != '/' ? "/" : "", named);
    if (size >= PATH_MAX)
        return cairn_error(err, CAIRN_UNSUPPORTED, "path of the configuration is too long");
    return true;
}

/* Needs no configuration: whoever asks may not have one yet. What does not load is left out, and
 * said. */
static bool
print_setup(const World *world, const CommonOptions *common, CairnError *err)
{
    SCOPED_SESSION session = {0};
    CairnError config_err = {0};
    const bool configured = cli_session_open(world, common, true, &session, &config_err);
    if (!configured)
        log_info("printed without a configuration (%s)", config_err.message);

    char program[PATH_MAX];
    char wal_program[PATH_MAX];
    char config_path[PATH_MAX];
    if (!find_programs(program, wal_program, err) ||
        !find_config_path(common, configured ? session.global : NULL, config_path, err)) {
        return false;
    }
    const InitPrintOptions options = {
        .program = program,
        .wal_program = wal_program,
        .config_file = config_path,
        .cluster = configured                ? session.cluster->name
                   : common->cluster != NULL ? common->cluster
                                             : "main",
        .conninfo = configured ? session.cluster->conninfo : NULL,
        .repository = configured ? session.repository->name : "main",
        .repository_path = configured && session.repository->path != NULL ? session.repository->path
                                                                          : "/var/lib/pgcairn",
        .several_clusters = configured && config_cluster_count(session.config) > 1,
    };
    SCOPED_BYTES ByteWriter text = {0};
    return init_print(&options, &text, err) && cli_print_text(&text, err);
}

typedef struct {
    bool repository_created;
    bool cluster_recorded; /* false with --no-server */
    bool cluster_existed;
    Incarnation incarnation;
    char repository_id[2 * REPOSITORY_ID_SIZE + 1];
} InitResult;

static bool
run_steps(const World *world, const CliSession *session, const InitOptions *options,
          InitResult *result, CairnError *err)
{
    SCOPED(Repository)
    repository = init_repository(world, session->repository, &result->repository_created, err);
    if (repository == NULL)
        return false;
    hex_encode(result->repository_id, repository_id(repository), REPOSITORY_ID_SIZE);
    if (!options->server)
        return true;
    SCOPED(Connection)
    server = connection_open(session->cluster->conninfo, CONNECTION_SQL, "pgcairn init", err);
    if (server == NULL ||
        !init_cluster(repository, session->cluster->name, server, options->another_system,
                      &result->incarnation, &result->cluster_existed, err)) {
        /* The repository stands; saying so spares a search. */
        if (result->repository_created)
            log_info("repository '%s' was made", session->repository->name);
        return false;
    }
    result->cluster_recorded = true;
    return true;
}

static json_t *
result_json(const CliSession *session, const InitResult *result)
{
    char system_id[24];
    snprintf(system_id, sizeof system_id, "%" PRIu64, result->incarnation.system_id);
    return json_pack("{s:s, s:s, s:b, s:o}", "repository", session->repository->name,
                     "repository_id", result->repository_id, "repository_created",
                     result->repository_created, "cluster",
                     result->cluster_recorded
                         ? json_pack("{s:s, s:s, s:i, s:b}", "name", session->cluster->name,
                                     "system_id", system_id, "major", result->incarnation.major,
                                     "existed", result->cluster_existed)
                         : json_null());
}

static void
print_result(const CliSession *session, const InitResult *result)
{
    printf("repository %s: %s (%s, id %s)\n", session->repository->name,
           result->repository_created ? "created" : "exists already", session->repository->path,
           result->repository_id);
    if (!result->cluster_recorded)
        return;
    printf("cluster %s: system %" PRIu64 ", PostgreSQL %d %s\n", session->cluster->name,
           result->incarnation.system_id, result->incarnation.major,
           result->cluster_existed ? "is known already" : "recorded");
    if (!result->cluster_existed)
        printf("next: pgcairn init --print shows the archive_command; then pgcairn check\n");
}

static int
run_init(const World *world, const CommonOptions *common, const InitOptions *options)
{
    CairnError err = {0};
    bool json = false;
    if (!cli_output_json(common, &json, &err))
        return cli_failed(&err);
    SCOPED_SESSION session = {0};
    InitResult result = {0};
    if (!cli_session_open(world, common, options->server, &session, &err) ||
        !run_steps(world, &session, options, &result, &err)) {
        return cli_failed(&err);
    }
    if (!json)
        print_result(&session, &result);
    else if (!cli_print_json(result_json(&session, &result), &err))
        return cli_failed(&err);
    return 0;
}

int
command_init(const World *world, int argc, char **argv)
{
    InitOptions init = {.server = true};
    const Option options[] = {
        {"print", 0, OPTION_FLAG, &init.print, NULL,
         "print role SQL, pg_hba.conf, postgresql.conf, cron and configuration lines; change "
         "nothing"},
        {"server", 0, OPTION_FLAG, &init.server, NULL, "--no-server: make the repository only"},
        {"another-system", 0, OPTION_FLAG, &init.another_system, NULL,
         "the cluster is a new system now: after pg_upgrade or initdb"},
        {NULL, 0, OPTION_FLAG, NULL, NULL, NULL},
    };
    const CommandHelp help = {
        .name = "init",
        .synopsis = "pgcairn init [options]",
        .summary = "Make the repository and record the cluster; may be repeated",
        .examples = "  pgcairn init --print\n  pgcairn init\n  pgcairn init --no-server\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    size_t positional_count = 0;
    if (!options_parse(&help, &common, argc, argv, NULL, 0, &positional_count, &err))
        return cli_failed(&err);
    if (common.help) {
        options_print_help(&help);
        return 0;
    }
    if (!init.print)
        return run_init(world, &common, &init);
    return print_setup(world, &common, &err) ? 0 : cli_failed(&err);
}
