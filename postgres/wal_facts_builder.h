/*
 * Facts growing record by record. Private to wal_facts.
 *
 * What: takes records in LSN order, keeps spans, events and changes within their limits.
 * Ownership: the builder owns everything until finish hands the lists over. All memory is taken by
 * new; a record allocates nothing. Errors: memory only. Threads: one.
 */
#ifndef PGCAIRN_POSTGRES_WAL_FACTS_BUILDER_H
#define PGCAIRN_POSTGRES_WAL_FACTS_BUILDER_H

#include "common/error.h"
#include "common/scoped.h"
#include "postgres/wal_facts.h"

typedef struct WalFactsBuilder WalFactsBuilder;

WalFactsBuilder *wal_facts_builder_new(int major, CairnError *err) MUST_CHECK;
void wal_facts_builder_free(WalFactsBuilder *builder);
SCOPED_TYPE(WalFactsBuilder, wal_facts_builder_free);

/* Go on where facts end: what they list counts as seen. */
void wal_facts_builder_resume(WalFactsBuilder *builder, const WalFacts *facts);

/* body as of wal_reader_body. False when the body is too short to tell everything of the record. */
bool wal_facts_builder_add(WalFactsBuilder *builder, const WalRecord *record, const uint8_t *body,
                           size_t size);

/* Puts spans, events, changes, counts and flags into facts, whose lists are empty, and adds to its
   flags. The builder is used up. */
bool wal_facts_builder_finish(WalFactsBuilder *builder, WalFacts *facts,
                              CairnError *err) MUST_CHECK;

#endif
