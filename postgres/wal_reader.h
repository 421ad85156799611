/*
 * Reads WAL records (facts 5.2 to 5.7): framing, CRC, and the few record types that say which
 * moments can be reached and what was destroyed. One forward pass over a run of segments on one
 * timeline path.
 *
 * What: the caller feeds bytes through a callback that delivers pages; the reader yields records in
 * order with everything checked (page magic, address, timeline not falling, length, prev link,
 * CRC). Units: LSNs. start_lsn of a record is what recovery_target_lsn compares with; end_lsn is
 * where the next record may begin (aligned), i.e. the position after it. Errors: the end of valid
 * WAL is no error: wal_reader_next returns true with *found_out false and `end_reason` says what
 * stood there. Only the page source's own failures are errors. Memory: one record at a time, at
 * most WAL_RECORD_LIMIT; larger ones are skipped unread but framed (their CRC is computed in
 * passing). Threads: one reader, one thread. Tested record by record against pg_waldump.
 */
#ifndef PGCAIRN_POSTGRES_WAL_READER_H
#define PGCAIRN_POSTGRES_WAL_READER_H

#include "common/error.h"
#include "common/scoped.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    WAL_RECORD_OTHER,
    WAL_RECORD_COMMIT, /* also COMMIT PREPARED */
    WAL_RECORD_ABORT,  /* also ABORT PREPARED */
    WAL_RECORD_RESTORE_POINT,
    WAL_RECORD_CHECKPOINT, /* online or shutdown */
    WAL_RECORD_BACKUP_END,
    WAL_RECORD_END_OF_RECOVERY,
    WAL_RECORD_SWITCH,
    WAL_RECORD_PARAMETER_CHANGE,
    WAL_RECORD_OVERWRITE,         /* declares an interrupted record void */
    WAL_RECORD_RELATION_CREATE,   /* a fork's file appears */
    WAL_RECORD_RELATION_TRUNCATE, /* a relation's files are cut */
    WAL_RECORD_TABLE_TRUNCATE,    /* TRUNCATE, for logical decoding; the files change otherwise */
    WAL_RECORD_DATABASE_CREATE,   /* both strategies; a database moving into a tablespace too */
    WAL_RECORD_DATABASE_DROP,     /* also one leaving a tablespace */
    WAL_RECORD_RELMAP_UPDATE,
} WalRecordKind;

/* A relation's files as WAL names them: the relfilenode, not the OID of its table. */
typedef struct {
    uint32_t tablespace;
    uint32_t database; /* 0: shared */
    uint32_t relfilenode;
} WalRelation;

typedef struct {
    uint64_t start_lsn;
    uint64_t end_lsn;
    uint64_t previous_lsn;
    uint32_t total_size; /* xl_tot_len */
    uint32_t xid;        /* of the record header */
    uint8_t resource_manager;
    uint8_t info;
    WalRecordKind kind;
    uint32_t
        transaction_xid;    /* COMMIT, ABORT: the transaction that ended (prepared ones included) */
    int64_t time_us;        /* COMMIT, ABORT, RESTORE_POINT, END_OF_RECOVERY, CHECKPOINT; unix us */
    char restore_point[64]; /* RESTORE_POINT */
    uint64_t backup_start_lsn; /* BACKUP_END */
    uint32_t timeline;         /* CHECKPOINT, END_OF_RECOVERY: this timeline */
    uint32_t previous_timeline;
    uint64_t redo_lsn; /* CHECKPOINT; OVERWRITE: the record that is void */
    bool shutdown;     /* CHECKPOINT */
    uint8_t wal_level; /* PARAMETER_CHANGE: 0 minimal, 1 replica, 2 logical */
    uint8_t fork;      /* RELATION_CREATE */
    bool cuts_main;    /* RELATION_TRUNCATE, to block; else only derived forks */
    bool cuts_vm;      /* RELATION_TRUNCATE, to what block needs */
    uint32_t block;    /* RELATION_TRUNCATE */
    WalRelation
        relation; /* RELATION_*; DATABASE_*, RELMAP_UPDATE, TABLE_TRUNCATE in part, else 0 */
} WalRecord;

/*
 * Delivers the WAL page at lsn (a multiple of 8192) into page. True with *present_out false where
 * the WAL ends (segment absent). On a timeline path the source chooses the segment of the right
 * timeline.
 */
typedef bool WalPageSource(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out,
                           CairnError *err);

enum { WAL_RECORD_LIMIT = 1 << 26 };

typedef struct WalReader WalReader;

/*
 * start_lsn: where a record begins, or any LSN inside a segment when `seek` is true: then reading
 * starts at the first record that begins at or after it. segment_size and major as the cluster's;
 * source is borrowed with its context.
 */
WalReader *wal_reader_new(WalPageSource *source, void *context, int major, uint32_t segment_size,
                          uint64_t system_id, uint64_t start_lsn, bool seek,
                          CairnError *err) MUST_CHECK;
void wal_reader_free(WalReader *reader);

/* The next record; *found_out false at the end of valid WAL. record_out is the caller's. */
bool wal_reader_next(WalReader *reader, WalRecord *record_out, bool *found_out,
                     CairnError *err) MUST_CHECK;

/* The same without a copy: the record is borrowed until the next call, NULL at the end. */
bool wal_reader_advance(WalReader *reader, const WalRecord **record_out,
                        CairnError *err) MUST_CHECK;

/*
 * The body of the record handed out last, borrowed until the next call: *size_out bytes, the first
 * ones. All of it for records of a kind other than OTHER up to the limit; of others at least what
 * wal_record_split needs to tell their block references.
 */
const uint8_t *wal_reader_body(const WalReader *reader, size_t *size_out);

/* Keep no more of any record than so many bytes instead of WAL_RECORD_LIMIT: before the first call.
 */
void wal_reader_limit(WalReader *reader, uint32_t limit);

/* After found_out was false: a record began before the end and its first bytes were good, but what
   follows is not there. False when there is none. Borrowed from the reader. */
typedef struct {
    uint64_t start_lsn;
    uint32_t total_size;
    uint32_t seen_size;  /* bytes of it that are there */
    uint8_t header[24];  /* so much of it as seen_size says */
    const uint8_t *body; /* kept as of wal_reader_body */
    size_t body_size;
} WalPartialRecord;
bool wal_reader_partial(const WalReader *reader, WalPartialRecord *partial_out);

/* After found_out was false: end of the last good record, and why reading stopped there
   (borrowed from the reader). */
uint64_t wal_reader_end_lsn(const WalReader *reader);
const char *wal_reader_end_reason(const WalReader *reader);
SCOPED_TYPE(WalReader, wal_reader_free);

#endif
