#include "cli/commands.h"
#include "cli/retention_options.h"
#include "common/log.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    CommonOptions common;
    const char *retention;
    const char *set;
    const char *reason;
    const char *label; /* of --undo */
    OptionList accept;
    unsigned accepted;
    bool plan;
    bool undo;
    bool json;
} Arguments;

/* ---- what it does, each on an open repository ---- */

static bool
show_plan(const ExpirePlan *plan, const Arguments *arguments, CairnError *err)
{
    SCOPED(RetentionForecast) forecast = retention_forecast(&plan->input);
    if (arguments->json)
        return cli_print_json(expire_format_json(plan, forecast), err);
    SCOPED_BYTES ByteWriter text = {0};
    expire_format_text(plan, forecast, &text);
    return cli_print_text(&text, err);
}

static bool
carry_out(Repository *repository, const ExpirePlan *plan, const Arguments *arguments,
          CairnError *err)
{
    ExpireReport report;
    if (!expire_run(repository, plan, &report, err))
        return false;
    if (arguments->json)
        return cli_print_json(cli_expire_report_json(plan, &report), err);
    SCOPED_BYTES ByteWriter text = {0};
    if (plan->policy.count == 0) {
        static const char NONE[] = "no retention policy: nothing is ever deleted\n";
        byte_writer_bytes(&text, NONE, sizeof NONE - 1);
    } else {
        cli_expire_report_text(plan, &report, &text);
    }
    return cli_print_text(&text, err);
}

/* The rest was done as ever; the exit code says that something is wrong. */
static void
tell_unread(const ExpirePlan *plan, int *code_out)
{
    const InfoCluster *cluster = &plan->info->clusters[0];
    incarnation_warn(&cluster->unread_incarnations);
    if (cluster->history_warning != NULL)
        log_warn("%s", cluster->history_warning);
    if (cluster->unread_incarnations.count > 0 || cluster->history_warning != NULL)
        *code_out = cairn_error_exit_code(CAIRN_CORRUPT);
}

static bool
expire_by_hand(Repository *repository, const ExpirePlan *plan, const Arguments *arguments,
               CairnError *err)
{
    const char *reason = arguments->reason != NULL ? arguments->reason : "by hand";
    if (!expire_one(repository, plan, arguments->set, reason, err))
        return false;
    if (arguments->json)
        return cli_print_json(json_pack("{s:s, s:b}", "backup", arguments->set, "expired", true),
                              err);
    printf("backup %s is expired; `pgcairn collect` deletes what nothing else needs, `pgcairn "
           "expire --undo %s` takes it back before that\n",
           arguments->set, arguments->set);
    return true;
}

/* 4 where the plan is frozen, as `expire` itself would answer. */
static bool
run_expire(Repository *repository, const CliSession *session, const Arguments *arguments,
           int *code_out, CairnError *err)
{
    RetentionPolicy policy;
    if (!cli_retention_policy(arguments->retention, session, &policy, err))
        return false;
    SCOPED(ExpirePlan)
    plan = expire_plan(repository, session->cluster->name, &policy, arguments->accepted, err);
    if (plan == NULL)
        return false;
    tell_unread(plan, code_out);
    if (arguments->set != NULL)
        return expire_by_hand(repository, plan, arguments, err);
    if (!arguments->plan)
        return carry_out(repository, plan, arguments, err);
    if (plan->plan->frozen && policy.count > 0)
        *code_out = cairn_error_exit_code(CAIRN_REFUSED);
    return show_plan(plan, arguments, err);
}

static bool
run_undo(Repository *repository, const CliSession *session, const Arguments *arguments,
         CairnError *err)
{
    ExpireUndoReport report;
    const char *reason = arguments->reason != NULL ? arguments->reason : "undone by hand";
    if (!expire_undo(repository, session->cluster->name, arguments->label, reason, &report, err))
        return false;
    if (arguments->json)
        return cli_print_json(json_pack("{s:I, s:I}", "undone_count",
                                        (json_int_t)report.undone_count, "gone_count",
                                        (json_int_t)report.gone_count),
                              err);
    printf("%zu backup%s back", report.undone_count, report.undone_count == 1 ? " is" : "s are");
    if (report.gone_count > 0)
        printf("; of %zu the deletion has begun, they stay expired", report.gone_count);
    printf("\n");
    if (report.undone_count > 0)
        printf(
            "the next expire decides anew: `pgcairn keep LABEL` holds one, or change the policy\n");
    return true;
}

static bool
run(const World *world, CliSession *session, void *context, int *code_out, CairnError *err)
{
    const Arguments *arguments = context;
    SCOPED(Repository) repository = repository_open(world, session->repository, err);
    if (repository == NULL)
        return false;
    return arguments->undo ? run_undo(repository, session, arguments, err)
                           : run_expire(repository, session, arguments, code_out, err);
}

/* A label is one repository's: each makes its own backups. */
static bool
open_session(const World *world, const Arguments *arguments, CliSession *session, CairnError *err)
{
    return cli_session_open(world, &arguments->common, true, session, err) &&
           ((arguments->set == NULL && arguments->label == NULL) ||
            cli_only_repository(session, err));
}

static bool
check_arguments(Arguments *arguments, CairnError *err)
{
    if ((arguments->plan ? 1 : 0) + (arguments->undo ? 1 : 0) + (arguments->set != NULL ? 1 : 0) >
        1)
        return cairn_error(err, CAIRN_USAGE, "give one of --plan, --set and --undo");
    if (arguments->label != NULL && !arguments->undo) {
        cairn_error(err, CAIRN_USAGE, "expire: unexpected argument '%s'", arguments->label);
        return cairn_error_hint(err, "one backup by hand: --set %s", arguments->label);
    }
    return cli_retention_accepted(&arguments->accept, &arguments->accepted, err) &&
           cli_output_json(&arguments->common, &arguments->json, err);
}

int
command_expire(const World *world, int argc, char **argv)
{
    Arguments arguments = {0};
    const Option options[] = {
        {"plan", 0, OPTION_FLAG, &arguments.plan, NULL,
         "show what would go, which moments would be lost, and a year ahead"},
        {"dry-run", 0, OPTION_FLAG, &arguments.plan, NULL, NULL},
        {"set", 0, OPTION_TEXT, &arguments.set, "LABEL", "expire this one, whatever the policy"},
        {"undo", 0, OPTION_FLAG, &arguments.undo, NULL,
         "bring back LABEL, or all whose deletion has not begun"},
        {"retention", 0, OPTION_TEXT, &arguments.retention, "POLICY",
         "instead of the configured one"},
        {"accept", 0, OPTION_LIST, &arguments.accept, "ODDITY",
         "go on in spite of: clock, order, incarnation, size, rate, fates, count"},
        {"reason", 0, OPTION_TEXT, &arguments.reason, "TEXT", "kept with --set and --undo"},
        {0},
    };
    const CommandHelp command = {
        .name = "expire",
        .synopsis = "pgcairn expire [--plan | --set LABEL | --undo [LABEL]] [options]",
        .summary = "Let go of backups that the retention policy does not keep.",
        .examples = "  pgcairn expire --plan\n"
                    "  pgcairn expire --plan --retention 'pitr 14d; daily 30; min 2'\n"
                    "  pgcairn expire\n"
                    "  pgcairn expire --undo\n",
        .options = options,
    };
    CairnError err = {0};
    int code;
    if (!cli_parse(&command, &arguments.common, argc, argv, &arguments.label, &code))
        return code;
    SCOPED_SESSION session = {0};
    if (!check_arguments(&arguments, &err) || !open_session(world, &arguments, &session, &err))
        return cli_failed(&err);
    return cli_each_repository(world, &session, arguments.json, run, &arguments);
}
