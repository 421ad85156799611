#include "restore/plan_windows.h"

#include "common/timestamp.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    char *text;
    size_t length;
    size_t left_out;
} Lines;

static void
add_line(Lines *lines, const char *line)
{
    const size_t reserve = 40; /* for the count of what is left out */
    const size_t length = strlen(line);
    if (lines->length + length + 1 + reserve >= PLAN_WINDOWS_SIZE) {
        lines->left_out++;
        return;
    }
    memcpy(lines->text + lines->length, line, length);
    lines->length += length;
    lines->text[lines->length++] = '\n';
    lines->text[lines->length] = '\0';
}

/* "timeline 2 (left 1 at 0/5000000)" */
static void
describe_timeline(const WalTimeline *timeline, char *text, size_t size)
{
    const TimelineHistory *path = timeline->history;
    if (path == NULL) {
        snprintf(text, size, "timeline %u (its history file is %s)", timeline->timeline,
                 timeline->history_problem != NULL ? "damaged" : "missing");
    } else if (path->stretch_count < 2) {
        snprintf(text, size, "timeline %u", timeline->timeline);
    } else {
        const TimelineStretch *parent = &path->stretches[path->stretch_count - 2];
        char lsn[LSN_TEXT_SIZE];
        lsn_format(lsn, parent->end_lsn);
        snprintf(text, size, "timeline %u (left %u at %s)", timeline->timeline, parent->timeline,
                 lsn);
    }
}

/* One window: from the end of the first backup on. */
static bool
describe_window(WalArchive *archive, const TimelineHistory *path, const Fate *first,
                const char *timeline_text, Lines *lines, CairnError *err)
{
    WalRecord last;
    int64_t newest_us;
    bool found;
    char start_lsn[LSN_TEXT_SIZE];
    char start_time[TIMESTAMP_TEXT_SIZE];
    char end_lsn[LSN_TEXT_SIZE];
    char end_time[TIMESTAMP_TEXT_SIZE] = "";
    char line[320];

    if (!wal_archive_tail(archive, path, first->start_lsn, &last, &newest_us, &found, err))
        return false;
    if (!found || last.end_lsn < first->stop_lsn)
        return true;
    lsn_format(start_lsn, first->stop_lsn);
    timestamp_format(start_time, first->stopped_us);
    lsn_format(end_lsn, last.end_lsn);
    if (newest_us != 0)
        timestamp_format(end_time, newest_us);
    snprintf(line, sizeof line, "  %s: from %s, %s (backup %s) to %s%s%s", timeline_text, start_lsn,
             start_time, first->label, end_lsn, newest_us != 0 ? ", " : "", end_time);
    add_line(lines, line);
    return true;
}

static bool
describe_path(WalArchive *archive, const WalTimeline *timeline, const PlanCandidates *candidates,
              Lines *lines, CairnError *err)
{
    char timeline_text[96];
    uint64_t covered_end = 0;
    const size_t length_before = lines->length;

    describe_timeline(timeline, timeline_text, sizeof timeline_text);
    for (size_t i = candidates->count; timeline->history != NULL && i-- > 0;) {
        const Fate *backup = candidates->backups[i]->fate;
        if (!timeline_history_contains(timeline->history, backup->stop_timeline,
                                       backup->stop_lsn) ||
            backup->start_lsn < covered_end ||
            wal_archive_missing(archive, timeline->history, backup->start_lsn, backup->stop_lsn,
                                NULL, 0) > 0) {
            continue;
        }
        covered_end = wal_archive_unbroken_end(archive, timeline->history, backup->start_lsn);
        if (!describe_window(archive, timeline->history, backup, timeline_text, lines, err))
            return false;
    }
    if (lines->length == length_before) {
        char line[160];
        snprintf(line, sizeof line, "  %s: no backup with its WAL leads there", timeline_text);
        add_line(lines, line);
    }
    return true;
}

bool
plan_windows_describe(WalArchive *archive, const PlanCandidates *candidates,
                      char text[PLAN_WINDOWS_SIZE], CairnError *err)
{
    Lines lines = {.text = text};
    text[0] = '\0';

    for (size_t i = 0; i < wal_archive_timeline_count(archive); i++) {
        const WalTimeline *timeline = wal_archive_timeline(archive, i);
        if (timeline->is_leaf && !describe_path(archive, timeline, candidates, &lines, err))
            return false;
    }
    if (lines.length == 0)
        add_line(&lines, "  nothing: no WAL is archived; `pgcairn check` tells why");
    if (lines.left_out > 0) {
        snprintf(text + lines.length, PLAN_WINDOWS_SIZE - lines.length, "  and %zu more\n",
                 lines.left_out);
        lines.length = strlen(text);
    }
    if (lines.length > 0)
        text[lines.length - 1] = '\0';
    return true;
}
