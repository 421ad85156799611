/* What is in a directory of the repository: listing its objects, sweeping its leftovers. */
#include "storage/posix_intern.h"

#include "common/bytes.h"
#include "common/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

typedef bool EntryVisitor(const PosixStorage *storage, int directory_fd, const char *name,
                          void *context, bool *stop, CairnError *err);

/* Calls visit for every name in the directory `prefix` but "." and ".."; a missing one is empty. */
static bool
visit_directory(const PosixStorage *storage, const char *prefix, EntryVisitor *visit, void *context,
                CairnError *err)
{
    const int fd = posix_open_directory(storage, prefix, err);
    if (fd < 0) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return true;
    }
    SCOPED(Directory) directory = directory_open_fd(storage->world, fd);
    if (directory == NULL)
        return cairn_error_errno(err, "unable to list '%s/%s'", storage->root, prefix);

    const char *name;
    bool stop = false;
    while (!stop && (name = directory_next(directory)) != NULL) {
        if (!visit(storage, fd, name, context, &stop, err))
            return false;
    }
    return stop || directory_complete(directory) ||
           cairn_error_errno(err, "unable to list '%s/%s'", storage->root, prefix);
}

static int64_t
modified_us(const struct stat *status)
{
    return (int64_t)status->st_mtim.tv_sec * 1000000 + status->st_mtim.tv_nsec / 1000;
}

typedef struct {
    StorageListCallback *callback;
    void *context;
} ListVisit;

static bool
list_entry(const PosixStorage *storage, int directory_fd, const char *name, void *context,
           bool *stop, CairnError *err)
{
    const ListVisit *visit = context;
    const Disk *disk = storage->world->disk;
    if (!storage_name_valid(name))
        return true; /* leftovers, lost+found's friends, .snapshot: none is an object of ours */

    struct stat status = {0};
    const bool found = disk->fstatat(disk, directory_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
    if (!found && errno != ENOENT)
        return cairn_error_errno(err, "unable to examine '%s' in '%s'", name, storage->root);
    if (found && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return true;
    const bool is_object = found && S_ISREG(status.st_mode);
    const StorageEntry entry = {
        .name = name,
        .is_directory = found && !is_object,
        .size_bytes = is_object ? (uint64_t)status.st_size : 0,
        .modified_us = is_object ? modified_us(&status) : 0,
        .is_gone = !found,
    };
    switch (visit->callback(visit->context, &entry, err)) {
    case STORAGE_LIST_GO_ON:
        return true;
    case STORAGE_LIST_STOP:
        *stop = true;
        return true;
    case STORAGE_LIST_FAILED:
        break;
    }
    CAIRN_ASSERT(err->kind != CAIRN_OK);
    return false;
}

bool
posix_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
           CairnError *err)
{
    ListVisit visit = {callback, context};
    return visit_directory((PosixStorage *)base, prefix, list_entry, &visit, err);
}

/* ".<name>.<16 hex>.tmp", as create_temporary makes them; nothing else is ours to remove. */
static bool
is_leftover(const char *name)
{
    const size_t length = strlen(name);
    const size_t tail = 1 + 2 * (size_t)POSIX_TOKEN_SIZE + strlen(".tmp");
    uint8_t token[POSIX_TOKEN_SIZE];
    return name[0] == '.' && length > 1 + tail && name[length - tail] == '.' &&
           strcmp(name + length - strlen(".tmp"), ".tmp") == 0 &&
           hex_decode(token, sizeof token, name + length - tail + 1);
}

static bool
sweep_entry(const PosixStorage *storage, int directory_fd, const char *name, void *context,
            bool *stop, CairnError *err)
{
    (void)stop;
    const int64_t older_than_us = *(const int64_t *)context;
    const Disk *disk = storage->world->disk;
    struct stat status;
    if (!is_leftover(name))
        return true;
    if (disk->fstatat(disk, directory_fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT)
            return true;
        return cairn_error_errno(err, "unable to examine '%s' in '%s'", name, storage->root);
    }
    if (!S_ISREG(status.st_mode) || modified_us(&status) >= older_than_us)
        return true;
    if (disk->unlinkat(disk, directory_fd, name, 0) != 0 && errno != ENOENT)
        return cairn_error_errno(err, "unable to remove leftover '%s' in '%s'", name,
                                 storage->root);
    return true;
}

bool
posix_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err)
{
    return visit_directory((PosixStorage *)base, prefix, sweep_entry, &older_than_us, err);
}
