#include "common/config_intern.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TEXT_KEY(Section, field, key)                                                              \
    {                                                                                              \
        key, VALUE_TEXT, offsetof(Section, field), NULL, 0, 0                                      \
    }
#define CHOICE_KEY(Section, field, key, choices)                                                   \
    {                                                                                              \
        key, VALUE_CHOICE, offsetof(Section, field), choices, 0, 0                                 \
    }
#define INT_KEY(Section, field, key, minimum, maximum)                                             \
    {                                                                                              \
        key, VALUE_INT, offsetof(Section, field), NULL, minimum, maximum                           \
    }
const ConfigKey CONFIG_GLOBAL_KEYS[] = {
    INT_KEY(GlobalConfig, jobs, "jobs", 1, 1024),
    CHOICE_KEY(GlobalConfig, log_level, "log-level", " error warn info debug "),
    {"max-memory", VALUE_SIZE, offsetof(GlobalConfig, max_memory_bytes), NULL, 0, 0},
    INT_KEY(GlobalConfig, wal_timeout_s, "wal-timeout", 0, 86400),
    INT_KEY(GlobalConfig, server_timeout_s, "server-timeout", 1, 86400),
    INT_KEY(GlobalConfig, refresh_percent, "refresh-budget", 0, 100),
    INT_KEY(GlobalConfig, get_prefetch, "get-prefetch", 0, 64),
    TEXT_KEY(GlobalConfig, spool_path, "spool-path"),
    {"spool-limit", VALUE_SIZE, offsetof(GlobalConfig, spool_limit_bytes), NULL, 0, 0},
    TEXT_KEY(GlobalConfig, overflow_path, "overflow-path"),
    {NULL, VALUE_TEXT, 0, NULL, 0, 0},
};

const ConfigKey CONFIG_REPOSITORY_KEYS[] = {
    CHOICE_KEY(RepositoryConfig, type, "type", " posix s3 ssh "),
    TEXT_KEY(RepositoryConfig, path, "path"),
    CHOICE_KEY(RepositoryConfig, encryption, "encryption", " none passphrase key-file sealed "),
    CHOICE_KEY(RepositoryConfig, compression, "compression", " none lz4 zstd "),
    INT_KEY(RepositoryConfig, compression_level, "compression-level", 0, 19),
    TEXT_KEY(RepositoryConfig, retention, "retention"),
    CHOICE_KEY(RepositoryConfig, required, "required", " yes no "),
    TEXT_KEY(RepositoryConfig, keys.passphrase_file, "passphrase-file"),
    TEXT_KEY(RepositoryConfig, keys.passphrase_command, "passphrase-command"),
    TEXT_KEY(RepositoryConfig, keys.key_file, "key-file"),
    TEXT_KEY(RepositoryConfig, keys.recipients, "recipients"),
    TEXT_KEY(RepositoryConfig, s3.endpoint, "endpoint"),
    TEXT_KEY(RepositoryConfig, s3.bucket, "bucket"),
    TEXT_KEY(RepositoryConfig, s3.prefix, "prefix"),
    TEXT_KEY(RepositoryConfig, s3.region, "region"),
    CHOICE_KEY(RepositoryConfig, s3.uri_style, "uri-style", " auto path virtual "),
    TEXT_KEY(RepositoryConfig, s3.access_key, "access-key"),
    TEXT_KEY(RepositoryConfig, s3.access_key_file, "access-key-file"),
    TEXT_KEY(RepositoryConfig, s3.secret_key, "secret-key"),
    TEXT_KEY(RepositoryConfig, s3.secret_key_file, "secret-key-file"),
    TEXT_KEY(RepositoryConfig, s3.session_token_file, "session-token-file"),
    TEXT_KEY(RepositoryConfig, s3.profile, "profile"),
    TEXT_KEY(RepositoryConfig, s3.credentials_file, "credentials-file"),
    TEXT_KEY(RepositoryConfig, s3.ca_file, "ca-file"),
    CHOICE_KEY(RepositoryConfig, s3.plain_http, "plain-http", " refused allowed "),
    TEXT_KEY(RepositoryConfig, s3.storage_class, "storage-class"),
    CHOICE_KEY(RepositoryConfig, s3.server_encryption, "server-encryption", " AES256 aws:kms "),
    TEXT_KEY(RepositoryConfig, s3.server_encryption_key, "server-encryption-key"),
    CHOICE_KEY(RepositoryConfig, s3.checksum, "checksum", " sha256 md5 crc32c none "),
    CHOICE_KEY(RepositoryConfig, s3.writers, "writers", " many one "),
    CHOICE_KEY(RepositoryConfig, s3.lock_mode, "lock-mode", " governance compliance "),
    INT_KEY(RepositoryConfig, s3.lock_days, "lock-days", 1, 36500),
    INT_KEY(RepositoryConfig, s3.lock_refresh_days, "lock-refresh-days", 1, 36500),
    TEXT_KEY(RepositoryConfig, ssh.host, "host"),
    TEXT_KEY(RepositoryConfig, ssh.command, "ssh-command"),
    TEXT_KEY(RepositoryConfig, ssh.program, "remote-program"),
    {NULL, VALUE_TEXT, 0, NULL, 0, 0},
};

const ConfigKey CONFIG_CLUSTER_KEYS[] = {
    TEXT_KEY(ClusterConfig, conninfo, "conninfo"),
    TEXT_KEY(ClusterConfig, pgdata, "pgdata"),
    TEXT_KEY(ClusterConfig, timezone, "timezone"),
    TEXT_KEY(ClusterConfig, repositories, "repository"),
    TEXT_KEY(ClusterConfig, retention, "retention"),
    {NULL, VALUE_TEXT, 0, NULL, 0, 0},
};

RepositoryConfig
repository_config_copy(Arena *arena, const RepositoryConfig *config)
{
    RepositoryConfig copy = *config;
    copy.name = arena_strdup(arena, config->name);
    for (const ConfigKey *key = CONFIG_REPOSITORY_KEYS; key->name != NULL; key++) {
        const char **text = (const char **)((char *)&copy + key->offset);
        if ((key->type == VALUE_TEXT || key->type == VALUE_CHOICE) && *text != NULL)
            *text = arena_strdup(arena, *text);
    }
    if (config->spool_path != NULL)
        copy.spool_path = arena_strdup(arena, config->spool_path);
    return copy;
}

bool
parse_size(const char *text, uint64_t *size_out)
{
    static const char UNITS[] = "KMGT";

    if (!isdigit((unsigned char)text[0]))
        return false; /* strtoull would take signs and blanks */
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0)
        return false;

    unsigned shift = 0;
    if (*end != '\0') {
        const char *unit = strchr(UNITS, *end);
        if (unit != NULL) {
            shift = 10 * (unsigned)(unit - UNITS + 1);
            end++;
            if (end[0] == 'i' && end[1] == 'B')
                end++;
        }
        if (*end == 'B')
            end++;
    }
    if (*end != '\0' || value > UINT64_MAX >> shift)
        return false;
    *size_out = (uint64_t)value << shift;
    return true;
}

bool
config_refuse(const ConfigOrigin *origin, CairnError *err, const char *format, ...)
{
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (origin->variable != NULL)
        return cairn_error(err, CAIRN_USAGE, "environment variable %s: %s", origin->variable,
                           message);
    return cairn_error(err, CAIRN_USAGE, "%s:%d: %s", origin->file, origin->line, message);
}

static bool
set_int(const ConfigKey *key, int *field, const char *value, const ConfigOrigin *origin,
        CairnError *err)
{
    char *end;
    errno = 0;
    const long number = strtol(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || isspace((unsigned char)value[0]) ||
        number < key->minimum || number > key->maximum) {
        return config_refuse(origin, err, "'%s' must be a number from %d to %d, not '%.100s'",
                             key->name, key->minimum, key->maximum, value);
    }
    *field = (int)number;
    return true;
}

static bool
is_choice(const char *choices, const char *value)
{
    char padded[64];
    const int length = snprintf(padded, sizeof padded, " %s ", value);
    return length > 2 && (size_t)length < sizeof padded && strchr(value, ' ') == NULL &&
           strstr(choices, padded) != NULL;
}

bool
config_set_value(Config *config, const ConfigKey *key, void *values, const char *value,
                 const ConfigOrigin *origin, CairnError *err)
{
    void *field = (char *)values + key->offset;
    if (*value == '\0')
        return config_refuse(origin, err, "'%s' has no value", key->name);

    switch (key->type) {
    case VALUE_CHOICE:
        if (!is_choice(key->choices, value))
            return config_refuse(origin, err, "'%s' must be one of%.*s, not '%.100s'", key->name,
                                 (int)strlen(key->choices) - 1, key->choices, value);
        *(const char **)field = arena_strdup(config->arena, value);
        return true;
    case VALUE_TEXT:
        *(const char **)field = arena_strdup(config->arena, value);
        return true;
    case VALUE_INT:
        return set_int(key, field, value, origin, err);
    case VALUE_SIZE:
        if (!parse_size(value, field))
            return config_refuse(origin, err, "'%s' must be a size like 64MiB, not '%.100s'",
                                 key->name, value);
        return true;
    }
    return cairn_error(err, CAIRN_INTERNAL, "unknown type of key '%s'", key->name);
}
