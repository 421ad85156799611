/* push: PostgreSQL's archive_command. */
#include "cli/commands.h"
#include "cli/wal_settings.h"
#include "common/cancel.h"
#include "common/log.h"
#include "walarchive/push.h"
#include "walarchive/watchdog.h"

#include <inttypes.h>

enum { TIMEOUT_SECONDS = 60 };

static bool
push_one(const World *world, const CommonOptions *common, const WalPush *request, int64_t timeout_s,
         CairnError *err)
{
    WalPush push = *request;
    WalSettings settings = {0};
    WalPushed pushed = {0};

    cancel_install();
    if (!wal_check_seconds("timeout", timeout_s, 1, err) ||
        !watchdog_start(timeout_s * 1000, push.path, err) ||
        !wal_settings_load(world, common, &settings, err)) {
        wal_settings_free(&settings);
        return false;
    }
    push.cluster = settings.cluster->name;
    push.repository = settings.repository;
    const bool done = wal_push(world, &push, &pushed, err);
    wal_settings_free(&settings);
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

int
command_wal_push(const World *world, int argc, char **argv)
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
        return WAL_EXIT_FAILED;
    }
    if (common.help) {
        options_print_help(&help);
        return WAL_EXIT_DONE;
    }
    if (count != 1) {
        cairn_error(&err, CAIRN_USAGE, "%s: which file?", argv[0]);
        cairn_error_hint(&err, "usage: %s", help.synopsis);
        log_error(&err);
        return WAL_EXIT_FAILED;
    }
    if (!push_one(world, &common, &push, timeout_s, &err)) {
        log_error(&err);
        return WAL_EXIT_FAILED;
    }
    return WAL_EXIT_DONE;
}
