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

#include "common/arena.h"
#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"

#include <stddef.h>
#include <stdint.h>

#define CONFIG_DEFAULT_PATH "/etc/pgcairn/pgcairn.conf"
#define CONFIG_DEFAULT_SPOOL_PATH "/var/spool/pgcairn"

/* Of a repository with type = s3. All but endpoint and bucket may be NULL. */
typedef struct {
    const char *endpoint; /* https://host[:port], or a host alone, which means https */
    const char *bucket;
    const char *prefix; /* of every object's name; NULL: none */
    const char *region;
    const char *uri_style;             /* auto (default) | path | virtual */
    const char *access_key;            /* names no secret */
    const char *access_key_file;       /* a file that holds it */
    const char *secret_key;            /* in a file: only in one that others cannot read */
    const char *secret_key_file;       /* a file that holds it */
    const char *session_token_file;    /* likewise */
    const char *profile;               /* of the shared credentials file */
    const char *credentials_file;      /* that file; NULL: AWS_SHARED_CREDENTIALS_FILE, ~/.aws */
    const char *ca_file;               /* PEM; NULL: the system's */
    const char *plain_http;            /* "allowed": for loopback only; NULL: refused */
    const char *storage_class;         /* NULL: the bucket's */
    const char *server_encryption;     /* AES256 | aws:kms; NULL: the bucket's */
    const char *server_encryption_key; /* id of the KMS key */
    const char *checksum;              /* sha256 (default) | md5 | crc32c | none */
    const char *writers;               /* many (default) | one: no conditional create there */
    const char *lock_mode;             /* governance | compliance; NULL: no object lock */
    int lock_days;         /* that what a new backup needs stays locked; 0: no object lock */
    int lock_refresh_days; /* added to a lock, so that it is extended less often; 0: not said */
} S3Config;

/* Of a repository with type = ssh: `path` is on that host. */
typedef struct {
    const char *host;    /* name or user@name, as ssh takes it */
    const char *command; /* the system's ssh and its options; NULL: ssh */
    const char *program; /* pgcairn over there; NULL: pgcairn */
} SshConfig;

/* Where the keys of an encrypted repository come from. Never the secret itself. */
typedef struct {
    const char *passphrase_file;
    const char *passphrase_command; /* its standard output, without the last newline */
    const char *key_file;   /* a key of the repository's; or a private key, where restores run */
    const char *recipients; /* file with public keys, one a line: who can open what init makes */
} KeyConfig;

typedef struct {
    const char *name;
    const char *type; /* posix (default) | s3 | ssh */
    const char *path;
    const char *encryption;  /* none | passphrase | key-file | sealed; NULL when not said */
    const char *compression; /* none | lz4 | zstd; default lz4 */
    int compression_level;   /* 0: the codec's default */
    const char *retention;   /* policy of clusters that state none of their own; NULL: not said */
    const char *required;    /* yes (default) | no: push waits for it */
    S3Config s3;
    SshConfig ssh;
    KeyConfig keys;
    const char *spool_path; /* of [global]: where this host remembers whom it met; NULL: not said */
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
    int server_timeout_s;       /* silence of a stream before the server is asked; 0: not said */
    int refresh_percent;        /* refresh-budget; -1: not said */
    int get_prefetch;           /* segments that get fetches ahead; -1: not said */
    const char *spool_path;     /* what push, get and receive keep on this host; NULL: not said */
    uint64_t spool_limit_bytes; /* of receive; 0: not said */
    const char *overflow_path;  /* where push puts WAL when the repository is down; NULL: nowhere */
    const char *file;           /* where it was read from, absolute; NULL when there was none */
} GlobalConfig;

/* server-timeout where it is not said. */
enum { SERVER_TIMEOUT_S = 60 };

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
/*
 * The repositories that a list names ("local, remote", no name twice), in its order; NULL: as
 * config_repository, one. USAGE for names that are not configured, doubled or empty, and for more
 * than CONFIG_REPOSITORIES_LIMIT of them.
 */
enum { CONFIG_REPOSITORIES_LIMIT = 8 };
bool config_repositories(const Config *config, const char *names,
                         const RepositoryConfig *list_out[CONFIG_REPOSITORIES_LIMIT],
                         size_t *count_out, CairnError *err) MUST_CHECK;
/* Does push's answer depend on it? */
bool repository_is_required(const RepositoryConfig *config);
/* Where no cluster is configured, `name` (NULL: PGCAIRN_CLUSTER, else none) is one with nothing but
   defaults: what moves WAL and restores need not know more of it. USAGE when it is no valid name.
 */
bool config_assume_cluster(Config *config, const char *name, CairnError *err) MUST_CHECK;
size_t config_cluster_count(const Config *config);
size_t config_repository_count(const Config *config);
const RepositoryConfig *config_repository_at(const Config *config, size_t index);
SCOPED_TYPE(Config, config_free);

/* A copy whose strings live in the arena. */
RepositoryConfig repository_config_copy(Arena *arena, const RepositoryConfig *config);

/* "64MiB", "16MB", "1G", "1048576" to bytes (binary multiples); false for anything else. */
bool parse_size(const char *text, uint64_t *size_out) MUST_CHECK;

#endif
