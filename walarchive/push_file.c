/* One file: whose it is, where it goes, and what is remembered of it. */
#include "common/file.h"
#include "postgres/wal_page.h"
#include "storage/connect.h"
#include "walarchive/data_directory.h"
#include "walarchive/push_intern.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const int64_t RECALL_LIMIT_US = INT64_C(300) * 1000000;

static bool
origin_from_page(WalSource *source, const char *path, CairnError *err)
{
    uint8_t page[WAL_LONG_HEADER_SIZE];
    WalIdentity identity;

    if (!file_pread(source->world, source->fd, page, sizeof page, 0, path, err))
        return false;
    if (!wal_identity_read(page, sizeof page, &identity, err))
        return cairn_error_wrap(err, "'%s'", path);
    source->system_id = identity.system_id;
    source->major = identity.major;
    return true;
}

static bool
origin_from_control(WalSource *source, int pgdata_fd, CairnError *err)
{
    ControlFile control;

    if (!data_directory_control(source->world, pgdata_fd, &control, err))
        return false;
    source->system_id = control.system_id;
    source->major = control.major;
    return true;
}

static bool
find_origin(WalSource *source, int pgdata_fd, const char *path, CairnError *err)
{
    WalFileName file;

    if (!wal_file_name_parse(source->name, &file, err))
        return false;
    if (file.kind == WAL_FILE_SEGMENT || file.kind == WAL_FILE_PARTIAL)
        return origin_from_page(source, path, err);
    return origin_from_control(source, pgdata_fd, err);
}

bool
wal_source_open(WalSource *source, const World *world, int pgdata_fd, int directory_fd,
                const char *path, CairnError *err)
{
    const char *slash = strrchr(path, '/');

    *source = (WalSource){.world = world, .name = slash != NULL ? slash + 1 : path};
    /* O_NONBLOCK, so that a FIFO cannot hang us before it is refused. */
    source->fd = world->disk->openat(world->disk, directory_fd, path,
                                     O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, 0);
    if (source->fd < 0)
        return cairn_error_errno(err, "unable to open '%s'", path);
    return find_origin(source, pgdata_fd, path, err);
}

bool
wal_source_check(const WalSource *source, CairnError *err)
{
    uint8_t page[WAL_LONG_HEADER_SIZE];
    char name[WAL_NAME_SIZE];
    WalIdentity identity;
    WalFileName file;
    struct stat status;

    if (!wal_file_name_parse(source->name, &file, err))
        return false;
    if (file.kind != WAL_FILE_SEGMENT && file.kind != WAL_FILE_PARTIAL)
        return true;
    if (!file_pread(source->world, source->fd, page, sizeof page, 0, source->name, err) ||
        !wal_identity_read(page, sizeof page, &identity, err))
        return false;
    if (source->world->disk->fstat(source->world->disk, source->fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine '%s'", source->name);
    wal_segment_name(name, file.timeline, identity.lsn / identity.segment_size,
                     identity.segment_size);
    if ((uint64_t)status.st_size != identity.segment_size ||
        strncmp(name, source->name, sizeof name - 1) != 0)
        return cairn_error(err, CAIRN_MISMATCH, "'%s' is not the segment that its name says",
                           source->name);
    return true;
}

void
wal_source_close(WalSource *source)
{
    if (source->world != NULL && source->fd >= 0)
        source->world->disk->close(source->world->disk, source->fd);
    source->fd = -1;
}

/* -- the place */

/* The systems that the cluster has been, for a message; "" when there is none. */
static bool
describe_known(Repository *repository, const char *cluster, char *text, size_t size,
               CairnError *err)
{
    Incarnation known[INCARNATION_LIMIT];
    IncarnationTrouble ignored; /* ours is not among them: it was not found */
    size_t count = 0;
    size_t used = 0;

    text[0] = '\0';
    if (!incarnation_list(repository, cluster, known, &count, &ignored, err))
        return false;
    for (size_t i = 0; i < count && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%ssystem %" PRIu64 " of PostgreSQL %d",
                                 i > 0 ? ", " : "", known[i].system_id, known[i].major);
    }
    return true;
}

/* The guard against a wrong server: its system must have been made known by `pgcairn init`. */
static bool
find_incarnation(WalPlace *place, const WalSource *source, CairnError *err)
{
    char known[512];

    if (incarnation_get(place->repository, place->cluster, source->system_id, source->major,
                        &place->incarnation, err))
        return true;
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    if (!describe_known(place->repository, place->cluster, known, sizeof known, err))
        return false;
    cairn_error(
        err, CAIRN_MISMATCH,
        "this WAL belongs to system %" PRIu64 " of PostgreSQL %d, the repository knows %s as "
        "cluster '%s'",
        source->system_id, source->major, known[0] != '\0' ? known : "no system", place->cluster);
    return cairn_error_hint(err,
                            "if this server is meant to archive as '%s', run `pgcairn init` on it; "
                            "otherwise its archive_command is another server's",
                            place->cluster);
}

bool
wal_place_open(WalPlace *place, const WalSource *source, CairnError *err)
{
    if (place->store != NULL && place->incarnation.system_id == source->system_id &&
        place->incarnation.major == source->major)
        return true;
    wal_place_close(place);
    if (!find_incarnation(place, source, err))
        return false;
    place->store = wal_store_open(place->repository, place->cluster, &place->incarnation, err);
    return place->store != NULL;
}

void
wal_place_close(WalPlace *place)
{
    wal_store_close(place->store);
    place->store = NULL;
}

/* -- the file in its place */

static bool
make_claim(const WalPlace *place, const WalSource *source, SpoolClaim *claim_out, CairnError *err)
{
    *claim_out = (SpoolClaim){
        .repository_id = repository_id(place->repository),
        .cluster = place->cluster,
        .incarnation = &place->incarnation,
        .file_name = source->name,
        .mark = repository_mark(place->repository),
    };
    return file_identity_read(source->world, source->fd, source->name, &claim_out->file, err);
}

bool
wal_place_holds(WalPlace *place, const WalSource *source)
{
    SpoolClaim claim;
    CairnError ignored = {0};

    /* The object itself is looked at: a repository that was rolled back keeps its id. */
    return place->spool != NULL && spool_has(place->spool, source->name) &&
           make_claim(place, source, &claim, &ignored) &&
           wal_store_object_size(place->store, source->name, &claim.object_size, &ignored) &&
           spool_remembers(place->spool, &claim);
}

/* The object itself, as in wal_place_holds. */
static bool
is_stored(const WalPush *push, const WalSource *source, uint64_t expected_size)
{
    CairnError ignored = {0};
    uint64_t size;
    SCOPED(Storage) storage = storage_connect(source->world, push->repository, false, &ignored);

    return storage != NULL &&
           wal_store_segment_size(storage, push->cluster, source->system_id, source->major,
                                  source->name, &size, &ignored) &&
           size == expected_size;
}

bool
wal_push_recalls(const Spool *spool, const WalPush *push, const WalSource *source)
{
    const bool is_near = storage_is_directory(push->repository);
    const Incarnation incarnation = {.system_id = source->system_id, .major = source->major};
    SpoolClaim claim = {
        .cluster = push->cluster, .incarnation = &incarnation, .file_name = source->name};
    CairnError ignored = {0};
    uint64_t object_size;

    if (!spool_has(spool, source->name) ||
        (is_near && !repository_mark_now(source->world, push->repository, &claim.mark)))
        return false;
    return file_identity_read(source->world, source->fd, source->name, &claim.file, &ignored) &&
           spool_recalls(spool, &claim, is_near ? INT64_MAX : RECALL_LIMIT_US, &object_size) &&
           (!is_near || is_stored(push, source, object_size));
}

/* True when any change of the file from now on will show. */
static bool
settle(const WalPlace *place, const WalSource *source, bool wait, SpoolClaim *claim)
{
    CairnError ignored = {0};

    if (!make_claim(place, source, claim, &ignored))
        return false;
    const int64_t left_ns = file_identity_settles_ns(source->world, &claim->file);
    if (left_ns <= 0 || !wait)
        return left_ns == 0;
    source->world->clock->sleep_ms(source->world->clock, left_ns / 1000000 + 1);
    return make_claim(place, source, claim, &ignored) &&
           file_identity_settles_ns(source->world, &claim->file) == 0;
}

/* What cannot be remembered is pushed again, no more. */
static void
remember(const WalPlace *place, const WalSource *source, const SpoolClaim *before)
{
    SpoolClaim after;
    CairnError ignored = {0};

    if (!make_claim(place, source, &after, &ignored) ||
        !file_identity_equal(&before->file, &after.file) ||
        !wal_store_object_size(place->store, source->name, &after.object_size, &ignored) ||
        !spool_remember(place->spool, &after, &ignored))
        return;
}

bool
wal_place_put(WalPlace *place, const WalSource *source, bool wait, WalPushed *pushed_out,
              CairnError *err)
{
    SpoolClaim claim;
    const bool settled = place->spool != NULL && settle(place, source, wait, &claim);

    if (!wal_store_put(place->store, source->name, source->fd, &pushed_out->existed,
                       &pushed_out->tail_differs, err))
        return false;
    if (settled)
        remember(place, source, &claim);
    return true;
}
