/*
 * Which moments can be returned to, and what lies just before an accident: `pgcairn targets`.
 *
 * What: searches the ledger (wal_ledger.h) for what a person remembers (a time, a table, a restore
 * point) and answers with moments, each with the target that `restore` takes to get just before it
 * (or to it), proven by the same plan. Names come from the newest names that a backup kept before
 * the event (names.h).
 * Units: times in microseconds since 1970 UTC, LSNs where records begin.
 * Ownership: everything lives in the result. Errors: NOT_FOUND where nothing of that kind is there,
 * with what was looked through; the repository's. A moment that restore would refuse is shown, with
 * the reason. Memory: MOMENT_LIMIT moments, facts of two segments. Threads: one thread.
 */
#ifndef PGCAIRN_RESTORE_TARGETS_H
#define PGCAIRN_RESTORE_TARGETS_H

#include "common/arena.h"
#include "common/bytes.h"
#include "repository/catalog.h"
#include "repository/wal_ledger.h"
#include "restore/names.h"
#include "restore/target.h"
#include "restore/windows.h"

#include <jansson.h>

enum { MOMENT_LIMIT = 1000, MOMENT_COUNT_DEFAULT = 10 };

typedef enum {
    MOMENT_COMMIT,
    MOMENT_ABORT,
    MOMENT_RESTORE_POINT,
    MOMENT_DROPPED,   /* the commit of a DROP */
    MOMENT_REWRITTEN, /* a commit that gave the table another file: TRUNCATE, VACUUM FULL, ... */
    MOMENT_TRUNCATED, /* the same, and WAL says that it was TRUNCATE */
    MOMENT_DATABASE_DROPPED, /* where DROP DATABASE began to take it away: before its commit */
} MomentKind;

typedef struct {
    MomentKind kind;
    uint64_t lsn;     /* of the record that the moment lies before; of a restore point, its own */
    int64_t time_us;  /* 0: not known */
    uint32_t xid;     /* 0: none */
    const char *what; /* "database.schema.table", a restore point's name, or "" */
    uint32_t database, relfilenode;      /* 0 where it is no file */
    uint64_t record_count, record_bytes; /* COMMIT, ABORT: of that xid in the WAL that was read */
    /* How to get there. */
    Target target;
    const Fate *backup;  /* that it would be restored from; NULL: it cannot be reached */
    const char *why_not; /* then; "" else */
} Moment;

typedef enum {
    TARGETS_WINDOWS,
    TARGETS_RESTORE_POINTS,
    TARGETS_AROUND,
    TARGETS_BEFORE_DROP,
    TARGETS_BEFORE_TRUNCATE,
    TARGETS_BEFORE_FILE,
    TARGETS_BEFORE_DROP_DATABASE,
} TargetsQuestion;

typedef struct {
    const char *cluster;
    TargetsQuestion question;
    int64_t time_us;         /* AROUND */
    NameWish wish;           /* BEFORE_DROP, BEFORE_TRUNCATE */
    const char *database;    /* BEFORE_DROP_DATABASE: its name */
    uint32_t database_oid;   /* BEFORE_FILE; BEFORE_DROP_DATABASE by its oid, else 0 */
    uint32_t relfilenode;    /* BEFORE_FILE */
    uint32_t timeline;       /* 0: the newest one */
    size_t count;            /* AROUND: so many before and after; RESTORE_POINTS: the newest */
    const NamedFiles *live;  /* what the wish names in a running server; NULL: not known */
    uint64_t live_system_id; /* of that server */
} TargetsOptions;

typedef struct {
    Arena *arena;
    Catalog *catalog;
    Incarnation incarnation;
    const char *cluster;
    TargetsQuestion question;
    int64_t asked_us;     /* of AROUND */
    WindowTree *tree;     /* of WINDOWS */
    size_t earlier_count; /* backups of an earlier system, which only --set reaches */
    uint32_t timeline;    /* searched */
    bool several_leaves;  /* then restore is told which */
    Moment *moments;
    size_t count;
    size_t left_out;           /* older ones, or further away */
    uint64_t from_lsn, to_lsn; /* of the WAL that was looked through */
    WalLedgerCounts counts;
    const char *note; /* what a person should know of the answer; "" */
} Targets;

Targets *targets_find(Repository *repository, const TargetsOptions *options,
                      CairnError *err) MUST_CHECK;
void targets_free(Targets *targets);
SCOPED_TYPE(Targets, targets_free);

const char *moment_kind_name(MomentKind kind);

/* How restore is called: what stands before the target's options. Words are quoted for a shell. */
typedef struct {
    const char *program;
    const char *config;     /* NULL: not said */
    const char *cluster;    /* NULL: not needed */
    const char *repository; /* NULL: not needed */
    const char *to;         /* absolute; NULL: named after the moment, below here */
    const char *here;       /* absolute */
} RestoreCall;

/* The command that returns to a moment, as one line. */
void targets_format_command(const Targets *targets, const Moment *moment, const RestoreCall *call,
                            ByteWriter *text);
void targets_format_text(const Targets *targets, const RestoreCall *call, ByteWriter *text);
json_t *targets_format_json(const Targets *targets, const RestoreCall *call);

#endif
