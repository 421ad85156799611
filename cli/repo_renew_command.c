/* repo renew: what kept backups need stays locked. For the host that is trusted with that. */
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/session.h"
#include "common/cancel.h"
#include "common/log.h"
#include "common/timestamp.h"
#include "repository/json.h"
#include "repository/renew.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    CommonOptions common;
    int64_t jobs;
    bool dry_run;
    bool json;
} Arguments;

/* That are there. */
static uint64_t
unproven(const RenewReport *report)
{
    return report->locks.failed + report->locks.unasked;
}

static json_t *
report_json(const RenewReport *report, const StorageLockTerms *terms, bool dry_run)
{
    const ObjectLockCounts *locks = &report->locks;
    return json_pack("{s:b, s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:s?, s:s?, s:s?}",
                     "dry_run", dry_run, "mode", terms->mode, "days", terms->days, "refresh_days",
                     terms->refresh_days, "backups", (json_int_t)report->backups,
                     "unreadable_backups", (json_int_t)report->unreadable, "objects",
                     (json_int_t)object_locks_all(locks), "renewed", (json_int_t)locks->renewed,
                     "unproven", (json_int_t)unproven(report), "missing",
                     (json_int_t)locks->missing, "earliest_end",
                     locks->earliest_us != 0 ? json_time(locks->earliest_us) : json_null(),
                     "earliest_object", locks->asked > 0 ? locks->earliest : NULL, "problem",
                     locks->failed > 0 ? locks->failure.message : NULL, "first_missing",
                     locks->missing > 0 ? locks->first_missing : NULL);
}

static bool
print_report(const RenewReport *report, const StorageLockTerms *terms, bool dry_run,
             CairnError *err)
{
    const ObjectLockCounts *locks = &report->locks;
    char until[TIMESTAMP_TEXT_SIZE] = "never began";
    SCOPED_BYTES ByteWriter text = {0};
    if (locks->earliest_us != 0)
        timestamp_format(until, locks->earliest_us / 1000000 * 1000000);
    byte_writer_format(&text,
                       "%s %" PRIu64 " locks (%s, fewer than %d days left) of %" PRIu64
                       " objects that %" PRIu64 " kept backups need\n",
                       dry_run ? "would renew" : "renewed", locks->renewed, terms->mode,
                       terms->days, object_locks_all(locks), report->backups);
    if (locks->asked > 0)
        byte_writer_format(&text, "the earliest end of a lock is%s %s, of %s\n",
                           dry_run ? " now" : "", until, locks->earliest);
    return cli_print_text(&text, err);
}

/* What the report cannot say in a line: why some of it is not as it should be. The worst is the
   last, and its exit code the command's. */
static int
judge(const RenewReport *report, bool dry_run)
{
    const ObjectLockCounts *locks = &report->locks;
    CairnError err = {0};
    int code = 0;
    if (unproven(report) > 0) {
        cairn_error(&err, locks->failure.kind,
                    "%" PRIu64 " objects are not proven to be locked%s, the first: %.1600s",
                    unproven(report), dry_run ? "" : " long enough", locks->failure.message);
        cairn_error_hint(&err, "%s", locks->failure.hint);
        code = cli_failed(&err);
        cairn_error_clear(&err);
    }
    if (report->unreadable > 0) {
        cairn_error(&err, CAIRN_CORRUPT,
                    "what %" PRIu64
                    " backups need cannot be read; only their own objects were looked at: %.1600s",
                    report->unreadable, report->problem.message);
        code = cli_failed(&err);
        cairn_error_clear(&err);
    }
    if (locks->missing > 0) {
        cairn_error(&err, CAIRN_CORRUPT,
                    "%" PRIu64 " objects that kept backups need are missing, the first is '%s'",
                    locks->missing, locks->first_missing);
        cairn_error_hint(&err,
                         "`pgcairn verify` says what that touches; `pgcairn repo heal --versions` "
                         "brings back what was deleted in a bucket that keeps versions");
        code = cli_failed(&err);
    }
    return code;
}

static bool
renew_in(const World *world, CliSession *session, void *context, int *code_out, CairnError *err)
{
    const Arguments *arguments = context;
    SCOPED(Repository) repository = repository_open(world, session->repository, err);
    if (repository == NULL)
        return false;
    const StorageLockTerms terms = storage_lock_terms(repository_storage(repository));
    if (terms.mode == NULL && session->repository_count > 1) {
        if (arguments->json)
            return cli_print_json(json_pack("{s:n}", "mode"), err);
        printf("locks nothing\n");
        return true;
    }
    RenewReport report;
    const RenewOptions options = {.cluster = arguments->common.cluster,
                                  .only_ask = arguments->dry_run,
                                  .jobs = (int)arguments->jobs};
    if (!renew_run(repository, &options, &report, err))
        return false;
    if (arguments->json ? !cli_print_json(report_json(&report, &terms, arguments->dry_run), err)
                        : !print_report(&report, &terms, arguments->dry_run, err))
        return false;
    *code_out = judge(&report, arguments->dry_run);
    return true;
}

int
command_repo_renew(const World *world, int argc, char **argv)
{
    Arguments arguments = {0};
    const Option options[] = {
        {"dry-run", 0, OPTION_FLAG, &arguments.dry_run, NULL,
         "only ask: how many would be renewed, and which lock ends first"},
        {"jobs", 'j', OPTION_INTEGER, &arguments.jobs, "N", "objects at a time (default 16)"},
        {0},
    };
    const CommandHelp command = {
        .name = "repo renew",
        .synopsis = "pgcairn repo renew [--dry-run] [options]",
        .summary =
            "Extend the object locks of all that kept backups need (of all clusters, or of "
            "--cluster), and of\nthe stored WAL, so that each lasts for lock-days from now. "
            "For the host that collects, daily:\na database host renews only what its newest "
            "backup refers to.",
        .examples = "  pgcairn repo renew --dry-run\n"
                    "  pgcairn repo renew --repository main --output=json\n",
        .options = options,
    };
    CairnError err = {0};
    int code;
    cancel_install();
    if (!cli_parse(&command, &arguments.common, argc, argv, NULL, &code))
        return code;
    if (arguments.jobs < 0 || arguments.jobs > OBJECT_LOCKS_JOBS_LIMIT) {
        cairn_error(&err, CAIRN_USAGE, "--jobs must be between 1 and %d", OBJECT_LOCKS_JOBS_LIMIT);
        return cli_failed(&err);
    }
    SCOPED_SESSION session = {0};
    if (!cli_output_json(&arguments.common, &arguments.json, &err) ||
        !cli_session_open(world, &arguments.common, false, &session, &err))
        return cli_failed(&err);
    return cli_each_repository(world, &session, arguments.json, renew_in, &arguments);
}
