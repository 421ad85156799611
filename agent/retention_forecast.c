#include "agent/retention_intern.h"
#include "common/calendar.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEQUENCE_LIMIT UINT64_C(9999999999)

enum { RHYTHM_BACKUPS = 31, RHYTHM_LEAST = 3 };

/* ---- windows that a plan gives up ---- */

/* The usable backup after this one of the same incarnation that is further on. */
static const RetentionBackup *
next_usable(const RetentionPlan *plan, size_t index)
{
    const RetentionInput *input = plan->input;
    const RetentionBackup *backup = &input->backups[index];
    for (size_t i = index + 1; i < input->backup_count; i++) {
        const RetentionBackup *next = &input->backups[i];
        if (plan->decisions[i].usable && next->system_id == backup->system_id &&
            next->major == backup->major && next->stop_lsn > backup->stop_lsn)
            return next;
    }
    return NULL;
}

/* Moments that start at this backup: up to the next one, or to where its WAL ends. */
static RetentionWindow
window_after(const RetentionPlan *plan, size_t index)
{
    const RetentionBackup *backup = &plan->input->backups[index];
    const RetentionBackup *next = next_usable(plan, index);
    RetentionWindow window = {.from_us = backup->stopped_us,
                              .to_us = backup->stopped_us,
                              .from_lsn = backup->stop_lsn,
                              .to_lsn = backup->stop_lsn,
                              .timeline = backup->timeline};
    if (backup->reach_lsn <= backup->stop_lsn)
        return window;
    window.to_lsn = backup->reach_lsn;
    window.to_us = 0;
    if (next != NULL && next->stop_lsn <= backup->reach_lsn) {
        window.to_lsn = next->stop_lsn;
        window.to_us = next->stopped_us;
    }
    return window;
}

static void
add_lost(RetentionPlan *plan, const RetentionWindow *window)
{
    RetentionWindow *last = plan->lost_count > 0 ? &plan->lost[plan->lost_count - 1] : NULL;
    if (last != NULL && last->to_lsn >= window->from_lsn && last->from_lsn <= window->from_lsn &&
        last->to_us != 0) {
        last->to_lsn = window->to_lsn;
        last->to_us = window->to_us;
        return;
    }
    plan->lost[plan->lost_count++] = *window;
}

void
retention_find_lost(RetentionPlan *plan)
{
    const RetentionInput *input = plan->input;
    plan->lost = arena_alloc(plan->arena, (input->backup_count + 1) * sizeof *plan->lost);
    const RetentionBackup *cover = NULL; /* kept, with all WAL after it */
    for (size_t i = 0; i < input->backup_count; i++) {
        const RetentionBackup *backup = &input->backups[i];
        const RetentionDecision *decision = &plan->decisions[i];
        if (!decision->usable)
            continue;
        if (decision->keep && !decision->isolated) {
            cover = backup;
            continue;
        }
        const RetentionWindow window = window_after(plan, i);
        if (decision->keep && window.to_lsn == window.from_lsn)
            continue; /* its own moment stays, and there is no other */
        const bool covered =
            cover != NULL && cover->system_id == backup->system_id &&
            cover->major == backup->major && cover->reach_lsn >= window.to_lsn &&
            (cover->timeline == backup->timeline ||
             retention_lies_on_path(input, cover,
                                    retention_find_timeline(input, backup, backup->timeline)));
        if (!covered)
            add_lost(plan, &window);
    }
}

/* ---- a year ahead ---- */

typedef struct {
    int64_t cadence_us;
    size_t fulls_one_in;
    size_t since_full; /* backups after the newest full */
    const RetentionBackup *newest;
} Rhythm;

static int
ascending(const void *a, const void *b)
{
    const int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* From the last backups, expired ones too: policy thins out what is old, the schedule made them
 * all. */
static Rhythm
observe_rhythm(const RetentionInput *input)
{
    Rhythm rhythm = {0};
    int64_t times[RHYTHM_BACKUPS], gaps[RHYTHM_BACKUPS];
    size_t count = 0, fulls = 0;
    for (size_t i = input->backup_count; i-- > 0 && count < RHYTHM_BACKUPS;) {
        const RetentionBackup *backup = &input->backups[i];
        if (backup->unreadable)
            continue;
        if (rhythm.newest == NULL)
            rhythm.newest = backup;
        if (backup->is_full)
            fulls++;
        else if (fulls == 0)
            rhythm.since_full++;
        times[count++] = backup->stopped_us;
    }
    if (count < RHYTHM_LEAST)
        return rhythm;
    qsort(times, count, sizeof *times, ascending);
    for (size_t i = 1; i < count; i++)
        gaps[i - 1] = times[i] - times[i - 1];
    qsort(gaps, count - 1, sizeof *gaps, ascending);
    rhythm.cadence_us = gaps[(count - 1) / 2];
    rhythm.fulls_one_in = fulls > 0 ? (count + fulls / 2) / fulls : 0;
    return rhythm;
}

static void
fill_future(RetentionBackup *backup, const Rhythm *rhythm, uint64_t sequence, uint64_t step)
{
    *backup = *rhythm->newest;
    snprintf(backup->bid.text, sizeof backup->bid.text, "%010" PRIu64 "-0000000000000000",
             sequence);
    backup->label = NULL;
    backup->is_full =
        rhythm->fulls_one_in > 0 && (rhythm->since_full + step) % rhythm->fulls_one_in == 0;
    backup->expired = backup->damaged = backup->kept = backup->released = false;
    backup->wal_complete = true;
    backup->start_lsn = backup->stop_lsn = rhythm->newest->stop_lsn + step;
    backup->reach_lsn = 0;
}

/* What is there now and what is foreseen; *count_out of them, malloc'ed. */
static RetentionBackup *
imagine_backups(const RetentionInput *input, const Rhythm *rhythm, RetentionForecast *forecast,
                size_t *count_out)
{
    uint64_t future = 0, skipped = 0;
    int64_t first_us = 0;
    const uint64_t sequence = input->backup_count > 0
                                  ? backup_id_sequence(&input->backups[input->backup_count - 1].bid)
                                  : 0;
    if (rhythm->cadence_us > 0) {
        first_us = rhythm->newest->stopped_us + rhythm->cadence_us;
        if (first_us <= input->now_us)
            first_us += (input->now_us - first_us) / rhythm->cadence_us * rhythm->cadence_us +
                        rhythm->cadence_us;
        if (first_us <= forecast->at_us)
            future = (uint64_t)((forecast->at_us - first_us) / rhythm->cadence_us) + 1;
    }
    if (sequence > SEQUENCE_LIMIT || future > SEQUENCE_LIMIT - sequence)
        future = 0; /* no ids are left: somebody drew an absurd one */
    forecast->taken_count = future;
    forecast->capped = future > RETENTION_FORECAST_LIMIT;
    if (forecast->capped)
        skipped = future - RETENTION_FORECAST_LIMIT;
    const size_t count = input->backup_count + (size_t)(future - skipped);
    RetentionBackup *backups = calloc(count + 1, sizeof *backups);
    CAIRN_ASSERT(backups != NULL);
    if (input->backup_count > 0)
        memcpy(backups, input->backups, input->backup_count * sizeof *backups);
    for (uint64_t step = skipped; step < future; step++) {
        RetentionBackup *backup = &backups[input->backup_count + (step - skipped)];
        fill_future(backup, rhythm, sequence + 1 + step, step + 1);
        backup->started_us = backup->stopped_us = first_us + (int64_t)step * rhythm->cadence_us;
    }
    *count_out = count;
    return backups;
}

/* One decision at the end is what deciding after each backup would leave: whatever a rule keeps
 * at the end it kept at every moment before, being newer then. */
static void
keep_what_stays(RetentionForecast *forecast, const RetentionPlan *plan, size_t present)
{
    const RetentionInput *input = plan->input;
    forecast->backups =
        arena_alloc(forecast->arena, (plan->keep_count + 1) * sizeof *forecast->backups);
    for (size_t i = 0; i < input->backup_count; i++) {
        const RetentionDecision *decision = &plan->decisions[i];
        if (!decision->live || !decision->keep)
            continue;
        forecast->backups[forecast->backup_count++] = (RetentionForecastBackup){
            .is_future = i >= present,
            .label = input->backups[i].label,
            .stopped_us = input->backups[i].stopped_us,
            .is_full = input->backups[i].is_full,
            .reasons = decision->reasons,
            .reason_count = decision->reason_count,
        };
        if (decision->usable && !decision->isolated && forecast->continuous_from_us == 0)
            forecast->continuous_from_us = input->backups[i].stopped_us;
    }
}

RetentionForecast *
retention_forecast(const RetentionInput *input)
{
    RetentionForecast *forecast = calloc(1, sizeof *forecast);
    CAIRN_ASSERT(forecast != NULL);
    forecast->arena = arena_new();
    forecast->at_us = calendar_months_before(input->now_us, -12);
    const Rhythm rhythm = observe_rhythm(input);
    forecast->cadence_us = rhythm.cadence_us;
    forecast->fulls_one_in = rhythm.fulls_one_in;

    RetentionInput then = *input;
    size_t count;
    SCOPED_MEMORY RetentionBackup *backups = imagine_backups(input, &rhythm, forecast, &count);
    then.backups = backups;
    then.backup_count = count;
    then.now_us = forecast->at_us;
    RetentionPlan plan = {.arena = forecast->arena, .input = &then};
    retention_decide(&plan);
    keep_what_stays(forecast, &plan, input->backup_count);
    return forecast;
}

void
retention_forecast_free(RetentionForecast *forecast)
{
    if (forecast == NULL)
        return;
    arena_free(forecast->arena);
    free(forecast);
}
