/* Answers for people: part of targets.h. */
#include "restore/targets.h"

#include "common/progress.h"
#include "common/timestamp.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* "2026-11-22 23:31:40+00 (0/5000060)"; without a time the LSN alone. */
static void
add_position(ByteWriter *text, uint64_t lsn, int64_t time_us)
{
    char lsn_text[LSN_TEXT_SIZE];
    char time_text[TIMESTAMP_TEXT_SIZE];
    lsn_format(lsn_text, lsn);
    timestamp_format(time_text, time_us);
    if (time_us != 0)
        byte_writer_format(text, "%s (%s)", time_text, lsn_text);
    else
        byte_writer_format(text, "%s", lsn_text);
}

static void
add_window(ByteWriter *text, const char *indent, const Window *window)
{
    byte_writer_format(text, "%s  ", indent);
    add_position(text, window->from_lsn, window->from_us);
    byte_writer_format(text, " .. ");
    add_position(text, window->to_lsn, window->to_us);
    byte_writer_format(text, "  %sfrom backup %s%s", window->inherited ? "goes on " : "",
                       window->backup->fate->label, window->backup_count > 1 ? ", and " : "");
    if (window->backup_count > 1)
        byte_writer_format(text, "%zu more", window->backup_count - 1);
    if (window->problem != NULL)
        byte_writer_format(text, "; what follows cannot be read: %.300s", window->problem);
    byte_writer_format(text, "\n");
}

static void
add_hole(ByteWriter *text, const char *indent, const WindowHole *hole)
{
    char start[LSN_TEXT_SIZE];
    char end[LSN_TEXT_SIZE];
    lsn_format(start, hole->start_lsn);
    lsn_format(end, hole->end_lsn);
    byte_writer_format(text, "%s  HOLE %s .. %s  %" PRIu64 " missing: %s .. %s%s\n", indent, start,
                       end, hole->segment_count, hole->first_segment, hole->last_segment,
                       hole->acknowledged ? "  acknowledged" : "");
}

/* Its windows and holes in the order of WAL, then the timelines that left it. */
static void
add_timeline(ByteWriter *text, const WindowTree *tree, const WindowTimeline *timeline,
             unsigned depth)
{
    char indent[2 * 16 + 1];
    char fork[LSN_TEXT_SIZE];
    size_t hole = 0;

    snprintf(indent, sizeof indent, "%*s", (int)(2 * (depth < 16 ? depth : 16)), "");
    lsn_format(fork, timeline->fork_lsn);
    if (timeline->parent != 0)
        byte_writer_format(text, "%stimeline %" PRIu32 ", left %" PRIu32 " at %s\n", indent,
                           timeline->timeline, timeline->parent, fork);
    else
        byte_writer_format(
            text, "%stimeline %" PRIu32 "%s\n", indent, timeline->timeline,
            timeline->history_problem != NULL
                ? ": its history file is damaged, so that nobody knows where it began"
            : timeline->history_missing
                ? ": its history file is missing, so that nobody knows where it began"
                : "");
    for (size_t i = 0; i < timeline->window_count; i++) {
        const Window *window = &timeline->windows[i];
        for (; hole < timeline->hole_count && timeline->holes[hole].start_lsn < window->from_lsn;
             hole++)
            add_hole(text, indent, &timeline->holes[hole]);
        add_window(text, indent, window);
    }
    for (; hole < timeline->hole_count; hole++)
        add_hole(text, indent, &timeline->holes[hole]);
    if (timeline->window_count == 0)
        byte_writer_format(text, "%s  nothing: no backup with its WAL leads here\n", indent);
    /* Parents have lower numbers, so this ends. */
    for (size_t i = 0; i < tree->count; i++) {
        if (tree->timelines[i].parent == timeline->timeline &&
            tree->timelines[i].timeline > timeline->timeline)
            add_timeline(text, tree, &tree->timelines[i], depth + 1);
    }
}

static bool
has_parent(const WindowTree *tree, const WindowTimeline *timeline)
{
    for (size_t i = 0; i < tree->count; i++) {
        if (tree->timelines[i].timeline == timeline->parent)
            return true;
    }
    return false;
}

static void
add_command(const Targets *targets, const Moment *moment, const RestoreCall *call, ByteWriter *text)
{
    byte_writer_format(text, "  ");
    targets_format_command(targets, moment, call, text);
    byte_writer_format(text, "\n");
}

static void
add_tree(const Targets *targets, const RestoreCall *call, ByteWriter *text)
{
    const WindowTree *tree = targets->tree;
    const Window *newest = NULL;
    byte_writer_format(
        text, "cluster %s, system %" PRIu64 ", PostgreSQL %d: moments that can be returned to\n",
        targets->cluster, targets->incarnation.system_id, targets->incarnation.major);
    for (size_t i = 0; i < tree->count; i++) {
        const WindowTimeline *timeline = &tree->timelines[i];
        if (!has_parent(tree, timeline))
            add_timeline(text, tree, timeline, 0);
        if (timeline->timeline == targets->timeline && timeline->window_count > 0)
            newest = &timeline->windows[timeline->window_count - 1];
    }
    if (targets->earlier_count > 0)
        byte_writer_format(text, "and %zu backup%s of an earlier system: by restore --set=LABEL\n",
                           targets->earlier_count, targets->earlier_count == 1 ? "" : "s");
    if (newest == NULL)
        return;
    Moment end = {.lsn = newest->to_lsn, .backup = newest->backup->fate};
    end.target.type = TARGET_DEFAULT;
    end.target.timeline_choice = targets->several_leaves ? TIMELINE_NUMBER : TIMELINE_UNSAID;
    end.target.timeline = targets->timeline;
    byte_writer_format(
        text, "to its newest moment (--time, --lsn, --xid or --name choose an earlier one):\n");
    add_command(targets, &end, call, text);
}

static const char *
describe_kind(MomentKind kind)
{
    switch (kind) {
    case MOMENT_DROPPED:
        return "dropped";
    case MOMENT_REWRITTEN:
        return "truncated or rewritten";
    case MOMENT_TRUNCATED:
        return "truncated";
    case MOMENT_DATABASE_DROPPED:
        return "lost with its database, whose DROP begins here";
    default:
        return moment_kind_name(kind);
    }
}

static void
add_reach(const Targets *targets, const Moment *moment, const char *where, const RestoreCall *call,
          ByteWriter *text)
{
    if (moment->backup == NULL) {
        byte_writer_format(text, "cannot be returned to: %s\n", moment->why_not);
        return;
    }
    byte_writer_format(text, "%s (from backup %s):\n", where, moment->backup->label);
    add_command(targets, moment, call, text);
}

static void
add_restore_points(const Targets *targets, const RestoreCall *call, ByteWriter *text)
{
    char lsn[LSN_TEXT_SIZE];
    char time[TIMESTAMP_TEXT_SIZE];
    if (targets->count == 0)
        byte_writer_format(text, "no restore points in the stored WAL\n");
    if (targets->left_out > 0)
        byte_writer_format(text, "%zu older ones are left out: --count=N\n", targets->left_out);
    for (size_t i = 0; i < targets->count; i++) {
        const Moment *moment = &targets->moments[i];
        lsn_format(lsn, moment->lsn);
        timestamp_format(time, moment->time_us);
        byte_writer_format(text, "%s  %s  '%s'\n", time, lsn, moment->what);
        add_reach(targets, moment, "  to it", call, text);
    }
}

/* The first transaction that ended at the time asked for or later. */
static const Moment *
first_from(const Targets *targets)
{
    for (size_t i = 0; i < targets->count; i++) {
        if (targets->moments[i].time_us >= targets->asked_us)
            return &targets->moments[i];
    }
    return NULL;
}

static void
add_around(const Targets *targets, const RestoreCall *call, ByteWriter *text)
{
    const Moment *from = first_from(targets);
    char time[TIMESTAMP_TEXT_SIZE];
    char lsn[LSN_TEXT_SIZE];
    char size[32];
    timestamp_format(time, targets->asked_us);
    byte_writer_format(text, "transactions that ended near %s, timeline %" PRIu32 "\n", time,
                       targets->timeline);
    byte_writer_format(text, "  %-32s %-8s %12s %-14s %10s %10s\n", "TIME", "ENDED", "XID", "LSN",
                       "RECORDS", "WAL");
    for (size_t i = 0; i < targets->count; i++) {
        const Moment *moment = &targets->moments[i];
        timestamp_format(time, moment->time_us);
        lsn_format(lsn, moment->lsn);
        format_bytes(size, moment->record_bytes);
        byte_writer_format(text, "%s %-32s %-8s %12" PRIu32 " %-14s %10" PRIu64 " %10s\n",
                           moment == from ? ">" : " ", time, moment_kind_name(moment->kind),
                           moment->xid, lsn, moment->record_count, size);
    }
    byte_writer_format(
        text, "RECORDS and WAL are what a transaction wrote in the segments that were read.\n");
    if (from == NULL)
        from = &targets->moments[targets->count - 1];
    char where[128];
    snprintf(where, sizeof where,
             "to just before transaction %" PRIu32 " ended, with no trace of it", from->xid);
    add_reach(targets, from, where, call, text);
    byte_writer_format(text, "for another one put its LSN there\n");
}

static void
add_events(const Targets *targets, const RestoreCall *call, ByteWriter *text)
{
    if (targets->note[0] != '\0')
        byte_writer_format(text, "%s\n", targets->note);
    for (size_t i = 0; i < targets->count; i++) {
        const Moment *moment = &targets->moments[i];
        byte_writer_format(text, "%s: %s at ", moment->what, describe_kind(moment->kind));
        add_position(text, moment->lsn, moment->time_us);
        if (moment->xid != 0)
            byte_writer_format(text, ", transaction %" PRIu32, moment->xid);
        if (moment->relfilenode != 0)
            byte_writer_format(text, ", file %" PRIu32 "/%" PRIu32, moment->database,
                               moment->relfilenode);
        byte_writer_format(text, "\n");
        add_reach(targets, moment, "to just before it", call, text);
    }
    if (targets->left_out > 0)
        byte_writer_format(text, "and %zu more\n", targets->left_out);
}

void
targets_format_text(const Targets *targets, const RestoreCall *call, ByteWriter *text)
{
    switch (targets->question) {
    case TARGETS_WINDOWS:
        add_tree(targets, call, text);
        break;
    case TARGETS_RESTORE_POINTS:
        add_restore_points(targets, call, text);
        break;
    case TARGETS_AROUND:
        add_around(targets, call, text);
        break;
    default:
        add_events(targets, call, text);
        break;
    }
    if (targets->counts.unreadable + targets->counts.incomplete > 0)
        byte_writer_format(text,
                           "WARNING: %" PRIu64 " segments could not be read, and of %" PRIu64
                           " not all is known: something may be missing above\n",
                           targets->counts.unreadable, targets->counts.incomplete);
    if (targets->counts.missing > 0)
        byte_writer_format(text,
                           "WARNING: %" PRIu64
                           " segments of the WAL that was looked through are missing: something "
                           "may have happened in them\n",
                           targets->counts.missing);
}
