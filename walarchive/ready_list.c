#include "walarchive/ready_list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define STATUS_DIRECTORY "pg_wal/archive_status"
#define READY_SUFFIX ".ready"

static DIR *
open_status(const World *world, int pgdata_fd, CairnError *err)
{
    const Disk *disk = world->disk;
    const int fd =
        disk->openat(disk, pgdata_fd, STATUS_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    DIR *directory = fd >= 0 ? disk->opendir(disk, fd) : NULL;

    if (directory == NULL) {
        cairn_error_errno(err, "unable to open '" STATUS_DIRECTORY "'");
        if (fd >= 0)
            disk->close(disk, fd);
    }
    return directory;
}

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

static bool
is_history(const char *name)
{
    enum { TIMELINE_DIGITS = 8 };
    return strcmp(name + strnlen(name, TIMELINE_DIGITS), ".history") == 0;
}

/* As ready_file_comparator of the server's pgarch.c. */
static bool
comes_before(const char *left, const char *right)
{
    if (is_history(left) != is_history(right))
        return is_history(left);
    return strcmp(left, right) < 0;
}

static void
keep_first(ReadyList *list, const char *name)
{
    list->total++;
    if (list->count == READY_LIMIT) {
        if (!comes_before(name, list->names[READY_LIMIT - 1]))
            return;
        list->count--;
    }
    size_t at = list->count++;
    for (; at > 0 && comes_before(name, list->names[at - 1]); at--)
        memcpy(list->names[at], list->names[at - 1], sizeof list->names[at]);
    snprintf(list->names[at], sizeof list->names[at], "%s", name);
}

bool
ready_list_read(const World *world, int pgdata_fd, ReadyList *list_out, CairnError *err)
{
    DIR *directory = open_status(world, pgdata_fd, err);
    const struct dirent *entry;
    char name[WAL_FILE_NAME_LIMIT];
    WalFileName file;

    if (directory == NULL)
        return false;
    list_out->count = 0;
    list_out->total = 0;
    errno = 0;
    while ((entry = world->disk->readdir(world->disk, directory)) != NULL) {
        if (ready_name(entry->d_name, name, &file))
            keep_first(list_out, name);
        errno = 0;
    }
    const bool complete =
        errno == 0 || cairn_error_errno(err, "unable to read '" STATUS_DIRECTORY "'");
    world->disk->closedir(world->disk, directory);
    return complete;
}

bool
ready_list_has_other(const World *world, int pgdata_fd, const char *name)
{
    CairnError ignored = {0};
    DIR *directory = open_status(world, pgdata_fd, &ignored);
    const struct dirent *entry;
    char other[WAL_FILE_NAME_LIMIT];
    WalFileName file;
    bool found = false;

    if (directory == NULL)
        return false;
    while (!found && (entry = world->disk->readdir(world->disk, directory)) != NULL)
        found = ready_name(entry->d_name, other, &file) && strcmp(other, name) != 0;
    world->disk->closedir(world->disk, directory);
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
