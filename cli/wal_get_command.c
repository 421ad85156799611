/* get: PostgreSQL's restore_command. */
#include "cli/commands.h"
#include "cli/wal_settings.h"
#include "common/cancel.h"
#include "common/log.h"
#include "walarchive/get.h"
#include "walarchive/prefetch.h"

enum { RETRY_SECONDS = 15, NOT_SAID = -1 };

/* As typed. */
typedef struct {
    WalGet get;
    int64_t retry_s;
    int64_t prefetch, jobs; /* NOT_SAID: the configuration's word */
} GetRequest;

static bool
choose_prefetch(const GetRequest *request, const GlobalConfig *global, WalGet *get, CairnError *err)
{
    const int jobs = global->jobs != 0 ? global->jobs : PREFETCH_JOBS_DEFAULT;

    get->prefetch = global->get_prefetch >= 0 ? global->get_prefetch : PREFETCH_DEFAULT;
    get->jobs = jobs < PREFETCH_JOBS_MAX ? jobs : PREFETCH_JOBS_MAX;
    if (request->prefetch != NOT_SAID)
        get->prefetch = (int)request->prefetch;
    if (request->jobs != NOT_SAID)
        get->jobs = (int)request->jobs;
    get->spool_path = global->spool_path;
    get->overflow_path = global->overflow_path;
    if (request->prefetch > PREFETCH_MAX || request->prefetch < NOT_SAID)
        return cairn_error(err, CAIRN_USAGE, "--prefetch takes 0 to %d segments", PREFETCH_MAX);
    if (request->jobs > PREFETCH_JOBS_MAX || request->jobs < NOT_SAID || request->jobs == 0)
        return cairn_error(err, CAIRN_USAGE, "--jobs takes 1 to %d", PREFETCH_JOBS_MAX);
    return true;
}

static WalGetResult
get_one(const World *world, const CommonOptions *common, const GetRequest *request, CairnError *err)
{
    const int64_t retry_s = request->retry_s;
    WalGet get = request->get;
    WalSettings settings = {0};
    WalGetResult result = WAL_GET_TROUBLE;

    cancel_install();
    if (wal_check_seconds("retry-timeout", retry_s, 0, err) &&
        wal_settings_load(world, common, &settings, err) &&
        choose_prefetch(request, config_global(settings.config), &get, err)) {
        get.cluster = settings.cluster->name;
        get.repositories = settings.repositories;
        get.repository_count = settings.repository_count;
        get.retry_ms = retry_s * 1000;
        result = wal_get(world, &get, err);
    }
    wal_settings_free(&settings);
    return result;
}

static int
report_get(const WalGet *get, WalGetResult result, CairnError *err)
{
    switch (result) {
    case WAL_GET_DELIVERED:
        return WAL_EXIT_DONE;
    case WAL_GET_ABSENT:
        log_debug("%s", err->message);
        return WAL_EXIT_FAILED;
    case WAL_GET_BLIP:
        cairn_error_wrap(err, "unable to get '%s' for now", get->file_name);
        log_error(err);
        return WAL_EXIT_FAILED;
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
    return cancelled ? WAL_EXIT_SIGTERM : WAL_EXIT_TROUBLE;
}

int
command_wal_get(const World *world, int argc, char **argv)
{
    CairnError err = {0};
    CommonOptions common = {0};
    GetRequest request = {.retry_s = RETRY_SECONDS, .prefetch = NOT_SAID, .jobs = NOT_SAID};
    WalGet *get = &request.get;
    const char *positional[2];
    size_t count = 0;
    const Option options[] = {
        {"pgdata", 'D', OPTION_TEXT, &get->pgdata, "DIR",
         "data directory (default: told by the path)"},
        {"retry-timeout", 0, OPTION_INTEGER, &request.retry_s, "SECONDS",
         "keep trying when there is trouble (default 15)"},
        {"hole-after", 0, OPTION_TEXT, &get->hole_after, "NAME",
         "the target needs nothing behind this segment (restore sets it before a hole)"},
        {"prefetch", 0, OPTION_INTEGER, &request.prefetch, "N",
         "segments to fetch ahead in the background (default 8, 0: none)"},
        {"jobs", 'j', OPTION_INTEGER, &request.jobs, "N", "threads that fetch ahead (default 2)"},
        {.name = NULL},
    };
    const CommandHelp help = {
        .name = argv[0],
        .synopsis = "pgcairn-wal get [options] NAME PATH",
        .summary =
            "Fetch one WAL file for recovery. Exit code 0: delivered; 1: proven absent, nothing "
            "later "
            "is stored;\n126: trouble or a hole, recovery must not take it for the end of WAL.",
        .examples = "  restore_command = 'pgcairn-wal get %f %p'\n"
                    "  restore_command = 'pgcairn-wal get --prefetch=16 -j 4 %f %p'\n",
        .options = options,
    };

    /* Wrong options answer 126 as well: 1 would end recovery. */
    if (!options_parse(&help, &common, argc, argv, positional, 2, &count, &err)) {
        log_error(&err);
        return WAL_EXIT_TROUBLE;
    }
    if (common.help) {
        options_print_help(&help);
        return WAL_EXIT_DONE;
    }
    if (count != 2) {
        cairn_error(&err, CAIRN_USAGE, "%s: which file, and where to?", argv[0]);
        cairn_error_hint(&err, "usage: %s", help.synopsis);
        log_error(&err);
        return WAL_EXIT_TROUBLE;
    }
    get->file_name = positional[0];
    get->path = positional[1];
    return report_get(get, get_one(world, &common, &request, &err), &err);
}
