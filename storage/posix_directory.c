/* Directories of the repository: opened, and made so that what is put into them cannot be lost. */
#include "common/file.h"
#include "storage/posix_intern.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/*
 * A new directory has the sticky bit until the one above it was synced. Who finds it so (its maker
 * is between the two, or died there) syncs that itself: else a crash of the machine could take the
 * directory away, and everything in it that others reported as durable.
 */
enum { DIRECTORY_MODE = 0750, FRESH_MODE = DIRECTORY_MODE | S_ISVTX };

/*
 * Sets the error for a failed open below root. ENOTDIR means that a prefix is a file, ELOOP and
 * EXDEV that a link stands in the way: no crash of ours leaves that.
 */
void
posix_open_failed(const PosixStorage *storage, const char *name, CairnError *err)
{
    if (errno == ENOTDIR || errno == ELOOP || errno == EXDEV || errno == ENXIO)
        cairn_error(err, CAIRN_CORRUPT,
                    "unable to open '%s/%s': something else than a file or directory is in its way",
                    storage->root, name);
    else
        cairn_error_errno(err, "unable to open '%s/%s'", storage->root, name);
}

int
posix_open_directory(const PosixStorage *storage, const char *path, CairnError *err)
{
    const Disk *disk = storage->world->disk;
    const int fd = disk->openat_beneath(disk, storage->root_fd, path[0] == '\0' ? "." : path,
                                        O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        posix_open_failed(storage, path, err);
    return fd;
}

static bool
is_fresh(const PosixStorage *storage, int fd, bool *fresh_out, CairnError *err)
{
    struct stat status;
    if (storage->world->disk->fstat(storage->world->disk, fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine a directory of '%s'", storage->root);
    *fresh_out = (status.st_mode & S_ISVTX) != 0;
    return true;
}

/* parent is synced; the mark goes. */
static bool
finish_directory(const PosixStorage *storage, int parent, int fd, CairnError *err)
{
    const Disk *disk = storage->world->disk;
    if (!file_sync_directory(storage->world, parent, ".", err))
        return false;
    /* EPERM: another user's, who finishes it, or everybody syncs it anew. */
    if (disk->fchmod(disk, fd, DIRECTORY_MODE) != 0 && errno != EPERM)
        return cairn_error_errno(err, "unable to set the mode of a directory");
    return true;
}

/* A descriptor of `name` below parent, made when it is missing, and durable; -1 on failure. */
static int
enter_directory(const PosixStorage *storage, int parent, const char *name, CairnError *err)
{
    const Disk *disk = storage->world->disk;
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = disk->openat(disk, parent, name, flags, 0);
    if (fd < 0 && errno == ENOENT) {
        if (disk->mkdirat(disk, parent, name, FRESH_MODE) != 0 && errno != EEXIST) {
            cairn_error_errno(err, "unable to make directory '%s'", name);
            return -1;
        }
        fd = disk->openat(disk, parent, name, flags, 0);
    }
    if (fd < 0) {
        posix_open_failed(storage, name, err);
        return -1;
    }
    bool fresh = true;
    if (is_fresh(storage, fd, &fresh, err) &&
        (!fresh || finish_directory(storage, parent, fd, err)))
        return fd;
    disk->close(disk, fd);
    return -1;
}

/* Down from the root: a directory that is finished has finished ones above it. */
static int
make_directories(const PosixStorage *storage, const char *path, CairnError *err)
{
    const Disk *disk = storage->world->disk;
    int at = posix_open_directory(storage, "", err);
    for (const char *rest = path; at >= 0 && *rest != '\0';) {
        const size_t length = strcspn(rest, "/");
        char name[NAME_MAX + 1];
        int next = -1;
        if (length > NAME_MAX) {
            cairn_error(err, CAIRN_USAGE, "name too long");
        } else {
            snprintf(name, sizeof name, "%.*s", (int)length, rest);
            next = enter_directory(storage, at, name, err);
        }
        disk->close(disk, at);
        at = next;
        rest += length + (rest[length] == '/' ? 1 : 0);
    }
    if (at < 0)
        cairn_error_wrap(err, "repository '%s': unable to make directory '%s'", storage->root,
                         path);
    return at;
}

int
posix_make_directory(const PosixStorage *storage, const char *path, CairnError *err)
{
    const Disk *disk = storage->world->disk;
    const int fd = posix_open_directory(storage, path, err);
    bool fresh = true;
    if (fd >= 0) {
        if (path[0] == '\0' || (is_fresh(storage, fd, &fresh, err) && !fresh))
            return fd;
        disk->close(disk, fd);
        if (err->kind != CAIRN_OK)
            return -1;
    } else if (err->kind != CAIRN_NOT_FOUND) {
        return -1;
    }
    cairn_error_clear(err);
    return make_directories(storage, path, err);
}
