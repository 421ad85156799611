#include "repository/wal_ledger.h"

#include "common/cancel.h"
#include "common/log.h"
#include "repository/wal_log_index.h"
#include "repository/wal_object.h"

#include <stdlib.h>

struct WalLedger {
    WalArchive *archive;
    WalLedgerCounts counts;
    bool without_index;
    bool index_sought; /* of `log`: NULL means that there is none */
    WalLogName log;
    WalLogIndex *index;
};

/* A segment whose facts wait for the next one's. */
typedef struct {
    WalLedgerSegment segment; /* its facts are `facts` below */
    WalFacts *facts;
    bool from_index; /* complete as they are */
} Waiting;

WalLedger *
wal_ledger_open(WalArchive *archive, bool without_index, CairnError *err)
{
    WalLedger *ledger = calloc(1, sizeof *ledger);
    if (ledger == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    ledger->archive = archive;
    ledger->without_index = without_index;
    return ledger;
}

void
wal_ledger_free(WalLedger *ledger)
{
    if (ledger == NULL)
        return;
    wal_log_index_free(ledger->index);
    free(ledger);
}

const WalLedgerCounts *
wal_ledger_counts(const WalLedger *ledger)
{
    return &ledger->counts;
}

enum {
    EVENTS_LOST = WAL_FACTS_MARKERS_LOST | WAL_FACTS_DESTRUCTIONS_LOST | WAL_FACTS_CREATIONS_LOST |
                  WAL_FACTS_RECORD_LOST,
};

/* NULL without an error: the index does not tell. */
static WalFacts *
indexed_facts(WalLedger *ledger, uint32_t timeline, uint64_t number, CairnError *err)
{
    const uint32_t segment_size = wal_archive_incarnation(ledger->archive)->wal_segment_size;
    const WalLogName log = wal_log_of(timeline, number, segment_size);

    if (ledger->without_index)
        return NULL;
    if (!ledger->index_sought || ledger->log.timeline != log.timeline ||
        ledger->log.log != log.log) {
        wal_log_index_free(take(&ledger->index));
        ledger->log = log;
        ledger->index_sought = true;
        if (!wal_log_index_read(wal_archive_store(ledger->archive), &log, &ledger->index, err))
            return NULL;
    }
    return ledger->index != NULL ? wal_log_index_facts(ledger->index, number, err) : NULL;
}

/* True where what cannot be read is only worth a warning. SEALED says that this host has not the
   key; what the storage denies ends the walk: going on would take WAL that is there for a hole. */
static bool
pass_over(CairnError *err)
{
    if (err->kind != CAIRN_CORRUPT && err->kind != CAIRN_NOT_FOUND && err->kind != CAIRN_SEALED)
        return false;
    log_warn("a WAL segment is passed over: %s", err->message);
    cairn_error_clear(err);
    return true;
}

/* NULL without an error: it cannot be read, or went meanwhile. */
static WalFacts *
read_facts(WalLedger *ledger, uint32_t timeline, uint64_t number, bool *stored_out, CairnError *err)
{
    WalFacts *facts =
        wal_store_facts(wal_archive_store(ledger->archive), timeline, number, stored_out, err);
    if (facts == NULL)
        (void)pass_over(err);
    return facts;
}

/* Hands over what waited; its next segment's facts are `later`, or NULL where that is missing. */
static bool
hand_over(WalLedger *ledger, Waiting *waiting, const WalFacts *later, WalLedgerVisit *visit,
          void *context, bool *stop_io, CairnError *err)
{
    bool joined = waiting->from_index;
    if (waiting->facts == NULL)
        return true;
    SCOPED(WalFacts) facts = take(&waiting->facts);
    if (!joined && later != NULL && !wal_facts_join(facts, later, &joined, err))
        return false;
    if (later == NULL && facts->tail_lsn == 0)
        joined = true;
    waiting->segment.facts = facts;
    waiting->segment.complete = joined && (facts->flags & EVENTS_LOST) == 0;
    ledger->counts.incomplete += joined || later == NULL ? 0 : 1;
    ledger->counts.incomplete += (facts->flags & EVENTS_LOST) != 0 ? 1 : 0;
    return visit(context, &waiting->segment, stop_io, err);
}

/* The facts of one segment, from wherever they are had at least cost, and those that complete the
 * one before it. */
typedef struct {
    WalFacts *facts; /* owned; NULL: not wanted, or not to be had */
    bool from_index;
    WalFacts *edge; /* owned when from_index; else the same as facts */
} Fetched;

static bool
fetch(WalLedger *ledger, uint32_t timeline, uint64_t number, bool wanted, bool edge_wanted,
      Fetched *fetched_out, CairnError *err)
{
    Fetched fetched = {0};
    bool stored = false;
    if (wanted)
        fetched.facts = indexed_facts(ledger, timeline, number, err);
    if (err->kind != CAIRN_OK)
        return false;
    fetched.from_index = fetched.facts != NULL;
    if ((wanted && !fetched.from_index) || edge_wanted)
        fetched.edge = read_facts(ledger, timeline, number, &stored, err);
    if (err->kind != CAIRN_OK) {
        wal_facts_free(fetched.facts);
        return false;
    }
    if (!fetched.from_index)
        fetched.facts = fetched.edge;
    const bool decoded = !fetched.from_index && !stored && fetched.facts != NULL;
    if (decoded && ledger->counts.decoded == 0)
        log_info("WAL segments without stored facts are read whole, which takes longer");
    if (wanted) {
        ledger->counts.indexed += fetched.from_index ? 1 : 0;
        ledger->counts.stored += !fetched.from_index && stored ? 1 : 0;
        ledger->counts.decoded += decoded ? 1 : 0;
        ledger->counts.unreadable += fetched.facts == NULL ? 1 : 0;
    }
    *fetched_out = fetched;
    return true;
}

static void
count_seen(WalLedger *ledger, const WalLedgerRange *range, uint64_t missing, uint64_t end_lsn)
{
    /* Where everything is asked for, WAL begins somewhere. */
    if (range->from_lsn > 0)
        ledger->counts.missing += missing;
    if (end_lsn > ledger->counts.end_lsn)
        ledger->counts.end_lsn = end_lsn;
}

/* Behind the last whole segment: `expected` would be the next one. */
static bool
pass_unfinished(WalLedger *ledger, const WalLedgerRange *range, uint64_t expected, Waiting *waiting,
                WalLedgerVisit *visit, void *context, bool *stop_io, CairnError *err)
{
    const uint32_t segment_size = wal_archive_incarnation(ledger->archive)->wal_segment_size;
    const WalTimeline *timeline = wal_archive_unfinished(ledger->archive, range->path);
    WalFacts *facts = NULL;

    if (timeline == NULL || timeline->unfinished_segment < expected ||
        timeline->unfinished_segment * segment_size >= range->to_lsn)
        return true;
    const uint64_t number = timeline->unfinished_segment;
    count_seen(ledger, range, number - expected, number * segment_size + timeline->unfinished_size);
    if (timeline->unfinished_size > 0) {
        facts = wal_store_facts_unfinished(wal_archive_store(ledger->archive), timeline->timeline,
                                           number, err);
        if (facts == NULL && !pass_over(err))
            return false;
        ledger->counts.decoded += facts != NULL ? 1 : 0;
    }
    ledger->counts.unreadable += facts == NULL ? 1 : 0;
    ledger->counts.incomplete += facts != NULL && timeline->unfinished_broken ? 1 : 0;
    const bool good =
        hand_over(ledger, waiting, number == expected ? facts : NULL, visit, context, stop_io, err);
    *waiting =
        (Waiting){.segment = {.timeline = timeline->timeline, .number = number}, .facts = facts};
    return good;
}

bool
wal_ledger_walk(WalLedger *ledger, const WalLedgerRange *range, WalLedgerVisit *visit,
                void *context, CairnError *err)
{
    const uint32_t segment_size = wal_archive_incarnation(ledger->archive)->wal_segment_size;
    uint64_t number = wal_segment_of(range->from_lsn, segment_size);
    uint32_t timeline;
    Waiting waiting = {0};
    bool good = true;
    bool stop = false;

    /* One segment more than wanted: it may hold the end of the last one's last record. */
    bool wanted = true;
    for (; good && !stop && wanted; number++) {
        const uint64_t expected = number;
        Fetched fetched;
        if (!wal_archive_next_segment(ledger->archive, range->path, number, &number, &timeline))
            break;
        wanted = number * segment_size < range->to_lsn;
        if (wanted)
            count_seen(ledger, range, number - expected, (number + 1) * segment_size);
        const bool completes = waiting.facts != NULL && !waiting.from_index && number == expected;
        good =
            cancel_check(err) && fetch(ledger, timeline, number, wanted, completes, &fetched, err);
        if (!good)
            break;
        good = hand_over(ledger, &waiting, completes ? fetched.edge : NULL, visit, context, &stop,
                         err);
        if (fetched.from_index || !wanted)
            wal_facts_free(fetched.edge);
        waiting = (Waiting){.segment = {.timeline = timeline, .number = number},
                            .facts = wanted ? fetched.facts : NULL,
                            .from_index = fetched.from_index};
    }
    if (good && !stop && wanted && range->with_unfinished)
        good = pass_unfinished(ledger, range, number, &waiting, visit, context, &stop, err);
    if (good && !stop)
        good = hand_over(ledger, &waiting, NULL, visit, context, &stop, err);
    wal_facts_free(waiting.facts);
    return good;
}
