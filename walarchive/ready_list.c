#include "walarchive/ready_list.h"

#include "common/directory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define STATUS_DIRECTORY "pg_wal/archive_status"
#define READY_SUFFIX ".ready"

/* "<name>.ready" becomes a name that PostgreSQL would archive; false for anything else. */
static bool
ready_name(const char *entry, char name[WAL_FILE_NAME_LIMIT], WalFileName *file)
{
    const size_t size = strlen(entry);
    const size_t suffix = strlen(READY_SUFFIX);
    CairnError ignored = {0};

    if (size <= suffix || size - suffix >= WAL_FILE_NAME_LIMIT ||
        strcmp(entry + size - suffix, READY_SUFFIX) != 0)
        return false;
    snprintf(name, WAL_FILE_NAME_LIMIT, "%.*s", (int)(size - suffix), entry);
    return wal_file_name_parse(name, file, &ignored);
}

bool
ready_list_read(const World *world, int pgdata_fd, ReadyList *list_out, CairnError *err)
{
    SCOPED(Directory) directory = directory_open(world, pgdata_fd, STATUS_DIRECTORY, 0);
    const char *entry;
    char name[WAL_FILE_NAME_LIMIT];
    WalFileName file;

    if (directory == NULL)
        return cairn_error_errno(err, "unable to open '" STATUS_DIRECTORY "'");
    *list_out = (ReadyList){0};
    while ((entry = directory_next(directory)) != NULL) {
        if (ready_name(entry, name, &file))
            archive_queue_add(list_out, name);
    }
    return directory_complete(directory) ||
           cairn_error_errno(err, "unable to read '" STATUS_DIRECTORY "'");
}

bool
ready_list_has_other(const World *world, int pgdata_fd, const char *name)
{
    SCOPED(Directory) directory = directory_open(world, pgdata_fd, STATUS_DIRECTORY, 0);
    const char *entry;
    char other[WAL_FILE_NAME_LIMIT];
    WalFileName file;
    bool found = false;

    while (!found && directory != NULL && (entry = directory_next(directory)) != NULL)
        found = ready_name(entry, other, &file) && strcmp(other, name) != 0;
    return found;
}

bool
ready_list_holds(const World *world, int pgdata_fd, const char *name)
{
    char path[WAL_FILE_NAME_LIMIT + sizeof STATUS_DIRECTORY + sizeof READY_SUFFIX];
    struct stat status;

    snprintf(path, sizeof path, STATUS_DIRECTORY "/%.63s" READY_SUFFIX, name);
    return world->disk->fstatat(world->disk, pgdata_fd, path, &status, 0) == 0 || errno != ENOENT;
}
