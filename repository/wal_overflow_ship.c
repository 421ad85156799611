/* From overflow-path into the repository. */
#include "repository/wal_overflow_intern.h"

#include <errno.h>
#include <fcntl.h>

static bool
ship_file(WalOverflow *overflow, WalStore *store, const char *file_name, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    char name[WAL_OVERFLOW_DIGEST_NAME_SIZE];
    bool existed, tail_differs;
    struct stat status;
    SCOPED_FD fd = wal_overflow_open_file(overflow, file_name, err);

    if (fd < 0 || !wal_overflow_copy_verified(overflow, fd, -1, file_name, err)) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err); /* another process shipped it, before now or at this moment */
        return true;
    }
    if (!wal_store_put(store, file_name, fd, &existed, &tail_differs, err))
        return false;
    wal_overflow_digest_name(name, file_name);
    if (disk->unlinkat(disk, overflow->fd, file_name, 0) != 0 && errno != ENOENT)
        return cairn_error_errno(err, "unable to remove '%s' from overflow-path", file_name);
    /* A push that put the file again at this moment needs the digest. */
    if (disk->fstatat(disk, overflow->fd, file_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return true;
    if (disk->unlinkat(disk, overflow->fd, name, 0) != 0 && errno != ENOENT)
        return cairn_error_errno(err, "unable to remove '%s' from overflow-path", name);
    return true;
}

bool
wal_overflow_ship(WalOverflow *overflow, WalStore *store, size_t limit, size_t *shipped_out,
                  CairnError *err)
{
    WalOverflowList list;

    *shipped_out = 0;
    for (;;) {
        if (!wal_overflow_list(overflow, &list, err))
            return false;
        if (list.queue.count == 0)
            return true;
        for (size_t i = 0; i < list.queue.count; i++) {
            if (*shipped_out == limit)
                return true;
            if (!ship_file(overflow, store, list.queue.names[i], err))
                return cairn_error_wrap(err, "unable to ship '%s' from overflow-path",
                                        list.queue.names[i]);
            (*shipped_out)++;
        }
    }
}
