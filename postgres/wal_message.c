#include "postgres/wal_message.h"

enum { KEEPALIVE_SIZE = 18 };

/* The wire is big-endian. */
static uint64_t
get_be64(const uint8_t *bytes)
{
    uint64_t value = 0;

    for (size_t i = 0; i < sizeof value; i++)
        value = value << 8 | bytes[i];
    return value;
}

static void
put_be64(uint8_t *bytes, uint64_t value)
{
    for (size_t i = 0; i < sizeof value; i++)
        bytes[i] = (uint8_t)(value >> (56 - 8 * i));
}

static bool
parse_data(const uint8_t *bytes, size_t size, WalMessage *message, CairnError *err)
{
    if (size < WAL_MESSAGE_DATA_HEADER || size - WAL_MESSAGE_DATA_HEADER > WAL_MESSAGE_DATA_LIMIT) {
        return cairn_error(err, CAIRN_CORRUPT, "WAL message of %zu bytes in the stream", size);
    }
    message->kind = WAL_MESSAGE_DATA;
    message->start_lsn = get_be64(bytes + 1);
    message->server_lsn = get_be64(bytes + 9);
    message->sent_us = (int64_t)get_be64(bytes + 17);
    message->data = bytes + WAL_MESSAGE_DATA_HEADER;
    message->size = size - WAL_MESSAGE_DATA_HEADER;
    if (message->start_lsn == 0 || message->start_lsn > UINT64_MAX - WAL_MESSAGE_DATA_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT, "WAL message with an impossible position");
    return true;
}

bool
wal_message_parse(const void *data, size_t size, WalMessage *message_out, CairnError *err)
{
    const uint8_t *bytes = data;
    WalMessage message = {0};

    if (size == 0)
        return cairn_error(err, CAIRN_CORRUPT, "empty message in the WAL stream");
    switch (bytes[0]) {
    case 'w':
        if (!parse_data(bytes, size, &message, err))
            return false;
        break;
    case 'k':
        if (size != KEEPALIVE_SIZE || bytes[17] > 1)
            return cairn_error(err, CAIRN_CORRUPT, "malformed keepalive in the WAL stream");
        message.kind = WAL_MESSAGE_KEEPALIVE;
        message.server_lsn = get_be64(bytes + 1);
        message.sent_us = (int64_t)get_be64(bytes + 9);
        message.reply_requested = bytes[17] != 0;
        break;
    default:
        return cairn_error(err, CAIRN_CORRUPT, "unknown message type 0x%02x in the WAL stream",
                           bytes[0]);
    }
    *message_out = message;
    return true;
}

void
wal_message_status(uint8_t bytes[WAL_MESSAGE_STATUS_SIZE], const WalStatus *status)
{
    bytes[0] = 'r';
    put_be64(bytes + 1, status->write_lsn);
    put_be64(bytes + 9, status->flush_lsn);
    put_be64(bytes + 17, status->apply_lsn);
    put_be64(bytes + 25, (uint64_t)status->sent_us);
    bytes[33] = status->reply_requested ? 1 : 0;
}
