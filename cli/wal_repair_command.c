/* wal repair: missing WAL looked for where it may still be. */
#include "cli/commands.h"
#include "cli/session.h"
#include "common/cancel.h"
#include "walarchive/repair.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_MISSING = 3 };

/* As typed. */
typedef struct {
    OptionList from;
    bool dry_run;
    bool json;
} RepairRequest;

static bool
same_outcome(const RepairFile *a, const RepairFile *b)
{
    return a->found == b->found && a->acknowledged == b->acknowledged && a->place == b->place &&
           (a->reason == b->reason ||
            (a->reason != NULL && b->reason != NULL && strcmp(a->reason, b->reason) == 0));
}

static void
print_outcome(const RepairFile *first, const RepairFile *last, bool dry_run)
{
    const bool one = first == last;

    printf("%s %s%s%s", first->found ? (dry_run ? "found  " : "stored ") : "missing", first->name,
           one ? "" : " .. ", one ? "" : last->name);
    if (first->found)
        printf(", from %s", first->place);
    else if (first->reason != NULL)
        printf(": %s", first->reason);
    else
        printf(": not there");
    printf("%s\n", first->acknowledged ? " (acknowledged)" : "");
}

static void
print_report(const RepairReport *report, bool dry_run)
{
    for (size_t i = 0; i < report->place_count; i++)
        printf("looking into %s\n", report->places[i]);
    for (size_t i = 0; i < report->problem_count; i++)
        printf("not looked into: %s\n", report->problems[i]);
    for (size_t i = 0; i < report->count;) {
        size_t next = i + 1;
        while (next < report->count && same_outcome(&report->files[i], &report->files[next]))
            next++;
        print_outcome(&report->files[i], &report->files[next - 1], dry_run);
        i = next;
    }
    const size_t missing = report->count - report->found_count;
    if (report->count == 0)
        printf("nothing is missing from the oldest backup on\n");
    else
        printf("%zu of %zu missing files %s, %zu still missing\n", report->found_count,
               report->count, dry_run ? "found (nothing was stored)" : "stored", missing);
    if (report->more > 0)
        printf("%" PRIu64 " more are missing: run it again\n", report->more);
    if (missing > 0)
        printf("HINT: --from DIR looks into pg_wal of other nodes; recovery cannot pass a hole, so "
               "take a backup; `wal acknowledge-gap` records a decision\n");
}

static json_t *
text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

static json_t *
texts_json(const char **texts, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_string(texts[i]));
    return array;
}

static json_t *
report_json(const RepairReport *report, bool dry_run)
{
    json_t *files = json_array();
    for (size_t i = 0; i < report->count; i++) {
        const RepairFile *file = &report->files[i];
        json_array_append_new(
            files, json_pack("{s:s, s:b, s:o, s:o, s:b}", "name", file->name, "found", file->found,
                             "place", text_or_null(file->place), "reason",
                             text_or_null(file->reason), "acknowledged", file->acknowledged));
    }
    return json_pack("{s:o, s:I, s:I, s:b, s:o, s:o}", "files", files, "found",
                     (json_int_t)report->found_count, "missing",
                     (json_int_t)(report->count - report->found_count + report->more), "dry_run",
                     dry_run, "places", texts_json(report->places, report->place_count), "problems",
                     texts_json(report->problems, report->problem_count));
}

/* A name without a slash may be that of a repository. */
static const RepositoryConfig *
find_repository(const CliSession *session, const char *name)
{
    for (size_t i = 0; i < config_repository_count(session->config); i++) {
        const RepositoryConfig *repository = config_repository_at(session->config, i);
        if (strcmp(repository->name, name) == 0)
            return repository;
    }
    return NULL;
}

static void
add_other(const CliSession *session, const RepositoryConfig *other, const RepositoryConfig **others,
          RepairOptions *repair)
{
    for (size_t i = 0; i < repair->other_count; i++) {
        if (others[i] == other)
            return;
    }
    if (other != session->repository && repair->other_count < REPAIR_PLACES_LIMIT)
        others[repair->other_count++] = other;
}

/* The cluster's own pg_wal first, then what was named, then the other repositories. */
static void
fill_places(const CliSession *session, const RepairRequest *request, const char **directories,
            const RepositoryConfig **others, RepairOptions *repair)
{
    if (session->cluster->pgdata != NULL)
        directories[repair->directory_count++] = session->cluster->pgdata;
    for (size_t i = 0; i < request->from.count && repair->directory_count < REPAIR_PLACES_LIMIT;
         i++) {
        const char *from = request->from.values[i];
        const RepositoryConfig *other = find_repository(session, from);
        if (other != NULL)
            add_other(session, other, others, repair);
        else
            directories[repair->directory_count++] = from;
    }
    for (size_t i = 0; i < config_repository_count(session->config); i++)
        add_other(session, config_repository_at(session->config, i), others, repair);
    repair->directories = directories;
    repair->others = others;
}

static bool
run_repair(const World *world, CliSession *session, void *context, int *code_out, CairnError *err)
{
    const RepairRequest *request = context;
    const char *directories[REPAIR_PLACES_LIMIT];
    const RepositoryConfig *others[REPAIR_PLACES_LIMIT];
    RepairOptions repair = {.world = world,
                            .repository = session->repository,
                            .cluster = session->cluster->name,
                            .dry_run = request->dry_run};

    fill_places(session, request, directories, others, &repair);
    SCOPED(RepairReport) report = repair_run(&repair, err);
    if (report == NULL)
        return false;
    if (report->count - report->found_count + (size_t)report->more > 0)
        *code_out = EXIT_MISSING;
    if (request->json)
        return cli_print_json(report_json(report, request->dry_run), err);
    print_report(report, request->dry_run);
    return true;
}

int
command_wal_repair(const World *world, int argc, char **argv)
{
    RepairRequest request = {0};
    const Option options[] = {
        {"from", 0, OPTION_LIST, &request.from, "DIR",
         "also look there: pg_wal or the data directory of another node, a spool, a copy, or a "
         "repository by its name (may be repeated)"},
        {"dry-run", 0, OPTION_FLAG, &request.dry_run, NULL, "look, store nothing"},
        {.name = NULL},
    };
    const CommandHelp help = {
        .name = argv[0],
        .synopsis = "pgcairn wal repair [--from DIR]...",
        .summary =
            "Look for WAL that the repository lacks, from its oldest backup on, and store it.\n"
            "Looks into pg_wal of the configured pgdata, --from, and other configured "
            "repositories.\n"
            "Exit code 0: nothing is missing any more; 3: something is.",
        .examples = "  pgcairn wal repair\n"
                    "  pgcairn wal repair --from /mnt/standby/pg_wal --from /mnt/old/data\n"
                    "  pgcairn wal repair --dry-run --output=json\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    int code;

    if (!cli_parse(&help, &common, argc, argv, NULL, &code))
        return code;
    cancel_install();
    SCOPED_SESSION session = {0};
    if (!cli_output_json(&common, &request.json, &err) ||
        !cli_session_open(world, &common, true, &session, &err))
        return cli_failed(&err);
    return cli_each_repository(world, &session, request.json, run_repair, &request);
}
