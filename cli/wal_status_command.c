/* wal status: what of this server's WAL is not in the repository yet. */
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/wal_settings.h"
#include "common/cancel.h"
#include "common/log.h"
#include "common/timestamp.h"
#include "walarchive/wal_status.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static json_t *
status_json(const WalStatus *status, const WalStatusPlace *place)
{
    const bool overflow = status->overflow.total > 0;
    char since[TIMESTAMP_TEXT_SIZE] = "";

    if (overflow)
        timestamp_format(since, status->overflow.oldest_us);
    return json_pack("{s:s, s:{s:I, s:s?}, s:{s:b, s:s?, s:b, s:I, s:I}, s:{s:b, s:s?, s:I, s:I, "
                     "s:s?, s:s?, s:I, "
                     "s:s?}}",
                     "cluster", place->cluster, "ready", "files", (json_int_t)status->ready.total,
                     "first", status->ready.count > 0 ? status->ready.names[0] : NULL, "batch",
                     "available", status->has_spool, "trouble",
                     status->no_spool[0] != '\0' ? status->no_spool : NULL, "pushing_ahead",
                     status->pushing_ahead, "durable_ahead", (json_int_t)status->spool.remembered,
                     "failed", (json_int_t)status->spool.failed, "overflow", "configured",
                     place->overflow_path != NULL, "trouble",
                     status->no_overflow[0] != '\0' ? status->no_overflow : NULL,
                     "files_not_off_host", (json_int_t)status->overflow.total, "bytes_not_off_host",
                     (json_int_t)status->overflow.bytes, "first",
                     overflow ? status->overflow.names[0] : NULL, "since", overflow ? since : NULL,
                     "files_in_other_directories", (json_int_t)status->others.files,
                     "other_directory", status->others.files > 0 ? status->others.directory : NULL);
}

static void PRINTF_LIKE(2, 3) append(ByteWriter *text, const char *format, ...)
{
    char line[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    byte_writer_bytes(text, line, strlen(line));
}

static void
status_text(const WalStatus *status, const WalStatusPlace *place, ByteWriter *text)
{
    char since[TIMESTAMP_TEXT_SIZE];

    append(text, "ready in pg_wal: %zu%s%s\n", status->ready.total,
           status->ready.count > 0 ? ", next is " : "",
           status->ready.count > 0 ? status->ready.names[0] : "");
    if (status->has_spool)
        append(text, "pushed ahead: %zu durable, %zu failed%s\n", status->spool.remembered,
               status->spool.failed, status->pushing_ahead ? ", more at this moment" : "");
    else if (status->no_spool[0] != '\0')
        append(text, "pushed ahead: nothing: %s\n", status->no_spool);
    else
        append(text, "pushed ahead: nothing: no spool-path, and no " SPOOL_DEFAULT_PATH "\n");
    if (status->no_overflow[0] != '\0')
        append(text, "overflow: %s\n", status->no_overflow);
    else if (place->overflow_path == NULL)
        append(text, "overflow: none configured\n");
    else if (status->overflow.total == 0)
        append(text, "overflow: empty\n");
    else {
        timestamp_format(since, status->overflow.oldest_us);
        append(text,
               "overflow: NOT OFF THIS HOST: %zu files, %" PRIu64 " bytes, from %s on, since %s\n",
               status->overflow.total, status->overflow.bytes, status->overflow.names[0], since);
    }
    if (status->others.files > 0)
        append(text,
               "overflow: %zu files wait in other directories, as '%s': the repository had another "
               "path then, or it was another system; ship them with that path configured\n",
               status->others.files, status->others.directory);
}

static bool
run(const World *world, const CommonOptions *common, const char *pgdata, bool ship, CairnError *err)
{
    WalStatus status;
    SCOPED_BYTES ByteWriter text = {0};
    WalSettings settings = {0};
    size_t shipped = 0;
    bool json = false;

    bool done =
        cli_output_json(common, &json, err) && wal_settings_load(world, common, &settings, err);
    if (done) {
        const char *configured = settings.cluster->pgdata;
        const WalStatusPlace place = {
            .repository = settings.repository,
            .cluster = settings.cluster->name,
            .pgdata = pgdata != NULL       ? pgdata
                      : configured != NULL ? configured
                                           : ".",
            .spool_path = settings.global->spool_path,
            .overflow_path = settings.global->overflow_path,
        };
        done = !ship || wal_status_ship(world, &place, &shipped, err);
        if (shipped > 0)
            log_info("%zu files of overflow-path are in the repository now", shipped);
        done = done && wal_status_read(world, &place, &status, err);
        if (done && json)
            done = cli_print_json(status_json(&status, &place), err);
        else if (done) {
            status_text(&status, &place, &text);
            done = cli_print_text(&text, err);
        }
    }
    wal_settings_free(&settings);
    return done;
}

int
command_wal_status(const World *world, int argc, char **argv)
{
    CairnError err = {0};
    CommonOptions common = {0};
    const char *pgdata = NULL;
    bool ship = false;
    size_t count = 0;
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
    if (!options_parse(&help, &common, argc, argv, NULL, 0, &count, &err))
        return cli_failed(&err);
    if (common.help) {
        options_print_help(&help);
        return WAL_EXIT_DONE;
    }
    if (!run(world, &common, pgdata, ship, &err))
        return cli_failed(&err);
    return WAL_EXIT_DONE;
}
