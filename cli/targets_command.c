#include "cli/commands.h"
#include "cli/live_names.h"
#include "cli/session.h"
#include "common/log.h"
#include "restore/targets.h"
#include "restore/zone.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What was typed. */
typedef struct {
    CommonOptions common;
    bool restore_points;
    const char *around;
    const char *before_drop;
    const char *before_truncate;
    const char *before_drop_database;
    const char *relfilenode;
    const char *timeline;
    const char *to;
    int64_t count;
    bool no_server;
} Arguments;

static bool
choose_question(const Arguments *arguments, TargetsOptions *options, CairnError *err)
{
    const struct {
        bool asked;
        TargetsQuestion question;
    } questions[] = {
        {arguments->restore_points, TARGETS_RESTORE_POINTS},
        {arguments->around != NULL, TARGETS_AROUND},
        {arguments->before_drop != NULL, TARGETS_BEFORE_DROP},
        {arguments->before_truncate != NULL, TARGETS_BEFORE_TRUNCATE},
        {arguments->before_drop_database != NULL, TARGETS_BEFORE_DROP_DATABASE},
        {arguments->relfilenode != NULL, TARGETS_BEFORE_FILE},
    };
    size_t asked = 0;
    options->question = TARGETS_WINDOWS;
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        if (!questions[i].asked)
            continue;
        options->question = questions[i].question;
        asked++;
    }
    return asked <= 1 || cairn_error(err, CAIRN_USAGE, "ask one question at a time");
}

/* A decimal number of 32 bits, up to `end`; NULL when it is none. */
static const char *
read_number(const char *text, uint32_t *number_out)
{
    const size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 10)
        return NULL;
    const unsigned long long value = strtoull(text, NULL, 10);
    *number_out = (uint32_t)value;
    return value <= UINT32_MAX ? text + digits : NULL;
}

static bool
read_relfilenode(const char *text, TargetsOptions *options, CairnError *err)
{
    const char *at = read_number(text, &options->database_oid);
    const char *end = at != NULL && *at == '/' ? read_number(at + 1, &options->relfilenode) : NULL;
    if (end != NULL && *end == '\0')
        return true;
    cairn_error(err, CAIRN_USAGE, "'%.100s' is no file", text);
    return cairn_error_hint(err, "write DATABASE_OID/RELFILENODE, as in the data directory below "
                                 "base/: --relfilenode 16384/16390");
}

static bool
read_arguments(const Arguments *arguments, const CliSession *session, TargetsOptions *options,
               CairnError *err)
{
    const char *table =
        arguments->before_drop != NULL ? arguments->before_drop : arguments->before_truncate;
    if (!choose_question(arguments, options, err))
        return false;
    if (arguments->count < 0 || arguments->count > MOMENT_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "--count must be between 1 and %d", MOMENT_LIMIT);
    options->count = arguments->count > 0 ? (size_t)arguments->count : MOMENT_COUNT_DEFAULT;
    options->cluster = session->cluster->name;
    options->database = arguments->before_drop_database;
    if (arguments->timeline != NULL) {
        const char *end = read_number(arguments->timeline, &options->timeline);
        if (end == NULL || *end != '\0' || options->timeline == 0)
            return cairn_error(err, CAIRN_USAGE, "--target-timeline is a number here, not '%.60s'",
                               arguments->timeline);
    }
    return (arguments->around == NULL ||
            zone_read_time(arguments->around, session->cluster->timezone, &options->time_us,
                           err)) &&
           (table == NULL || name_wish_parse(table, &options->wish, err)) &&
           (arguments->relfilenode == NULL ||
            read_relfilenode(arguments->relfilenode, options, err));
}

/* Only what this call itself needed: where one cluster is configured, a name says nothing. */
static bool
fill_call(const Arguments *arguments, RestoreCall *call, char program[PATH_MAX],
          char config[PATH_MAX], char here[PATH_MAX], CairnError *err)
{
    const ssize_t size = readlink("/proc/self/exe", program, PATH_MAX - 1);
    if (size <= 0)
        return cairn_error_errno(err, "unable to find this program's own path");
    program[size] = '\0';
    if (getcwd(here, PATH_MAX) == NULL)
        return cairn_error_errno(err, "unable to tell the current directory");
    *call = (RestoreCall){.program = program,
                          .cluster = arguments->common.cluster,
                          .repository = arguments->common.repository,
                          .to = arguments->to,
                          .here = here};
    if (arguments->common.config != NULL) {
        if (realpath(arguments->common.config, config) == NULL)
            return cairn_error_errno(err, "unable to resolve '%s'", arguments->common.config);
        call->config = config;
    }
    if (arguments->to != NULL && arguments->to[0] != '/')
        return cairn_error(err, CAIRN_USAGE, "--to names an absolute path here, not '%.200s'",
                           arguments->to);
    return true;
}

static bool
ask_server(const Arguments *arguments, const CliSession *session, NamedFiles *live,
           TargetsOptions *options, CairnError *err)
{
    bool known = false;
    if (arguments->no_server ||
        (options->question != TARGETS_BEFORE_DROP && options->question != TARGETS_BEFORE_TRUNCATE))
        return true;
    if (!live_names_find(session->cluster->conninfo, &options->wish, live, &options->live_system_id,
                         &known, err))
        return false;
    options->live = known ? live : NULL;
    return true;
}

static bool
print_answer(const Targets *targets, const RestoreCall *call, bool json, CairnError *err)
{
    if (json)
        return cli_print_json(targets_format_json(targets, call), err);
    SCOPED_BYTES ByteWriter text = {0};
    targets_format_text(targets, call, &text);
    return cli_print_text(&text, err);
}

/* The nearest that can be opened; its answers are about what it holds. */
static Repository *
open_nearest(const World *world, const CliSession *session, CairnError *err)
{
    for (size_t i = 0; i < session->repository_count; i++) {
        CairnError why = {0};
        Repository *repository = repository_open(world, session->repositories[i], &why);
        if (repository != NULL) {
            if (session->repository_count > 1)
                log_info("as repository '%s' has it; --repository asks another one",
                         session->repositories[i]->name);
            return repository;
        }
        if (i + 1 == session->repository_count)
            *err = why;
        else
            log_warn("repository '%s' is passed over: %s", session->repositories[i]->name,
                     why.message);
    }
    return NULL;
}

static bool
run_targets(const World *world, const Arguments *arguments, CairnError *err)
{
    char program[PATH_MAX];
    char config[PATH_MAX];
    char here[PATH_MAX];
    bool json = false;
    RestoreCall call;
    TargetsOptions options = {0};
    __attribute__((cleanup(named_files_free))) NamedFiles live = {0};

    SCOPED_SESSION session = {0};
    if (!cli_output_json(&arguments->common, &json, err) ||
        !cli_session_open(world, &arguments->common, true, &session, err) ||
        !read_arguments(arguments, &session, &options, err) ||
        !fill_call(arguments, &call, program, config, here, err))
        return false;
    SCOPED(Repository) repository = open_nearest(world, &session, err);
    if (repository == NULL || !ask_server(arguments, &session, &live, &options, err))
        return false;
    SCOPED(Targets) targets = targets_find(repository, &options, err);
    return targets != NULL && print_answer(targets, &call, json, err);
}

int
command_targets(const World *world, int argc, char **argv)
{
    Arguments arguments = {0};
    const Option options[] = {
        {"around", 0, OPTION_TEXT, &arguments.around, "TIME",
         "transactions that ended near this time, such as '2026-11-22 23:31:40+01'"},
        {"before-drop", 0, OPTION_TEXT, &arguments.before_drop, "TABLE",
         "the moment before [[DATABASE.]SCHEMA.]TABLE was dropped"},
        {"before-truncate", 0, OPTION_TEXT, &arguments.before_truncate, "TABLE",
         "the moments before it was truncated or rewritten"},
        {"before-drop-database", 0, OPTION_TEXT, &arguments.before_drop_database, "NAME",
         "the moment before DROP DATABASE"},
        {"relfilenode", 0, OPTION_TEXT, &arguments.relfilenode, "DB/FILE",
         "the moment before this file went, where no name is known"},
        {"restore-points", 0, OPTION_FLAG, &arguments.restore_points, NULL,
         "restore points by name"},
        {"target-timeline", 0, OPTION_TEXT, &arguments.timeline, "N",
         "search this timeline (default: the newest)"},
        {"count", 0, OPTION_INTEGER, &arguments.count, "N",
         "transactions before and after the time, restore points (default 10)"},
        {"to", 'D', OPTION_TEXT, &arguments.to, "DIR",
         "directory for the printed restore command (default: a new one below this)"},
        {"no-server", 0, OPTION_FLAG, &arguments.no_server, NULL,
         "do not ask a running server which tables are still there"},
        {NULL, 0, OPTION_FLAG, NULL, NULL, NULL},
    };
    const CommandHelp help = {
        .name = "targets",
        .synopsis = "pgcairn targets [options]",
        .summary = "Which moments can be returned to, and what lies just before an accident",
        .examples = "  pgcairn targets\n"
                    "  pgcairn targets --around '2026-11-22 23:31:40+00'\n"
                    "  pgcairn targets --before-drop shop.public.orders\n"
                    "  pgcairn targets --before-truncate orders --to /srv/copy\n"
                    "  pgcairn targets --restore-points --output=json\n",
        .options = options,
    };
    CairnError err = {0};
    int code;
    if (!cli_parse(&help, &arguments.common, argc, argv, NULL, &code))
        return code;
    return run_targets(world, &arguments, &err) ? 0 : cli_failed(&err);
}
