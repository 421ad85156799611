#include "repository/collect.h"

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/session.h"
#include "common/progress.h"
#include "common/timestamp.h"
#include "repository/fate.h"
#include "repository/pin.h"
#include "repository/store_proof.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    CommonOptions common;
    const char *grace;
    const char *revoke;
    const char *drop_pin;
    bool dry_run;
    bool force;
    bool json;
} Arguments;

static const int64_t GRACE_LIMIT_S = INT64_C(3660) * 86400;

/* "90s", "30m", "12h", "2d". */
static bool
parse_grace(const char *text, int64_t *seconds_out, CairnError *err)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    char *end;
    const long long number = strtoll(text, &end, 10);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (*text >= '0' && *text <= '9' && *end == units[i].unit && end[1] == '\0' &&
            number <= GRACE_LIMIT_S / units[i].seconds) {
            *seconds_out = number * units[i].seconds;
            return true;
        }
    }
    cairn_error(err, CAIRN_USAGE, "--grace '%.40s' is no duration", text);
    return cairn_error_hint(err, "use a number and s, m, h or d, such as --grace 24h");
}

/*
 * A shorter grace loses no backup, but it takes time from a restore without a pin, from stale
 * listings of a network file system, and from who expired the wrong one.
 */
static bool
choose_grace(const Arguments *arguments, const Repository *repository, int64_t *grace_s_out,
             CairnError *err)
{
    const int64_t usual_s = collect_default_grace(repository);
    int64_t grace_s = usual_s;
    if (arguments->grace != NULL && !parse_grace(arguments->grace, &grace_s, err))
        return false;
    if (grace_s < usual_s && !arguments->force) {
        cairn_error(err, CAIRN_REFUSED, "a grace below %" PRId64 " h is refused for this storage",
                    usual_s / 3600);
        return cairn_error_hint(
            err, "what was expired can be taken back (`pgcairn expire --undo`) only within the "
                 "grace; --force insists, when no restore of an expired backup is under way");
    }
    *grace_s_out = grace_s;
    return true;
}

/* Safe whoever is right about it: a writer that lives is fenced and fails, and publishes nothing.
 */
static bool
revoke_attempt(const Arguments *arguments, Repository *repository, const char *cluster,
               CairnError *err)
{
    BackupId bid;
    char token[17];
    if (arguments->revoke == NULL)
        return true;
    if (!backup_id_parse(arguments->revoke, &bid))
        return cairn_error(err, CAIRN_USAGE, "--revoke '%.64s' is not the id of an attempt",
                           arguments->revoke);
    if (!random_token(repository_world(repository), token, err))
        return false;
    if (fate_revoke(repository, cluster, &bid, token, "revoked by hand", err))
        return true;
    if (err->kind == CAIRN_CONFLICT)
        cairn_error_hint(err, "it is decided already; `pgcairn info` says how");
    return cairn_error_wrap(err, "unable to revoke %s", bid.text);
}

static json_t *
holders_json(const CollectReport *report)
{
    json_t *array = json_array();
    for (size_t i = 0; i < report->holder_count && i < COLLECT_HOLDERS_LISTED; i++) {
        const CollectHolder *holder = &report->holders[i];
        char since[TIMESTAMP_TEXT_SIZE];
        timestamp_format(since, holder->since_us);
        json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:s}", "kind",
                                               holder->is_pin ? "pin" : "attempt", "name",
                                               holder->name, "host", holder->host, "since", since));
    }
    return array;
}

static json_t *
report_json(const CollectReport *report, const Arguments *arguments)
{
    char until[TIMESTAMP_TEXT_SIZE];
    timestamp_format(until, report->waiting_until_us);
    return json_pack(
        "{s:b, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:b, s:I, s:o, "
        "s:s?}",
        "dry_run", arguments->dry_run, "packs", (json_int_t)report->packs, "map_packs",
        (json_int_t)report->map_packs, "wal_files", (json_int_t)report->wal_files, "bytes",
        (json_int_t)report->bytes, "backups", (json_int_t)report->backups_swept, "waiting",
        report->waiting, "waiting_packs", (json_int_t)report->waiting_packs, "waiting_bytes",
        (json_int_t)report->waiting_bytes, "waiting_backups", (json_int_t)report->waiting_backups,
        "waiting_until", report->waiting ? json_string(until) : json_null(), "given_back",
        (json_int_t)report->given_back, "unexpire_pending", (json_int_t)report->pending, "denied",
        (json_int_t)report->removals.denied, "clock_jumped", report->clock_jumped, "holder_count",
        (json_int_t)report->holder_count, "holders", holders_json(report), "unreadable_record",
        report->unread_incarnations.count > 0 ? report->unread_incarnations.object : NULL);
}

static void
result_text(const CollectReport *report, bool dry_run, ByteWriter *text)
{
    char bytes[32], until[TIMESTAMP_TEXT_SIZE];
    format_bytes(bytes, report->bytes);
    if (report->packs + report->map_packs + report->wal_files + report->backups_swept == 0)
        byte_writer_format(text, "nothing %s deleted", dry_run ? "would be" : "was");
    else
        byte_writer_format(text,
                           "%s %s: %" PRIu64 " packs, %" PRIu64 " map packs, %" PRIu64
                           " WAL files; %zu expired backups and dead attempts are gone",
                           dry_run ? "would delete" : "deleted", bytes, report->packs,
                           report->map_packs, report->wal_files, report->backups_swept);
    if (report->waiting) {
        format_bytes(bytes, report->waiting_bytes);
        timestamp_format(until, report->waiting_until_us);
        byte_writer_format(
            text, "; waiting: %s in %" PRIu64 " packs of %zu, to be deleted by a run after %s",
            bytes, report->waiting_packs, report->waiting_backups, until);
    }
    byte_writer_format(text, "\n");
}

static void
notes_text(const CollectReport *report, ByteWriter *text)
{
    if (report->given_back > 0)
        byte_writer_format(text, "  %zu condemned ones were alive again and stay\n",
                           report->given_back);
    if (report->pending > 0)
        byte_writer_format(
            text,
            "  %zu backups: taking their expiry back did not finish; they stay until "
            "`pgcairn expire` or `expire --undo` settles it\n",
            report->pending);
    if (report->removals.denied > 0)
        byte_writer_format(text,
                           "  %" PRIu64 " objects may not be deleted and stay, first %s: %s\n",
                           report->removals.denied, report->removals.name, report->removals.why);
    if (report->unread_incarnations.count > 0)
        byte_writer_format(text,
                           "  %zu records of systems cannot be read, first %s: %s; WAL of these "
                           "systems stays until the record is back from a copy, or is removed "
                           "because nobody here made it\n",
                           report->unread_incarnations.count, report->unread_incarnations.object,
                           report->unread_incarnations.problem.message);
    if (report->clock_jumped)
        byte_writer_format(text,
                           "  a condemn list is dated in the future: a clock was wrong; what it "
                           "names waits from now on\n");
    for (size_t i = 0; i < report->holder_count && i < COLLECT_HOLDERS_LISTED; i++) {
        const CollectHolder *holder = &report->holders[i];
        char since[TIMESTAMP_TEXT_SIZE];
        timestamp_format(since, holder->since_us);
        if (holder->is_pin)
            byte_writer_format(text, "  kept for a reader on host %s since %s (pin %s)\n",
                               holder->host, since, holder->name);
        else
            byte_writer_format(text, "  kept for the backup under way on host %s since %s (%s)\n",
                               holder->host, since, holder->name);
    }
}

static bool
run(const World *world, CliSession *session, void *context, int *code_out, CairnError *err)
{
    const Arguments *arguments = context;
    CollectReport report;
    SCOPED(Repository) repository = repository_open(world, session->repository, err);
    CollectOptions options = {.dry_run = arguments->dry_run};
    if (repository == NULL || !choose_grace(arguments, repository, &options.grace_s, err))
        return false;
    options.cluster = session->cluster->name;
    if (!arguments->dry_run &&
        (!revoke_attempt(arguments, repository, options.cluster, err) ||
         (arguments->drop_pin != NULL &&
          !pin_judge(repository, options.cluster, arguments->drop_pin, err))))
        return false;
    if (!collect_run(repository, &options, &report, err) ||
        (!arguments->dry_run && !store_proof_sweep(repository, err)))
        return false;
    if (report.unread_incarnations.count > 0)
        *code_out = cairn_error_exit_code(CAIRN_CORRUPT);
    if (arguments->json)
        return cli_print_json(report_json(&report, arguments), err);
    SCOPED_BYTES ByteWriter text = {0};
    result_text(&report, arguments->dry_run, &text);
    notes_text(&report, &text);
    return cli_print_text(&text, err);
}

int
command_collect(const World *world, int argc, char **argv)
{
    Arguments arguments = {0};
    const Option options[] = {
        {"dry-run", 0, OPTION_FLAG, &arguments.dry_run, NULL,
         "say what would be deleted now; write and delete nothing"},
        {"grace", 0, OPTION_TEXT, &arguments.grace, "TIME",
         "between condemning and deleting: 90s, 30m, 12h, 2d (default 1h on a local disk, else "
         "24h)"},
        {"force", 0, OPTION_FLAG, &arguments.force, NULL, "allow a grace below the default"},
        {"revoke", 0, OPTION_TEXT, &arguments.revoke, "ID",
         "first revoke an attempt whose host is gone for good"},
        {"drop-pin", 0, OPTION_TEXT, &arguments.drop_pin, "TOKEN",
         "first watch a reader's pin for 5 minutes, and remove it if it shows no sign of life"},
        {0},
    };
    const CommandHelp command = {
        .name = "collect",
        .synopsis = "pgcairn collect [options]",
        .summary = "Delete packs and WAL that no backup needs any more. Run it regularly: one run "
                   "condemns, a later\none deletes. Safe beside backups, restores and other "
                   "collectors, on any host.",
        .examples = "  pgcairn collect\n"
                    "  pgcairn collect --dry-run --output=json\n"
                    "  pgcairn collect --grace 24h\n"
                    "  pgcairn collect --grace 0s --force    # the disk is full, nothing is to be "
                    "taken back\n",
        .options = options,
    };
    CairnError err = {0};
    int code;
    if (!cli_parse(&command, &arguments.common, argc, argv, NULL, &code))
        return code;
    /* An attempt and a pin are one repository's. */
    SCOPED_SESSION session = {0};
    if (!cli_output_json(&arguments.common, &arguments.json, &err) ||
        !cli_session_open(world, &arguments.common, true, &session, &err) ||
        ((arguments.revoke != NULL || arguments.drop_pin != NULL) &&
         !cli_only_repository(&session, &err)))
        return cli_failed(&err);
    return cli_each_repository(world, &session, arguments.json, run, &arguments);
}
