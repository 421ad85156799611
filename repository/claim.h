/*
 * May an attempt refer to packs that it did not make (R-3.3 step 3 and the last look)?
 *
 * The writer's half of the protocol whose other half is collect.c: the attempt's intent, which
 * names the sources, is durable BEFORE this is called; then either a collector's second look finds
 * the intent, or this finds the collector's condemn list or doomed object. The other order loses
 * data.
 *
 * Errors: REFUSED names the source that is expired, doomed, condemned or no longer what it was; the
 * caller takes another or none. Anything else: the storage, or an object that cannot be read.
 * Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_CLAIM_H
#define PGCAIRN_REPOSITORY_CLAIM_H

#include "repository/backup_id.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    const BackupId *parent;  /* COMMITTED; NULL: none */
    const BackupId *salvage; /* REVOKED attempts */
    size_t salvage_count;
} ClaimSources;

/* True: every source may be referred to by the attempt whose durable intent names it. */
bool claim_check(Repository *repository, const char *cluster, const ClaimSources *sources,
                 CairnError *err) MUST_CHECK;

#endif
