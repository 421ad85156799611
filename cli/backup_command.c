#include "agent/backup.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/retention_options.h"
#include "cli/session.h"
#include "common/cancel.h"
#include "common/log.h"
#include "common/progress.h"
#include "common/timestamp.h"
#include "postgres/wal_name.h"
#include "repository/collect.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_JOBS = 2, MAX_JOBS = 64, DEFAULT_WAL_TIMEOUT_S = 60 };
enum { MIN_RATE_KB = 32, MAX_RATE_KB = 1048576 };

typedef struct {
    CommonOptions common;
    const char *type;
    const char *label;
    bool start_fast;
    bool no_progress;
    int64_t jobs;
    int64_t wal_timeout;
    uint64_t max_rate;
    uint64_t max_memory;
    const char *retention;
    bool expire;
    bool json;
} Arguments;

/* What followed the backup. */
typedef struct {
    RetentionPolicy policy;
    bool tried;
    CairnError err; /* of expiry: the backup stands all the same */
    ExpirePlan *plan;
    ExpireReport report;
} Expiry;

static void
expiry_free(Expiry *expiry)
{
    expire_plan_free(expiry->plan);
}
#define SCOPED_EXPIRY __attribute__((cleanup(expiry_free))) Expiry

static const char *
state_name(BackupOutcome outcome)
{
    static const char *const names[] = {[BACKUP_WAL_COMPLETE] = "wal-complete",
                                        [BACKUP_COPIED] = "copied",
                                        [BACKUP_DAMAGED] = "damaged"};
    return names[outcome];
}

static bool
parse_type(const char *text, BackupType *type_out, CairnError *err)
{
    static const struct {
        const char *name;
        BackupType type;
    } types[] = {
        {"full", BACKUP_TYPE_FULL}, {"incr", BACKUP_TYPE_INCR}, {"diff", BACKUP_TYPE_DIFF}};
    *type_out = BACKUP_TYPE_AUTO;
    for (size_t i = 0; text != NULL && i < sizeof types / sizeof *types; i++) {
        if (strcmp(text, types[i].name) == 0) {
            *type_out = types[i].type;
            return true;
        }
    }
    if (text == NULL)
        return true;
    cairn_error(err, CAIRN_USAGE, "backup type '%s' is unknown", text);
    return cairn_error_hint(err, "use --type=full, incr or diff");
}

static bool
check_arguments(const Arguments *arguments, CairnError *err)
{
    BackupType ignored;
    if (!parse_type(arguments->type, &ignored, err))
        return false;
    if (arguments->jobs < 0 || arguments->jobs > MAX_JOBS)
        return cairn_error(err, CAIRN_USAGE, "--jobs must be between 1 and %d", MAX_JOBS);
    if (arguments->wal_timeout < -1 || arguments->wal_timeout > 86400)
        return cairn_error(err, CAIRN_USAGE, "--wal-timeout must be between 0 and 86400 seconds");
    if (arguments->max_rate != 0 &&
        (arguments->max_rate / 1024 < MIN_RATE_KB || arguments->max_rate / 1024 > MAX_RATE_KB))
        return cairn_error(err, CAIRN_USAGE, "--max-rate must be between 32kB and 1GB a second");
    if (arguments->label != NULL &&
        (strlen(arguments->label) > 512 || strpbrk(arguments->label, "\n\r") != NULL))
        return cairn_error(err, CAIRN_USAGE, "--label takes one line of at most 512 bytes");
    return true;
}

static void
print_locks(const BackupReport *report)
{
    const ObjectLockCounts *locks = &report->locks;
    char until[TIMESTAMP_TEXT_SIZE];
    if (report->lock_days == 0)
        return;
    timestamp_format(until, locks->earliest_us / 1000000 * 1000000);
    printf("  %" PRIu64 " older objects that it needs asked for their lock, %" PRIu64 " renewed",
           object_locks_all(locks), locks->renewed);
    if (object_locks_unproven(locks) > 0)
        printf(", %" PRIu64 " NOT PROVEN to be locked for %d days\n", object_locks_unproven(locks),
               report->lock_days);
    else
        printf("; locked until %s at least\n", until);
}

static json_t *
locks_json(const BackupReport *report)
{
    const ObjectLockCounts *locks = &report->locks;
    if (report->lock_days == 0)
        return json_null();
    return json_pack("{s:i, s:I, s:I, s:I, s:o, s:s?}", "days", report->lock_days, "asked",
                     (json_int_t)object_locks_all(locks), "renewed", (json_int_t)locks->renewed,
                     "unproven", (json_int_t)object_locks_unproven(locks), "earliest_end",
                     locks->earliest_us != 0 ? json_time(locks->earliest_us) : json_null(),
                     "problem", locks->failed > 0 ? locks->failure.message : NULL);
}

/* A page that changed in a region that was refreshed counts as refreshed. */
static uint64_t
changed_units(const BackupCounts *counts)
{
    return counts->stored > counts->refreshed ? counts->stored - counts->refreshed : 0;
}

/* Pages of 8 kB, whatever they hold; those of the cluster's files and of ours alike. */
static void
print_comparison(const BackupReport *report)
{
    const BackupCounts *counts = &report->counts;
    if (report->why_full[0] != '\0')
        printf("  full, because %s\n", report->why_full);
    if (report->parent_label != NULL)
        printf("  compared with %s: %" PRIu64 " pages, %" PRIu64 " changed or new, %" PRIu64
               " refreshed\n",
               report->parent_label, counts->compared, changed_units(counts), counts->refreshed);
    if (counts->salvaged > 0)
        printf("  salvaged %" PRIu64 " pages of an interrupted backup\n", counts->salvaged);
    if (counts->lost > 0)
        printf("  stored anew what %" PRIu64 " missing or damaged packs held\n", counts->lost);
}

static json_t *
expiry_json(const Expiry *expiry)
{
    if (!expiry->tried)
        return json_null();
    if (expiry->err.kind != CAIRN_OK)
        return json_pack("{s:s, s:s}", "error", expiry->err.message, "hint", expiry->err.hint);
    return cli_expire_report_json(expiry->plan, &expiry->report);
}

static void
print_text(const BackupReport *report)
{
    const Fate *fate = report->fate;
    char size[32], stored[32], start[LSN_TEXT_SIZE], stop[LSN_TEXT_SIZE];
    format_bytes(size, fate->size_bytes);
    format_bytes(stored, fate->stored_bytes);
    lsn_format(start, fate->start_lsn);
    lsn_format(stop, fate->stop_lsn);
    printf("backup %s: %s\n", fate->label, state_name(report->outcome));
    print_comparison(report);
    printf("  WAL %s .. %s, timeline %u; %s in %" PRIu64 " files, stored in %s\n", start, stop,
           fate->stop_timeline, size, fate->file_count, stored);
    printf("  copied in %.1f s, waited %.1f s for WAL\n", report->copy_seconds,
           report->wal_wait_seconds);
    print_locks(report);
}

static json_t *
report_json(const BackupReport *report, const Expiry *expiry)
{
    const Fate *fate = report->fate;
    json_t *missing = json_array();
    for (size_t i = 0; i < report->missing_wal_count && i < BACKUP_MISSING_WAL_LISTED; i++)
        json_array_append_new(missing, json_string(report->missing_wal[i]));
    const BackupCounts *counts = &report->counts;
    json_t *comparison = json_pack(
        "{s:s?, s:s?, s:s?, s:I, s:I, s:I, s:I, s:I, s:I}", "parent",
        fate->parent.text[0] != '\0' ? fate->parent.text : NULL, "parent_label",
        report->parent_label, "why_full", report->why_full[0] != '\0' ? report->why_full : NULL,
        "pages_compared", (json_int_t)counts->compared, "pages_changed",
        (json_int_t)changed_units(counts), "pages_refreshed", (json_int_t)counts->refreshed,
        "pages_salvaged", (json_int_t)counts->salvaged, "pages_stored", (json_int_t)counts->stored,
        "packs_lost", (json_int_t)counts->lost);
    json_t *json = json_pack(
        "{s:s, s:s, s:s, s:s, s:o, s:o, s:i, s:o, s:o, s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:I, "
        "s:o, s:o}",
        "label", fate->label, "bid", fate->bid.text, "type", fate->type, "state",
        state_name(report->outcome), "start_lsn", json_lsn(fate->start_lsn), "stop_lsn",
        json_lsn(fate->stop_lsn), "timeline", (int)fate->stop_timeline, "started_at",
        json_time(fate->started_us), "stopped_at", json_time(fate->stopped_us), "size_bytes",
        (json_int_t)fate->size_bytes, "stored_bytes", (json_int_t)fate->stored_bytes, "map_bytes",
        (json_int_t)fate->map_bytes, "file_count", (json_int_t)fate->file_count, "copy_seconds",
        report->copy_seconds, "wal_wait_seconds", report->wal_wait_seconds, "missing_wal", missing,
        "checksum_failure_count", (json_int_t)fate->checksum_failure_count, "locks",
        locks_json(report), "expiry", expiry_json(expiry));
    json_object_update(json, comparison);
    json_decref(comparison);
    return json;
}

/* Committed, but not good: says why, and the exit code follows from it. */
static bool
judge(const BackupReport *report, CairnError *err)
{
    const Fate *fate = report->fate;
    if (report->outcome == BACKUP_DAMAGED) {
        cairn_error(err, CAIRN_CORRUPT,
                    "backup %s is damaged: %" PRIu64 " pages of the server failed their checksum",
                    fate->label, fate->checksum_failure_count);
        for (size_t i = 0; i < fate->checksum_failures_listed && i < 10; i++) {
            size_t used = strlen(err->message);
            snprintf(err->message + used, sizeof err->message - used, "%s %s block %" PRIu64,
                     i == 0 ? ":" : ",", fate->checksum_failures[i].path,
                     fate->checksum_failures[i].block);
        }
        return cairn_error_hint(
            err,
            "the damage is on the server; `pgcairn info --set %s` lists all of it, older "
            "backups may hold good pages",
            fate->label);
    }
    if (report->outcome == BACKUP_COPIED) {
        cairn_error(err, CAIRN_UNAVAILABLE,
                    "backup %s is copied but not restorable yet: %zu WAL files are missing, the "
                    "first is %s",
                    fate->label, report->missing_wal_count, report->missing_wal[0]);
        if (fate->from_standby)
            return cairn_error_hint(
                err, "a standby cannot end a segment: SELECT pg_switch_wal() on the primary, or "
                     "archive_timeout there, sends it; then `pgcairn info` shows the backup as "
                     "wal-complete");
        return cairn_error_hint(
            err, "repair archiving (`pgcairn check`); once the WAL arrives, `pgcairn info` shows "
                 "the backup as wal-complete");
    }
    return true;
}

/* It can be restored, and what it needs could be deleted earlier than the configuration promises.
 */
static bool
judge_locks(const BackupReport *report, CairnError *err)
{
    const ObjectLockCounts *locks = &report->locks;
    if (report->lock_days == 0 || object_locks_unproven(locks) == 0)
        return true;
    cairn_error(err, locks->failed > 0 ? locks->failure.kind : CAIRN_NOT_FOUND,
                "backup %s is made, but %" PRIu64
                " older objects that it needs are not proven to stay locked for %d days: %.1500s",
                report->fate->label, object_locks_unproven(locks), report->lock_days,
                locks->failed > 0 ? locks->failure.message : "they are not there");
    if (err->kind == CAIRN_MISMATCH) /* no right helps */
        return cairn_error_hint(err, "%s", locks->failure.hint);
    return cairn_error_hint(
        err, "give this host s3:GetObjectRetention and s3:PutObjectRetention, or run `pgcairn repo "
             "renew` on the host that collects, or take a full backup (docs/object-stores.md)");
}

static int
exit_code(const BackupReport *report)
{
    CairnError ignored = {0};
    if (report->outcome == BACKUP_DAMAGED)
        return cairn_error_exit_code(CAIRN_CORRUPT);
    if (report->outcome == BACKUP_COPIED)
        return cancel_requested() ? cairn_error_exit_code(CAIRN_CANCELLED) : 1;
    return judge_locks(report, &ignored) ? 0 : cairn_error_exit_code(ignored.kind);
}

/* After a good backup, where a policy is configured. What fails here fails alone: the backup is
 * made, and the next run expires as well. */
static void
expire_after(Repository *repository, const char *cluster, Expiry *expiry)
{
    expiry->tried = true;
    expiry->plan = expire_plan(repository, cluster, &expiry->policy, 0, &expiry->err);
    if (expiry->plan == NULL ||
        !expire_run(repository, expiry->plan, &expiry->report, &expiry->err))
        cairn_error_wrap(&expiry->err, "the backup is made, but expiring old ones failed");
    if (expiry->plan == NULL)
        return;
    const InfoCluster *read = &expiry->plan->info->clusters[0];
    incarnation_warn(&read->unread_incarnations);
    if (read->history_warning != NULL)
        log_warn("%s", read->history_warning);
}

/*
 * Where no policy is configured nothing expires, but what attempts that failed left behind is
 * nobody's any more once there is a backup after them, and would lie there for ever.
 */
static void
collect_after(Repository *repository, const char *cluster)
{
    CairnError err = {0};
    CollectReport report;
    const CollectOptions options = {.cluster = cluster, .grace_s = -1, .keep_wal = true};
    if (collect_run(repository, &options, &report, &err)) {
        incarnation_warn(&report.unread_incarnations);
    } else {
        cairn_error_wrap(&err, "the backup is made, but remains of failed ones were not collected");
        log_warn("%s", err.message);
    }
}

static BackupReport *
run(const World *world, const CliSession *session, const Arguments *arguments, Expiry *expiry,
    CairnError *err)
{
    /* The policy first: better no backup begun than one whose end is a typo. */
    if (!cli_retention_policy(arguments->retention, session, &expiry->policy, err))
        return NULL;
    const GlobalConfig *global = session->global;
    SCOPED(Repository) repository = repository_open(world, session->repository, err);
    if (repository == NULL)
        return NULL;

    int jobs = arguments->jobs > 0 ? (int)arguments->jobs
               : global->jobs > 0  ? global->jobs
                                   : DEFAULT_JOBS;
    int wal_timeout_s = arguments->wal_timeout >= 0  ? (int)arguments->wal_timeout
                        : global->wal_timeout_s >= 0 ? global->wal_timeout_s
                                                     : DEFAULT_WAL_TIMEOUT_S;
    BackupType type;
    if (!parse_type(arguments->type, &type, err))
        return NULL;
    BackupOptions options = {
        .cluster = session->cluster,
        .type = type,
        .refresh_percent = global->refresh_percent >= 0 ? (unsigned)global->refresh_percent
                                                        : BACKUP_REFRESH_PERCENT,
        .name = arguments->label,
        .fast_checkpoint = arguments->start_fast,
        .show_progress =
            !arguments->no_progress && (isatty(STDERR_FILENO) || log_level() >= LOG_LEVEL_INFO),
        .jobs = jobs,
        .max_rate_kb = (uint32_t)(arguments->max_rate / 1024),
        .max_memory_bytes =
            arguments->max_memory != 0 ? arguments->max_memory : global->max_memory_bytes,
        .wal_timeout_s = wal_timeout_s,
        .server_timeout_s =
            global->server_timeout_s > 0 ? global->server_timeout_s : SERVER_TIMEOUT_S,
    };
    BackupReport *report = backup_run(repository, &options, err);
    /* Where this host may only add, both are the repository host's. */
    if (report != NULL && report->outcome == BACKUP_WAL_COMPLETE && arguments->expire &&
        !cancel_requested() && !storage_is_create_only(repository_storage(repository))) {
        if (expiry->policy.count > 0)
            expire_after(repository, session->cluster->name, expiry);
        else
            collect_after(repository, session->cluster->name);
    }
    return report;
}

static void
print_expiry(const Expiry *expiry)
{
    if (!expiry->tried || expiry->err.kind != CAIRN_OK)
        return;
    CairnError err = {0};
    SCOPED_BYTES ByteWriter text = {0};
    cli_expire_report_text(expiry->plan, &expiry->report, &text);
    if (!cli_print_text(&text, &err))
        log_error(&err);
}

/* One backup after the other where there are several repositories: each is a stream of its own,
 * with a parent and a label of its own. */
static bool
backup_in(const World *world, CliSession *session, void *context, int *code_out, CairnError *err)
{
    const Arguments *arguments = context;
    SCOPED_EXPIRY expiry = {0};
    SCOPED(BackupReport) report = run(world, session, arguments, &expiry, err);
    if (report == NULL)
        return false;
    if (arguments->json) {
        if (!cli_print_json(report_json(report, &expiry), err))
            return false;
    } else {
        print_text(report);
        print_expiry(&expiry);
    }
    if (expiry.err.kind != CAIRN_OK)
        log_error(&expiry.err);
    CairnError verdict = {0};
    if (!judge(report, &verdict))
        log_error(&verdict);
    cairn_error_clear(&verdict);
    if (!judge_locks(report, &verdict))
        log_error(&verdict);
    *code_out = exit_code(report);
    return true;
}

int
command_backup(const World *world, int argc, char **argv)
{
    Arguments arguments = {.wal_timeout = -1, .expire = true};
    const Option options[] = {
        {"type", 0, OPTION_TEXT, &arguments.type, "TYPE",
         "incr (default where there is a backup), diff (against the newest full one), full"},
        {"label", 0, OPTION_TEXT, &arguments.label, "TEXT",
         "a name of your own, kept with the backup"},
        {"start-fast", 0, OPTION_FLAG, &arguments.start_fast, NULL,
         "ask the server for a checkpoint at once"},
        {"jobs", 'j', OPTION_INTEGER, &arguments.jobs, "N", "workers that compress (default 2)"},
        {"max-rate", 0, OPTION_SIZE, &arguments.max_rate, "SIZE",
         "bytes a second that the server may send"},
        {"max-memory", 0, OPTION_SIZE, &arguments.max_memory, "SIZE",
         "memory that we may use (default 64MiB)"},
        {"wal-timeout", 0, OPTION_INTEGER, &arguments.wal_timeout, "SECONDS",
         "how long to wait for the backup's WAL (default 60)"},
        {"retention", 0, OPTION_TEXT, &arguments.retention, "POLICY",
         "expire by this afterwards, not by the configured one"},
        {"expire", 0, OPTION_FLAG, &arguments.expire, NULL,
         "expire old backups afterwards (default; --no-expire: don't)"},
        {"no-progress", 0, OPTION_FLAG, &arguments.no_progress, NULL, "show no progress"},
        {0},
    };
    const CommandHelp command = {
        .name = "backup",
        .synopsis = "pgcairn backup [options]",
        .summary = "Take a backup of the running server through the replication protocol.",
        .examples = "  pgcairn backup --type=full --start-fast\n"
                    "  pgcairn backup --label 'before the upgrade' --max-rate 50MB\n"
                    "  pgcairn backup --output=json\n",
        .options = options,
    };

    CairnError err = {0};
    int code;
    if (!cli_parse(&command, &arguments.common, argc, argv, NULL, &code))
        return code;
    SCOPED_SESSION session = {0};
    if (!check_arguments(&arguments, &err) ||
        !cli_output_json(&arguments.common, &arguments.json, &err) ||
        !cli_session_open(world, &arguments.common, true, &session, &err))
        return cli_failed(&err);
    return cli_each_repository(world, &session, arguments.json, backup_in, &arguments);
}
