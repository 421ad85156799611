#include "postgres/wal_record_parts.h"

#include "common/bytes.h"

/* Ids of the headers before a record's main data; up to 32 they number block references. */
enum {
    ID_BLOCK_LAST = WAL_RECORD_BLOCK_LIMIT - 1,
    ID_TOPLEVEL_XID = 252,
    ID_ORIGIN = 253,
    ID_DATA_LONG = 254,
    ID_DATA_SHORT = 255,
};

/* A block reference's fork byte, and its image's info byte. */
enum {
    BLOCK_FORK_MASK = 0x0F,
    BLOCK_HAS_IMAGE = 0x10,
    BLOCK_HAS_DATA = 0x20,
    BLOCK_SAME_RELATION = 0x80,
    IMAGE_HAS_HOLE = 0x01,
    IMAGE_COMPRESSED = 0x04 | 0x08 | 0x10,
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

/* The headers on their way; read without calls, since a busy segment has hundreds of thousands. */
typedef struct {
    const uint8_t *at;
    size_t left;        /* bytes of headers that are here */
    uint64_t data_size; /* announced so far: images and data of blocks, then the main data */
    const WalRelation *relation; /* of the block reference before */
    int last_block_id;
} Headers;

/* The next size bytes, or NULL. */
static inline const uint8_t *
take_bytes(Headers *headers, size_t size)
{
    const uint8_t *at = headers->at;

    if (headers->left < size)
        return NULL;
    headers->at += size;
    headers->left -= size;
    return at;
}

static bool
take_image(Headers *headers)
{
    const uint8_t *image = take_bytes(headers, 5); /* length, hole offset, info */

    if (image == NULL)
        return false;
    headers->data_size += get_u16(image);
    return (image[4] & IMAGE_COMPRESSED) == 0 || (image[4] & IMAGE_HAS_HOLE) == 0 ||
           take_bytes(headers, 2) != NULL;
}

static bool
take_block(Headers *headers, int id, WalRecordParts *parts)
{
    const uint8_t *head = take_bytes(headers, 3);

    if (head == NULL || id <= headers->last_block_id)
        return false;
    headers->last_block_id = id;
    headers->data_size += get_u16(head + 1);
    if ((head[0] & BLOCK_HAS_IMAGE) != 0 && !take_image(headers))
        return false;

    WalBlock *block = &parts->blocks[parts->block_count++];
    block->fork = head[0] & BLOCK_FORK_MASK;
    if ((head[0] & BLOCK_SAME_RELATION) != 0) {
        if (headers->relation == NULL)
            return false;
        block->relation = *headers->relation;
    } else {
        const uint8_t *relation = take_bytes(headers, 12);
        if (relation == NULL)
            return false;
        block->relation =
            (WalRelation){get_u32(relation), get_u32(relation + 4), get_u32(relation + 8)};
    }
    headers->relation = &block->relation;
    const uint8_t *number = take_bytes(headers, 4);
    if (number == NULL || block->fork > WAL_FORK_INIT)
        return false;
    block->block = get_u32(number);
    return true;
}

/* Announced and empty is never written. */
static bool
take_main_size(Headers *headers, uint8_t id, size_t *main_size)
{
    const uint8_t *size = take_bytes(headers, id == ID_DATA_SHORT ? 1 : 4);

    if (size == NULL)
        return false;
    *main_size = id == ID_DATA_SHORT ? *size : get_u32(size);
    headers->data_size += *main_size;
    return *main_size > 0;
}

bool
wal_record_split(const uint8_t *body, size_t size, size_t whole_size, WalRecordParts *parts_out)
{
    Headers headers = {.at = body, .left = size, .last_block_id = -1};
    size_t unread = whole_size; /* of the whole body, behind the headers read so far */
    size_t main_size = 0;

    parts_out->block_count = 0;
    while (unread > headers.data_size && main_size == 0) {
        const uint8_t *id = take_bytes(&headers, 1);

        if (id == NULL)
            return false;
        bool taken;
        if (*id <= ID_BLOCK_LAST)
            taken = take_block(&headers, *id, parts_out);
        else if (*id >= ID_DATA_LONG)
            taken = take_main_size(&headers, *id, &main_size);
        else if (*id == ID_ORIGIN || *id == ID_TOPLEVEL_XID)
            taken = take_bytes(&headers, *id == ID_ORIGIN ? 2 : 4) != NULL;
        else
            taken = false;
        if (!taken)
            return false;
        unread = whole_size - (size_t)(headers.at - body);
    }
    /* The headers end exactly where the announced data begins. */
    if (unread != headers.data_size)
        return false;

    const size_t main_offset = whole_size - main_size;
    parts_out->main_whole = size == whole_size;
    parts_out->main_size = size > main_offset ? size - main_offset : 0;
    parts_out->main_data = body + (parts_out->main_size > 0 ? main_offset : 0);
    return true;
}

/* A part that is a 32-bit count and as many items. */
static WalItems
take_items(ByteReader *data, size_t item_size)
{
    const uint32_t count = byte_reader_u32(data);
    size_t bytes;

    if (__builtin_mul_overflow((size_t)count, item_size, &bytes))
        data->failed = true;
    const uint8_t *items = byte_reader_bytes(data, bytes);
    return (WalItems){.data = items, .count = items != NULL ? count : 0};
}

bool
wal_transaction_split(int major, const WalRecord *record, const WalRecordParts *parts,
                      WalTransactionParts *transaction_out)
{
    ByteReader data = byte_reader(parts->main_data, parts->main_size);
    WalTransactionParts transaction = {0};

    (void)byte_reader_u64(&data); /* time */
    const uint32_t bits =
        (record->info & WAL_TRANSACTION_HAS_PARTS) != 0 ? byte_reader_u32(&data) : 0;
    if ((bits & PART_DATABASE) != 0)
        (void)byte_reader_bytes(&data, 8);
    if ((bits & PART_SUBTRANSACTIONS) != 0)
        transaction.subtransactions = take_items(&data, 4);
    if ((bits & PART_RELATIONS) != 0)
        transaction.relations = take_items(&data, 12);
    if ((bits & PART_DROPPED_STATISTICS) != 0)
        (void)take_items(&data, major >= 18 ? 16 : 12); /* 18 widened the object's id to 64 bits */
    if ((bits & PART_INVALIDATIONS) != 0 && record->kind == WAL_RECORD_COMMIT)
        (void)take_items(&data, 16);
    transaction.has_prepared_xid = (bits & PART_TWO_PHASE) != 0;
    if (transaction.has_prepared_xid)
        transaction.prepared_xid = byte_reader_u32(&data);
    if (data.failed)
        return false;
    *transaction_out = transaction;
    return true;
}

bool
wal_oids_split(const WalRecord *record, const WalRecordParts *parts, WalItems *oids_out)
{
    ByteReader data = byte_reader(parts->main_data, parts->main_size);

    (void)byte_reader_u32(&data); /* database */
    const uint32_t count = byte_reader_u32(&data);
    if (record->kind == WAL_RECORD_TABLE_TRUNCATE)
        (void)byte_reader_u32(&data); /* flags, padded */
    const uint8_t *oids = byte_reader_bytes(&data, (size_t)count * 4);
    if (data.failed)
        return false;
    *oids_out = (WalItems){.data = oids, .count = count};
    return true;
}

WalRelation
wal_items_relation(const WalItems *items, uint32_t number)
{
    const uint8_t *at = items->data + (size_t)number * 12;

    return (WalRelation){get_u32(at), get_u32(at + 4), get_u32(at + 8)};
}

uint32_t
wal_items_u32(const WalItems *items, uint32_t number)
{
    return get_u32(items->data + (size_t)number * 4);
}
