/*
 * What the WAL commands share: exit codes, and what they need of the configuration.
 *
 * Its own small thing beside session.h, because these commands start once for each WAL file, have
 * no JSON to print, and answer with the codes that PostgreSQL understands.
 */
#ifndef PGCAIRN_CLI_WAL_SETTINGS_H
#define PGCAIRN_CLI_WAL_SETTINGS_H

#include "cli/options.h"
#include "common/config.h"

enum {
    WAL_EXIT_DONE = 0,
    WAL_EXIT_FAILED = 1,    /* push: PostgreSQL tries again; get: not there */
    WAL_EXIT_TROUBLE = 126, /* get: PostgreSQL stops recovery */
    WAL_EXIT_SIGTERM = 143, /* get: PostgreSQL takes it for its own fast shutdown */
};

typedef struct {
    Config *config; /* owns what the others point to */
    const GlobalConfig *global;
    const ClusterConfig *cluster;
    const RepositoryConfig *repository; /* the first of them */
    const RepositoryConfig *repositories[CONFIG_REPOSITORIES_LIMIT];
    size_t repository_count;
} WalSettings;

/* Sets the log level too. The repositories are the one of --repository, else those that the cluster
   names, in its order. *settings is zeros on entry, and the caller's to free, also after a
   failure. */
bool wal_settings_load(const World *world, const CommonOptions *common, WalSettings *settings,
                       CairnError *err) MUST_CHECK;
void wal_settings_free(WalSettings *settings);

/* Files that push has under way at a time, where no option says: `jobs` of [global], within push's
 * limits. */
int wal_settings_push_jobs(const WalSettings *settings);

/* USAGE unless minimum <= seconds <= one day. */
bool wal_check_seconds(const char *option, int64_t seconds, int64_t minimum,
                       CairnError *err) MUST_CHECK;

#endif
