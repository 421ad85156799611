#include "restore/restore.h"

#include "cli/commands.h"
#include "cli/restore_choice.h"
#include "cli/session.h"
#include "common/timestamp.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What was typed, before anything is made of it. */
typedef struct {
    const char *to;
    const char *set;
    const char *as;
    TargetOptions target;
    OptionList tablespace_map;
    bool no_wal;
    bool force;
    bool delta;
    bool dry_run;
    bool progress;
    int64_t jobs;
    uint64_t max_memory_bytes;
} RestoreArguments;

static bool
parse_as(const char *text, RestoreAsChoice *as_out, CairnError *err)
{
    static const struct {
        const char *name;
        RestoreAsChoice as;
    } names[] = {{"original", AS_ORIGINAL}, {"clone", AS_CLONE}, {"standby", AS_STANDBY}};

    *as_out = AS_UNSAID;
    if (text == NULL)
        return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i].name) == 0)
            *as_out = names[i].as;
    }
    return *as_out != AS_UNSAID ||
           cairn_error(err, CAIRN_USAGE, "unknown --as '%.60s' (original, clone, standby)", text);
}

/* "/dir/pgcairn" to "/dir/pgcairn-wal": the two are installed side by side. */
static bool
find_wal_program(const World *world, char path[PATH_MAX], CairnError *err)
{
    static const char NAME[] = "pgcairn-wal";
    const ssize_t size =
        world->disk->readlinkat(world->disk, AT_FDCWD, "/proc/self/exe", path, PATH_MAX - 1);
    if (size <= 0)
        return cairn_error_errno(err, "unable to find this program's own path");
    path[size] = '\0';
    char *slash = strrchr(path, '/');
    if (slash == NULL || (size_t)(slash - path) + 1 + sizeof NAME > PATH_MAX)
        return cairn_error(err, CAIRN_INTERNAL, "this program's path is '%.200s'", path);
    memcpy(slash + 1, NAME, sizeof NAME);
    if (access(path, X_OK) != 0) {
        cairn_error_errno(err, "unable to use '%s'", path);
        return cairn_error_hint(err, "pgcairn-wal belongs beside pgcairn: recovery calls it");
    }
    return true;
}

static bool
make_absolute(const char *given, char path[PATH_MAX], CairnError *err)
{
    char here[PATH_MAX];
    size_t length = strlen(given);

    while (length > 1 && given[length - 1] == '/')
        length--;
    if (given[0] != '/' && getcwd(here, sizeof here) == NULL)
        return cairn_error_errno(err, "unable to tell the current directory");
    const int size = given[0] == '/'
                         ? snprintf(path, PATH_MAX, "%.*s", (int)length, given)
                         : snprintf(path, PATH_MAX, "%s/%.*s", here, (int)length, given);
    return (size > 0 && size < PATH_MAX) ||
           cairn_error(err, CAIRN_USAGE, "the path '%.100s...' is too long", given);
}

static bool
check_arguments(const RestoreArguments *arguments, CairnError *err)
{
    if (arguments->delta) {
        cairn_error(err, CAIRN_UNSUPPORTED, "--delta is not there yet");
        return cairn_error_hint(err, "restore into an empty directory, or replace the original by "
                                     "--as=original --force");
    }
    if (arguments->jobs < 0 || arguments->jobs > 64)
        return cairn_error(err, CAIRN_USAGE, "--jobs must be between 1 and 64");
    return true;
}

static json_t *
optional_time(int64_t time_us)
{
    char text[TIMESTAMP_TEXT_SIZE];
    if (time_us == 0)
        return json_null();
    timestamp_format(text, time_us);
    return json_string(text);
}

static json_t *
lsn_json(uint64_t lsn)
{
    char text[LSN_TEXT_SIZE];
    lsn_format(text, lsn);
    return json_string(text);
}

static json_t *
stop_json(const RestorePlan *plan)
{
    char text[PLAN_STOP_TEXT_SIZE];
    const StopPoint *stop = &plan->stop;
    if (plan->target.type == TARGET_STANDBY || plan->target.type == TARGET_NONE)
        return json_null();
    plan_describe_stop(text, plan);
    return json_pack("{s:s, s:o, s:o, s:o, s:b, s:o}", "text", text, "end_lsn",
                     lsn_json(stop->end_lsn), "record_lsn",
                     stop->has_record ? lsn_json(stop->record.start_lsn) : json_null(),
                     "record_time", optional_time(stop->has_record ? stop->record.time_us : 0),
                     "before", stop->before, "newest_time", optional_time(stop->last_commit_us));
}

static json_t *
result_json(const RestoreResult *result, CairnError *err)
{
    const RestorePlan *plan = result->plan;
    const Fate *backup = plan->backup->fate;
    SCOPED_BYTES ByteWriter next = {0};

    restore_next_steps(result, &next);
    byte_writer_u8(&next, 0);
    if (!byte_writer_check(&next, err))
        return NULL;
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s?, s:s?, s:o, s:o, s:I, s:I, s:f, s:b, s:I, s:b, s:s}",
        "label", backup->label, "bid", plan->backup->bid.text, "directory", result->directory, "as",
        restore_as_name(result->as), "type", target_type_name(plan->target.type), "setting",
        plan->setting, "value", plan->setting != NULL ? plan->value : NULL, "timeline",
        plan->timeline != 0 ? json_integer(plan->timeline) : json_null(), "stop", stop_json(plan),
        "size_bytes", (json_int_t)result->size_bytes, "file_count", (json_int_t)result->file_count,
        "duration_s", (double)result->duration_us / 1e6, "wal_laid", result->wal_laid,
        "rescued_wal_files", (json_int_t)result->rescued_count, "dry_run", result->dry_run, "next",
        (const char *)next.data);
}

static bool
print_result(const RestoreResult *result, bool json, CairnError *err)
{
    if (json) {
        json_t *object = result_json(result, err);
        return err->kind == CAIRN_OK && cli_print_json(object, err);
    }
    SCOPED_BYTES ByteWriter text = {0};
    restore_describe(result, &text);
    return cli_print_text(&text, err);
}

static bool
run_restore(const World *world, const CommonOptions *common, RestoreArguments *arguments,
            CairnError *err)
{
    char wal_program[PATH_MAX];
    char to[PATH_MAX];
    bool json = false;
    RestoreOptions options = {.world = world};

    SCOPED_SESSION session = {0};
    if (!cli_output_json(common, &json, err) || !check_arguments(arguments, err) ||
        !parse_as(arguments->as, &options.as, err) ||
        !cli_session_open(world, common, true, &session, err)) {
        return false;
    }
    const char *given = arguments->to != NULL ? arguments->to : session.cluster->pgdata;
    if (given == NULL)
        return cairn_error(err, CAIRN_USAGE, "say where to: --to DIR");
    arguments->target.timezone = session.cluster->timezone;
    if (options.as == AS_STANDBY && arguments->target.type == NULL)
        arguments->target.type = target_type_name(TARGET_STANDBY);
    if (!make_absolute(given, to, err) || !find_wal_program(world, wal_program, err) ||
        !target_parse(&arguments->target, &options.target, err)) {
        return false;
    }
    options.cluster = session.cluster->name;
    options.pgdata = session.cluster->pgdata;
    options.config_file = session.global->file;
    options.wal_program = wal_program;
    options.to = to;
    options.set = arguments->set;
    options.tablespace_mappings = arguments->tablespace_map.values;
    options.tablespace_mapping_count = arguments->tablespace_map.count;
    options.no_wal = arguments->no_wal;
    options.force = arguments->force;
    options.dry_run = arguments->dry_run;
    options.jobs = arguments->jobs > 0 ? (int)arguments->jobs : session.global->jobs;
    options.max_memory_bytes = arguments->max_memory_bytes != 0 ? arguments->max_memory_bytes
                                                                : session.global->max_memory_bytes;
    options.show_progress = arguments->progress || isatty(STDERR_FILENO);
    options.all_repositories = session.repository_count > 1;
    SCOPED(Repository) repository = restore_choose(world, &session, &options, err);
    if (repository == NULL)
        return false;
    options.repository = repository;
    RestoreResult result;
    if (!restore_run(&options, &result, err))
        return false;
    const bool printed = print_result(&result, json, err);
    restore_result_free(&result);
    return printed;
}

int
command_restore(const World *world, int argc, char **argv)
{
    RestoreArguments arguments = {0};
    TargetOptions *target = &arguments.target;
    const Option options[] = {
        {"to", 'D', OPTION_TEXT, &arguments.to, "DIR",
         "where to: an empty directory (default: the cluster's pgdata)"},
        {"pgdata", 0, OPTION_TEXT, &arguments.to, "DIR", NULL},
        {"time", 0, OPTION_TEXT, &target->time, "TIME",
         "state at this time, such as '2026-11-22 23:31:40+01'"},
        {"lsn", 0, OPTION_TEXT, &target->lsn, "LSN", "state at this WAL position"},
        {"xid", 0, OPTION_TEXT, &target->xid, "XID", "state with this transaction ended"},
        {"name", 0, OPTION_TEXT, &target->name, "NAME", "state at this restore point"},
        {"immediate", 0, OPTION_FLAG, &target->immediate, NULL,
         "as soon as the backup is consistent"},
        {"type", 0, OPTION_TEXT, &target->type, "TYPE",
         "default, immediate, time, lsn, xid, name, standby, none"},
        {"target", 0, OPTION_TEXT, &target->value, "VALUE", "for time, lsn, xid, name"},
        {"target-exclusive", 0, OPTION_FLAG, &target->exclusive, NULL,
         "stop just before the target instead of after it"},
        {"target-action", 0, OPTION_TEXT, &target->action, "ACTION",
         "at the target: pause (default), promote, shutdown"},
        {"target-timeline", 0, OPTION_TEXT, &target->timeline, "TIMELINE",
         "latest, current (the backup's), or a number"},
        {"set", 0, OPTION_TEXT, &arguments.set, "LABEL", "this backup: label, id, or `latest`"},
        {"as", 0, OPTION_TEXT, &arguments.as, "ROLE",
         "original (default in the cluster's pgdata), clone (default elsewhere), standby"},
        {"tablespace-map", 0, OPTION_LIST, &arguments.tablespace_map, "OID=DIR",
         "place of a tablespace; also OLDPATH=NEWPATH; repeatable"},
        {"no-wal", 0, OPTION_FLAG, &arguments.no_wal, NULL, "lay no WAL into pg_wal"},
        {"force", 0, OPTION_FLAG, &arguments.force, NULL,
         "replace the original's directory, take a damaged --set"},
        {"delta", 0, OPTION_FLAG, &arguments.delta, NULL, NULL},
        {"dry-run", 0, OPTION_FLAG, &arguments.dry_run, NULL, "plan, check, write nothing"},
        {"jobs", 'j', OPTION_INTEGER, &arguments.jobs, "N", "threads that write (default 2)"},
        {"max-memory", 0, OPTION_SIZE, &arguments.max_memory_bytes, "SIZE",
         "memory that we may use; fewer threads where it is short"},
        {"progress", 0, OPTION_FLAG, &arguments.progress, NULL, "progress on standard error"},
        {NULL, 0, OPTION_FLAG, NULL, NULL, NULL},
    };
    const CommandHelp help = {
        .name = "restore",
        .synopsis = "pgcairn restore --to DIR [options]",
        .summary = "Put a backup into a directory, ready to recover to a proven point",
        .examples = "  pgcairn restore --to /srv/copy\n"
                    "  pgcairn restore --to /srv/copy --time '2026-11-22 23:31:40+00'\n"
                    "  pgcairn restore --to /srv/copy --name before_migration "
                    "--target-action=promote\n"
                    "  pgcairn restore --as=original --force --dry-run\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    int code;
    if (!cli_parse(&help, &common, argc, argv, NULL, &code))
        return code;
    return run_restore(world, &common, &arguments, &err) ? 0 : cli_failed(&err);
}
