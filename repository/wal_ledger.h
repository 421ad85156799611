/*
 * What is known of the WAL of a path of timelines, segment by segment: the facts (wal_facts.h) of
 * each, complete with the record that crosses into the next one.
 *
 * What: read from the recovery index (wal_log_index.h) where it is there, else from what is stored
 * with the segment, else from the segment itself, which takes longer and gives the same. So the
 * index and stored facts only make it fast. Errors: the repository's. A segment that cannot be
 * read, and facts that say of themselves that they lack something, are warned of and passed over:
 * what lies behind is still worth knowing. Memory: facts of two segments and one log file of the
 * index. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_LEDGER_H
#define PGCAIRN_REPOSITORY_WAL_LEDGER_H

#include "postgres/wal_facts.h"
#include "repository/wal_archive.h"

typedef struct WalLedger WalLedger;

/* archive: borrowed, must outlive the ledger. without_index: as if there were none. */
WalLedger *wal_ledger_open(WalArchive *archive, bool without_index, CairnError *err) MUST_CHECK;
void wal_ledger_free(WalLedger *ledger);
SCOPED_TYPE(WalLedger, wal_ledger_free);

typedef struct {
    const TimelineHistory *path;
    uint64_t from_lsn;    /* the segment with it is the first one */
    uint64_t to_lsn;      /* segments that begin here or later are not looked at */
    bool with_unfinished; /* what there is of a segment that is not whole yet, too */
} WalLedgerRange;

typedef struct {
    uint32_t timeline; /* under whose name it is stored */
    uint64_t number;
    const WalFacts *facts; /* borrowed; changed blocks and edges need not be there */
    bool complete;         /* no event of it is missing */
} WalLedgerSegment;

/* In LSN order. *stop_io true ends the walk. */
typedef bool WalLedgerVisit(void *context, const WalLedgerSegment *segment, bool *stop_io,
                            CairnError *err);
bool wal_ledger_walk(WalLedger *ledger, const WalLedgerRange *range, WalLedgerVisit *visit,
                     void *context, CairnError *err) MUST_CHECK;

/* Of all walks so far. */
typedef struct {
    uint64_t indexed;    /* segments told by the index */
    uint64_t stored;     /* by facts stored with the segment */
    uint64_t decoded;    /* by reading the segment */
    uint64_t unreadable; /* not told */
    uint64_t incomplete; /* told, but an event may be missing */
    uint64_t missing;    /* not stored, though later ones are */
    uint64_t end_lsn;    /* behind the last that was looked at; 0: none was */
} WalLedgerCounts;
const WalLedgerCounts *wal_ledger_counts(const WalLedger *ledger);

/*
 * Makes the recovery index of a cluster's system anew: of each timeline every log that does not
 * grow any more. What is there and right is left alone.
 */
typedef struct {
    size_t log_count;     /* logs that have an index now */
    size_t written_count; /* of those, made anew */
    WalLedgerCounts segments;
} WalReindexReport;
/* Adds to *report_io, which begins empty. */
bool wal_ledger_reindex(WalArchive *archive, WalReindexReport *report_io,
                        CairnError *err) MUST_CHECK;

#endif
