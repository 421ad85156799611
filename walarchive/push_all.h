/*
 * push into every repository that a cluster names: each has its own state (what is remembered, what
 * waits in overflow-path, what is open), and one that fails or hangs keeps no other from storing.
 *
 * True: every required one has the file, so that PostgreSQL may recycle it. One that is not
 * required is given PUSH_OPTIONAL_PATIENCE_MS more than the required ones took, and where there is
 * a spool, nothing at all for SPOOL_ABSENCE_S after it did not answer; what it lacks then is a hole
 * of its own, which `wal status`, `check` and `info` show and `wal repair` fills from the others.
 * It never uses overflow-path, whose room is for what the answer depends on. Where no repository is
 * required, all are.
 *
 * Errors: the first failure of a required one, its name before it; those of the others are in the
 * result. The next call stores only where the file is missing: what is remembered (spool.h) or
 * stored already answers at once.
 * Threads: one call at a time; several repositories have a thread each inside. A single one is
 * pushed into by the caller's thread, as wal_push does it.
 * Crash: as wal_push, in each repository by itself.
 */
#ifndef PGCAIRN_WALARCHIVE_PUSH_ALL_H
#define PGCAIRN_WALARCHIVE_PUSH_ALL_H

#include "walarchive/push.h"

enum { PUSH_OPTIONAL_PATIENCE_MS = 5000 };

/* The same file, once for each repository. */
typedef struct {
    WalPush pushes[CONFIG_REPOSITORIES_LIMIT];
    size_t count;
    int64_t patience_ms; /* 0: PUSH_OPTIONAL_PATIENCE_MS */
} WalPushAll;

typedef struct {
    const char *repository; /* its name */
    bool required;
    bool done;
    bool left_behind; /* it still hangs */
    WalPushed pushed;
    CairnError err; /* when it is not done */
} WalPushedOne;

typedef struct {
    WalPushedOne ones[CONFIG_REPOSITORIES_LIMIT];
    size_t count;
    /* One that is not required still hangs: a thread of it runs on, and what was kept open for it
       must not be touched. The process is to end soon, by _exit. */
    bool left_behind;
} WalPushedAll;

bool wal_push_all(const World *world, const WalPushAll *all, WalPushedAll *pushed_out,
                  CairnError *err) MUST_CHECK;

#endif
