/* wal status: what of this server's WAL is not in the repository yet. */
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/wal_settings.h"
#include "common/cancel.h"
#include "common/log.h"
#include "common/timestamp.h"
#include "walarchive/wal_status.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static json_t *
lags_json(const WalStatus *status)
{
    json_t *array = json_array();
    for (size_t i = 0; i < status->lag_count; i++) {
        const WalStatusLag *lag = &status->lags[i];
        json_array_append_new(
            array, json_pack("{s:s, s:I, s:s?, s:s?, s:s?}", "repository", lag->repository,
                             "segments_lacking", (json_int_t)lag->lag.segments, "first",
                             lag->lag.segments > 0 ? lag->lag.first : NULL, "last",
                             lag->lag.segments > 0 ? lag->lag.last : NULL, "problem",
                             lag->problem[0] != '\0' ? lag->problem : NULL));
    }
    return array;
}

static json_t *
status_json(const WalStatus *status, const WalStatusPlace *place)
{
    const bool overflow = status->overflow.queue.total > 0;
    char since[TIMESTAMP_TEXT_SIZE] = "";

    if (overflow)
        timestamp_format(since, status->overflow.oldest_us);
    return json_pack(
        "{s:s, s:{s:I, s:s?}, s:{s:b, s:s?, s:b, s:I, s:I}, s:{s:b, s:s?, s:I, s:I, "
        "s:s?, s:s?, s:I, "
        "s:s?, s:s?}, s:o}",
        "cluster", place->cluster, "ready", "files", (json_int_t)status->ready.total, "first",
        status->ready.count > 0 ? status->ready.names[0] : NULL, "batch", "available",
        status->has_spool, "trouble", status->no_spool[0] != '\0' ? status->no_spool : NULL,
        "pushing_ahead", status->pushing_ahead, "durable_ahead",
        (json_int_t)status->spool.remembered, "failed", (json_int_t)status->spool.failed,
        "overflow", "configured", place->overflow_path != NULL, "trouble",
        status->no_overflow[0] != '\0' ? status->no_overflow : NULL, "files_not_off_host",
        (json_int_t)status->overflow.queue.total, "bytes_not_off_host",
        (json_int_t)status->overflow.bytes, "first",
        overflow ? status->overflow.queue.names[0] : NULL, "since", overflow ? since : NULL,
        "files_in_other_directories", (json_int_t)status->others.files, "other_directory",
        status->others.files > 0 ? status->others.directory : NULL, "unreadable_directory",
        status->others.unreadable > 0 ? status->others.unreadable_directory : NULL, "compared_with",
        lags_json(status));
}

static void
status_text(const WalStatus *status, const WalStatusPlace *place, ByteWriter *text)
{
    char since[TIMESTAMP_TEXT_SIZE];

    byte_writer_format(text, "ready in pg_wal: %zu%s%s\n", status->ready.total,
                       status->ready.count > 0 ? ", next is " : "",
                       status->ready.count > 0 ? status->ready.names[0] : "");
    if (status->has_spool)
        byte_writer_format(text, "pushed ahead: %zu durable, %zu failed%s\n",
                           status->spool.remembered, status->spool.failed,
                           status->pushing_ahead ? ", more at this moment" : "");
    else if (status->no_spool[0] != '\0')
        byte_writer_format(text, "pushed ahead: nothing: %s\n", status->no_spool);
    else
        byte_writer_format(
            text, "pushed ahead: nothing: no spool-path, and no " CONFIG_DEFAULT_SPOOL_PATH "\n");
    if (status->no_overflow[0] != '\0')
        byte_writer_format(text, "overflow: %s\n", status->no_overflow);
    else if (place->overflow_path == NULL)
        byte_writer_format(text, "overflow: none configured\n");
    else if (status->overflow.queue.total == 0)
        byte_writer_format(text, "overflow: empty\n");
    else {
        timestamp_format(since, status->overflow.oldest_us);
        byte_writer_format(text,
                           "overflow: NOT OFF THIS HOST: %zu files, %" PRIu64
                           " bytes, from %s on, since %s\n",
                           status->overflow.queue.total, status->overflow.bytes,
                           status->overflow.queue.names[0], since);
    }
    if (status->others.unreadable > 0)
        byte_writer_format(text, "overflow: not known what waits in '%s': %s\n",
                           status->others.unreadable_directory, status->others.problem.message);
    if (status->others.files > 0)
        byte_writer_format(
            text,
            "overflow: %zu files wait in other directories, as '%s': another repository's, another "
            "system's, or from before this one's place was changed; ship them with that "
            "configured\n",
            status->others.files, status->others.directory);
}

static void
lags_text(const WalStatus *status, const WalStatusPlace *place, ByteWriter *text)
{
    for (size_t i = 0; i < status->lag_count; i++) {
        const WalStatusLag *lag = &status->lags[i];
        if (lag->problem[0] != '\0')
            byte_writer_format(text, "compared with '%s': %s\n", lag->repository, lag->problem);
        if (lag->lag.segments == 0 && lag->problem[0] == '\0')
            byte_writer_format(text, "compared with '%s': lacks nothing\n", lag->repository);
        if (lag->lag.segments > 0)
            byte_writer_format(text,
                               "compared with '%s': LACKS %" PRIu64
                               " segments, from %s to %s; bring them: "
                               "pgcairn wal repair --repository %s\n",
                               lag->repository, lag->lag.segments, lag->lag.first, lag->lag.last,
                               place->repository->name);
    }
}

typedef struct {
    const char *pgdata;
    bool ship;
    bool json;
} StatusRequest;

static bool
run(const World *world, CliSession *session, void *context, int *code_out, CairnError *err)
{
    const StatusRequest *request = context;
    const char *configured = session->cluster->pgdata;
    WalStatus status;
    SCOPED_BYTES ByteWriter text = {0};
    size_t shipped = 0;
    const WalStatusPlace place = {
        .repository = session->repository,
        .cluster = session->cluster->name,
        .pgdata = request->pgdata != NULL ? request->pgdata
                  : configured != NULL    ? configured
                                          : ".",
        .spool_path = session->global->spool_path,
        .overflow_path = session->global->overflow_path,
        .others = session->repositories,
        .other_count = session->repository_count,
    };

    (void)code_out;
    const bool done = !request->ship || wal_status_ship(world, &place, &shipped, err);
    if (shipped > 0)
        log_info("%zu files of overflow-path are in the repository now", shipped);
    if (!done || !wal_status_read(world, &place, &status, err))
        return false;
    if (request->json)
        return cli_print_json(status_json(&status, &place), err);
    status_text(&status, &place, &text);
    lags_text(&status, &place, &text);
    return cli_print_text(&text, err);
}

int
command_wal_status(const World *world, int argc, char **argv)
{
    CairnError err = {0};
    CommonOptions common = {0};
    const char *pgdata = NULL;
    bool ship = false;
    int code;
    const Option options[] = {
        {"pgdata", 'D', OPTION_TEXT, &pgdata, "DIR",
         "data directory (default: that of the configuration, else the current one)"},
        {"ship", 0, OPTION_FLAG, &ship, NULL,
         "bring what waits in overflow-path into the repository"},
        {.name = NULL},
    };
    const CommandHelp help = {
        .name = argv[0],
        .synopsis = "pgcairn-wal status [options]",
        .summary = "What of this server's WAL is not in the repository yet. Run it as the server's "
                   "user.",
        .examples = "  pgcairn-wal status -D /var/lib/postgresql/15/main\n"
                    "  pgcairn-wal status --ship --output=json\n",
        .options = options,
    };

    cancel_install();
    if (!cli_parse(&help, &common, argc, argv, NULL, &code))
        return code;
    StatusRequest request = {.pgdata = pgdata, .ship = ship};
    SCOPED_SESSION session = {0};
    if (!cli_output_json(&common, &request.json, &err) ||
        !cli_session_open(world, &common, true, &session, &err))
        return cli_failed(&err);
    return cli_each_repository(world, &session, request.json, run, &request);
}
