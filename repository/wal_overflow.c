#include "repository/wal_overflow_intern.h"

#include "common/bytes.h"
#include "common/cancel.h"
#include "common/file.h"
#include "storage/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { DIRECTORY_MODE = 0700, KEY_BYTES = 12 };

/* -- the directory */

bool
wal_overflow_directory(const WalOverflowPlace *place, char below[WAL_OVERFLOW_DIRECTORY_SIZE],
                       CairnError *err)
{
    char repository[STORAGE_PLACE_TEXT_SIZE];
    char line[STORAGE_PLACE_TEXT_SIZE + 128];
    char hex[2 * KEY_BYTES + 1];
    char incarnation[INCARNATION_NAME_SIZE];
    uint8_t digest[SHA256_SIZE];

    if (place->path[0] != '/')
        return cairn_error(err, CAIRN_USAGE, "overflow-path '%s' is not absolute", place->path);
    storage_place_text(place->repository, repository);
    const int size =
        snprintf(line, sizeof line, "repository %s\ncluster %s\n", repository, place->cluster);
    if (size < 0 || (size_t)size >= sizeof line)
        return cairn_error(err, CAIRN_USAGE, "the repository's path is too long");
    if (!sha256_of(line, (size_t)size, digest, err))
        return false;
    hex_encode(hex, digest, KEY_BYTES);
    incarnation_name(incarnation, place->system_id, place->major);
    if (snprintf(below, WAL_OVERFLOW_DIRECTORY_SIZE, "%.64s-%s/%s", place->cluster, hex,
                 incarnation) >= WAL_OVERFLOW_DIRECTORY_SIZE)
        return cairn_error(err, CAIRN_USAGE, "the cluster's name is too long");
    return true;
}

/*
 * Never made by us, and never taken for empty when it is not there: what looks like that is a disk
 * that is not mounted, with the WAL that waits on it.
 */
static int
open_base(const World *world, const char *path, CairnError *err)
{
    const int fd =
        world->disk->openat(world->disk, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

    if (fd >= 0)
        return fd;
    if (errno == ENOENT)
        cairn_error(err, CAIRN_UNAVAILABLE, "overflow-path '%s' does not exist", path);
    else
        cairn_error_errno(err, "unable to open overflow-path '%s'", path);
    cairn_error_hint(err, "mount what belongs there, or make the directory as the server's user; "
                          "it is never made by itself");
    return -1;
}

WalOverflow *
wal_overflow_open(const World *world, const WalOverflowPlace *place, bool create, CairnError *err)
{
    const Disk *disk = world->disk;
    char path[WAL_OVERFLOW_DIRECTORY_SIZE];
    struct stat status;

    if (!wal_overflow_directory(place, path, err))
        return NULL;
    SCOPED_FD base = open_base(world, place->path, err);
    if (base < 0 || (create && !file_make_directories(world, base, path, DIRECTORY_MODE, err)))
        return NULL;
    SCOPED_FD fd =
        disk->openat(disk, base, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0 || disk->fstat(disk, fd, &status) != 0) {
        cairn_error_errno(err, "unable to open '%s/%s'", place->path, path);
        return NULL;
    }
    /* Root may look and ship for the server's user. */
    if ((status.st_uid != geteuid() && geteuid() != 0) ||
        (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        cairn_error(err, CAIRN_DENIED, "'%s/%s' is not ours alone (owner %u, mode %o)", place->path,
                    path, (unsigned)status.st_uid, (unsigned)(status.st_mode & 07777));
        return NULL;
    }
    WalOverflow *overflow = calloc(1, sizeof *overflow);
    if (overflow == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    overflow->world = world;
    overflow->fd = take_fd(&fd);
    return overflow;
}

void
wal_overflow_close(WalOverflow *overflow)
{
    if (overflow == NULL)
        return;
    overflow->world->disk->close(overflow->world->disk, overflow->fd);
    free(overflow);
}

/* -- one file */

int
wal_overflow_open_file(const WalOverflow *overflow, const char *name, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    const int fd =
        disk->openat(disk, overflow->fd, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, 0);

    if (fd < 0)
        cairn_error_errno(err, "unable to open '%s' in overflow-path", name);
    return fd;
}

bool
wal_overflow_copy(WalOverflow *overflow, int from, int to, const char *name,
                  char hex_out[WAL_OVERFLOW_HEX_SIZE], CairnError *err)
{
    SCOPED(Sha256) sha = sha256_new(err);
    uint8_t digest[SHA256_SIZE];
    struct stat status;

    if (sha == NULL)
        return false;
    if (overflow->world->disk->fstat(overflow->world->disk, from, &status) != 0)
        return cairn_error_errno(err, "unable to examine '%s'", name);
    if (!S_ISREG(status.st_mode))
        return cairn_error(err, CAIRN_CORRUPT, "'%s' is not a regular file", name);
    for (uint64_t at = 0; at < (uint64_t)status.st_size;) {
        const uint64_t left = (uint64_t)status.st_size - at;
        const size_t size = left < WAL_OVERFLOW_CHUNK_SIZE ? (size_t)left : WAL_OVERFLOW_CHUNK_SIZE;
        if (!cancel_check(err) ||
            !file_pread(overflow->world, from, overflow->chunk, size, at, name, err) ||
            !sha256_update(sha, overflow->chunk, size, err) ||
            (to >= 0 && !file_pwrite(overflow->world, to, overflow->chunk, size, at, name, err)))
            return false;
        at += size;
    }
    if (!sha256_finish(sha, digest, err))
        return false;
    hex_encode(hex_out, digest, SHA256_SIZE);
    return true;
}

void
wal_overflow_digest_name(char name[WAL_OVERFLOW_DIGEST_NAME_SIZE], const char *file_name)
{
    snprintf(name, WAL_OVERFLOW_DIGEST_NAME_SIZE, "%.63s" WAL_OVERFLOW_DIGEST_SUFFIX, file_name);
}

void
wal_overflow_digest_line(char line[WAL_OVERFLOW_LINE_SIZE], const char *hex, const char *file_name)
{
    snprintf(line, WAL_OVERFLOW_LINE_SIZE, "%s  %.63s\n", hex, file_name);
}

/* err is NOT_FOUND of its digest: that goes after the file, so is it gone, or is it damaged? */
static bool
judge_missing_digest(const WalOverflow *overflow, const char *file_name, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    struct stat status;

    if (disk->fstatat(disk, overflow->fd, file_name, &status, AT_SYMLINK_NOFOLLOW) != 0 &&
        errno == ENOENT)
        return false;
    cairn_error_clear(err);
    cairn_error(err, CAIRN_CORRUPT,
                "'%s' in overflow-path has no '%s" WAL_OVERFLOW_DIGEST_SUFFIX "' beside it",
                file_name, file_name);
    return cairn_error_hint(err, "compare it with the server's, and make the digest again with "
                                 "sha256sum; what comes after it waits until then");
}

bool
wal_overflow_copy_verified(WalOverflow *overflow, int from, int to, const char *file_name,
                           CairnError *err)
{
    char hex[WAL_OVERFLOW_HEX_SIZE];
    char expected[WAL_OVERFLOW_LINE_SIZE];
    char name[WAL_OVERFLOW_DIGEST_NAME_SIZE];
    size_t size = 0;

    wal_overflow_digest_name(name, file_name);
    SCOPED_MEMORY char *line =
        file_read_all(overflow->world, overflow->fd, name, WAL_OVERFLOW_LINE_SIZE, &size, err);
    if (line == NULL)
        return err->kind == CAIRN_NOT_FOUND && judge_missing_digest(overflow, file_name, err);
    if (!wal_overflow_copy(overflow, from, to, file_name, hex, err))
        return false;
    wal_overflow_digest_line(expected, hex, file_name);
    if (strcmp(line, expected) != 0)
        return cairn_error(err, CAIRN_CORRUPT, "'%s' in overflow-path does not agree with '%s'",
                           file_name, name);
    return true;
}

bool
wal_overflow_fetch(WalOverflow *overflow, const char *file_name, int fd, CairnError *err)
{
    SCOPED_FD from = wal_overflow_open_file(overflow, file_name, err);

    return from >= 0 && wal_overflow_copy_verified(overflow, from, fd, file_name, err);
}
