#include "restore/place.h"

#include "common/directory.h"
#include "common/file.h"
#include "common/log.h"
#include "postgres/wal_name.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

/* Deeper trees are no data directory, and recursion must end. */
enum { TREE_DEPTH_LIMIT = 64 };

static const int DIRECTORY_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

/* A file system's own, where WAL has one to itself. */
static const char LOST_AND_FOUND[] = "lost+found";

static bool
exists(const World *world, int fd, const char *path)
{
    struct stat status;
    return world->disk->fstatat(world->disk, fd, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Called for each entry of a directory; dirfd is the stream's. */
typedef bool EntryCallback(const World *world, int dirfd, const char *name, void *context,
                           CairnError *err);

static bool
for_each_entry(const World *world, int fd, EntryCallback *callback, void *context, CairnError *err)
{
    const Disk *disk = world->disk;
    /* A descriptor of its own, so that the stream's position is not shared. */
    const int own = disk->openat(disk, fd, ".", DIRECTORY_FLAGS, 0);
    if (own < 0)
        return cairn_error_errno(err, "unable to open directory");
    SCOPED(Directory) directory = directory_open_fd(world, own);
    if (directory == NULL)
        return cairn_error_errno(err, "unable to list directory");
    const char *name;
    while ((name = directory_next(directory)) != NULL) {
        if (!callback(world, own, name, context, err))
            return false;
    }
    return directory_complete(directory) || cairn_error_errno(err, "unable to list directory");
}

typedef struct {
    size_t others; /* entries besides the marker */
    size_t version_directories;
    bool marker;
} Contents;

static bool
note_entry(const World *world, int dirfd, const char *name, void *context, CairnError *err)
{
    Contents *contents = context;
    (void)world;
    (void)dirfd;
    (void)err;
    if (strcmp(name, RESTORE_MARKER) == 0)
        contents->marker = true;
    else
        contents->others++;
    if (strncmp(name, "PG_", 3) == 0)
        contents->version_directories++;
    return true;
}

static bool
examine(const World *world, Place *place, CairnError *err)
{
    Contents contents = {0};
    if (!for_each_entry(world, place->fd, note_entry, &contents, err))
        return false;

    place->marked = contents.marker;
    if (contents.others == 0)
        place->state = contents.marker ? DIRECTORY_OURS : DIRECTORY_EMPTY;
    else if (exists(world, place->fd, "global/pg_control"))
        place->state = DIRECTORY_CLUSTER;
    else if (contents.marker)
        place->state = DIRECTORY_OURS;
    else if (exists(world, place->fd, "PG_VERSION"))
        place->state = DIRECTORY_CLUSTER;
    else
        place->state =
            contents.others == contents.version_directories ? DIRECTORY_CLUSTER : DIRECTORY_FOREIGN;
    return true;
}

/* Absolute and with links resolved, as the kernel knows it. */
static bool
resolve_path(const World *world, Place *place, CairnError *err)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", place->fd);
    const ssize_t size =
        world->disk->readlinkat(world->disk, AT_FDCWD, link, place->path, sizeof place->path - 1);
    if (size <= 0 || place->path[0] != '/')
        return cairn_error_errno(err, "unable to resolve the directory's path");
    place->path[size] = '\0';
    return true;
}

static bool
open_existing(const World *world, Place *place, CairnError *err)
{
    struct stat status;
    if (!resolve_path(world, place, err) || !examine(world, place, err))
        return false;
    if (world->disk->fstat(world->disk, place->fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine the directory");
    place->device = status.st_dev;
    return true;
}

bool
place_open(const World *world, const char *path, bool create, Place *place_out, CairnError *err)
{
    const Disk *disk = world->disk;
    Place place = {.fd = -1, .state = DIRECTORY_EMPTY};

    snprintf(place.path, sizeof place.path, "%s", path);
    place.fd = disk->openat(disk, AT_FDCWD, path, DIRECTORY_FLAGS, 0);
    if (place.fd < 0 && errno == ENOENT && create) {
        if (!file_make_directories(world, AT_FDCWD, path, S_IRWXU, err))
            return false;
        place.fd = disk->openat(disk, AT_FDCWD, path, DIRECTORY_FLAGS, 0);
    }
    if (place.fd < 0 && (create || errno != ENOENT))
        return cairn_error_errno(err, "unable to open directory '%s'", path);
    if (place.fd >= 0 && !open_existing(world, &place, err)) {
        disk->close(disk, place.fd);
        return cairn_error_wrap(err, "'%s'", path);
    }
    *place_out = place;
    return true;
}

bool
place_lock(const World *world, Place *place, CairnError *err)
{
    const DirectoryState before = place->state;
    if (flock(place->fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return cairn_error(err, CAIRN_REFUSED, "another restore works in '%s'", place->path);
        return cairn_error_errno(err, "unable to lock '%s'", place->path);
    }
    if (!examine(world, place, err))
        return cairn_error_wrap(err, "'%s'", place->path);
    return place->state == before ||
           cairn_error(err, CAIRN_REFUSED, "'%s' was changed by somebody else", place->path);
}

void
place_close(const World *world, Place *place)
{
    if (place->fd >= 0)
        world->disk->close(world->disk, place->fd);
    place->fd = -1;
}

typedef struct {
    const Place *place;
    int depth;
    uint64_t bytes;
} Walk;

static bool enter_subdirectory(const World *world, int dirfd, const char *name, Walk *walk,
                               EntryCallback *callback, CairnError *err);

static bool
skipped_at_top(const Walk *walk, const char *name)
{
    char version[16];
    if (walk->depth > 0)
        return false;
    if (strcmp(name, RESTORE_MARKER) == 0)
        return true;
    if (walk->place->is_wal)
        return strcmp(name, LOST_AND_FOUND) == 0;
    const int length = snprintf(version, sizeof version, "PG_%d_", walk->place->major);
    return walk->place->oid != 0 && strncmp(name, version, (size_t)length) != 0;
}

static bool
remove_entry(const World *world, int dirfd, const char *name, void *context, CairnError *err)
{
    const Disk *disk = world->disk;
    Walk *walk = context;
    struct stat status;

    if (skipped_at_top(walk, name))
        return true;
    if (disk->fstatat(disk, dirfd, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to examine '%s'", name);
    if (walk->depth == 0 && walk->place->keeps_wal_link && strcmp(name, "pg_wal") == 0)
        return true;
    if (!S_ISDIR(status.st_mode)) {
        return disk->unlinkat(disk, dirfd, name, 0) == 0 ||
               cairn_error_errno(err, "unable to remove '%s'", name);
    }
    if (!enter_subdirectory(world, dirfd, name, walk, remove_entry, err))
        return false;
    /* A directory that something is mounted on stays, empty. */
    return disk->unlinkat(disk, dirfd, name, AT_REMOVEDIR) == 0 || errno == EBUSY ||
           cairn_error_errno(err, "unable to remove directory '%s'", name);
}

static bool
count_entry(const World *world, int dirfd, const char *name, void *context, CairnError *err)
{
    Walk *walk = context;
    struct stat status;

    if (skipped_at_top(walk, name))
        return true;
    if (world->disk->fstatat(world->disk, dirfd, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to examine '%s'", name);
    /* What is mounted here, or has another name elsewhere, frees nothing when it goes. */
    if (status.st_dev == walk->place->device && (S_ISDIR(status.st_mode) || status.st_nlink == 1))
        walk->bytes += (uint64_t)status.st_blocks * 512;
    return !S_ISDIR(status.st_mode) ||
           enter_subdirectory(world, dirfd, name, walk, count_entry, err);
}

static bool
enter_subdirectory(const World *world, int dirfd, const char *name, Walk *walk,
                   EntryCallback *callback, CairnError *err)
{
    const Disk *disk = world->disk;
    if (walk->depth == TREE_DEPTH_LIMIT)
        return cairn_error(err, CAIRN_REFUSED, "directory '%s' lies too deep", name);
    const int fd = disk->openat(disk, dirfd, name, DIRECTORY_FLAGS | O_NOFOLLOW, 0);
    if (fd < 0)
        return cairn_error_errno(err, "unable to open directory '%s'", name);
    walk->depth++;
    const bool good = for_each_entry(world, fd, callback, walk, err);
    walk->depth--;
    disk->close(disk, fd);
    return good;
}

bool
place_mark(const World *world, Place *place, CairnError *err)
{
    static const char TEXT[] = "A restore by pgcairn is under way here, or was interrupted.\n"
                               "The next one removes everything in this directory.\n";
    if (place->marked)
        return true;
    /* That it is there says all, so it has its name from the start: what an interrupted
       file_replace leaves would make an empty directory look like somebody else's. */
    const int fd = world->disk->openat(world->disk, place->fd, RESTORE_MARKER,
                                       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                       S_IRUSR | S_IWUSR);
    if (fd < 0)
        return cairn_error_errno(err, "unable to create '%s'", RESTORE_MARKER);
    place->marked = true;
    if (!file_write(world, fd, TEXT, sizeof TEXT - 1, RESTORE_MARKER, err)) {
        world->disk->close(world->disk, fd);
        return false;
    }
    return file_sync_close(world, fd, RESTORE_MARKER, err) &&
           file_sync_directory(world, place->fd, ".", err);
}

/* Without it nothing that is half removed can be started. */
static bool
remove_control_file(const World *world, const Place *place, CairnError *err)
{
    if (!exists(world, place->fd, "global/pg_control"))
        return true;
    const int fd =
        world->disk->openat_beneath(world->disk, place->fd, "global", DIRECTORY_FLAGS, 0);
    if (fd < 0)
        return cairn_error_errno(err, "unable to open directory 'global'");
    bool good = world->disk->unlinkat(world->disk, fd, "pg_control", 0) == 0 ||
                cairn_error_errno(err, "unable to remove 'global/pg_control'");
    good = good && file_sync_directory(world, fd, ".", err);
    world->disk->close(world->disk, fd);
    return good;
}

bool
place_clear(const World *world, Place *place, CairnError *err)
{
    Walk walk = {.place = place};

    CAIRN_ASSERT(place->marked || place->is_wal);
    if ((place->oid == 0 && !remove_control_file(world, place, err)) ||
        !for_each_entry(world, place->fd, remove_entry, &walk, err)) {
        return cairn_error_wrap(err, "'%s'", place->path);
    }
    return true;
}

bool
place_open_wal(const World *world, Place *root, Place *wal_out, CairnError *err)
{
    const Disk *disk = world->disk;
    char path[PATH_MAX];
    struct stat status;

    wal_out->fd = -1;
    root->keeps_wal_link = false;
    if (root->fd < 0 || (root->state != DIRECTORY_CLUSTER && root->state != DIRECTORY_OURS) ||
        disk->fstatat(disk, root->fd, "pg_wal", &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISLNK(status.st_mode))
        return true;
    if (snprintf(path, sizeof path, "%s/pg_wal", root->path) >= (int)sizeof path)
        return cairn_error(err, CAIRN_REFUSED, "the path '%s' is too long", root->path);
    if (!place_open(world, path, false, wal_out, err))
        return false;
    wal_out->is_wal = true;
    root->keeps_wal_link = wal_out->fd >= 0;
    if (wal_out->fd < 0)
        log_warn("'%s' is a symbolic link that leads nowhere; a directory takes its place", path);
    return true;
}

static bool
is_wal_entry(const char *name)
{
    static const char TEMPORARY[] = ".pgcairn";
    const size_t size = strlen(name);
    WalFileName parsed;
    CairnError ignored = {0};

    return strcmp(name, "archive_status") == 0 || strcmp(name, "summaries") == 0 ||
           strcmp(name, LOST_AND_FOUND) == 0 || strncmp(name, "xlogtemp.", 9) == 0 ||
           strncmp(name, "RECOVERY", 8) == 0 ||
           (size > sizeof TEMPORARY &&
            strcmp(name + size - sizeof TEMPORARY + 1, TEMPORARY) == 0) ||
           wal_file_name_parse(name, &parsed, &ignored);
}

static bool
check_wal_entry(const World *world, int dirfd, const char *name, void *context, CairnError *err)
{
    (void)world, (void)dirfd, (void)context;
    return is_wal_entry(name) || cairn_error(err, CAIRN_REFUSED, "'%s' is no file of WAL", name);
}

bool
place_check_wal(const World *world, const Place *root, const Place *wal, CairnError *err)
{
    const size_t length = strlen(root->path);

    if (wal->fd < 0)
        return true;
    if (strncmp(wal->path, root->path, length) == 0 && wal->path[length] == '/')
        return cairn_error(err, CAIRN_REFUSED, "pg_wal is a link to '%s', inside '%s'", wal->path,
                           root->path);
    if (for_each_entry(world, wal->fd, check_wal_entry, NULL, err))
        return true;
    cairn_error_wrap(err, "pg_wal is a link to '%s', which is to be emptied", wal->path);
    return cairn_error_hint(err, "move what is not PostgreSQL's out of it");
}

bool
place_used_bytes(const World *world, const Place *place, uint64_t *bytes_out, CairnError *err)
{
    Walk walk = {.place = place};
    if (place->fd >= 0 && !for_each_entry(world, place->fd, count_entry, &walk, err))
        return cairn_error_wrap(err, "'%s'", place->path);
    *bytes_out = walk.bytes;
    return true;
}

/* A directory that is still to be made lies on the file system of the nearest one that is there. */
static int
open_nearest(const World *world, const Place *place)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", place->path);
    for (;;) {
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return world->disk->openat(world->disk, AT_FDCWD, "/", DIRECTORY_FLAGS, 0);
        *slash = '\0';
        const int fd = world->disk->openat(world->disk, AT_FDCWD, path, DIRECTORY_FLAGS, 0);
        if (fd >= 0)
            return fd;
    }
}

bool
place_free_bytes(const World *world, const Place *place, dev_t *device_out, uint64_t *bytes_out,
                 CairnError *err)
{
    const Disk *disk = world->disk;
    struct statvfs space;
    struct stat status;

    const int fd = place->fd >= 0 ? place->fd : open_nearest(world, place);
    if (fd < 0)
        return cairn_error_errno(err, "unable to open a directory above '%s'", place->path);
    bool good = disk->fstatvfs(disk, fd, &space) == 0 && disk->fstat(disk, fd, &status) == 0;
    if (!good)
        cairn_error_errno(err, "unable to tell the free space at '%s'", place->path);
    if (fd != place->fd)
        disk->close(disk, fd);
    if (!good)
        return false;
    *device_out = status.st_dev;
    *bytes_out = (uint64_t)space.f_bavail * space.f_frsize;
    return true;
}
