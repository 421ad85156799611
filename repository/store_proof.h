/*
 * What an object store was seen to do, on record: `probe/proof.<time>.<token>` (docs/format.md,
 * "Proof of the store").
 *
 * Kept in the repository, not on a host: the statement is about the store, every host's `check` may
 * show it, and a host needs no directory of its own for it. The store is probed when the newest
 * record is older than a day. Storage that needs no probe (a directory) has none.
 *
 * Errors: REFUSED when the store lacks what we rely on; the storage's own when it could not be
 * asked. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_STORE_PROOF_H
#define PGCAIRN_REPOSITORY_STORE_PROOF_H

#include "repository/repository.h"

#include <stdbool.h>
#include <stdint.h>

#define STORE_PROOF_AGE_US (INT64_C(24) * 3600 * 1000000)

typedef struct {
    int64_t at_us; /* 0: none, nothing to be proven */
    StorageProbe probe;
} StoreProof;

/* Does it do what we rely on? REFUSED with what it does instead, and what to do. */
bool store_probe_verdict(const StorageProbe *probe, CairnError *err) MUST_CHECK;

/* For who has just probed, before there was a repository to keep a record in. */
bool store_proof_record(Repository *repository, const StoreProof *proof,
                        CairnError *err) MUST_CHECK;

/* The newest record when it is younger than a day; else probes now, and records what holds. */
bool store_proof_renew(Repository *repository, StoreProof *proof_out, CairnError *err) MUST_CHECK;

/* For collectors: what probes left, and records, older than a week; the newest record stays. What
   may not be removed stays too. */
bool store_proof_sweep(Repository *repository, CairnError *err) MUST_CHECK;

#endif
