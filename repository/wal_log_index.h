/*
 * The recovery index: what the facts of one log file's segments (256 of 16 MiB) say, in one small
 * object (docs/format.md, "Recovery index").
 *
 * What: derived, a cache. Whoever reads believes the WAL, not the index: a missing, damaged or
 * outdated one is as none, and never stops anything. Written for logs that are no longer growing;
 * a name is used once, what is built anew gets the next number and replaces the older ones.
 * Units: segment numbers of one timeline's own files.
 * Memory: one log's entries, at most LOG_INDEX_LIMIT bytes of them. Threads: as the store: one.
 * Crash: two numbers of one log may stand; the higher one that reads counts.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_LOG_INDEX_H
#define PGCAIRN_REPOSITORY_WAL_LOG_INDEX_H

#include "postgres/wal_facts.h"
#include "repository/wal_store.h"

enum { LOG_INDEX_LIMIT = 16 << 20 };

typedef struct {
    uint32_t timeline;
    uint32_t log;
} WalLogName;

WalLogName wal_log_of(uint32_t timeline, uint64_t segment_number, uint32_t segment_size);

typedef struct WalLogIndex WalLogIndex;

/* *index_out NULL: there is none that serves. Only INTERNAL and CANCELLED are errors. Owned. */
bool wal_log_index_read(WalStore *store, const WalLogName *log, WalLogIndex **index_out,
                        CairnError *err) MUST_CHECK;
void wal_log_index_free(WalLogIndex *index);
SCOPED_TYPE(WalLogIndex, wal_log_index_free);

/* Facts of a segment that it tells completely, without changed blocks (returned owned); NULL
   without an error: it does not. */
WalFacts *wal_log_index_facts(const WalLogIndex *index, uint64_t segment_number,
                              CairnError *err) MUST_CHECK;

/* Building: segments in ascending order, then store. */
typedef struct WalLogIndexBuilder WalLogIndexBuilder;
WalLogIndexBuilder *wal_log_index_begin(WalStore *store, const WalLogName *log,
                                        CairnError *err) MUST_CHECK;
void wal_log_index_builder_free(WalLogIndexBuilder *builder);
/* complete: no event is missing. Only such ones are told. */
void wal_log_index_add(WalLogIndexBuilder *builder, uint64_t segment_number, const WalFacts *facts,
                       bool complete);
/* Makes it durable; *written_out false: an equal one was there, or it would be too large. Older
   ones are removed then. */
bool wal_log_index_store(WalLogIndexBuilder *builder, bool *written_out,
                         CairnError *err) MUST_CHECK;
SCOPED_TYPE(WalLogIndexBuilder, wal_log_index_builder_free);

#endif
