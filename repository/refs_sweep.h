/*
 * Every pack that any of several backups needs, once, with all who need it.
 *
 * The reference summaries are merged in memory as ranges. Where they are more than the limit, the
 * sweep goes over the creators in several passes and reads the summaries again in each, so that
 * memory stays the same however many backups share however many packs. Time: passes * summaries.
 * Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_REFS_SWEEP_H
#define PGCAIRN_REPOSITORY_REFS_SWEEP_H

#include "repository/refs.h"

/* Numbers of backups, ascending, each once. Borrowed for the call. */
typedef struct {
    const uint32_t *indexes;
    size_t count;
} BackupSet;

/* Summary of backup number `backup` (returned owned); NULL with an empty err: it has none to look
 * at. */
typedef Refs *RefsSource(void *context, uint32_t backup, CairnError *err);
/* A pack, in order of creator, data before map, number. False with err ends the sweep. */
typedef bool RefsVisit(void *context, const BackupId *creator, bool is_map, uint32_t pack,
                       const BackupSet *needed_by, CairnError *err);

typedef struct {
    uint32_t backup_count;
    size_t range_limit; /* 0: REFS_SWEEP_RANGES, or more for very many backups */
    RefsSource *source;
    RefsVisit *visit;
    void *context;
} RefsSweep;

enum { REFS_SWEEP_RANGES = 65536 };

/* For tests and figures. */
typedef struct {
    uint32_t passes;    /* how often the summaries were read */
    size_t most_ranges; /* in memory at a time */
} RefsSweepFigures;

/* figures_out may be NULL. */
bool refs_sweep(const RefsSweep *sweep, RefsSweepFigures *figures_out, CairnError *err) MUST_CHECK;

#endif
