#include "common/world.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int
real_openat(const Disk *disk, int dirfd, const char *path, int flags, mode_t mode)
{
    (void)disk;
    return openat(dirfd, path, flags, mode);
}

/* One component at a time, each opened with O_NOFOLLOW: for kernels and sandboxes without openat2.
 */
static int
walk_beneath(int dirfd, const char *path, int flags, mode_t mode)
{
    int at = dirfd;
    for (;;) {
        const size_t length = strcspn(path, "/");
        char name[NAME_MAX + 1];
        int fd = -1;
        if (length == 0 || (length == 2 && memcmp(path, "..", 2) == 0)) {
            errno = EXDEV;
        } else if (length > NAME_MAX) {
            errno = ENAMETOOLONG;
        } else {
            memcpy(name, path, length);
            name[length] = '\0';
            const bool last = path[length] == '\0';
            fd = last ? openat(at, name, flags | O_NOFOLLOW, mode)
                      : openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (fd < 0 && errno == ENOTDIR) {
                /* O_DIRECTORY hides a symbolic link behind ENOTDIR; openat2 says ELOOP. */
                struct stat status;
                const bool link =
                    fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(status.st_mode);
                errno = link ? ELOOP : ENOTDIR;
            }
        }
        if (at != dirfd) {
            const int saved_errno = errno;
            close(at);
            errno = saved_errno;
        }
        if (fd < 0 || path[length] == '\0')
            return fd;
        at = fd;
        path += length + 1;
    }
}

static int
real_openat_beneath(const Disk *disk, int dirfd, const char *path, int flags, mode_t mode)
{
    (void)disk;
    struct open_how how = {
        .flags = (uint64_t)(unsigned)flags,
        .mode = (flags & O_CREAT) != 0 ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    const long fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
    /* EPERM is what container sandboxes answer for calls that they do not know. */
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
        return (int)fd;
    return walk_beneath(dirfd, path, flags, mode);
}

static int
real_close(const Disk *disk, int fd)
{
    (void)disk;
    return close(fd);
}

static ssize_t
real_read(const Disk *disk, int fd, void *data, size_t size)
{
    (void)disk;
    return read(fd, data, size);
}

static ssize_t
real_pread(const Disk *disk, int fd, void *data, size_t size, off_t offset)
{
    (void)disk;
    return pread(fd, data, size, offset);
}

static ssize_t
real_write(const Disk *disk, int fd, const void *data, size_t size)
{
    (void)disk;
    return write(fd, data, size);
}

static ssize_t
real_pwrite(const Disk *disk, int fd, const void *data, size_t size, off_t offset)
{
    (void)disk;
    return pwrite(fd, data, size, offset);
}

static int
real_fsync(const Disk *disk, int fd)
{
    (void)disk;
    return fsync(fd);
}

static int
real_syncfs(const Disk *disk, int fd)
{
    (void)disk;
    return syncfs(fd);
}

static int
real_start_writeback(const Disk *disk, int fd, off_t offset, off_t size)
{
    (void)disk;
    return sync_file_range(fd, offset, size, SYNC_FILE_RANGE_WRITE);
}

static int
real_ftruncate(const Disk *disk, int fd, off_t size)
{
    (void)disk;
    return ftruncate(fd, size);
}

static int
real_fstat(const Disk *disk, int fd, struct stat *status)
{
    (void)disk;
    return fstat(fd, status);
}

static int
real_fstatat(const Disk *disk, int dirfd, const char *path, struct stat *status, int flags)
{
    (void)disk;
    return fstatat(dirfd, path, status, flags);
}

static int
real_fchmod(const Disk *disk, int fd, mode_t mode)
{
    (void)disk;
    return fchmod(fd, mode);
}

static int
real_mkdirat(const Disk *disk, int dirfd, const char *path, mode_t mode)
{
    (void)disk;
    return mkdirat(dirfd, path, mode);
}

static int
real_linkat(const Disk *disk, int fromfd, const char *from, int tofd, const char *to)
{
    (void)disk;
    return linkat(fromfd, from, tofd, to, 0);
}

static int
real_unlinkat(const Disk *disk, int dirfd, const char *path, int flags)
{
    (void)disk;
    return unlinkat(dirfd, path, flags);
}

static int
real_renameat(const Disk *disk, int fromfd, const char *from, int tofd, const char *to)
{
    (void)disk;
    return renameat(fromfd, from, tofd, to);
}

static int
real_symlinkat(const Disk *disk, const char *target, int dirfd, const char *path)
{
    (void)disk;
    return symlinkat(target, dirfd, path);
}

static ssize_t
real_readlinkat(const Disk *disk, int dirfd, const char *path, char *target, size_t size)
{
    (void)disk;
    return readlinkat(dirfd, path, target, size);
}

static int
real_fstatvfs(const Disk *disk, int fd, struct statvfs *status)
{
    (void)disk;
    return fstatvfs(fd, status);
}

static DIR *
real_opendir(const Disk *disk, int fd)
{
    (void)disk;
    return fdopendir(fd);
}

static struct dirent *
real_readdir(const Disk *disk, DIR *dir)
{
    (void)disk;
    return readdir(dir);
}

static int
real_closedir(const Disk *disk, DIR *dir)
{
    (void)disk;
    return closedir(dir);
}

static int64_t
real_wall_us(const Clock *clock)
{
    (void)clock;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t
real_monotonic_ns(const Clock *clock)
{
    (void)clock;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void
real_sleep_ms(const Clock *clock, int64_t duration_ms)
{
    (void)clock;
    if (duration_ms <= 0)
        return;
    /* A signal ends the sleep early, so that a loop gets to ask cancel_requested. */
    const struct timespec duration = {duration_ms / 1000, duration_ms % 1000 * 1000000};
    nanosleep(&duration, NULL);
}

static int
real_fill(const Random *random, void *data, size_t size)
{
    (void)random;
    uint8_t *at = data;
    while (size > 0) {
        const ssize_t count = getrandom(at, size, 0);
        if (count < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        at += count;
        size -= (size_t)count;
    }
    return 0;
}

static const Disk REAL_DISK = {
    .openat = real_openat,
    .openat_beneath = real_openat_beneath,
    .close = real_close,
    .read = real_read,
    .pread = real_pread,
    .write = real_write,
    .pwrite = real_pwrite,
    .fsync = real_fsync,
    .syncfs = real_syncfs,
    .start_writeback = real_start_writeback,
    .ftruncate = real_ftruncate,
    .fstat = real_fstat,
    .fstatat = real_fstatat,
    .fchmod = real_fchmod,
    .mkdirat = real_mkdirat,
    .linkat = real_linkat,
    .unlinkat = real_unlinkat,
    .renameat = real_renameat,
    .symlinkat = real_symlinkat,
    .readlinkat = real_readlinkat,
    .fstatvfs = real_fstatvfs,
    .opendir = real_opendir,
    .readdir = real_readdir,
    .closedir = real_closedir,
};

static const Clock REAL_CLOCK = {real_wall_us, real_monotonic_ns, real_sleep_ms};
static const Random REAL_RANDOM = {real_fill};
static const World REAL_WORLD = {&REAL_DISK, &REAL_CLOCK, &REAL_RANDOM};

const World *
world_real(void)
{
    return &REAL_WORLD;
}
