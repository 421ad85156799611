/* repo heal --versions: brings back what was deleted or overwritten in a bucket that keeps
 * versions.
 */
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/session.h"
#include "common/cancel.h"
#include "common/timestamp.h"
#include "repository/heal.h"
#include "repository/json.h"
#include "storage/connect.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { OBJECTS_LISTED = 10000 }; /* in JSON: in memory until the end */

typedef struct {
    CommonOptions common;
    const char *since;
    int64_t jobs;
    bool versions;
    bool dry_run;
    bool no_progress;
    bool json;
    int64_t since_us;
    json_t *objects; /* of JSON; NULL for text */
} Arguments;

/* -- arguments */

/* Down to the second, since stores tell no more: what happened in that second happened since. */
static bool
choose_since(Arguments *arguments, const World *world, CairnError *err)
{
    Timestamp time;
    if (arguments->since == NULL) {
        cairn_error(err, CAIRN_USAGE, "repo heal: as it was when? --since TIME");
        return cairn_error_hint(err, "the last moment at which all was well: what was deleted or "
                                     "overwritten since then comes back; --dry-run shows it");
    }
    if (!timestamp_parse(arguments->since, &time, err))
        return false;
    if (!time.has_zone) {
        cairn_error(err, CAIRN_USAGE, "--since '%.60s' has no time zone", arguments->since);
        return cairn_error_hint(err, "as in '2026-11-22 23:31:40+00'");
    }
    arguments->since_us = time.time_us - time.time_us % 1000000;
    if (time.time_us > world->clock->wall_us(world->clock))
        return cairn_error(err, CAIRN_USAGE, "--since '%.60s' is in the future", arguments->since);
    return true;
}

static bool
check_arguments(Arguments *arguments, const World *world, CairnError *err)
{
    if (!arguments->versions) {
        cairn_error(err, CAIRN_USAGE, "repo heal: from what? --versions");
        return cairn_error_hint(err, "pgcairn repo heal --versions --since TIME --dry-run");
    }
    if (arguments->common.cluster != NULL)
        return cairn_error(err, CAIRN_USAGE,
                           "repo heal is about a whole repository, of all its clusters");
    if (arguments->jobs < 0 || arguments->jobs > HEAL_JOBS_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "--jobs must be between 1 and %d", HEAL_JOBS_LIMIT);
    return choose_since(arguments, world, err);
}

/* -- one object */

static const char *
result_name(HealResult result)
{
    switch (result) {
    case HEAL_DONE:
        return "healed";
    case HEAL_NEWER:
        return "newer";
    default:
        return "failed";
    }
}

static bool
keep_object(const Arguments *arguments, const HealItem *item, HealResult result,
            const CairnError *failure, CairnError *err)
{
    if (json_array_size(arguments->objects) == OBJECTS_LISTED)
        return true;
    const char *what =
        result == HEAL_DONE && arguments->dry_run ? "would be healed" : result_name(result);
    json_t *object =
        json_pack("{s:s, s:s, s:o, s:I, s:s, s:s?}", "name", item->name, "how",
                  item->overwritten ? "overwritten" : "hidden", "changed_at",
                  json_time(item->changed_us), "bytes", (json_int_t)item->size_bytes, "result",
                  what, "problem", result == HEAL_FAILED ? failure->message : NULL);
    return json_array_append_new(arguments->objects, object) == 0 ||
           cairn_error(err, CAIRN_INTERNAL, "out of memory");
}

static bool
note_object(void *context, const HealItem *item, HealResult result, const CairnError *failure,
            CairnError *err)
{
    const Arguments *arguments = context;
    char when[TIMESTAMP_TEXT_SIZE], bytes[32];
    SCOPED_BYTES ByteWriter text = {0};
    if (arguments->objects != NULL)
        return keep_object(arguments, item, result, failure, err);
    timestamp_format(when, item->changed_us);
    format_bytes(bytes, item->size_bytes);
    const char *how = item->overwritten ? "overwritten" : "hidden";
    if (result == HEAL_DONE)
        byte_writer_format(&text, "%s %s: %s, %s\n", how, when, item->name, bytes);
    else if (result == HEAL_NEWER)
        byte_writer_format(&text, "%s %s: %s: stays, since it was put down anew and is whole\n",
                           how, when, item->name);
    else
        byte_writer_format(&text, "%s %s: %s: NOT brought back: %s\n", how, when, item->name,
                           failure->message);
    return cli_print_text(&text, err);
}

/* -- all of it */

static void
subjects_text(const HealReport *report, ByteWriter *text)
{
    for (int i = 0; i < HEAL_SUBJECTS; i++) {
        char bytes[32];
        if (report->subjects[i].hidden + report->subjects[i].overwritten == 0)
            continue;
        format_bytes(bytes, report->subjects[i].bytes);
        byte_writer_format(text, "  %s: %" PRIu64 " hidden, %" PRIu64 " overwritten, %s\n",
                           heal_subject_name((HealSubject)i), report->subjects[i].hidden,
                           report->subjects[i].overwritten, bytes);
    }
}

static void
notes_text(const HealReport *report, ByteWriter *text)
{
    const HealCounts *counts = &report->counts;
    if (report->failed > 0)
        byte_writer_format(text, "  %" PRIu64 " could NOT be brought back, see above\n",
                           report->failed);
    if (counts->without_version > 0)
        byte_writer_format(text,
                           "  %" PRIu64 " names were deleted and have no version left: removed for "
                           "good, or never there\n",
                           counts->without_version);
    if (counts->earlier > 0)
        byte_writer_format(text,
                           "  %" PRIu64 " objects were overwritten before that time already: where "
                           "`pgcairn verify` calls them damaged, heal with an earlier --since\n",
                           counts->earlier);
    if (report->newer > 0)
        byte_writer_format(text,
                           "  %" PRIu64 " were put down anew since then and stay: remove those "
                           "that are not yours, and heal again\n",
                           report->newer);
    if (report->subjects[HEAL_KEY].hidden > 0)
        byte_writer_format(text, "  keys are among them: remove again what you removed on purpose "
                                 "since then (`pgcairn key list`)\n");
    if (counts->new_marks > 0)
        byte_writer_format(text,
                           "  %" PRIu64 " marks were put down since then and stay; where they "
                           "expire backups: `pgcairn expire --undo`\n",
                           counts->new_marks);
    if (counts->left_hidden > 0)
        byte_writer_format(text,
                           "  %" PRIu64 " that only collectors and readers of that time needed "
                           "stay hidden\n",
                           counts->left_hidden);
}

static void
report_text(const HealReport *report, const Arguments *arguments, ByteWriter *text)
{
    char bytes[32], first[TIMESTAMP_TEXT_SIZE], last[TIMESTAMP_TEXT_SIZE];
    const uint64_t done = report->hidden + report->overwritten;
    format_bytes(bytes, report->bytes);
    timestamp_format(first, done > 0 ? report->first_us : arguments->since_us);
    timestamp_format(last, report->last_us);
    if (done == 0)
        byte_writer_format(text, "nothing %s brought back of %" PRIu64 " names since %s\n",
                           arguments->dry_run ? "would be" : "was", report->counts.names, first);
    else
        byte_writer_format(text,
                           "%s %" PRIu64 " objects, %s: %" PRIu64 " hidden, %" PRIu64
                           " overwritten, between %s and %s\n",
                           arguments->dry_run ? "would bring back" : "brought back", done, bytes,
                           report->hidden, report->overwritten, first, last);
    subjects_text(report, text);
    notes_text(report, text);
    if (!arguments->dry_run)
        byte_writer_format(text, "now run `pgcairn verify`: it reads everything, and names what is "
                                 "still missing or damaged\n");
}

static json_t *
subjects_json(const HealReport *report)
{
    json_t *subjects = json_object();
    for (int i = 0; i < HEAL_SUBJECTS; i++) {
        if (report->subjects[i].hidden + report->subjects[i].overwritten == 0)
            continue;
        json_object_set_new(subjects, heal_subject_name((HealSubject)i),
                            json_pack("{s:I, s:I, s:I}", "hidden",
                                      (json_int_t)report->subjects[i].hidden, "overwritten",
                                      (json_int_t)report->subjects[i].overwritten, "bytes",
                                      (json_int_t)report->subjects[i].bytes));
    }
    return subjects;
}

static json_t *
report_json(const HealReport *report, const Arguments *arguments)
{
    const HealCounts *counts = &report->counts;
    const bool any = report->hidden + report->overwritten > 0;
    const uint64_t listed = report->hidden + report->overwritten + report->newer + report->failed;
    return json_pack(
        "{s:b, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:O, "
        "s:b}",
        "dry_run", arguments->dry_run, "since", json_time(arguments->since_us), "hidden",
        (json_int_t)report->hidden, "overwritten", (json_int_t)report->overwritten, "bytes",
        (json_int_t)report->bytes, "first_change", any ? json_time(report->first_us) : json_null(),
        "last_change", any ? json_time(report->last_us) : json_null(), "subjects",
        subjects_json(report), "failed", (json_int_t)report->failed, "newer",
        (json_int_t)report->newer, "without_version", (json_int_t)counts->without_version,
        "overwritten_earlier", (json_int_t)counts->earlier, "new_marks",
        (json_int_t)counts->new_marks, "left_hidden", (json_int_t)counts->left_hidden, "names",
        (json_int_t)counts->names, "versions", (json_int_t)counts->versions, "objects",
        arguments->objects, "objects_complete", listed <= OBJECTS_LISTED);
}

static bool
print_report(const HealReport *report, const Arguments *arguments, CairnError *err)
{
    SCOPED_BYTES ByteWriter text = {0};
    if (arguments->json)
        return cli_print_json(report_json(report, arguments), err);
    report_text(report, arguments, &text);
    return cli_print_text(&text, err);
}

/* -- the command */

static bool
heal_repository(const World *world, Arguments *arguments, const RepositoryConfig *repository,
                HealReport *report, CairnError *err)
{
    /* Beside lines on the same terminal a bar would be in the way. */
    const bool show = !arguments->no_progress && isatty(STDERR_FILENO) &&
                      (arguments->json || !isatty(STDOUT_FILENO));
    SCOPED(Storage) storage = storage_connect(world, repository, false, err);
    SCOPED(Progress) progress = show ? progress_new(world, "repo heal", 0) : NULL;
    return storage != NULL &&
           heal_run(&(HealOptions){.storage = storage,
                                   .since_us = arguments->since_us,
                                   .dry_run = arguments->dry_run,
                                   .jobs = arguments->jobs > 0 ? (int)arguments->jobs
                                                               : HEAL_JOBS_DEFAULT,
                                   .note = note_object,
                                   .context = arguments,
                                   .progress = progress},
                    report, err);
}

static bool
run(const World *world, Arguments *arguments, int *code_out, CairnError *err)
{
    HealReport report;
    SCOPED(Config) config = config_load(world, arguments->common.config, err);
    if (config == NULL || !cli_log_level(&arguments->common, config_global(config), err))
        return false;
    const RepositoryConfig *repository =
        config_repository(config, arguments->common.repository, err);
    if (repository == NULL)
        return false;
    if (!heal_repository(world, arguments, repository, &report, err)) {
        if (err->hint[0] == '\0' && !arguments->dry_run)
            cairn_error_hint(err, "what was brought back stays; the same command does the rest");
        return cairn_error_wrap(err, "repository '%s'", repository->name);
    }
    if (report.failed > 0)
        *code_out = cairn_error_exit_code(report.failure.kind);
    return print_report(&report, arguments, err);
}

int
command_repo_heal(const World *world, int argc, char **argv)
{
    Arguments arguments = {0};
    const Option options[] = {
        {"versions", 0, OPTION_FLAG, &arguments.versions, NULL,
         "from the versions that the bucket keeps"},
        {"since", 0, OPTION_TEXT, &arguments.since, "TIME",
         "as it was then: what was deleted or overwritten since comes back"},
        {"dry-run", 0, OPTION_FLAG, &arguments.dry_run, NULL,
         "say what would be brought back; change nothing"},
        {"jobs", 'j', OPTION_INTEGER, &arguments.jobs, "N", "objects at a time (default 4)"},
        {"no-progress", 0, OPTION_FLAG, &arguments.no_progress, NULL, "show no progress"},
        {0},
    };
    const CommandHelp command = {
        .name = "repo heal",
        .synopsis = "pgcairn repo heal --versions --since TIME [options]",
        .summary =
            "Bring back what was deleted or overwritten in a bucket that keeps versions. Each old "
            "version is\ncopied on top of what hides it; nothing is removed, no key is needed. "
            "Take the thief's credentials\naway and stop cron jobs (backup, expire, collect) "
            "first; "
            "run `pgcairn verify` afterwards.",
        .examples = "  pgcairn repo heal --versions --since '2026-11-22 23:31:40+00' --dry-run\n"
                    "  pgcairn repo heal --versions --since '2026-11-22 23:31:40+00'\n",
        .options = options,
    };
    CairnError err = {0};
    int code = 0;
    cancel_install();
    if (!cli_parse(&command, &arguments.common, argc, argv, NULL, &code))
        return code;
    if (!cli_output_json(&arguments.common, &arguments.json, &err) ||
        !check_arguments(&arguments, world, &err))
        return cli_failed(&err);
    SCOPED_JSON json_t *objects = arguments.json ? json_array() : NULL;
    arguments.objects = objects;
    return run(world, &arguments, &code, &err) ? code : cli_failed(&err);
}
