/*
 * Configuration: an INI file, then the environment (PGCAIRN_*), then flags.
 *
 *     [global]            defaults for every section: jobs, log-level, lock-timeout, ...
 *     [repository NAME]   type, path, encryption, ...
 *     [cluster NAME]      conninfo, pgdata, repository, ...
 *
 * PGCAIRN_REPOSITORY_PATH=/x means `path` of the only repository, PGCAIRN_CLUSTER_CONNINFO
 * `conninfo` of the only cluster; PGCAIRN_CLUSTER and PGCAIRN_REPOSITORY choose one by name;
 * PGCAIRN_CONFIG names the file. With no file at all, environment alone may define one repository
 * and one cluster "main". Unknown sections and keys are refused (USAGE) with the file and line: a
 * typo must not be silent. Files that hold secrets and are readable by others are refused by the
 * code that opens them. Ownership: everything returned is borrowed from the Config. Threads:
 * read-only after load.
 */
#ifndef PGCAIRN_COMMON_CONFIG_H
#define PGCAIRN_COMMON_CONFIG_H

#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"

#include <stddef.h>
#include <stdint.h>

#define CONFIG_DEFAULT_PATH "/etc/pgcairn/pgcairn.conf"

typedef struct {
    const char *name;
    const char *type; /* "posix" (default); s3 and ssh are known but UNSUPPORTED so far */
    const char *path;
    const char *encryption;  /* none | passphrase | key-file | sealed; NULL when not said */
    const char *compression; /* none | lz4 | zstd; default lz4 */
    int compression_level;   /* 0: the codec's default */
    const char *retention;   /* policy of clusters that state none of their own; NULL: not said */
} RepositoryConfig;

typedef struct {
    const char *name;
    const char *conninfo;     /* NULL: libpq's own environment */
    const char *pgdata;       /* NULL when not said */
    const char *timezone;     /* for zone-less targets; NULL: refused */
    const char *repositories; /* comma-separated names; NULL: the only one */
    const char *retention;    /* policy, or "none"; NULL: that of the repository */
} ClusterConfig;

typedef struct {
    int jobs;                   /* 0: not said */
    const char *log_level;      /* NULL: not said */
    uint64_t max_memory_bytes;  /* 0: not said */
    int wal_timeout_s;          /* -1: not said */
    int refresh_percent;        /* refresh-budget; -1: not said */
    int get_prefetch;           /* segments that get fetches ahead; -1: not said */
    const char *spool_path;     /* what push, get and receive keep on this host; NULL: not said */
    uint64_t spool_limit_bytes; /* of receive; 0: not said */
    const char *overflow_path;  /* where push puts WAL when the repository is down; NULL: nowhere */
    const char *file;           /* where it was read from, absolute; NULL when there was none */
} GlobalConfig;

typedef struct Config Config;

/* path NULL: PGCAIRN_CONFIG, else the default path when it exists, else environment only. */
Config *config_load(const World *world, const char *path, CairnError *err) MUST_CHECK;
void config_free(Config *config);
const GlobalConfig *config_global(const Config *config);
/* name NULL: PGCAIRN_CLUSTER / PGCAIRN_REPOSITORY, else the only one; USAGE when none or several.
 */
const ClusterConfig *config_cluster(const Config *config, const char *name,
                                    CairnError *err) MUST_CHECK;
const RepositoryConfig *config_repository(const Config *config, const char *name,
                                          CairnError *err) MUST_CHECK;
/* Where no cluster is configured, `name` (NULL: PGCAIRN_CLUSTER, else none) is one with nothing but
   defaults: what moves WAL and restores need not know more of it. USAGE when it is no valid name.
 */
bool config_assume_cluster(Config *config, const char *name, CairnError *err) MUST_CHECK;
size_t config_cluster_count(const Config *config);
size_t config_repository_count(const Config *config);
const RepositoryConfig *config_repository_at(const Config *config, size_t index);
SCOPED_TYPE(Config, config_free);

/* "64MiB", "16MB", "1G", "1048576" to bytes (binary multiples); false for anything else. */
bool parse_size(const char *text, uint64_t *size_out) MUST_CHECK;

#endif
