#include "walarchive/spool.h"

#include "common/bytes.h"
#include "common/digest.h"
#include "common/file.h"
#include "postgres/wal_name.h"
#include "repository/host.h"
#include "storage/connect.h"

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
    DIRECTORY_MODE = 0700,
    FILE_MODE = 0600,
    LEFTOVER_AGE_S = 3600,
};

#define OK_SUFFIX ".ok"
#define FAILED_SUFFIX ".failed"
#define TEMPORARY_SUFFIX ".tmp"
#define ABOUT_NAME "about"
#define ABSENT_NAME "absent"

struct Spool {
    const World *world;
    int fd;
    char boot_id[HOST_BOOT_ID_SIZE];
};

/* -- the directory */

/* The section's name, too: which bucket or directory a place leads to may depend on whose
   credentials are used, and two sections must not be taken for one. */
static bool
spool_name(const World *world, const SpoolPlace *place, char name[NAME_MAX + 1], CairnError *err)
{
    char where[STORAGE_PLACE_TEXT_SIZE];
    char line[STORAGE_PLACE_TEXT_SIZE + 256];
    struct stat status;

    storage_place_text(place->repository, where);

    if (world->disk->fstat(world->disk, place->pgdata_fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine the data directory");
    const int size = snprintf(line, sizeof line,
                              "user %u\nrepository %.100s %s\ncluster %s\ndata directory %" PRIu64
                              ":%" PRIu64 "\n",
                              (unsigned)geteuid(), place->repository->name, where, place->cluster,
                              (uint64_t)status.st_dev, (uint64_t)status.st_ino);
    if (size < 0 || (size_t)size >= sizeof line)
        return cairn_error(err, CAIRN_USAGE, "the repository's path is too long");
    snprintf(name, NAME_MAX + 1, "%.64s-%016" PRIx64, place->cluster, fnv1a(line, (size_t)size));
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
    char where[STORAGE_PLACE_TEXT_SIZE];
    char text[PATH_MAX + STORAGE_PLACE_TEXT_SIZE + 256];
    char link[64];
    char pgdata[PATH_MAX] = "";
    CairnError ignored = {0};
    struct stat status;

    if (disk->fstatat(disk, spool->fd, ABOUT_NAME, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return;
    storage_place_text(place->repository, where);
    snprintf(link, sizeof link, "/proc/self/fd/%d", place->pgdata_fd);
    if (readlink(link, pgdata, sizeof pgdata - 1) < 0)
        pgdata[0] = '\0';
    const int size =
        snprintf(text, sizeof text, "cluster = %s\nrepository = %s\npgdata = %.1900s\n",
                 place->cluster, where, pgdata);
    if (size > 0 &&
        !file_replace(spool->world, spool->fd, ABOUT_NAME, text, (size_t)size, FILE_MODE, &ignored))
        return;
}

static int
open_directory(const World *world, const SpoolPlace *place, CairnError *err)
{
    const Disk *disk = world->disk;
    const bool configured = place->path != NULL;
    const char *root = configured ? place->path : CONFIG_DEFAULT_SPOOL_PATH;
    char name[NAME_MAX + 1];

    if (configured && root[0] != '/') {
        cairn_error(err, CAIRN_USAGE, "spool-path '%s' is not absolute", root);
        return -1;
    }
    SCOPED_FD root_fd = disk->openat(disk, AT_FDCWD, root, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (root_fd < 0 && configured && errno == ENOENT) {
        if (!file_make_directories(world, AT_FDCWD, root, DIRECTORY_MODE, err))
            return -1;
        root_fd = disk->openat(disk, AT_FDCWD, root, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    }
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
    char boot_id[HOST_BOOT_ID_SIZE];
    SCOPED_FD fd = open_directory(world, place, err);

    if (fd < 0) {
        /* Nobody asked for the default one. */
        if (place->path == NULL)
            cairn_error_clear(err);
        return NULL;
    }
    host_boot_id(boot_id);
    if (boot_id[0] == '\0') {
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
    memcpy(spool->boot_id, boot_id, sizeof boot_id);
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
                 "first-page = %08" PRIx32 "\n"
                 "descriptor = %" PRIu64 ":%" PRIu64 " %" PRId64 "\n"
                 "object = %" PRIu64 "\n",
                 claim->file_name, id, claim->cluster, incarnation, spool->boot_id, file->size,
                 file->device, file->inode, file->modified_ns, file->changed_ns, file->page_crc,
                 claim->mark.device, claim->mark.inode, claim->mark.changed_ns, claim->object_size);
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

/* The id in a record, which is only believed when all the rest is as expected. */
static bool
take_repository_id(const char *text, size_t size, uint8_t id[REPOSITORY_ID_SIZE])
{
    static const char FIELD[] = "\nrepository = ";
    const char *field = memmem(text, size, FIELD, sizeof FIELD - 1);
    char hex[2 * REPOSITORY_ID_SIZE + 1];

    if (field == NULL || (size_t)(text + size - field) < sizeof FIELD - 1 + sizeof hex)
        return false;
    memcpy(hex, field + sizeof FIELD - 1, sizeof hex - 1);
    hex[sizeof hex - 1] = '\0';
    return hex_decode(id, REPOSITORY_ID_SIZE, hex);
}

/* Likewise. */
static bool
take_object_size(const char *text, size_t size, uint64_t *object_size_out)
{
    static const char FIELD[] = "\nobject = ";
    const char *at = memmem(text, size, FIELD, sizeof FIELD - 1);
    uint64_t number = 0;

    if (at == NULL)
        return false;
    for (at += sizeof FIELD - 1; at < text + size && *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*at - '0'), &number))
            return false;
    }
    *object_size_out = number;
    return true;
}

bool
spool_recalls(const Spool *spool, const SpoolClaim *claim, int64_t age_limit_us,
              uint64_t *object_size_out)
{
    const World *world = spool->world;
    char name[NAME_MAX + 1];
    char expected[RECORD_LIMIT];
    uint8_t id[REPOSITORY_ID_SIZE];
    struct stat status;
    size_t size = 0;
    CairnError ignored = {0};
    SpoolClaim complete = *claim; /* with what only the repository could tell */

    entry_name(claim->file_name, OK_SUFFIX, name);
    if (world->disk->fstatat(world->disk, spool->fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    const int64_t age_us =
        world->clock->wall_us(world->clock) -
        ((int64_t)status.st_mtim.tv_sec * 1000000 + status.st_mtim.tv_nsec / 1000);
    if (age_us < 0 || age_us > age_limit_us)
        return false;
    SCOPED_MEMORY char *text = file_read_all(world, spool->fd, name, RECORD_LIMIT, &size, &ignored);
    if (text == NULL || !take_repository_id(text, size, id) ||
        !take_object_size(text, size, &complete.object_size))
        return false;
    complete.repository_id = id;
    *object_size_out = complete.object_size;
    return size == record_format(spool, &complete, expected) && memcmp(text, expected, size) == 0;
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

static void
make_printable(char *text)
{
    for (char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ')
            *c = ' ';
    }
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
    make_printable(text);
}

/* -- a repository that did not answer */

void
spool_note_absence(const Spool *spool, const CairnError *failure)
{
    char text[FAILURE_LIMIT];
    CairnError ignored = {0};
    const int size =
        snprintf(text, sizeof text, "boot = %s\n%.500s", spool->boot_id, failure->message);

    if (!put_text(spool, ABSENT_NAME, text, (size_t)size, &ignored))
        return;
}

bool
spool_recalls_absence(const Spool *spool, SpoolAbsence *absence_out)
{
    const World *world = spool->world;
    char boot[64];
    struct stat status;
    size_t size = 0;
    CairnError ignored = {0};

    if (world->disk->fstatat(world->disk, spool->fd, ABSENT_NAME, &status, AT_SYMLINK_NOFOLLOW) !=
        0)
        return false;
    const int64_t at_us = (int64_t)status.st_mtim.tv_sec * 1000000 + status.st_mtim.tv_nsec / 1000;
    const int64_t age_us = world->clock->wall_us(world->clock) - at_us;
    if (age_us < 0 || age_us >= INT64_C(1000000) * SPOOL_ABSENCE_S)
        return false;
    SCOPED_MEMORY char *text =
        file_read_all(world, spool->fd, ABSENT_NAME, FAILURE_LIMIT, &size, &ignored);
    const int begin = snprintf(boot, sizeof boot, "boot = %s\n", spool->boot_id);
    if (text == NULL || strncmp(text, boot, (size_t)begin) != 0)
        return false;
    absence_out->at_us = at_us;
    absence_out->left_s = SPOOL_ABSENCE_S - (int)(age_us / 1000000);
    snprintf(absence_out->message, sizeof absence_out->message, "%s", text + begin);
    make_printable(absence_out->message);
    return true;
}

void
spool_forget_absence(const Spool *spool)
{
    spool->world->disk->unlinkat(spool->world->disk, spool->fd, ABSENT_NAME, 0);
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
    struct stat status;

    return size > suffix && strcmp(entry + size - suffix, TEMPORARY_SUFFIX) == 0 &&
           spool->world->disk->fstatat(spool->world->disk, spool->fd, entry, &status,
                                       AT_SYMLINK_NOFOLLOW) == 0 &&
           status.st_mtim.tv_sec <
               spool->world->clock->wall_us(spool->world->clock) / 1000000 - LEFTOVER_AGE_S;
}

/* Every entry; nothing where the directory does not open. */
typedef void EntryVisitor(const Spool *spool, const char *entry, void *context);

static void
visit(const Spool *spool, EntryVisitor *visitor, void *context)
{
    const Disk *disk = spool->world->disk;
    const int fd = disk->openat(disk, spool->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *directory = fd >= 0 ? disk->opendir(disk, fd) : NULL;
    const struct dirent *entry;

    if (directory == NULL) {
        if (fd >= 0)
            disk->close(disk, fd);
        return;
    }
    while ((entry = disk->readdir(disk, directory)) != NULL)
        visitor(spool, entry->d_name, context);
    disk->closedir(disk, directory);
}

typedef struct {
    SpoolKeep *keep;
    void *context;
} Sweep;

static void
sweep_entry(const Spool *spool, const char *entry, void *context)
{
    const Sweep *sweep = context;
    char file_name[WAL_FILE_NAME_LIMIT];
    const bool goes = entry_about(entry, file_name) ? !sweep->keep(sweep->context, file_name)
                                                    : is_leftover(spool, entry);

    if (goes)
        spool->world->disk->unlinkat(spool->world->disk, spool->fd, entry, 0);
}

void
spool_sweep(const Spool *spool, SpoolKeep *keep, void *context)
{
    Sweep sweep = {.keep = keep, .context = context};

    visit(spool, sweep_entry, &sweep);
}

static void
count_entry(const Spool *spool, const char *entry, void *context)
{
    SpoolCount *count = context;
    char file_name[WAL_FILE_NAME_LIMIT];

    (void)spool;
    if (!entry_about(entry, file_name))
        return;
    if (strstr(entry, FAILED_SUFFIX) != NULL)
        count->failed++;
    else
        count->remembered++;
}

SpoolCount
spool_count(const Spool *spool)
{
    SpoolCount count = {0};

    visit(spool, count_entry, &count);
    return count;
}

int
spool_directory(const Spool *spool)
{
    return spool->fd;
}
