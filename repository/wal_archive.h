/*
 * Everything that the repository holds of one incarnation's WAL, as a tree of timelines: what is
 * covered, what is missing, and records read along a path. Used by restore's plan, info, check, and
 * by backup to tell `copied` from `wal-complete`.
 *
 * Units: half-open LSN ranges; coverage has the grain of whole segments.
 * Memory: one TimelineHistory a timeline and the runs of coverage.
 * Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_ARCHIVE_H
#define PGCAIRN_REPOSITORY_WAL_ARCHIVE_H

#include "postgres/timeline.h"
#include "postgres/wal_reader.h"
#include "repository/wal_store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t timeline;
    TimelineHistory *history; /* its path from the root; NULL when <timeline>.history is not stored
                                 though the timeline is not the oldest one, or is unreadable: */
    char *history_problem;    /* it is there, and why it tells nothing; NULL otherwise */
    WalRun *runs;
    size_t run_count;
    bool has_unfinished;         /* pieces of a segment behind the last run are stored, */
    uint64_t unfinished_segment; /* of this one, */
    uint32_t unfinished_size;    /* so many bytes from its start on; 0 behind a hole */
    bool unfinished_broken;      /* and more that cannot be read */
    bool is_leaf; /* no other timeline forked from it, or it has WAL beyond every fork */
} WalTimeline;

typedef struct WalArchive WalArchive;

/* A history that is unreadable is told of its timeline, and the rest is loaded. */
WalArchive *wal_archive_load(Repository *repository, const char *cluster,
                             const Incarnation *incarnation, CairnError *err) MUST_CHECK;
void wal_archive_free(WalArchive *archive);
SCOPED_TYPE(WalArchive, wal_archive_free);

size_t wal_archive_timeline_count(const WalArchive *archive);
const WalTimeline *wal_archive_timeline(const WalArchive *archive, size_t index);  /* ascending */
const WalTimeline *wal_archive_find(const WalArchive *archive, uint32_t timeline); /* or NULL */
const Incarnation *wal_archive_incarnation(const WalArchive *archive);
WalStore *wal_archive_store(WalArchive *archive);

/* The first timeline above `above` whose history is there and unreadable; NULL: none. Where such a
   timeline began nobody knows: it may have left any that has a lower number, anywhere. */
const WalTimeline *wal_archive_unreadable_history(const WalArchive *archive, uint32_t above);

/*
 * Names of segments that [start_lsn, end_lsn) of a path needs and the repository lacks: count, and
 * the first `capacity` of them. A segment that holds a fork is needed under the newer timeline's
 * name once the range passes the fork. Memory and time do not grow with segments that are there.
 */
size_t wal_archive_missing(const WalArchive *archive, const TimelineHistory *path,
                           uint64_t start_lsn, uint64_t end_lsn, char (*names_out)[WAL_NAME_SIZE],
                           size_t capacity);

/* The next stored segment of a path at or after `from`; false when there is none. *timeline_out:
   under whose name it is stored. */
bool wal_archive_next_segment(const WalArchive *archive, const TimelineHistory *path, uint64_t from,
                              uint64_t *number_out, uint32_t *timeline_out);

/* The timeline of a path whose unfinished segment the path goes on into; NULL when there is none.
 */
const WalTimeline *wal_archive_unfinished(const WalArchive *archive, const TimelineHistory *path);

/* End of the unbroken WAL of a path from start_lsn on: the end of the last segment before the first
   hole (start_lsn's own segment missing: start_lsn), or of the pieces of the unfinished one. */
uint64_t wal_archive_unbroken_end(const WalArchive *archive, const TimelineHistory *path,
                                  uint64_t start_lsn);

/* Segments of a timeline before this one are stored, or later WAL says that they were: the one
   after the last whole segment, or the unfinished one if that lies further. 0: nothing is. */
uint64_t wal_timeline_stored_end(const WalTimeline *timeline);

/* Records along a path. start_lsn as in wal_reader_new. The archive and path outlive the reader. */
typedef struct WalArchiveReader WalArchiveReader;
WalArchiveReader *wal_archive_read(WalArchive *archive, const TimelineHistory *path,
                                   uint64_t start_lsn, bool seek, CairnError *err) MUST_CHECK;
void wal_archive_reader_free(WalArchiveReader *reader);
WalReader *wal_archive_reader_records(WalArchiveReader *reader); /* borrowed */
/* Timeline whose file the byte at lsn was read from. */
uint32_t wal_archive_reader_timeline(const WalArchiveReader *reader, uint64_t lsn);
SCOPED_TYPE(WalArchiveReader, wal_archive_reader_free);

/*
 * The last record of the unbroken WAL of a path from start_lsn on, and the newest time that any
 * commit, abort, restore point or checkpoint record in its last segments states (0 when none was
 * found within WAL_TAIL_SEGMENTS). record start and end are LSNs. *found_out false when no record
 * is there.
 */
enum { WAL_TAIL_SEGMENTS = 16 };
bool wal_archive_tail(WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn,
                      WalRecord *last_out, int64_t *newest_time_us_out, bool *found_out,
                      CairnError *err) MUST_CHECK;

/* The same newest time, of records from start_lsn on that begin before end_lsn; 0 when none is
 * found within WAL_TAIL_SEGMENTS before it. CORRUPT when what lies there cannot be read. */
bool wal_archive_time_before(WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn,
                             uint64_t end_lsn, int64_t *newest_time_us_out,
                             CairnError *err) MUST_CHECK;

#endif
