/*
 * Messages inside the CopyBoth stream of START_REPLICATION (facts 2.6): taken apart and put
 * together.
 *
 * What: bytes only, no connection, so that anybody can test and fuzz it. Parsed as hostile: sizes
 * are bounded, positions may not overflow. Units: LSNs; times in microseconds since 2000 as on the
 * wire. Errors: CORRUPT for anything that a server never sends. Threads: any.
 */
#ifndef PGCAIRN_POSTGRES_WAL_MESSAGE_H
#define PGCAIRN_POSTGRES_WAL_MESSAGE_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WAL_MESSAGE_DATA_HEADER = 25,
    WAL_MESSAGE_DATA_LIMIT = 1 << 20, /* servers send at most 16 WAL pages; room for other builds */
    WAL_MESSAGE_STATUS_SIZE = 34,
};

typedef enum { WAL_MESSAGE_DATA, WAL_MESSAGE_KEEPALIVE } WalMessageKind;

typedef struct {
    WalMessageKind kind;
    uint64_t start_lsn;  /* DATA: of its first byte */
    const uint8_t *data; /* DATA: borrowed from the message */
    size_t size;
    uint64_t server_lsn; /* the end of what the server has */
    int64_t sent_us;
    bool reply_requested;
} WalMessage;

bool wal_message_parse(const void *bytes, size_t size, WalMessage *message_out,
                       CairnError *err) MUST_CHECK;

/* What a receiver reports: each the last byte + 1; 0: not said. */
typedef struct {
    uint64_t write_lsn;
    uint64_t flush_lsn;
    uint64_t apply_lsn;
    int64_t sent_us;
    bool reply_requested;
} WalStatus;

void wal_message_status(uint8_t bytes[WAL_MESSAGE_STATUS_SIZE], const WalStatus *status);

#endif
