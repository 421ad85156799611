#include "common/scratch_file.h"

#include "common/bytes.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

const char *
scratch_file_directory(void)
{
    const char *directory = getenv("TMPDIR");
    return directory != NULL && directory[0] == '/' ? directory : "/var/tmp";
}

int
scratch_file_open(const World *world, const char *directory, CairnError *err)
{
    uint8_t random[8];
    char token[2 * sizeof random + 1], path[PATH_MAX];
    if (world->random->fill(world->random, random, sizeof random) != 0) {
        cairn_error_errno(err, "unable to draw random bytes");
        return -1;
    }
    hex_encode(token, random, sizeof random);
    int size = snprintf(path, sizeof path, "%s/.pgcairn-%s.tmp", directory, token);
    if (size < 0 || (size_t)size >= sizeof path) {
        cairn_error(err, CAIRN_USAGE, "scratch directory '%s' has too long a name", directory);
        return -1;
    }
    int fd = world->disk->openat(world->disk, AT_FDCWD, path,
                                 O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        cairn_error_errno(err, "unable to create a scratch file in '%s'", directory);
        cairn_error_hint(
            err,
            "set TMPDIR to a local directory with about 100 bytes of space a file of the cluster");
        return -1;
    }
    world->disk->unlinkat(world->disk, AT_FDCWD, path, 0);
    return fd;
}
