/*
 * push: one file from pg_wal into the repository. True means durable, so that PostgreSQL may
 * recycle it.
 *
 * Order: whose data directory this is (identity file), whose WAL this is (first page, or pg_control
 * for history files), then the repository, where that system must be known. Only then bytes move.
 * Errors: REFUSED (a copy that may not archive), MISMATCH (another system, both named), CONFLICT
 * (the name holds other content), and what storage says. After any of them nothing new is visible.
 * Crash: nothing is visible, or the whole file; pushing again settles it.
 * Threads: one call at a time.
 */
#ifndef PGCAIRN_WALARCHIVE_PUSH_H
#define PGCAIRN_WALARCHIVE_PUSH_H

#include "common/config.h"
#include "common/error.h"
#include "common/world.h"

typedef struct {
    const RepositoryConfig *repository;
    const char *cluster;
    const char *path;   /* %p */
    const char *pgdata; /* NULL: told by path */
} WalPush;

typedef struct {
    bool existed;      /* identical content was there */
    bool tail_differs; /* the same records, another unused tail */
} WalPushed;

bool wal_push(const World *world, const WalPush *push, WalPushed *pushed_out,
              CairnError *err) MUST_CHECK;

#endif
