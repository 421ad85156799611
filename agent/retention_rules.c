#include "agent/retention_intern.h"

#include "common/calendar.h"

#include <inttypes.h>
#include <stdlib.h>

/* One of each rule, and: last good, by hand, no policy, history, state. */
enum { REASONS_LIMIT = RETENTION_RULES_LIMIT + 5 };

void
retention_give_reason(RetentionPlan *plan, size_t index, const char *reason)
{
    RetentionDecision *decision = &plan->decisions[index];
    if (decision->reasons == NULL)
        decision->reasons = arena_alloc(plan->arena, REASONS_LIMIT * sizeof *decision->reasons);
    CAIRN_ASSERT(decision->reason_count < REASONS_LIMIT);
    decision->reasons[decision->reason_count++] = reason;
}

void
retention_keep(RetentionPlan *plan, size_t index, bool in_window, const char *reason)
{
    plan->decisions[index].keep = true;
    plan->decisions[index].in_window |= in_window;
    retention_give_reason(plan, index, reason);
}

/* The newest `count` usable ones, or fulls, and every usable one after the oldest of them. */
static void
keep_newest(RetentionPlan *plan, uint32_t count, bool in_window, bool only_full, const char *reason)
{
    const RetentionInput *input = plan->input;
    uint32_t found = 0;
    size_t oldest = 0; /* fewer than count: nothing is too old yet */
    for (size_t i = input->backup_count; i-- > 0;) {
        if (!plan->decisions[i].usable || (only_full && !input->backups[i].is_full))
            continue;
        if (++found == count) {
            oldest = i;
            break;
        }
    }
    for (size_t i = oldest; i < input->backup_count; i++) {
        if (plan->decisions[i].usable)
            retention_keep(plan, i, in_window, reason);
    }
}

/* Everything since the newest full that is at least as old as the window; all while there is none.
 */
static void
keep_full_time(RetentionPlan *plan, const RetentionRule *rule, const char *reason)
{
    const RetentionInput *input = plan->input;
    const int64_t start_us = retention_window_start(rule, input->now_us);
    size_t oldest = 0;
    for (size_t i = input->backup_count; i-- > 0;) {
        const RetentionBackup *backup = &input->backups[i];
        if (plan->decisions[i].usable && backup->is_full && backup->stopped_us <= start_us) {
            oldest = i;
            break;
        }
    }
    for (size_t i = oldest; i < input->backup_count; i++) {
        if (plan->decisions[i].usable)
            retention_keep(plan, i, true, reason);
    }
}

static int64_t
period_of(RetentionRuleKind kind, int64_t time_us)
{
    switch (kind) {
    case RETAIN_HOURLY:
        return calendar_hour_number(time_us);
    case RETAIN_DAILY:
        return calendar_day_number(time_us);
    case RETAIN_WEEKLY:
        return calendar_week_number(time_us);
    case RETAIN_MONTHLY:
        return calendar_month_number(time_us);
    default:
        return calendar_year_number(time_us);
    }
}

/* "daily 2026-11-20", "weekly 2026-W47", "monthly 2026-11" */
static const char *
period_text(RetentionPlan *plan, RetentionRuleKind kind, int64_t time_us)
{
    const CivilTime t = calendar_civil_of_time(time_us);
    int64_t year;
    unsigned week;
    switch (kind) {
    case RETAIN_HOURLY:
        return arena_printf(plan->arena, "hourly %04" PRId64 "-%02u-%02u %02u:00", t.year, t.month,
                            t.day, t.hour);
    case RETAIN_DAILY:
        return arena_printf(plan->arena, "daily %04" PRId64 "-%02u-%02u", t.year, t.month, t.day);
    case RETAIN_WEEKLY:
        calendar_iso_week(time_us, &year, &week);
        return arena_printf(plan->arena, "weekly %04" PRId64 "-W%02u", year, week);
    case RETAIN_MONTHLY:
        return arena_printf(plan->arena, "monthly %04" PRId64 "-%02u", t.year, t.month);
    default:
        return arena_printf(plan->arena, "yearly %04" PRId64, t.year);
    }
}

typedef struct {
    int64_t period;
    size_t index;
    bool newest; /* of its period, by sequence */
} Placed;

static int
by_period_then_newest(const void *a, const void *b)
{
    const Placed *left = a, *right = b;
    if (left->period != right->period)
        return left->period < right->period ? -1 : 1;
    return (left->index < right->index) - (left->index > right->index);
}

static int
by_index(const void *a, const void *b)
{
    const Placed *left = a, *right = b;
    return (left->index > right->index) - (left->index < right->index);
}

/*
 * The newest backup of each of the newest count periods that have one. Periods are taken in the
 * order of sequences, so that a date far in the future takes one place and no more; days on which
 * nothing was backed up don't count, so that a schedule that stopped lets nothing go.
 */
static void
keep_periods(RetentionPlan *plan, const RetentionRule *rule)
{
    const RetentionInput *input = plan->input;
    Placed *placed = calloc(input->backup_count + 1, sizeof *placed);
    CAIRN_ASSERT(placed != NULL);
    size_t count = 0;
    for (size_t i = 0; i < input->backup_count; i++) {
        if (plan->decisions[i].usable)
            placed[count++] =
                (Placed){period_of(rule->kind, input->backups[i].stopped_us), i, false};
    }
    qsort(placed, count, sizeof *placed, by_period_then_newest);
    for (size_t i = 0; i < count; i++)
        placed[i].newest = i == 0 || placed[i].period != placed[i - 1].period;
    qsort(placed, count, sizeof *placed, by_index);
    uint32_t found = 0;
    for (size_t i = count; i-- > 0 && found < rule->count;) {
        if (!placed[i].newest)
            continue;
        const size_t index = placed[i].index;
        retention_keep(plan, index, false,
                       period_text(plan, rule->kind, input->backups[index].stopped_us));
        found++;
    }
    free(placed);
}

static bool
is_of(const RetentionBackup *backup, const RetentionIncarnation *incarnation)
{
    return backup->system_id == incarnation->system_id && backup->major == incarnation->major;
}

bool
retention_knows_system(const RetentionInput *input, const RetentionBackup *backup)
{
    for (size_t i = 0; i < input->incarnation_count; i++) {
        if (is_of(backup, &input->incarnations[i]))
            return true;
    }
    return false;
}

const RetentionTimeline *
retention_find_timeline(const RetentionInput *input, const RetentionBackup *like, uint32_t timeline)
{
    for (size_t i = 0; i < input->timeline_count; i++) {
        const RetentionTimeline *found = &input->timelines[i];
        if (found->timeline == timeline && found->system_id == like->system_id &&
            found->major == like->major)
            return found;
    }
    return NULL;
}

bool
retention_lies_on_path(const RetentionInput *input, const RetentionBackup *backup,
                       const RetentionTimeline *leaf)
{
    uint64_t limit_lsn = UINT64_MAX;
    const RetentionTimeline *at = leaf;
    for (size_t depth = 0; at != NULL && depth <= input->timeline_count; depth++) {
        if (at->timeline == backup->timeline)
            return backup->stop_lsn <= limit_lsn;
        if (at->fork_lsn < limit_lsn)
            limit_lsn = at->fork_lsn;
        at = at->parent != 0 ? retention_find_timeline(input, backup, at->parent) : NULL;
    }
    return false;
}

/* What a window's start is restored from, in one incarnation. */
typedef struct {
    RetentionPlan *plan;
    int64_t start_us;
    const RetentionIncarnation *of;
    const char *reason;
} WindowStart;

/* The backup before the window's start with the highest LSN: the server's own order. leaf NULL:
 * on any timeline. backup_count when there is none. */
static size_t
find_base(const WindowStart *window, const RetentionTimeline *leaf)
{
    const RetentionInput *input = window->plan->input;
    size_t best = input->backup_count;
    for (size_t i = 0; i < input->backup_count; i++) {
        const RetentionBackup *backup = &input->backups[i];
        if (!window->plan->decisions[i].usable || backup->stopped_us > window->start_us ||
            !is_of(backup, window->of))
            continue;
        if (leaf != NULL && !retention_lies_on_path(input, backup, leaf))
            continue;
        if (best == input->backup_count || backup->stop_lsn >= input->backups[best].stop_lsn)
            best = i;
    }
    return best;
}

static void
keep_base(const WindowStart *window, size_t index)
{
    const RetentionDecision *decision = &window->plan->decisions[index];
    for (size_t i = 0; i < decision->reason_count; i++) {
        if (decision->reasons[i] == window->reason)
            return; /* of another branch too */
    }
    retention_keep(window->plan, index, true, window->reason);
}

/*
 * Timelines that were alive at the window's start or came later: the newest base's own and those
 * with a higher number. A branch that went another way before the base's stop (a restore to an
 * earlier point) needs a base of its own.
 */
static void
keep_bases(const WindowStart *window)
{
    const RetentionInput *input = window->plan->input;
    const size_t newest = find_base(window, NULL);
    if (newest == input->backup_count)
        return;
    keep_base(window, newest);
    for (size_t i = 0; i < input->timeline_count; i++) {
        const RetentionTimeline *leaf = &input->timelines[i];
        if (!leaf->is_leaf || leaf->timeline < input->backups[newest].timeline ||
            leaf->system_id != window->of->system_id || leaf->major != window->of->major)
            continue;
        const size_t base = find_base(window, leaf);
        if (base != input->backup_count)
            keep_base(window, base);
    }
}

static void
keep_pitr(RetentionPlan *plan, const RetentionRule *rule, const char *reason)
{
    const RetentionInput *input = plan->input;
    const int64_t start_us = retention_window_start(rule, input->now_us);
    const RetentionBackup *before = NULL; /* newest by sequence */
    for (size_t i = 0; i < input->backup_count; i++) {
        if (!plan->decisions[i].usable)
            continue;
        if (input->backups[i].stopped_us > start_us)
            retention_keep(plan, i, true, reason);
        else
            before = &input->backups[i];
    }
    WindowStart window = {.plan = plan, .start_us = start_us};
    window.reason = arena_printf(plan->arena, "%s (start of the window)", reason);
    for (size_t k = 0; k < input->incarnation_count; k++) {
        window.of = &input->incarnations[k];
        bool alive = before != NULL && is_of(before, window.of);
        for (size_t i = 0; i < input->backup_count && !alive; i++) {
            alive = plan->decisions[i].usable && input->backups[i].stopped_us > start_us &&
                    is_of(&input->backups[i], window.of);
        }
        if (alive)
            keep_bases(&window);
    }
}

/* The highest timeline of the backup's incarnation whose history is unreadable; 0: none. */
static uint32_t
highest_unreadable(const RetentionInput *input, const RetentionBackup *backup)
{
    uint32_t highest = 0;
    for (size_t i = 0; i < input->timeline_count; i++) {
        const RetentionTimeline *timeline = &input->timelines[i];
        if (timeline->unreadable && timeline->system_id == backup->system_id &&
            timeline->major == backup->major && timeline->timeline > highest)
            highest = timeline->timeline;
    }
    return highest;
}

void
retention_keep_unknown(RetentionPlan *plan)
{
    const RetentionInput *input = plan->input;
    bool any = false;
    for (size_t i = 0; i < input->timeline_count; i++)
        any |= input->timelines[i].unreadable;
    for (size_t i = 0; any && i < input->backup_count; i++) {
        const RetentionBackup *backup = &input->backups[i];
        if (!plan->decisions[i].live || backup->unreadable)
            continue;
        const uint32_t timeline = highest_unreadable(input, backup);
        if (timeline >= backup->timeline && timeline > 0)
            retention_keep(plan, i, true,
                           arena_printf(plan->arena, "%08" PRIX32 ".history is damaged", timeline));
    }
}

void
retention_apply_rule(RetentionPlan *plan, const RetentionRule *rule)
{
    char text[RETENTION_RULE_TEXT_SIZE];
    retention_rule_format(rule, text);
    /* Once for all that the rule keeps. */
    const char *reason = arena_strdup(plan->arena, text);
    switch (rule->kind) {
    case RETAIN_PITR:
        keep_pitr(plan, rule, reason);
        break;
    case RETAIN_FULL:
        keep_newest(plan, rule->count, true, true, reason);
        break;
    case RETAIN_FULL_TIME:
        keep_full_time(plan, rule, reason);
        break;
    case RETAIN_LAST:
        keep_newest(plan, rule->count, true, false, reason);
        break;
    case RETAIN_MIN: /* so many backups, not all that lies between them */
        keep_newest(plan, rule->count, false, false, reason);
        break;
    default:
        keep_periods(plan, rule);
        break;
    }
}
