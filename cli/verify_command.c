#include "cli/commands.h"
#include "cli/options.h"
#include "cli/session.h"
#include "common/log.h"
#include "common/timestamp.h"
#include "postgres/wal_name.h"
#include "repository/json.h"
#include "repository/verify.h"
#include "repository/wal_ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    CommonOptions common;
    const char *set;
    const char *sample;
    bool quick;
    bool reindex;
    bool no_progress;
    bool json;
    int64_t jobs;
    uint64_t max_memory;
} Arguments;

static const char *const kind_names[] = {[FINDING_MISSING] = "missing",
                                         [FINDING_DAMAGED] = "damaged",
                                         [FINDING_UNREACHABLE] = "unreachable"};

static json_t *
time_or_null(int64_t time_us)
{
    return time_us != 0 ? json_time(time_us) : json_null();
}

static json_t *
moments_json(const VerifyMoments *moments)
{
    if (moments == NULL)
        return json_null();
    const bool again = moments->reachable_again;
    return json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:s}", "timeline",
                     (json_int_t)moments->timeline, "from_lsn", json_lsn(moments->from_lsn), "from",
                     time_or_null(moments->from_us), "to_lsn",
                     again ? json_lsn(moments->to_lsn) : json_null(), "to",
                     again ? time_or_null(moments->to_us) : json_null(), "next_backup",
                     again ? json_string(moments->next) : json_null(), "backups", moments->backups);
}

static json_t *
finding_json(const VerifyFinding *finding)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "problem", kind_names[finding->kind],
                     "object", finding->object, "text", finding->text, "backups", finding->backups,
                     "files", finding->files, "moments", moments_json(finding->moments));
}

static json_t *
report_json(const VerifyReport *report)
{
    json_t *findings = json_array();
    json_t *damaged = json_array();
    for (size_t i = 0; i < report->listed; i++)
        json_array_append_new(findings, finding_json(&report->findings[i]));
    for (size_t i = 0; i < report->damaged_backup_count; i++)
        json_array_append_new(damaged, json_string(report->damaged_backups[i]));
    return json_pack(
        "{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:o}", "scope", report->scope,
        "scrub_only", report->scrub_only, "objects", (json_int_t)report->object_count, "bytes",
        (json_int_t)report->byte_count, "wal_files", (json_int_t)report->wal_file_count, "backups",
        (json_int_t)report->backup_count, "good_backups", (json_int_t)report->good_backup_count,
        "damaged_backups", damaged, "finding_count", (json_int_t)report->finding_count, "missing",
        (json_int_t)report->counts[FINDING_MISSING], "damaged",
        (json_int_t)report->counts[FINDING_DAMAGED], "unreachable",
        (json_int_t)report->counts[FINDING_UNREACHABLE], "findings", findings);
}

/* "0/5000000 (2026-11-22 23:31:40+00)" */
static void
append_position(ByteWriter *text, uint64_t lsn, int64_t time_us)
{
    char lsn_text[LSN_TEXT_SIZE], time_text[TIMESTAMP_TEXT_SIZE];
    lsn_format(lsn_text, lsn);
    timestamp_format(time_text, time_us);
    if (time_us != 0)
        byte_writer_format(text, "%s (%s)", lsn_text, time_text);
    else
        byte_writer_format(text, "%s", lsn_text);
}

static void
append_moments(ByteWriter *text, const VerifyMoments *moments)
{
    byte_writer_format(text, "  recovery from %s on timeline %" PRIu32 " ends at ",
                       moments->backups, moments->timeline);
    append_position(text, moments->from_lsn, moments->from_us);
    if (moments->reachable_again) {
        byte_writer_format(text, "; moments are reachable again from ");
        append_position(text, moments->to_lsn, moments->to_us);
        byte_writer_format(text, ", the end of backup %s\n", moments->next);
    } else {
        byte_writer_format(text,
                           "; no moment after it can be reached until there is a new backup\n");
    }
}

static void
report_text(const VerifyReport *report, ByteWriter *text)
{
    for (size_t i = 0; i < report->listed; i++) {
        const VerifyFinding *finding = &report->findings[i];
        byte_writer_format(text, "%s: %s: %s\n", kind_names[finding->kind], finding->object,
                           finding->text);
        if (finding->backups[0] != '\0')
            byte_writer_format(text, "  touches backup %s\n", finding->backups);
        if (finding->files[0] != '\0')
            byte_writer_format(text, "  touches %s\n", finding->files);
        if (finding->moments != NULL)
            append_moments(text, finding->moments);
    }
    char bytes[32];
    format_bytes(bytes, report->byte_count);
    byte_writer_format(text,
                       "%s (%s) %" PRIu64
                       " objects, %s: %zu of %zu backups good, %zu WAL files, %" PRIu64
                       " findings\n",
                       report->scrub_only ? "scrubbed" : "verified", report->scope,
                       report->object_count, bytes, report->good_backup_count, report->backup_count,
                       report->wal_file_count, report->finding_count);
    if (report->scrub_only)
        byte_writer_format(text,
                           "pages and WAL are sealed: only who has the private key can read them, "
                           "and `pgcairn verify` there proves more than their checksums\n");
}

/* Whether this bucket keeps versions is not asked: the command that is named says so. */
static void
versions_text(const RepositoryConfig *repository, ByteWriter *text)
{
    if (repository->type != NULL && strcmp(repository->type, "s3") == 0)
        byte_writer_format(text, "if the bucket keeps versions, `pgcairn repo heal --versions` "
                                 "brings back what was deleted or overwritten there\n");
}

/* Damage outweighs what could not be reached. */
static int
exit_code(const VerifyReport *report)
{
    if (report->counts[FINDING_MISSING] + report->counts[FINDING_DAMAGED] > 0)
        return cairn_error_exit_code(CAIRN_CORRUPT);
    return report->counts[FINDING_UNREACHABLE] > 0 ? cairn_error_exit_code(CAIRN_UNAVAILABLE) : 0;
}

/* "1/7": one slice of seven. */
static bool
choose_scope(const Arguments *arguments, VerifyOptions *options, CairnError *err)
{
    options->scope = arguments->quick ? VERIFY_QUICK : VERIFY_FULL;
    if (arguments->sample == NULL)
        return true;
    char canonical[32];
    if (arguments->quick)
        return cairn_error(err, CAIRN_USAGE, "--quick and --sample exclude each other");
    if (sscanf(arguments->sample, "1/%" SCNu32, &options->slices) == 1) {
        snprintf(canonical, sizeof canonical, "1/%" PRIu32, options->slices);
        options->scope = VERIFY_SAMPLE;
    }
    if (options->scope != VERIFY_SAMPLE || strcmp(canonical, arguments->sample) != 0) {
        cairn_error(err, CAIRN_USAGE, "'%s' is no sample", arguments->sample);
        return cairn_error_hint(err, "write --sample=1/7 to read everything within seven runs");
    }
    return true;
}

static bool
print_reindexed(const WalReindexReport *report, bool as_json, CairnError *err)
{
    const WalLedgerCounts *segments = &report->segments;
    if (as_json) {
        return cli_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "scope", "reindex",
                                        "logs", (json_int_t)report->log_count, "written",
                                        (json_int_t)report->written_count, "segments_stored",
                                        (json_int_t)segments->stored, "segments_decoded",
                                        (json_int_t)segments->decoded, "segments_unreadable",
                                        (json_int_t)segments->unreadable, "segments_incomplete",
                                        (json_int_t)segments->incomplete),
                              err);
    }
    SCOPED_BYTES ByteWriter text = {0};
    byte_writer_format(&text,
                       "recovery index: %zu log files, %zu of them written anew, from %" PRIu64
                       " segments (%" PRIu64 " had to be decoded, %" PRIu64 " could not be read)\n",
                       report->log_count, report->written_count,
                       segments->stored + segments->decoded + segments->unreadable,
                       segments->decoded, segments->unreadable);
    return cli_print_text(&text, err);
}

/* Of all systems that the cluster has been. */
static bool
reindex(Repository *repository, const char *cluster, bool as_json, CairnError *err)
{
    WalReindexReport sum = {0};
    IncarnationTrouble trouble;
    size_t count = 0;
    SCOPED_MEMORY Incarnation *incarnations = calloc(INCARNATION_LIMIT, sizeof *incarnations);
    if (incarnations == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!incarnation_list(repository, cluster, incarnations, &count, &trouble, err))
        return false;
    incarnation_warn(&trouble);
    for (size_t i = 0; i < count; i++) {
        SCOPED(WalArchive)
        archive = wal_archive_load(repository, cluster, &incarnations[i], err);
        if (archive == NULL || !wal_ledger_reindex(archive, &sum, err))
            return false;
    }
    return print_reindexed(&sum, as_json, err);
}

static bool
run(const World *world, CliSession *session, void *context, int *code_out, CairnError *err)
{
    const Arguments *arguments = context;
    VerifyOptions options = {.selector = arguments->set};
    if (!choose_scope(arguments, &options, err))
        return false;
    SCOPED(Repository) repository = repository_open(world, session->repository, err);
    if (repository == NULL)
        return false;
    if (arguments->reindex)
        return reindex(repository, session->cluster->name, arguments->json, err);
    bool show = !arguments->no_progress && isatty(STDERR_FILENO);
    SCOPED(Progress) progress = show ? progress_new(world, "verify", 0) : NULL;
    options.cluster = session->cluster->name;
    options.progress = progress;
    options.jobs = arguments->jobs != 0 ? (int)arguments->jobs : session->global->jobs;
    options.max_memory_bytes =
        arguments->max_memory != 0 ? arguments->max_memory : session->global->max_memory_bytes;
    SCOPED(VerifyReport) report = verify_run(repository, &options, err);
    if (report == NULL)
        return false;
    *code_out = exit_code(report);
    if (arguments->json)
        return cli_print_json(report_json(report), err);
    SCOPED_BYTES ByteWriter text = {0};
    report_text(report, &text);
    if (report->counts[FINDING_MISSING] + report->counts[FINDING_DAMAGED] > 0)
        versions_text(session->repository, &text);
    return cli_print_text(&text, err);
}

int
command_verify(const World *world, int argc, char **argv)
{
    Arguments arguments = {0};
    const Option options[] = {
        {"set", 0, OPTION_TEXT, &arguments.set, "LABEL",
         "only this backup and the WAL that it needs"},
        {"quick", 0, OPTION_FLAG, &arguments.quick, NULL,
         "presence, headers, trailers; no content is read"},
        {"sample", 0, OPTION_TEXT, &arguments.sample, "1/N",
         "read one slice of N, the one whose turn it is: N runs read everything"},
        {"reindex", 0, OPTION_FLAG, &arguments.reindex, NULL,
         "verify nothing: make the recovery index anew, which `targets` is faster with"},
        {"jobs", 'j', OPTION_INTEGER, &arguments.jobs, "N", "threads that read (default 2)"},
        {"max-memory", 0, OPTION_SIZE, &arguments.max_memory, "SIZE",
         "memory that we may use; fewer threads where it is short"},
        {"no-progress", 0, OPTION_FLAG, &arguments.no_progress, NULL, "show no progress"},
        {0},
    };
    const CommandHelp command = {
        .name = "verify",
        .synopsis = "pgcairn verify [options]",
        .summary = "Prove by reading that everything stored is there and undamaged.",
        .examples = "  pgcairn verify\n"
                    "  pgcairn verify --quick\n"
                    "  pgcairn verify --sample=1/7\n"
                    "  pgcairn verify --set latest --output=json\n"
                    "  pgcairn verify --reindex\n",
        .options = options,
    };
    CairnError err = {0};
    int code;
    if (!cli_parse(&command, &arguments.common, argc, argv, NULL, &code))
        return code;
    if (arguments.jobs < 0 || arguments.jobs > VERIFY_JOBS_LIMIT) {
        cairn_error(&err, CAIRN_USAGE, "--jobs must be between 1 and %d", VERIFY_JOBS_LIMIT);
        return cli_failed(&err);
    }
    SCOPED_SESSION session = {0};
    if (!cli_output_json(&arguments.common, &arguments.json, &err) ||
        !cli_session_open(world, &arguments.common, true, &session, &err) ||
        (arguments.set != NULL && strcmp(arguments.set, "latest") != 0 &&
         !cli_only_repository(&session, &err)))
        return cli_failed(&err);
    return cli_each_repository(world, &session, arguments.json, run, &arguments);
}
