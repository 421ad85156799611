#include "common/secret_intern.h"

#include "common/file.h"
#include "common/libcrypto.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

Secret *
secret_new(size_t size, CairnError *err)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t mapped_bytes = (sizeof(Secret) + size + 1 + page - 1) / page * page;
    void *pages =
        mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    /* Both are what can be had: an old kernel or a low limit must not keep anybody from a restore.
     */
    madvise(pages, mapped_bytes, MADV_DONTDUMP);
    (void)!mlock(pages, mapped_bytes);
    Secret *secret = pages;
    *secret = (Secret){
        .data = (uint8_t *)pages + sizeof(Secret), .size = size, .mapped_bytes = mapped_bytes};
    return secret;
}

void
secret_free(Secret *secret)
{
    if (secret == NULL)
        return;
    const size_t mapped_bytes = secret->mapped_bytes;
    OPENSSL_cleanse(secret, mapped_bytes);
    munmap(secret, mapped_bytes);
}

void
secret_protect_process(void)
{
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* The rule of the header, of an open file. */
static bool
check_status(const struct stat *status, const char *path, CairnError *err)
{
    if (!S_ISREG(status->st_mode))
        return cairn_error(err, CAIRN_DENIED, "'%s' is not a regular file", path);
    if (status->st_uid != 0 && status->st_uid != geteuid() && geteuid() != 0) {
        cairn_error(err, CAIRN_DENIED, "'%s' belongs to user %u, who can read and change it", path,
                    (unsigned)status->st_uid);
        return cairn_error_hint(err, "chown %u '%s'", (unsigned)geteuid(), path);
    }
    const mode_t mode = status->st_mode & 07777;
    const bool group_may_read = status->st_uid == 0;
    const mode_t too_much = group_may_read ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO;
    if ((mode & too_much) == 0)
        return true;
    cairn_error(err, CAIRN_DENIED, "'%s' holds a secret and is open to others (mode %04o)", path,
                (unsigned)mode);
    if (group_may_read && status->st_gid != 0 && (mode & S_IRGRP) != 0)
        return cairn_error_hint(err, "chmod 640 '%s'", path);
    return cairn_error_hint(err, "chmod 600 '%s'", path);
}

/* Secrets that an orchestrator mounts are links. Whose link it is says who chose the file; what the
   file itself is like is checked of what was opened, so turning the link gains nobody anything. */
static bool
check_link(const World *world, const char *path, CairnError *err)
{
    struct stat link;
    if (world->disk->fstatat(world->disk, AT_FDCWD, path, &link, AT_SYMLINK_NOFOLLOW) != 0)
        return cairn_error_errno(err, "unable to examine '%s'", path);
    if (link.st_uid == 0 || link.st_uid == geteuid())
        return true;
    cairn_error(err, CAIRN_DENIED, "'%s' is a symbolic link of user %u, who can turn it", path,
                (unsigned)link.st_uid);
    return cairn_error_hint(err, "name the file itself, or: chown -h %u '%s'", (unsigned)geteuid(),
                            path);
}

/* -1 on failure. */
static int
open_checked(const World *world, const char *path, struct stat *status, CairnError *err)
{
    const Disk *disk = world->disk;
    /* O_NONBLOCK, so that a FIFO in its place cannot hang us before it is refused. */
    const int flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC;
    int fd = disk->openat(disk, AT_FDCWD, path, flags | O_NOFOLLOW, 0);
    if (fd < 0 && errno == ELOOP) {
        if (!check_link(world, path, err))
            return -1;
        fd = disk->openat(disk, AT_FDCWD, path, flags, 0);
    }
    if (fd < 0) {
        cairn_error_errno(err, "unable to open '%s'", path);
        return -1;
    }
    bool fine = disk->fstat(disk, fd, status) == 0;
    if (!fine)
        cairn_error_errno(err, "unable to examine '%s'", path);
    fine = fine && check_status(status, path, err);
    if (fine)
        return fd;
    disk->close(disk, fd);
    return -1;
}

bool
secret_file_check(const World *world, const char *path, CairnError *err)
{
    struct stat status;
    const int fd = open_checked(world, path, &status, err);
    if (fd < 0)
        return false;
    world->disk->close(world->disk, fd);
    return true;
}

static Secret *
read_opened(const World *world, int fd, const char *path, size_t limit, CairnError *err)
{
    SCOPED(Secret) secret = secret_new(limit, err);
    size_t size = 0;
    if (secret == NULL || !file_read(world, fd, secret->data, limit, &size, path, err))
        return NULL;
    if (size == limit) {
        cairn_error(err, CAIRN_USAGE, "'%s' is larger than %zu bytes: not what it should be", path,
                    limit - 1);
        return NULL;
    }
    secret->size = size;
    if (size == 0) {
        cairn_error(err, CAIRN_USAGE, "'%s' is empty", path);
        return NULL;
    }
    return take(&secret);
}

Secret *
secret_read_file(const World *world, const char *path, size_t limit, CairnError *err)
{
    struct stat status;
    const int fd = open_checked(world, path, &status, err);
    if (fd < 0)
        return NULL;
    Secret *secret = read_opened(world, fd, path, limit, err);
    world->disk->close(world->disk, fd);
    return secret;
}

bool
secret_trim_line(Secret *secret, const char *from, CairnError *err)
{
    if (secret->size > 0 && secret->data[secret->size - 1] == '\n')
        secret->size--;
    if (secret->size > 0 && secret->data[secret->size - 1] == '\r')
        secret->size--;
    secret->data[secret->size] = '\0';
    if (secret->size == 0)
        return cairn_error(err, CAIRN_USAGE, "%s gives an empty passphrase", from);
    if (memchr(secret->data, '\n', secret->size) != NULL ||
        memchr(secret->data, '\0', secret->size) != NULL)
        return cairn_error(err, CAIRN_USAGE, "%s gives more than one line; a passphrase is one",
                           from);
    return true;
}

Secret *
secret_read_line(const World *world, const char *path, CairnError *err)
{
    SCOPED(Secret) secret = secret_read_file(world, path, SECRET_TEXT_LIMIT, err);
    return secret != NULL && secret_trim_line(secret, path, err) ? take(&secret) : NULL;
}
