#include "postgres/wal_record.h"

#include "common/bytes.h"
#include "common/timestamp.h"
#include "postgres/wal_record_parts.h"

#include <string.h>

enum {
    RMGR_XLOG = 0,
    RMGR_TRANSACTION = 1,
    RMGR_STORAGE = 2,
    RMGR_DATABASE = 4,
    RMGR_RELMAP = 7,
    RMGR_HEAP = 10,
};

enum { OPERATION_MASK = 0xF0 };

/* Operations of the XLOG resource manager: the high half of info. */
enum {
    XLOG_CHECKPOINT_SHUTDOWN = 0x00,
    XLOG_CHECKPOINT_ONLINE = 0x10,
    XLOG_SWITCH = 0x40,
    XLOG_BACKUP_END = 0x50,
    XLOG_PARAMETER_CHANGE = 0x60,
    XLOG_RESTORE_POINT = 0x70,
    XLOG_END_OF_RECOVERY = 0x90,
    XLOG_OVERWRITE_CONTRECORD = 0xD0,
};

/* Operations of the transaction resource manager: three bits and a flag. */
enum {
    TRANSACTION_MASK = 0x70,
    TRANSACTION_COMMIT = 0x00,
    TRANSACTION_ABORT = 0x20,
    TRANSACTION_COMMIT_PREPARED = 0x30,
    TRANSACTION_ABORT_PREPARED = 0x40,
};

enum { STORAGE_CREATE = 0x10, STORAGE_TRUNCATE = 0x20 };

enum { DATABASE_CREATE_FILE_COPY = 0x00, DATABASE_CREATE_WAL_LOG = 0x10, DATABASE_DROP = 0x20 };

/* Heap's operations have three bits, like a transaction's. */
enum { HEAP_MASK = 0x70, HEAP_TRUNCATE = 0x30 };

enum { RELMAP_UPDATE = 0x00 };

/* What a STORAGE_TRUNCATE cuts. */
enum { TRUNCATE_HEAP = 1 << 0, TRUNCATE_VM = 1 << 1 };

static bool
transaction_is_wanted(uint8_t info)
{
    switch (info & TRANSACTION_MASK) {
    case TRANSACTION_COMMIT:
    case TRANSACTION_ABORT:
    case TRANSACTION_COMMIT_PREPARED:
    case TRANSACTION_ABORT_PREPARED:
        return true;
    default:
        return false;
    }
}

static bool
xlog_is_wanted(uint8_t info)
{
    switch (info & OPERATION_MASK) {
    case XLOG_CHECKPOINT_SHUTDOWN:
    case XLOG_CHECKPOINT_ONLINE:
    case XLOG_SWITCH:
    case XLOG_BACKUP_END:
    case XLOG_PARAMETER_CHANGE:
    case XLOG_RESTORE_POINT:
    case XLOG_END_OF_RECOVERY:
    case XLOG_OVERWRITE_CONTRECORD:
        return true;
    default:
        return false;
    }
}

bool
wal_record_is_wanted(uint8_t resource_manager, uint8_t info)
{
    _Static_assert((int)RMGR_HEAP == 10 && (int)HEAP_TRUNCATE == 0x30 && (int)RMGR_RELMAP == 7 &&
                       (int)RMGR_DATABASE == 4 && (int)RMGR_STORAGE == 2,
                   "wal_record_may_be_wanted knows these numbers too");
    switch (resource_manager) {
    case RMGR_TRANSACTION:
        return transaction_is_wanted(info);
    case RMGR_XLOG:
        return xlog_is_wanted(info);
    case RMGR_HEAP:
        return (info & HEAP_MASK) == HEAP_TRUNCATE;
    case RMGR_STORAGE:
    case RMGR_DATABASE:
    case RMGR_RELMAP:
        return true;
    default:
        return false;
    }
}

/* PostgreSQL's microseconds since 2000 to ours since 1970; fails the reader where that overflows.
 */
static int64_t
read_time(ByteReader *data)
{
    int64_t time_us = (int64_t)byte_reader_u64(data);

    if (__builtin_add_overflow(time_us, POSTGRES_EPOCH_US, &time_us))
        data->failed = true;
    return time_us;
}

static bool
decode_transaction(int major, const WalRecordParts *parts, WalRecord *record)
{
    const int operation = record->info & TRANSACTION_MASK;
    const bool commit = operation == TRANSACTION_COMMIT || operation == TRANSACTION_COMMIT_PREPARED;
    const bool prepared =
        operation == TRANSACTION_COMMIT_PREPARED || operation == TRANSACTION_ABORT_PREPARED;
    ByteReader data = byte_reader(parts->main_data, parts->main_size);
    WalTransactionParts transaction;

    record->kind = commit ? WAL_RECORD_COMMIT : WAL_RECORD_ABORT;
    record->time_us = read_time(&data);
    record->transaction_xid = record->xid;
    if ((record->info & WAL_TRANSACTION_HAS_PARTS) != 0)
        (void)byte_reader_u32(&data);
    if (data.failed)
        return false;
    if (!prepared)
        return true;

    /* Of a record too long to keep, the xid may be among the bytes let go; its time is not. */
    record->transaction_xid = 0;
    if (!wal_transaction_split(major, record, parts, &transaction))
        return !parts->main_whole;
    record->transaction_xid = transaction.prepared_xid;
    return transaction.has_prepared_xid;
}

static WalRelation
read_relation(ByteReader *data)
{
    WalRelation relation;

    relation.tablespace = byte_reader_u32(data);
    relation.database = byte_reader_u32(data);
    relation.relfilenode = byte_reader_u32(data);
    return relation;
}

static bool
decode_storage(ByteReader *data, WalRecord *record)
{
    uint32_t number;

    switch (record->info & OPERATION_MASK) {
    case STORAGE_CREATE:
        record->kind = WAL_RECORD_RELATION_CREATE;
        record->relation = read_relation(data);
        number = byte_reader_u32(data);
        record->fork = (uint8_t)number;
        return !data->failed && number <= WAL_FORK_INIT;
    case STORAGE_TRUNCATE:
        record->kind = WAL_RECORD_RELATION_TRUNCATE;
        record->block = byte_reader_u32(data);
        record->relation = read_relation(data);
        number = byte_reader_u32(data);
        record->cuts_main = (number & TRUNCATE_HEAP) != 0;
        record->cuts_vm = (number & TRUNCATE_VM) != 0;
        return !data->failed;
    default:
        return true;
    }
}

static bool
decode_database(ByteReader *data, WalRecord *record)
{
    switch (record->info & OPERATION_MASK) {
    case DATABASE_CREATE_FILE_COPY:
    case DATABASE_CREATE_WAL_LOG:
        record->kind = WAL_RECORD_DATABASE_CREATE;
        record->relation.database = byte_reader_u32(data);
        record->relation.tablespace = byte_reader_u32(data);
        return !data->failed;
    case DATABASE_DROP:
        record->kind = WAL_RECORD_DATABASE_DROP;
        record->relation.database = byte_reader_u32(data);
        return !data->failed;
    default:
        return true;
    }
}

static bool
decode_relmap(ByteReader *data, WalRecord *record)
{
    if ((record->info & OPERATION_MASK) != RELMAP_UPDATE)
        return true;
    record->kind = WAL_RECORD_RELMAP_UPDATE;
    record->relation.database = byte_reader_u32(data);
    record->relation.tablespace = byte_reader_u32(data);
    return !data->failed;
}

static bool
decode_heap(ByteReader *data, WalRecord *record)
{
    record->kind = WAL_RECORD_TABLE_TRUNCATE;
    record->relation.database = byte_reader_u32(data);
    return !data->failed;
}

static bool
decode_checkpoint(ByteReader *data, WalRecord *record)
{
    record->redo_lsn = byte_reader_u64(data);
    record->shutdown = (record->info & OPERATION_MASK) == XLOG_CHECKPOINT_SHUTDOWN;
    record->timeline = byte_reader_u32(data);
    record->previous_timeline = byte_reader_u32(data);
    (void)byte_reader_bytes(data, 48); /* counters, the same size from 15 to 18 */
    const int64_t time_s = (int64_t)byte_reader_u64(data);

    if (__builtin_mul_overflow(time_s, INT64_C(1000000), &record->time_us))
        return false;
    record->kind = WAL_RECORD_CHECKPOINT;
    return !data->failed;
}

static bool
decode_restore_point(ByteReader *data, WalRecord *record)
{
    record->kind = WAL_RECORD_RESTORE_POINT;
    record->time_us = read_time(data);
    const uint8_t *name = byte_reader_bytes(data, sizeof record->restore_point);

    if (name == NULL || data->failed || memchr(name, '\0', sizeof record->restore_point) == NULL)
        return false;
    memcpy(record->restore_point, name, sizeof record->restore_point);
    return true;
}

static bool
decode_xlog(ByteReader *data, WalRecord *record)
{
    switch (record->info & OPERATION_MASK) {
    case XLOG_CHECKPOINT_SHUTDOWN:
    case XLOG_CHECKPOINT_ONLINE:
        return decode_checkpoint(data, record);
    case XLOG_RESTORE_POINT:
        return decode_restore_point(data, record);
    case XLOG_SWITCH:
        record->kind = WAL_RECORD_SWITCH;
        return byte_reader_done(data);
    case XLOG_BACKUP_END:
        record->kind = WAL_RECORD_BACKUP_END;
        record->backup_start_lsn = byte_reader_u64(data);
        return !data->failed;
    case XLOG_END_OF_RECOVERY:
        record->kind = WAL_RECORD_END_OF_RECOVERY;
        record->time_us = read_time(data);
        record->timeline = byte_reader_u32(data);
        record->previous_timeline = byte_reader_u32(data);
        return !data->failed;
    case XLOG_OVERWRITE_CONTRECORD:
        record->kind = WAL_RECORD_OVERWRITE;
        record->redo_lsn = byte_reader_u64(data);
        return !data->failed;
    case XLOG_PARAMETER_CHANGE:
        record->kind = WAL_RECORD_PARAMETER_CHANGE;
        (void)byte_reader_bytes(data, 20); /* counts of connections, workers, locks */
        record->wal_level = (uint8_t)byte_reader_u32(data);
        return !data->failed;
    default:
        return true;
    }
}

static bool
decode(int major, const WalRecordParts *parts, WalRecord *record)
{
    ByteReader data = byte_reader(parts->main_data, parts->main_size);

    switch (record->resource_manager) {
    case RMGR_TRANSACTION:
        return decode_transaction(major, parts, record);
    case RMGR_XLOG:
        return decode_xlog(&data, record);
    case RMGR_STORAGE:
        return decode_storage(&data, record);
    case RMGR_DATABASE:
        return decode_database(&data, record);
    case RMGR_RELMAP:
        return decode_relmap(&data, record);
    default:
        return decode_heap(&data, record);
    }
}

bool
wal_record_decode(int major, const uint8_t *body, size_t size, WalRecord *record_io)
{
    WalRecordParts parts;
    WalRecord record = *record_io;

    if (!wal_record_split(body, size, record.total_size - WAL_RECORD_HEADER_SIZE, &parts) ||
        parts.block_count > 0 || !decode(major, &parts, &record))
        return false;
    *record_io = record;
    return true;
}

bool
wal_record_overwritten(const WalRecord *record, const uint8_t *body, size_t size, uint64_t *lsn_out)
{
    WalRecordParts parts;

    if (record->resource_manager != RMGR_XLOG ||
        (record->info & OPERATION_MASK) != XLOG_OVERWRITE_CONTRECORD ||
        !wal_record_split(body, size, record->total_size - WAL_RECORD_HEADER_SIZE, &parts) ||
        parts.main_size < 8)
        return false;
    *lsn_out = get_u64(parts.main_data);
    return true;
}
