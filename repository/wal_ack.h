/*
 * Holes in the WAL that somebody decided to live with: `ack.<start>-<end>.<token>` below the log
 * of the range (docs/format.md, "Acknowledged hole"). An acknowledged hole stays a hole: nothing
 * here ever counts as WAL, and no recovery goes through it. It only says that people know of it.
 *
 * Units: half-open LSN ranges of whole segments, all on one timeline. An object lies within one
 * log (4 GiB of WAL); wal_ack_put writes as many as the range touches. Each is created once, under
 * a random token, and never removed. Errors: one that cannot be read acknowledges nothing (verify
 * reports it); storage errors pass through. Crash: a prefix of the range is acknowledged, durably.
 * Threads: as the store: one.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_ACK_H
#define PGCAIRN_REPOSITORY_WAL_ACK_H

#include "repository/wal_store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WAL_ACK_TEXT_SIZE = 65, /* host, user */
    WAL_ACK_REASON_SIZE = 513,
    WAL_ACK_LOG_LIMIT = 1024, /* logs that one range may touch: 4 TiB of WAL */
    WAL_ACK_LIMIT = 4096,     /* read for one question; beyond it a hole counts as unacknowledged */
};

/* Stored: as text. */
typedef enum {
    WAL_ACK_GAP,  /* it was found missing, and a person knows */
    WAL_ACK_SKIP, /* it was dropped on purpose: `wal skip` told PostgreSQL to go on */
} WalAckDecision;

/* "acknowledge-gap", "skip": as stored. */
const char *wal_ack_decision_name(WalAckDecision decision);

typedef struct {
    uint32_t timeline;
    uint64_t start_lsn, end_lsn;
    WalAckDecision decision;
    int64_t at_us;
    char host[WAL_ACK_TEXT_SIZE];
    char user[WAL_ACK_TEXT_SIZE];
    char reason[WAL_ACK_REASON_SIZE];
} WalAck;

/*
 * Records the decision. Host, user and time are filled in here; timeline, range, decision and
 * reason are the caller's.
 *
 * True: durable. USAGE: the range is empty, too wide, or not of whole segments, or the reason is
 * empty or too long. CONFLICT: a segment of the range is stored (named): there is nothing to
 * acknowledge.
 */
bool wal_ack_put(WalStore *store, const WalAck *ack, CairnError *err) MUST_CHECK;

/* Acknowledgements of a timeline that touch the range, in no order. malloc'ed (returned owned). */
bool wal_ack_find(WalStore *store, uint32_t timeline, uint64_t start_lsn, uint64_t end_lsn,
                  WalAck **acks_out, size_t *count_out, CairnError *err) MUST_CHECK;

/* The newest of those that touch the range, when together they cover all of it; else NULL. */
const WalAck *wal_ack_covering(const WalAck *acks, size_t count, uint64_t start_lsn,
                               uint64_t end_lsn);

/* Is this a name of such an object? Its range then; the grain of segments is not checked. */
bool wal_ack_name_parse(const char *name, uint64_t *start_lsn_out,
                        uint64_t *end_lsn_out) MUST_CHECK;

#endif
