/*
 * What push and pushing ahead share: one file, whose WAL it is, and the place in the repository
 * where it goes.
 */
#ifndef PGCAIRN_WALARCHIVE_PUSH_INTERN_H
#define PGCAIRN_WALARCHIVE_PUSH_INTERN_H

#include "repository/incarnation.h"
#include "repository/wal_store.h"
#include "walarchive/push.h"
#include "walarchive/spool.h"

/* A file of pg_wal, open. */
typedef struct {
    const World *world;
    int fd;
    const char *name; /* of the file, without its directory; borrowed */
    uint64_t system_id;
    int major;
} WalSource;

/* directory_fd: what a relative path begins at. pgdata_fd: for files that do not say themselves
   whose they are. */
bool wal_source_open(WalSource *source, const World *world, int pgdata_fd, int directory_fd,
                     const char *path, CairnError *err) MUST_CHECK;
/* What can be known of it without the repository: a segment's size and place agree with its name.
 */
bool wal_source_check(const WalSource *source, CairnError *err) MUST_CHECK;
void wal_source_close(WalSource *source);
#define SCOPED_WAL_SOURCE __attribute__((cleanup(wal_source_close))) WalSource

/* Where WAL of one system goes. One a thread. Zeros, but for the first three, to begin with. */
typedef struct {
    Repository *repository; /* borrowed, shared */
    const char *cluster;
    const Spool *spool; /* borrowed, shared; NULL: nothing is remembered */
    Incarnation incarnation;
    WalStore *store; /* NULL until the first file came */
} WalPlace;

/* The place of the last file, and the repository that it is in. */
struct PushKept {
    Repository *repository;
    WalPlace place;
};

/* repository_open, for who holds up a server. */
Repository *push_repository_open(const World *world, const RepositoryConfig *config,
                                 CairnError *err) MUST_CHECK;
/* The repository as it is configured: the kept one, when its path still leads there (was_open).
   NULL on failure. Borrowed. */
Repository *push_kept_repository(PushKept *kept, const World *world, const RepositoryConfig *config,
                                 bool *was_open_out, CairnError *err) MUST_CHECK;

/* Ready for WAL of the source's system, which must be known to the repository. */
bool wal_place_open(WalPlace *place, const WalSource *source, CairnError *err) MUST_CHECK;
void wal_place_close(WalPlace *place);
#define SCOPED_WAL_PLACE __attribute__((cleanup(wal_place_close))) WalPlace

/* push.c: some of what waits in overflow-path goes into the place's repository, in order. The place
   must be open. */
bool wal_place_ship(WalPlace *place, const World *world, const WalPush *push, size_t limit,
                    size_t *shipped_out, CairnError *err) MUST_CHECK;
/* Remembered as durable, the very same file, and still in the repository. False when in doubt. */
bool wal_place_holds(WalPlace *place, const WalSource *source);

/*
 * The same for who has not opened the repository, which costs more than all the rest of such a
 * call. Of one that is a directory: its descriptor is the very file that it was, unchanged, and the
 * segment is there with the size that was stored. One that is far away is not asked at all, since
 * asking for each of many files costs more than they do; it must have been a moment ago. What was
 * stored minutes ago and is gone now was taken away by somebody, who could as well come a moment
 * after we have looked.
 */
bool wal_push_recalls(const Spool *spool, const WalPush *push, const WalSource *source);

/* Store, and remember it where there is a spool. wait: let a file that was written just now settle
   first, so that it can be remembered. */
bool wal_place_put(WalPlace *place, const WalSource *source, bool wait, WalPushed *pushed_out,
                   CairnError *err) MUST_CHECK;

#endif
