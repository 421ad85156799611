#include "cli/commands.h"
#include "cli/options.h"
#include "cli/session.h"
#include "common/log.h"
#include "repository/verify.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    CommonOptions common;
    const char *set;
    bool quick;
    bool no_progress;
} Arguments;

static const char *const kind_names[] = {[FINDING_MISSING] = "missing",
                                         [FINDING_DAMAGED] = "damaged",
                                         [FINDING_UNREACHABLE] = "unreachable"};

static json_t *
finding_json(const VerifyFinding *finding)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "problem", kind_names[finding->kind], "object",
                     finding->object, "text", finding->text, "backups", finding->backups, "files",
                     finding->files);
}

static json_t *
report_json(const VerifyReport *report, const Arguments *arguments)
{
    json_t *findings = json_array();
    for (size_t i = 0; i < report->listed; i++)
        json_array_append_new(findings, finding_json(&report->findings[i]));
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "scope", arguments->quick ? "quick" : "full",
        "objects", (json_int_t)report->object_count, "bytes", (json_int_t)report->byte_count,
        "wal_files", (json_int_t)report->wal_file_count, "backups",
        (json_int_t)report->backup_count, "good_backups", (json_int_t)report->good_backup_count,
        "finding_count", (json_int_t)report->finding_count, "findings", findings);
}

static void append_line(ByteWriter *text, const char *format, ...) PRINTF_LIKE(2, 3);

static void
append_line(ByteWriter *text, const char *format, ...)
{
    char line[8192];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (size > 0)
        byte_writer_bytes(text, line, (size_t)size < sizeof line ? (size_t)size : sizeof line - 1);
}

static void
report_text(const VerifyReport *report, const Arguments *arguments, ByteWriter *text)
{
    for (size_t i = 0; i < report->listed; i++) {
        const VerifyFinding *finding = &report->findings[i];
        append_line(text, "%s: %s: %s\n", kind_names[finding->kind], finding->object,
                    finding->text);
        if (finding->backups[0] != '\0')
            append_line(text, "  touches backup %s\n", finding->backups);
        if (finding->files[0] != '\0')
            append_line(text, "  touches %s\n", finding->files);
    }
    char bytes[32];
    format_bytes(bytes, report->byte_count);
    append_line(text,
                "verified (%s) %" PRIu64
                " objects, %s: %zu of %zu backups good, %zu WAL files, %" PRIu64 " findings\n",
                arguments->quick ? "quick" : "full", report->object_count, bytes,
                report->good_backup_count, report->backup_count, report->wal_file_count,
                report->finding_count);
}

/* Damage outweighs what could not be reached. */
static int
exit_code(const VerifyReport *report)
{
    bool unreachable = false;
    for (size_t i = 0; i < report->listed; i++) {
        if (report->findings[i].kind != FINDING_UNREACHABLE)
            return cairn_error_exit_code(CAIRN_CORRUPT);
        unreachable = true;
    }
    return unreachable ? cairn_error_exit_code(CAIRN_UNAVAILABLE) : 0;
}

static bool
run(const World *world, const Arguments *arguments, int *exit_code_out, CairnError *err)
{
    bool as_json;
    if (!cli_output_json(&arguments->common, &as_json, err))
        return false;
    SCOPED_SESSION session = {0};
    if (!cli_session_open(world, &arguments->common, true, &session, err))
        return false;
    SCOPED(Repository) repository = repository_open(world, session.repository, err);
    if (repository == NULL)
        return false;
    bool show = !arguments->no_progress && isatty(STDERR_FILENO);
    SCOPED(Progress) progress = show ? progress_new(world, "verify", 0) : NULL;
    SCOPED(VerifyReport)
    report = verify_run(repository,
                        &(VerifyOptions){.cluster = session.cluster->name,
                                         .selector = arguments->set,
                                         .scope = arguments->quick ? VERIFY_QUICK : VERIFY_FULL,
                                         .progress = progress},
                        err);
    if (report == NULL)
        return false;
    *exit_code_out = exit_code(report);
    if (as_json)
        return cli_print_json(report_json(report, arguments), err);
    SCOPED_BYTES ByteWriter text = {0};
    report_text(report, arguments, &text);
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
        {"no-progress", 0, OPTION_FLAG, &arguments.no_progress, NULL, "show no progress"},
        {0},
    };
    const CommandHelp command = {
        .name = "verify",
        .synopsis = "pgcairn verify [options]",
        .summary = "Prove by reading that everything stored is there and undamaged.",
        .examples = "  pgcairn verify\n"
                    "  pgcairn verify --quick\n"
                    "  pgcairn verify --set latest --output=json\n",
        .options = options,
    };
    CairnError err = {0};
    size_t positional_count;
    if (!options_parse(&command, &arguments.common, argc, argv, NULL, 0, &positional_count, &err))
        return cli_failed(&err);
    if (arguments.common.help) {
        options_print_help(&command);
        return 0;
    }
    int code = 0;
    if (!run(world, &arguments, &code, &err))
        return cli_failed(&err);
    return code;
}
