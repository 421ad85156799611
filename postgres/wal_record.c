#include "postgres/wal_record.h"

#include "common/bytes.h"
#include "common/timestamp.h"

#include <string.h>

enum { RMGR_XLOG = 0, RMGR_TRANSACTION = 1 };

/* Operations of the XLOG resource manager: the high half of info. */
enum {
    XLOG_MASK = 0xF0,
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
    TRANSACTION_HAS_PARTS = 0x80,
};

/* Which parts a commit or abort record has; they stand in another order than their bits. */
enum {
    PART_DATABASE = 1 << 0,
    PART_SUBTRANSACTIONS = 1 << 1,
    PART_RELATIONS = 1 << 2,
    PART_INVALIDATIONS = 1 << 3,
    PART_TWO_PHASE = 1 << 4,
    PART_DROPPED_STATISTICS = 1 << 8,
};

/* Ids of the headers before a record's main data. */
enum { ID_TOPLEVEL_XID = 252, ID_ORIGIN = 253, ID_DATA_LONG = 254, ID_DATA_SHORT = 255 };

bool
wal_record_is_wanted(uint8_t resource_manager, uint8_t info)
{
    if (resource_manager == RMGR_TRANSACTION) {
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
    if (resource_manager == RMGR_XLOG) {
        switch (info & XLOG_MASK) {
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
    return false;
}

/*
 * Finds the main data. None of the wanted records refers to blocks, so the main data is all there
 * is after its length, and must reach the record's end. A record may have none (SWITCH).
 */
static bool
find_main_data(const WalRecord *record, const uint8_t *body, size_t size, ByteReader *main_out)
{
    ByteReader headers = byte_reader(body, size);
    const size_t whole_size = record->total_size - WAL_RECORD_HEADER_SIZE;
    size_t main_size = 0;

    while (headers.at < whole_size && main_size == 0 && !headers.failed) {
        switch (byte_reader_u8(&headers)) {
        case ID_DATA_SHORT:
            main_size = byte_reader_u8(&headers);
            break;
        case ID_DATA_LONG:
            main_size = byte_reader_u32(&headers);
            break;
        case ID_ORIGIN:
            (void)byte_reader_u16(&headers);
            continue;
        case ID_TOPLEVEL_XID:
            (void)byte_reader_u32(&headers);
            continue;
        default:
            return false;
        }
        if (main_size == 0) /* announced and empty is never written */
            return false;
    }
    if (headers.failed || headers.at + main_size != whole_size)
        return false;
    *main_out = byte_reader(body + headers.at, size - headers.at);
    return true;
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

/* A part that is a 32-bit count and as many items. */
static void
skip_items(ByteReader *data, size_t item_size)
{
    const uint32_t count = byte_reader_u32(data);
    size_t bytes;

    if (__builtin_mul_overflow((size_t)count, item_size, &bytes))
        data->failed = true;
    (void)byte_reader_bytes(data, bytes);
}

/* The xid of the prepared transaction that a commit or abort finished. */
static uint32_t
read_prepared_xid(int major, ByteReader *data, uint32_t parts, bool commit)
{
    if (parts & PART_DATABASE)
        (void)byte_reader_bytes(data, 8);
    if (parts & PART_SUBTRANSACTIONS)
        skip_items(data, 4);
    if (parts & PART_RELATIONS)
        skip_items(data, 12);
    if (parts & PART_DROPPED_STATISTICS)
        skip_items(data, major >= 18 ? 16 : 12); /* 18 widened the object's id to 64 bits */
    if (commit && (parts & PART_INVALIDATIONS))
        skip_items(data, 16);
    return byte_reader_u32(data);
}

static bool
decode_transaction(int major, ByteReader *data, bool whole, WalRecord *record)
{
    const int operation = record->info & TRANSACTION_MASK;
    const bool commit = operation == TRANSACTION_COMMIT || operation == TRANSACTION_COMMIT_PREPARED;
    const bool prepared =
        operation == TRANSACTION_COMMIT_PREPARED || operation == TRANSACTION_ABORT_PREPARED;

    record->kind = commit ? WAL_RECORD_COMMIT : WAL_RECORD_ABORT;
    record->time_us = read_time(data);
    record->transaction_xid = record->xid;
    const uint32_t parts = record->info & TRANSACTION_HAS_PARTS ? byte_reader_u32(data) : 0;
    if (data->failed)
        return false;
    if (!prepared)
        return true;

    if ((parts & PART_TWO_PHASE) == 0)
        return false;
    record->transaction_xid = read_prepared_xid(major, data, parts, commit);
    /* Of a record too long to keep, the xid may be among the bytes let go; its time is not. */
    if (data->failed)
        record->transaction_xid = 0;
    return whole ? !data->failed : true;
}

static bool
decode_checkpoint(ByteReader *data, WalRecord *record)
{
    (void)byte_reader_u64(data); /* redo */
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
    switch (record->info & XLOG_MASK) {
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
    case XLOG_PARAMETER_CHANGE:
        record->kind = WAL_RECORD_PARAMETER_CHANGE;
        return true;
    default:
        return true;
    }
}

bool
wal_record_decode(int major, const uint8_t *body, size_t size, WalRecord *record_io)
{
    ByteReader data;
    WalRecord record = *record_io;

    if (!find_main_data(&record, body, size, &data))
        return false;
    const bool whole = size == record.total_size - WAL_RECORD_HEADER_SIZE;
    const bool decoded = record.resource_manager == RMGR_TRANSACTION
                             ? decode_transaction(major, &data, whole, &record)
                             : decode_xlog(&data, &record);
    if (decoded)
        *record_io = record;
    return decoded;
}

bool
wal_record_overwritten(const WalRecord *record, const uint8_t *body, size_t size, uint64_t *lsn_out)
{
    ByteReader data;

    if (record->resource_manager != RMGR_XLOG ||
        (record->info & XLOG_MASK) != XLOG_OVERWRITE_CONTRECORD ||
        !find_main_data(record, body, size, &data)) {
        return false;
    }
    const uint64_t lsn = byte_reader_u64(&data);
    if (data.failed)
        return false;
    *lsn_out = lsn;
    return true;
}
