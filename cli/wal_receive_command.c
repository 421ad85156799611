/* receive: WAL over a replication connection, for `pgcairn wal receive` alone: it needs libpq. */
#include "cli/commands.h"
#include "cli/session.h"
#include "common/log.h"
#include "walarchive/receive.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

enum { TAIL_INTERVAL_S = 5, TAIL_INTERVAL_LIMIT_S = 3600 };

static const uint64_t SPOOL_DEFAULT_LIMIT = UINT64_C(1) << 30;

typedef struct {
    CommonOptions common;
    ReceiveOptions receive;
    int64_t tail_interval_s;
    bool drop_slot;
} Arguments;

static bool
check_arguments(const Arguments *arguments, CairnError *err)
{
    const ReceiveOptions *receive = &arguments->receive;

    if (arguments->tail_interval_s < 1 || arguments->tail_interval_s > TAIL_INTERVAL_LIMIT_S)
        return cairn_error(err, CAIRN_USAGE, "--tail-interval takes 1 to %d seconds",
                           TAIL_INTERVAL_LIMIT_S);
    if ((receive->create_slot || arguments->drop_slot) && receive->slot == NULL)
        return cairn_error(err, CAIRN_USAGE, "--create-slot and --drop-slot need --slot NAME");
    if (receive->create_slot && arguments->drop_slot)
        return cairn_error(err, CAIRN_USAGE, "--create-slot and --drop-slot exclude each other");
    if (receive->synchronous && receive->synchronous_spool)
        return cairn_error(err, CAIRN_USAGE,
                           "--synchronous and --synchronous-spool exclude each other");
    return true;
}

static bool
run(const World *world, Arguments *arguments, CairnError *err)
{
    SCOPED_SESSION session = {0};
    ReceiveOptions *receive = &arguments->receive;

    if (!cli_session_open(world, &arguments->common, true, &session, err))
        return false;
    receive->cluster = session.cluster;
    receive->repositories = session.repositories;
    receive->repository_count = session.repository_count;
    receive->tail_interval_ms = (int)arguments->tail_interval_s * 1000;
    receive->server_timeout_ms =
        1000 * (session.global->server_timeout_s > 0 ? session.global->server_timeout_s
                                                     : SERVER_TIMEOUT_S);
    if (receive->spool_path == NULL)
        receive->spool_path = session.global->spool_path != NULL ? session.global->spool_path
                                                                 : CONFIG_DEFAULT_SPOOL_PATH;
    if (receive->spool_limit_bytes == 0)
        receive->spool_limit_bytes = session.global->spool_limit_bytes != 0
                                         ? session.global->spool_limit_bytes
                                         : SPOOL_DEFAULT_LIMIT;
    if (!arguments->drop_slot)
        return receive_run(world, receive, err);
    if (!receive_drop_slot(receive, err))
        return false;
    log_info("replication slot '%s' was dropped", receive->slot);
    return true;
}

int
command_wal_receive(const World *world, int argc, char **argv)
{
    Arguments arguments = {.tail_interval_s = TAIL_INTERVAL_S};
    ReceiveOptions *receive = &arguments.receive;
    const Option options[] = {
        {"slot", 0, OPTION_TEXT, &receive->slot, "NAME",
         "physical replication slot: the server keeps WAL until we have it"},
        {"create-slot", 0, OPTION_FLAG, &receive->create_slot, NULL,
         "make the slot when it is missing; it holds WAL at once"},
        {"drop-slot", 0, OPTION_FLAG, &arguments.drop_slot, NULL, "drop the slot, and end"},
        {"spool-path", 0, OPTION_TEXT, &receive->spool_path, "DIR",
         "where WAL waits on its way (default " CONFIG_DEFAULT_SPOOL_PATH ")"},
        {"spool-limit", 0, OPTION_SIZE, &receive->spool_limit_bytes, "SIZE",
         "stop receiving when so much waits, as when the repository is down (default 1GiB)"},
        {"tail-interval", 0, OPTION_INTEGER, &arguments.tail_interval_s, "SECONDS",
         "how often what has come of the unfinished segment is stored (default 5)"},
        {"synchronous", 0, OPTION_FLAG, &receive->synchronous, NULL,
         "acknowledge only what is durable in the repository, at once"},
        {"synchronous-spool", 0, OPTION_FLAG, &receive->synchronous_spool, NULL,
         "acknowledge what is durable in the spool, at once; refused on the server's own host"},
        {"application-name", 0, OPTION_TEXT, &receive->application_name, "NAME",
         "as synchronous_standby_names knows us"},
        {"accept-gap", 0, OPTION_FLAG, &receive->accept_gap, NULL,
         "where the server has removed WAL: begin behind it, and leave a hole"},
        {"no-loop", 0, OPTION_FLAG, &receive->no_loop, NULL,
         "end when the connection does, instead of trying again for ever"},
        {0},
    };
    const CommandHelp command = {
        .name = "receive",
        .synopsis = "pgcairn wal receive [options]",
        .summary =
            "Receive WAL over a replication connection as the server writes it, and store it: "
            "finished segments\nas push does, the unfinished one every few seconds. Runs until "
            "it is told to stop.",
        .examples =
            "  pgcairn wal receive --slot=pgcairn --create-slot\n"
            "  pgcairn wal receive --slot=pgcairn --synchronous --application-name=pgcairn\n"
            "      with synchronous_standby_names = 'pgcairn': a commit waits until it is stored\n"
            "  pgcairn wal receive --slot=pgcairn --drop-slot\n",
        .options = options,
    };
    CairnError err = {0};
    int code;

    if (!cli_parse(&command, &arguments.common, argc, argv, NULL, &code))
        return code;
    /* What we make is readable to no others. */
    umask(027);
    if (!check_arguments(&arguments, &err) || !run(world, &arguments, &err))
        return cli_failed(&err);
    return 0;
}
