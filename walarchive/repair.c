#include "walarchive/repair.h"

#include "common/cancel.h"
#include "common/scratch_file.h"
#include "repository/wal_ack.h"
#include "walarchive/repair_history.h"
#include "walarchive/repair_places.h"
#include "walarchive/repair_records.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { HISTORY_LIMIT = 1 << 20 };

typedef struct {
    const RepairOptions *options;
    RepairReport *report;
    WalStore *store;
    RepairPlaces places;
    int scratch_fd;
    size_t capacity;
} Repair;

static RepairFile *
add_file(Repair *repair, const char *name)
{
    RepairReport *report = repair->report;

    if (report->count == repair->capacity) {
        const size_t capacity = repair->capacity == 0 ? 64 : 2 * repair->capacity;
        RepairFile *files = arena_alloc(report->arena, capacity * sizeof *files);
        if (report->count > 0)
            memcpy(files, report->files, report->count * sizeof *files);
        report->files = files;
        repair->capacity = capacity;
    }
    RepairFile *file = &report->files[report->count++];
    *file = (RepairFile){0};
    snprintf(file->name, sizeof file->name, "%s", name);
    return file;
}

/* One more place that had something, and why it would not do. */
static void
add_reason(Repair *repair, RepairFile *file, const RepairPlace *place, const CairnError *problem)
{
    file->reason =
        arena_printf(repair->report->arena, "%s%s%s: %s", file->reason != NULL ? file->reason : "",
                     file->reason != NULL ? "; " : "", place->name, problem->message);
}

/* What is looked for: a segment, or (missing NULL) the history of a timeline. */
typedef struct {
    const WalMissing *missing;
    const WalTimeline *timeline;
} Wanted;

static bool
check_copy(Repair *repair, const RepairPlace *place, Wanted wanted, CairnError *problem)
{
    const World *world = repair->options->world;

    if (wanted.missing != NULL)
        return repair_records_check(world, repair->store, wanted.missing, repair->scratch_fd,
                                    problem);
    /* A history does not say whose it is. */
    if (place->unproven != NULL)
        return cairn_error(problem, CAIRN_MISMATCH, "%s", place->unproven);
    return repair_history_check(world, repair->store, wanted.timeline, repair->scratch_fd, problem);
}

static bool
try_place(Repair *repair, const RepairPlace *place, Wanted wanted, RepairFile *file,
          CairnError *problem)
{
    const uint64_t limit = wanted.missing != NULL
                               ? wal_store_incarnation(repair->store)->wal_segment_size
                               : HISTORY_LIMIT;
    bool existed, tail_differs;

    if (!repair_place_copy(&repair->places, place, file->name, limit, repair->scratch_fd, problem))
        return false;
    if (!check_copy(repair, place, wanted, problem))
        return false;
    return repair->options->dry_run || wal_store_put(repair->store, file->name, repair->scratch_fd,
                                                     &existed, &tail_differs, problem);
}

/* What is wrong with the repository itself ends the repair; what is wrong with a file does not. */
static bool
is_of_the_file(const CairnError *problem)
{
    return problem->kind == CAIRN_NOT_FOUND || problem->kind == CAIRN_CORRUPT ||
           problem->kind == CAIRN_MISMATCH || problem->kind == CAIRN_DENIED ||
           problem->kind == CAIRN_SEALED || problem->kind == CAIRN_UNSUPPORTED ||
           problem->kind == CAIRN_USAGE;
}

static bool
look_for(Repair *repair, Wanted wanted, RepairFile *file, CairnError *err)
{
    for (size_t i = 0; i < repair->places.count && !file->found; i++) {
        const RepairPlace *place = &repair->places.places[i];
        CairnError problem = {0};

        if (!cancel_check(err))
            return false;
        if (try_place(repair, place, wanted, file, &problem)) {
            file->found = true;
            file->place = place->name;
            repair->report->found_count++;
        } else if (!is_of_the_file(&problem)) {
            *err = problem;
            return cairn_error_wrap(err, "unable to repair '%s'", file->name);
        } else if (problem.kind != CAIRN_NOT_FOUND) {
            add_reason(repair, file, place, &problem);
        }
    }
    return true;
}

static bool
look_up_ack(Repair *repair, const WalMissing *missing, RepairFile *file, CairnError *err)
{
    const uint64_t size = wal_store_incarnation(repair->store)->wal_segment_size;
    SCOPED_MEMORY WalAck *acks = NULL;
    size_t count = 0;

    if (!wal_ack_find(repair->store, missing->timeline, missing->segment * size,
                      (missing->segment + 1) * size, &acks, &count, err))
        return false;
    file->acknowledged = wal_ack_covering(acks, count, missing->segment * size,
                                          (missing->segment + 1) * size) != NULL;
    return true;
}

/* Where a timeline comes from must be known before its segments can be told missing. */
static bool
repair_histories(Repair *repair, const WalArchive *archive, bool *found_out, CairnError *err)
{
    const size_t before = repair->report->found_count;

    for (size_t i = 0; i < wal_archive_timeline_count(archive); i++) {
        const WalTimeline *timeline = wal_archive_timeline(archive, i);
        char name[WAL_FILE_NAME_LIMIT];

        if (timeline->history != NULL)
            continue;
        snprintf(name, sizeof name, "%08" PRIX32 ".history", timeline->timeline);
        if (!look_for(repair, (Wanted){.timeline = timeline}, add_file(repair, name), err))
            return false;
    }
    *found_out = repair->report->found_count > before && !repair->options->dry_run;
    return true;
}

static bool
repair_segments(Repair *repair, const WalArchive *archive, const Catalog *catalog, CairnError *err)
{
    const uint32_t segment_size = wal_store_incarnation(repair->store)->wal_segment_size;
    SCOPED_MEMORY WalMissing *missing = NULL;
    size_t count = 0;

    if (!wal_missing_find(archive, catalog, &missing, &count, &repair->report->more, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        char name[WAL_NAME_SIZE];
        wal_segment_name(name, missing[i].timeline, missing[i].segment, segment_size);
        RepairFile *file = add_file(repair, name);
        if (!look_for(repair, (Wanted){.missing = &missing[i]}, file, err) ||
            (!file->found && !look_up_ack(repair, &missing[i], file, err)))
            return false;
    }
    return true;
}

/*
 * Behind the last one that is stored nobody knows what there was, so nothing is missing there; but
 * another repository may have gone on when this one could not.
 */
static bool
repair_end(Repair *repair, const WalTimeline *leaf, CairnError *err)
{
    const uint32_t segment_size = wal_store_incarnation(repair->store)->wal_segment_size;

    for (uint64_t next = leaf->runs[leaf->run_count - 1].last_segment + 1;; next++) {
        const WalMissing beyond = {
            .timeline = leaf->timeline, .segment = next, .path = leaf->history};
        RepairFile found = {0};

        wal_segment_name(found.name, leaf->timeline, next, segment_size);
        if (!look_for(repair, (Wanted){.missing = &beyond}, &found, err))
            return false;
        if (!found.found)
            return true;
        *add_file(repair, found.name) = found;
    }
}

static bool
repair_ends(Repair *repair, const WalArchive *archive, CairnError *err)
{
    for (size_t i = 0; i < wal_archive_timeline_count(archive); i++) {
        const WalTimeline *leaf = wal_archive_timeline(archive, i);

        if (leaf->is_leaf && leaf->history != NULL && leaf->run_count > 0 &&
            !repair_end(repair, leaf, err))
            return false;
    }
    return true;
}

static bool
repair_archive(Repair *repair, Repository *repository, const Catalog *catalog,
               const Incarnation *incarnation, CairnError *err)
{
    bool again = false;

    SCOPED(WalArchive)
    archive = wal_archive_load(repository, repair->options->cluster, incarnation, err);
    if (archive == NULL || !repair_histories(repair, archive, &again, err))
        return false;
    if (!again)
        return repair_segments(repair, archive, catalog, err) && repair_ends(repair, archive, err);
    SCOPED(WalArchive)
    whole = wal_archive_load(repository, repair->options->cluster, incarnation, err);
    return whole != NULL && repair_segments(repair, whole, catalog, err) &&
           repair_ends(repair, whole, err);
}

static bool
repair_incarnation(Repair *repair, Repository *repository, const Catalog *catalog,
                   const Incarnation *incarnation, CairnError *err)
{
    SCOPED(WalStore)
    store = wal_store_open(repository, repair->options->cluster, incarnation, err);
    if (store == NULL ||
        !repair_places_open(repair->options, incarnation, repair->report, &repair->places, err))
        return false;
    repair->store = store;
    const bool done = repair_archive(repair, repository, catalog, incarnation, err);
    repair_places_close(&repair->places);
    return done;
}

static bool
repair_all(Repair *repair, CairnError *err)
{
    Incarnation incarnations[INCARNATION_LIMIT];
    IncarnationTrouble trouble;
    size_t count = 0;
    SCOPED(Repository)
    repository = repository_open(repair->options->world, repair->options->repository, err);

    SCOPED(Catalog)
    catalog = repository != NULL ? catalog_read(repository, repair->options->cluster, err) : NULL;
    if (catalog == NULL)
        return false;
    IncarnationId systems[INCARNATION_LIMIT];
    const IncarnationWish wish = {.first = systems,
                                  .first_count = catalog_systems(catalog, systems)};
    if (!incarnation_list_first(repository, repair->options->cluster, &wish, incarnations, &count,
                                &trouble, err))
        return false;
    incarnation_warn(&trouble);
    for (size_t i = 0; i < count; i++) {
        if (!repair_incarnation(repair, repository, catalog, &incarnations[i], err))
            return false;
    }
    return true;
}

RepairReport *
repair_run(const RepairOptions *options, CairnError *err)
{
    SCOPED(RepairReport) report = calloc(1, sizeof *report);

    if (report == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    report->arena = arena_new();
    report->places = arena_alloc(report->arena, REPAIR_PLACES_LIMIT * sizeof *report->places);
    report->problems = arena_alloc(report->arena, REPAIR_PLACES_LIMIT * sizeof *report->problems);
    Repair repair = {.options = options, .report = report};
    repair.scratch_fd = scratch_file_open(options->world, scratch_file_directory(), err);
    if (repair.scratch_fd < 0)
        return NULL;
    SCOPED_FD scratch_fd = repair.scratch_fd;
    CAIRN_ASSERT(scratch_fd >= 0);
    return repair_all(&repair, err) ? take(&report) : NULL;
}

void
repair_report_free(RepairReport *report)
{
    if (report == NULL)
        return;
    arena_free(report->arena);
    free(report);
}
