#include "storage/posix.h"

#include "common/bytes.h"
#include "common/file.h"
#include "storage/posix_intern.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

/*
 * Invariants
 * 1. Between open and link a writer's file has a name `.*.tmp`; after commit it has
 *    exactly one.
 * 2. A final name appears by link(2) only, so never in another object's place.
 * 3. The bytes are synced before the link, the directory after it, and only then commit is true.
 * 4. Below root every path is resolved by openat_beneath: no symbolic link is followed.
 */

enum { FILE_MODE = 0640, ROOT_MODE = 0750 };

/* Dirty data goes to disk in pieces of this size while we write, so that fsync is short. */
static const uint64_t WRITEBACK_SIZE = 8 << 20;

typedef struct {
    StorageWriter base; /* first */
    PosixStorage *storage;
    int directory_fd;
    int fd;
    bool has_temporary;
    uint64_t writeback_start;
    char *object; /* full object name, for messages */
    char name[NAME_MAX + 1];
    char temporary[NAME_MAX + 1];
} PosixWriter;

typedef struct {
    StorageReader base; /* first */
    PosixStorage *storage;
    int fd;
    char *object;
} PosixReader;

static const StorageOps POSIX_OPS;
static const StorageWriterOps POSIX_WRITER_OPS;
static const StorageReaderOps POSIX_READER_OPS;

static void
posix_close(Storage *base)
{
    PosixStorage *storage = (PosixStorage *)base;
    if (storage->root_fd >= 0)
        storage->world->disk->close(storage->world->disk, storage->root_fd);
    free(storage->root);
    free(storage);
}

Storage *
posix_storage_open(const World *world, const char *root, bool create, CairnError *err)
{
    if (root[0] != '/') {
        cairn_error(err, CAIRN_USAGE, "repository path '%s' is not absolute", root);
        return NULL;
    }
    if (create && !file_make_directories(world, AT_FDCWD, root, ROOT_MODE, err))
        return NULL;

    PosixStorage *storage = calloc(1, sizeof *storage);
    char *root_copy = strdup(root);
    if (storage == NULL || root_copy == NULL) {
        free(storage);
        free(root_copy);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    storage->base.ops = &POSIX_OPS;
    storage->world = world;
    storage->root = root_copy;
    storage->root_fd =
        world->disk->openat(world->disk, AT_FDCWD, root, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (storage->root_fd < 0 ||
        world->disk->fstat(world->disk, storage->root_fd, &storage->root_status) != 0) {
        cairn_error_errno(err, "unable to open repository directory '%s'", root);
        posix_close(&storage->base);
        return NULL;
    }
    return &storage->base;
}

/* Everything before the last slash of name, "" when there is none. */
static void
prefix_of(const char *name, char prefix[STORAGE_NAME_LIMIT + 1])
{
    const char *slash = strrchr(name, '/');
    snprintf(prefix, STORAGE_NAME_LIMIT + 1, "%.*s", slash != NULL ? (int)(slash - name) : 0, name);
}

static const char *
last_component(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash != NULL ? slash + 1 : name;
}

/* The directory that holds `name`, made when it is missing. */
static int
make_directory_of(const PosixStorage *storage, const char *name, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT + 1];
    prefix_of(name, prefix);
    return posix_make_directory(storage, prefix, err);
}

static void
writer_free(StorageWriter *base)
{
    PosixWriter *writer = (PosixWriter *)base;
    const Disk *disk = writer->storage->world->disk;
    if (writer->fd >= 0)
        disk->close(disk, writer->fd);
    /* Should this fail, the name still tells storage_sweep what it is. */
    if (writer->has_temporary)
        disk->unlinkat(disk, writer->directory_fd, writer->temporary, 0);
    if (writer->directory_fd >= 0)
        disk->close(disk, writer->directory_fd);
    free(writer->object);
    free(writer);
}

static bool
create_temporary(PosixWriter *writer, CairnError *err)
{
    const World *world = writer->storage->world;
    uint8_t token[POSIX_TOKEN_SIZE];
    char token_text[2 * POSIX_TOKEN_SIZE + 1];
    if (world->random->fill(world->random, token, sizeof token) != 0)
        return cairn_error_errno(err, "unable to get random bytes");
    hex_encode(token_text, token, sizeof token);
    const int length = snprintf(writer->temporary, sizeof writer->temporary, ".%s.%s.tmp",
                                writer->name, token_text);
    if ((size_t)length >= sizeof writer->temporary)
        return cairn_error(err, CAIRN_USAGE, "object name '%s' is too long", writer->object);

    writer->fd =
        world->disk->openat(world->disk, writer->directory_fd, writer->temporary,
                            O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    if (writer->fd < 0)
        return cairn_error_errno(err, "unable to create a file in '%s' for '%s'",
                                 writer->storage->root, writer->object);
    writer->has_temporary = true;
    if (world->disk->fchmod(world->disk, writer->fd, FILE_MODE) != 0)
        return cairn_error_errno(err, "unable to set the mode of '%s'", writer->object);
    return true;
}

static StorageWriter *
posix_create(Storage *base, const char *name, CairnError *err)
{
    PosixStorage *storage = (PosixStorage *)base;
    if (strlen(last_component(name)) > NAME_MAX - sizeof "...tmp" - 2 * (size_t)POSIX_TOKEN_SIZE) {
        cairn_error(err, CAIRN_USAGE, "object name '%s' is too long", name);
        return NULL;
    }
    SCOPED(StorageWriter) result = NULL;
    PosixWriter *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    writer->base.ops = &POSIX_WRITER_OPS;
    writer->storage = storage;
    writer->directory_fd = -1;
    writer->fd = -1;
    result = &writer->base;

    writer->object = strdup(name);
    if (writer->object == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    snprintf(writer->name, sizeof writer->name, "%s", last_component(name));
    writer->directory_fd = make_directory_of(storage, name, err);
    if (writer->directory_fd < 0 || !create_temporary(writer, err))
        return NULL;
    return take(&result);
}

static bool
writer_write(StorageWriter *base, const void *data, size_t size, CairnError *err)
{
    PosixWriter *writer = (PosixWriter *)base;
    const World *world = writer->storage->world;
    if (!file_write(world, writer->fd, data, size, writer->object, err))
        return false;

    const uint64_t end = base->size_bytes + size;
    if (end - writer->writeback_start >= WRITEBACK_SIZE) {
        /* Only a hint: file systems without it answer an error, and fsync is what counts. */
        world->disk->start_writeback(world->disk, writer->fd, (off_t)writer->writeback_start,
                                     (off_t)(end - writer->writeback_start));
        writer->writeback_start = end;
    }
    return true;
}

/* Invariant 2. EEXIST may be our own link, whose reply an NFS server lost before we asked again. */
static bool
link_into_place(PosixWriter *writer, CairnError *err)
{
    const Disk *disk = writer->storage->world->disk;
    if (disk->linkat(disk, writer->directory_fd, writer->temporary, writer->directory_fd,
                     writer->name) == 0)
        return true;

    const int link_errno = errno;
    struct stat ours;
    struct stat named;
    if (disk->fstatat(disk, writer->directory_fd, writer->temporary, &ours, AT_SYMLINK_NOFOLLOW) ==
            0 &&
        ours.st_nlink == 2 &&
        disk->fstatat(disk, writer->directory_fd, writer->name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        named.st_ino == ours.st_ino && named.st_dev == ours.st_dev) {
        return true;
    }
    if (link_errno == EEXIST)
        return cairn_error(err, CAIRN_CONFLICT, "object '%s' exists already", writer->object);
    errno = link_errno;
    return cairn_error_errno(err, "unable to publish '%s/%s'", writer->storage->root,
                             writer->object);
}

/* What was opened may have been moved away, or another file system be mounted over it: an object
 * there is none that anybody finds. */
static bool
check_root(const PosixStorage *storage, CairnError *err)
{
    const Disk *disk = storage->world->disk;
    struct stat now;
    if (disk->fstatat(disk, AT_FDCWD, storage->root, &now, 0) == 0 &&
        now.st_dev == storage->root_status.st_dev && now.st_ino == storage->root_status.st_ino)
        return true;
    cairn_error(err, CAIRN_UNAVAILABLE, "the repository is no longer at '%s'", storage->root);
    return cairn_error_hint(err, "was it moved, or unmounted?");
}

static bool
writer_commit(StorageWriter *base, CairnError *err)
{
    PosixWriter *writer = (PosixWriter *)base;
    const World *world = writer->storage->world;
    const Disk *disk = world->disk;

    const int fd = take_fd(&writer->fd);
    if (!file_sync_close(world, fd, writer->object, err) || !check_root(writer->storage, err) ||
        !link_into_place(writer, err))
        return false;

    /* A second name that stays is swept later; the object is complete with it or without. */
    disk->unlinkat(disk, writer->directory_fd, writer->temporary, 0);
    writer->has_temporary = false;
    if (!file_sync_directory(world, writer->directory_fd, ".", err))
        return cairn_error_wrap(err, "unable to publish '%s'", writer->object);
    return true;
}

static void
reader_free(StorageReader *base)
{
    PosixReader *reader = (PosixReader *)base;
    if (reader->fd >= 0)
        reader->storage->world->disk->close(reader->storage->world->disk, reader->fd);
    free(reader->object);
    free(reader);
}

/* A descriptor of the regular file `name` and its size; -1 on failure. */
static int
open_object(const PosixStorage *storage, const char *name, uint64_t *size_out, CairnError *err)
{
    const Disk *disk = storage->world->disk;
    /* O_NONBLOCK, so that a FIFO in an object's place is refused instead of waited for. */
    const int fd = disk->openat_beneath(disk, storage->root_fd, name,
                                        O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0) {
        posix_open_failed(storage, name, err);
        return -1;
    }
    struct stat status;
    if (disk->fstat(disk, fd, &status) != 0) {
        cairn_error_errno(err, "unable to examine '%s/%s'", storage->root, name);
        disk->close(disk, fd);
        return -1;
    }
    if (!S_ISREG(status.st_mode)) {
        cairn_error(err, CAIRN_CORRUPT, "'%s/%s' is not a regular file", storage->root, name);
        disk->close(disk, fd);
        return -1;
    }
    *size_out = (uint64_t)status.st_size;
    return fd;
}

static StorageReader *
posix_open(Storage *base, const char *name, CairnError *err)
{
    PosixStorage *storage = (PosixStorage *)base;
    PosixReader *reader = calloc(1, sizeof *reader);
    char *object = strdup(name);
    if (reader == NULL || object == NULL) {
        free(reader);
        free(object);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->base.ops = &POSIX_READER_OPS;
    reader->storage = storage;
    reader->object = object;
    reader->fd = open_object(storage, name, &reader->base.size_bytes, err);
    if (reader->fd < 0) {
        reader_free(&reader->base);
        return NULL;
    }
    return &reader->base;
}

static bool
reader_pread(StorageReader *base, void *data, size_t size, uint64_t offset, CairnError *err)
{
    PosixReader *reader = (PosixReader *)base;
    return file_pread(reader->storage->world, reader->fd, data, size, offset, reader->object, err);
}

static bool
posix_exists(Storage *base, const char *name, uint64_t *size_out, CairnError *err)
{
    PosixStorage *storage = (PosixStorage *)base;
    uint64_t size;
    const int fd = open_object(storage, name, &size, err);
    if (fd < 0)
        return false;
    storage->world->disk->close(storage->world->disk, fd);
    *size_out = size;
    return true;
}

static bool
posix_make_durable(Storage *base, const char *name, CairnError *err)
{
    PosixStorage *storage = (PosixStorage *)base;
    const Disk *disk = storage->world->disk;
    uint64_t size;
    const int fd = open_object(storage, name, &size, err);
    if (fd < 0 || !file_sync_close(storage->world, fd, name, err))
        return false;

    /* The directories too, up to the root: their maker may have died before its own sync. */
    char prefix[STORAGE_NAME_LIMIT + 1];
    snprintf(prefix, sizeof prefix, "%s", name);
    bool synced = true;
    while (synced && prefix[0] != '\0') {
        char *slash = strrchr(prefix, '/');
        *(slash != NULL ? slash : prefix) = '\0';
        const int directory_fd = posix_open_directory(storage, prefix, err);
        if (directory_fd < 0)
            return false;
        synced = file_sync_directory(storage->world, directory_fd, ".", err);
        disk->close(disk, directory_fd);
    }
    return synced;
}

static bool
posix_remove(Storage *base, const char *name, CairnError *err)
{
    PosixStorage *storage = (PosixStorage *)base;
    const Disk *disk = storage->world->disk;
    char prefix[STORAGE_NAME_LIMIT + 1];
    prefix_of(name, prefix);
    const int directory_fd = posix_open_directory(storage, prefix, err);
    if (directory_fd < 0) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return true;
    }

    bool removed = true;
    if (disk->unlinkat(disk, directory_fd, last_component(name), 0) != 0) {
        if (errno != ENOENT)
            removed = cairn_error_errno(err, "unable to remove '%s/%s'", storage->root, name);
    } else {
        removed = file_sync_directory(storage->world, directory_fd, ".", err);
    }
    disk->close(disk, directory_fd);
    return removed;
}

static bool
posix_free_space(Storage *base, uint64_t *bytes_out, CairnError *err)
{
    PosixStorage *storage = (PosixStorage *)base;
    struct statvfs status;
    if (storage->world->disk->fstatvfs(storage->world->disk, storage->root_fd, &status) != 0)
        return cairn_error_errno(err, "unable to ask for free space in '%s'", storage->root);
    uint64_t bytes;
    if (__builtin_mul_overflow((uint64_t)status.f_bavail, (uint64_t)status.f_frsize, &bytes))
        bytes = UINT64_MAX;
    *bytes_out = bytes;
    return true;
}

/* Not synced: a directory that comes back after a power cut is as empty as before. */
static bool
posix_prune(Storage *base, const char *prefix, CairnError *err)
{
    PosixStorage *storage = (PosixStorage *)base;
    const Disk *disk = storage->world->disk;
    char parent[STORAGE_NAME_LIMIT + 1];
    prefix_of(prefix, parent);
    const int directory_fd = posix_open_directory(storage, parent, err);
    if (directory_fd < 0) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return true;
    }
    bool pruned = true;
    if (disk->unlinkat(disk, directory_fd, last_component(prefix), AT_REMOVEDIR) != 0 &&
        errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
        pruned = cairn_error_errno(err, "unable to remove '%s/%s'", storage->root, prefix);
    disk->close(disk, directory_fd);
    return pruned;
}

/*
 * File systems of one host, by the magic number of statfs(2); one that is not listed may be shared.
 * About this very host, not stored data, so it does not go through the World.
 */
static bool
posix_is_local(Storage *base)
{
    static const unsigned long LOCAL[] = {
        EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,      BTRFS_SUPER_MAGIC,         TMPFS_MAGIC,
        F2FS_SUPER_MAGIC, 0x2fc12fc1 /* ZFS */, 0xca451a4e /* bcachefs */, OVERLAYFS_SUPER_MAGIC,
    };
    struct statfs status;
    if (fstatfs(((PosixStorage *)base)->root_fd, &status) != 0)
        return false;
    for (size_t i = 0; i < sizeof LOCAL / sizeof LOCAL[0]; i++) {
        if ((unsigned long)status.f_type == LOCAL[i])
            return true;
    }
    return false;
}

static const StorageOps POSIX_OPS = {
    .close = posix_close,
    .create = posix_create,
    .open = posix_open,
    .list = posix_list,
    .exists = posix_exists,
    .make_durable = posix_make_durable,
    .remove = posix_remove,
    .free_space = posix_free_space,
    .sweep = posix_sweep,
    .prune = posix_prune,
    .is_local = posix_is_local,
};

static const StorageWriterOps POSIX_WRITER_OPS = {writer_write, writer_commit, writer_free};
static const StorageReaderOps POSIX_READER_OPS = {reader_pread, reader_free};
