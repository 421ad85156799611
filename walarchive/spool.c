#include "walarchive/spool.h"

#include "common/bytes.h"
#include "common/digest.h"
#include "common/file.h"
#include "postgres/wal_name.h"
#include "repository/host.h"
#include "repository/repository.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    RECORD_LIMIT = 1024,
    FAILURE_LIMIT = 4096,
    KEY_BYTES = 12,
    PAGE_SIZE = 8192,
    DIRECTORY_MODE = 0700,
    FILE_MODE = 0600,
};

/* The kernel's file times tick with its timer: 10 ms at most, and twice that is on the safe side.
 */
static const int64_t SETTLED_NS = 20 * 1000000;

#define OK_SUFFIX ".ok"
#define FAILED_SUFFIX ".failed"
#define TEMPORARY_SUFFIX ".tmp"
#define ABOUT_NAME "about"
#define LOCK_NAME "lock"

struct Spool {
    const World *world;
    int fd;
    char boot_id[40];
};

/* -- the directory */

static bool
spool_name(const World *world, const SpoolPlace *place, char name[NAME_MAX + 1], CairnError *err)
{
    SCOPED_BYTES ByteWriter text = {0};
    uint8_t digest[SHA256_SIZE];
    char hex[2 * KEY_BYTES + 1];
    char line[PATH_MAX + 256];
    struct stat status;

    if (world->disk->fstat(world->disk, place->pgdata_fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine the data directory");
    const int size = snprintf(
        line, sizeof line,
        "user %u\nrepository %s\ncluster %s\ndata directory %" PRIu64 ":%" PRIu64 "\n",
        (unsigned)geteuid(), place->repository->path != NULL ? place->repository->path : "",
        place->cluster, (uint64_t)status.st_dev, (uint64_t)status.st_ino);
    if (size < 0 || (size_t)size >= sizeof line)
        return cairn_error(err, CAIRN_USAGE, "the repository's path is too long");
    if (!sha256_of(line, (size_t)size, digest, err))
        return false;
    hex_encode(hex, digest, KEY_BYTES);
    snprintf(name, NAME_MAX + 1, "%.64s-%s", place->cluster, hex);
    return true;
}

/* Ours alone: who can write here can make push answer 0. */
static bool
check_owner(const World *world, int fd, const char *path, CairnError *err)
{
    struct stat status;

    if (world->disk->fstat(world->disk, fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine '%s'", path);
    if (status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        cairn_error(err, CAIRN_DENIED, "'%s' is not ours alone (owner %u, mode %o)", path,
                    (unsigned)status.st_uid, (unsigned)(status.st_mode & 07777));
        return cairn_error_hint(err, "remove it, or name another spool-path");
    }
    return true;
}

/* For whoever looks into the spool and wonders; nothing reads it. */
static void
write_about(const Spool *spool, const SpoolPlace *place)
{
    const Disk *disk = spool->world->disk;
    char text[PATH_MAX + 256];
    char link[64];
    char pgdata[PATH_MAX] = "";
    CairnError ignored = {0};
    struct stat status;

    if (disk->fstatat(disk, spool->fd, ABOUT_NAME, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", place->pgdata_fd);
    if (readlink(link, pgdata, sizeof pgdata - 1) < 0)
        pgdata[0] = '\0';
    const int size = snprintf(
        text, sizeof text, "cluster = %s\nrepository = %.2000s\npgdata = %.1900s\n", place->cluster,
        place->repository->path != NULL ? place->repository->path : "", pgdata);
    if (size > 0 &&
        !file_replace(spool->world, spool->fd, ABOUT_NAME, text, (size_t)size, FILE_MODE, &ignored))
        return;
}

static int
open_directory(const World *world, const SpoolPlace *place, CairnError *err)
{
    const Disk *disk = world->disk;
    const bool configured = place->path != NULL;
    const char *root = configured ? place->path : SPOOL_DEFAULT_PATH;
    char name[NAME_MAX + 1];

    if (configured && root[0] != '/') {
        cairn_error(err, CAIRN_USAGE, "spool-path '%s' is not absolute", root);
        return -1;
    }
    if (configured && !file_make_directories(world, AT_FDCWD, root, DIRECTORY_MODE, err))
        return -1;
    SCOPED_FD root_fd = disk->openat(disk, AT_FDCWD, root, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (root_fd < 0) {
        cairn_error_errno(err, "unable to open spool-path '%s'", root);
        return -1;
    }
    if (!spool_name(world, place, name, err))
        return -1;
    if (disk->mkdirat(disk, root_fd, name, DIRECTORY_MODE) != 0 && errno != EEXIST) {
        cairn_error_errno(err, "unable to make '%s/%s'", root, name);
        return -1;
    }
    SCOPED_FD fd =
        disk->openat(disk, root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0) {
        cairn_error_errno(err, "unable to open '%s/%s'", root, name);
        return -1;
    }
    return check_owner(world, fd, name, err) ? take_fd(&fd) : -1;
}

Spool *
spool_open(const World *world, const SpoolPlace *place, CairnError *err)
{
    Host host;
    SCOPED_FD fd = open_directory(world, place, err);

    if (fd < 0) {
        /* Nobody asked for the default one. */
        if (place->path == NULL)
            cairn_error_clear(err);
        return NULL;
    }
    host_self(&host);
    if (host.boot_id[0] == '\0') {
        cairn_error(err, CAIRN_UNSUPPORTED, "this system does not tell its boots apart");
        return NULL;
    }
    Spool *spool = calloc(1, sizeof *spool);
    if (spool == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    spool->world = world;
    spool->fd = take_fd(&fd);
    snprintf(spool->boot_id, sizeof spool->boot_id, "%s", host.boot_id);
    write_about(spool, place);
    return spool;
}

void
spool_free(Spool *spool)
{
    if (spool == NULL)
        return;
    spool->world->disk->close(spool->world->disk, spool->fd);
    free(spool);
}

/* -- files */

static int64_t
nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

bool
file_identity_read(const World *world, int fd, const char *name, FileIdentity *identity_out,
                   CairnError *err)
{
    uint8_t page[PAGE_SIZE];
    struct stat status;

    if (world->disk->fstat(world->disk, fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine '%s'", name);
    const size_t size = status.st_size < PAGE_SIZE ? (size_t)status.st_size : PAGE_SIZE;
    if (!file_pread(world, fd, page, size, 0, name, err))
        return false;
    *identity_out = (FileIdentity){
        .size = (uint64_t)status.st_size,
        .device = (uint64_t)status.st_dev,
        .inode = (uint64_t)status.st_ino,
        .modified_ns = nanoseconds(status.st_mtim),
        .changed_ns = nanoseconds(status.st_ctim),
        .page_crc = crc32c(0, page, size),
    };
    return true;
}

bool
file_identity_equal(const FileIdentity *left, const FileIdentity *right)
{
    return left->size == right->size && left->device == right->device &&
           left->inode == right->inode && left->modified_ns == right->modified_ns &&
           left->changed_ns == right->changed_ns && left->page_crc == right->page_crc;
}

int64_t
file_identity_settles_ns(const World *world, const FileIdentity *identity)
{
    const int64_t now_ns = world->clock->wall_us(world->clock) * 1000;
    const int64_t newest_ns =
        identity->changed_ns > identity->modified_ns ? identity->changed_ns : identity->modified_ns;
    const int64_t age_ns = now_ns - newest_ns;

    if (age_ns >= SETTLED_NS)
        return 0;
    /* A step back of the clock larger than a tick: who knows what later times will look like. */
    return age_ns < -SETTLED_NS ? -1 : SETTLED_NS - age_ns;
}

/* -- what is remembered */

static size_t
record_format(const Spool *spool, const SpoolClaim *claim, char text[RECORD_LIMIT])
{
    char id[2 * REPOSITORY_ID_SIZE + 1];
    char incarnation[INCARNATION_NAME_SIZE];
    const FileIdentity *file = &claim->file;

    hex_encode(id, claim->repository_id, REPOSITORY_ID_SIZE);
    incarnation_name(incarnation, claim->incarnation->system_id, claim->incarnation->major);
    const int size =
        snprintf(text, RECORD_LIMIT,
                 "durable = %.63s\n"
                 "repository = %s\n"
                 "cluster = %.64s\n"
                 "incarnation = %s\n"
                 "boot = %s\n"
                 "size = %" PRIu64 "\n"
                 "file = %" PRIu64 ":%" PRIu64 "\n"
                 "modified-ns = %" PRId64 "\n"
                 "changed-ns = %" PRId64 "\n"
                 "first-page = %08" PRIx32 "\n",
                 claim->file_name, id, claim->cluster, incarnation, spool->boot_id, file->size,
                 file->device, file->inode, file->modified_ns, file->changed_ns, file->page_crc);
    CAIRN_ASSERT(size > 0 && size < RECORD_LIMIT);
    return (size_t)size;
}

static void
entry_name(const char *file_name, const char *suffix, char name[NAME_MAX + 1])
{
    snprintf(name, NAME_MAX + 1, "%.63s%s", file_name, suffix);
}

bool
spool_remembers(const Spool *spool, const SpoolClaim *claim)
{
    char name[NAME_MAX + 1];
    char expected[RECORD_LIMIT];
    size_t size = 0;
    CairnError ignored = {0};

    entry_name(claim->file_name, OK_SUFFIX, name);
    SCOPED_MEMORY char *text =
        file_read_all(spool->world, spool->fd, name, RECORD_LIMIT, &size, &ignored);
    return text != NULL && size == record_format(spool, claim, expected) &&
           memcmp(text, expected, size) == 0;
}

bool
spool_has(const Spool *spool, const char *file_name)
{
    char name[NAME_MAX + 1];
    struct stat status;

    entry_name(file_name, OK_SUFFIX, name);
    return spool->world->disk->fstatat(spool->world->disk, spool->fd, name, &status,
                                       AT_SYMLINK_NOFOLLOW) == 0;
}

/* Whole or not at all, whoever is killed; not synced, see the header. */
static bool
put_text(const Spool *spool, const char *name, const void *text, size_t size, CairnError *err)
{
    const Disk *disk = spool->world->disk;
    char token[17];
    char temporary[NAME_MAX + 1];

    if (!random_token(spool->world, token, err))
        return false;
    snprintf(temporary, sizeof temporary, "%.80s.%s" TEMPORARY_SUFFIX, name, token);
    const int fd = disk->openat(disk, spool->fd, temporary,
                                O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    if (fd < 0)
        return cairn_error_errno(err, "unable to create '%s' in the spool", temporary);
    bool done = file_write(spool->world, fd, text, size, temporary, err);
    if (disk->close(disk, fd) != 0 && done)
        done = cairn_error_errno(err, "unable to write '%s' in the spool", temporary);
    if (done && disk->renameat(disk, spool->fd, temporary, spool->fd, name) != 0)
        done = cairn_error_errno(err, "unable to rename '%s' in the spool", temporary);
    if (!done)
        disk->unlinkat(disk, spool->fd, temporary, 0);
    return done;
}

bool
spool_remember(const Spool *spool, const SpoolClaim *claim, CairnError *err)
{
    char name[NAME_MAX + 1];
    char text[RECORD_LIMIT];

    entry_name(claim->file_name, OK_SUFFIX, name);
    return put_text(spool, name, text, record_format(spool, claim, text), err);
}

void
spool_note_failure(const Spool *spool, const char *file_name, const CairnError *failure)
{
    char name[NAME_MAX + 1];
    CairnError ignored = {0};

    entry_name(file_name, FAILED_SUFFIX, name);
    if (!put_text(spool, name, failure->message, strlen(failure->message), &ignored))
        return;
}

void
spool_take_failure(const Spool *spool, const char *file_name, char *text, size_t size)
{
    const Disk *disk = spool->world->disk;
    char name[NAME_MAX + 1];
    size_t found = 0;
    CairnError ignored = {0};

    text[0] = '\0';
    entry_name(file_name, FAILED_SUFFIX, name);
    SCOPED_MEMORY char *message =
        file_read_all(spool->world, spool->fd, name, FAILURE_LIMIT, &found, &ignored);
    if (message == NULL)
        return;
    disk->unlinkat(disk, spool->fd, name, 0);
    snprintf(text, size, "%s", message);
    for (char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ')
            *c = ' ';
    }
}

/* The WAL file that an entry is about; false for the spool's own files. */
static bool
entry_about(const char *entry, char file_name[WAL_FILE_NAME_LIMIT])
{
    static const char *const SUFFIXES[] = {OK_SUFFIX, FAILED_SUFFIX};
    const size_t size = strlen(entry);

    for (size_t i = 0; i < sizeof SUFFIXES / sizeof SUFFIXES[0]; i++) {
        const size_t suffix = strlen(SUFFIXES[i]);
        if (size > suffix && size - suffix < WAL_FILE_NAME_LIMIT &&
            strcmp(entry + size - suffix, SUFFIXES[i]) == 0) {
            snprintf(file_name, WAL_FILE_NAME_LIMIT, "%.*s", (int)(size - suffix), entry);
            return true;
        }
    }
    return false;
}

static bool
is_leftover(const Spool *spool, const char *entry)
{
    const size_t suffix = strlen(TEMPORARY_SUFFIX);
    const size_t size = strlen(entry);
    const int64_t hour_ns = INT64_C(3600) * 1000000000;
    struct stat status;

    return size > suffix && strcmp(entry + size - suffix, TEMPORARY_SUFFIX) == 0 &&
           spool->world->disk->fstatat(spool->world->disk, spool->fd, entry, &status,
                                       AT_SYMLINK_NOFOLLOW) == 0 &&
           nanoseconds(status.st_mtim) <
               spool->world->clock->wall_us(spool->world->clock) * 1000 - hour_ns;
}

void
spool_sweep(const Spool *spool, SpoolKeep *keep, void *context)
{
    const Disk *disk = spool->world->disk;
    const int fd = disk->openat(disk, spool->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *directory = fd >= 0 ? disk->opendir(disk, fd) : NULL;
    char file_name[WAL_FILE_NAME_LIMIT];
    const struct dirent *entry;

    if (directory == NULL) {
        if (fd >= 0)
            disk->close(disk, fd);
        return;
    }
    while ((entry = disk->readdir(disk, directory)) != NULL) {
        const bool goes = entry_about(entry->d_name, file_name) ? !keep(context, file_name)
                                                                : is_leftover(spool, entry->d_name);
        if (goes)
            disk->unlinkat(disk, spool->fd, entry->d_name, 0);
    }
    disk->closedir(disk, directory);
}

/* -- locks: the kernel's, about running processes, so they do not go through the World */

/* FNV-1a, kept positive and off byte 0. Two names that collide wait for each other, no more. */
static int64_t
name_offset(const char *file_name)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    if (file_name == NULL)
        return 0;
    for (const char *c = file_name; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
    return (int64_t)(hash >> 2) + 1;
}

bool
spool_lock_try(const Spool *spool, const char *file_name, SpoolLock *lock_out, CairnError *err)
{
    SCOPED_FD fd =
        openat(spool->fd, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};

    if (fd < 0)
        return cairn_error_errno(err, "unable to open the spool's lock");
    range.l_start = name_offset(file_name);
    if (fcntl(fd, F_OFD_SETLK, &range) != 0) {
        if (errno != EAGAIN && errno != EACCES)
            cairn_error_errno(err, "unable to take the spool's lock");
        return false;
    }
    *lock_out = (SpoolLock){.fd = take_fd(&fd), .offset = range.l_start};
    return true;
}

/* Closing the only descriptor of its open file description ends the lock. */
void
spool_unlock(SpoolLock *lock)
{
    if (lock->fd >= 0)
        close(lock->fd);
    lock->fd = -1;
}
