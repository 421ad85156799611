#include "cli/session.h"

#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
set_log_level(const CommonOptions *common, const GlobalConfig *global, CairnError *err)
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
choose_repository(const CommonOptions *common, CliSession *session, CairnError *err)
{
    const char *name = common->repository;
    if (name == NULL && session->cluster != NULL)
        name = session->cluster->repositories;
    if (name != NULL && strchr(name, ',') != NULL) {
        cairn_error(err, CAIRN_UNSUPPORTED, "several repositories are named: %s", name);
        return cairn_error_hint(err, "this version writes to one: name it with --repository");
    }
    session->repository = config_repository(session->config, name, err);
    return session->repository != NULL;
}

bool
cli_session_open(const World *world, const CommonOptions *common, bool needs_cluster,
                 CliSession *session_out, CairnError *err)
{
    CliSession session = {.config = config_load(world, common->config, err)};
    if (session.config == NULL)
        return false;
    session.global = config_global(session.config);
    bool done = set_log_level(common, session.global, err) &&
                config_assume_cluster(session.config, common->cluster, err);
    if (done) {
        session.cluster = config_cluster(session.config, common->cluster, err);
        /* Without a choice `info` shows all; a name that is configured nowhere is a typo or another
           host's cluster, which `info` can still find in the repository. */
        if (session.cluster == NULL && !needs_cluster)
            cairn_error_clear(err);
        done = session.cluster != NULL || !needs_cluster;
    }
    if (!done || !choose_repository(common, &session, err)) {
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
    fwrite(text->data, 1, text->size, stdout);
    return flush_output(err);
}
