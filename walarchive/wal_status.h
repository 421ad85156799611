/*
 * What of this server's WAL is not in the repository yet: waiting in pg_wal, pushed ahead, or in
 * overflow-path; and shipping the latter.
 *
 * Where the cluster has several repositories: what the others have and this one lacks, too.
 *
 * Errors: of the data directory. What is wrong with spool, overflow or a repository is part of the
 * answer.
 */
#ifndef PGCAIRN_WALARCHIVE_WAL_STATUS_H
#define PGCAIRN_WALARCHIVE_WAL_STATUS_H

#include "repository/wal_lag.h"
#include "repository/wal_overflow.h"
#include "walarchive/ready_list.h"
#include "walarchive/spool.h"

typedef struct {
    const RepositoryConfig *repository;
    const char *cluster;
    const char *pgdata;
    const char *spool_path;    /* NULL: the default one, if it exists */
    const char *overflow_path; /* NULL: none */
    /* All that the cluster names, `repository` among them. */
    const RepositoryConfig *const *others;
    size_t other_count;
} WalStatusPlace;

/* What another repository has and this one lacks. */
typedef struct {
    const char *repository;
    WalLag lag;
    char problem[1024]; /* why nobody can tell, or not of all systems; "" when it was told */
} WalStatusLag;

typedef struct {
    ReadyList ready;
    bool has_spool;
    char no_spool[512]; /* why not; "" when none is configured */
    bool pushing_ahead;
    SpoolCount spool;
    WalOverflowList overflow; /* not off this host */
    WalOverflowOthers others; /* nor these, and nothing ships them as it is configured */
    char no_overflow[512];    /* what is wrong with it; "" when nothing */
    WalStatusLag lags[CONFIG_REPOSITORIES_LIMIT];
    size_t lag_count;
} WalStatus;

bool wal_status_read(const World *world, const WalStatusPlace *place, WalStatus *status_out,
                     CairnError *err) MUST_CHECK;

/* All that waits in overflow-path, in order, until one fails. */
bool wal_status_ship(const World *world, const WalStatusPlace *place, size_t *shipped_out,
                     CairnError *err) MUST_CHECK;

#endif
