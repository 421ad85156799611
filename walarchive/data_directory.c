#include "walarchive/data_directory.h"

#include "common/file.h"
#include "common/scoped.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define CONTROL_FILE_NAME "global/pg_control"

/* "/data/pg_wal/FILE" becomes "/data"; false for anything else. */
static bool
directory_of_wal_path(const char *path, char directory[PATH_MAX])
{
    static const char wal_directory[] = "/pg_wal";
    const char *file = strrchr(path, '/');

    if (file == NULL || (size_t)(file - path) >= PATH_MAX)
        return false;
    snprintf(directory, PATH_MAX, "%.*s", (int)(file - path), path);
    const size_t size = strlen(directory);
    const size_t tail = strlen(wal_directory);
    if (size <= tail || strcmp(directory + size - tail, wal_directory) != 0)
        return false;
    directory[size - tail] = '\0';
    return true;
}

static bool
choose_directory(const char *pgdata, const char *path, char directory[PATH_MAX], CairnError *err)
{
    if (pgdata != NULL) {
        if (snprintf(directory, PATH_MAX, "%s", pgdata) >= PATH_MAX)
            return cairn_error(err, CAIRN_USAGE, "the data directory's path is too long");
        return true;
    }
    if (path[0] != '/') {
        snprintf(directory, PATH_MAX, ".");
        return true;
    }
    if (directory_of_wal_path(path, directory))
        return true;
    cairn_error(err, CAIRN_USAGE, "'%s' does not tell the data directory", path);
    return cairn_error_hint(
        err, "pass %%p as PostgreSQL gives it, or name the data directory with --pgdata");
}

int
data_directory_open(const World *world, const char *pgdata, const char *path, CairnError *err)
{
    const Disk *disk = world->disk;
    char directory[PATH_MAX];
    struct stat status;

    if (!choose_directory(pgdata, path, directory, err))
        return -1;
    const int fd = disk->openat(disk, AT_FDCWD, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) {
        cairn_error_errno(err, "unable to open the data directory '%s'", directory);
        return -1;
    }
    if (disk->fstatat(disk, fd, CONTROL_FILE_NAME, &status, 0) != 0) {
        cairn_error_errno(err, "'%s' is not a data directory: unable to find '%s'", directory,
                          CONTROL_FILE_NAME);
        cairn_error_hint(
            err, "run it where PostgreSQL runs it, in the data directory, or name that with "
                 "--pgdata");
        disk->close(disk, fd);
        return -1;
    }
    return fd;
}

bool
data_directory_control(const World *world, int pgdata_fd, ControlFile *control_out, CairnError *err)
{
    return control_read(world, pgdata_fd, control_out, err);
}
