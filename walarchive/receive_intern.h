/*
 * What the receiver's files share: receive.c (connections, one after another), receive_session.c
 * (one stream), receive_start.c (where to begin), receive_archiver.c, receive_files.c and
 * receive_ship.c (the threads that archive). Nobody else includes this.
 */
#ifndef PGCAIRN_WALARCHIVE_RECEIVE_INTERN_H
#define PGCAIRN_WALARCHIVE_RECEIVE_INTERN_H

#include "postgres/connection.h"
#include "postgres/timeline.h"
#include "repository/wal_piece.h"
#include "walarchive/receive.h"
#include "walarchive/receive_spool.h"

#include <pthread.h>

/* A byte of a timeline. */
typedef struct {
    uint32_t timeline; /* 0: none */
    uint64_t lsn;
} Position;

/* One repository's archiving thread. */
typedef struct {
    const RepositoryConfig *repository;
    pthread_t thread;
    bool required;
    bool has_files;    /* a file was finished in the spool */
    bool down;         /* the repository is out of reach */
    Position archived; /* everything of this timeline before it is durable in the repository */
} ArchiverTarget;

/* A file of the spool that some have and others don't, yet. */
typedef struct {
    ReceiveFile file;
    uint32_t stored; /* a bit for each target */
} SharedFile;

/* What the archiving threads are told and what they tell; everything below its lock. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t wake; /* to the archiving threads */
    int notify_fd;       /* eventfd, to the thread of control */
    ArchiverTarget targets[CONFIG_REPOSITORIES_LIMIT];
    size_t target_count; /* 0: none is running */
    SharedFile *shared;
    size_t shared_count;

    bool stopping;
    Position part;        /* what was written; its segment is the part's */
    Position open;        /* the first byte of the part that is open; it is nobody else's */
    Position archived;    /* of all targets that are required: the least */
    uint64_t spool_bytes; /* whole segments that wait */
    bool failed;          /* for good: error says why */
    CairnError error;
} Archiver;

typedef struct {
    const World *world;
    const ReceiveOptions *options;
    Incarnation incarnation;
    Repository *repository; /* the thread of control's, to look at what is stored: the first
                               required one */
    WalStore *store;
    ReceiveSpool spool;
    Archiver archiver;

    Connection *connection;
    char *conninfo; /* with the application name */
    Position at;    /* the next byte; timeline 0: not known yet */
    bool announced; /* streaming was logged since the last trouble */
} Receive;

enum {
    OWN_PIECES_LIMIT = 4096
}; /* half of it for those of former runs; more are the collector's */

typedef struct {
    WalPieceName name;
    uint32_t level;
} OwnPiece;

/* What only one archiving thread touches. */
typedef struct {
    Receive *receive;
    size_t index; /* of its target */
    Repository *repository;
    WalStore *store;
    Position part; /* what this round was told; timeline 0: nothing it stores counts as archived */
    /* Of the segment that pieces are shipped of: how far they go, and which they are, by offset. */
    uint32_t timeline; /* 0: none yet */
    uint64_t segment;
    uint32_t shipped;
    OwnPiece pieces[OWN_PIECES_LIMIT];
    size_t piece_count;
} Worker;

/* Milliseconds of the monotonic clock. */
int64_t receive_now_ms(const Receive *receive);

/* -- receive_session.c -- */
/* False once archiving failed for good. *full_out: the spool has reached its limit. */
bool receive_ask_archiver(Receive *receive, bool *full_out, CairnError *err) MUST_CHECK;
/* Streams from receive->at until the timeline ends (*ended: the next one can begin), or an error.
 */
bool receive_stream(Receive *receive, bool *ended, CairnError *err) MUST_CHECK;

/* -- receive_ship.c -- */
/* Everything of the part up to `size` that is not in the repository yet. */
bool receive_ship(Worker *worker, uint32_t timeline, uint64_t segment, uint32_t size,
                  CairnError *err) MUST_CHECK;
/* The segment is stored: its pieces are superseded. */
bool receive_remove_pieces(Worker *worker, uint32_t timeline, uint64_t segment,
                           CairnError *err) MUST_CHECK;

/* -- receive_files.c -- */
/* Stores everything that waits in the spool, and each part that nobody writes any more. */
bool receive_archive_files(Worker *worker, const Position *part, CairnError *err) MUST_CHECK;
/* The part at this byte begins anew: nobody has it. With the lock held. */
void receive_forget_shared_part(Receive *receive, uint32_t timeline, uint64_t segment);
/* To the thread of control: look. */
void receive_notify(Receive *receive);

/* -- receive_archiver.c -- */
/* Everything of the timeline before lsn is durable in the worker's repository. No news when lsn
   lies behind the part: what is stored ahead of the stream says nothing of what is before it. */
void receive_set_archived(Worker *worker, uint32_t timeline, uint64_t lsn);
bool archiver_start(Receive *receive, CairnError *err) MUST_CHECK;
/* Ships what there is of the part, as far as the repositories answer, and ends the threads. */
void archiver_stop(Receive *receive);
/* A sync of the part failed: nothing more of it is shipped, nor of any that is left. */
void archiver_forget_part(Receive *receive);
/* The part grew to `part`; finished: a file is whole. */
void archiver_tell(Receive *receive, Position part, bool finished);
/* The part at this byte is about to be opened: from here on the archiving thread leaves it alone.
 */
void archiver_open_part(Receive *receive, uint32_t timeline, uint64_t segment);
/* A new timeline: what is archived of the old one says nothing of it. */
void archiver_begin_timeline(Receive *receive, Position part);

/* -- receive_start.c -- */
/* Where to begin; sets receive->at and begins the part. Histories of the server's path are in the
   spool afterwards. */
bool receive_find_start(Receive *receive, CairnError *err) MUST_CHECK;
/* Begins the part that holds `start`, or goes on with it; sets receive->at to its end. */
bool receive_open_part(Receive *receive, Position start, CairnError *err) MUST_CHECK;
/* Fetches <timeline>.history from the server into the spool; path_out may be NULL. */
bool receive_fetch_history(Receive *receive, uint32_t timeline, TimelineHistory *path_out,
                           CairnError *err) MUST_CHECK;
/* The server has removed what we need: says so, or with --accept-gap moves receive->at behind it.
 */
bool receive_judge_removed(Receive *receive, CairnError *err) MUST_CHECK;

#endif
