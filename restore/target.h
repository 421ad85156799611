/*
 * Where recovery is to stop, as a person asked for it. No repository is looked at here: plan.h
 * proves whether the target can be reached.
 *
 * Units: times in microseconds since 1970 UTC, LSNs in bytes.
 * Ownership: a Target is a plain value and borrows nothing.
 * Errors: USAGE for options that contradict each other, values that do not parse, and times without
 * a zone unless the cluster's `timezone` is configured: an hour's difference is a day's work lost.
 * Threads: one thread (reading a time in a named zone sets TZ for a moment).
 */
#ifndef PGCAIRN_RESTORE_TARGET_H
#define PGCAIRN_RESTORE_TARGET_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    TARGET_DEFAULT,   /* the end of the archive */
    TARGET_IMMEDIATE, /* as soon as the backup is consistent */
    TARGET_TIME,
    TARGET_LSN,
    TARGET_XID,
    TARGET_NAME,
    TARGET_STANDBY,
    TARGET_NONE, /* no recovery settings: the laid-down WAL alone */
} TargetType;

/* UNSAID writes nothing, so PostgreSQL's own default (pause) holds. */
typedef enum { ACTION_UNSAID, ACTION_PAUSE, ACTION_PROMOTE, ACTION_SHUTDOWN } TargetAction;
typedef enum { TIMELINE_UNSAID, TIMELINE_LATEST, TIMELINE_CURRENT, TIMELINE_NUMBER } TimelineChoice;

enum { TARGET_NAME_LIMIT = 63 };

typedef struct {
    TargetType type;
    bool exclusive;
    TargetAction action;
    TimelineChoice timeline_choice;
    uint32_t timeline; /* of TIMELINE_NUMBER */
    int64_t time_us;
    uint64_t lsn;
    uint64_t xid;
    char name[TARGET_NAME_LIMIT + 1];
} Target;

/* Texts as given; NULL where an option was not. */
typedef struct {
    const char *type;
    const char *value; /* --target */
    const char *time;
    const char *lsn;
    const char *xid;
    const char *name;
    bool immediate;
    bool exclusive;
    const char *action;
    const char *timeline;
    const char *timezone; /* the cluster's, for times that say none; NULL: they are refused */
} TargetOptions;

bool target_parse(const TargetOptions *options, Target *target_out, CairnError *err) MUST_CHECK;

const char *target_type_name(TargetType type);
/* NULL for ACTION_UNSAID. */
const char *target_action_name(TargetAction action);

enum { TARGET_TEXT_SIZE = 160 };
/* "time 2026-11-22 23:31:40+00, exclusive": for people. */
void target_describe(char text[TARGET_TEXT_SIZE], const Target *target);

#endif
