#include "repository/repository.h"

#include "common/bytes.h"
#include "common/timestamp.h"
#include "repository/json.h"
#include "repository/object.h"
#include "storage/posix.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#define DESCRIPTOR_NAME "pgcairn.repo"

struct Repository {
    const World *world;
    Storage *storage;
    RepositoryConfig config; /* strings are owned copies below */
    Arena *arena;
    uint8_t id[REPOSITORY_ID_SIZE];
    uint8_t root_key[KEY_SIZE];
    CodecId codec;
    bool has_path;
    struct stat descriptor; /* as it was just before it was opened by its path */
};

static const char *const digest_info[] = {
    [DIGEST_FINGERPRINT] = "pgcairn1 fingerprint",
    [DIGEST_MAP] = "pgcairn1 map",
    [DIGEST_WAL] = "pgcairn1 wal",
};
static const char *const digest_purpose[] = {
    [DIGEST_FINGERPRINT] = "fingerprint",
    [DIGEST_MAP] = "map",
    [DIGEST_WAL] = "wal",
};

/* Encryption is a decision that nobody makes by accident: it must be stated. */
static bool
check_config(const RepositoryConfig *config, CodecId *codec_out, CairnError *err)
{
    if (config->type != NULL && strcmp(config->type, "posix") != 0) {
        cairn_error(err, CAIRN_UNSUPPORTED,
                    "repository '%s': type '%s' is not supported by this version", config->name,
                    config->type);
        return cairn_error_hint(err, "use type = posix and a path");
    }
    if (config->path == NULL || config->path[0] != '/') {
        cairn_error(err, CAIRN_USAGE, "repository '%s' needs an absolute path", config->name);
        return cairn_error_hint(err, "set path = /var/lib/pgcairn in section [repository %s]",
                                config->name);
    }
    if (config->encryption == NULL) {
        cairn_error(err, CAIRN_USAGE, "repository '%s': encryption is not decided", config->name);
        return cairn_error_hint(err,
                                "set encryption = none in section [repository %s]; whoever can "
                                "read the repository can then "
                                "read the database",
                                config->name);
    }
    if (strcmp(config->encryption, "none") != 0) {
        return cairn_error(err, CAIRN_UNSUPPORTED,
                           "repository '%s': encryption '%s' is not supported by this version",
                           config->name, config->encryption);
    }
    return codec_id_of_name(config->compression != NULL ? config->compression : "lz4", codec_out,
                            err);
}

/* storage is taken, even on failure. */
static Repository *
repository_new(const World *world, const RepositoryConfig *config, Storage *storage,
               CairnError *err)
{
    Repository *repository = calloc(1, sizeof *repository);
    if (repository == NULL) {
        storage_close(storage);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    repository->storage = storage;
    repository->world = world;
    repository->arena = arena_new();
    repository->config = *config;
    repository->config.name = arena_strdup(repository->arena, config->name);
    repository->config.path = arena_strdup(repository->arena, config->path);
    repository->config.encryption = arena_strdup(repository->arena, config->encryption);
    if (config->type != NULL)
        repository->config.type = arena_strdup(repository->arena, config->type);
    if (config->compression != NULL)
        repository->config.compression = arena_strdup(repository->arena, config->compression);
    return repository;
}

static bool
find_descriptor(const World *world, const char *path, struct stat *status_out)
{
    char name[PATH_MAX];
    const int size = snprintf(name, sizeof name, "%s/" DESCRIPTOR_NAME, path);
    return size < (int)sizeof name &&
           world->disk->fstatat(world->disk, AT_FDCWD, name, status_out, 0) == 0;
}

static Repository *
repository_at_path(const World *world, const RepositoryConfig *config, bool create, CairnError *err)
{
    CodecId codec;
    if (!check_config(config, &codec, err))
        return NULL;
    /* Before it is opened: what changes in between then shows as a change. */
    struct stat descriptor = {0};
    const bool found = find_descriptor(world, config->path, &descriptor);
    Storage *storage = posix_storage_open(world, config->path, create, err);
    if (storage == NULL) {
        cairn_error_wrap(err, "repository '%s'", config->name);
        return NULL;
    }
    Repository *repository = repository_new(world, config, storage, err);
    if (repository != NULL) {
        repository->codec = codec;
        repository->has_path = true;
        if (found)
            repository->descriptor = descriptor;
    }
    return repository;
}

bool
repository_is_current(const Repository *repository)
{
    const struct stat *before = &repository->descriptor;
    struct stat now;
    if (!repository->has_path)
        return true;
    return find_descriptor(repository->world, repository->config.path, &now) &&
           now.st_dev == before->st_dev && now.st_ino == before->st_ino &&
           now.st_ctim.tv_sec == before->st_ctim.tv_sec &&
           now.st_ctim.tv_nsec == before->st_ctim.tv_nsec;
}

void
repository_close(Repository *repository)
{
    if (repository == NULL)
        return;
    OPENSSL_cleanse(repository->root_key, sizeof repository->root_key);
    if (repository->storage != NULL)
        storage_close(repository->storage);
    arena_free(repository->arena);
    free(repository);
}

static bool
write_descriptor(Repository *repository, CairnError *err)
{
    if (repository->world->random->fill(repository->world->random, repository->id,
                                        sizeof repository->id) != 0 ||
        repository->world->random->fill(repository->world->random, repository->root_key,
                                        sizeof repository->root_key) != 0) {
        return cairn_error_errno(err, "unable to draw random bytes");
    }

    char id[2 * REPOSITORY_ID_SIZE + 1], key[2 * KEY_SIZE + 1], now[TIMESTAMP_TEXT_SIZE];
    hex_encode(id, repository->id, sizeof repository->id);
    hex_encode(key, repository->root_key, sizeof repository->root_key);
    timestamp_format(now, repository->world->clock->wall_us(repository->world->clock));

    SCOPED_JSON json_t *descriptor =
        json_pack("{s:s, s:i, s:s, s:s, s:s}", "repository_id", id, "format", REPOSITORY_FORMAT,
                  "created_at", now, "encryption", "none", "root_key", key);
    bool written =
        json_put(repository, DESCRIPTOR_NAME, OBJECT_REPOSITORY, 0, descriptor, NULL, err);
    OPENSSL_cleanse(key, sizeof key);
    return written;
}

bool
repository_init(const World *world, const RepositoryConfig *config, CairnError *err)
{
    SCOPED(Repository) repository = repository_at_path(world, config, true, err);
    if (repository == NULL)
        return false;
    if (!write_descriptor(repository, err)) {
        if (err->kind == CAIRN_CONFLICT)
            cairn_error_hint(err, "'%s' is a repository already", config->path);
        return cairn_error_wrap(err, "unable to initialise repository '%s'", config->name);
    }
    return true;
}

/* The descriptor's header names the repository id that every other object is checked against. */
static bool
read_descriptor(Repository *repository, CairnError *err)
{
    SCOPED_JSON json_t *descriptor =
        json_get(repository, DESCRIPTOR_NAME, OBJECT_REPOSITORY, NULL, err);
    if (descriptor == NULL)
        return false;

    JsonReader fields = json_reader(descriptor, DESCRIPTOR_NAME, err);
    int64_t format = json_read_integer(&fields, "format", 1, INT32_MAX);
    const char *encryption = json_read_text(&fields, "encryption");
    if (!fields.failed && format > REPOSITORY_FORMAT) {
        cairn_error(err, CAIRN_UNSUPPORTED, "repository '%s' has format %d, this version knows %d",
                    repository->config.name, (int)format, REPOSITORY_FORMAT);
        return cairn_error_hint(err, "use the pgcairn that made it, or a newer one");
    }
    if (!fields.failed && strcmp(encryption, "none") != 0) {
        return cairn_error(err, CAIRN_UNSUPPORTED,
                           "repository '%s' is encrypted (%s), which this version cannot read",
                           repository->config.name, encryption);
    }
    uint8_t id[REPOSITORY_ID_SIZE];
    json_read_hex(&fields, "repository_id", id, sizeof id);
    json_read_hex(&fields, "root_key", repository->root_key, sizeof repository->root_key);
    if (fields.failed)
        return false;
    if (memcmp(id, repository->id, sizeof id) != 0) {
        return cairn_error(err, CAIRN_CORRUPT,
                           "'%s': header and content name different repositories", DESCRIPTOR_NAME);
    }
    return true;
}

static bool
read_identity(Repository *repository, CairnError *err)
{
    return object_read_repository_id(repository, DESCRIPTOR_NAME, repository->id, err) &&
           read_descriptor(repository, err);
}

Repository *
repository_open_storage(const World *world, const RepositoryConfig *config, Storage *storage,
                        bool create, CairnError *err)
{
    SCOPED(Repository) repository = repository_new(world, config, storage, err);
    if (repository == NULL || !check_config(config, &repository->codec, err) ||
        (create && !write_descriptor(repository, err)) || !read_identity(repository, err))
        return NULL;
    return take(&repository);
}

Repository *
repository_open(const World *world, const RepositoryConfig *config, CairnError *err)
{
    SCOPED(Repository) repository = repository_at_path(world, config, false, err);
    if (repository == NULL) {
        if (err->kind == CAIRN_NOT_FOUND && err->hint[0] == '\0')
            cairn_error_hint(err, "is the path right, and mounted? `pgcairn init` makes a new one");
        return NULL;
    }
    if (!read_identity(repository, err)) {
        if (err->kind == CAIRN_NOT_FOUND) {
            cairn_error_hint(err,
                             "'%s' is not a pgcairn repository; is the path right and mounted? "
                             "`pgcairn init` makes a new one",
                             config->path);
        }
        cairn_error_wrap(err, "unable to open repository '%s'", config->name);
        return NULL;
    }
    return take(&repository);
}

const World *
repository_world(const Repository *repository)
{
    return repository->world;
}

Storage *
repository_storage(const Repository *repository)
{
    return repository->storage;
}

const uint8_t *
repository_id(const Repository *repository)
{
    return repository->id;
}

const RepositoryConfig *
repository_config(const Repository *repository)
{
    return &repository->config;
}

CodecContext *
repository_codec(const Repository *repository, CairnError *err)
{
    return codec_open(repository->codec, repository->config.compression_level, err);
}

KeyedDigest *
repository_digest(const Repository *repository, RepositoryDigest purpose, CairnError *err)
{
    uint8_t key[KEY_SIZE];
    if (!hkdf_sha256(repository->root_key, repository->id, sizeof repository->id,
                     digest_info[purpose], key, sizeof key, err))
        return NULL;
    KeyedDigest *digest = keyed_digest_new(key, digest_purpose[purpose], err);
    OPENSSL_cleanse(key, sizeof key);
    return digest;
}

bool
cluster_name_valid(const char *name)
{
    size_t size = strlen(name);
    if (size == 0 || size > CLUSTER_NAME_LIMIT)
        return false;
    return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == size;
}

bool
random_token(const World *world, char token_out[17], CairnError *err)
{
    uint8_t bytes[8];
    if (world->random->fill(world->random, bytes, sizeof bytes) != 0)
        return cairn_error_errno(err, "unable to draw random bytes");
    hex_encode(token_out, bytes, sizeof bytes);
    return true;
}
