#include "common/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

struct Directory {
    const World *world;
    DIR *stream;
    int fd; /* the stream's */
    int failure;
};

Directory *
directory_open_fd(const World *world, int fd)
{
    Directory *directory = malloc(sizeof *directory);
    DIR *stream = directory != NULL ? world->disk->opendir(world->disk, fd) : NULL;

    if (stream == NULL) {
        const int failure = errno;
        free(directory);
        world->disk->close(world->disk, fd);
        errno = failure;
        return NULL;
    }
    *directory = (Directory){.world = world, .stream = stream, .fd = fd};
    return directory;
}

Directory *
directory_open(const World *world, int dirfd, const char *path, int flags)
{
    const Disk *disk = world->disk;
    const int fd = disk->openat(disk, dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags, 0);

    return fd >= 0 ? directory_open_fd(world, fd) : NULL;
}

void
directory_close(Directory *directory)
{
    if (directory == NULL)
        return;
    directory->world->disk->closedir(directory->world->disk, directory->stream);
    free(directory);
}

int
directory_fd(const Directory *directory)
{
    return directory->fd;
}

static bool
is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

const char *
directory_next(Directory *directory)
{
    const Disk *disk = directory->world->disk;
    const struct dirent *entry;

    do {
        errno = 0;
        entry = disk->readdir(disk, directory->stream);
    } while (entry != NULL && is_dot(entry->d_name));
    directory->failure = entry == NULL ? errno : 0;
    return entry != NULL ? entry->d_name : NULL;
}

bool
directory_complete(const Directory *directory)
{
    errno = directory->failure;
    return directory->failure == 0;
}
