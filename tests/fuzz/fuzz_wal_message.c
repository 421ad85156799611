/*
 * Fuzzes messages of the WAL stream: what parses lies within the message, ends at a possible
 * position, and is put together again from what was read.
 */
#include "postgres/wal_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CairnError err = {0};
    WalMessage message;

    if (!wal_message_parse(data, size, &message, &err)) {
        CAIRN_ASSERT(err.kind == CAIRN_CORRUPT);
        return 0;
    }
    if (message.kind == WAL_MESSAGE_KEEPALIVE) {
        CAIRN_ASSERT(message.size == 0 && size == 18);
        return 0;
    }
    CAIRN_ASSERT(message.data == data + WAL_MESSAGE_DATA_HEADER);
    CAIRN_ASSERT(message.size == size - WAL_MESSAGE_DATA_HEADER);
    CAIRN_ASSERT(message.start_lsn != 0 && message.start_lsn + message.size >= message.start_lsn);
    return 0;
}
