/*
 * receive: WAL over a replication connection, byte by byte as the server writes it.
 *
 * What: streams into segment files in a spool, each synced; a thread of its own stores finished
 * ones in the repository exactly as push does, and every few seconds what there is of the
 * unfinished one (repository/wal_piece.h). Follows promotions, connects again for ever, and never
 * begins again behind a gap without being told to. What the server is told: "flush" is what it may
 * forget. Plain: what is synced in the spool. With synchronous: what is durable in the repository,
 * so that a commit that waits for us is there. With synchronous_spool: what is synced in a spool on
 * another host than the server's. Errors: those of connecting and streaming; REFUSED (a gap; a
 * spool in use; an unsafe synchronous_spool), CONFLICT (other WAL is stored under a segment's
 * name), MISMATCH (another system, or a timeline that this server does not know). True: a signal
 * ended it tidily. Crash: the spool keeps what was reported as flushed; the next run checks it
 * record by record, cuts what is torn, and goes on. Threads: one of control (the caller's), one
 * a repository that archives. Memory: libpq's buffer and two frames.
 */
#ifndef PGCAIRN_WALARCHIVE_RECEIVE_H
#define PGCAIRN_WALARCHIVE_RECEIVE_H

#include "common/config.h"
#include "common/error.h"
#include "common/world.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const ClusterConfig *cluster;
    /* All that WAL is stored in. What is reported and what leaves the spool is what every required
       one has (where none is required, all are); the others are waited for while they answer and
       the spool is not half full. */
    const RepositoryConfig *const *repositories;
    size_t repository_count;
    const char *spool_path;
    const char *slot;             /* NULL: none */
    const char *application_name; /* NULL: conninfo's, else "pgcairn receive" */
    uint64_t spool_limit_bytes;
    int tail_interval_ms;
    int server_timeout_ms; /* a server that says nothing for so long, though asked, is left */
    bool create_slot;      /* make it when it is missing */
    bool no_loop;          /* end at the first trouble instead of trying again */
    bool accept_gap;       /* begin where the server still has WAL, whatever is missing before */
    bool synchronous;
    bool synchronous_spool;
} ReceiveOptions;

bool receive_run(const World *world, const ReceiveOptions *options, CairnError *err) MUST_CHECK;
bool receive_drop_slot(const ReceiveOptions *options, CairnError *err) MUST_CHECK;

#endif
