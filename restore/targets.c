#include "restore/targets_intern.h"

#include "restore/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Newest first, of the newest one's incarnation, as restore chooses among them. */
static bool
list_candidates(TargetsSearch *search, CairnError *err)
{
    Targets *result = search->result;
    const Catalog *catalog = result->catalog;
    const Fate *newest = NULL;

    search->candidates.backups =
        arena_alloc(result->arena, (catalog->count + 1) * sizeof(CatalogBackup *));
    for (size_t i = catalog->count; i-- > 0;) {
        const CatalogBackup *backup = &catalog->backups[i];
        if (backup->presence != BACKUP_COMMITTED || backup->damaged || backup->fate->damaged)
            continue;
        if (newest == NULL)
            newest = backup->fate;
        if (backup->fate->system_id == newest->system_id && backup->fate->major == newest->major)
            search->candidates.backups[search->candidates.count++] = backup;
        else
            result->earlier_count++;
    }
    if (newest == NULL) {
        cairn_error(err, CAIRN_NOT_FOUND, "there is no backup of cluster '%s' to return to",
                    search->options->cluster);
        return cairn_error_hint(err, "`pgcairn info` lists what there is, damaged ones too");
    }
    return incarnation_get(search->repository, search->options->cluster, newest->system_id,
                           newest->major, &result->incarnation, err);
}

/* The newest leaf, or the timeline asked for. */
static bool
choose_path(TargetsSearch *search, CairnError *err)
{
    const uint32_t wanted = search->options->timeline;
    size_t leaves = 0;

    for (size_t i = 0; i < wal_archive_timeline_count(search->archive); i++) {
        const WalTimeline *timeline = wal_archive_timeline(search->archive, i);
        leaves += timeline->is_leaf ? 1 : 0;
        if (timeline->history != NULL &&
            (wanted != 0 ? timeline->timeline == wanted : timeline->is_leaf))
            search->path = timeline->history;
    }
    search->result->several_leaves = leaves > 1;
    if (search->path == NULL && wanted != 0) {
        cairn_error(err, CAIRN_NOT_FOUND, "timeline %u is not in the repository", wanted);
        return cairn_error_hint(err, "`pgcairn targets` shows the tree");
    }
    if (search->path == NULL)
        return cairn_error(err, CAIRN_NOT_FOUND,
                           "no WAL of cluster '%s' is in the repository that says where it began",
                           search->options->cluster);
    search->result->timeline = search->path->timeline;
    return true;
}

Moment *
targets_add(TargetsSearch *search)
{
    Targets *result = search->result;
    if (result->moments == NULL)
        result->moments = arena_alloc(result->arena, MOMENT_LIMIT * sizeof *result->moments);
    if (result->count == MOMENT_LIMIT) {
        result->left_out++;
        return NULL;
    }
    Moment *moment = &result->moments[result->count++];
    *moment = (Moment){.what = "", .why_not = ""};
    return moment;
}

void
targets_searched(const TargetsSearch *search, char text[TARGETS_SEARCHED_SIZE])
{
    const WalLedgerCounts *counts = wal_ledger_counts(search->ledger);
    const uint64_t unknown = counts->missing + counts->unreadable + counts->incomplete;
    char from[LSN_TEXT_SIZE];
    char to[LSN_TEXT_SIZE];

    lsn_format(from, search->result->from_lsn);
    lsn_format(to, counts->end_lsn);
    const int length = snprintf(text, TARGETS_SEARCHED_SIZE, "from %s up to %s", from, to);
    if (unknown > 0)
        snprintf(text + length, TARGETS_SEARCHED_SIZE - (size_t)length,
                 "; but %" PRIu64 " segments of it are missing or not all known, so it may have "
                 "happened there",
                 unknown);
}

static int
by_lsn(const void *a, const void *b)
{
    const Moment *first = a;
    const Moment *second = b;
    return first->lsn < second->lsn ? -1 : first->lsn > second->lsn;
}

void
targets_sort(Targets *result)
{
    if (result->count > 1)
        qsort(result->moments, result->count, sizeof *result->moments, by_lsn);
}

/* Keeps the newest `keep`. */
static void
drop_oldest(Targets *result, size_t keep)
{
    if (result->count <= keep)
        return;
    const size_t gone = result->count - keep;
    memmove(result->moments, result->moments + gone, keep * sizeof *result->moments);
    result->count = keep;
    result->left_out += gone;
}

static bool
collect_restore_points(void *context, const WalLedgerSegment *segment, bool *stop_io,
                       CairnError *err)
{
    TargetsSearch *search = context;
    (void)stop_io;
    (void)err;
    for (size_t i = 0; i < segment->facts->event_count; i++) {
        const WalEvent *event = &segment->facts->events[i];
        if (event->kind != WAL_EVENT_RESTORE_POINT)
            continue;
        if (search->result->count == MOMENT_LIMIT)
            drop_oldest(search->result, MOMENT_LIMIT / 2);
        Moment *moment = targets_add(search);
        CAIRN_ASSERT(moment != NULL);
        moment->kind = MOMENT_RESTORE_POINT;
        moment->lsn = event->lsn;
        moment->time_us = event->time_us;
        moment->what = arena_strndup(search->result->arena, event->name, sizeof event->name);
    }
    return true;
}

static uint64_t
oldest_start(const TargetsSearch *search)
{
    uint64_t oldest = UINT64_MAX;
    for (size_t i = 0; i < search->candidates.count; i++) {
        const Fate *fate = search->candidates.backups[i]->fate;
        if (fate->start_lsn < oldest)
            oldest = fate->start_lsn;
    }
    return oldest;
}

static bool
search_restore_points(TargetsSearch *search, CairnError *err)
{
    Targets *result = search->result;
    const WalLedgerRange range = {.path = search->path,
                                  .from_lsn = oldest_start(search),
                                  .to_lsn = UINT64_MAX,
                                  .with_unfinished = true};

    result->from_lsn = range.from_lsn;
    if (!wal_ledger_walk(search->ledger, &range, collect_restore_points, search, err))
        return false;
    /* By its name where that says which one, else by where it lies. */
    for (size_t i = 0; i < result->count; i++) {
        Moment *moment = &result->moments[i];
        size_t same = 0;
        for (size_t k = 0; k < result->count; k++)
            same += strcmp(result->moments[k].what, moment->what) == 0 ? 1 : 0;
        moment->target.type = same == 1 && result->left_out == 0 && moment->what[0] != '\0'
                                  ? TARGET_NAME
                                  : TARGET_LSN;
        snprintf(moment->target.name, sizeof moment->target.name, "%s", moment->what);
        moment->target.lsn = moment->lsn;
    }
    drop_oldest(result, search->options->count);
    return true;
}

/* Asks restore's own plan. A name is proven by the position of its record, which is the same. */
static bool
prove(TargetsSearch *search, Moment *moment, CairnError *err)
{
    Targets *result = search->result;
    const PlanOptions options = {.cluster = search->options->cluster, .archive = search->archive};
    Target *target = &moment->target;

    if (target->type == TARGET_DEFAULT) {
        target->type = TARGET_LSN;
        target->exclusive = true;
        target->lsn = moment->lsn;
    }
    if (result->several_leaves) {
        target->timeline_choice = TIMELINE_NUMBER;
        target->timeline = result->timeline;
    }
    Target asked = *target;
    asked.type = TARGET_LSN;
    SCOPED(RestorePlan)
    plan = plan_make(search->repository, result->catalog, &asked, &options, err);
    if (plan != NULL) {
        moment->backup = plan->backup->fate;
        return true;
    }
    if (err->kind != CAIRN_REFUSED && err->kind != CAIRN_NOT_FOUND && err->kind != CAIRN_CORRUPT)
        return false;
    moment->why_not = arena_strdup(result->arena, err->message);
    cairn_error_clear(err);
    return true;
}

static bool
search_moments(TargetsSearch *search, CairnError *err)
{
    switch (search->options->question) {
    case TARGETS_WINDOWS:
        search->result->tree = windows_read(search->archive, &search->candidates, err);
        return search->result->tree != NULL;
    case TARGETS_RESTORE_POINTS:
        return search_restore_points(search, err);
    case TARGETS_AROUND:
        return targets_search_around(search, err);
    case TARGETS_BEFORE_DROP_DATABASE:
        return targets_search_database(search, err);
    default:
        return targets_search_files(search, err);
    }
}

static bool
search_and_prove(TargetsSearch *search, CairnError *err)
{
    Targets *result = search->result;
    SCOPED(WalArchive)
    archive =
        wal_archive_load(search->repository, search->options->cluster, &result->incarnation, err);
    if (archive == NULL)
        return false;
    SCOPED(WalLedger) ledger = wal_ledger_open(archive, false, err);
    if (ledger == NULL)
        return false;
    search->archive = archive;
    if (search->options->live_system_id == result->incarnation.system_id)
        search->live = search->options->live;
    search->ledger = ledger;
    if (!choose_path(search, err) || !search_moments(search, err))
        return false;
    for (size_t i = 0; i < result->count; i++) {
        if (!prove(search, &result->moments[i], err))
            return false;
    }
    result->counts = *wal_ledger_counts(ledger);
    return true;
}

Targets *
targets_find(Repository *repository, const TargetsOptions *options, CairnError *err)
{
    SCOPED(Targets) result = calloc(1, sizeof *result);
    if (result == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    result->arena = arena_new();
    result->cluster = arena_strdup(result->arena, options->cluster);
    result->question = options->question;
    result->asked_us = options->time_us;
    result->note = "";
    result->catalog = catalog_read(repository, options->cluster, err);
    if (result->catalog == NULL)
        return NULL;
    TargetsSearch search = {.repository = repository, .options = options, .result = result};
    return list_candidates(&search, err) && search_and_prove(&search, err) ? take(&result) : NULL;
}

void
targets_free(Targets *targets)
{
    if (targets == NULL)
        return;
    windows_free(targets->tree);
    catalog_free(targets->catalog);
    arena_free(targets->arena);
    free(targets);
}

const char *
moment_kind_name(MomentKind kind)
{
    static const char *const NAMES[] = {"commit",    "abort",     "restore-point",   "dropped",
                                        "rewritten", "truncated", "database-dropped"};
    CAIRN_ASSERT((size_t)kind < sizeof NAMES / sizeof NAMES[0]);
    return NAMES[kind];
}
