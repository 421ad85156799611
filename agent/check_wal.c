#include "agent/check_steps.h"

#include "agent/archive_command.h"
#include "common/cancel.h"
#include "common/timestamp.h"
#include "postgres/wal_name.h"
#include "repository/wal_overflow.h"
#include "repository/wal_store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ARRIVAL_POLL_MS = 100 };

/* On a standby "on" archives nothing before its promotion. */
static bool
archives(const ServerFacts *facts)
{
    return strcmp(facts->archive_mode, "always") == 0 ||
           (strcmp(facts->archive_mode, "on") == 0 && !facts->in_recovery);
}

static void
check_archive_mode(CheckRun *run)
{
    const ServerFacts *facts = &run->facts;
    if (strcmp(facts->archive_mode, "off") == 0 && run->receives)
        check_add(run, "archive_mode", CHECK_OK, "off: `pgcairn wal receive` takes the WAL");
    else if (strcmp(facts->archive_mode, "off") == 0)
        check_add(run, "archive_mode", CHECK_FAILED,
                  "it is off, and no receiver streams: no WAL reaches the repository; set "
                  "archive_mode = on and restart, or run `pgcairn wal receive`");
    else
        check_add(run, "archive_mode", CHECK_OK, "%s%s", facts->archive_mode,
                  archives(facts) ? "" : " (this standby archives nothing; its primary does)");
}

/* What keeps our module from archiving into this cluster; NULL: nothing. */
static const char *
module_fault(const CheckRun *run)
{
    const ServerFacts *facts = &run->facts;
    const char *command = facts->module_command;
    const char *cluster = facts->module_cluster;
    if (command == NULL || command[0] == '\0')
        return "pgcairn_archive.command is not set; `pgcairn init --print` shows the lines";
    if (command[0] != '/')
        return "pgcairn_archive.command is not an absolute path, so the module does nothing";
    if (!archive_program_is_ours(command))
        return "pgcairn_archive.command is not pgcairn-wal";
    if (facts->module_config != NULL && facts->module_config[0] != '\0' &&
        facts->module_config[0] != '/')
        return "pgcairn_archive.config is not an absolute path, so the module does nothing";
    if (cluster != NULL && cluster[0] != '\0' && strcmp(cluster, run->options->cluster->name) != 0)
        return "pgcairn_archive.cluster names another cluster than this one";
    return NULL;
}

/* 15 lets the library win without a word; later ones end the archiver, again and again. */
static bool
check_both(CheckRun *run)
{
    if (run->facts.archive_command[0] == '\0')
        return true;
    if (run->facts.major >= 16) {
        check_add(run, "archive_library", CHECK_FAILED,
                  "archive_command is set too: the archiver refuses both, and nothing is archived; "
                  "empty one of them");
        return false;
    }
    check_add(run, "archive_library", CHECK_WARNING,
              "%s; archive_command is set too: PostgreSQL 15 ignores it, later ones refuse both; "
              "empty it",
              run->facts.archive_library);
    return false;
}

static void
check_archive_library(CheckRun *run)
{
    const char *name = "archive_library";
    if (!archive_library_is_ours(run->facts.archive_library)) {
        check_add(run, name, CHECK_FAILED,
                  "it is '%s', which is not pgcairn's, and goes before archive_command; empty it, "
                  "or set it to pgcairn_archive",
                  run->facts.archive_library);
        return;
    }
    const char *fault = module_fault(run);
    if (fault != NULL)
        check_add(run, name, CHECK_FAILED, "%s", fault);
    else if (check_both(run))
        check_add(run, name, CHECK_OK, "%s", run->facts.archive_library);
}

static void
check_archive_command(CheckRun *run)
{
    const ServerFacts *facts = &run->facts;
    const char *name = "archive_command";
    switch (archive_command_recognise(facts->archive_command)) {
    case ARCHIVE_COMMAND_OURS:
        check_add(run, name, CHECK_OK, "%s", "");
        return;
    case ARCHIVE_COMMAND_RELATIVE:
        check_add(run, name, CHECK_WARNING,
                  "give the program its absolute path: the server's PATH counts");
        return;
    case ARCHIVE_COMMAND_NO_PATH:
        check_add(run, name, CHECK_FAILED, "it lacks %%p; `pgcairn init --print` shows the line");
        return;
    case ARCHIVE_COMMAND_MASKED:
        check_add(
            run, name, CHECK_FAILED,
            "something after the push may hide its failure, and PostgreSQL then recycles WAL that "
            "was never stored; use the push alone");
        return;
    case ARCHIVE_COMMAND_NONE:
        check_add(run, name, archives(facts) ? CHECK_FAILED : CHECK_WARNING,
                  "it is empty; `pgcairn init --print` shows the line");
        return;
    case ARCHIVE_COMMAND_OTHER:
        check_add(run, name, CHECK_FAILED,
                  "it does not call pgcairn-wal push; `pgcairn init --print` shows the line");
        return;
    }
}

/* Of our role: others' are not shown to it (pg_stat_replication shows it nothing at all). What it
   brings is seen where a segment arrives. */
static bool
is_received(CheckRun *run)
{
    CairnError ignored = {0};
    SCOPED_MEMORY char *count = connection_query_text(
        run->server,
        "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender' AND "
        "usename = current_user AND query LIKE 'START_REPLICATION%'",
        NULL, &ignored);
    return count != NULL && strcmp(count, "0") != 0;
}

void
check_archiving(CheckRun *run)
{
    if (!run->facts_known)
        return;
    run->receives = is_received(run);
    check_archive_mode(run);
    if (strcmp(run->facts.archive_mode, "off") == 0 && run->receives)
        return;
    if (run->facts.archive_library[0] != '\0')
        check_archive_library(run);
    else
        check_archive_command(run);
}

/* So that there is something to switch away from. The role may lack the right: then WAL that is
 * there serves. */
static bool
write_something(CheckRun *run, CairnError *err)
{
    SCOPED_MEMORY char *lsn = connection_query_text(
        run->server, "SELECT pg_catalog.pg_create_restore_point('pgcairn check')", NULL, err);
    if (lsn == NULL && err->kind == CAIRN_DENIED) {
        cairn_error_clear(err);
        return true;
    }
    return lsn != NULL;
}

/* The segment that the switch completed. (pg_walfile_name answers differently at boundaries since
   17.) */
static bool
switch_segment(CheckRun *run, char name_out[WAL_NAME_SIZE], CairnError *err)
{
    if (!write_something(run, err))
        return false;
    SCOPED_RESULT result = connection_query(
        run->server,
        "SELECT pg_catalog.pg_switch_wal(), pg_catalog.substr("
        "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)",
        NULL, (QueryShape){.columns = 2, .min_rows = 1, .max_rows = 1}, err);
    if (result == NULL)
        return false;
    uint64_t lsn = 0;
    const unsigned long timeline = strtoul(PQgetvalue(result, 0, 1), NULL, 16);
    if (!lsn_parse(PQgetvalue(result, 0, 0), &lsn) || lsn == 0 || timeline == 0 ||
        timeline > UINT32_MAX)
        return cairn_error(err, CAIRN_UNSUPPORTED, "pg_switch_wal: answer not understood");
    wal_segment_name(name_out, (uint32_t)timeline,
                     wal_segment_switched(lsn, run->incarnation.wal_segment_size),
                     run->incarnation.wal_segment_size);
    return true;
}

static int64_t
now_ms(const CheckRun *run)
{
    const Clock *clock = run->options->world->clock;
    return clock->monotonic_ns(clock) / 1000000;
}

/* *waited_ms_out -1: it did not come in time. */
static bool
wait_for_segment(CheckRun *run, const char *name, int64_t *waited_ms_out, CairnError *err)
{
    const Clock *clock = run->options->world->clock;
    SCOPED(WalStore)
    store = wal_store_open(run->repository, run->options->cluster->name, &run->incarnation, err);
    if (store == NULL)
        return false;
    const int64_t start_ms = now_ms(run);
    for (;;) {
        bool present = false;
        if (!cancel_check(err) || !wal_store_has(store, name, &present, err))
            return false;
        const int64_t waited_ms = now_ms(run) - start_ms;
        if (present || waited_ms >= (int64_t)run->options->timeout_s * 1000) {
            *waited_ms_out = present ? waited_ms : -1;
            return true;
        }
        clock->sleep_ms(clock, ARRIVAL_POLL_MS);
    }
}

/* What the archiver says about it, for whoever has to find out. */
static void
add_not_arrived(CheckRun *run, const char *name)
{
    CairnError err = {0};
    SCOPED_RESULT result = connection_query(
        run->server,
        "SELECT failed_count, last_failed_wal, last_failed_time FROM pg_catalog.pg_stat_archiver"
        " WHERE last_failed_time IS NOT NULL"
        " AND last_failed_time >= COALESCE(last_archived_time, last_failed_time)",
        NULL, (QueryShape){.columns = 3, .max_rows = 1}, &err);
    if (result != NULL && PQntuples(result) == 1) {
        check_add(run, "wal-arrival", CHECK_FAILED,
                  "segment %s did not arrive in %d s; the archiver failed %s times, last on %s at "
                  "%s: the "
                  "server log says why",
                  name, run->options->timeout_s, PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1),
                  PQgetvalue(result, 0, 2));
    } else {
        check_add(run, "wal-arrival", CHECK_FAILED,
                  "segment %s did not arrive in %d s; does the archiver use this repository and "
                  "cluster? The server log has its messages",
                  name, run->options->timeout_s);
    }
}

void
check_wal_arrival(CheckRun *run)
{
    CairnError err = {0};
    const char *step = "wal-arrival";
    if (!run->incarnation_known || run->options->no_switch)
        return;
    if (run->facts.in_recovery) {
        check_add(run, step, CHECK_WARNING,
                  "a standby cannot switch WAL; run check against its primary as well");
        return;
    }
    if (!archives(&run->facts) && !run->receives) {
        check_add(run, step, CHECK_FAILED, "archive_mode is %s", run->facts.archive_mode);
        return;
    }
    if (!run->facts.may_switch_wal) {
        check_add(run, step, CHECK_WARNING, "the role lacks EXECUTE on pg_switch_wal");
        return;
    }
    char name[WAL_NAME_SIZE];
    int64_t waited_ms = 0;
    if (!switch_segment(run, name, &err) || !wait_for_segment(run, name, &waited_ms, &err))
        check_add_error(run, step, CHECK_FAILED, &err);
    else if (waited_ms < 0)
        add_not_arrived(run, name);
    else
        check_add(run, step, CHECK_OK, "%s in %.1f s", name, (double)waited_ms / 1000);
}

/* Of this host alone: the server's, where check runs beside it. */
void
check_overflow(CheckRun *run)
{
    const CheckOptions *options = run->options;
    const char *name = "overflow";
    CairnError err = {0};
    char since[TIMESTAMP_TEXT_SIZE];
    WalOverflowList list;
    WalOverflowOthers others;

    if (options->overflow_path == NULL || !run->facts_known)
        return;
    const WalOverflowPlace place = {.path = options->overflow_path,
                                    .repository = options->repository,
                                    .cluster = options->cluster->name,
                                    .system_id = run->facts.system_id,
                                    .major = run->facts.major};
    list.queue.total = 0;
    SCOPED(WalOverflow) overflow = wal_overflow_open(options->world, &place, false, &err);
    if (overflow == NULL && err.kind == CAIRN_NOT_FOUND)
        cairn_error_clear(&err); /* nothing was ever put there */
    if (err.kind != CAIRN_OK || (overflow != NULL && !wal_overflow_list(overflow, &list, &err)) ||
        !wal_overflow_others(options->world, &place, 1, &others, &err)) {
        check_add_error(run, name, CHECK_FAILED, &err);
        return;
    }
    if (list.queue.total > 0) {
        timestamp_format(since, list.oldest_us);
        check_add(run, name, CHECK_FAILED,
                  "not off this host: %zu files, %" PRIu64
                  " MiB, from %s on, since %s; they are shipped "
                  "when the repository is back, or by `pgcairn wal status --ship`",
                  list.queue.total, list.bytes >> 20, list.queue.names[0], since);
    }
    if (others.unreadable > 0)
        check_add(run, name, CHECK_FAILED, "not known what waits in '%s' of overflow-path: %s",
                  others.unreadable_directory, others.problem.message);
    if (others.files > 0)
        check_add(run, name, CHECK_FAILED,
                  "%zu files wait in other directories, as '%s': %sthe repository had another path "
                  "then, or it was another system; ship them with that path configured",
                  others.files, others.directory,
                  options->other_count > 1 ? "they are for another one of the repositories, or "
                                           : "");
    else if (list.queue.total == 0 && others.unreadable == 0)
        check_add(run, name, CHECK_OK, "empty");
}
