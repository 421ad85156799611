#include "restore/wal_files.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static uint64_t
first_segment(const Fate *backup)
{
    return wal_segment_of(backup->start_lsn, backup->wal_segment_size);
}

static uint64_t
last_segment(const Fate *backup)
{
    return wal_segment_before(backup->stop_lsn, backup->wal_segment_size);
}

uint64_t
wal_files_count(const RestorePlan *plan)
{
    const Fate *backup = plan->backup->fate;
    return last_segment(backup) - first_segment(backup) + 1;
}

static bool
lay_file(WalStore *store, const char *name, const World *world, TargetDirectory *directory,
         CairnError *err)
{
    const Disk *disk = world->disk;
    char done[96];

    DirectoryHandle *parent = target_directory_enter(directory, "pg_wal", err);
    if (parent == NULL)
        return false;
    const int fd =
        disk->openat(disk, directory_handle_fd(parent), name,
                     O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    directory_handle_release(parent);
    if (fd < 0)
        return cairn_error_errno(err, "unable to create 'pg_wal/%s'", name);
    bool good = wal_store_fetch(store, name, fd, err);
    if (disk->close(disk, fd) != 0 && good)
        good = cairn_error_errno(err, "unable to close 'pg_wal/%s'", name);
    /* The server need not archive again what came from the archive. */
    snprintf(done, sizeof done, "pg_wal/archive_status/%s.done", name);
    return good && target_directory_write(directory, done, "", 0, S_IRUSR | S_IWUSR, err);
}

/* A segment in which the timeline changed lies under the newer one's name. */
static void
needed_name(char name[WAL_NAME_SIZE], const RestorePlan *plan, uint64_t number)
{
    const Fate *backup = plan->backup->fate;
    const uint64_t end = (number + 1) * backup->wal_segment_size;
    const uint64_t last_lsn = (end < backup->stop_lsn ? end : backup->stop_lsn) - 1;
    wal_segment_name(name, timeline_history_at(plan->path, last_lsn), number,
                     backup->wal_segment_size);
}

bool
wal_files_check(WalStore *store, const RestorePlan *plan, CairnError *err)
{
    const Fate *backup = plan->backup->fate;

    for (uint64_t number = first_segment(backup); number <= last_segment(backup); number++) {
        char name[WAL_NAME_SIZE];
        needed_name(name, plan, number);
        if (!wal_store_verify(store, name, err)) {
            cairn_error_hint(err, "nothing was changed; `pgcairn verify` lists what is damaged, "
                                  "--set LABEL takes another backup");
            return cairn_error_wrap(err, "WAL that backup %s itself needs", backup->label);
        }
    }
    return true;
}

bool
wal_files_lay(WalStore *store, const RestorePlan *plan, const World *world,
              TargetDirectory *directory, CairnError *err)
{
    const Fate *backup = plan->backup->fate;

    for (uint64_t number = first_segment(backup); number <= last_segment(backup); number++) {
        char name[WAL_NAME_SIZE];
        needed_name(name, plan, number);
        if (!lay_file(store, name, world, directory, err))
            return false;
    }
    for (size_t i = 1; i < plan->path->stretch_count; i++) {
        const uint32_t timeline = plan->path->stretches[i].timeline;
        char name[32];
        bool present;
        snprintf(name, sizeof name, "%08X.history", timeline);
        if (timeline > backup->stop_timeline)
            break;
        if (!wal_store_has(store, name, &present, err) ||
            (present && !lay_file(store, name, world, directory, err))) {
            return false;
        }
    }
    return true;
}

typedef struct {
    WalStore *store;
    const World *world;
    int wal_fd;
    int status_fd;
    uint64_t checkpoint_lsn;
    Rescued *rescued;
} Rescue;

static bool
put_file(Rescue *rescue, const char *name, const char *archive_name, CairnError *err)
{
    const Disk *disk = rescue->world->disk;
    bool existed;
    bool tail_differs;

    const int fd =
        disk->openat(disk, rescue->wal_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal/%s'", name);
    const bool stored =
        wal_store_put(rescue->store, archive_name, fd, &existed, &tail_differs, err);
    disk->close(disk, fd);
    if (!stored)
        return cairn_error_wrap(err, "unable to rescue 'pg_wal/%s'", name);
    if (!existed) {
        log_info("rescued %s, which was not archived yet", archive_name);
        rescue->rescued->count++;
    }
    return true;
}

static bool
has_status(const Rescue *rescue, const char *name, const char *status)
{
    char path[WAL_FILE_NAME_LIMIT + 8];
    struct stat unused;
    snprintf(path, sizeof path, "%s%s", name, status);
    return rescue->world->disk->fstatat(rescue->world->disk, rescue->status_fd, path, &unused,
                                        AT_SYMLINK_NOFOLLOW) == 0;
}

/* The one that was being written, or one that is only kept to be written later (then it is no WAL).
 */
static bool
put_unfinished(Rescue *rescue, const char *name, CairnError *err)
{
    const uint32_t segment_size = wal_store_incarnation(rescue->store)->wal_segment_size;
    char partial[WAL_NAME_SIZE + 8];
    uint32_t timeline;
    uint64_t number;
    CairnError problem = {0};

    if (!wal_segment_parse(name, segment_size, &timeline, &number) ||
        number < wal_segment_of(rescue->checkpoint_lsn, segment_size)) {
        return true;
    }
    snprintf(partial, sizeof partial, "%s.partial", name);
    if (put_file(rescue, name, partial, &problem)) {
        const uint64_t start_lsn = number * segment_size;
        Rescued *rescued = rescue->rescued;
        if (rescued->partial[0] == '\0' || start_lsn < rescued->partial_lsn) {
            memcpy(rescued->partial, partial, sizeof partial);
            rescued->partial_lsn = start_lsn;
        }
        return true;
    }
    if (problem.kind == CAIRN_MISMATCH || problem.kind == CAIRN_CORRUPT)
        return true;
    *err = problem;
    return false;
}

static bool
rescue_file(Rescue *rescue, const char *name, CairnError *err)
{
    WalFileName parsed;
    CairnError ignored = {0};

    if (!wal_file_name_parse(name, &parsed, &ignored) || has_status(rescue, name, ".done"))
        return true; /* nothing that PostgreSQL would archive, or archived */
    if (has_status(rescue, name, ".ready"))
        return put_file(rescue, name, name, err);
    return parsed.kind != WAL_FILE_SEGMENT || put_unfinished(rescue, name, err);
}

static bool
rescue_listed(Rescue *rescue, DIR *listing, CairnError *err)
{
    for (;;) {
        errno = 0;
        const struct dirent *entry = rescue->world->disk->readdir(rescue->world->disk, listing);
        if (entry == NULL)
            return errno == 0 || cairn_error_errno(err, "unable to list 'pg_wal'");
        if (strlen(entry->d_name) < WAL_FILE_NAME_LIMIT &&
            !rescue_file(rescue, entry->d_name, err)) {
            return false;
        }
    }
}

bool
wal_files_rescue(WalStore *store, const World *world, int pgdata_fd, uint64_t checkpoint_lsn,
                 Rescued *rescued_out, CairnError *err)
{
    const Disk *disk = world->disk;
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    *rescued_out = (Rescued){0};

    /* pg_wal is often a symbolic link to another disk. */
    SCOPED_FD wal_fd = disk->openat(disk, pgdata_fd, "pg_wal", flags, 0);
    if (wal_fd < 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal'");
    SCOPED_FD status_fd = disk->openat(disk, wal_fd, "archive_status", flags, 0);
    if (status_fd < 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal/archive_status'");
    const int list_fd = disk->openat(disk, wal_fd, ".", flags, 0);
    DIR *listing = list_fd < 0 ? NULL : disk->opendir(disk, list_fd);
    if (listing == NULL) {
        cairn_error_errno(err, "unable to list 'pg_wal'");
        if (list_fd >= 0)
            disk->close(disk, list_fd);
        return false;
    }
    Rescue rescue = {
        .store = store,
        .world = world,
        .wal_fd = wal_fd,
        .status_fd = status_fd,
        .checkpoint_lsn = checkpoint_lsn,
        .rescued = rescued_out,
    };
    const bool good = rescue_listed(&rescue, listing, err);
    disk->closedir(disk, listing);
    return good;
}
