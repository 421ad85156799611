#include "cli/session.h"

#include "common/log.h"
#include "common/plain_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool
cli_log_level(const CommonOptions *common, const GlobalConfig *global, CairnError *err)
{
    const char *name = common->log_level != NULL ? common->log_level : global->log_level;
    LogLevel level = LOG_LEVEL_INFO;
    if (name == NULL)
        return true;
    if (!log_level_parse(name, &level))
        return cairn_error(err, CAIRN_USAGE, "log level '%s' is none of error, warn, info, debug",
                           name);
    log_set_level(level);
    return true;
}

static bool
choose_repositories(const CommonOptions *common, CliSession *session, CairnError *err)
{
    const char *names = common->repository;
    if (names == NULL && session->cluster != NULL)
        names = session->cluster->repositories;
    if (!config_repositories(session->config, names, session->repositories,
                             &session->repository_count, err))
        return false;
    session->repository = session->repositories[0];
    return true;
}

bool
cli_session_open(const World *world, const CommonOptions *common, bool needs_cluster,
                 CliSession *session_out, CairnError *err)
{
    CliSession session = {.config = config_load(world, common->config, err)};
    if (session.config == NULL)
        return false;
    session.global = config_global(session.config);
    bool done = cli_log_level(common, session.global, err) &&
                config_assume_cluster(session.config, common->cluster, err);
    if (done) {
        session.cluster = config_cluster(session.config, common->cluster, err);
        /* Without a choice `info` shows all; a name that is configured nowhere is a typo or another
           host's cluster, which `info` can still find in the repository. */
        if (session.cluster == NULL && !needs_cluster)
            cairn_error_clear(err);
        done = session.cluster != NULL || !needs_cluster;
    }
    if (!done || !choose_repositories(common, &session, err)) {
        config_free(session.config);
        return false;
    }
    *session_out = session;
    return true;
}

void
cli_session_close(CliSession *session)
{
    if (session->config != NULL)
        config_free(session->config);
}

bool
cli_only_repository(const CliSession *session, CairnError *err)
{
    if (session->repository_count == 1)
        return true;
    cairn_error(err, CAIRN_USAGE, "%zu repositories are configured: say which one",
                session->repository_count);
    return cairn_error_hint(err, "give --repository %s", session->repository->name);
}

/* Where cli_print_json puts what it is given; NULL: it prints. A command has one thread. */
static json_t *gathered;
static const char *gathered_name;

static int
run_in(const World *world, CliSession *session, CliInRepository *run, void *context)
{
    CairnError err = {0};
    int code = 0;
    if (run(world, session, context, &code, &err))
        return code;
    if (gathered != NULL)
        json_object_set_new(gathered, gathered_name, json_pack("{s:s}", "error", err.message));
    if (session->repository_count > 1)
        cairn_error_wrap(&err, "repository '%s'", session->repository->name);
    return cli_failed(&err);
}

/* Of two exit codes: what somebody must look at first. */
static int
worse(int one, int other)
{
    static const int FIRST[] = {130, 5, 7, 6, 3, 4, 2};
    for (size_t i = 0; i < sizeof FIRST / sizeof FIRST[0]; i++) {
        if (one == FIRST[i] || other == FIRST[i])
            return FIRST[i];
    }
    return one != 0 ? one : other;
}

int
cli_each_repository(const World *world, CliSession *session, bool json, CliInRepository *run,
                    void *context)
{
    CairnError err = {0};
    int code = 0;
    if (session->repository_count == 1)
        return run_in(world, session, run, context);
    json_t *all = json ? json_object() : NULL;
    for (size_t i = 0; i < session->repository_count && err.kind == CAIRN_OK; i++) {
        session->repository = session->repositories[i];
        if (!json)
            printf("%srepository %s:\n", i > 0 ? "\n" : "", session->repository->name);
        if (!json && fflush(stdout) != 0)
            cairn_error_errno(&err, "unable to write to standard output");
        gathered = all;
        gathered_name = session->repository->name;
        code = worse(run_in(world, session, run, context), code);
        gathered = NULL;
        if (code == cairn_error_exit_code(CAIRN_CANCELLED))
            break;
    }
    session->repository = session->repositories[0];
    if (err.kind != CAIRN_OK ||
        (json && !cli_print_json(json_pack("{s:o}", "repositories", all), &err)))
        return cli_failed(&err);
    return code;
}

bool
cli_output_json(const CommonOptions *common, bool *json_out, CairnError *err)
{
    const char *output = common->output != NULL ? common->output : "text";
    if (strcmp(output, "text") != 0 && strcmp(output, "json") != 0)
        return cairn_error(err, CAIRN_USAGE, "--output is text or json, not '%s'", output);
    *json_out = strcmp(output, "json") == 0;
    return true;
}

int
cli_failed(const CairnError *err)
{
    log_error(err);
    return cairn_error_exit_code(err->kind);
}

bool
cli_parse(const CommandHelp *command, CommonOptions *common, int argc, char **argv,
          const char **argument_out, int *code_out)
{
    CairnError err = {0};
    size_t count;

    if (!options_parse(command, common, argc, argv, argument_out, argument_out != NULL ? 1 : 0,
                       &count, &err)) {
        *code_out = cli_failed(&err);
        return false;
    }
    if (common->help) {
        options_print_help(command);
        *code_out = 0;
        return false;
    }
    return true;
}

static bool
flush_output(CairnError *err)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return cairn_error_errno(err, "unable to write to standard output");
    return true;
}

bool
cli_print_json(json_t *json, CairnError *err)
{
    if (json == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (gathered != NULL)
        return json_object_set_new(gathered, gathered_name, json) == 0 ||
               cairn_error(err, CAIRN_INTERNAL, "out of memory");
    const int written = json_dumpf(json, stdout, JSON_INDENT(2));
    json_decref(json);
    if (written == 0)
        putchar('\n');
    return flush_output(err);
}

bool
cli_print_text(const ByteWriter *text, CairnError *err)
{
    if (!byte_writer_check(text, err))
        return false;
    /* Names of tables, paths and what servers said stand in it. */
    plain_print(stdout, (const char *)text->data, text->size, "\n\t");
    return flush_output(err);
}
