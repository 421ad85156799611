/*
 * Fuzzes timeline history files: what parses must be a path without holes, rising in every respect.
 */
#include "postgres/timeline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static TimelineHistory history;

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CairnError err = {0};
    const uint32_t timeline = 1 + (size > 0 ? data[0] : 0);

    if (size == 0 ||
        !timeline_history_parse(timeline, (const char *)data + 1, size - 1, &history, &err)) {
        CAIRN_ASSERT(size == 0 || err.kind == CAIRN_CORRUPT);
        return 0;
    }

    CAIRN_ASSERT(history.stretch_count >= 2 && history.stretch_count <= TIMELINE_HISTORY_LIMIT);
    CAIRN_ASSERT(history.stretches[0].start_lsn == 0);
    for (size_t i = 0; i < history.stretch_count; i++) {
        const TimelineStretch *stretch = &history.stretches[i];
        CAIRN_ASSERT(stretch->start_lsn <= stretch->end_lsn);
        CAIRN_ASSERT(timeline_history_contains(&history, stretch->timeline, stretch->start_lsn));
        CAIRN_ASSERT(timeline_history_contains(&history, stretch->timeline, stretch->end_lsn));
        if (stretch->start_lsn < stretch->end_lsn)
            CAIRN_ASSERT(timeline_history_at(&history, stretch->start_lsn) == stretch->timeline);
        if (i > 0) {
            CAIRN_ASSERT(stretch[-1].timeline < stretch->timeline);
            CAIRN_ASSERT(stretch[-1].end_lsn == stretch->start_lsn);
        }
    }
    CAIRN_ASSERT(history.stretches[history.stretch_count - 1].timeline == timeline);
    CAIRN_ASSERT(history.stretches[history.stretch_count - 1].end_lsn == UINT64_MAX);
    return 0;
}
