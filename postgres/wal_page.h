/*
 * Identity of a WAL segment from its first page's long header (facts 5.2).
 */
#ifndef PGCAIRN_POSTGRES_WAL_PAGE_H
#define PGCAIRN_POSTGRES_WAL_PAGE_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

enum { WAL_PAGE_SIZE = 8192, WAL_LONG_HEADER_SIZE = 40, WAL_SHORT_HEADER_SIZE = 24 };
enum { WAL_PAGE_CONTINUES = 0x0001, WAL_PAGE_LONG = 0x0002, WAL_PAGE_OVERWRITE = 0x0008 };

typedef struct {
    int major;
    uint64_t system_id;
    uint32_t timeline; /* of the page: may be smaller than the file name's after a fork */
    uint64_t lsn;      /* of the page */
    uint32_t segment_size;
} WalIdentity;

/* MISMATCH for an unknown magic or block size, CORRUPT for what is no WAL page. */
bool wal_identity_read(const void *page, size_t size, WalIdentity *identity_out,
                       CairnError *err) MUST_CHECK;

#endif
