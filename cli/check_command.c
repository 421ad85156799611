#include "agent/check.h"

#include "cli/commands.h"
#include "cli/session.h"
#include "common/log.h"

#include <stdio.h>
#include <string.h>

/* What a condition is for: `--explain`. */
static const struct {
    const char *name;
    const char *why;
} REASONS[] = {
    {"configuration", "says which server and which repository are meant"},
    {"repository", "backups and WAL go there; its id tells it from an empty mount point"},
    {"encryption",
     "who steals the storage reads what is not encrypted; who loses the key reads nothing"},
    {"key-slots", "one lost key must not be the loss of every backup"},
    {"key-files", "a key that others can read protects nothing"},
    {"key-speed", "a key is opened for each WAL segment that is pushed"},
    {"recipients", "what is sealed can be read by them and by nobody else"},
    {"repository-writable", "a file is begun there and given up again"},
    {"connection", "backup asks the server over SQL what and who it is"},
    {"version", "15 to 18 are supported"},
    {"privileges",
     "REPLICATION takes backups, pg_read_all_settings finds configuration files, EXECUTE "
     "on pg_switch_wal lets this check see WAL arrive; more is not needed"},
    {"replication-connection", "the data comes over it; pg_hba.conf has lines of its own for it"},
    {"identity", "WAL and backups of another server are never taken for this one's"},
    {"wal_level", "minimal leaves out what recovery needs"},
    {"full_page_writes", "without it a backup taken while pages are written may hold torn ones"},
    {"max_wal_senders", "backup takes one of them"},
    {"data_checksums", "with them every page of a backup is proven when it is read"},
    {"tablespaces", "all of them must be in a backup"},
    {"archive_mode", "no point in time can be recovered without archived WAL"},
    {"archive_command", "its exit code is the server's only word that WAL is safe"},
    {"archive_library", "its answer is the server's only word that WAL is safe"},
    {"overflow", "WAL that waits on this host is lost with it"},
    {"batches", "sending what is ready side by side is several times faster after a pause"},
    {"wal-arrival", "a segment is ended on the server and must appear in the repository"},
    {"other-repositories", "WAL that one has and another lacks is a hole in the other's"},
    {"histories",
     "a timeline is restored along its history file, and nothing else says where it began"},
    {"archiving", "what waits in pg_wal is lost with the server's disk, and fills it meanwhile"},
    {"slots", "a replication slot keeps WAL in pg_wal until its consumer has it"},
    {"free-space", "a full repository stops archiving, and then pg_wal fills up"},
    {"backups", "recovery begins with one, and replays all WAL since: older is slower"},
    {"object-lock",
     "what a backup needs must not be deletable before the backup may go, whoever gets the keys"},
    {"retention", "what is kept must fit"},
};

static const char *
reason_of(const char *name)
{
    for (size_t i = 0; i < sizeof REASONS / sizeof REASONS[0]; i++) {
        if (strcmp(REASONS[i].name, name) == 0)
            return REASONS[i].why;
    }
    return NULL;
}

/* context: whether to explain; NULL: no. */
static void
print_result(void *context, const CheckResult *result)
{
    const bool *explain = context;
    const char *why = explain != NULL && *explain ? reason_of(result->name) : NULL;
    if (result->text[0] != '\0')
        printf("%s: %s (%s)\n", result->name, check_status_name(result->status), result->text);
    else
        printf("%s: %s\n", result->name, check_status_name(result->status));
    if (why != NULL)
        printf("  %s\n", why);
    /* Each line as it is known: the last one may take a minute. */
    fflush(stdout);
}

static json_t *
report_json(const char *cluster, const CheckReport *report, bool explain)
{
    json_t *results = json_array();
    for (size_t i = 0; i < report->count; i++) {
        const CheckResult *result = &report->results[i];
        const char *why = explain ? reason_of(result->name) : NULL;
        json_t *item = json_pack("{s:s, s:s, s:s}", "name", result->name, "status",
                                 check_status_name(result->status), "text", result->text);
        if (why != NULL)
            json_object_set_new(item, "why", json_string(why));
        json_array_append_new(results, item);
    }
    return json_pack("{s:s, s:s, s:o}", "cluster", cluster, "status",
                     check_status_name(check_worst(report)), "results", results);
}

/* A configuration that does not load is the first condition, and it fails; as everywhere with the
 * exit code of one who must mend a file, not a server. */
static int
configuration_failed(bool json, CairnError *err)
{
    const int exit_code = cairn_error_exit_code(CAIRN_USAGE);
    char text[CAIRN_ERROR_MESSAGE_SIZE + CAIRN_ERROR_HINT_SIZE + 4];
    snprintf(text, sizeof text, "%s%s%s", err->message, err->hint[0] != '\0' ? "; " : "",
             err->hint);
    const CheckResult result = {"configuration", CHECK_FAILED, text};
    if (!json) {
        print_result(NULL, &result);
        return exit_code;
    }
    CairnError print_err = {0};
    json_t *report = json_pack("{s:n, s:s, s:[{s:s, s:s, s:s}]}", "cluster", "status", "FAILED",
                               "results", "name", result.name, "status", "FAILED", "text", text);
    if (!cli_print_json(report, &print_err))
        return cli_failed(&print_err);
    return exit_code;
}

typedef struct {
    int timeout_s;
    bool no_switch;
    bool explain;
    bool json;
} CheckRequest;

static bool
check_in(const World *world, CliSession *session, void *context, int *code_out, CairnError *err)
{
    CheckRequest *request = context;
    const CheckOptions check = {.world = world,
                                .repository = session->repository,
                                .cluster = session->cluster,
                                .config_file = session->global->file,
                                .timeout_s = request->timeout_s,
                                .no_switch = request->no_switch,
                                .overflow_path = session->global->overflow_path,
                                .spool_path = session->global->spool_path,
                                .others = session->repositories,
                                .other_count = session->repository_count,
                                .report = request->json ? NULL : print_result,
                                .context = &request->explain};
    SCOPED(CheckReport) report = check_run(&check);
    if (request->json &&
        !cli_print_json(report_json(session->cluster->name, report, request->explain), err))
        return false;
    *code_out = check_worst(report) == CHECK_FAILED ? 1 : 0;
    return true;
}

static int
run_check(const World *world, bool explain, int argc, char **argv)
{
    int64_t timeout_s = CHECK_DEFAULT_TIMEOUT_S;
    bool no_switch = false;
    const Option options[] = {
        {"timeout", 0, OPTION_INTEGER, &timeout_s, "SECONDS",
         "how long a switched segment may take to arrive (default 60)"},
        {"no-switch", 0, OPTION_FLAG, &no_switch, NULL,
         "do not switch a WAL segment: arrival stays unproven"},
        {"explain", 0, OPTION_FLAG, &explain, NULL,
         "say what each condition is for (also: doctor)"},
        {NULL, 0, OPTION_FLAG, NULL, NULL, NULL},
    };
    const CommandHelp help = {
        .name = "check",
        .synopsis = "pgcairn check [options]",
        .summary = "Would a backup work, and does WAL arrive? One line a condition",
        .examples = "  pgcairn check\n  pgcairn check --output=json --timeout 120\n"
                    "  pgcairn check --explain\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    int code;
    bool json = false;
    if (!cli_parse(&help, &common, argc, argv, NULL, &code))
        return code;
    if (!cli_output_json(&common, &json, &err))
        return cli_failed(&err);
    if (timeout_s < 0 || timeout_s > 86400) {
        cairn_error(&err, CAIRN_USAGE, "--timeout must be between 0 and 86400");
        return cli_failed(&err);
    }

    SCOPED_SESSION session = {0};
    if (!cli_session_open(world, &common, true, &session, &err))
        return configuration_failed(json, &err);
    CheckRequest request = {
        .timeout_s = (int)timeout_s, .no_switch = no_switch, .explain = explain, .json = json};
    return cli_each_repository(world, &session, json, check_in, &request);
}

int
command_check(const World *world, int argc, char **argv)
{
    return run_check(world, false, argc, argv);
}

int
command_doctor(const World *world, int argc, char **argv)
{
    return run_check(world, true, argc, argv);
}
