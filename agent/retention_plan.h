/*
 * What a policy keeps and what it lets go, decided over plain structs: no storage, no clock, no
 * side effect. `expire --plan` shows a plan, `expire` carries the same one out.
 *
 * Invariants:
 *  1. Without rules everything stays.
 *  2. The newest usable backup stays, and whatever is kept by hand.
 *  3. A backup that is damaged or lacks WAL counts for no rule: it never makes another one go.
 *  4. Order is by sequence, and by LSN within one incarnation. Times decide only which hour, day
 *     or window a backup belongs to; they are the server's, from the fate.
 *  5. The start of a pitr window is covered: the newest backup older than it stays, on every
 *     timeline that was still alive then.
 *  6. While a timeline's history is unreadable, every backup that it may come from stays, and all
 *     WAL after it.
 *  7. No rule lets a backup go whose system's record is missing or unreadable.
 *  8. Anything odd freezes the plan (RetentionAnomaly): then nothing may be marked.
 *
 * Units: microseconds since 1970 UTC, half-open LSN ranges. Memory: about 200 bytes a backup.
 * Ownership: a plan owns its texts and borrows the backups. Threads: pure.
 */
#ifndef PGCAIRN_AGENT_RETENTION_PLAN_H
#define PGCAIRN_AGENT_RETENTION_PLAN_H

#include "agent/retention_policy.h"
#include "common/arena.h"
#include "common/scoped.h"
#include "repository/backup_id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One backup that has a fate: committed, expired already, or unreadable. */
typedef struct {
    BackupId bid;
    const char *label; /* borrowed */
    bool is_full;
    bool expired;    /* its mark says so: a grave, looked at for oddities only */
    bool unreadable; /* only bid is filled */
    bool wal_complete, damaged;
    bool kept;     /* by hand */
    bool released; /* looked at by a person and handed to the policy: never odd */
    uint64_t system_id;
    int major;
    uint32_t timeline; /* of stop_lsn */
    uint64_t start_lsn, stop_lsn;
    uint64_t reach_lsn; /* end of the unbroken WAL from start_lsn on; 0: not known */
    int64_t started_us, stopped_us;
    uint64_t size_bytes; /* of the database */
    BackupId previous;   /* the newest committed one when it was made; "" none */
} RetentionBackup;

/* A timeline of an incarnation. */
typedef struct {
    uint64_t system_id;
    int major;
    uint32_t timeline;
    uint32_t parent; /* 0: none, or not known */
    uint64_t fork_lsn;
    bool is_leaf;
    bool unreadable; /* its history is: it may have left any timeline with a lower number */
} RetentionTimeline;

typedef struct {
    uint64_t system_id;
    int major;
} RetentionIncarnation;

typedef struct {
    const RetentionPolicy *policy;
    int64_t now_us;
    int64_t newest_object_us;       /* newest time that the storage itself states; 0: not known */
    const RetentionBackup *backups; /* ascending by bid */
    size_t backup_count;
    const RetentionTimeline *timelines;
    size_t timeline_count;
    const RetentionIncarnation *incarnations; /* that the cluster is recorded to have had */
    size_t incarnation_count;
} RetentionInput;

typedef struct {
    bool live;   /* not expired already */
    bool usable; /* live, all its WAL there, not damaged */
    bool keep;
    bool in_window;       /* kept by a rule that promises every moment since: pitr, full, last */
    bool isolated;        /* kept outside of every window: needs no WAL but its own start..stop */
    const char **reasons; /* "daily 2026-11-20", "kept by hand", "last good backup", ... */
    size_t reason_count;
} RetentionDecision;

typedef enum {
    ANOMALY_CLOCK,       /* our clock against the server's and the storage's */
    ANOMALY_ORDER,       /* LSN or server time that goes back against the sequence */
    ANOMALY_INCARNATION, /* of a system that this cluster never was */
    ANOMALY_SIZE,        /* ten times larger or smaller than its kind */
    ANOMALY_RATE,        /* too many in an hour */
    ANOMALY_FATES,       /* missing or unreadable */
    ANOMALY_COUNT,       /* too many would go at once */
    ANOMALY_KINDS,
} RetentionAnomalyKind;

typedef struct {
    RetentionAnomalyKind kind;
    bool accepted;
    const char *text;
    const char *remedy;
} RetentionAnomaly;

/* Moments that can be restored now and could not be afterwards. */
typedef struct {
    int64_t from_us;
    int64_t to_us; /* 0: to the end of that WAL */
    uint64_t from_lsn, to_lsn;
    uint32_t timeline;
} RetentionWindow;

enum { RETENTION_ANOMALIES_LIMIT = 32, RETENTION_HOURLY_LIMIT = 20, RETENTION_RUN_LIMIT = 100 };

typedef struct {
    Arena *arena;
    const RetentionInput *input;  /* borrowed */
    RetentionDecision *decisions; /* as input->backups */
    size_t live_count, keep_count, expire_count;
    RetentionAnomaly anomalies[RETENTION_ANOMALIES_LIMIT];
    size_t anomaly_count;
    bool frozen; /* an anomaly that is not accepted */
    RetentionWindow *lost;
    size_t lost_count;
} RetentionPlan;

/* accepted: bit 1 << kind for each anomaly that a person accepts. Returned owned; input and what
 * it points to must outlive the plan. */
RetentionPlan *retention_plan_make(const RetentionInput *input, unsigned accepted);
void retention_plan_free(RetentionPlan *plan);
SCOPED_TYPE(RetentionPlan, retention_plan_free);

/* The newest usable backup's index; backup_count when there is none. */
size_t retention_last_good(const RetentionInput *input);

/* "clock", "order", ...: what --accept takes. False for any other text. */
const char *retention_anomaly_name(RetentionAnomalyKind kind);
bool retention_anomaly_parse(const char *name, RetentionAnomalyKind *kind_out) MUST_CHECK;

/*
 * What will exist a year from now if backups go on as they came lately and nothing else changes.
 */
typedef struct {
    bool is_future; /* not taken yet */
    const char *label;
    int64_t stopped_us;
    bool is_full;
    const char **reasons;
    size_t reason_count;
} RetentionForecastBackup;

typedef struct {
    Arena *arena;
    int64_t at_us;
    int64_t cadence_us;  /* between backups, observed; 0: too few to tell, none are foreseen */
    size_t fulls_one_in; /* each so many-th is a full; 1: all, 0: none */
    size_t taken_count;  /* foreseen until then */
    bool capped;         /* they come so often that only RETENTION_FORECAST_LIMIT were looked at */
    RetentionForecastBackup *backups; /* what exists then, oldest first */
    size_t backup_count;
    int64_t continuous_from_us; /* every moment from here on; 0: none */
} RetentionForecast;

enum { RETENTION_FORECAST_LIMIT = 20000 };

RetentionForecast *retention_forecast(const RetentionInput *input);
void retention_forecast_free(RetentionForecast *forecast);
SCOPED_TYPE(RetentionForecast, retention_forecast_free);

#endif
