/*
 * Bodies of the few WAL records that say which moments can be reached (facts 5.4, 5.5, 8.2).
 *
 * What: takes a record apart whose framing and CRC the reader has checked, and fills the fields of
 * WalRecord that its kind has. All other records are none of its business.
 * Errors: a body that breaks its own format is answered with false; the reader stops there, since
 * PostgreSQL would refuse to replay it too.
 * Threads: any; pure functions.
 */
#ifndef PGCAIRN_POSTGRES_WAL_RECORD_H
#define PGCAIRN_POSTGRES_WAL_RECORD_H

#include "postgres/wal_reader.h"

#include <stddef.h>

enum { WAL_RECORD_HEADER_SIZE = 24 };

/* True for records that wal_record_decode or wal_record_overwritten can read. */
bool wal_record_is_wanted(uint8_t resource_manager, uint8_t info);

/* False for most of the others, without a call: true only for what wal_record_is_wanted should be
   asked about. Its bits are the resource managers of wal_record.c. */
static inline bool
wal_record_may_be_wanted(uint8_t resource_manager, uint8_t info)
{
    enum { ASKED = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 7 | 1 << 10, HEAP = 10 };

    return resource_manager <= HEAP && (ASKED >> resource_manager & 1) != 0 &&
           (resource_manager != HEAP || (info & 0x70) == 0x30);
}

/*
 * body: what follows the record header, size bytes of it. size may be less than the whole
 * (total_size - 24) for records over WAL_RECORD_LIMIT: then a COMMIT PREPARED or ABORT PREPARED may
 * lack its transaction_xid (0). The header's fields of record_io are filled on entry, kind and what
 * belongs to it on success.
 */
bool wal_record_decode(int major, const uint8_t *body, size_t size,
                       WalRecord *record_io) MUST_CHECK;

/* For OVERWRITE_CONTRECORD: the LSN of the record that it declares void. False for all others. */
bool wal_record_overwritten(const WalRecord *record, const uint8_t *body, size_t size,
                            uint64_t *lsn_out) MUST_CHECK;

#endif
