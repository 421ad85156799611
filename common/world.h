/*
 * The outside world as tables: disk, clock, randomness. (The network has its own: libpq lives in
 * postgres/connection, object stores in storage/.) Everything below main takes a `const World *`
 * and touches files, time and entropy only through it, so that tests own them: fail the n-th call,
 * write short, forget what was not synced.
 *
 * Units: times in microseconds since 1970 UTC (wall) or nanoseconds (monotonic).
 * Errors: Disk functions are the system calls: -1 and errno. They retry nothing; short reads,
 * short writes and EINTR are handled in common/file.c, once.
 * Threads: every function may be called from any thread.
 */
#ifndef PGCAIRN_COMMON_WORLD_H
#define PGCAIRN_COMMON_WORLD_H

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

typedef struct Disk Disk;
struct Disk {
    int (*openat)(const Disk *disk, int dirfd, const char *path, int flags, mode_t mode);
    /* The same, below dirfd and through no symbolic link: ELOOP for one, EXDEV for a way out. */
    int (*openat_beneath)(const Disk *disk, int dirfd, const char *path, int flags, mode_t mode);
    int (*close)(const Disk *disk, int fd);
    ssize_t (*read)(const Disk *disk, int fd, void *data, size_t size);
    ssize_t (*pread)(const Disk *disk, int fd, void *data, size_t size, off_t offset);
    ssize_t (*write)(const Disk *disk, int fd, const void *data, size_t size);
    ssize_t (*pwrite)(const Disk *disk, int fd, const void *data, size_t size, off_t offset);
    int (*fsync)(const Disk *disk, int fd);
    int (*syncfs)(const Disk *disk, int fd);
    int (*start_writeback)(const Disk *disk, int fd, off_t offset,
                           off_t size); /* sync_file_range */
    int (*ftruncate)(const Disk *disk, int fd, off_t size);
    int (*fstat)(const Disk *disk, int fd, struct stat *status);
    int (*fstatat)(const Disk *disk, int dirfd, const char *path, struct stat *status, int flags);
    int (*fchmod)(const Disk *disk, int fd, mode_t mode);
    int (*mkdirat)(const Disk *disk, int dirfd, const char *path, mode_t mode);
    int (*linkat)(const Disk *disk, int fromfd, const char *from, int tofd, const char *to);
    int (*unlinkat)(const Disk *disk, int dirfd, const char *path, int flags);
    int (*renameat)(const Disk *disk, int fromfd, const char *from, int tofd, const char *to);
    int (*symlinkat)(const Disk *disk, const char *target, int dirfd, const char *path);
    ssize_t (*readlinkat)(const Disk *disk, int dirfd, const char *path, char *target, size_t size);
    int (*fstatvfs)(const Disk *disk, int fd, struct statvfs *status);
    /* Directory streams: fd is taken by opendir (fdopendir), freed by closedir. */
    DIR *(*opendir)(const Disk *disk, int fd);
    struct dirent *(*readdir)(const Disk *disk, DIR *dir);
    int (*closedir)(const Disk *disk, DIR *dir);
};

typedef struct Clock Clock;
struct Clock {
    int64_t (*wall_us)(const Clock *clock);
    int64_t (*monotonic_ns)(const Clock *clock);
    void (*sleep_ms)(const Clock *clock, int64_t duration_ms);
};

typedef struct Random Random;
struct Random {
    /* 0, or -1 and errno; never fewer bytes than asked for. */
    int (*fill)(const Random *random, void *data, size_t size);
};

typedef struct {
    const Disk *disk;
    const Clock *clock;
    const Random *random;
} World;

/* The real one: system calls, CLOCK_REALTIME and CLOCK_MONOTONIC, getrandom. */
const World *world_real(void);

#endif
