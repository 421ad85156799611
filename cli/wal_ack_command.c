/* wal acknowledge-gap: a hole in the WAL that somebody decided to live with. */
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/wal_settings.h"
#include "repository/wal_ack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* As typed. */
typedef struct {
    const char *range;
    const char *reason;
    const char *system_id; /* NULL: the newest */
    int64_t timeline;      /* 0: told by the segments, or the only one */
} AckRequest;

/* "0/5000000-0/8000000" */
static bool
parse_lsns(const char *range, WalAck *ack)
{
    char start[2 * LSN_TEXT_SIZE];
    const char *dash = strchr(range, '-');

    if (dash == NULL || (size_t)(dash - range) >= sizeof start)
        return false;
    snprintf(start, sizeof start, "%.*s", (int)(dash - range), range);
    return lsn_parse(start, &ack->start_lsn) && lsn_parse(dash + 1, &ack->end_lsn);
}

/* "SEGMENT" or "SEGMENT..SEGMENT", both counted in. */
static bool
parse_segments(const char *range, uint32_t segment_size, WalAck *ack)
{
    char first[WAL_NAME_SIZE];
    uint32_t last_timeline;
    uint64_t first_number, last_number;
    const char *rest = range + strcspn(range, ".");

    if (rest - range != WAL_NAME_SIZE - 1)
        return false;
    snprintf(first, sizeof first, "%.24s", range);
    const char *last = *rest == '\0' ? first : rest + 2;
    if ((*rest != '\0' && strncmp(rest, "..", 2) != 0) ||
        !wal_segment_parse(first, segment_size, &ack->timeline, &first_number) ||
        !wal_segment_parse(last, segment_size, &last_timeline, &last_number) ||
        last_timeline != ack->timeline || last_number < first_number)
        return false;
    ack->start_lsn = first_number * segment_size;
    ack->end_lsn = (last_number + 1) * segment_size;
    return true;
}

static bool
choose_timeline(WalStore *store, const AckRequest *request, WalAck *ack, CairnError *err)
{
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t count = 0;

    if (request->timeline < 0 || request->timeline > UINT32_MAX)
        return cairn_error(err, CAIRN_USAGE, "--timeline takes a number from 1 on");
    ack->timeline = (uint32_t)request->timeline;
    if (ack->timeline != 0)
        return true;
    if (!wal_store_timelines(store, &timelines, &count, err))
        return false;
    if (count != 1)
        return cairn_error(err, CAIRN_USAGE,
                           "WAL of %zu timelines is stored: say which one with "
                           "--timeline",
                           count);
    ack->timeline = timelines[0];
    return true;
}

static bool
parse_range(WalStore *store, const AckRequest *request, WalAck *ack, CairnError *err)
{
    const uint32_t segment_size = wal_store_incarnation(store)->wal_segment_size;

    if (parse_segments(request->range, segment_size, ack))
        return request->timeline == 0 || request->timeline == (int64_t)ack->timeline ||
               cairn_error(err, CAIRN_USAGE, "the segments are of timeline %" PRIu32,
                           ack->timeline);
    if (parse_lsns(request->range, ack))
        return choose_timeline(store, request, ack, err);
    cairn_error(err, CAIRN_USAGE, "'%.100s' is no range of WAL", request->range);
    return cairn_error_hint(err, "say SEGMENT, SEGMENT..SEGMENT, or LSN-LSN; `pgcairn info` lists "
                                 "the holes");
}

/* The wanted system's records, of whichever major version; all zeros when none is wanted. */
typedef struct {
    IncarnationId ids[POSTGRES_MAJOR_MAX - POSTGRES_MAJOR_MIN + 1];
    size_t count;
} WantedSystem;

static bool
parse_system(const AckRequest *request, WantedSystem *wanted_out, CairnError *err)
{
    char *end = NULL;

    *wanted_out = (WantedSystem){0};
    if (request->system_id == NULL)
        return true;
    errno = 0;
    const uint64_t id = strtoull(request->system_id, &end, 10);
    /* strtoull takes spaces and signs too, and makes some number of them. */
    if (errno != 0 || *end != '\0' || request->system_id[0] < '0' || request->system_id[0] > '9')
        return cairn_error(err, CAIRN_USAGE, "'%.40s' is no system identifier", request->system_id);
    for (int major = POSTGRES_MAJOR_MIN; major <= POSTGRES_MAJOR_MAX; major++)
        wanted_out->ids[wanted_out->count++] = (IncarnationId){.system_id = id, .major = major};
    return true;
}

/* A decision is kept for ever: it is not written into the WAL of a system that may not be meant. */
static bool
refuse_to_guess(Repository *repository, const char *cluster, const WantedSystem *wanted,
                const IncarnationTrouble *trouble, CairnError *err)
{
    Incarnation unused;

    if (wanted->count == 0) {
        *err = trouble->problem;
        cairn_error_wrap(err, "which of the cluster's systems is the newest cannot be told");
        return cairn_error_hint(err, "say which one has the hole: --system ID; %s",
                                incarnation_remedy(&trouble->problem));
    }
    for (size_t i = 0; i < wanted->count; i++) {
        if (!incarnation_get(repository, cluster, wanted->ids[i].system_id, wanted->ids[i].major,
                             &unused, err) &&
            err->kind != CAIRN_NOT_FOUND)
            return err->kind == CAIRN_CORRUPT || err->kind == CAIRN_MISMATCH
                       ? cairn_error_hint(err, "%s", incarnation_remedy(err))
                       : false;
        cairn_error_clear(err);
    }
    return true;
}

static bool
choose_incarnation(Repository *repository, const char *cluster, const AckRequest *request,
                   Incarnation *incarnation_out, CairnError *err)
{
    Incarnation incarnations[INCARNATION_LIMIT];
    IncarnationTrouble trouble;
    WantedSystem system;
    size_t count = 0;

    if (!parse_system(request, &system, err))
        return false;
    const IncarnationWish wish = {.first = system.ids, .first_count = system.count};
    const uint64_t wanted = system.ids[0].system_id;
    if (!incarnation_list_first(repository, cluster, &wish, incarnations, &count, &trouble, err) ||
        (trouble.count > 0 && !refuse_to_guess(repository, cluster, &system, &trouble, err)))
        return false;
    incarnation_warn(&trouble);
    for (size_t i = count; i-- > 0;) { /* newest first */
        if (request->system_id == NULL || incarnations[i].system_id == wanted) {
            *incarnation_out = incarnations[i];
            return true;
        }
    }
    return cairn_error(err, CAIRN_NOT_FOUND, "the repository has no %s of cluster '%s'",
                       request->system_id != NULL ? "such system" : "system", cluster);
}

static bool
acknowledge(const World *world, const WalSettings *settings, const AckRequest *request, WalAck *ack,
            CairnError *err)
{
    Incarnation incarnation;
    SCOPED(Repository) repository = repository_open(world, settings->repository, err);

    if (repository == NULL ||
        !choose_incarnation(repository, settings->cluster->name, request, &incarnation, err))
        return false;
    SCOPED(WalStore)
    store = wal_store_open(repository, settings->cluster->name, &incarnation, err);
    return store != NULL && parse_range(store, request, ack, err) && wal_ack_put(store, ack, err);
}

/* A hole is one repository's. */
static bool
is_only(const WalSettings *settings, CairnError *err)
{
    if (settings->repository_count == 1)
        return true;
    cairn_error(err, CAIRN_USAGE, "%zu repositories are configured: in which one is the hole?",
                settings->repository_count);
    return cairn_error_hint(err, "give --repository %s", settings->repository->name);
}

static bool
run_ack(const World *world, const CommonOptions *common, const AckRequest *request, CairnError *err)
{
    WalAck ack = {.decision = WAL_ACK_GAP};
    WalSettings settings = {0};
    char start[LSN_TEXT_SIZE], end[LSN_TEXT_SIZE];
    bool json = false;

    if (request->reason == NULL || strlen(request->reason) >= sizeof ack.reason)
        return cairn_error(err, CAIRN_USAGE, "--reason TEXT is needed, of at most %zu bytes",
                           sizeof ack.reason - 1);
    snprintf(ack.reason, sizeof ack.reason, "%s", request->reason);
    bool done = cli_output_json(common, &json, err) &&
                wal_settings_load(world, common, &settings, err) && is_only(&settings, err) &&
                acknowledge(world, &settings, request, &ack, err);
    wal_settings_free(&settings);
    if (!done)
        return false;
    lsn_format(start, ack.start_lsn);
    lsn_format(end, ack.end_lsn);
    if (json)
        return cli_print_json(json_pack("{s:I, s:s, s:s, s:s}", "timeline",
                                        (json_int_t)ack.timeline, "start_lsn", start, "end_lsn",
                                        end, "reason", ack.reason),
                              err);
    printf("acknowledged: timeline %" PRIu32 ", %s .. %s. It stays a hole: recovery cannot pass "
           "it\n",
           ack.timeline, start, end);
    return true;
}

int
command_wal_ack(const World *world, int argc, char **argv)
{
    AckRequest request = {0};
    const Option options[] = {
        {"reason", 0, OPTION_TEXT, &request.reason, "TEXT", "why (needed; kept with the decision)"},
        {"timeline", 0, OPTION_INTEGER, &request.timeline, "N",
         "of a range of LSNs, where WAL of several is stored"},
        {"system", 0, OPTION_TEXT, &request.system_id, "ID",
         "system identifier, where the cluster has been several (default: the newest)"},
        {.name = NULL},
    };
    const CommandHelp help = {
        .name = argv[0],
        .synopsis = "pgcairn wal acknowledge-gap [options] SEGMENT[..SEGMENT]|LSN-LSN",
        .summary = "Record that a hole in the WAL is known and accepted. It stays a hole.",
        .examples = "  pgcairn wal acknowledge-gap --reason 'disk lost, see ticket 4711' "
                    "000000010000000A00000012..000000010000000A00000015\n"
                    "  pgcairn wal acknowledge-gap --reason 'migration' A/12000000-A/16000000\n",
        .options = options,
    };
    CairnError err = {0};
    CommonOptions common = {0};
    int code;

    if (!cli_parse(&help, &common, argc, argv, &request.range, &code))
        return code;
    if (request.range == NULL) {
        cairn_error(&err, CAIRN_USAGE, "%s: which hole?", argv[0]);
        cairn_error_hint(&err, "usage: %s", help.synopsis);
        return cli_failed(&err);
    }
    return run_ack(world, &common, &request, &err) ? 0 : cli_failed(&err);
}
