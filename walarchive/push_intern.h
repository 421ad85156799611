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

/* The repository as it is configured: the kept one, when its path still leads there. NULL on
   failure. Borrowed. */
Repository *push_kept_repository(PushKept *kept, const World *world, const RepositoryConfig *config,
                                 CairnError *err) MUST_CHECK;

/* Ready for WAL of the source's system, which must be known to the repository. */
bool wal_place_open(WalPlace *place, const WalSource *source, CairnError *err) MUST_CHECK;
void wal_place_close(WalPlace *place);
#define SCOPED_WAL_PLACE __attribute__((cleanup(wal_place_close))) WalPlace

/* Remembered as durable, the very same file, and still in the repository. False when in doubt. */
bool wal_place_holds(WalPlace *place, const WalSource *source);

/* Store, and remember it where there is a spool. wait: let a file that was written just now settle
   first, so that it can be remembered. */
bool wal_place_put(WalPlace *place, const WalSource *source, bool wait, WalPushed *pushed_out,
                   CairnError *err) MUST_CHECK;

#endif
