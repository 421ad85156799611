/* WAL that only the old data directory has, into the repository before it is replaced. */
#include "restore/wal_files.h"

#include "common/cancel.h"
#include "common/directory.h"
#include "common/file.h"
#include "common/log.h"
#include "postgres/wal_page.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    WalStore *store;
    const World *world;
    int wal_fd;
    int status_fd;
    bool status_missing; /* there is no archive_status: what is archived nobody can tell */
    uint64_t checkpoint_lsn;
    Rescued *rescued;
    uint32_t partial_timeline; /* of rescued->partial */
    WalFilesOwner *owner;      /* of the search for it */
    bool any_waits;
} Rescue;

static int
open_wal(const Rescue *rescue, const char *name)
{
    const Disk *disk = rescue->world->disk;

    return disk->openat(disk, rescue->wal_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
                        0);
}

static bool
put_file(Rescue *rescue, const char *name, const char *archive_name, CairnError *err)
{
    bool existed;
    bool tail_differs;

    SCOPED_FD fd = open_wal(rescue, name);
    if (fd < 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal/%s'", name);
    if (!wal_store_put(rescue->store, archive_name, fd, &existed, &tail_differs, err))
        return cairn_error_wrap(err, "unable to rescue 'pg_wal/%s'", name);
    if (!existed) {
        log_info("rescued %s, which was not archived yet", archive_name);
        rescue->rescued->count++;
    }
    return true;
}

/* What cannot be read says nothing, and is no reason to ask no other. */
static bool
read_identity(const Rescue *rescue, const char *name, WalIdentity *identity_out)
{
    uint8_t page[WAL_LONG_HEADER_SIZE];
    CairnError ignored = {0};

    SCOPED_FD fd = open_wal(rescue, name);
    return fd >= 0 &&
           file_pread(rescue->world, fd, page, sizeof page, 0, "a WAL segment", &ignored) &&
           wal_identity_read(page, sizeof page, identity_out, &ignored);
}

/* A status that cannot be looked at is no absent one: the old directory is replaced afterwards. */
static bool
has_status(const Rescue *rescue, const char *name, const char *status, bool *has_out,
           CairnError *err)
{
    char path[WAL_FILE_NAME_LIMIT + 8];
    struct stat unused;
    snprintf(path, sizeof path, "%s%s", name, status);
    *has_out = rescue->world->disk->fstatat(rescue->world->disk, rescue->status_fd, path, &unused,
                                            AT_SYMLINK_NOFOLLOW) == 0;
    return *has_out || errno == ENOENT ||
           cairn_error_errno(err, "unable to examine 'pg_wal/archive_status/%s'", path);
}

/* Of several, the first of the newest timeline is told: an older one ended before. */
static void
note_partial(Rescue *rescue, const char *partial, uint32_t timeline, uint64_t start_lsn)
{
    Rescued *rescued = rescue->rescued;
    const bool first = rescued->partial[0] == '\0' || timeline > rescue->partial_timeline;

    if (!first && (timeline < rescue->partial_timeline || start_lsn >= rescued->partial_lsn))
        return;
    snprintf(rescued->partial, sizeof rescued->partial, "%s", partial);
    rescued->partial_lsn = start_lsn;
    rescue->partial_timeline = timeline;
}

static bool
put_partial(Rescue *rescue, const char *name, CairnError *err)
{
    const uint32_t segment_size = wal_store_incarnation(rescue->store)->wal_segment_size;
    char partial[WAL_NAME_SIZE + 8];
    uint32_t timeline;
    uint64_t number;

    if (!wal_segment_parse(name, segment_size, &timeline, &number))
        return true;
    snprintf(partial, sizeof partial, "%s.partial", name);
    if (!put_file(rescue, name, partial, err))
        return false;
    note_partial(rescue, partial, timeline, number * segment_size);
    return true;
}

/* The one that was being written, or one that is only kept to be written later (then it is no WAL).
 */
static bool
put_unfinished(Rescue *rescue, const char *name, CairnError *err)
{
    const uint32_t segment_size = wal_store_incarnation(rescue->store)->wal_segment_size;
    uint32_t timeline;
    uint64_t number;
    CairnError problem = {0};

    if (!wal_segment_parse(name, segment_size, &timeline, &number) ||
        (!rescue->status_missing &&
         number < wal_segment_of(rescue->checkpoint_lsn, segment_size))) {
        return true;
    }
    if (put_partial(rescue, name, &problem))
        return true;
    if (problem.kind == CAIRN_MISMATCH || problem.kind == CAIRN_CORRUPT)
        return true;
    *err = problem;
    return false;
}

/* Was the next segment begun? Its first page is written when this one is full and synced; in one
 * that is only kept to be written later, that page is another place's. */
static bool
is_followed(const Rescue *rescue, const char *name)
{
    const Incarnation *incarnation = wal_store_incarnation(rescue->store);
    const uint32_t segment_size = incarnation->wal_segment_size;
    char next[WAL_NAME_SIZE];
    WalIdentity identity;
    uint32_t timeline;
    uint64_t number;

    if (!wal_segment_parse(name, segment_size, &timeline, &number) ||
        number >= wal_segment_of(UINT64_MAX, segment_size)) /* there is no next one */
        return false;
    wal_segment_name(next, timeline, number + 1, segment_size);
    return read_identity(rescue, next, &identity) && identity.system_id == incarnation->system_id &&
           identity.major == incarnation->major && identity.timeline == timeline &&
           identity.lsn == (number + 1) * segment_size;
}

static bool
is_foreign(const Rescue *rescue, const char *name)
{
    const Incarnation *ours = wal_store_incarnation(rescue->store);
    WalIdentity identity;

    return read_identity(rescue, name, &identity) &&
           (identity.system_id != ours->system_id || identity.major != ours->major);
}

/* Is it stored, with the same records? Nothing is to be done then. */
static bool
is_archived(Rescue *rescue, const char *name, bool *archived_out, CairnError *err)
{
    CairnError difference = {0};
    bool present;

    if (!wal_store_has(rescue->store, name, &present, err))
        return false;
    *archived_out = present && put_file(rescue, name, name, &difference);
    if (difference.kind == CAIRN_OK || difference.kind == CAIRN_CONFLICT ||
        difference.kind == CAIRN_MISMATCH || difference.kind == CAIRN_CORRUPT)
        return true;
    *err = difference;
    return false;
}

/*
 * In a copy of a running server's directory half a segment may lie beside the next one, which was
 * copied later. As a whole one it would end every recovery there, without a word.
 */
static bool
put_followed(Rescue *rescue, const char *name, CairnError *err)
{
    bool finished;

    SCOPED_FD fd = open_wal(rescue, name);
    if (fd < 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal/%s'", name);
    if (!wal_store_is_finished(rescue->store, name, fd, &finished, err))
        return cairn_error_wrap(err, "unable to rescue 'pg_wal/%s'", name);
    if (finished)
        return put_file(rescue, name, name, err);
    if (!put_partial(rescue, name, err))
        return false;
    log_warn("the old 'pg_wal/%s' breaks off, though the next segment was begun: it is stored as "
             ".partial",
             name);
    return true;
}

/* As if it waited: it is never wrong to keep too much. But one that was being written must not
 * stand for the whole segment. */
static bool
rescue_unknown(Rescue *rescue, const char *name, WalFileKind kind, CairnError *err)
{
    const uint32_t segment_size = wal_store_incarnation(rescue->store)->wal_segment_size;
    uint32_t timeline;
    uint64_t number;
    bool archived;

    /* Another system's is refused: what a server keeps to be written later was its own once. */
    if (kind != WAL_FILE_SEGMENT || is_foreign(rescue, name))
        return put_file(rescue, name, name, err);
    if (!wal_segment_parse(name, segment_size, &timeline, &number))
        return true; /* no segment of this system */
    if (!is_archived(rescue, name, &archived, err))
        return false;
    if (archived)
        return true;
    return is_followed(rescue, name) ? put_followed(rescue, name, err)
                                     : put_unfinished(rescue, name, err);
}

static bool
rescue_file(Rescue *rescue, const char *name, CairnError *err)
{
    WalFileName parsed;
    CairnError ignored = {0};
    bool done, ready;

    if (!wal_file_name_parse(name, &parsed, &ignored))
        return true; /* nothing that PostgreSQL would archive */
    if (rescue->status_missing)
        return rescue_unknown(rescue, name, parsed.kind, err);
    if (!has_status(rescue, name, ".done", &done, err) ||
        !has_status(rescue, name, ".ready", &ready, err))
        return false;
    if (done)
        return true;
    if (ready)
        return put_file(rescue, name, name, err);
    return parsed.kind != WAL_FILE_SEGMENT || put_unfinished(rescue, name, err);
}

/* An entry of pg_wal, by its name. */
typedef bool WalVisitor(Rescue *rescue, const char *name, CairnError *err);

/* Of an old directory without pg_wal there is nothing to visit. */
static bool
visit_wal(Rescue *rescue, int pgdata_fd, WalVisitor *visitor, CairnError *err)
{
    const Disk *disk = rescue->world->disk;
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

    /* pg_wal is often a symbolic link to another disk. */
    SCOPED_FD wal_fd = disk->openat(disk, pgdata_fd, "pg_wal", flags, 0);
    if (wal_fd < 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal'");
    SCOPED_FD status_fd = disk->openat(disk, wal_fd, "archive_status", flags, 0);
    rescue->status_missing = status_fd < 0 && errno == ENOENT;
    if (status_fd < 0 && !rescue->status_missing)
        return cairn_error_errno(err, "unable to open 'pg_wal/archive_status'");
    SCOPED(Directory) directory = directory_open(rescue->world, wal_fd, ".", 0);
    if (directory == NULL)
        return cairn_error_errno(err, "unable to list 'pg_wal'");
    rescue->wal_fd = wal_fd;
    rescue->status_fd = status_fd;
    const char *name;
    while ((name = directory_next(directory)) != NULL) {
        if (strlen(name) < WAL_FILE_NAME_LIMIT && !visitor(rescue, name, err))
            return false;
    }
    return directory_complete(directory) || cairn_error_errno(err, "unable to list 'pg_wal'");
}

bool
wal_files_rescue(WalStore *store, const World *world, int pgdata_fd, uint64_t checkpoint_lsn,
                 Rescued *rescued_out, CairnError *err)
{
    Rescue rescue = {
        .store = store, .world = world, .checkpoint_lsn = checkpoint_lsn, .rescued = rescued_out};
    *rescued_out = (Rescued){0};
    const bool done = visit_wal(&rescue, pgdata_fd, rescue_file, err);
    if (rescue.status_missing)
        log_warn("the old directory has no pg_wal/archive_status: which of its WAL was archived "
                 "cannot be told, so all of it is stored that the repository lacks");
    return done;
}

static bool
ask_file(Rescue *rescue, const char *name, CairnError *err)
{
    WalFilesOwner *owner = rescue->owner;
    WalFileName parsed;
    WalIdentity identity;
    CairnError ignored = {0};

    if (!cancel_check(err))
        return false;
    if (!wal_file_name_parse(name, &parsed, &ignored))
        return true;
    bool waits = true;
    if (!rescue->status_missing && !has_status(rescue, name, ".ready", &waits, err))
        return false;
    if (parsed.kind == WAL_FILE_SEGMENT && (!owner->identified || (waits && !owner->waits)) &&
        read_identity(rescue, name, &identity)) {
        owner->identified = true;
        owner->system_id = identity.system_id;
        owner->major = identity.major;
        owner->waits = waits;
    }
    rescue->any_waits = rescue->any_waits || waits;
    return true;
}

bool
wal_files_find_owner(const World *world, int pgdata_fd, WalFilesOwner *owner_out, CairnError *err)
{
    WalFilesOwner owner = {0};
    Rescue rescue = {.world = world, .owner = &owner};

    if (!visit_wal(&rescue, pgdata_fd, ask_file, err))
        return false;
    owner.waits = rescue.any_waits;
    *owner_out = owner;
    return true;
}
