#include "repository/wal_overflow.h"

#include "common/bytes.h"
#include "common/cancel.h"
#include "common/digest.h"
#include "common/file.h"
#include "postgres/timeline.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

/*
 * Invariants
 * 1. <name> appears by link, after its bytes and <name>.sha256 are durable.
 * 2. <name> goes only after the same bytes are durable in the repository.
 */

#define DIGEST_SUFFIX ".sha256"
#define TEMPORARY_SUFFIX ".tmp"

enum {
    DIRECTORY_MODE = 0700,
    FILE_MODE = 0600,
    KEY_BYTES = 12,
    DIGEST_DIGITS = 2 * SHA256_SIZE,
    DIGEST_FILE_LIMIT = 256,
    CHUNK_SIZE = 128 << 10,
};

/* A temporary file, or a digest without its file, that no running put can own any more. */
static const int64_t LEFTOVER_AGE_US = INT64_C(3600) * 1000000;

struct WalOverflow {
    const World *world;
    int fd;
    uint8_t chunk[CHUNK_SIZE];
};

/* -- the directory */

bool
wal_overflow_directory(const WalOverflowPlace *place, char below[WAL_OVERFLOW_DIRECTORY_SIZE],
                       CairnError *err)
{
    char line[PATH_MAX + 128];
    char hex[2 * KEY_BYTES + 1];
    char incarnation[INCARNATION_NAME_SIZE];
    uint8_t digest[SHA256_SIZE];

    if (place->path[0] != '/')
        return cairn_error(err, CAIRN_USAGE, "overflow-path '%s' is not absolute", place->path);
    const int size =
        snprintf(line, sizeof line, "repository %s\ncluster %s\n",
                 place->repository->path != NULL ? place->repository->path : "", place->cluster);
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

static int
open_file(const WalOverflow *overflow, const char *name, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    const int fd =
        disk->openat(disk, overflow->fd, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, 0);

    if (fd < 0)
        cairn_error_errno(err, "unable to open '%s' in overflow-path", name);
    return fd;
}

/* Reads from (from its beginning), digests, and writes to `to` unless that is -1. */
static bool
copy_file(WalOverflow *overflow, int from, int to, const char *name,
          char hex_out[DIGEST_DIGITS + 1], CairnError *err)
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
        const size_t size = left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE;
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

static void
digest_line(char line[DIGEST_FILE_LIMIT], const char *hex, const char *file_name)
{
    snprintf(line, DIGEST_FILE_LIMIT, "%s  %.63s\n", hex, file_name);
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
    cairn_error(err, CAIRN_CORRUPT, "'%s' in overflow-path has no '%s" DIGEST_SUFFIX "' beside it",
                file_name, file_name);
    return cairn_error_hint(err, "compare it with the server's, and make the digest again with "
                                 "sha256sum; what comes after it waits until then");
}

/* Copies to `to` (or only reads, -1) and compares with the digest beside it. NOT_FOUND: both are
   gone. */
static bool
copy_verified(WalOverflow *overflow, int from, int to, const char *file_name, CairnError *err)
{
    char hex[DIGEST_DIGITS + 1];
    char expected[DIGEST_FILE_LIMIT];
    char name[WAL_FILE_NAME_LIMIT + sizeof DIGEST_SUFFIX];
    size_t size = 0;

    snprintf(name, sizeof name, "%.63s" DIGEST_SUFFIX, file_name);
    SCOPED_MEMORY char *line =
        file_read_all(overflow->world, overflow->fd, name, DIGEST_FILE_LIMIT, &size, err);
    if (line == NULL)
        return err->kind == CAIRN_NOT_FOUND && judge_missing_digest(overflow, file_name, err);
    if (!copy_file(overflow, from, to, file_name, hex, err))
        return false;
    digest_line(expected, hex, file_name);
    if (strcmp(line, expected) != 0)
        return cairn_error(err, CAIRN_CORRUPT, "'%s' in overflow-path does not agree with '%s'",
                           file_name, name);
    return true;
}

/* -- putting */

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
    char theirs[DIGEST_DIGITS + 1];
    SCOPED_FD fd = open_file(overflow, file_name, err);

    if (fd < 0 || !copy_file(overflow, fd, -1, file_name, theirs, err))
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
    char digest_name[WAL_FILE_NAME_LIMIT + sizeof DIGEST_SUFFIX];
    char temporary[WAL_FILE_NAME_LIMIT + 32];
    char temporary_digest[WAL_FILE_NAME_LIMIT + 48];
    char hex[DIGEST_DIGITS + 1];
    char line[DIGEST_FILE_LIMIT];
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
                                               DIGEST_FILE_LIMIT, &size, err);

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
    const int fd = disk->openat(disk, overflow->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *directory = fd >= 0 ? disk->opendir(disk, fd) : NULL;
    const struct dirent *entry;
    struct stat status;

    if (directory == NULL) {
        if (fd >= 0)
            disk->close(disk, fd);
        return;
    }
    while ((entry = disk->readdir(disk, directory)) != NULL) {
        const size_t size = strlen(entry->d_name);
        if (entry->d_name[0] == '.' && size > strlen(TEMPORARY_SUFFIX) &&
            strcmp(entry->d_name + size - strlen(TEMPORARY_SUFFIX), TEMPORARY_SUFFIX) == 0 &&
            disk->fstatat(disk, overflow->fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(status.st_mode) && is_old(overflow, &status))
            disk->unlinkat(disk, overflow->fd, entry->d_name, 0);
    }
    disk->closedir(disk, directory);
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

    if (copy < 0 || !copy_file(overflow, from, copy, entry->file_name, entry->hex, err) ||
        !file_sync_close(world, take_fd(&copy), entry->temporary, err))
        return false;
    digest_line(entry->line, entry->hex, entry->file_name);
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
    snprintf(entry.digest_name, sizeof entry.digest_name, "%.63s" DIGEST_SUFFIX, file_name);
    snprintf(entry.temporary, sizeof entry.temporary, ".%.63s.%s" TEMPORARY_SUFFIX, file_name,
             token);
    snprintf(entry.temporary_digest, sizeof entry.temporary_digest,
             ".%.63s" DIGEST_SUFFIX ".%s" TEMPORARY_SUFFIX, file_name, token);
    const bool done = prepare(overflow, &entry, fd, err) && publish(overflow, &entry, err);
    disk->unlinkat(disk, overflow->fd, entry.temporary, 0);
    disk->unlinkat(disk, overflow->fd, entry.temporary_digest, 0);
    return done;
}

bool
wal_overflow_fetch(WalOverflow *overflow, const char *file_name, int fd, CairnError *err)
{
    SCOPED_FD from = open_file(overflow, file_name, err);

    return from >= 0 && copy_verified(overflow, from, fd, file_name, err);
}

/* -- listing */

static bool
is_history(const char *name)
{
    enum { TIMELINE_DIGITS = 8 };
    return strcmp(name + strnlen(name, TIMELINE_DIGITS), ".history") == 0;
}

static bool
comes_before(const char *left, const char *right)
{
    if (is_history(left) != is_history(right))
        return is_history(left);
    return strcmp(left, right) < 0;
}

static void
keep_first(WalOverflowList *list, const char *name)
{
    if (list->count == WAL_OVERFLOW_LIMIT) {
        if (!comes_before(name, list->names[WAL_OVERFLOW_LIMIT - 1]))
            return;
        list->count--;
    }
    size_t at = list->count++;
    for (; at > 0 && comes_before(name, list->names[at - 1]); at--)
        memcpy(list->names[at], list->names[at - 1], sizeof list->names[at]);
    snprintf(list->names[at], sizeof list->names[at], "%s", name);
}

typedef void EntryVisitor(void *context, const char *name, const struct stat *status);

/* Every WAL file; what else lies there is passed over. */
static bool
visit(WalOverflow *overflow, EntryVisitor *visitor, void *context, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    const int fd = disk->openat(disk, overflow->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *directory = fd >= 0 ? disk->opendir(disk, fd) : NULL;
    const struct dirent *entry;
    struct stat status;
    WalFileName file;

    if (directory == NULL) {
        cairn_error_errno(err, "unable to list overflow-path");
        if (fd >= 0)
            disk->close(disk, fd);
        return false;
    }
    errno = 0;
    while ((entry = disk->readdir(disk, directory)) != NULL) {
        CairnError ignored = {0};
        if (strlen(entry->d_name) < WAL_FILE_NAME_LIMIT &&
            wal_file_name_parse(entry->d_name, &file, &ignored) &&
            disk->fstatat(disk, overflow->fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            visitor(context, entry->d_name, &status);
        errno = 0;
    }
    const bool complete = errno == 0 || cairn_error_errno(err, "unable to list overflow-path");
    disk->closedir(disk, directory);
    return complete;
}

static void
list_entry(void *context, const char *name, const struct stat *status)
{
    WalOverflowList *list = context;
    const int64_t at_us =
        (int64_t)status->st_ctim.tv_sec * 1000000 + status->st_ctim.tv_nsec / 1000;

    list->total++;
    list->bytes += (uint64_t)status->st_size;
    if (list->oldest_us == 0 || at_us < list->oldest_us)
        list->oldest_us = at_us;
    keep_first(list, name);
}

bool
wal_overflow_list(WalOverflow *overflow, WalOverflowList *list_out, CairnError *err)
{
    memset(list_out, 0, sizeof *list_out);
    return visit(overflow, list_entry, list_out, err);
}

typedef struct {
    WalOverflow *overflow;
    const char *file_name;
    uint32_t timeline;
    uint64_t segment;
    uint32_t segment_size;
    bool found;
    CairnError *err; /* of a history that waits and cannot be read */
} LaterSearch;

/* Does the history say that its timeline left the segment's one in a later segment? */
static bool
forks_later(LaterSearch *search, const char *name, uint32_t timeline, CairnError *err)
{
    size_t size = 0;
    SCOPED_FD fd = open_file(search->overflow, name, err);
    SCOPED_MEMORY TimelineHistory *history = malloc(sizeof *history);

    if (fd < 0 || !copy_verified(search->overflow, fd, -1, name, err))
        return false;
    SCOPED_MEMORY char *text = file_read_all(search->overflow->world, search->overflow->fd, name,
                                             TIMELINE_HISTORY_FILE_LIMIT, &size, err);
    if (history == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (text == NULL || !timeline_history_parse(timeline, text, size, history, err))
        return false;
    for (size_t i = 0; i + 1 < history->stretch_count; i++) {
        const TimelineStretch *stretch = &history->stretches[i];
        if (stretch->timeline == search->timeline &&
            wal_segment_of(stretch->end_lsn, search->segment_size) > search->segment)
            return true;
    }
    return false;
}

static void
look_for_later(void *context, const char *name, const struct stat *status)
{
    enum { TIMELINE_DIGITS = 8, SEGMENT_DIGITS = 24 };
    LaterSearch *search = context;
    CairnError err = {0};
    WalFileName file;

    (void)status;
    if (search->found)
        return;
    if (strlen(name) >= SEGMENT_DIGITS) {
        search->found = strncmp(name, search->file_name, TIMELINE_DIGITS) == 0 &&
                        strncmp(name, search->file_name, SEGMENT_DIGITS) > 0;
        return;
    }
    if (!wal_file_name_parse(name, &file, &err) || file.kind != WAL_FILE_HISTORY ||
        file.timeline <= search->timeline)
        return;
    search->found = forks_later(search, name, file.timeline, &err);
    /* One that was shipped meanwhile is the repository's to tell of. */
    if (err.kind != CAIRN_OK && err.kind != CAIRN_NOT_FOUND && search->err->kind == CAIRN_OK)
        *search->err = err;
}

bool
wal_overflow_has_later(WalOverflow *overflow, uint32_t segment_size, const char *file_name,
                       bool *found_out, CairnError *err)
{
    CairnError trouble = {0};
    LaterSearch search = {.overflow = overflow,
                          .file_name = file_name,
                          .segment_size = segment_size,
                          .err = &trouble};

    *found_out = false;
    if (!wal_segment_parse(file_name, segment_size, &search.timeline, &search.segment))
        return true;
    if (!visit(overflow, look_for_later, &search, err))
        return false;
    *found_out = search.found;
    if (!search.found && trouble.kind != CAIRN_OK) {
        *err = trouble;
        return false;
    }
    return true;
}

/* -- shipping */

static bool
ship_file(WalOverflow *overflow, WalStore *store, const char *file_name, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    char name[WAL_FILE_NAME_LIMIT + sizeof DIGEST_SUFFIX];
    bool existed, tail_differs;
    struct stat status;
    SCOPED_FD fd = open_file(overflow, file_name, err);

    if (fd < 0) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err); /* another process shipped it */
        return true;
    }
    if (!copy_verified(overflow, fd, -1, file_name, err)) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err); /* so was this one, at this moment */
        return true;
    }
    if (!wal_store_put(store, file_name, fd, &existed, &tail_differs, err))
        return false;
    snprintf(name, sizeof name, "%.63s" DIGEST_SUFFIX, file_name);
    if (disk->unlinkat(disk, overflow->fd, file_name, 0) != 0 && errno != ENOENT)
        return cairn_error_errno(err, "unable to remove '%s' from overflow-path", file_name);
    /* A push that put the file again at this moment needs the digest. */
    if (disk->fstatat(disk, overflow->fd, file_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return true;
    if (disk->unlinkat(disk, overflow->fd, name, 0) != 0 && errno != ENOENT)
        return cairn_error_errno(err, "unable to remove '%s' from overflow-path", name);
    return true;
}

bool
wal_overflow_ship(WalOverflow *overflow, WalStore *store, size_t limit, size_t *shipped_out,
                  CairnError *err)
{
    WalOverflowList list;

    *shipped_out = 0;
    for (;;) {
        if (!wal_overflow_list(overflow, &list, err))
            return false;
        if (list.count == 0)
            return true;
        for (size_t i = 0; i < list.count; i++) {
            if (*shipped_out == limit)
                return true;
            if (!ship_file(overflow, store, list.names[i], err))
                return cairn_error_wrap(err, "unable to ship '%s' from overflow-path",
                                        list.names[i]);
            (*shipped_out)++;
        }
    }
}
