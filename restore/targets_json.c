/* Answers for programs: part of targets.h. */
#include "repository/json.h"
#include "restore/targets.h"

#include <string.h>

/* Every "o" below takes the reference; a NULL anywhere makes the whole NULL, which the caller sees
 * once. */

static json_t *
time_or_null(int64_t time_us)
{
    return time_us != 0 ? json_time(time_us) : json_null();
}

static json_t *
window_json(const Window *window)
{
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:b, s:s?}", "backup",
                     window->backup->fate->label, "backups", (json_int_t)window->backup_count,
                     "from_lsn", json_lsn(window->from_lsn), "from", time_or_null(window->from_us),
                     "to_lsn", json_lsn(window->to_lsn), "to", time_or_null(window->to_us),
                     "inherited", window->inherited, "problem", window->problem);
}

static json_t *
hole_json(const WindowHole *hole)
{
    return json_pack("{s:o, s:o, s:I, s:s, s:s, s:b}", "start_lsn", json_lsn(hole->start_lsn),
                     "end_lsn", json_lsn(hole->end_lsn), "segment_count",
                     (json_int_t)hole->segment_count, "first_segment", hole->first_segment,
                     "last_segment", hole->last_segment, "acknowledged", hole->acknowledged);
}

static json_t *
timeline_json(const WindowTimeline *timeline)
{
    const bool forked = timeline->parent != 0;
    json_t *windows = json_array();
    json_t *holes = json_array();
    for (size_t i = 0; i < timeline->window_count; i++)
        json_array_append_new(windows, window_json(&timeline->windows[i]));
    for (size_t i = 0; i < timeline->hole_count; i++)
        json_array_append_new(holes, hole_json(&timeline->holes[i]));
    return json_pack(
        "{s:I, s:o, s:o, s:b, s:b, s:s?, s:o, s:o}", "timeline", (json_int_t)timeline->timeline,
        "parent", forked ? json_integer(timeline->parent) : json_null(), "fork_lsn",
        forked ? json_lsn(timeline->fork_lsn) : json_null(), "is_leaf", timeline->is_leaf,
        "history_missing", timeline->history_missing, "history_problem", timeline->history_problem,
        "windows", windows, "holes", holes);
}

static json_t *
command_json(const Targets *targets, const Moment *moment, const RestoreCall *call)
{
    if (moment->backup == NULL)
        return json_null();
    SCOPED_BYTES ByteWriter text = {0};
    targets_format_command(targets, moment, call, &text);
    byte_writer_u8(&text, '\0');
    return text.failed ? NULL : json_string((const char *)text.data);
}

static json_t *
moment_json(const Targets *targets, const Moment *moment, const RestoreCall *call)
{
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:b, s:s?, s:o, s:o}", "kind",
                     moment_kind_name(moment->kind), "lsn", json_lsn(moment->lsn), "time",
                     time_or_null(moment->time_us), "xid",
                     moment->xid != 0 ? json_integer(moment->xid) : json_null(), "what",
                     json_lossy_text(moment->what), "database_oid",
                     moment->database != 0 ? json_integer(moment->database) : json_null(),
                     "relfilenode",
                     moment->relfilenode != 0 ? json_integer(moment->relfilenode) : json_null(),
                     "records", (json_int_t)moment->record_count, "record_bytes",
                     (json_int_t)moment->record_bytes, "reachable", moment->backup != NULL,
                     "backup", moment->backup != NULL ? moment->backup->label : NULL, "why_not",
                     moment->backup == NULL ? json_lossy_text(moment->why_not) : json_null(),
                     "restore", command_json(targets, moment, call));
}

json_t *
targets_format_json(const Targets *targets, const RestoreCall *call)
{
    json_t *moments = json_array();
    json_t *timelines = json_array();
    for (size_t i = 0; i < targets->count; i++)
        json_array_append_new(moments, moment_json(targets, &targets->moments[i], call));
    for (size_t i = 0; targets->tree != NULL && i < targets->tree->count; i++)
        json_array_append_new(timelines, timeline_json(&targets->tree->timelines[i]));
    return json_pack(
        "{s:s, s:o, s:i, s:I, s:o, s:o, s:I, s:s, s:{s:I, s:I, s:I, s:I, s:I, s:I}}", "cluster",
        targets->cluster, "system_id", json_u64_text(targets->incarnation.system_id), "major",
        targets->incarnation.major, "timeline", (json_int_t)targets->timeline, "timelines",
        timelines, "moments", moments, "left_out", (json_int_t)targets->left_out, "note",
        targets->note, "segments", "indexed", (json_int_t)targets->counts.indexed, "stored",
        (json_int_t)targets->counts.stored, "decoded", (json_int_t)targets->counts.decoded,
        "unreadable", (json_int_t)targets->counts.unreadable, "incomplete",
        (json_int_t)targets->counts.incomplete, "missing", (json_int_t)targets->counts.missing);
}
