/* Putting WAL into overflow-path: durable, never overwritten, and only where it relieves pg_wal. */
#include "repository/wal_overflow_intern.h"

#include "common/directory.h"
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

#define TEMPORARY_SUFFIX ".tmp"

enum { FILE_MODE = 0600 };

/* A temporary file, or a digest without its file, that no running put can own any more. */
static const int64_t LEFTOVER_AGE_US = INT64_C(3600) * 1000000;

/* About this very host, not stored data, so it does not go through the World. */
static bool
check_persistence(const WalOverflow *overflow, CairnError *err)
{
    struct statfs status;

    if (fstatfs(overflow->fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine the file system of overflow-path");
    if (status.f_type != TMPFS_MAGIC && status.f_type != RAMFS_MAGIC)
        return true;
    cairn_error(err, CAIRN_REFUSED, "overflow-path lies in memory");
    return cairn_error_hint(err, "what is there is lost when the host goes down, and the server "
                                 "has removed its own by then; name a directory on a disk");
}

static bool
check_file_system(const WalOverflow *overflow, int wal_directory_fd, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    struct stat ours, theirs;

    if (disk->fstat(disk, overflow->fd, &ours) != 0 ||
        disk->fstat(disk, wal_directory_fd, &theirs) != 0)
        return cairn_error_errno(err, "unable to examine overflow-path and pg_wal");
    if (ours.st_dev != theirs.st_dev)
        return check_persistence(overflow, err);
    cairn_error(err, CAIRN_REFUSED, "overflow-path lies on the same file system as pg_wal");
    return cairn_error_hint(err, "what fills one would fill the other, and what breaks one would "
                                 "break both; name a directory on another disk");
}

/* The name is taken. True when by the same content, durable again. */
static bool
settle_with_stored(WalOverflow *overflow, const char *file_name, const char *hex, CairnError *err)
{
    char theirs[WAL_OVERFLOW_HEX_SIZE];
    SCOPED_FD fd = wal_overflow_open_file(overflow, file_name, err);

    if (fd < 0 || !wal_overflow_copy(overflow, fd, -1, file_name, theirs, err))
        return false;
    if (strcmp(hex, theirs) != 0) {
        cairn_error(err, CAIRN_CONFLICT, "'%s' is in overflow-path with other content", file_name);
        return cairn_error_hint(err, "nothing was overwritten; two servers archive as one cluster, "
                                     "or one was restored: look which of them must not archive");
    }
    return file_sync(overflow->world, fd, file_name, err) &&
           file_sync_directory(overflow->world, overflow->fd, ".", err);
}

static bool
is_old(const WalOverflow *overflow, const struct stat *status)
{
    const Clock *clock = overflow->world->clock;

    return (int64_t)status->st_mtim.tv_sec * 1000000 < clock->wall_us(clock) - LEFTOVER_AGE_US;
}

/* What a put is about to publish. */
typedef struct {
    const char *file_name;
    char digest_name[WAL_OVERFLOW_DIGEST_NAME_SIZE];
    char temporary[WAL_FILE_NAME_LIMIT + 32];
    char temporary_digest[WAL_FILE_NAME_LIMIT + 48];
    char hex[WAL_OVERFLOW_HEX_SIZE];
    char line[WAL_OVERFLOW_LINE_SIZE];
} Entry;

/* The digest is there, and its file is not. Ours is linked when theirs is a leftover; two pushes
   with different content must not make one file out of the one's bytes and the other's digest. */
static bool
settle_digest(WalOverflow *overflow, const Entry *entry, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    struct stat status;
    size_t size = 0;
    SCOPED_MEMORY char *theirs = file_read_all(overflow->world, overflow->fd, entry->digest_name,
                                               WAL_OVERFLOW_LINE_SIZE, &size, err);

    if (theirs == NULL)
        return false;
    if (strcmp(theirs, entry->line) == 0)
        return true;
    if (disk->fstatat(disk, overflow->fd, entry->digest_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        is_old(overflow, &status)) {
        disk->unlinkat(disk, overflow->fd, entry->digest_name, 0);
        if (disk->linkat(disk, overflow->fd, entry->temporary_digest, overflow->fd,
                         entry->digest_name) == 0)
            return true;
        return cairn_error_errno(err, "unable to publish '%s' in overflow-path",
                                 entry->digest_name);
    }
    cairn_error(err, CAIRN_CONFLICT, "'%s' is put into overflow-path with other content as well",
                entry->file_name);
    return cairn_error_hint(err, "two servers archive as one cluster, or one was restored: look "
                                 "which of them must not archive");
}

static bool
publish_digest(WalOverflow *overflow, const Entry *entry, CairnError *err)
{
    const Disk *disk = overflow->world->disk;

    if (disk->linkat(disk, overflow->fd, entry->temporary_digest, overflow->fd,
                     entry->digest_name) != 0) {
        if (errno != EEXIST)
            return cairn_error_errno(err, "unable to publish '%s' in overflow-path",
                                     entry->digest_name);
        if (!settle_digest(overflow, entry, err))
            return false;
    }
    return file_sync_directory(overflow->world, overflow->fd, ".", err);
}

static bool
publish(WalOverflow *overflow, const Entry *entry, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    struct stat status;

    if (disk->fstatat(disk, overflow->fd, entry->file_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return settle_with_stored(overflow, entry->file_name, entry->hex, err);
    if (!publish_digest(overflow, entry, err))
        return false;
    if (disk->linkat(disk, overflow->fd, entry->temporary, overflow->fd, entry->file_name) != 0) {
        if (errno == EEXIST)
            return settle_with_stored(overflow, entry->file_name, entry->hex, err);
        return cairn_error_errno(err, "unable to publish '%s' in overflow-path", entry->file_name);
    }
    /* Shipping may just have removed the digest of the same file, put here before. */
    if (disk->fstatat(disk, overflow->fd, entry->digest_name, &status, AT_SYMLINK_NOFOLLOW) != 0 &&
        errno == ENOENT)
        return publish_digest(overflow, entry, err);
    return file_sync_directory(overflow->world, overflow->fd, ".", err);
}

/* What puts that were killed left behind. Tidiness only, so that failures do not matter. */
static void
sweep_leftovers(const WalOverflow *overflow)
{
    const Disk *disk = overflow->world->disk;
    SCOPED(Directory) directory = directory_open(overflow->world, overflow->fd, ".", 0);
    const char *name;
    struct stat status;

    while (directory != NULL && (name = directory_next(directory)) != NULL) {
        const size_t size = strlen(name);
        if (name[0] == '.' && size > strlen(TEMPORARY_SUFFIX) &&
            strcmp(name + size - strlen(TEMPORARY_SUFFIX), TEMPORARY_SUFFIX) == 0 &&
            disk->fstatat(disk, overflow->fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(status.st_mode) && is_old(overflow, &status))
            disk->unlinkat(disk, overflow->fd, name, 0);
    }
}

static int
create_temporary(const WalOverflow *overflow, const char *name, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    const int fd = disk->openat(disk, overflow->fd, name,
                                O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);

    if (fd < 0)
        cairn_error_errno(err, "unable to create '%s' in overflow-path", name);
    return fd;
}

/* Copies and digests under the temporary names, durably. */
static bool
prepare(WalOverflow *overflow, Entry *entry, int from, CairnError *err)
{
    const World *world = overflow->world;
    SCOPED_FD copy = create_temporary(overflow, entry->temporary, err);

    if (copy < 0 || !wal_overflow_copy(overflow, from, copy, entry->file_name, entry->hex, err) ||
        !file_sync_close(world, take_fd(&copy), entry->temporary, err))
        return false;
    wal_overflow_digest_line(entry->line, entry->hex, entry->file_name);
    SCOPED_FD digest = create_temporary(overflow, entry->temporary_digest, err);
    return digest >= 0 &&
           file_write(world, digest, entry->line, strlen(entry->line), entry->temporary_digest,
                      err) &&
           file_sync_close(world, take_fd(&digest), entry->temporary_digest, err);
}

bool
wal_overflow_put(WalOverflow *overflow, int wal_directory_fd, const char *file_name, int fd,
                 CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    Entry entry = {.file_name = file_name};
    char token[17];

    if (!check_file_system(overflow, wal_directory_fd, err) ||
        !random_token(overflow->world, token, err))
        return false;
    sweep_leftovers(overflow);
    wal_overflow_digest_name(entry.digest_name, file_name);
    snprintf(entry.temporary, sizeof entry.temporary, ".%.63s.%s" TEMPORARY_SUFFIX, file_name,
             token);
    snprintf(entry.temporary_digest, sizeof entry.temporary_digest,
             ".%.63s" WAL_OVERFLOW_DIGEST_SUFFIX ".%s" TEMPORARY_SUFFIX, file_name, token);
    const bool done = prepare(overflow, &entry, fd, err) && publish(overflow, &entry, err);
    disk->unlinkat(disk, overflow->fd, entry.temporary, 0);
    disk->unlinkat(disk, overflow->fd, entry.temporary_digest, 0);
    return done;
}
