#include "repository/wal_overflow.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { KEY_DIGITS = 24 };

typedef struct {
    const World *world;
    const char *cluster;
    char own[WAL_OVERFLOW_DIRECTORY_SIZE];
    char key[WAL_OVERFLOW_DIRECTORY_SIZE]; /* <cluster>-<24 hex>, while it is looked through */
    char directory[WAL_OVERFLOW_DIRECTORY_SIZE]; /* the same with the system */
    WalOverflowOthers others;
} Search;

typedef bool Visitor(Search *search, int fd, const char *name, CairnError *err);

static bool
visit(Search *search, int parent_fd, const char *name, Visitor *visitor, CairnError *err)
{
    const Disk *disk = search->world->disk;
    const int fd = disk->openat(
        disk, parent_fd, name,
        O_RDONLY | O_DIRECTORY | O_CLOEXEC | (parent_fd == AT_FDCWD ? 0 : O_NOFOLLOW), 0);
    DIR *directory = fd >= 0 ? disk->opendir(disk, fd) : NULL;
    const struct dirent *entry;
    bool done = true;

    if (directory == NULL) {
        const int failure = errno;
        if (fd >= 0)
            disk->close(disk, fd);
        errno = failure;
        /* What is no directory is none of ours. */
        return errno == ENOTDIR || errno == ELOOP || errno == ENOENT ||
               cairn_error_errno(err, "unable to list '%s' in overflow-path", name);
    }
    errno = 0;
    while (done && (entry = disk->readdir(disk, directory)) != NULL) {
        if (entry->d_name[0] != '.')
            done = visitor(search, fd, entry->d_name, err);
        errno = 0;
    }
    if (done && errno != 0)
        done = cairn_error_errno(err, "unable to list '%s' in overflow-path", name);
    disk->closedir(disk, directory);
    return done;
}

static bool
count_file(Search *search, int fd, const char *name, CairnError *err)
{
    CairnError ignored = {0};
    WalFileName file;

    (void)fd;
    (void)err;
    if (strlen(name) < WAL_FILE_NAME_LIMIT && wal_file_name_parse(name, &file, &ignored)) {
        search->others.files++;
        snprintf(search->others.directory, sizeof search->others.directory, "%s",
                 search->directory);
    }
    return true;
}

static bool
visit_system(Search *search, int fd, const char *name, CairnError *err)
{
    if (snprintf(search->directory, sizeof search->directory, "%.100s/%s", search->key, name) >=
            (int)sizeof search->directory ||
        strcmp(search->directory, search->own) == 0)
        return true;
    return visit(search, fd, name, count_file, err);
}

static bool
visit_key(Search *search, int fd, const char *name, CairnError *err)
{
    const size_t size = strlen(search->cluster);

    if (strlen(name) != size + 1 + KEY_DIGITS || strncmp(name, search->cluster, size) != 0 ||
        name[size] != '-' || strspn(name + size + 1, "0123456789abcdef") != KEY_DIGITS)
        return true;
    snprintf(search->key, sizeof search->key, "%s", name);
    return visit(search, fd, name, visit_system, err);
}

bool
wal_overflow_others(const World *world, const WalOverflowPlace *place,
                    WalOverflowOthers *others_out, CairnError *err)
{
    Search search = {.world = world, .cluster = place->cluster};

    if (!wal_overflow_directory(place, search.own, err) ||
        !visit(&search, AT_FDCWD, place->path, visit_key, err))
        return false;
    *others_out = search.others;
    return true;
}
