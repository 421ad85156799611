#include "agent/retention_intern.h"
#include "common/timestamp.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOUR_US INT64_C(3600000000)
#define DAY_US (24 * HOUR_US)
/* Clocks of two well-kept hosts; far below what any policy counts in. */
#define CLOCK_TOLERANCE_US (10 * INT64_C(60000000))
#define GAP_US (31 * DAY_US)

enum {
    SHOWN = 3,       /* backups named in one text */
    SIZES = 20,      /* what "usual" is taken from */
    SIZES_LEAST = 3, /* fewer say nothing */
    SIZE_FACTOR = 10,
    GAP_FACTOR = 10,
    GAP_DAYS_WATCHED = 7,
    ODD_TEXT_SIZE = 768,
};

static const char *const NAMES[ANOMALY_KINDS] = {
    [ANOMALY_CLOCK] = "clock", [ANOMALY_ORDER] = "order", [ANOMALY_INCARNATION] = "incarnation",
    [ANOMALY_SIZE] = "size",   [ANOMALY_RATE] = "rate",   [ANOMALY_FATES] = "fates",
    [ANOMALY_COUNT] = "count",
};

/* Backups that are odd in one way: the first few by name, the others as a number. */
typedef struct {
    char text[ODD_TEXT_SIZE];
    size_t size;
    size_t count;
    const char *first; /* label, for the remedy */
} OddBackups;

const char *
retention_anomaly_name(RetentionAnomalyKind kind)
{
    CAIRN_ASSERT(kind < ANOMALY_KINDS);
    return NAMES[kind];
}

bool
retention_anomaly_parse(const char *name, RetentionAnomalyKind *kind_out)
{
    for (size_t i = 0; i < ANOMALY_KINDS; i++) {
        if (strcmp(NAMES[i], name) == 0) {
            *kind_out = (RetentionAnomalyKind)i;
            return true;
        }
    }
    return false;
}

static void PRINTF_LIKE(4, 5) report(RetentionPlan *plan, RetentionAnomalyKind kind,
                                     const char *remedy, const char *format, ...)
{
    char text[2 * ODD_TEXT_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    CAIRN_ASSERT(plan->anomaly_count < RETENTION_ANOMALIES_LIMIT);
    plan->anomalies[plan->anomaly_count++] = (RetentionAnomaly){
        .kind = kind,
        .text = arena_strdup(plan->arena, text),
        .remedy = arena_strdup(plan->arena, remedy),
    };
}

static void PRINTF_LIKE(3, 4)
    note_odd(OddBackups *odd, const RetentionBackup *backup, const char *format, ...)
{
    if (odd->count == 0)
        odd->first = backup->label != NULL ? backup->label : backup->bid.text;
    if (odd->count++ >= SHOWN)
        return;
    va_list args;
    va_start(args, format);
    const char *name = backup->label != NULL ? backup->label : backup->bid.text;
    const size_t room = sizeof odd->text - odd->size;
    int used = snprintf(odd->text + odd->size, room, "%s%s (", odd->size > 0 ? ", " : "", name);
    odd->size += used > 0 && (size_t)used < room ? (size_t)used : room - 1;
    used = vsnprintf(odd->text + odd->size, sizeof odd->text - odd->size, format, args);
    va_end(args);
    odd->size += used > 0 && (size_t)used < sizeof odd->text - odd->size
                     ? (size_t)used
                     : sizeof odd->text - odd->size - 1;
    if (odd->size + 1 < sizeof odd->text) {
        odd->text[odd->size++] = ')';
        odd->text[odd->size] = '\0';
    }
}

static void
report_odd(RetentionPlan *plan, RetentionAnomalyKind kind, const OddBackups *odd, const char *what)
{
    if (odd->count == 0)
        return;
    char remedy[512];
    snprintf(remedy, sizeof remedy,
             "look at it: `pgcairn info --set %s`; is it genuine: `pgcairn release %s` says so for "
             "good; if not: `pgcairn expire --set %s`; or once: --accept=%s",
             odd->first, odd->first, odd->first, NAMES[kind]);
    if (odd->count > SHOWN)
        report(plan, kind, remedy, "%s: %s and %zu more", what, odd->text, odd->count - SHOWN);
    else
        report(plan, kind, remedy, "%s: %s", what, odd->text);
}

static bool
has_times(const RetentionBackup *backup)
{
    return !backup->unreadable;
}

/* Live, and nobody has looked at it yet. */
static bool
is_judged(const RetentionBackup *backup)
{
    return !backup->expired && !backup->unreadable && !backup->released;
}

static void
format_second(char text[TIMESTAMP_TEXT_SIZE], int64_t time_us)
{
    timestamp_format(text, time_us - time_us % 1000000);
}

static void
check_clock(RetentionPlan *plan)
{
    const RetentionInput *input = plan->input;
    const RetentionBackup *newest = NULL;
    for (size_t i = 0; i < input->backup_count; i++) {
        if (has_times(&input->backups[i]) &&
            (newest == NULL || input->backups[i].stopped_us > newest->stopped_us))
            newest = &input->backups[i];
    }
    if (newest == NULL)
        return;
    char now[TIMESTAMP_TEXT_SIZE], other[TIMESTAMP_TEXT_SIZE];
    format_second(now, input->now_us);
    if (input->now_us < newest->stopped_us - CLOCK_TOLERANCE_US) {
        format_second(other, newest->stopped_us);
        report(plan, ANOMALY_CLOCK,
               "set the clock of this host; if it is right and the server's was wrong: "
               "--accept=clock",
               "this host's clock says %s, but backup %s ended at %s", now, newest->label, other);
    } else if (input->now_us < input->newest_object_us - CLOCK_TOLERANCE_US) {
        format_second(other, input->newest_object_us);
        report(plan, ANOMALY_CLOCK,
               "set the clock of this host or of the storage; if this host's is right: "
               "--accept=clock",
               "this host's clock says %s, but the storage has an object of %s", now, other);
    }
    const int64_t latest_us =
        input->newest_object_us > newest->stopped_us ? input->newest_object_us : newest->stopped_us;
    if (input->now_us > latest_us + DAY_US) {
        format_second(other, latest_us);
        report(plan, ANOMALY_CLOCK,
               "does archiving work (`pgcairn check`)? is this host's clock ahead? if both are as "
               "they should be: --accept=clock",
               "this host's clock says %s, but nothing in the repository is younger than %s", now,
               other);
    }
}

static int
ascending(const void *a, const void *b)
{
    const int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* Stop times of all that have one, ascending. malloc'ed. */
static int64_t *
sorted_times(const RetentionInput *input, bool only_judged, size_t *count_out)
{
    int64_t *times = calloc(input->backup_count + 1, sizeof *times);
    CAIRN_ASSERT(times != NULL);
    size_t count = 0;
    for (size_t i = 0; i < input->backup_count; i++) {
        if (only_judged ? is_judged(&input->backups[i]) : has_times(&input->backups[i]))
            times[count++] = input->backups[i].stopped_us;
    }
    if (count > 0)
        qsort(times, count, sizeof *times, ascending);
    *count_out = count;
    return times;
}

/*
 * A backup far from all before it, taken just now: more likely a server whose clock has jumped
 * than a schedule that slept. Graves count too, so that what retention thinned out is no gap.
 */
static void
check_gap(RetentionPlan *plan)
{
    const RetentionInput *input = plan->input;
    size_t count;
    SCOPED_MEMORY int64_t *times = sorted_times(input, false, &count);
    SCOPED_MEMORY int64_t *gaps = calloc(count + 1, sizeof *gaps);
    CAIRN_ASSERT(gaps != NULL);
    if (count < 3)
        return;
    int64_t widest_us = 0, after_us = 0;
    for (size_t i = 1; i < count; i++) {
        gaps[i - 1] = times[i] - times[i - 1];
        if (gaps[i - 1] > widest_us && times[i] > input->now_us - GAP_DAYS_WATCHED * DAY_US) {
            widest_us = gaps[i - 1];
            after_us = times[i];
        }
    }
    qsort(gaps, count - 1, sizeof *gaps, ascending);
    if (widest_us <= GAP_US || widest_us / GAP_FACTOR <= gaps[(count - 1) / 2])
        return;
    char before[TIMESTAMP_TEXT_SIZE], after[TIMESTAMP_TEXT_SIZE];
    format_second(before, after_us - widest_us);
    format_second(after, after_us);
    report(plan, ANOMALY_CLOCK,
           "is the date of server and host right? if there really was no backup for so long: "
           "--accept=clock, or wait: a week later it counts as settled",
           "between %s and %s there is no backup: a clock may have jumped", before, after);
}

/* The highest LSN of a timeline so far, by sequence. */
typedef struct {
    uint64_t system_id;
    int major;
    uint32_t timeline;
    const RetentionBackup *highest;
} TimelineOrder;

static TimelineOrder *
order_of(TimelineOrder *orders, size_t *count, const RetentionBackup *backup)
{
    for (size_t i = *count; i-- > 0;) {
        TimelineOrder *order = &orders[i];
        if (order->timeline == backup->timeline && order->system_id == backup->system_id &&
            order->major == backup->major)
            return order;
    }
    TimelineOrder *order = &orders[(*count)++];
    *order = (TimelineOrder){backup->system_id, backup->major, backup->timeline, NULL};
    return order;
}

/*
 * WAL only grows, so a later sequence with a lower LSN on the same timeline is odd, unless the two
 * ran beside each other: an id is drawn before the server's checkpoint, which may take minutes.
 */
static void
check_order(RetentionPlan *plan)
{
    const RetentionInput *input = plan->input;
    OddBackups lsn = {0}, time = {0};
    SCOPED_MEMORY TimelineOrder *orders = calloc(input->backup_count + 1, sizeof *orders);
    CAIRN_ASSERT(orders != NULL);
    size_t order_count = 0;
    const RetentionBackup *latest = NULL;
    for (size_t i = 0; i < input->backup_count; i++) {
        const RetentionBackup *backup = &input->backups[i];
        if (backup->expired || backup->unreadable)
            continue;
        TimelineOrder *order = order_of(orders, &order_count, backup);
        const RetentionBackup *highest = order->highest;
        if (highest != NULL && backup->start_lsn < highest->start_lsn) {
            if (is_judged(backup) && backup->started_us > highest->stopped_us)
                note_odd(&lsn, backup, "starts at a lower LSN than %s, which is older",
                         highest->label);
        } else {
            order->highest = backup;
        }
        if (latest != NULL && backup->started_us < latest->started_us - DAY_US) {
            if (is_judged(backup))
                note_odd(&time, backup, "is dated before %s, which has a lower sequence",
                         latest->label);
        } else if (latest == NULL || backup->started_us > latest->started_us) {
            latest = backup;
        }
    }
    report_odd(plan, ANOMALY_ORDER, &lsn, "the LSN goes back");
    report_odd(plan, ANOMALY_ORDER, &time, "the server's time goes back");
}

static void
check_incarnations(RetentionPlan *plan)
{
    const RetentionInput *input = plan->input;
    OddBackups odd = {0};
    for (size_t i = 0; i < input->backup_count; i++) {
        const RetentionBackup *backup = &input->backups[i];
        if (is_judged(backup) && !retention_knows_system(input, backup))
            note_odd(&odd, backup, "system %" PRIu64 ", PostgreSQL %d", backup->system_id,
                     backup->major);
    }
    report_odd(plan, ANOMALY_INCARNATION, &odd,
               "the record of its system cannot be read, or this cluster never was that system");
}

/* Sizes of the last backups of one kind that were not odd. */
typedef struct {
    uint64_t sizes[SIZES];
    size_t count; /* ever; the newest SIZES are there */
} UsualSizes;

static int
ascending_sizes(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static bool
is_usual(const UsualSizes *usual, uint64_t size_bytes, uint64_t *median_out)
{
    const size_t count = usual->count < SIZES ? usual->count : SIZES;
    uint64_t sorted[SIZES];
    if (count < SIZES_LEAST)
        return true;
    memcpy(sorted, usual->sizes, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, ascending_sizes);
    const uint64_t median = sorted[count / 2];
    *median_out = median;
    return size_bytes >= median / SIZE_FACTOR && size_bytes / SIZE_FACTOR <= median;
}

/*
 * Against those before it, so that a database may grow; what is odd never becomes the measure,
 * however often it comes, until a person releases one of them: from there it is counted anew.
 */
static void
check_sizes(RetentionPlan *plan)
{
    const RetentionInput *input = plan->input;
    UsualSizes usual[2] = {0};
    OddBackups odd = {0};
    for (size_t i = 0; i < input->backup_count; i++) {
        const RetentionBackup *backup = &input->backups[i];
        UsualSizes *kind = &usual[backup->is_full ? 1 : 0];
        uint64_t median = 0;
        if (backup->unreadable || backup->damaged)
            continue;
        if (backup->released)
            kind->count = 0;
        if (!is_usual(kind, backup->size_bytes, &median)) {
            if (is_judged(backup))
                note_odd(&odd, backup, "%" PRIu64 " bytes, usual are %" PRIu64, backup->size_bytes,
                         median);
            continue;
        }
        kind->sizes[kind->count++ % SIZES] = backup->size_bytes;
    }
    report_odd(plan, ANOMALY_SIZE, &odd, "ten times larger or smaller than its kind");
}

static void
check_rate(RetentionPlan *plan)
{
    size_t count;
    SCOPED_MEMORY int64_t *times = sorted_times(plan->input, true, &count);
    size_t most = 0, most_at = 0;
    for (size_t first = 0, last = 0; last < count; last++) {
        while (times[last] - times[first] >= HOUR_US)
            first++;
        if (last - first + 1 > most) {
            most = last - first + 1;
            most_at = first;
        }
    }
    if (most <= RETENTION_HOURLY_LIMIT)
        return;
    char at[TIMESTAMP_TEXT_SIZE];
    format_second(at, times[most_at]);
    report(plan, ANOMALY_RATE,
           "who takes them? `pgcairn info` lists them; if all are genuine: --accept=rate",
           "%zu backups within the hour from %s on: more than %d", most, at,
           RETENTION_HOURLY_LIMIT);
}

static int
by_bid(const void *key, const void *element)
{
    return strcmp(key, ((const RetentionBackup *)element)->bid.text);
}

/* Fates are never deleted, so each one's predecessor must be there. */
static void
check_fates(RetentionPlan *plan)
{
    const RetentionInput *input = plan->input;
    OddBackups unreadable = {0}, missing = {0};
    for (size_t i = 0; i < input->backup_count; i++) {
        const RetentionBackup *backup = &input->backups[i];
        if (backup->unreadable)
            note_odd(&unreadable, backup, "sequence %" PRIu64, backup_id_sequence(&backup->bid));
        else if (backup->previous.text[0] != '\0' &&
                 bsearch(backup->previous.text, input->backups, input->backup_count,
                         sizeof *input->backups, by_bid) == NULL)
            note_odd(&missing, backup, "came after %s", backup->previous.text);
    }
    if (unreadable.count > 0)
        report(
            plan, ANOMALY_FATES,
            "`pgcairn verify` tells what is wrong; a newer pgcairn may have written it; if it is "
            "lost for good: --accept=fates",
            "%zu backup%s cannot be read: %s", unreadable.count, unreadable.count == 1 ? "" : "s",
            unreadable.text);
    if (missing.count > 0)
        report(plan, ANOMALY_FATES,
               "is the whole repository mounted and copied? Fates are never deleted; if they are "
               "lost for good: --accept=fates",
               "fates that must be there are not: %s%s", missing.text,
               missing.count > SHOWN ? " and more" : "");
}

static void
check_count(RetentionPlan *plan)
{
    if (plan->expire_count <= RETENTION_RUN_LIMIT)
        return;
    report(plan, ANOMALY_COUNT,
           "`pgcairn expire --plan` lists them; if they shall go: --accept=count",
           "%zu backups would go at once: more than %d", plan->expire_count, RETENTION_RUN_LIMIT);
}

void
retention_find_anomalies(RetentionPlan *plan, unsigned accepted)
{
    check_clock(plan);
    check_gap(plan);
    check_order(plan);
    check_incarnations(plan);
    check_sizes(plan);
    check_rate(plan);
    check_fates(plan);
    check_count(plan);
    for (size_t i = 0; i < plan->anomaly_count; i++) {
        RetentionAnomaly *anomaly = &plan->anomalies[i];
        anomaly->accepted = (accepted & 1U << anomaly->kind) != 0;
        plan->frozen |= !anomaly->accepted;
    }
}
