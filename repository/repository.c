#include "repository/repository.h"

#include "common/bytes.h"
#include "common/libcrypto.h"
#include "common/timestamp.h"
#include "repository/descriptor.h"
#include "repository/key_init.h"
#include "repository/key_pin.h"
#include "repository/object.h"
#include "repository/replica.h"
#include "repository/unlock.h"
#include "storage/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static const int64_t LOOK_AGAIN_NS = INT64_C(30) * 1000000000;

struct Repository {
    const World *world;
    Storage *storage;
    RepositoryConfig config; /* strings are owned copies below */
    Arena *arena;
    uint8_t id[REPOSITORY_ID_SIZE];
    uint8_t root_key[KEY_SIZE]; /* of digests, where nothing is encrypted */
    Encryption encryption;
    Keyring *keyring;
    char key_slot[KEY_SLOT_NAME_LIMIT + 1];
    CodecId codec;
    int64_t looked_ns; /* when the descriptor was last read, where there is no path */
    bool has_path;
    bool is_replica;
    RepositoryMark mark; /* as it was just before it was opened by its path */
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
    Encryption stated;
    return key_source_encryption(config, &stated, err) &&
           codec_id_of_name(config->compression != NULL ? config->compression : "lz4", codec_out,
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
    repository->config = repository_config_copy(repository->arena, config);
    return repository;
}

bool
repository_mark_now(const World *world, const RepositoryConfig *config, RepositoryMark *mark_out)
{
    char name[PATH_MAX];
    struct stat status;
    if (!storage_is_directory(config))
        return false;
    const int size = snprintf(name, sizeof name, "%s/" DESCRIPTOR_NAME, config->path);
    if (size >= (int)sizeof name ||
        world->disk->fstatat(world->disk, AT_FDCWD, name, &status, 0) != 0)
        return false;
    *mark_out = (RepositoryMark){
        .device = status.st_dev,
        .inode = status.st_ino,
        .changed_ns = (int64_t)status.st_ctim.tv_sec * 1000000000 + status.st_ctim.tv_nsec,
    };
    return true;
}

static Repository *
repository_at_place(const World *world, const RepositoryConfig *config, bool create,
                    CairnError *err)
{
    CodecId codec;
    if (!storage_config_check(config, err) || !check_config(config, &codec, err))
        return NULL;
    /* Before it is opened: what changes in between then shows as a change. */
    const bool has_path = storage_is_directory(config);
    RepositoryMark mark = {0};
    const bool found = repository_mark_now(world, config, &mark);
    Storage *storage = storage_connect(world, config, create, err);
    if (storage == NULL) {
        cairn_error_wrap(err, "repository '%s'", config->name);
        return NULL;
    }
    Repository *repository = repository_new(world, config, storage, err);
    if (repository != NULL) {
        repository->codec = codec;
        repository->has_path = has_path;
        if (found)
            repository->mark = mark;
    }
    return repository;
}

/* Where there is no file to look at, the descriptor is read again now and then. What cannot be
 * asked is taken for unchanged: whatever comes next will say so. */
static bool
is_still_there(Repository *repository)
{
    const Clock *clock = repository->world->clock;
    const int64_t now_ns = clock->monotonic_ns(clock);
    uint8_t id[REPOSITORY_ID_SIZE];
    CairnError err = {0};
    if (now_ns - repository->looked_ns < LOOK_AGAIN_NS)
        return true;
    /* ESTALE: the connection ended, and its other side serves another repository now. */
    if (!object_read_repository_id(repository, DESCRIPTOR_NAME, id, &err))
        return err.kind != CAIRN_NOT_FOUND && err.kind != CAIRN_CORRUPT &&
               err.system_errno != ESTALE;
    repository->looked_ns = now_ns;
    return memcmp(id, repository->id, sizeof id) == 0;
}

bool
repository_is_current(Repository *repository)
{
    const RepositoryMark *before = &repository->mark;
    RepositoryMark now;
    if (!repository->has_path)
        return is_still_there(repository);
    return repository_mark_now(repository->world, &repository->config, &now) &&
           now.device == before->device && now.inode == before->inode &&
           now.changed_ns == before->changed_ns;
}

RepositoryMark
repository_mark(const Repository *repository)
{
    return repository->mark;
}

void
repository_close(Repository *repository)
{
    if (repository == NULL)
        return;
    OPENSSL_cleanse(repository->root_key, sizeof repository->root_key);
    keyring_free(repository->keyring);
    if (repository->storage != NULL)
        storage_close(repository->storage);
    arena_free(repository->arena);
    free(repository);
}

/* A name that is taken may be taken by ourselves, whose first answer was lost. Slots must not be
   taken away then: nothing would open the repository. */
static bool
is_ours_after_all(Repository *repository, const Descriptor *descriptor, CairnError *err)
{
    uint8_t id[REPOSITORY_ID_SIZE];
    CairnError look_err = {0};
    if (err->kind != CAIRN_CONFLICT)
        return false;
    if (!object_read_repository_id(repository, DESCRIPTOR_NAME, id, &look_err)) {
        *err = look_err; /* whose it is stays open: nothing is undone */
        return false;
    }
    if (memcmp(id, descriptor->id, sizeof id) != 0)
        return false;
    cairn_error_clear(err);
    return true;
}

/* The descriptor comes last: it alone makes a repository. */
static bool
create_identity(Repository *repository, CairnError *err)
{
    const World *world = repository->world;
    Descriptor descriptor = {0};
    KeyInit made = {0};
    if (!key_source_encryption(&repository->config, &descriptor.encryption, err))
        return false;
    if (world->random->fill(world->random, repository->id, sizeof repository->id) != 0 ||
        world->random->fill(world->random, descriptor.root_key, KEY_SIZE) != 0)
        return cairn_error_errno(err, "unable to draw random bytes");
    memcpy(descriptor.id, repository->id, sizeof descriptor.id);
    timestamp_format(descriptor.created, world->clock->wall_us(world->clock));

    const bool written = (descriptor.encryption == ENCRYPTION_NONE ||
                          key_init(repository, &descriptor, &made, err)) &&
                         (descriptor_write(repository, &descriptor, err) ||
                          is_ours_after_all(repository, &descriptor, err));
    OPENSSL_cleanse(descriptor.root_key, sizeof descriptor.root_key);
    if (written)
        key_pin_forget(world, &repository->config);
    else if (err->kind == CAIRN_CONFLICT)
        key_init_undo(repository, &made);
    return written;
}

/* Slots are made first, and nobody should pay for those of a repository that is there. */
static bool
create_unless_there(Repository *repository, CairnError *err)
{
    PlaceKind kind;
    if (!replica_look(repository->storage, &kind, err))
        return false;
    if (kind == PLACE_REPLICA)
        cairn_error(err, CAIRN_CONFLICT, "a replica is there");
    else if (kind == PLACE_REPOSITORY)
        cairn_error(err, CAIRN_CONFLICT, "'" DESCRIPTOR_NAME "' exists");
    else if (create_identity(repository, err))
        return true;
    if (err->kind == CAIRN_CONFLICT)
        cairn_error_hint(err, "it is a repository already");
    return cairn_error_wrap(err, "unable to initialise repository '%s'", repository->config.name);
}

bool
repository_init(const World *world, const RepositoryConfig *config, CairnError *err)
{
    SCOPED(Repository) repository = repository_at_place(world, config, true, err);
    return repository != NULL && create_unless_there(repository, err);
}

/* The descriptor's header names the repository id that every other object is checked against. */
static bool
read_identity(Repository *repository, Descriptor *descriptor_out, CairnError *err)
{
    if (!object_read_repository_id(repository, DESCRIPTOR_NAME, repository->id, err) ||
        !descriptor_read(repository, descriptor_out, err))
        return false;
    repository->encryption = descriptor_out->encryption;
    if (memcmp(descriptor_out->id, repository->id, sizeof repository->id) != 0)
        return cairn_error(err, CAIRN_CORRUPT,
                           "'%s': header and content name different repositories", DESCRIPTOR_NAME);
    return true;
}

static bool
open_identity(Repository *repository, CairnError *err)
{
    Descriptor descriptor;
    if (!read_identity(repository, &descriptor, err) ||
        !unlock_check_stated(&repository->config, descriptor.encryption, err))
        return false;
    if (descriptor.encryption == ENCRYPTION_NONE) {
        memcpy(repository->root_key, descriptor.root_key, KEY_SIZE);
        OPENSSL_cleanse(descriptor.root_key, sizeof descriptor.root_key);
        return true;
    }
    repository->keyring = repository_unlock(repository, &descriptor, repository->key_slot, err);
    return repository->keyring != NULL;
}

typedef bool OpenIdentity(Repository *repository, CairnError *err);

/* Only a place without a descriptor is asked whether it is a replica. */
static bool
open_or_replica(Repository *repository, OpenIdentity *open, CairnError *err)
{
    CairnError other = {0};
    uint64_t size;
    if (open(repository, err))
        return true;
    if (err->kind != CAIRN_NOT_FOUND ||
        !storage_exists(repository->storage, REPLICA_DESCRIPTOR, &size, &other))
        return false;
    cairn_error_clear(err);
    Storage *storage = replica_storage(repository->storage, err);
    if (storage == NULL)
        return false;
    repository->storage = storage;
    repository->is_replica = true;
    return open(repository, err);
}

Repository *
repository_open_storage(const World *world, const RepositoryConfig *config, Storage *storage,
                        bool create, CairnError *err)
{
    SCOPED(Repository) repository = repository_new(world, config, storage, err);
    if (repository == NULL || !check_config(config, &repository->codec, err) ||
        (create && !create_identity(repository, err)) ||
        !open_or_replica(repository, open_identity, err))
        return NULL;
    return take(&repository);
}

/* Making a new one over what was only hidden would be a pity. */
static const char *
after_a_theft(const RepositoryConfig *config)
{
    return config->type != NULL && strcmp(config->type, "s3") == 0
               ? "; if somebody deleted it and the bucket keeps versions, `pgcairn repo heal "
                 "--versions` has it back"
               : "";
}

static Repository *
open_with(const World *world, const RepositoryConfig *config,
          bool open(Repository *repository, CairnError *err), CairnError *err)
{
    SCOPED(Repository) repository = repository_at_place(world, config, false, err);
    if (repository == NULL) {
        if (err->kind == CAIRN_NOT_FOUND && err->hint[0] == '\0')
            cairn_error_hint(err, "is the path right, and mounted? `pgcairn init` makes a new one");
        return NULL;
    }
    repository->looked_ns = world->clock->monotonic_ns(world->clock);
    if (!open_or_replica(repository, open, err)) {
        if (err->kind == CAIRN_NOT_FOUND) {
            char place[STORAGE_PLACE_TEXT_SIZE];
            storage_place_text(config, place);
            cairn_error_hint(err,
                             "'%s' is not a pgcairn repository; is the path right and mounted? "
                             "`pgcairn init` makes a new one%s",
                             place, after_a_theft(config));
        }
        cairn_error_wrap(err, "unable to open repository '%s'", config->name);
        return NULL;
    }
    return take(&repository);
}

Repository *
repository_open(const World *world, const RepositoryConfig *config, CairnError *err)
{
    return open_with(world, config, open_identity, err);
}

static bool
look_at_identity(Repository *repository, CairnError *err)
{
    Descriptor descriptor;
    const bool read = read_identity(repository, &descriptor, err);
    OPENSSL_cleanse(&descriptor, sizeof descriptor);
    return read;
}

Repository *
repository_open_locked(const World *world, const RepositoryConfig *config, CairnError *err)
{
    return open_with(world, config, look_at_identity, err);
}

bool
repository_is_replica(const Repository *repository)
{
    return repository->is_replica;
}

bool
repository_check_writable(const Repository *repository, CairnError *err)
{
    if (!repository->is_replica)
        return true;
    cairn_error(err, CAIRN_REFUSED, "repository '%s' is a read-only replica",
                repository->config.name);
    return cairn_error_hint(err,
                            "when it is to take its original's place: `pgcairn repo promote "
                            "--repository %s`",
                            repository->config.name);
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

Encryption
repository_encryption(const Repository *repository)
{
    return repository->encryption;
}

const char *
repository_key_slot(const Repository *repository)
{
    return repository->key_slot;
}

bool
repository_is_encrypted(const Repository *repository)
{
    return repository->encryption != ENCRYPTION_NONE || repository->keyring != NULL;
}

const Keyring *
repository_keyring(const Repository *repository)
{
    return repository->keyring;
}

bool
repository_reads_data(const Repository *repository)
{
    return repository->keyring != NULL ? keyring_reads_data(repository->keyring)
                                       : repository->encryption == ENCRYPTION_NONE;
}

void
repository_take_keyring(Repository *repository, Keyring *keyring)
{
    CAIRN_ASSERT(repository->keyring == NULL && keyring != NULL);
    repository->keyring = keyring;
}

bool
repository_may_let_go(const Repository *repository, CairnError *err)
{
    char place[STORAGE_PLACE_TEXT_SIZE];
    if (!storage_is_create_only(repository->storage))
        return true;
    storage_place_text(&repository->config, place);
    cairn_error(
        err, CAIRN_DENIED,
        "repository '%s' (%s) may only be added to from here: the connection is create-only",
        repository->config.name, place);
    return cairn_error_hint(err, "run this on the repository host, where it is of type posix");
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
    if (repository->encryption != ENCRYPTION_NONE && repository->keyring == NULL) {
        cairn_error(err, CAIRN_DENIED, "repository '%s' is encrypted and needs its key",
                    repository->config.name);
        return NULL;
    }
    const uint8_t *root =
        repository->keyring != NULL ? keyring_meta_root(repository->keyring) : repository->root_key;
    if (!hkdf_sha256(root, repository->id, sizeof repository->id, digest_info[purpose], key,
                     sizeof key, err))
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
