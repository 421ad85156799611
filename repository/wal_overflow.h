/*
 * WAL that waits on this host for a repository that is down (`overflow-path`).
 *
 * <overflow-path>/<cluster>-<24 hex>/<system id, 16 hex>-<major>/
 *     <name>          the file as the server wrote it, byte for byte: usable without us
 *     <name>.sha256   its SHA-256, as sha256sum writes it
 *
 * The 24 digits are of the repository's path, so that the WAL of two repositories never mixes. A
 * file is there when its name is: bytes and digest are synced under temporary names, then the
 * digest is linked, then the file. Never overwritten; other content under a name is CONFLICT.
 *
 * It is no place of the repository and not off the host: whatever is in it is to be shipped.
 * Errors: REFUSED when it lies on the file system that it is to relieve or in memory, DENIED when
 * others may write to it, CORRUPT when a file does not agree with its digest. Threads: one. Other
 * processes may put and ship at the same time: a file leaves only after it is durable in the
 * repository.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_OVERFLOW_H
#define PGCAIRN_REPOSITORY_WAL_OVERFLOW_H

#include "common/scoped.h"
#include "postgres/archive_queue.h"
#include "repository/wal_store.h"

typedef struct WalOverflow WalOverflow;

typedef struct {
    const char *path; /* overflow-path */
    const RepositoryConfig *repository;
    const char *cluster;
    uint64_t system_id;
    int major;
} WalOverflowPlace;

/* The directory of this repository, cluster and system, below overflow-path. */
enum { WAL_OVERFLOW_DIRECTORY_SIZE = 160 };
bool wal_overflow_directory(const WalOverflowPlace *place, char below[WAL_OVERFLOW_DIRECTORY_SIZE],
                            CairnError *err) MUST_CHECK;

/*
 * Files of this cluster's name that wait in other directories than these places': of a repository
 * that had another path, or of a system of before. Nothing ships them while the places are what is
 * configured (wal_overflow_others.c). places: one or more, below the same overflow-path.
 */
typedef struct {
    size_t files;
    char directory[WAL_OVERFLOW_DIRECTORY_SIZE]; /* one that has any, below overflow-path */
    size_t unreadable;                           /* directories of which nothing is known, */
    char unreadable_directory[WAL_OVERFLOW_DIRECTORY_SIZE]; /* one of them, */
    CairnError problem;                                     /* and why */
} WalOverflowOthers;
/* Fails when overflow-path itself cannot be looked through. */
bool wal_overflow_others(const World *world, const WalOverflowPlace *places, size_t count,
                         WalOverflowOthers *others_out, CairnError *err) MUST_CHECK;

/* create false: NOT_FOUND when nothing was ever put there. overflow-path itself must exist, and is
   never made: UNAVAILABLE, for it may be what is not mounted. */
WalOverflow *wal_overflow_open(const World *world, const WalOverflowPlace *place, bool create,
                               CairnError *err) MUST_CHECK;
void wal_overflow_close(WalOverflow *overflow);
SCOPED_TYPE(WalOverflow, wal_overflow_close);

/* Durable afterwards; the same content again is success. wal_directory_fd: pg_wal, whose file
   system it must not share. */
bool wal_overflow_put(WalOverflow *overflow, int wal_directory_fd, const char *file_name, int fd,
                      CairnError *err) MUST_CHECK;

/* Writes the verified file to fd (-1: only verifies it). NOT_FOUND: it is not here. */
bool wal_overflow_fetch(WalOverflow *overflow, const char *file_name, int fd,
                        CairnError *err) MUST_CHECK;

typedef struct {
    ArchiveQueue queue;
    uint64_t bytes;
    int64_t oldest_us; /* when the oldest was put there; 0: none */
} WalOverflowList;
bool wal_overflow_list(WalOverflow *overflow, WalOverflowList *list_out,
                       CairnError *err) MUST_CHECK;

/* Is there anything later of this segment's timeline, or a history of one that left it in a later
   segment, so that its absence is a hole? Fails when a history that could say so cannot be read. */
bool wal_overflow_has_later(WalOverflow *overflow, uint32_t segment_size, const char *file_name,
                            bool *found_out, CairnError *err) MUST_CHECK;

/* Into the repository, in the server's order, at most `limit` files; ends at the first that fails.
 *shipped_out is set also then. */
bool wal_overflow_ship(WalOverflow *overflow, WalStore *store, size_t limit, size_t *shipped_out,
                       CairnError *err) MUST_CHECK;

#endif
