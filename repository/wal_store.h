/*
 * WAL files in the repository: deterministic names, create-if-absent, verified both ways
 * (docs/format.md, "WAL").
 *
 * Units: LSNs and sizes in bytes. A file is a segment, a .partial, a .backup or a .history.
 * Memory: two frames, whatever the segment size.
 * Threads: a WalStore belongs to one thread; open one per thread (cheap).
 */
#ifndef PGCAIRN_REPOSITORY_WAL_STORE_H
#define PGCAIRN_REPOSITORY_WAL_STORE_H

#include "postgres/wal_facts.h"
#include "postgres/wal_name.h"
#include "repository/incarnation.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct WalStore WalStore;

/* WAL of one incarnation of a cluster. Everything is borrowed and must outlive the store. */
WalStore *wal_store_open(Repository *repository, const char *cluster,
                         const Incarnation *incarnation, CairnError *err) MUST_CHECK;
void wal_store_close(WalStore *store);
SCOPED_TYPE(WalStore, wal_store_close);
const Incarnation *wal_store_incarnation(const WalStore *store);

/*
 * Store the file that fd is open on (borrowed, read from offset 0 to its end) under its archive
 * name. Segments and partials: the first page's identity (system id, version, address, segment
 * size) must agree with the incarnation and name, and the size must be the segment size: MISMATCH
 * otherwise.
 *
 * True: durable; PostgreSQL may recycle the file. *existed_out says that an identical one was there
 * (it has been made durable again: the last run may have died between link and sync).
 * CONFLICT: the name holds other content; both sides are named. Segments whose records are equal up
 * to the end of valid WAL or the switch record, and that differ only in the unused tail, count as
 * identical
 * (*tail_differs_out).
 */
bool wal_store_put(WalStore *store, const char *file_name, int fd, bool *existed_out,
                   bool *tail_differs_out, CairnError *err) MUST_CHECK;

/* Of a segment in a file: do its records go on into the next one, or end with a switch to it? Where
   neither is so it was still being written, or is damaged. */
bool wal_store_is_finished(WalStore *store, const char *file_name, int fd, bool *finished_out,
                           CairnError *err) MUST_CHECK;

/* Write the whole file (zero tail included) to fd at offset 0. Every frame and the keyed digest are
   verified before true; what fd holds after false is garbage. NOT_FOUND: proven absent. */
bool wal_store_fetch(WalStore *store, const char *file_name, int fd, CairnError *err) MUST_CHECK;

/* Size of the stored object, and proven presence of it (false: NOT_FOUND). */
bool wal_store_object_size(WalStore *store, const char *file_name, uint64_t *size_out,
                           CairnError *err) MUST_CHECK;
/* The same of a segment, for who knows from before that this storage is the repository. */
bool wal_store_segment_size(Storage *storage, const char *cluster, uint64_t system_id, int major,
                            const char *segment, uint64_t *size_out, CairnError *err) MUST_CHECK;
/* Proven presence. */
bool wal_store_has(WalStore *store, const char *file_name, bool *present_out,
                   CairnError *err) MUST_CHECK;

/*
 * For a file that is not stored: does anything stored prove that it once existed? For a segment
 * that is a later segment of its timeline, or a timeline that forked from it in a later segment;
 * for a history file WAL of that timeline or a descendant of it, unless it is the oldest one here.
 * found: a hole, not the end of WAL.
 */
typedef struct {
    bool found;
    char name[WAL_FILE_NAME_LIMIT]; /* the proof */
} WalSuccessor;
bool wal_store_successor(WalStore *store, const char *file_name, WalSuccessor *successor_out,
                         CairnError *err) MUST_CHECK;

/* One decoded frame-by-frame reader for the WAL reader: page at lsn of timeline's segment. */
typedef struct WalSegmentReader WalSegmentReader;
WalSegmentReader *wal_store_read(WalStore *store, uint32_t timeline, uint64_t segment_number,
                                 CairnError *err) MUST_CHECK; /* NOT_FOUND when absent */
/* The same of an unfinished segment's pieces; reads as zeros from *size_out on. */
WalSegmentReader *wal_store_read_pieces(WalStore *store, uint32_t timeline, uint64_t segment_number,
                                        uint32_t *size_out, CairnError *err) MUST_CHECK;
void wal_segment_reader_free(WalSegmentReader *reader);
/* Any bytes of the segment; the zero tail reads as zeros. */
bool wal_segment_reader_pread(WalSegmentReader *reader, void *data, size_t size, uint64_t offset,
                              CairnError *err) MUST_CHECK;
SCOPED_TYPE(WalSegmentReader, wal_segment_reader_free);

/*
 * Facts of a stored segment (returned owned): those that push stored with it or, where it stored
 * none or they cannot be read, collected anew from the segment's bytes (*stored_out false).
 * NOT_FOUND when the segment is absent.
 */
WalFacts *wal_store_facts(WalStore *store, uint32_t timeline, uint64_t segment_number,
                          bool *stored_out, CairnError *err) MUST_CHECK;

/* Of a segment's pieces: as far as they go. NOT_FOUND when there is none. */
WalFacts *wal_store_facts_unfinished(WalStore *store, uint32_t timeline, uint64_t segment_number,
                                     CairnError *err) MUST_CHECK;

/*
 * What there is of a segment that is not stored whole, as a whole segment: its pieces, or its
 * .partial beside them where that reaches further, with zeros behind. Only where it is the newest
 * of its timeline and no stored history leaves the timeline in it: NOT_FOUND otherwise. CORRUPT
 * when more was stored of it than can be read, unless `shortened` says that the good beginning will
 * do. Verified as in wal_store_fetch.
 */
bool wal_store_fetch_unfinished(WalStore *store, const char *file_name, bool shortened, int fd,
                                CairnError *err) MUST_CHECK;
/* The newest unfinished segment of a timeline. first_segment: the one after the timeline's last
   whole segment; UINT64_MAX: it has no whole one, and any will do. */
typedef struct {
    bool found; /* pieces of it are stored */
    uint64_t segment;
    uint32_t size; /* bytes that may serve; 0 too where a hole lies before it, or a fork in it */
    bool broken;   /* more was stored than that, and cannot be read */
} WalUnfinished;
bool wal_store_unfinished(WalStore *store, uint32_t timeline, uint64_t first_segment,
                          WalUnfinished *unfinished_out, CairnError *err) MUST_CHECK;

/* Full verification of one stored file (frames, digest, SHA-256), or of a piece by its name. */
bool wal_store_verify(WalStore *store, const char *file_name, CairnError *err) MUST_CHECK;

/* Timelines with anything stored, ascending. malloc'ed (returned owned). */
bool wal_store_timelines(WalStore *store, uint32_t **timelines_out, size_t *count_out,
                         CairnError *err) MUST_CHECK;

/* Coverage: maximal runs [first, last] of consecutive full segments of a timeline, ascending.
   malloc'ed (returned owned). Memory grows with the number of holes, not of segments. */
typedef struct {
    uint64_t first_segment;
    uint64_t last_segment;
    uint64_t stored_bytes;
    int64_t newest_us; /* when the youngest object of its logs was stored, as the storage says */
} WalRun;
bool wal_store_coverage(WalStore *store, uint32_t timeline, WalRun **runs_out, size_t *count_out,
                        CairnError *err) MUST_CHECK;

/* Content of <timeline>.history, NUL-terminated, malloc'ed; NOT_FOUND when not stored. */
char *wal_store_history(WalStore *store, uint32_t timeline, size_t *size_out,
                        CairnError *err) MUST_CHECK;

#endif
