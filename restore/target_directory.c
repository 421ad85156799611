#include "restore/target_directory.h"

#include "common/file.h"
#include "restore/place.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PID_FILE_LIMIT = 8192, PATH_LIMIT = 1100 };

struct DirectoryHandle {
    const World *world;
    int fd;
    _Atomic unsigned users;
};

struct TargetDirectory {
    const World *world;
    Place root;
    Place wal; /* fd -1: pg_wal is no link */
    Place *tablespaces;
    size_t tablespace_count;
    DirectoryHandle *last; /* entered last, for the files beside each other */
    char last_path[PATH_LIMIT];
};

TargetDirectory *
target_directory_open(const World *world, const char *path, CairnError *err)
{
    TargetDirectory *directory = calloc(1, sizeof *directory);
    if (directory == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    directory->world = world;
    if (!place_open(world, path, false, &directory->root, err)) {
        free(directory);
        return NULL;
    }
    if (!place_open_wal(world, &directory->root, &directory->wal, err)) {
        place_close(world, &directory->root);
        free(directory);
        return NULL;
    }
    return directory;
}

static bool
create_place(const World *world, Place *place, CairnError *err)
{
    if (place->fd < 0) {
        const uint32_t oid = place->oid;
        const int major = place->major;
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s", place->path);
        if (!place_open(world, path, true, place, err))
            return false;
        place->oid = oid;
        place->major = major;
        if (place->state != DIRECTORY_EMPTY)
            return cairn_error(err, CAIRN_REFUSED, "'%s' was filled by somebody else", path);
    }
    return place_lock(world, place, err);
}

bool
target_directory_create(TargetDirectory *directory, CairnError *err)
{
    if (!create_place(directory->world, &directory->root, err))
        return false;
    for (size_t i = 0; i < directory->tablespace_count; i++) {
        if (!create_place(directory->world, &directory->tablespaces[i], err))
            return false;
    }
    return target_directory_refuse_running(directory, err);
}

void
target_directory_free(TargetDirectory *directory)
{
    if (directory == NULL)
        return;
    if (directory->last != NULL)
        directory_handle_release(directory->last);
    for (size_t i = 0; i < directory->tablespace_count; i++)
        place_close(directory->world, &directory->tablespaces[i]);
    place_close(directory->world, &directory->wal);
    place_close(directory->world, &directory->root);
    free(directory->tablespaces);
    free(directory);
}

bool
target_directory_wal_is_linked(const TargetDirectory *directory)
{
    return directory->wal.fd >= 0;
}

bool
target_directory_check_wal(const TargetDirectory *directory, CairnError *err)
{
    return place_check_wal(directory->world, &directory->root, &directory->wal, err);
}

DirectoryState
target_directory_state(const TargetDirectory *directory)
{
    return directory->root.state;
}

const char *
target_directory_path(const TargetDirectory *directory)
{
    return directory->root.path;
}

int
target_directory_fd(const TargetDirectory *directory)
{
    return directory->root.fd;
}

bool
target_directory_refuse_running(const TargetDirectory *directory, CairnError *err)
{
    size_t size;
    if (directory->root.fd < 0)
        return true;
    SCOPED_MEMORY char *text = file_read_all(directory->world, directory->root.fd, "postmaster.pid",
                                             PID_FILE_LIMIT, &size, err);
    if (text == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return true;
    }

    /* Negative: a single-user backend. Empty: a server that is starting at this moment. */
    const long pid = labs(strtol(text, NULL, 10));
    const bool alive = pid == 0 || (pid != getpid() && pid != getppid() &&
                                    (kill((pid_t)pid, 0) == 0 || errno == EPERM));
    if (!alive)
        return true;
    cairn_error(err, CAIRN_REFUSED, "a server is running in '%s' (process %ld in postmaster.pid)",
                directory->root.path, pid);
    return cairn_error_hint(err, "stop it first: pg_ctl stop -D '%s'", directory->root.path);
}

static const Place *
find_tablespace(const TargetDirectory *directory, uint32_t oid)
{
    for (size_t i = 0; i < directory->tablespace_count; i++) {
        if (directory->tablespaces[i].oid == oid)
            return &directory->tablespaces[i];
    }
    return NULL;
}

/* The cluster that is replaced says so itself, by its link: a copy of it, or an empty directory, is
   no reason to remove the tablespace of a server that may be alive. */
static bool
is_tablespace_of_old(const TargetDirectory *directory, const Place *place)
{
    const Disk *disk = directory->world->disk;
    char link[32];
    struct stat linked;
    struct stat there;
    snprintf(link, sizeof link, "pg_tblspc/%" PRIu32, place->oid);
    return directory->root.state == DIRECTORY_CLUSTER && place->fd >= 0 &&
           disk->fstatat(disk, directory->root.fd, link, &linked, 0) == 0 &&
           disk->fstat(disk, place->fd, &there) == 0 && linked.st_dev == there.st_dev &&
           linked.st_ino == there.st_ino;
}

static bool
refuse_tablespace(const TargetDirectory *directory, const Place *place, bool replace,
                  CairnError *err)
{
    const char *root = directory->root.path;
    const size_t root_length = strlen(root);
    if (strncmp(place->path, root, root_length) == 0 &&
        (place->path[root_length] == '/' || place->path[root_length] == '\0')) {
        return cairn_error(err, CAIRN_REFUSED, "tablespace %" PRIu32 " would lie inside '%s'",
                           place->oid, root);
    }
    for (size_t i = 0; i < directory->tablespace_count; i++) {
        if (strcmp(directory->tablespaces[i].path, place->path) == 0) {
            return cairn_error(err, CAIRN_REFUSED,
                               "tablespaces %" PRIu32 " and %" PRIu32 " would both lie in '%s'",
                               directory->tablespaces[i].oid, place->oid, place->path);
        }
    }
    if (place->state == DIRECTORY_EMPTY || place->state == DIRECTORY_OURS ||
        (replace && place->state == DIRECTORY_CLUSTER && is_tablespace_of_old(directory, place))) {
        return true;
    }
    cairn_error(err, CAIRN_REFUSED, "the place of tablespace %" PRIu32 ", '%s', is not empty",
                place->oid, place->path);
    return cairn_error_hint(err,
                            "give another one: --tablespace-map=%" PRIu32 "=/empty/directory; "
                            "or empty it, if no server uses it any more",
                            place->oid);
}

bool
target_directory_add_tablespace(TargetDirectory *directory, uint32_t oid, const char *path,
                                int major, bool replace, CairnError *err)
{
    CAIRN_ASSERT(oid != 0 && find_tablespace(directory, oid) == NULL);
    Place place;
    if (!place_open(directory->world, path, false, &place, err))
        return cairn_error_wrap(err, "tablespace %" PRIu32, oid);
    place.oid = oid;
    place.major = major;
    if (!refuse_tablespace(directory, &place, replace, err)) {
        place_close(directory->world, &place);
        return false;
    }

    Place *grown = realloc(directory->tablespaces,
                           (directory->tablespace_count + 1) * sizeof *directory->tablespaces);
    if (grown == NULL) {
        place_close(directory->world, &place);
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    }
    directory->tablespaces = grown;
    directory->tablespaces[directory->tablespace_count++] = place;
    return true;
}

static const Place *
place_of(const TargetDirectory *directory, uint32_t oid)
{
    if (oid == TARGET_WAL_OID && directory->wal.fd >= 0)
        return &directory->wal;
    const Place *place = oid != 0 ? find_tablespace(directory, oid) : NULL;
    return place != NULL ? place : &directory->root;
}

bool
target_directory_check_space(const TargetDirectory *directory, const SpaceNeed *needs, size_t count,
                             CairnError *err)
{
    /* Several places may share a file system: each sums up what all on its own need. */
    for (size_t i = 0; i < count; i++) {
        const Place *place = place_of(directory, needs[i].oid);
        uint64_t needed = 0;
        uint64_t available;
        dev_t device;
        if (!place_free_bytes(directory->world, place, &device, &available, err))
            return false;
        for (size_t j = 0; j < count; j++) {
            const Place *other = place_of(directory, needs[j].oid);
            dev_t other_device;
            uint64_t other_available;
            uint64_t used;
            if (!place_free_bytes(directory->world, other, &other_device, &other_available, err) ||
                !place_used_bytes(directory->world, other, &used, err)) {
                return false;
            }
            if (other_device == device) {
                needed += needs[j].bytes;
                available += used;
            }
        }
        if (needed > available) {
            return cairn_error(err, CAIRN_NO_SPACE,
                               "the file system of '%s' has %" PRIu64 " MiB free, %" PRIu64
                               " MiB are needed",
                               place->path, available >> 20, (needed >> 20) + 1);
        }
    }
    return true;
}

static bool
mark_place(TargetDirectory *directory, Place *place, CairnError *err)
{
    return place_mark(directory->world, place, err) || cairn_error_wrap(err, "'%s'", place->path);
}

bool
target_directory_clear(TargetDirectory *directory, CairnError *err)
{
    if (!target_directory_check_wal(directory, err))
        return false;
    /* First all markers: an interrupted restore must find what it began to replace marked as its
       own, since the link that proved it is gone by then. */
    for (size_t i = 0; i < directory->tablespace_count; i++) {
        if (!mark_place(directory, &directory->tablespaces[i], err))
            return false;
    }
    if (!mark_place(directory, &directory->root, err))
        return false;
    if (!place_clear(directory->world, &directory->root, err) ||
        (directory->wal.fd >= 0 && !place_clear(directory->world, &directory->wal, err)))
        return false;
    for (size_t i = 0; i < directory->tablespace_count; i++) {
        if (!place_clear(directory->world, &directory->tablespaces[i], err))
            return false;
    }
    return true;
}

int
directory_handle_fd(const DirectoryHandle *handle)
{
    return handle->fd;
}

void
directory_handle_share(DirectoryHandle *handle)
{
    atomic_fetch_add(&handle->users, 1);
}

void
directory_handle_release(DirectoryHandle *handle)
{
    if (atomic_fetch_sub(&handle->users, 1) > 1)
        return;
    handle->world->disk->close(handle->world->disk, handle->fd);
    free(handle);
}

/* The place that path leads into, and what remains of path below it ("." for the place itself). */
static const Place *
resolve(const TargetDirectory *directory, const char *path, const char **rest_out)
{
    static const char PREFIX[] = "pg_tblspc/";
    static const char WAL[] = "pg_wal";
    const size_t wal_length = sizeof WAL - 1;
    const Place *place = &directory->root;

    *rest_out = path;
    if (directory->wal.fd >= 0 && strncmp(path, WAL, wal_length) == 0 &&
        (path[wal_length] == '/' || path[wal_length] == '\0')) {
        place = &directory->wal;
        *rest_out = path + wal_length + (path[wal_length] == '/' ? 1 : 0);
    } else if (strncmp(path, PREFIX, sizeof PREFIX - 1) == 0) {
        char *end;
        const unsigned long oid = strtoul(path + sizeof PREFIX - 1, &end, 10);
        const Place *tablespace = oid <= UINT32_MAX && (*end == '/' || *end == '\0')
                                      ? find_tablespace(directory, (uint32_t)oid)
                                      : NULL;
        if (tablespace != NULL) {
            place = tablespace;
            *rest_out = *end == '/' ? end + 1 : end;
        }
    }
    if (**rest_out == '\0')
        *rest_out = ".";
    return place;
}

DirectoryHandle *
target_directory_enter(TargetDirectory *directory, const char *path, CairnError *err)
{
    const Disk *disk = directory->world->disk;
    const char *rest;

    if (directory->last != NULL && strcmp(directory->last_path, path) == 0) {
        directory_handle_share(directory->last);
        return directory->last;
    }
    const Place *place = resolve(directory, path, &rest);
    int fd = disk->openat_beneath(disk, place->fd, rest, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0 && errno == ENOENT) {
        if (!file_make_directories(directory->world, place->fd, rest, S_IRWXU, err))
            return NULL;
        fd = disk->openat_beneath(disk, place->fd, rest, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    }
    if (fd < 0) {
        cairn_error_errno(err, "unable to open directory '%s'", path);
        return NULL;
    }
    DirectoryHandle *handle = calloc(1, sizeof *handle);
    if (handle == NULL) {
        disk->close(disk, fd);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    handle->world = directory->world;
    handle->fd = fd;
    atomic_init(&handle->users, 2); /* the caller's, and ours as the last one */
    if (directory->last != NULL)
        directory_handle_release(directory->last);
    directory->last = handle;
    snprintf(directory->last_path, sizeof directory->last_path, "%s", path);
    return handle;
}

DirectoryHandle *
target_directory_parent(TargetDirectory *directory, const char *path, const char **name_out,
                        CairnError *err)
{
    char parent[PATH_LIMIT];
    const char *slash = strrchr(path, '/');
    const size_t length = slash == NULL ? 0 : (size_t)(slash - path);

    if (length >= sizeof parent) {
        cairn_error(err, CAIRN_CORRUPT, "path too long: '%.100s'", path);
        return NULL;
    }
    memcpy(parent, path, length);
    parent[length] = '\0';
    *name_out = slash == NULL ? path : slash + 1;
    return target_directory_enter(directory, parent, err);
}

static bool
set_directory_mode(const World *world, int parent, const char *name, uint32_t mode, CairnError *err)
{
    const Disk *disk = world->disk;
    const int fd =
        disk->openat(disk, parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0)
        return cairn_error_errno(err, "unable to open directory '%s'", name);
    const bool set = disk->fchmod(disk, fd, (mode_t)mode) == 0 ||
                     cairn_error_errno(err, "unable to set the mode of '%s'", name);
    disk->close(disk, fd);
    return set;
}

bool
target_directory_make(TargetDirectory *directory, const char *path, uint32_t mode, CairnError *err)
{
    const Disk *disk = directory->world->disk;
    const char *rest;
    const char *name;

    if (resolve(directory, path, &rest) != &directory->root && strcmp(rest, ".") == 0)
        return true; /* a tablespace's own place, or linked WAL's, which keeps its mode */
    DirectoryHandle *parent = target_directory_parent(directory, path, &name, err);
    if (parent == NULL)
        return false;
    bool good = true;
    const bool made = disk->mkdirat(disk, parent->fd, name, S_IRWXU) == 0;
    if (!made && errno != EEXIST)
        good = cairn_error_errno(err, "unable to make directory '%s'", path);
    /* The umask never takes from the owner: only other modes than 0700 need a second call. */
    if (good && (!made || mode != S_IRWXU))
        good = set_directory_mode(directory->world, parent->fd, name, mode, err);
    directory_handle_release(parent);
    return good;
}

bool
target_directory_write(TargetDirectory *directory, const char *path, const void *data, size_t size,
                       uint32_t mode, CairnError *err)
{
    const Disk *disk = directory->world->disk;
    const char *name;
    DirectoryHandle *parent = target_directory_parent(directory, path, &name, err);
    if (parent == NULL)
        return false;
    const int fd =
        disk->openat(disk, parent->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                     S_IRUSR | S_IWUSR);
    directory_handle_release(parent);
    if (fd < 0)
        return cairn_error_errno(err, "unable to create '%s'", path);
    bool good = file_write(directory->world, fd, data, size, path, err);
    if (good && disk->fchmod(disk, fd, (mode_t)mode) != 0)
        good = cairn_error_errno(err, "unable to set the mode of '%s'", path);
    if (disk->close(disk, fd) != 0 && good)
        good = cairn_error_errno(err, "unable to close '%s'", path);
    return good;
}

bool
target_directory_link_tablespaces(TargetDirectory *directory, CairnError *err)
{
    if (directory->tablespace_count == 0)
        return true;
    DirectoryHandle *parent = target_directory_enter(directory, "pg_tblspc", err);
    if (parent == NULL)
        return false;
    bool good = true;
    for (size_t i = 0; i < directory->tablespace_count && good; i++) {
        const Place *place = &directory->tablespaces[i];
        char name[16];
        snprintf(name, sizeof name, "%" PRIu32, place->oid);
        if (directory->world->disk->symlinkat(directory->world->disk, place->path, parent->fd,
                                              name) != 0) {
            good = cairn_error_errno(err, "unable to link 'pg_tblspc/%s'", name);
        }
    }
    directory_handle_release(parent);
    return good;
}

/* The kernel reports write errors of the whole file system to descriptors opened before them: ours.
 */
static bool
sync_file_systems(TargetDirectory *directory, CairnError *err)
{
    const Disk *disk = directory->world->disk;
    if (disk->syncfs(disk, directory->root.fd) != 0)
        return cairn_error_errno(err, "unable to sync '%s'", directory->root.path);
    if (directory->wal.fd >= 0 && directory->wal.device != directory->root.device &&
        disk->syncfs(disk, directory->wal.fd) != 0)
        return cairn_error_errno(err, "unable to sync '%s'", directory->wal.path);
    for (size_t i = 0; i < directory->tablespace_count; i++) {
        const Place *place = &directory->tablespaces[i];
        bool done = place->device == directory->root.device;
        for (size_t j = 0; j < i && !done; j++)
            done = directory->tablespaces[j].device == place->device;
        if (!done && disk->syncfs(disk, place->fd) != 0)
            return cairn_error_errno(err, "unable to sync '%s'", place->path);
    }
    return true;
}

static bool
publish_control_file(TargetDirectory *directory, CairnError *err)
{
    const Disk *disk = directory->world->disk;
    const char *temporary = strrchr(CONTROL_TEMPORARY_PATH, '/') + 1;
    DirectoryHandle *global = target_directory_enter(directory, "global", err);
    if (global == NULL)
        return false;
    bool good = disk->renameat(disk, global->fd, temporary, global->fd, "pg_control") == 0 ||
                cairn_error_errno(err, "unable to put 'global/pg_control' in place");
    good = good && file_sync_directory(directory->world, global->fd, ".", err);
    directory_handle_release(global);
    return good;
}

static bool
remove_marker(const World *world, Place *place, CairnError *err)
{
    if (world->disk->unlinkat(world->disk, place->fd, RESTORE_MARKER, 0) != 0 && errno != ENOENT)
        return cairn_error_errno(err, "unable to remove '%s/%s'", place->path, RESTORE_MARKER);
    place->marked = false;
    return file_sync_directory(world, place->fd, ".", err);
}

bool
target_directory_commit(TargetDirectory *directory, uint32_t mode, CairnError *err)
{
    const World *world = directory->world;
    if (world->disk->fchmod(world->disk, directory->root.fd, (mode_t)mode) != 0)
        return cairn_error_errno(err, "unable to set the mode of '%s'", directory->root.path);
    if (!sync_file_systems(directory, err) || !publish_control_file(directory, err))
        return false;
    for (size_t i = 0; i < directory->tablespace_count; i++) {
        if (!remove_marker(world, &directory->tablespaces[i], err))
            return false;
    }
    return remove_marker(world, &directory->root, err);
}
