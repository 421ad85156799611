/* repo: whole repositories. copy makes a replica, promote makes one writable, list shows them; heal
   and renew have files of their own. */
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/session.h"
#include "common/cancel.h"
#include "common/log.h"
#include "common/timestamp.h"
#include "repository/copy.h"
#include "repository/replica.h"
#include "repository/repository.h"
#include "repository/unlock.h"
#include "storage/connect.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    CommonOptions common;
    const char *from, *to;
    OptionList sets;
    const char *since;
    int64_t jobs;
    bool no_progress;
    bool verify;
    bool json;
} CopyArguments;

/* -- copy */

static bool
choose_since(const char *text, CopyOptions *options, CairnError *err)
{
    Timestamp time;
    if (text == NULL)
        return true;
    if (!timestamp_parse(text, &time, err))
        return false;
    if (!time.has_zone) {
        cairn_error(err, CAIRN_USAGE, "--since '%.60s' has no time zone", text);
        return cairn_error_hint(err, "as in '2026-11-22 23:31:40+00'");
    }
    options->has_since = true;
    options->since_us = time.time_us;
    return true;
}

/* "all" is what is copied when nothing is chosen. */
static void
choose_sets(const CopyArguments *arguments, CopyOptions *options)
{
    for (size_t i = 0; i < arguments->sets.count; i++) {
        if (strcmp(arguments->sets.values[i], "all") == 0)
            return;
    }
    options->sets = arguments->sets.values;
    options->set_count = arguments->sets.count;
}

/* Of a choice: labels are one cluster's. It need not be configured here. */
static bool
choose_cluster(const CopyArguments *arguments, Config *config, CopyOptions *options,
               CairnError *err)
{
    options->cluster = arguments->common.cluster;
    if (options->cluster != NULL || (options->set_count == 0 && !options->has_since))
        return true;
    const ClusterConfig *cluster = config_cluster(config, NULL, err);
    if (cluster != NULL)
        options->cluster = cluster->name;
    return cluster != NULL;
}

static bool
fill_options(const CopyArguments *arguments, Config *config, CopyOptions *options, CairnError *err)
{
    if (arguments->from == NULL || arguments->to == NULL) {
        cairn_error(err, CAIRN_USAGE, "repo copy: from which repository, into which one?");
        return cairn_error_hint(err, "pgcairn repo copy --from NAME --to NAME; both are sections "
                                     "[repository NAME] of the configuration");
    }
    if (arguments->jobs < 0 || arguments->jobs > COPY_JOBS_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "--jobs must be between 1 and %d", COPY_JOBS_LIMIT);
    options->reads_present = arguments->verify;
    options->jobs = arguments->jobs > 0 ? (int)arguments->jobs : COPY_JOBS_DEFAULT;
    options->from = config_repository(config, arguments->from, err);
    options->to = options->from != NULL ? config_repository(config, arguments->to, err) : NULL;
    if (options->to == NULL)
        return false;
    choose_sets(arguments, options);
    return choose_since(arguments->since, options, err) &&
           choose_cluster(arguments, config, options, err);
}

static json_t *
copy_json(const CopyReport *report)
{
    json_t *problems = json_array();
    for (size_t i = 0; i < report->problem_count; i++)
        json_array_append_new(problems,
                              json_pack("{s:s, s:s}", "object", report->problems[i].object, "text",
                                        report->problems[i].text));
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "objects_copied",
                     (json_int_t)report->copied, "bytes_copied", (json_int_t)report->copied_bytes,
                     "objects_present", (json_int_t)report->present, "damaged",
                     (json_int_t)report->damaged, "conflicts", (json_int_t)report->conflicts,
                     "backups_copied", (json_int_t)report->backups_copied, "backups_present",
                     (json_int_t)report->backups_present, "backups_withheld",
                     (json_int_t)report->backups_withheld, "problems", problems);
}

static bool
print_copy(const CopyReport *report, bool json, CairnError *err)
{
    char bytes[32];
    SCOPED_BYTES ByteWriter text = {0};
    if (json)
        return cli_print_json(copy_json(report), err);
    for (size_t i = 0; i < report->problem_count; i++)
        byte_writer_format(&text, "not copied: %s: %s\n", report->problems[i].object,
                           report->problems[i].text);
    format_bytes(bytes, report->copied_bytes);
    byte_writer_format(&text,
                       "copied %" PRIu64 " objects, %s; %" PRIu64 " were there; %" PRIu64
                       " damaged and %" PRIu64 " with other content there were not copied\n",
                       report->copied, bytes, report->present, report->damaged, report->conflicts);
    byte_writer_format(&text,
                       "backups: %" PRIu64 " new, %" PRIu64 " were there, %" PRIu64
                       " are left out, since something that they need is missing\n",
                       report->backups_copied, report->backups_present, report->backups_withheld);
    return cli_print_text(&text, err);
}

static int
copy_exit_code(const CopyReport *report)
{
    if (report->damaged + report->backups_withheld > 0)
        return cairn_error_exit_code(CAIRN_CORRUPT);
    return report->conflicts > 0 ? cairn_error_exit_code(CAIRN_CONFLICT) : 0;
}

static bool
run_copy(const World *world, const CopyArguments *arguments, int *code_out, CairnError *err)
{
    CopyOptions options = {.world = world};
    SCOPED(Config) config = config_load(world, arguments->common.config, err);
    if (config == NULL || !cli_log_level(&arguments->common, config_global(config), err) ||
        !fill_options(arguments, config, &options, err))
        return false;
    CAIRN_ASSERT(options.to != NULL);
    const bool show = !arguments->no_progress && isatty(STDERR_FILENO);
    SCOPED(Progress) progress = show ? progress_new(world, "repo copy", 0) : NULL;
    options.progress = progress;
    SCOPED(CopyReport) report = copy_run(&options, err);
    if (report == NULL) {
        if (err->hint[0] == '\0')
            cairn_error_hint(err, "what was copied stays; the same command goes on from there");
        return false;
    }
    progress_free(take(&progress));
    if (options.to->s3.lock_mode != NULL)
        log_info("what was in '%s' before is locked for no longer than it was: `pgcairn repo renew "
                 "--repository %s` does that",
                 options.to->name, options.to->name);
    *code_out = copy_exit_code(report);
    return print_copy(report, arguments->json, err);
}

static int
command_copy(const World *world, int argc, char **argv)
{
    CopyArguments arguments = {0};
    const Option options[] = {
        {"from", 0, OPTION_TEXT, &arguments.from, "NAME", "repository to copy"},
        {"to", 0, OPTION_TEXT, &arguments.to, "NAME",
         "where to: an empty place, or a replica of it; becomes a read-only replica"},
        {"set", 0, OPTION_LIST, &arguments.sets, "LABEL",
         "only this backup and the WAL that it needs: label, id, `latest`; repeatable"},
        {"since", 0, OPTION_TEXT, &arguments.since, "TIME",
         "only backups that began since then, and all WAL from the oldest of them on"},
        {"verify", 0, OPTION_FLAG, &arguments.verify, NULL,
         "read what is there already too, instead of comparing sizes and digests alone"},
        {"jobs", 'j', OPTION_INTEGER, &arguments.jobs, "N", "objects at a time (default 4)"},
        {"no-progress", 0, OPTION_FLAG, &arguments.no_progress, NULL, "show no progress"},
        {0},
    };
    const CommandHelp command = {
        .name = "repo copy",
        .synopsis = "pgcairn repo copy --from NAME --to NAME [options]",
        .summary = "Copy a repository, or some of its backups, into a read-only replica. Each "
                   "object is verified on\nthe way, and nothing is decrypted. Run it again to go "
                   "on, or to bring what is new; nothing is\never deleted there.",
        .examples = "  pgcairn repo copy --from main --to vault\n"
                    "  pgcairn repo copy --from main --to usb --set latest\n"
                    "  pgcairn repo copy --from main --to vault --since '2026-11-01 00:00:00+00'\n",
        .options = options,
    };
    CairnError err = {0};
    int code = 0;
    cancel_install();
    if (!cli_parse(&command, &arguments.common, argc, argv, NULL, &code))
        return code;
    if (!cli_output_json(&arguments.common, &arguments.json, &err) ||
        !run_copy(world, &arguments, &code, &err))
        return cli_failed(&err);
    return code;
}

/* -- promote */

static bool
run_promote(const World *world, const CommonOptions *common, const char *name, CairnError *err)
{
    bool json, existed = false;
    SCOPED(Config) config = config_load(world, common->config, err);
    if (config == NULL || !cli_log_level(common, config_global(config), err) ||
        !cli_output_json(common, &json, err))
        return false;
    const RepositoryConfig *repository =
        config_repository(config, name != NULL ? name : common->repository, err);
    if (repository == NULL)
        return false;
    SCOPED(Storage) storage = storage_connect(world, repository, false, err);
    if (storage == NULL || !replica_promote(storage, &existed, err))
        return cairn_error_wrap(err, "repository '%s'", repository->name);
    if (json)
        return cli_print_json(
            json_pack("{s:s, s:b}", "repository", repository->name, "existed", existed), err);
    printf("repository %s %s: backup, push, expire and collect may write to it\n", repository->name,
           existed ? "was promoted before" : "is promoted");
    if (!existed)
        printf("it has the id of its original: let no cluster write to both, and copy nothing more "
               "into it\n");
    return true;
}

static int
command_promote(const World *world, int argc, char **argv)
{
    const Option options[] = {{0}};
    const CommandHelp command = {
        .name = "repo promote",
        .synopsis = "pgcairn repo promote NAME",
        .summary = "Make a replica a repository of its own: its original is lost, or shall not be "
                   "used any more.",
        .examples = "  pgcairn repo promote vault\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    const char *name = NULL;
    int code;
    if (!cli_parse(&command, &common, argc, argv, &name, &code))
        return code;
    return run_promote(world, &common, name, &err) ? 0 : cli_failed(&err);
}

/* -- list */

typedef struct {
    const char *state; /* "ok", "replica", "not usable" */
    char id[2 * REPOSITORY_ID_SIZE + 1];
    CairnError problem;
} ListedRepository;

static void
look_at(const World *world, const RepositoryConfig *config, ListedRepository *listed)
{
    *listed = (ListedRepository){.state = "not usable"};
    SCOPED(Repository) repository = repository_open_locked(world, config, &listed->problem);
    if (repository == NULL || !unlock_check_locked(repository, &listed->problem))
        return;
    listed->state = repository_is_replica(repository) ? "replica" : "ok";
    hex_encode(listed->id, repository_id(repository), REPOSITORY_ID_SIZE);
}

static bool
run_list(const World *world, const CommonOptions *common, int *code_out, CairnError *err)
{
    bool json;
    SCOPED_BYTES ByteWriter text = {0};
    SCOPED(Config) config = config_load(world, common->config, err);
    if (config == NULL || !cli_log_level(common, config_global(config), err) ||
        !cli_output_json(common, &json, err))
        return false;
    json_t *array = json_array();
    for (size_t i = 0; i < config_repository_count(config); i++) {
        const RepositoryConfig *repository = config_repository_at(config, i);
        char place[STORAGE_PLACE_TEXT_SIZE];
        ListedRepository listed;
        storage_place_text(repository, place);
        look_at(world, repository, &listed);
        if (listed.problem.kind != CAIRN_OK)
            *code_out = cairn_error_exit_code(listed.problem.kind);
        json_array_append_new(
            array, json_pack("{s:s, s:s, s:b, s:s, s:s?, s:s?}", "name", repository->name, "place",
                             place, "required", repository_is_required(repository), "state",
                             listed.state, "id", listed.id[0] != '\0' ? listed.id : NULL, "problem",
                             listed.problem.kind != CAIRN_OK ? listed.problem.message : NULL));
        byte_writer_format(&text, "%s  %s%s  %s  %s\n", repository->name, listed.state,
                           repository_is_required(repository) ? "" : " (required = no)", place,
                           listed.problem.kind != CAIRN_OK ? listed.problem.message : listed.id);
    }
    if (json)
        return cli_print_json(json_pack("{s:o}", "repositories", array), err);
    json_decref(array);
    return cli_print_text(&text, err);
}

static int
command_list(const World *world, int argc, char **argv)
{
    const Option options[] = {{0}};
    const CommandHelp command = {
        .name = "repo list",
        .synopsis = "pgcairn repo list",
        .summary = "The configured repositories: what they are, where, and whether they can be "
                   "opened.",
        .examples = "  pgcairn repo list --output=json\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    int code = 0;
    if (!cli_parse(&command, &common, argc, argv, NULL, &code))
        return code;
    return run_list(world, &common, &code, &err) ? code : cli_failed(&err);
}

/* -- which of them */

static int
print_help(void)
{
    printf("usage: pgcairn repo copy|promote|list|heal|renew [options]\n\n"
           "  copy     a repository, or some of its backups, into a read-only replica\n"
           "  promote  make a replica a repository of its own\n"
           "  list     the configured repositories\n"
           "  heal     bring back what was deleted or overwritten in a bucket that keeps versions\n"
           "  renew    extend the object locks of what kept backups need\n\n"
           "`pgcairn repo COMMAND --help` has options and examples.\n");
    return 0;
}

int
command_repo(const World *world, int argc, char **argv)
{
    static const struct {
        const char *name;
        CommandMain *run;
    } COMMANDS[] = {{"copy", command_copy},
                    {"promote", command_promote},
                    {"list", command_list},
                    {"heal", command_repo_heal},
                    {"renew", command_repo_renew}};
    CairnError err = {0};

    options_command_first(argc, argv);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return print_help();
    for (size_t i = 0; i < sizeof COMMANDS / sizeof COMMANDS[0]; i++) {
        if (strcmp(argv[1], COMMANDS[i].name) == 0)
            return COMMANDS[i].run(world, argc - 1, argv + 1);
    }
    cairn_error(&err, CAIRN_USAGE, "repo: unknown command '%.60s'", argv[1]);
    cairn_error_hint(&err, "it is copy, promote, list, heal or renew");
    return cli_failed(&err);
}
