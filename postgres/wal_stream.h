/*
 * START_REPLICATION PHYSICAL: one timeline's WAL from a byte on (facts 2.6, 2.7).
 *
 * What: yields what the server sends, in order, checked to be contiguous; reports positions. Knows
 * nothing of where the bytes go. A stream that ended leaves its connection fit for further commands
 * (the next timeline); one that failed does not.
 * Errors: UNAVAILABLE (server or network went away: connect again), NOT_FOUND (no
 * such slot), REFUSED (slot in use or lost), MISMATCH (timeline or position not in this server's
 * history), CORRUPT (not what a server sends), CANCELLED.
 * Threads: the connection's one.
 */
#ifndef PGCAIRN_POSTGRES_WAL_STREAM_H
#define PGCAIRN_POSTGRES_WAL_STREAM_H

#include "postgres/connection.h"
#include "postgres/wal_message.h"

typedef struct WalStream WalStream;

typedef struct {
    const char *slot; /* NULL: none */
    uint64_t start_lsn;
    uint32_t timeline;
} WalStreamStart;

WalStream *wal_stream_start(Connection *connection, const WalStreamStart *start,
                            CairnError *err) MUST_CHECK;
void wal_stream_free(WalStream *stream);
SCOPED_TYPE(WalStream, wal_stream_free);

typedef enum {
    WAL_STREAM_NOTHING,         /* the time passed, or somebody woke us */
    WAL_STREAM_DATA,            /* message: borrowed until the next call */
    WAL_STREAM_KEEPALIVE,       /* message.reply_requested */
    WAL_STREAM_END_OF_TIMELINE, /* next_timeline goes on at next_lsn */
    WAL_STREAM_SERVER_STOPPED,  /* a shutdown that waited for us: nothing is missing */
} WalStreamEventKind;

typedef struct {
    WalStreamEventKind kind;
    WalMessage message;
    uint32_t next_timeline;
    uint64_t next_lsn;
} WalStreamEvent;

/* Waits at most timeout_ms (0: takes only what is there). wake_fd: readable means come back; -1:
   none. read false: takes nothing from the server, only waits (back pressure). */
bool wal_stream_next(WalStream *stream, int timeout_ms, int wake_fd, bool read,
                     WalStreamEvent *event_out, CairnError *err) MUST_CHECK;

bool wal_stream_report(WalStream *stream, const WalStatus *status, CairnError *err) MUST_CHECK;
/* Ends the copy from our side, so that the server frees the slot at once. */
bool wal_stream_end(WalStream *stream, CairnError *err) MUST_CHECK;

/* The error says that the server has removed the WAL already: no retry brings it back. It may come
   from the start or from the first wal_stream_next. */
bool wal_stream_removed(const CairnError *err);

/* True when both ends of the connection are on one host, as far as addresses tell. */
bool wal_stream_is_local(Connection *connection);

#endif
