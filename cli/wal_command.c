/* push and get, for PostgreSQL's archive_command and restore_command. */
#include "cli/commands.h"
#include "cli/options.h"
#include "common/cancel.h"
#include "common/log.h"
#include "walarchive/get.h"
#include "walarchive/push.h"
#include "walarchive/watchdog.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    EXIT_DELIVERED = 0,
    EXIT_FAILED = 1,    /* push: PostgreSQL tries again; get: not there */
    EXIT_TROUBLE = 126, /* get: PostgreSQL stops recovery */
    EXIT_SIGTERM = 143, /* get: PostgreSQL takes it for its own fast shutdown */
    TIMEOUT_SECONDS = 60,
    RETRY_SECONDS = 15,
    SECONDS_LIMIT = 24 * 3600,
};

/* What both commands need of the configuration. */
typedef struct {
    Config *config;
    const ClusterConfig *cluster;
    const RepositoryConfig *repository;
} Settings;

static bool
set_log_level(const char *name, CairnError *err)
{
    LogLevel level;

    if (name == NULL)
        return true;
    if (!log_level_parse(name, &level))
        return cairn_error(err, CAIRN_USAGE, "'%s' is no log level", name);
    log_set_level(level);
    return true;
}

/* settings->config is the caller's to free, also after a failure. */
static bool
load_settings(const World *world, const CommonOptions *common, Settings *settings, CairnError *err)
{
    settings->config = config_load(world, common->config, err);
    if (settings->config == NULL)
        return false;
    const char *configured = config_global(settings->config)->log_level;
    if (!set_log_level(common->log_level != NULL ? common->log_level : configured, err))
        return false;
    if (!config_assume_cluster(settings->config, common->cluster, err))
        return false;
    settings->cluster = config_cluster(settings->config, common->cluster, err);
    if (settings->cluster == NULL)
        return false;
    const char *repository =
        common->repository != NULL ? common->repository : settings->cluster->repositories;
    settings->repository = config_repository(settings->config, repository, err);
    return settings->repository != NULL;
}

static bool
check_seconds(const char *option, int64_t seconds, int64_t minimum, CairnError *err)
{
    if (seconds >= minimum && seconds <= SECONDS_LIMIT)
        return true;
    return cairn_error(err, CAIRN_USAGE, "--%s takes %" PRId64 " to %d seconds", option, minimum,
                       SECONDS_LIMIT);
}

static bool
push_one(const World *world, const CommonOptions *common, const WalPush *request, int64_t timeout_s,
         CairnError *err)
{
    WalPush push = *request;
    Settings settings = {0};
    WalPushed pushed = {0};

    cancel_install();
    if (!check_seconds("timeout", timeout_s, 1, err) ||
        !watchdog_start(timeout_s * 1000, push.path, err) ||
        !load_settings(world, common, &settings, err)) {
        config_free(settings.config);
        return false;
    }
    push.cluster = settings.cluster->name;
    push.repository = settings.repository;
    const bool done = wal_push(world, &push, &pushed, err);
    config_free(settings.config);
    if (!done && err->kind == CAIRN_CANCELLED && watchdog_expired()) {
        cairn_error_clear(err);
        cairn_error(err, CAIRN_UNAVAILABLE, "not finished after %" PRId64 " s", timeout_s);
        cairn_error_hint(err, "PostgreSQL will try again; --timeout gives it longer");
    }
    if (!done)
        return cairn_error_wrap(err, "unable to archive '%s'", push.path);
    if (pushed.tail_differs)
        log_info("'%s' is stored already with the same records; only its unused tail differs",
                 push.path);
    else
        log_debug("'%s' is %s", push.path, pushed.existed ? "stored already" : "stored");
    return true;
}

static int
command_push(const World *world, int argc, char **argv)
{
    CairnError err = {0};
    CommonOptions common = {0};
    WalPush push = {0};
    int64_t timeout_s = TIMEOUT_SECONDS;
    size_t count = 0;
    const Option options[] = {
        {"pgdata", 'D', OPTION_TEXT, &push.pgdata, "DIR",
         "data directory (default: told by the path)"},
        {"timeout", 0, OPTION_INTEGER, &timeout_s, "SECONDS", "give up after (default 60)"},
        {.name = NULL},
    };
    const CommandHelp help = {
        .name = argv[0],
        .synopsis = "pgcairn-wal push [options] PATH",
        .summary = "Archive one file of pg_wal. Exit code 0: it is durable in the repository; 1: "
                   "it is not.",
        .examples = "  archive_command = 'pgcairn-wal push %p'\n"
                    "  pgcairn-wal push --pgdata /srv/pg /srv/pg/pg_wal/000000010000000000000001\n",
        .options = options,
    };

    if (!options_parse(&help, &common, argc, argv, &push.path, 1, &count, &err)) {
        log_error(&err);
        return EXIT_FAILED;
    }
    if (common.help) {
        options_print_help(&help);
        return EXIT_DELIVERED;
    }
    if (count != 1) {
        cairn_error(&err, CAIRN_USAGE, "%s: which file?", argv[0]);
        cairn_error_hint(&err, "usage: %s", help.synopsis);
        log_error(&err);
        return EXIT_FAILED;
    }
    if (!push_one(world, &common, &push, timeout_s, &err)) {
        log_error(&err);
        return EXIT_FAILED;
    }
    return EXIT_DELIVERED;
}

static WalGetResult
get_one(const World *world, const CommonOptions *common, const WalGet *request, int64_t retry_s,
        CairnError *err)
{
    WalGet get = *request;
    Settings settings = {0};
    WalGetResult result = WAL_GET_TROUBLE;

    cancel_install();
    if (check_seconds("retry-timeout", retry_s, 0, err) &&
        load_settings(world, common, &settings, err)) {
        get.cluster = settings.cluster->name;
        get.repository = settings.repository;
        get.retry_ms = retry_s * 1000;
        result = wal_get(world, &get, err);
    }
    config_free(settings.config);
    return result;
}

static int
report_get(const WalGet *get, WalGetResult result, CairnError *err)
{
    switch (result) {
    case WAL_GET_DELIVERED:
        return EXIT_DELIVERED;
    case WAL_GET_ABSENT:
        log_debug("%s", err->message);
        return EXIT_FAILED;
    case WAL_GET_BLIP:
        cairn_error_wrap(err, "unable to get '%s' for now", get->file_name);
        log_error(err);
        return EXIT_FAILED;
    case WAL_GET_TROUBLE:
        break;
    }
    const bool cancelled = err->kind == CAIRN_CANCELLED;
    cairn_error_wrap(err, "unable to get '%s'", get->file_name);
    if (!cancelled && err->hint[0] == '\0') {
        cairn_error_hint(err,
                         "recovery stops here rather than ending early; mend the cause, then start "
                         "the server again");
    }
    log_error(err);
    return cancelled ? EXIT_SIGTERM : EXIT_TROUBLE;
}

static int
command_get(const World *world, int argc, char **argv)
{
    CairnError err = {0};
    CommonOptions common = {0};
    WalGet get = {0};
    int64_t retry_s = RETRY_SECONDS;
    const char *positional[2];
    size_t count = 0;
    const Option options[] = {
        {"pgdata", 'D', OPTION_TEXT, &get.pgdata, "DIR",
         "data directory (default: told by the path)"},
        {"retry-timeout", 0, OPTION_INTEGER, &retry_s, "SECONDS",
         "keep trying when there is trouble (default 15)"},
        {"hole-after", 0, OPTION_TEXT, &get.hole_after, "NAME",
         "the target needs nothing behind this segment (restore sets it before a hole)"},
        {.name = NULL},
    };
    const CommandHelp help = {
        .name = argv[0],
        .synopsis = "pgcairn-wal get [options] NAME PATH",
        .summary =
            "Fetch one WAL file for recovery. Exit code 0: delivered; 1: proven absent, nothing "
            "later "
            "is stored;\n126: trouble or a hole, recovery must not take it for the end of WAL.",
        .examples = "  restore_command = 'pgcairn-wal get %f %p'\n",
        .options = options,
    };

    /* Wrong options answer 126 as well: 1 would end recovery. */
    if (!options_parse(&help, &common, argc, argv, positional, 2, &count, &err)) {
        log_error(&err);
        return EXIT_TROUBLE;
    }
    if (common.help) {
        options_print_help(&help);
        return EXIT_DELIVERED;
    }
    if (count != 2) {
        cairn_error(&err, CAIRN_USAGE, "%s: which file, and where to?", argv[0]);
        cairn_error_hint(&err, "usage: %s", help.synopsis);
        log_error(&err);
        return EXIT_TROUBLE;
    }
    get.file_name = positional[0];
    get.path = positional[1];
    return report_get(&get, get_one(world, &common, &get, retry_s, &err), &err);
}

static const struct {
    const char *name;
    CommandMain *run;
} commands[] = {
    {"push", command_push},
    {"get", command_get},
    {"archive-push", command_push},
    {"archive-get", command_get},
};

static void
print_usage(FILE *file)
{
    fprintf(file, "Move WAL between PostgreSQL and the repository.\n\n"
                  "Usage: pgcairn-wal push [options] %%p\n"
                  "       pgcairn-wal get [options] %%f %%p\n\n"
                  "`pgcairn-wal push --help` and `pgcairn-wal get --help` say more.\n"
                  "archive-push and archive-get are the same commands.\n");
}

static CommandMain *
find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run;
    }
    return NULL;
}

int
wal_command_alias(const World *world, int argc, char **argv)
{
    CommandMain *run = find_command(argv[0]);
    CAIRN_ASSERT(run != NULL);
    return run(world, argc, argv);
}

int
wal_command(const World *world, int argc, char **argv)
{
    options_command_first(argc, argv);
    const char *name = argc > 1 ? argv[1] : "";
    CommandMain *run = find_command(name);

    if (run != NULL)
        return run(world, argc - 1, argv + 1);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage(stdout);
        return EXIT_DELIVERED;
    }
    /* Not 1: should this stand in a restore_command, it must not read as the end of WAL. */
    print_usage(stderr);
    return EXIT_TROUBLE;
}
