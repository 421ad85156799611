#include "common/file.h"

#include "common/bytes.h"
#include "common/scoped.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* The kernel transfers less than 2 GiB a call anyway; this keeps every count within ssize_t. */
static const size_t TRANSFER_LIMIT = (size_t)1 << 30;

static size_t
at_most_limit(size_t size)
{
    return size < TRANSFER_LIMIT ? size : TRANSFER_LIMIT;
}

bool
file_write(const World *world, int fd, const void *data, size_t size, const char *name,
           CairnError *err)
{
    const uint8_t *at = data;
    while (size > 0) {
        const ssize_t count = world->disk->write(world->disk, fd, at, at_most_limit(size));
        if (count < 0) {
            if (errno == EINTR)
                continue;
            return cairn_error_errno(err, "unable to write '%s'", name);
        }
        if (count == 0)
            return cairn_error(err, CAIRN_IO, "unable to write '%s': no progress", name);
        at += count;
        size -= (size_t)count;
    }
    return true;
}

static bool
offset_fits(uint64_t offset, size_t size)
{
    return size <= INT64_MAX && offset <= INT64_MAX - (uint64_t)size;
}

bool
file_pwrite(const World *world, int fd, const void *data, size_t size, uint64_t offset,
            const char *name, CairnError *err)
{
    if (!offset_fits(offset, size))
        return cairn_error(err, CAIRN_UNSUPPORTED, "unable to write '%s': offset too large", name);
    const uint8_t *at = data;
    while (size > 0) {
        const ssize_t count =
            world->disk->pwrite(world->disk, fd, at, at_most_limit(size), (off_t)offset);
        if (count < 0) {
            if (errno == EINTR)
                continue;
            return cairn_error_errno(err, "unable to write '%s'", name);
        }
        if (count == 0)
            return cairn_error(err, CAIRN_IO, "unable to write '%s': no progress", name);
        at += count;
        size -= (size_t)count;
        offset += (uint64_t)count;
    }
    return true;
}

bool
file_read(const World *world, int fd, void *data, size_t size, size_t *size_out, const char *name,
          CairnError *err)
{
    uint8_t *at = data;
    size_t done = 0;
    while (done < size) {
        const ssize_t count =
            world->disk->read(world->disk, fd, at + done, at_most_limit(size - done));
        if (count < 0) {
            if (errno == EINTR)
                continue;
            return cairn_error_errno(err, "unable to read '%s'", name);
        }
        if (count == 0)
            break;
        done += (size_t)count;
    }
    *size_out = done;
    return true;
}

bool
file_pread(const World *world, int fd, void *data, size_t size, uint64_t offset, const char *name,
           CairnError *err)
{
    if (!offset_fits(offset, size))
        return cairn_error(err, CAIRN_CORRUPT, "unable to read '%s': offset too large", name);
    uint8_t *at = data;
    while (size > 0) {
        const ssize_t count =
            world->disk->pread(world->disk, fd, at, at_most_limit(size), (off_t)offset);
        if (count < 0) {
            if (errno == EINTR)
                continue;
            return cairn_error_errno(err, "unable to read '%s'", name);
        }
        if (count == 0)
            return cairn_error(err, CAIRN_CORRUPT,
                               "unable to read '%s': it ends at %llu, %zu bytes too early", name,
                               (unsigned long long)offset, size);
        at += count;
        size -= (size_t)count;
        offset += (uint64_t)count;
    }
    return true;
}

bool
file_sync(const World *world, int fd, const char *name, CairnError *err)
{
    /* EINTR too is final: the kernel may have dropped the error state of pages that failed. */
    if (world->disk->fsync(world->disk, fd) != 0)
        return cairn_error_errno(err, "unable to sync '%s'", name);
    return true;
}

bool
file_sync_close(const World *world, int fd, const char *name, CairnError *err)
{
    const bool synced = file_sync(world, fd, name, err);
    /* On Linux the descriptor is gone even when close fails, so it is never closed again. */
    if (world->disk->close(world->disk, fd) != 0 && synced)
        return cairn_error_errno(err, "unable to close '%s'", name);
    return synced;
}

bool
file_sync_directory(const World *world, int dirfd, const char *path, CairnError *err)
{
    const Disk *disk = world->disk;
    const int fd = disk->openat(disk, dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return cairn_error_errno(err, "unable to open directory '%s'", path);

    /* Some network file systems sync directories by themselves and answer EINVAL; the server treats
       it the same way. Every other error is one. */
    bool synced = true;
    if (disk->fsync(disk, fd) != 0 && errno != EINVAL)
        synced = cairn_error_errno(err, "unable to sync directory '%s'", path);
    disk->close(disk, fd);
    return synced;
}

static char *
read_opened(const World *world, int fd, const char *path, size_t limit, size_t *size_out,
            CairnError *err)
{
    struct stat status;
    if (world->disk->fstat(world->disk, fd, &status) != 0) {
        cairn_error_errno(err, "unable to examine '%s'", path);
        return NULL;
    }
    if (!S_ISREG(status.st_mode)) {
        cairn_error(err, CAIRN_UNSUPPORTED, "unable to read '%s': not a regular file", path);
        return NULL;
    }

    /* One byte more than expected, to see the end; files in /proc say 0 and get the limit. */
    size_t capacity = limit + 1;
    if (status.st_size > 0 && (uint64_t)status.st_size < limit)
        capacity = (size_t)status.st_size + 1;
    SCOPED_MEMORY char *text = malloc(capacity + 1);
    if (text == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    size_t size;
    if (!file_read(world, fd, text, capacity, &size, path, err))
        return NULL;
    if (size == capacity) {
        cairn_error(err, CAIRN_UNSUPPORTED, "unable to read '%s': larger than %zu bytes", path,
                    capacity - 1);
        return NULL;
    }
    text[size] = '\0';
    *size_out = size;
    return take(&text);
}

char *
file_read_all(const World *world, int dirfd, const char *path, size_t limit, size_t *size_out,
              CairnError *err)
{
    CAIRN_ASSERT(limit < SIZE_MAX - 2);
    const Disk *disk = world->disk;
    /* O_NONBLOCK, so that a FIFO in a file's place cannot hang us before it is refused. */
    const int fd = disk->openat(disk, dirfd, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0) {
        cairn_error_errno(err, "unable to open '%s'", path);
        return NULL;
    }
    char *text = read_opened(world, fd, path, limit, size_out, err);
    disk->close(disk, fd);
    return text;
}

/* "dir/.name.<16 hex>.tmp" for "dir/name". */
static bool
temporary_path(const World *world, const char *path, char *temporary, size_t size, CairnError *err)
{
    uint8_t token[8];
    if (world->random->fill(world->random, token, sizeof token) != 0)
        return cairn_error_errno(err, "unable to get random bytes");
    char token_text[2 * sizeof token + 1];
    hex_encode(token_text, token, sizeof token);

    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    const int length =
        snprintf(temporary, size, "%.*s.%s.%s.tmp", (int)(name - path), path, name, token_text);
    if (length < 0 || (size_t)length >= size)
        return cairn_error(err, CAIRN_USAGE, "unable to write '%s': name too long", path);
    return true;
}

static bool
write_temporary(const World *world, int dirfd, const char *temporary, const void *data, size_t size,
                mode_t mode, CairnError *err)
{
    const Disk *disk = world->disk;
    const int fd =
        disk->openat(disk, dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                     S_IRUSR | S_IWUSR);
    if (fd < 0)
        return cairn_error_errno(err, "unable to create '%s'", temporary);
    bool written = file_write(world, fd, data, size, temporary, err);
    if (written && disk->fchmod(disk, fd, mode) != 0)
        written = cairn_error_errno(err, "unable to set the mode of '%s'", temporary);
    if (written)
        return file_sync_close(world, fd, temporary, err);
    disk->close(disk, fd);
    return false;
}

bool
file_replace(const World *world, int dirfd, const char *path, const void *data, size_t size,
             mode_t mode, CairnError *err)
{
    const Disk *disk = world->disk;
    char temporary[PATH_MAX];
    if (!temporary_path(world, path, temporary, sizeof temporary, err))
        return false;

    bool replaced = write_temporary(world, dirfd, temporary, data, size, mode, err);
    if (replaced && disk->renameat(disk, dirfd, temporary, dirfd, path) != 0)
        replaced = cairn_error_errno(err, "unable to rename '%s' to '%s'", temporary, path);
    if (!replaced) {
        disk->unlinkat(disk, dirfd, temporary, 0);
        return false;
    }

    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        snprintf(directory, sizeof directory, ".");
    else
        snprintf(directory, sizeof directory, "%.*s", slash == path ? 1 : (int)(slash - path),
                 path);
    return file_sync_directory(world, dirfd, directory, err);
}

/* The directory `name` just made below parent gets its mode, whatever the umask, and is synced. */
static bool
finish_new_directory(const World *world, int parent, const char *name, mode_t mode, CairnError *err)
{
    const Disk *disk = world->disk;
    const int fd =
        disk->openat(disk, parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0)
        return cairn_error_errno(err, "unable to open directory '%s'", name);
    bool finished = true;
    if (disk->fchmod(disk, fd, mode) != 0)
        finished = cairn_error_errno(err, "unable to set the mode of directory '%s'", name);
    disk->close(disk, fd);
    return finished && file_sync_directory(world, parent, ".", err);
}

/* A descriptor of `name` below parent, which is made when missing; -1 on failure. */
static int
enter_directory(const World *world, int parent, const char *name, bool follow, mode_t mode,
                CairnError *err)
{
    const Disk *disk = world->disk;
    /* O_PATH: ancestors need not be readable to us, only searchable. */
    const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW);
    int fd = disk->openat(disk, parent, name, flags, 0);
    if (fd < 0 && errno == ENOENT) {
        if (disk->mkdirat(disk, parent, name, mode) == 0) {
            if (!finish_new_directory(world, parent, name, mode, err))
                return -1;
        } else if (errno != EEXIST) {
            cairn_error_errno(err, "unable to make directory '%s'", name);
            return -1;
        }
        fd = disk->openat(disk, parent, name, flags, 0);
    }
    if (fd < 0)
        cairn_error_errno(err, "unable to open directory '%s'", name);
    return fd;
}

bool
file_make_directories(const World *world, int dirfd, const char *path, mode_t mode, CairnError *err)
{
    const Disk *disk = world->disk;
    /*
     * An absolute path is the administrator's, who may use symbolic links (/var/run); below an open
     * directory the names may come from a backup, and a link is refused.
     */
    const bool absolute = path[0] == '/';
    int at = disk->openat(disk, absolute ? AT_FDCWD : dirfd, absolute ? "/" : ".",
                          O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (at < 0)
        return cairn_error_errno(err, "unable to make directory '%s'", path);

    const char *rest = path;
    while (at >= 0) {
        rest += strspn(rest, "/");
        const size_t length = strcspn(rest, "/");
        if (length == 0)
            break;
        char name[NAME_MAX + 1];
        int next = -1;
        if (length > NAME_MAX) {
            cairn_error(err, CAIRN_USAGE, "name too long");
        } else {
            memcpy(name, rest, length);
            name[length] = '\0';
            next = enter_directory(world, at, name, absolute, mode, err);
        }
        disk->close(disk, at);
        at = next;
        rest += length;
    }
    if (at < 0)
        return cairn_error_wrap(err, "unable to make directory '%s'", path);
    disk->close(disk, at);
    return true;
}
