/*
 * What the WAL of one segment says: which moments can be reached in it, what was destroyed, which
 * blocks changed. Collected once, when the segment passes; a page source delivers it, so that the
 * bytes that an archiver reads anyway serve, and a stored segment too.
 *
 * What: a summary to find segments by and to plan with. It is advice: everything in it can be read
 * again from the segment itself (wal_reader), which decides. Nothing may refuse to archive or to
 * restore because facts are missing.
 * Units: LSNs; times in microseconds since 1970; xids as the server's 32 bits.
 * Bounds: every list has a limit; what did not fit is told by a flag, never by silence. About 1 MiB
 * at most, whatever the segment.
 * Ownership: facts own their lists; wal_facts_free. Threads: facts are plain data; one collection,
 * one thread.
 *
 * Records that cross segments: a record belongs to the segment in which it begins, but facts of
 * that segment alone lack it. Its first part is kept as `tail`, its rest as `head` of the next
 * segment's facts, and wal_facts_join makes the earlier segment's facts complete.
 */
#ifndef PGCAIRN_POSTGRES_WAL_FACTS_H
#define PGCAIRN_POSTGRES_WAL_FACTS_H

#include "common/error.h"
#include "common/scoped.h"
#include "postgres/wal_page.h"
#include "postgres/wal_reader.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WAL_FACTS_MARKER_LIMIT = 512,       /* events: restore points, checkpoints and the like */
    WAL_FACTS_DESTRUCTION_LIMIT = 4096, /* events: what was dropped, truncated, rewritten */
    WAL_FACTS_CREATION_LIMIT = 1024,    /* events: relations that appeared */
    WAL_FACTS_FORK_LIMIT = 2048,        /* relation forks with changes */
    WAL_FACTS_CHUNK_LIMIT = 4096,       /* runs of WAL_CHUNK_BLOCKS blocks with a changed one */
    WAL_FACTS_EDGE_LIMIT = 64 << 10,    /* bytes kept of a record that crosses a segment's end */
    WAL_CHUNK_BLOCKS = 256,
};

typedef enum {
    /* Markers. */
    WAL_EVENT_RESTORE_POINT = 1, /* time, name */
    WAL_EVENT_CHECKPOINT,        /* time, redo_lsn, timeline, previous_timeline, shutdown */
    WAL_EVENT_END_OF_RECOVERY,   /* time, timeline, previous_timeline: a timeline begins */
    WAL_EVENT_SWITCH,
    WAL_EVENT_PARAMETER_CHANGE, /* wal_level */
    WAL_EVENT_BACKUP_END,       /* redo_lsn: where that backup started */
    WAL_EVENT_OVERWRITE,        /* redo_lsn: the record declared void after a crash */

    /* Destructions. The time of all but DROPPED and REWRITTEN, whose record is the commit itself,
       is that of their transaction's commit, known only when that lies in the same segment. */
    WAL_EVENT_RELATION_DROPPED = 32, /* relation; the commit's time, xid, LSN */
    WAL_EVENT_RELATION_REWRITTEN, /* as dropped, but the transaction made relations too: TRUNCATE,
                                     VACUUM FULL, REINDEX, ALTER TABLE. new_relfilenode where it
                                     made exactly one, else 0 */
    WAL_EVENT_RELATION_TRUNCATED, /* relation, block: cut to so many blocks (VACUUM, mostly) */
    WAL_EVENT_TABLE_TRUNCATED,    /* database and table_oid (an OID, no relfilenode): TRUNCATE as
                                     logged with wal_level = logical */
    WAL_EVENT_DATABASE_DROPPED,   /* database, tablespace; an event for each tablespace */
    WAL_EVENT_DATABASE_CREATED,   /* database, tablespace: no destruction, but changes names */
    WAL_EVENT_RELMAP_UPDATED,     /* database, tablespace: mapped catalogs were rewritten */

    /* Creations. */
    WAL_EVENT_RELATION_CREATED = 64, /* relation (main fork only) */
} WalEventKind;

static inline bool
wal_event_is_destruction(WalEventKind kind)
{
    return kind >= WAL_EVENT_RELATION_DROPPED && kind < WAL_EVENT_RELATION_CREATED;
}

typedef struct {
    WalEventKind kind;
    bool committed;  /* its transaction's commit was seen in the same segment, or is the record */
    bool aborted;    /* its transaction's abort was; with neither, the end is in a later segment */
    uint64_t lsn;    /* where the record begins: stop before it with this LSN, exclusive */
    int64_t time_us; /* 0: unknown */
    uint32_t xid; /* 0: none. For commits the top-level one; else as in the record, which may be a
                     subtransaction's until its commit was seen */
    union {
        char name[64]; /* RESTORE_POINT */
        struct {       /* other markers */
            uint64_t redo_lsn;
            uint32_t timeline;
            uint32_t previous_timeline;
            bool shutdown;
            uint8_t wal_level; /* 0 minimal, 1 replica, 2 logical */
        };
        struct {                  /* destructions and creations */
            WalRelation relation; /* parts that do not apply are 0 */
            uint32_t table_oid;
            uint32_t block;
            uint32_t new_relfilenode;
        };
    };
} WalEvent;

/* Ends of transactions of one kind. Xids are compared as numbers: where they wrap around inside a
   segment the span is too wide, never too narrow. */
typedef struct {
    uint64_t count; /* 0: the rest means nothing */
    int64_t min_time_us;
    int64_t max_time_us;
    uint32_t min_xid;
    uint32_t max_xid;
} WalTransactionSpan;

/* Part of a record that crosses the segment's start (head) or end (tail). */
typedef struct {
    uint32_t total_size;   /* head: bytes of the record from here on; tail: the whole record */
    uint32_t segment_size; /* how many of them lie in this segment */
    uint32_t size;         /* how many of those are kept, the first ones */
    uint8_t *data;
} WalEdge;

/* Changed blocks number * WAL_CHUNK_BLOCKS and up; bit n (least significant first) is a block. */
typedef struct {
    uint32_t number;
    uint64_t bits[WAL_CHUNK_BLOCKS / 64];
} WalChunk;

enum { WAL_NO_LIMIT = -1 };

/*
 * What changed in one fork, in LSN order: first it was cut to limit_block (0: it was created or
 * removed, all its forks with it where this is the main fork; only the lowest limit is told), then
 * the blocks were written. Blocks at or beyond a limit that were written before it are not listed.
 * A relfilenode of 0 stands for all relations of a database in a tablespace (created or dropped as
 * a whole). The FSM fork is never listed: most of its changes are not in WAL. Before 17.11 and 18.6
 * heap records clear bits of the visibility map without naming its block: what is listed of a vm
 * fork is then not all, and copying those forks whole is the way out.
 */
typedef struct {
    WalRelation relation;
    uint8_t fork;        /* 0 main, 2 vm, 3 init */
    bool all_blocks;     /* too many to tell: take every block as changed */
    int64_t limit_block; /* WAL_NO_LIMIT: never cut */
    uint32_t first_chunk;
    uint32_t chunk_count; /* ascending by number */
} WalForkChange;

enum {
    WAL_FACTS_ENDED_EARLY = 1 << 0, /* valid WAL ends inside the segment without a switch: a partial
                                       file, or damage */
    WAL_FACTS_MARKERS_LOST = 1 << 1,
    WAL_FACTS_DESTRUCTIONS_LOST = 1 << 2,
    WAL_FACTS_CREATIONS_LOST = 1 << 3,
    WAL_FACTS_CHANGES_LOST = 1 << 4, /* forks that are not listed changed too */
    WAL_FACTS_RECORD_LOST =
        1 << 5,                   /* a record was too long to be looked into: its events are lost */
    WAL_FACTS_HEAD_VOID = 1 << 6, /* the record before was interrupted by a crash: its tail counts
                                     for nothing */
    WAL_FACTS_JOINED = 1 << 7,    /* wal_facts_join has completed these facts */
    WAL_FACTS_FLAGS_KNOWN = (1 << 8) - 1,
};

typedef struct {
    int major;
    uint32_t segment_size;
    uint64_t start_lsn; /* of the segment */
    uint32_t flags;

    uint64_t record_count;     /* complete ones that begin here */
    uint64_t first_record_lsn; /* 0: none begins here */
    uint64_t last_record_lsn;  /* the last complete one; 0: none */
    uint64_t end_lsn;  /* end of the last complete record as wal_reader tells it; with none, where
                          the first one would begin */
    uint64_t tail_lsn; /* where the record of tail begins; 0: none */
    WalEdge head;
    WalEdge tail;

    WalTransactionSpan commits;
    WalTransactionSpan aborts;
    WalEvent *events; /* ascending by LSN */
    size_t event_count;
    WalForkChange *forks; /* ascending by tablespace, database, relfilenode, fork */
    size_t fork_count;
    WalChunk *chunks;
    size_t chunk_count;
} WalFacts;

/*
 * Collects the facts of one segment; of its identity the timeline is not looked at. source is asked
 * for its pages in ascending order, each at most once, and not for pages behind the end of valid
 * WAL; for pages outside the segment it is not asked at all. Returned owned; NULL when the source
 * failed (its error) or memory is out (INTERNAL). WAL that cannot be read is no error: ENDED_EARLY.
 */
WalFacts *wal_facts_collect(WalPageSource *source, void *context, const WalIdentity *segment,
                            CairnError *err) MUST_CHECK;
void wal_facts_free(WalFacts *facts);
SCOPED_TYPE(WalFacts, wal_facts_free);

/*
 * Adds to `earlier` the record that begins in it and ends in the next segment, whose facts are
 * `later` (of the same timeline path). *joined_out is true when nothing is missing any more: the
 * record was decoded, or none crosses, or it was void. False: too long for EDGE_LIMIT, over more
 * than two segments, or the two do not fit together; then wal_reader must read the segments. Fails
 * on memory only.
 */
bool wal_facts_join(WalFacts *earlier, const WalFacts *later, bool *joined_out,
                    CairnError *err) MUST_CHECK;

/* Entry of a fork, or NULL when it is not listed. */
const WalForkChange *wal_facts_fork(const WalFacts *facts, const WalRelation *relation,
                                    uint8_t fork);

#endif
