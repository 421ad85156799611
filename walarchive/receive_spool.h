/*
 * The receiver's own directory: `<spool>/receive/<cluster>/<system>-<major>/`, one process at a
 * time.
 *
 *   <segment>        whole, synced: goes into the repository and then away
 *   <segment>.part   as far as it came; grows
 *   <TLI>.history    whole, synced
 *   lock
 *
 * Units: bytes. Errors: REFUSED when another process has it; IO and NO_SPACE as the disk says; a
 * failed sync is final for the process. Threads: the part belongs to the thread of control;
 * listing, opening and removing files are for any.
 */
#ifndef PGCAIRN_WALARCHIVE_RECEIVE_SPOOL_H
#define PGCAIRN_WALARCHIVE_RECEIVE_SPOOL_H

#include "common/world.h"
#include "postgres/wal_name.h"
#include "repository/incarnation.h"

#include <limits.h>

typedef struct {
    const World *world;
    const Incarnation *incarnation;
    int directory_fd; /* -1: closed */
    int lock_fd;
    bool failed; /* a sync: nothing that was not synced before counts, none is tried again */
    char path[PATH_MAX];

    /* The part that is being written; part_fd -1: none. */
    int part_fd;
    uint32_t timeline;
    uint64_t segment;
    uint32_t size;   /* written */
    uint32_t synced; /* of these */
} ReceiveSpool;

/* Is there one? */
bool receive_spool_exists(const World *world, const char *path, const char *cluster,
                          const Incarnation *incarnation, bool *exists_out,
                          CairnError *err) MUST_CHECK;
bool receive_spool_open(const World *world, const char *path, const char *cluster,
                        const Incarnation *incarnation, ReceiveSpool *spool_out,
                        CairnError *err) MUST_CHECK;
void receive_spool_close(ReceiveSpool *spool);

typedef enum { RECEIVE_HISTORY, RECEIVE_SEGMENT, RECEIVE_PART } ReceiveFileKind;

typedef struct {
    ReceiveFileKind kind;
    char name[WAL_FILE_NAME_LIMIT];
    uint32_t timeline;
    uint64_t segment;
    uint64_t size;
} ReceiveFile;

/* Histories, then segments, then parts, each ascending; malloc'ed (returned owned), never NULL. */
bool receive_spool_list(const ReceiveSpool *spool, ReceiveFile **files_out, size_t *count_out,
                        CairnError *err) MUST_CHECK;
/* For reading; -1 and NOT_FOUND when it went. */
int receive_spool_open_file(const ReceiveSpool *spool, const char *name,
                            CairnError *err) MUST_CHECK;
bool receive_spool_remove(const ReceiveSpool *spool, const char *name, CairnError *err) MUST_CHECK;
bool receive_spool_put_history(const ReceiveSpool *spool, uint32_t timeline, const char *text,
                               size_t size, CairnError *err) MUST_CHECK;
void receive_spool_part_name(const ReceiveSpool *spool, uint32_t timeline, uint64_t segment,
                             char name[WAL_FILE_NAME_LIMIT]);

/* Goes on with a part, or begins it. An existing one is read record by record and cut behind the
   last whole record: a crash may have left anything there. */
bool receive_spool_begin(ReceiveSpool *spool, uint32_t timeline, uint64_t segment,
                         CairnError *err) MUST_CHECK;
/* Begins a part at the segment's first byte: what a former run left of it goes. For a stream that
   is there already. */
bool receive_spool_begin_empty(ReceiveSpool *spool, uint32_t timeline, uint64_t segment,
                               CairnError *err) MUST_CHECK;
/* Bytes behind what is there, inside the segment. */
bool receive_spool_write(ReceiveSpool *spool, const void *data, size_t size,
                         CairnError *err) MUST_CHECK;
bool receive_spool_sync(ReceiveSpool *spool, CairnError *err) MUST_CHECK;
/* The part has all of its segment: synced, it gets its name. CORRUPT, and it stays a part, when a
   page of it belongs elsewhere. */
bool receive_spool_finish(ReceiveSpool *spool, CairnError *err) MUST_CHECK;
/* Leaves the part as it is, synced; nothing is written until the next spool_begin. */
bool receive_spool_leave(ReceiveSpool *spool, CairnError *err) MUST_CHECK;

#endif
