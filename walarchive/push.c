#include "walarchive/push.h"

#include "common/file.h"
#include "postgres/wal_name.h"
#include "postgres/wal_page.h"
#include "repository/identity.h"
#include "repository/incarnation.h"
#include "repository/wal_store.h"
#include "walarchive/data_directory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Whose WAL the file is. */
typedef struct {
    uint64_t system_id;
    int major;
} Origin;

static bool
origin_from_page(const World *world, int fd, const char *path, Origin *origin_out, CairnError *err)
{
    uint8_t page[WAL_LONG_HEADER_SIZE];
    WalIdentity identity;

    if (!file_pread(world, fd, page, sizeof page, 0, path, err))
        return false;
    if (!wal_identity_read(page, sizeof page, &identity, err))
        return cairn_error_wrap(err, "'%s'", path);
    *origin_out = (Origin){.system_id = identity.system_id, .major = identity.major};
    return true;
}

static bool
origin_from_control(const World *world, int pgdata_fd, Origin *origin_out, CairnError *err)
{
    ControlFile control;

    if (!data_directory_control(world, pgdata_fd, &control, err))
        return false;
    *origin_out = (Origin){.system_id = control.system_id, .major = control.major};
    return true;
}

static bool
find_origin(const World *world, int pgdata_fd, int fd, const char *path, const char *file_name,
            Origin *origin_out, CairnError *err)
{
    WalFileName file;

    if (!wal_file_name_parse(file_name, &file, err))
        return false;
    if (file.kind == WAL_FILE_SEGMENT || file.kind == WAL_FILE_PARTIAL)
        return origin_from_page(world, fd, path, origin_out, err);
    return origin_from_control(world, pgdata_fd, origin_out, err);
}

static int
open_file(const World *world, const char *path, CairnError *err)
{
    /* O_NONBLOCK, so that a FIFO cannot hang us before it is refused. */
    const int fd = world->disk->openat(world->disk, AT_FDCWD, path,
                                       O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, 0);

    if (fd < 0)
        cairn_error_errno(err, "unable to open '%s'", path);
    return fd;
}

/* The systems that the cluster has been, for a message; "" when there is none. */
static bool
describe_known(Repository *repository, const char *cluster, char *text, size_t size,
               CairnError *err)
{
    Incarnation known[INCARNATION_LIMIT];
    size_t count = 0;
    size_t used = 0;

    text[0] = '\0';
    if (!incarnation_list(repository, cluster, known, &count, err))
        return false;
    for (size_t i = 0; i < count && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%ssystem %" PRIu64 " of PostgreSQL %d",
                                 i > 0 ? ", " : "", known[i].system_id, known[i].major);
    }
    return true;
}

/* The guard against a wrong server: its system must have been made known by `pgcairn init`. */
static bool
find_incarnation(Repository *repository, const char *cluster, const Origin *origin,
                 Incarnation *incarnation_out, CairnError *err)
{
    char known[512];

    if (incarnation_get(repository, cluster, origin->system_id, origin->major, incarnation_out,
                        err))
        return true;
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    if (!describe_known(repository, cluster, known, sizeof known, err))
        return false;
    cairn_error(err, CAIRN_MISMATCH,
                "this WAL belongs to system %" PRIu64
                " of PostgreSQL %d, the repository knows %s as "
                "cluster '%s'",
                origin->system_id, origin->major, known[0] != '\0' ? known : "no system", cluster);
    return cairn_error_hint(err,
                            "if this server is meant to archive as '%s', run `pgcairn init` on it; "
                            "otherwise its archive_command is another server's",
                            cluster);
}

static bool
store(const World *world, const WalPush *push, const char *file_name, int fd, const Origin *origin,
      WalPushed *pushed_out, CairnError *err)
{
    Incarnation incarnation;
    SCOPED(Repository) repository = repository_open(world, push->repository, err);

    if (repository == NULL ||
        !find_incarnation(repository, push->cluster, origin, &incarnation, err))
        return false;
    SCOPED(WalStore) wal = wal_store_open(repository, push->cluster, &incarnation, err);
    return wal != NULL &&
           wal_store_put(wal, file_name, fd, &pushed_out->existed, &pushed_out->tail_differs, err);
}

bool
wal_push(const World *world, const WalPush *push, WalPushed *pushed_out, CairnError *err)
{
    const char *slash = strrchr(push->path, '/');
    const char *file_name = slash != NULL ? slash + 1 : push->path;
    Origin origin;

    SCOPED_FD pgdata_fd = data_directory_open(world, push->pgdata, push->path, err);
    if (pgdata_fd < 0 || !identity_may_archive(world, pgdata_fd, push->cluster, err))
        return false;
    SCOPED_FD fd = open_file(world, push->path, err);
    return fd >= 0 && find_origin(world, pgdata_fd, fd, push->path, file_name, &origin, err) &&
           store(world, push, file_name, fd, &origin, pushed_out, err);
}
