/*
 * Timeline history files (facts 5.8): who forked from whom, and where.
 */
#ifndef PGCAIRN_POSTGRES_TIMELINE_H
#define PGCAIRN_POSTGRES_TIMELINE_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

enum { TIMELINE_HISTORY_LIMIT = 1024, TIMELINE_HISTORY_FILE_LIMIT = 1 << 20 };

/* One stretch of a path: timeline from start_lsn to end_lsn (UINT64_MAX for the last one). */
typedef struct {
    uint32_t timeline;
    uint64_t start_lsn;
    uint64_t end_lsn;
} TimelineStretch;

/* Oldest first; the last stretch is the timeline itself. */
typedef struct {
    uint32_t timeline;
    size_t stretch_count;
    TimelineStretch stretches[TIMELINE_HISTORY_LIMIT];
} TimelineHistory;

/* The path of a timeline without a history file (timeline 1). */
void timeline_history_root(uint32_t timeline, TimelineHistory *history_out);
/* text: content of `<timeline>.history`. CORRUPT when lines do not parse, timelines do not rise,
   switch points fall or no parent is named. */
bool timeline_history_parse(uint32_t timeline, const char *text, size_t size,
                            TimelineHistory *history_out, CairnError *err) MUST_CHECK;
/* Timeline that holds the byte at lsn on this path; 0 when before its first stretch. */
uint32_t timeline_history_at(const TimelineHistory *history, uint64_t lsn);
/* True when (timeline, lsn) lies on this path: lsn is on that timeline's own stretch or its end. */
bool timeline_history_contains(const TimelineHistory *history, uint32_t timeline, uint64_t lsn);

#endif
