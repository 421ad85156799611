#include "tests/unit/support/fault_disk.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

static const Disk *
real_disk(void)
{
    return world_real()->disk;
}

static FaultDisk *
fault_of(const Disk *disk)
{
    /* The interface is const for its users; the tests' counters are behind it. */
    return (FaultDisk *)(uintptr_t)disk;
}

/* Counts and records a call; the fault that strikes it, or NULL. */
static const Fault *
strike(const Disk *disk, FaultKind kind)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    FaultDisk *fault = fault_of(disk);
    pthread_mutex_lock(&lock);
    if (fault->log_size < FAULT_LOG_LIMIT)
        fault->log[fault->log_size++] = kind;
    const unsigned call = ++fault->calls[kind];
    pthread_mutex_unlock(&lock);
    const Fault *armed = &fault->fail[kind];
    const bool hit = armed->at_call == call || (armed->for_good && armed->at_call < call);
    return armed->at_call != 0 && hit ? armed : NULL;
}

/* For calls whose result is an int: `call` runs unless the fault comes before it. */
#define WITH_FAULT(disk, kind, call)                                                               \
    do {                                                                                           \
        const Fault *struck = strike(disk, kind);                                                  \
        if (struck == NULL)                                                                        \
            return call;                                                                           \
        if (struck->after)                                                                         \
            (void)call;                                                                            \
        errno = struck->error;                                                                     \
        return -1;                                                                                 \
    } while (0)

static int
fault_openat(const Disk *disk, int dirfd, const char *path, int flags, mode_t mode)
{
    WITH_FAULT(disk, FAULT_OPEN, real_disk()->openat(real_disk(), dirfd, path, flags, mode));
}

static int
fault_openat_beneath(const Disk *disk, int dirfd, const char *path, int flags, mode_t mode)
{
    WITH_FAULT(disk, FAULT_OPEN,
               real_disk()->openat_beneath(real_disk(), dirfd, path, flags, mode));
}

static int
fault_close(const Disk *disk, int fd)
{
    const Fault *struck = strike(disk, FAULT_CLOSE);
    const int result = real_disk()->close(real_disk(), fd); /* Linux frees it in any case */
    if (struck == NULL)
        return result;
    errno = struck->error;
    return -1;
}

/* How much of size moves this time; 0: not now, errno is EINTR. */
static size_t
transfer_size(const Disk *disk, size_t size)
{
    FaultDisk *fault = fault_of(disk);
    if (fault->interrupt) {
        fault->interrupted = !fault->interrupted;
        if (fault->interrupted) {
            errno = EINTR;
            return 0;
        }
    }
    return fault->transfer_limit > 0 && size > fault->transfer_limit ? fault->transfer_limit : size;
}

/* For transfers: short, interrupted or failed. */
#define TRANSFER(disk, kind, size, call)                                                           \
    do {                                                                                           \
        const Fault *struck = strike(disk, kind);                                                  \
        if (struck != NULL) {                                                                      \
            errno = struck->error;                                                                 \
            return -1;                                                                             \
        }                                                                                          \
        size = transfer_size(disk, size);                                                          \
        return size == 0 ? -1 : call;                                                              \
    } while (0)

static ssize_t
fault_read(const Disk *disk, int fd, void *data, size_t size)
{
    TRANSFER(disk, FAULT_READ, size, real_disk()->read(real_disk(), fd, data, size));
}

static ssize_t
fault_pread(const Disk *disk, int fd, void *data, size_t size, off_t offset)
{
    TRANSFER(disk, FAULT_READ, size, real_disk()->pread(real_disk(), fd, data, size, offset));
}

static ssize_t
fault_write(const Disk *disk, int fd, const void *data, size_t size)
{
    TRANSFER(disk, FAULT_WRITE, size, real_disk()->write(real_disk(), fd, data, size));
}

static ssize_t
fault_pwrite(const Disk *disk, int fd, const void *data, size_t size, off_t offset)
{
    TRANSFER(disk, FAULT_WRITE, size, real_disk()->pwrite(real_disk(), fd, data, size, offset));
}

static int
fault_fsync(const Disk *disk, int fd)
{
    struct stat status;
    const bool directory = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
    const bool pretend = fault_of(disk)->pretend_sync;
    WITH_FAULT(disk, directory ? FAULT_FSYNC_DIRECTORY : FAULT_FSYNC,
               (pretend ? 0 : real_disk()->fsync(real_disk(), fd)));
}

static int
fault_start_writeback(const Disk *disk, int fd, off_t offset, off_t size)
{
    WITH_FAULT(disk, FAULT_WRITEBACK, real_disk()->start_writeback(real_disk(), fd, offset, size));
}

static int
fault_fstat(const Disk *disk, int fd, struct stat *status)
{
    WITH_FAULT(disk, FAULT_FSTAT, real_disk()->fstat(real_disk(), fd, status));
}

static int
fault_fstatat(const Disk *disk, int dirfd, const char *path, struct stat *status, int flags)
{
    WITH_FAULT(disk, FAULT_FSTAT, real_disk()->fstatat(real_disk(), dirfd, path, status, flags));
}

static int
fault_fchmod(const Disk *disk, int fd, mode_t mode)
{
    WITH_FAULT(disk, FAULT_FCHMOD, real_disk()->fchmod(real_disk(), fd, mode));
}

static int
fault_mkdirat(const Disk *disk, int dirfd, const char *path, mode_t mode)
{
    WITH_FAULT(disk, FAULT_MKDIR, real_disk()->mkdirat(real_disk(), dirfd, path, mode));
}

static int
fault_linkat(const Disk *disk, int fromfd, const char *from, int tofd, const char *to)
{
    WITH_FAULT(disk, FAULT_LINK, real_disk()->linkat(real_disk(), fromfd, from, tofd, to));
}

static int
fault_unlinkat(const Disk *disk, int dirfd, const char *path, int flags)
{
    WITH_FAULT(disk, FAULT_UNLINK, real_disk()->unlinkat(real_disk(), dirfd, path, flags));
}

static int
fault_renameat(const Disk *disk, int fromfd, const char *from, int tofd, const char *to)
{
    WITH_FAULT(disk, FAULT_RENAME, real_disk()->renameat(real_disk(), fromfd, from, tofd, to));
}

static struct dirent *
fault_readdir(const Disk *disk, DIR *dir)
{
    const Fault *struck = strike(disk, FAULT_READDIR);
    if (struck == NULL)
        return real_disk()->readdir(real_disk(), dir);
    errno = struck->error;
    return NULL;
}

void
fault_disk_init(FaultDisk *fault)
{
    memset(fault, 0, sizeof *fault);
    fault->disk = *real_disk(); /* what has no faults of its own goes straight through */
    fault->disk.openat = fault_openat;
    fault->disk.openat_beneath = fault_openat_beneath;
    fault->disk.close = fault_close;
    fault->disk.read = fault_read;
    fault->disk.pread = fault_pread;
    fault->disk.write = fault_write;
    fault->disk.pwrite = fault_pwrite;
    fault->disk.fsync = fault_fsync;
    fault->disk.start_writeback = fault_start_writeback;
    fault->disk.fstat = fault_fstat;
    fault->disk.fstatat = fault_fstatat;
    fault->disk.fchmod = fault_fchmod;
    fault->disk.mkdirat = fault_mkdirat;
    fault->disk.linkat = fault_linkat;
    fault->disk.unlinkat = fault_unlinkat;
    fault->disk.renameat = fault_renameat;
    fault->disk.readdir = fault_readdir;
    fault->world = *world_real();
    fault->world.disk = &fault->disk;
}

void
fault_disk_reset(FaultDisk *fault)
{
    memset(fault->fail, 0, sizeof fault->fail);
    memset(fault->calls, 0, sizeof fault->calls);
    fault->transfer_limit = 0;
    fault->interrupt = false;
    fault->log_size = 0;
}

bool
fault_disk_order(const FaultDisk *fault, FaultKind first, FaultKind then)
{
    bool first_seen = false;
    size_t then_at = fault->log_size;
    for (size_t i = fault->log_size; i-- > 0;) {
        if (fault->log[i] == then)
            then_at = i;
    }
    for (size_t i = 0; i < fault->log_size; i++) {
        if (fault->log[i] != first)
            continue;
        if (i > then_at)
            return false;
        first_seen = true;
    }
    return first_seen && then_at < fault->log_size;
}
