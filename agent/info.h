/*
 * What a repository holds of its clusters: backups with their computed states, WAL as windows and
 * holes, and the one line that a DBA wants. Works without a server.
 *
 * Units: half-open LSN ranges, microseconds since 1970 UTC.
 * Ownership: everything lives in the Info. Errors: damage of one object is shown in its place; what
 * prevents a true answer is an error. Threads: one thread.
 */
#ifndef PGCAIRN_AGENT_INFO_H
#define PGCAIRN_AGENT_INFO_H

#include "agent/archiving.h"
#include "common/arena.h"
#include "common/bytes.h"
#include "repository/catalog.h"
#include "repository/wal_archive.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    INFO_COPIED, /* committed, but WAL between start and stop is missing: not usable */
    INFO_WAL_COMPLETE,
    INFO_VERIFIED,
    INFO_DRILLED,
    INFO_DAMAGED,
    INFO_UNFINISHED,
    INFO_REVOKED,
    INFO_EXPIRED,
    INFO_UNREADABLE,
} InfoState;

typedef struct {
    const CatalogBackup *backup;
    InfoState state;
    size_t missing_segments;           /* of start..stop */
    char first_missing[WAL_NAME_SIZE]; /* "" when none */
    bool path_unreadable; /* its timeline's history is: whether WAL is missing nobody can tell */
    bool system_unknown;  /* no record of its system was read: the same */
    uint64_t reach_lsn;   /* end of the unbroken WAL from start on; 0: not known */
    bool own_moment_only; /* retention keeps it without the WAL after it (info_apply_retention) */
} InfoBackup;

/* A run of WAL, or a hole between two runs. */
typedef struct {
    bool is_hole;
    const char *acknowledged; /* a hole that somebody decided to live with: who, when, why; NULL */
    bool is_expected; /* a hole that retention made: between backups kept for their own moment */
    uint64_t start_lsn;
    uint64_t end_lsn;
    char first_segment[WAL_NAME_SIZE];
    char last_segment[WAL_NAME_SIZE];
    uint64_t segment_count;
    uint64_t stored_bytes; /* 0 for a hole */
} InfoWindow;

typedef struct {
    uint32_t timeline;
    uint32_t parent;   /* 0: none, or not known */
    uint64_t fork_lsn; /* where it left its parent */
    bool history_missing;
    const char *history_problem; /* its history is there and unreadable: why; NULL */
    bool is_leaf;
    InfoWindow *windows; /* ascending, runs and holes in turn */
    size_t window_count;
    size_t hole_count;         /* that nobody made on purpose */
    size_t acknowledged_count; /* of all holes */
    int64_t newest_us;         /* when its youngest segments were stored, as the storage says */
} InfoTimeline;

typedef struct {
    Incarnation incarnation;
    InfoTimeline *timelines;
    size_t timeline_count;
} InfoIncarnation;

/* What can be reached from usable backups, on the newest one's path. */
typedef struct {
    bool possible;
    bool unreadable; /* there are usable backups, but the end of their WAL is damaged: see warnings
                      */
    int64_t from_us; /* stop of the oldest usable backup */
    uint64_t from_lsn;
    int64_t to_us; /* newest time in the unbroken WAL */
    uint64_t to_lsn;
    uint32_t timeline;
    size_t gap_count;       /* holes in the WAL after from_lsn */
    uint64_t gap_start_lsn; /* the first one */
    uint64_t gap_end_lsn;
    size_t older_count;     /* usable backups before it, each for its own moment */
    int64_t rpo_us;         /* age of to_us */
    int64_t last_proven_us; /* 0: never */
    int64_t last_rto_us;    /* how long that restore took; 0: not said */
} InfoRecoverable;

/* WAL that waits for another repository than the one that is shown. */
typedef struct {
    const char *repository;
    const char *problem; /* why it is not known; NULL */
    size_t files;
    uint64_t bytes;
    int64_t oldest_us;
} InfoOverflowOther;

/* What waits in this host's overflow-path. */
typedef struct {
    bool asked;
    const char *problem; /* why it is not known; NULL */
    size_t files;
    uint64_t bytes;
    int64_t oldest_us;
    InfoOverflowOther *of_others;
    size_t of_other_count;
    size_t others; /* files of another repository path or system, which nothing ships */
    const char *others_problem; /* why not all of them are known; NULL */
} InfoOverflow;

typedef struct {
    const char *name;
    Catalog *catalog;
    InfoBackup *backups;
    size_t backup_count;
    InfoIncarnation *incarnations; /* oldest first */
    size_t incarnation_count;
    IncarnationTrouble unread_incarnations;
    const char *history_warning; /* histories are there and unreadable: which; NULL: none */
    WalArchive **archives;       /* as incarnations; NULL elements were not readable */
    InfoRecoverable recoverable;
    const char **warnings;
    size_t warning_count;
    const char *retention; /* policy as configured here; NULL: not known here */
    /* How the server is doing; asked by info_set_archiving. */
    bool archiving_known;
    Archiving archiving;
    ArchivingVerdict archiving_verdict;
    const char *archiving_problem; /* why it is not known; NULL: nobody asked */
    InfoOverflow overflow;         /* filled by info_look_overflow */
} InfoCluster;

typedef struct {
    Arena *arena;
    const char *repository_name;
    const char *repository_path;
    char repository_id[2 * REPOSITORY_ID_SIZE + 1];
    bool is_replica; /* read-only */
    int64_t now_us;
    InfoCluster *clusters;
    size_t cluster_count;
} Info;

/* cluster NULL: all that the repository has. NOT_FOUND when a named one has nothing. */
Info *info_read(Repository *repository, const char *cluster, CairnError *err) MUST_CHECK;
void info_free(Info *info);
SCOPED_TYPE(Info, info_free);

/* What this host's configuration says of a cluster, for people to see. Copied. */
void info_set_retention(Info *info, size_t cluster_index, const char *policy);
/* Once own_moment_only is filled: WAL that is missing between such backups is expected, and what
 * can be recovered begins after them. The repository must be open still. */
void info_apply_retention(Info *info, size_t cluster_index);
/* What the cluster's server says of its archiving. problem: it did not; copied. A server that none
 * of the cluster's systems is counts as a problem. */
void info_set_archiving(Info *info, size_t cluster_index, const Archiving *archiving,
                        const char *problem);
/* info_overflow.c: looks on this host, which is the server's where it matters. others: what else is
   configured, for one that is out of reach cannot say itself what waits for it. */
void info_look_overflow(Info *info, size_t cluster_index, const World *world, const char *path,
                        const RepositoryConfig *repository, const Config *config);
/* info_acks.c: called by info_read. */
bool info_fill_acks(Arena *arena, WalArchive *archive, InfoIncarnation *incarnation,
                    CairnError *err) MUST_CHECK;
/* "timeline 1 has 2 holes in its WAL"; false: it has none. */
bool info_hole_warning(const InfoTimeline *timeline, char *text, size_t size) MUST_CHECK;

/* wal-complete or better, and not damaged. */
bool info_is_usable(const InfoBackup *entry);
/* "copied", "wal-complete", ... */
const char *info_state_name(InfoState state);

/* Text for people; JSON with everything (new reference). */
void info_format_text(const Info *info, ByteWriter *text);
void info_format_backup(const InfoBackup *entry, ByteWriter *text);
json_t *info_format_json(const Info *info);
json_t *info_format_backup_json(const InfoBackup *entry);

#endif
