/*
 * The blocks that a run of WAL changes, gathered record by record (facts 4.6, 5.6). Private to
 * wal_facts.
 *
 * What: a set of blocks in bitmaps of WAL_CHUNK_BLOCKS, for at most WAL_FACTS_FORK_LIMIT forks and
 * WAL_FACTS_CHUNK_LIMIT bitmaps. When bitmaps run out, the fork with the most of them gives its up
 * and counts as changed everywhere, so that the others stay exact.
 * Units: blocks of a fork, counted through its segment files.
 * Ownership: one allocation, made by new; the rest only fills it. Errors: none after that.
 * Threads: one.
 */
#ifndef PGCAIRN_POSTGRES_WAL_CHANGES_H
#define PGCAIRN_POSTGRES_WAL_CHANGES_H

#include "common/error.h"
#include "common/scoped.h"
#include "postgres/wal_facts.h"

typedef struct WalChanges WalChanges;

WalChanges *wal_changes_new(CairnError *err) MUST_CHECK;
void wal_changes_free(WalChanges *changes);
SCOPED_TYPE(WalChanges, wal_changes_free);

/* A block was written. The FSM fork is passed over. */
void wal_changes_mark(WalChanges *changes, const WalRelation *relation, uint8_t fork,
                      uint32_t block);
/* A fork was cut to so many blocks; the main fork to none: all forks are gone, or new. */
void wal_changes_cut(WalChanges *changes, const WalRelation *relation, uint8_t fork,
                     uint32_t limit);
/* Something changed that cannot be told. */
void wal_changes_lose(WalChanges *changes);

/* Order of facts' forks: by tablespace, database, relfilenode, fork. */
int wal_fork_compare(const WalForkChange *a, const WalRelation *relation, uint8_t fork);

/* Take in what facts list, as if it had just happened. */
void wal_changes_load(WalChanges *changes, const WalFacts *facts);
/* Into forks and chunks (malloc'ed, owned by facts; NULL on entry) and the CHANGES_LOST flag. */
bool wal_changes_store(const WalChanges *changes, WalFacts *facts, CairnError *err) MUST_CHECK;

#endif
