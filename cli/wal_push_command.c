/* push, PostgreSQL's archive_command, and the process that pushes ahead for it. */
#include "cli/commands.h"
#include "cli/wal_push_each.h"
#include "cli/wal_push_report.h"
#include "cli/wal_settings.h"
#include "common/cancel.h"
#include "common/log.h"
#include "walarchive/push.h"
#include "walarchive/watchdog.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    TIMEOUT_SECONDS = 60,
    AHEAD_LIMIT_MS = 600 * 1000, /* it ends by itself long before, unless a file system hangs */
    ARGUMENT_LIMIT = 64,
};

/* What the command line says, for both commands. */
typedef struct {
    CommonOptions common;
    WalPush push;
    int64_t timeout_s;
    int64_t jobs; /* 0: not said */
    bool batch;
} PushOptions;

static bool
parse(PushOptions *options_out, int argc, char **argv, CairnError *err)
{
    PushOptions *o = options_out;
    size_t count = 0;
    const Option options[] = {
        {"pgdata", 'D', OPTION_TEXT, &o->push.pgdata, "DIR",
         "data directory (default: told by the path)"},
        {"timeout", 0, OPTION_INTEGER, &o->timeout_s, "SECONDS", "give up after (default 60)"},
        {"jobs", 'j', OPTION_INTEGER, &o->jobs, "N", "files pushed ahead at a time (default 2)"},
        {"batch", 0, OPTION_FLAG, &o->batch, NULL,
         "push what else is ready ahead (default; needs spool-path); --no-batch: do not"},
        {.name = NULL},
    };
    const CommandHelp help = {
        .name = argv[0],
        .synopsis = "pgcairn-wal push [options] PATH",
        .summary =
            "Archive one file of pg_wal. Exit code 0: it is durable in the repository; 1: "
            "it is not.\nWhen more files are ready, a process that ends by itself pushes them "
            "ahead, and their calls\nanswer at once. It needs a directory of the server's user: "
            "`spool-path` in [global],\nor /var/spool/pgcairn where that exists. With "
            "`overflow-path` (on another file system than\npg_wal), files wait there while the "
            "repository is down; see `pgcairn-wal status`.",
        .examples = "  archive_command = 'pgcairn-wal push %p'\n"
                    "  archive_command = 'pgcairn-wal push --jobs 4 %p'\n"
                    "  pgcairn-wal push --pgdata /srv/pg /srv/pg/pg_wal/000000010000000000000001\n",
        .options = options,
    };

    *o = (PushOptions){.timeout_s = TIMEOUT_SECONDS, .batch = true};
    if (!options_parse(&help, &o->common, argc, argv, &o->push.path, 1, &count, err))
        return false;
    if (o->common.help) {
        options_print_help(&help);
        return true;
    }
    if (count != 1) {
        cairn_error(err, CAIRN_USAGE, "%s: which file?", argv[0]);
        return cairn_error_hint(err, "usage: %s", help.synopsis);
    }
    if (o->jobs < 0 || o->jobs > PUSH_JOBS_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "--jobs takes 1 to %d", PUSH_JOBS_LIMIT);
    return wal_check_seconds("timeout", o->timeout_s, 1, err);
}

static WalBatch
batch_of(const PushOptions *options, const WalSettings *settings)
{
    return (WalBatch){
        .spool_path = settings->global->spool_path,
        .jobs = options->jobs > 0 ? (int)options->jobs : wal_settings_push_jobs(settings),
        /* The other half is for pushing the file itself. */
        .patience_ms = options->timeout_s * 1000 / 2,
    };
}

/* The same words for the other process; too many of them, and there is none. */
static bool
ahead_command(int argc, char **argv, char *command[ARGUMENT_LIMIT])
{
    static char program[] = "pgcairn-wal";
    static char family[] = "wal";
    static char name[] = "push-ahead";
    size_t count = 0;

    if (argc + 3 > ARGUMENT_LIMIT)
        return false;
    command[count++] = program;
    command[count++] = family;
    command[count++] = name;
    for (int i = 1; i < argc; i++)
        command[count++] = argv[i];
    command[count] = NULL;
    return true;
}

/* The settings stay as they are: of a repository that hangs, a thread may still use them. */
static bool
push_one(const World *world, const PushOptions *options, char *const *command,
         WalSettings *settings, WalPushedAll *pushed, CairnError *err)
{
    WalPush push = options->push;
    WalPushAll all;
    static WalPushRoom room;

    cancel_install();
    if (!watchdog_start(options->timeout_s * 1000, push.path, err) ||
        !wal_settings_load(world, &options->common, settings, err))
        return false;
    WalBatch batch = batch_of(options, settings);
    batch.command = command;
    push.cluster = settings->cluster->name;
    push.batch = options->batch ? &batch : NULL;
    push.overflow_path = settings->global->overflow_path;
    wal_push_each(settings, &push, &room, &all);
    const bool done = wal_push_all(world, &all, pushed, err);
    if (!done && err->kind == CAIRN_CANCELLED && watchdog_expired()) {
        cairn_error_clear(err);
        cairn_error(err, CAIRN_UNAVAILABLE, "not finished after %" PRId64 " s", options->timeout_s);
        cairn_error_hint(err, "PostgreSQL will try again; --timeout gives it longer");
    }
    return done;
}

int
command_wal_push(const World *world, int argc, char **argv)
{
    CairnError err = {0};
    PushOptions options;
    WalSettings settings = {0};
    WalPushedAll pushed = {0};
    char *command[ARGUMENT_LIMIT];
    const bool has_command = ahead_command(argc, argv, command);

    if (!parse(&options, argc, argv, &err)) {
        log_error(&err);
        return WAL_EXIT_FAILED;
    }
    if (options.common.help)
        return WAL_EXIT_DONE;
    const bool done =
        push_one(world, &options, has_command ? command : NULL, &settings, &pushed, &err);
    wal_push_report_all(options.push.path, &pushed);
    if (!done) {
        cairn_error_wrap(&err, "unable to archive '%s'", options.push.path);
        log_error(&err);
    }
    const int code = done ? WAL_EXIT_DONE : WAL_EXIT_FAILED;
    if (pushed.left_behind)
        _exit(code); /* a thread hangs in there, and still uses everything */
    wal_settings_free(&settings);
    return code;
}

/* Not for people: push starts it. Nobody sees its output, and nobody waits for it. */
int
command_wal_push_ahead(const World *world, int argc, char **argv)
{
    CairnError err = {0};
    PushOptions options;
    WalSettings settings = {0};
    bool done = false;

    cancel_install();
    if (parse(&options, argc, argv, &err) && !options.common.help &&
        watchdog_start(AHEAD_LIMIT_MS, "pushing ahead", &err) &&
        wal_settings_load(world, &options.common, &settings, &err)) {
        WalPush push = options.push;
        const WalBatch batch = batch_of(&options, &settings);
        push.cluster = settings.cluster->name;
        push.repository = settings.repository;
        push.batch = &batch;
        done = wal_push_ahead(world, &push, &err);
    }
    wal_settings_free(&settings);
    if (!done && err.kind != CAIRN_OK)
        log_error(&err);
    return done ? WAL_EXIT_DONE : WAL_EXIT_FAILED;
}
