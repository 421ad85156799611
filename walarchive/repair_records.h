/*
 * Does a segment belong where it is missing? Its records must be readable to its end, follow those
 * of the segment before and lead to those of the one after, where these are stored. Private to
 * repair. Threads: one.
 */
#ifndef PGCAIRN_WALARCHIVE_REPAIR_RECORDS_H
#define PGCAIRN_WALARCHIVE_REPAIR_RECORDS_H

#include "repository/wal_missing.h"

/* fd: the candidate, a whole segment. CORRUPT says what does not fit; other errors are the
   repository's own. */
bool repair_records_check(const World *world, WalStore *store, const WalMissing *missing, int fd,
                          CairnError *err) MUST_CHECK;

#endif
