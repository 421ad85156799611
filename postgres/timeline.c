#include "postgres/timeline.h"

#include "postgres/wal_name.h"

#include <string.h>

/* What one line says: this timeline was left at this LSN. */
typedef struct {
    uint32_t timeline;
    uint64_t switch_lsn;
} SwitchPoint;

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static const char *
skip_blanks(const char *at, const char *end)
{
    while (at < end && is_blank(*at))
        at++;
    return at;
}

/* A decimal number that fits 32 bits; NULL otherwise. */
static const char *
parse_timeline(const char *at, const char *end, uint32_t *timeline_out)
{
    const char *start = at;
    uint64_t value = 0;

    for (; at < end && *at >= '0' && *at <= '9'; at++) {
        value = value * 10 + (uint64_t)(*at - '0');
        if (value > UINT32_MAX)
            return NULL;
    }
    if (at == start || value == 0)
        return NULL;
    *timeline_out = (uint32_t)value;
    return at;
}

/*
 * at..end is a line without its newline, its first character no blank. `terminated` is false for a
 * last line whose newline is missing: its LSN must be followed by something, because digits may
 * have been cut off and a shorter LSN is a plausible wrong one.
 */
static bool
parse_line(const char *at, const char *end, bool terminated, SwitchPoint *point_out)
{
    char lsn[LSN_TEXT_SIZE];

    at = parse_timeline(at, end, &point_out->timeline);
    if (at == NULL || at == end || !is_blank(*at))
        return false;
    at = skip_blanks(at, end);

    const char *lsn_start = at;
    while (at < end && !is_blank(*at))
        at++;
    const size_t lsn_size = (size_t)(at - lsn_start);
    if (lsn_size >= sizeof lsn || (at == end && !terminated))
        return false;
    memcpy(lsn, lsn_start, lsn_size);
    lsn[lsn_size] = '\0';
    return lsn_parse(lsn, &point_out->switch_lsn);
}

void
timeline_history_root(uint32_t timeline, TimelineHistory *history_out)
{
    history_out->timeline = timeline;
    history_out->stretch_count = 1;
    history_out->stretches[0] =
        (TimelineStretch){.timeline = timeline, .start_lsn = 0, .end_lsn = UINT64_MAX};
}

/* Closes the history's last stretch at the point, and opens the one after it. */
static bool
add_switch(TimelineHistory *history, SwitchPoint point, size_t line, CairnError *err)
{
    TimelineStretch *last = &history->stretches[history->stretch_count - 1];
    const uint32_t parent =
        history->stretch_count > 1 ? history->stretches[history->stretch_count - 2].timeline : 0;

    if (point.timeline <= parent || point.timeline >= history->timeline) {
        return cairn_error(err, CAIRN_CORRUPT, "line %zu: timeline %u is out of order", line,
                           point.timeline);
    }
    if (point.switch_lsn < last->start_lsn) {
        return cairn_error(err, CAIRN_CORRUPT, "line %zu: timeline %u ends before it begins", line,
                           point.timeline);
    }
    if (history->stretch_count == TIMELINE_HISTORY_LIMIT) {
        return cairn_error(err, CAIRN_CORRUPT, "line %zu: more than %d timelines", line,
                           TIMELINE_HISTORY_LIMIT);
    }

    last->timeline = point.timeline;
    last->end_lsn = point.switch_lsn;
    history->stretches[history->stretch_count++] = (TimelineStretch){
        .timeline = history->timeline, .start_lsn = point.switch_lsn, .end_lsn = UINT64_MAX};
    return true;
}

static bool
parse_lines(const char *text, size_t size, TimelineHistory *history, CairnError *err)
{
    const char *const end = text + size;
    size_t line = 0;

    for (const char *at = text; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *line_end = newline != NULL ? newline : end;
        SwitchPoint point;

        line++;
        at = skip_blanks(at, line_end);
        if (at < line_end && *at != '#') {
            if (!parse_line(at, line_end, newline != NULL, &point)) {
                return cairn_error(err, CAIRN_CORRUPT,
                                   "line %zu is not a timeline and its switch point", line);
            }
            if (!add_switch(history, point, line, err))
                return false;
        }
        at = newline != NULL ? newline + 1 : end;
    }

    /* PostgreSQL never writes a history without a parent: an empty file lost its content. */
    if (history->stretch_count == 1)
        return cairn_error(err, CAIRN_CORRUPT, "names no parent timeline");
    return true;
}

bool
timeline_history_parse(uint32_t timeline, const char *text, size_t size,
                       TimelineHistory *history_out, CairnError *err)
{
    if (size > TIMELINE_HISTORY_FILE_LIMIT) {
        return cairn_error(err, CAIRN_CORRUPT, "history of timeline %u: %zu bytes, more than %d",
                           timeline, size, TIMELINE_HISTORY_FILE_LIMIT);
    }
    timeline_history_root(timeline, history_out);
    if (!parse_lines(text, size, history_out, err))
        return cairn_error_wrap(err, "history of timeline %u", timeline);
    return true;
}

uint32_t
timeline_history_at(const TimelineHistory *history, uint64_t lsn)
{
    for (size_t i = 0; i < history->stretch_count; i++) {
        const TimelineStretch *stretch = &history->stretches[i];
        if (lsn >= stretch->start_lsn && lsn < stretch->end_lsn)
            return stretch->timeline;
    }
    /* UINT64_MAX itself: the last stretch has no end. */
    return lsn == UINT64_MAX ? history->timeline : 0;
}

bool
timeline_history_contains(const TimelineHistory *history, uint32_t timeline, uint64_t lsn)
{
    for (size_t i = 0; i < history->stretch_count; i++) {
        const TimelineStretch *stretch = &history->stretches[i];
        if (stretch->timeline == timeline)
            return lsn >= stretch->start_lsn && lsn <= stretch->end_lsn;
    }
    return false;
}
