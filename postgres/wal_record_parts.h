/*
 * A record's body taken apart: block references, main data, and the lists in the main data of a
 * few types (facts 5.4, 5.5). Private to wal_reader's family: what has a fixed size is in
 * WalRecord.
 *
 * What: pure functions over bytes whose framing and CRC were checked; the bytes are still foreign,
 * so every length is checked against what is there. A body may be a prefix of the whole one
 * (records that cross pages are not all kept): then parts say what can be told from it.
 * Ownership: parts borrow the body. Errors: false, for a body that breaks its own format or whose
 * prefix is too short. Threads: any.
 */
#ifndef PGCAIRN_POSTGRES_WAL_RECORD_PARTS_H
#define PGCAIRN_POSTGRES_WAL_RECORD_PARTS_H

#include "postgres/wal_reader.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WAL_RECORD_BLOCK_LIMIT = 33, /* references that a record can have */
    /* All headers before a body's data: a prefix of this size always holds them. */
    WAL_RECORD_HEADERS_LIMIT = 1024,
};

enum { WAL_FORK_MAIN = 0, WAL_FORK_FSM = 1, WAL_FORK_VM = 2, WAL_FORK_INIT = 3 };

typedef struct {
    WalRelation relation;
    uint32_t block;
    uint8_t fork;
} WalBlock;

typedef struct {
    size_t block_count;
    WalBlock blocks[WAL_RECORD_BLOCK_LIMIT];
    const uint8_t *main_data;
    size_t main_size; /* what is here of it */
    bool main_whole;
} WalRecordParts;

/* body: the first size of the whole_size bytes that follow the record's header. */
bool wal_record_split(const uint8_t *body, size_t size, size_t whole_size,
                      WalRecordParts *parts_out) MUST_CHECK;

/* A run of fixed-size items, as they stand in the record. */
typedef struct {
    const uint8_t *data;
    uint32_t count;
} WalItems;

/* In a commit's or abort's info: parts follow its time. */
enum { WAL_TRANSACTION_HAS_PARTS = 0x80 };

/* What a COMMIT or ABORT says beside its time. */
typedef struct {
    WalItems subtransactions; /* of 4 bytes */
    WalItems relations;       /* of 12: whose files go with this record */
    bool has_prepared_xid;    /* of COMMIT PREPARED, ABORT PREPARED */
    uint32_t prepared_xid;
} WalTransactionParts;

/* record's kind is filled. False for a malformed record, and for one whose main data is not all
 * here. */
bool wal_transaction_split(int major, const WalRecord *record, const WalRecordParts *parts,
                           WalTransactionParts *transaction_out) MUST_CHECK;

/* OIDs of the tables of a TABLE_TRUNCATE, of the tablespaces of a DATABASE_DROP. */
bool wal_oids_split(const WalRecord *record, const WalRecordParts *parts,
                    WalItems *oids_out) MUST_CHECK;

WalRelation wal_items_relation(const WalItems *items, uint32_t number);
uint32_t wal_items_u32(const WalItems *items, uint32_t number);

#endif
