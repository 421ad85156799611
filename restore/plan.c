#include "restore/plan_intern.h"

#include "common/timestamp.h"
#include "postgres/wal_name.h"
#include "restore/plan_target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A backup and a path on which the target is reached. */
typedef struct {
    const CatalogBackup *backup;
    const TimelineHistory *path;
    Reach reach;
} Choice;

static bool
is_damaged(const CatalogBackup *backup)
{
    return backup->damaged || (backup->fate != NULL && backup->fate->damaged);
}

static bool
name_candidate(Planner *planner, CairnError *err)
{
    const CatalogBackup *backup = catalog_find(planner->catalog, planner->options->set, err);
    if (backup == NULL)
        return false;
    if (backup->presence != BACKUP_COMMITTED) {
        return cairn_error(
            err, CAIRN_REFUSED, "backup %s cannot be restored: it is %s", planner->options->set,
            backup->presence == BACKUP_EXPIRED ? "expired" : "not a finished backup");
    }
    if (is_damaged(backup) && !planner->options->force) {
        cairn_error(err, CAIRN_REFUSED, "backup %s is damaged", backup->fate->label);
        return cairn_error_hint(err, "another backup is better; --force restores what is left");
    }
    planner->candidates.backups = arena_alloc(planner->arena, sizeof backup);
    planner->candidates.backups[0] = backup;
    planner->candidates.count = 1;
    planner->set_by_hand = true;
    return true;
}

/* Newest first, of the newest one's incarnation: older ones are another server's (before an
 * upgrade). */
static bool
list_candidates(Planner *planner, CairnError *err)
{
    const Catalog *catalog = planner->catalog;
    const Fate *newest = NULL;

    planner->candidates.backups =
        arena_alloc(planner->arena, (catalog->count + 1) * sizeof(CatalogBackup *));
    for (size_t i = catalog->count; i-- > 0;) {
        const CatalogBackup *backup = &catalog->backups[i];
        if (backup->presence != BACKUP_COMMITTED || is_damaged(backup))
            continue;
        if (newest == NULL)
            newest = backup->fate;
        if (backup->fate->system_id == newest->system_id && backup->fate->major == newest->major)
            planner->candidates.backups[planner->candidates.count++] = backup;
        else
            planner->earlier_count++;
    }
    if (newest == NULL) {
        for (size_t i = catalog->count; i-- > 0;) {
            if (catalog->backups[i].presence == BACKUP_UNREADABLE) {
                *err = *catalog->backups[i].problem;
                return cairn_error_wrap(err, "backup %s", catalog->backups[i].bid.text);
            }
        }
        cairn_error(err, CAIRN_NOT_FOUND, "there is no backup of cluster '%s' to restore",
                    planner->options->cluster);
        return cairn_error_hint(err, "`pgcairn info` lists what there is, damaged ones too");
    }
    return true;
}

static bool
find_candidates(Planner *planner, CairnError *err)
{
    const char *set = planner->options->set;
    return set != NULL && strcmp(set, "latest") != 0 ? name_candidate(planner, err)
                                                     : list_candidates(planner, err);
}

static bool
check_histories(Planner *planner, CairnError *err)
{
    for (size_t i = 0; i < wal_archive_timeline_count(planner->archive); i++) {
        const WalTimeline *timeline = wal_archive_timeline(planner->archive, i);
        if (timeline->is_leaf && timeline->history == NULL)
            return plan_refuse_without_history(planner, timeline->timeline, CAIRN_REFUSED, "", err);
    }
    return true;
}

/*
 * The newest backup on this path from which the target is reached. *found_out false: *reach says
 * why the last one asked does not serve.
 */
static bool
choose_backup(Planner *planner, const TimelineHistory *path, Choice *choice, bool *found_out,
              CairnError *err)
{
    const TargetType type = planner->target->type;
    ReachQuery query = {
        .archive = planner->archive,
        .target = planner->target,
        .path = path,
        .until_lsn = UINT64_MAX,
        .first_of_name = planner->set_by_hand,
    };
    bool asked = false;

    *found_out = false;
    for (size_t i = 0; i < planner->candidates.count; i++) {
        const CatalogBackup *backup = planner->candidates.backups[i];
        Reach reach;

        query.backup = backup->fate;
        if (!timeline_history_contains(path, backup->fate->stop_timeline, backup->fate->stop_lsn))
            continue;
        if (!plan_reach(&query, &reach, err)) {
            if (err->kind == CAIRN_CORRUPT && err->hint[0] == '\0')
                cairn_error_hint(err,
                                 "`pgcairn verify` lists what is damaged; --type=immediate and "
                                 "--lsn before the damage do without what follows");
            return cairn_error_wrap(err, "backup %s", backup->fate->label);
        }
        /* Of a newer backup without its WAL no more is said than that; older ones may serve. */
        if (!asked || reach.verdict != REACH_INCOMPLETE)
            choice->reach = reach;
        asked = true;
        if (reach.verdict == REACH_PROVEN) {
            choice->backup = backup;
            choice->path = path;
            *found_out = true;
        }
        if (reach.verdict == REACH_PROVEN || reach.verdict == REACH_AMBIGUOUS)
            return true;
        /* What is not in the WAL after a backup is not there for an older one either, but before
         * it. */
        const bool by_event = type == TARGET_XID || type == TARGET_NAME;
        if (reach.verdict == REACH_ABSENT && !by_event)
            return true;
        query.until_lsn =
            by_event && reach.verdict == REACH_ABSENT ? backup->fate->start_lsn : UINT64_MAX;
    }
    if (!asked) {
        choice->reach.verdict = REACH_OLDER_BACKUP;
        snprintf(choice->reach.why, sizeof choice->reach.why, "no backup lies on timeline %u",
                 path->timeline);
    }
    return true;
}

static bool
refuse_reach(Planner *planner, const Choice *failed, CairnError *err)
{
    const TargetType type = planner->target->type;
    char why[512];
    const char *prefix = "";

    switch (failed->reach.verdict) {
    case REACH_OLDER_BACKUP:
        prefix = planner->set_by_hand ? "" : "no backup is old enough: ";
        break;
    case REACH_AMBIGUOUS:
        snprintf(why, sizeof why, "%s; name the backup by --set, recovery then stops at the first",
                 failed->reach.why);
        return plan_refuse(planner, CAIRN_REFUSED, why, err);
    default:
        break;
    }
    snprintf(why, sizeof why, "%s%s", prefix, failed->reach.why);
    const bool unknown =
        failed->reach.verdict == REACH_ABSENT && (type == TARGET_XID || type == TARGET_NAME);
    return plan_refuse(planner, unknown ? CAIRN_NOT_FOUND : CAIRN_REFUSED, why, err);
}

/* Both stop at the same record of the same timeline, from the same backup. */
static bool
same_stop(const Choice *a, const Choice *b)
{
    const StopPoint *stop_a = &a->reach.stop;
    const StopPoint *stop_b = &b->reach.stop;
    return a->backup == b->backup && stop_a->end_lsn == stop_b->end_lsn &&
           stop_a->has_record == stop_b->has_record && stop_a->has_record &&
           stop_a->record.start_lsn == stop_b->record.start_lsn &&
           timeline_history_at(a->path, stop_a->record.start_lsn) ==
               timeline_history_at(b->path, stop_b->record.start_lsn);
}

/* No --target-timeline: every leaf is asked, and they must agree. */
static bool
choose_among_leaves(Planner *planner, Choice *choice_out, CairnError *err)
{
    Choice failed = {0};
    size_t found_count = 0;
    size_t asked = 0;

    for (size_t i = 0; i < wal_archive_timeline_count(planner->archive); i++) {
        const WalTimeline *timeline = wal_archive_timeline(planner->archive, i);
        Choice choice = {0};
        bool found;

        if (!timeline->is_leaf || timeline->history == NULL)
            continue;
        if (!choose_backup(planner, timeline->history, &choice, &found, err))
            return false;
        asked++;
        if (!found) {
            failed = choice;
            continue;
        }
        if (found_count++ == 0) {
            *choice_out = choice;
        } else if (!same_stop(choice_out, &choice)) {
            cairn_error_clear(err);
            plan_refuse(planner, CAIRN_REFUSED,
                        "the archive has several timelines on which it can be", err);
            char hint[CAIRN_ERROR_HINT_SIZE];
            snprintf(hint, sizeof hint, "%s", err->hint);
            return cairn_error_hint(err, "choose one by --target-timeline=N; %.*s",
                                    CAIRN_ERROR_HINT_SIZE - 64, hint);
        }
    }
    if (asked == 0)
        return plan_refuse(planner, CAIRN_REFUSED, "no WAL of this cluster is in the repository",
                           err);
    return found_count > 0 || refuse_reach(planner, &failed, err);
}

static bool
choose_on_timeline(Planner *planner, uint32_t number, Choice *choice_out, CairnError *err)
{
    const WalTimeline *timeline = wal_archive_find(planner->archive, number);
    char why[128];
    bool found;

    if (timeline == NULL) {
        snprintf(why, sizeof why, "no WAL of timeline %u is in the repository", number);
        return plan_refuse(planner, CAIRN_NOT_FOUND, why, err);
    }
    if (timeline->history == NULL)
        return plan_refuse_without_history(planner, number, CAIRN_NOT_FOUND, "", err);
    if (!choose_backup(planner, timeline->history, choice_out, &found, err))
        return false;
    return found || refuse_reach(planner, choice_out, err);
}

/* Each backup on the timeline that it was made on, newest first. */
static bool
choose_current(Planner *planner, Choice *choice_out, CairnError *err)
{
    const PlanCandidates all = planner->candidates;
    Choice failed = {0};

    for (size_t i = 0; i < all.count; i++) {
        const WalTimeline *timeline =
            wal_archive_find(planner->archive, all.backups[i]->fate->stop_timeline);
        bool found = false;
        if (timeline == NULL)
            continue;
        if (timeline->history == NULL)
            return plan_refuse_without_history(planner, timeline->timeline, CAIRN_REFUSED, "", err);
        planner->candidates = (PlanCandidates){.backups = &all.backups[i], .count = 1};
        *choice_out = (Choice){0};
        const bool asked = choose_backup(planner, timeline->history, choice_out, &found, err);
        planner->candidates = all;
        if (!asked || found)
            return asked;
        failed = *choice_out;
        if (failed.reach.verdict == REACH_AMBIGUOUS)
            break;
    }
    if (failed.reach.why[0] == '\0')
        snprintf(failed.reach.why, sizeof failed.reach.why,
                 "no WAL of the backups' timelines is "
                 "in the repository");
    return refuse_reach(planner, &failed, err);
}

/* The highest leaf: what PostgreSQL calls latest, but its number is what gets written. */
static uint32_t
latest_timeline(const WalArchive *archive)
{
    uint32_t latest = 0;
    for (size_t i = 0; i < wal_archive_timeline_count(archive); i++)
        latest = wal_archive_timeline(archive, i)->timeline;
    return latest;
}

/*
 * The server gives its new timeline the first number above its own that has no history file, and
 * `pgcairn-wal get` will not call a file absent whose WAL is stored, or while one is unreadable
 * that may name the timeline: else two timelines would share a number. So recovery can be looked at
 * there, but ends in FATAL where it should open.
 */
static bool
find_closing_timeline(Planner *planner, const TimelineHistory *path, uint32_t *closed_by_out,
                      CairnError *err)
{
    const Target *target = planner->target;
    const WalTimeline *unreadable =
        wal_archive_unreadable_history(planner->archive, path->timeline);
    uint32_t number = path->timeline + 1;
    const WalTimeline *next = wal_archive_find(planner->archive, number);

    while (next != NULL && next->history != NULL)
        next = wal_archive_find(planner->archive, ++number);
    if (next == NULL && unreadable != NULL)
        number = unreadable->timeline;
    *closed_by_out =
        (next != NULL || unreadable != NULL) && target->type != TARGET_NONE ? number : 0;
    if (*closed_by_out == 0 || (target->type != TARGET_DEFAULT && target->type != TARGET_STANDBY &&
                                target->action != ACTION_PROMOTE)) {
        return true;
    }
    if (unreadable != NULL && unreadable->timeline == number)
        return plan_refuse_damaged_history(
            planner, unreadable,
            ", and so recovery could not end: which numbers of timelines are taken is not known",
            err);
    return plan_refuse_without_history(
        planner, number, CAIRN_REFUSED,
        ": recovery could not end, its new timeline would get that number", err);
}

/*
 * `pgcairn-wal get` calls a segment the end of WAL only where no history says that a timeline left
 * this one later, and asks all of them. So recovery to the end of the archive would stop in FATAL.
 */
static bool
check_end_is_told(Planner *planner, const TimelineHistory *path, CairnError *err)
{
    const WalTimeline *unreadable =
        wal_archive_unreadable_history(planner->archive, path->stretches[0].timeline);
    if (unreadable == NULL || planner->target->type != TARGET_DEFAULT)
        return true;
    return plan_refuse_damaged_history(
        planner, unreadable, ", and so recovery could not tell the end of the WAL from a hole",
        err);
}

static bool
choose(Planner *planner, Choice *choice_out, CairnError *err)
{
    const Target *target = planner->target;
    switch (target->timeline_choice) {
    case TIMELINE_NUMBER:
        return choose_on_timeline(planner, target->timeline, choice_out, err);
    case TIMELINE_LATEST:
        return check_histories(planner, err) &&
               choose_on_timeline(planner, latest_timeline(planner->archive), choice_out, err);
    case TIMELINE_CURRENT:
        return choose_current(planner, choice_out, err);
    default:
        break;
    }
    if (!check_histories(planner, err))
        return false;
    /* These stop at the backup's own consistency, which lies on its own timeline. */
    if (target->type == TARGET_IMMEDIATE || target->type == TARGET_NONE ||
        target->type == TARGET_STANDBY) {
        return choose_current(planner, choice_out, err);
    }
    return choose_among_leaves(planner, choice_out, err);
}

static bool
stores_segment(const WalTimeline *timeline, uint64_t segment)
{
    if (timeline != NULL && timeline->has_unfinished && timeline->unfinished_segment == segment)
        return true;
    for (size_t i = 0; timeline != NULL && i < timeline->run_count; i++) {
        const WalRun *run = &timeline->runs[i];
        if (segment >= run->first_segment && segment <= run->last_segment)
            return true;
    }
    return false;
}

/*
 * A timeline that began and of which no WAL is stored yet: where a segment is not there under its
 * name, PostgreSQL takes the parent's, which holds the parent's records beyond the fork as well.
 */
static bool
check_fork_segment(Planner *planner, const Choice *choice, CairnError *err)
{
    const TargetType type = planner->target->type;
    const TimelineHistory *path = choice->path;
    if ((type != TARGET_DEFAULT && type != TARGET_STANDBY) || path->stretch_count < 2)
        return true;

    const TimelineStretch *parent = &path->stretches[path->stretch_count - 2];
    const WalTimeline *timeline = wal_archive_find(planner->archive, path->timeline);
    const uint64_t segment = parent->end_lsn / planner->incarnation.wal_segment_size;
    if ((timeline != NULL && (timeline->run_count > 0 || timeline->has_unfinished)) ||
        !stores_segment(wal_archive_find(planner->archive, parent->timeline), segment))
        return true;

    char why[192];
    char fork[LSN_TEXT_SIZE];
    lsn_format(fork, parent->end_lsn);
    snprintf(why, sizeof why,
             "timeline %u left %u at %s, and no WAL of it is stored: recovery would go on into "
             "timeline %u's",
             path->timeline, parent->timeline, fork, parent->timeline);
    plan_refuse(planner, CAIRN_REFUSED, why, err);
    char windows[CAIRN_ERROR_HINT_SIZE];
    snprintf(windows, sizeof windows, "%s", err->hint);
    return cairn_error_hint(err,
                            "push the WAL of timeline %u from the server that has it; or restore "
                            "what was before the fork: --target-timeline=%u --lsn=%s "
                            "--target-exclusive; %.*s",
                            path->timeline, parent->timeline, fork, CAIRN_ERROR_HINT_SIZE - 208,
                            windows);
}

static RestorePlan *
make_plan(const Planner *planner, const Choice *choice, CairnError *err)
{
    SCOPED(RestorePlan) plan = calloc(1, sizeof *plan);
    if (plan == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    plan->backup = choice->backup;
    plan->incarnation = planner->incarnation;
    plan->target = *planner->target;
    plan->setting = choice->reach.setting;
    memcpy(plan->value, choice->reach.value, sizeof plan->value);
    plan->inclusive = choice->reach.inclusive;
    plan->stop = choice->reach.stop;
    plan->path = malloc(sizeof *plan->path);
    if (plan->path == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    if (choice->path != NULL)
        *plan->path = *choice->path;
    else
        timeline_history_root(choice->backup->fate->stop_timeline, plan->path);
    if (plan->target.type != TARGET_STANDBY && plan->target.type != TARGET_NONE)
        plan->timeline = plan->path->timeline;
    return take(&plan);
}

/* PostgreSQL reads ahead of what it replays, into a hole right behind the target too; it must be
 * told that nothing is missing there. The same where a history is unreadable that could tell of
 * one. */
static void
note_hole(const WalArchive *archive, RestorePlan *plan)
{
    const uint32_t segment_size = plan->incarnation.wal_segment_size;
    const uint64_t end_lsn = plan->unbroken_end_lsn;
    if (plan->setting == NULL || plan->stop.end_lsn > end_lsn || end_lsn < segment_size)
        return;
    if (plan_stored_end(archive, plan->path, segment_size) <= end_lsn &&
        wal_archive_unreadable_history(archive, plan->path->stretches[0].timeline) == NULL)
        return;
    wal_segment_name(plan->hole_after, timeline_history_at(plan->path, end_lsn - 1),
                     wal_segment_before(end_lsn, segment_size), segment_size);
}

RestorePlan *
plan_make(Repository *repository, const Catalog *catalog, const Target *target,
          const PlanOptions *options, CairnError *err)
{
    SCOPED(Arena) arena = arena_new();
    Planner planner = {
        .repository = repository,
        .catalog = catalog,
        .target = target,
        .options = options,
        .arena = arena,
    };
    if (!find_candidates(&planner, err))
        return NULL;

    const CatalogBackup *newest = planner.candidates.backups[0];
    if (!incarnation_get(repository, options->cluster, newest->fate->system_id, newest->fate->major,
                         &planner.incarnation, err)) {
        return NULL;
    }
    if (target->type == TARGET_NONE && options->without_wal) {
        const Choice bare = {.backup = newest, .reach.stop.end_lsn = newest->fate->stop_lsn};
        return make_plan(&planner, &bare, err);
    }

    SCOPED(WalArchive) loaded = NULL;
    if (options->archive == NULL) {
        loaded = wal_archive_load(repository, options->cluster, &planner.incarnation, err);
        if (loaded == NULL)
            return NULL;
    }
    WalArchive *archive = loaded != NULL ? loaded : options->archive;
    planner.archive = archive;
    Choice choice = {0};
    uint32_t closed_by;
    if (!choose(&planner, &choice, err) || !check_fork_segment(&planner, &choice, err) ||
        !check_end_is_told(&planner, choice.path, err) ||
        !find_closing_timeline(&planner, choice.path, &closed_by, err))
        return NULL;
    RestorePlan *plan = make_plan(&planner, &choice, err);
    if (plan != NULL) {
        const WalTimeline *closing = wal_archive_find(archive, closed_by);
        plan->closed_by = closed_by;
        plan->closed_by_damage = closing != NULL && closing->history_problem != NULL;
        plan->unbroken_end_lsn =
            wal_archive_unbroken_end(archive, plan->path, plan->backup->fate->start_lsn);
        note_hole(archive, plan);
    }
    return plan;
}

void
plan_free(RestorePlan *plan)
{
    if (plan == NULL)
        return;
    free(plan->path);
    free(plan);
}

static const char *
describe_kind(const WalRecord *record)
{
    switch (record->kind) {
    case WAL_RECORD_COMMIT:
        return "commit";
    case WAL_RECORD_ABORT:
        return "abort";
    case WAL_RECORD_RESTORE_POINT:
        return "restore point";
    case WAL_RECORD_CHECKPOINT:
        return "checkpoint";
    case WAL_RECORD_SWITCH:
        return "segment switch";
    default:
        return "record";
    }
}

void
plan_describe_stop(char text[PLAN_STOP_TEXT_SIZE], const RestorePlan *plan)
{
    const StopPoint *stop = &plan->stop;
    char lsn[LSN_TEXT_SIZE];
    char time[TIMESTAMP_TEXT_SIZE + 4] = "";
    char detail[TARGET_NAME_LIMIT + 32] = "";

    if (!stop->has_record) {
        lsn_format(lsn, stop->end_lsn);
        snprintf(text, PLAN_STOP_TEXT_SIZE, "where the backup is consistent, at %s", lsn);
        return;
    }
    const WalRecord *record = &stop->record;
    lsn_format(lsn, record->start_lsn);
    if (record->time_us != 0) {
        time[0] = ',';
        time[1] = ' ';
        timestamp_format(time + 2, record->time_us);
    }
    if (record->kind == WAL_RECORD_COMMIT || record->kind == WAL_RECORD_ABORT)
        snprintf(detail, sizeof detail, " of transaction %u", record->transaction_xid);
    else if (record->kind == WAL_RECORD_RESTORE_POINT)
        snprintf(detail, sizeof detail, " '%.63s'", record->restore_point);
    snprintf(text, PLAN_STOP_TEXT_SIZE, "%s the %s%s at %s%s", stop->before ? "before" : "after",
             describe_kind(record), detail, lsn, time);
}
