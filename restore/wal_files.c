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

bool
wal_files_lay(WalStore *store, const RestorePlan *plan, const World *world,
              TargetDirectory *directory, CairnError *err)
{
    const Fate *backup = plan->backup->fate;
    const uint32_t segment_size = backup->wal_segment_size;

    for (uint64_t number = first_segment(backup); number <= last_segment(backup); number++) {
        /* A segment in which the timeline changed lies under the newer one's name. */
        const uint64_t end = (number + 1) * segment_size;
        const uint64_t last_lsn = (end < backup->stop_lsn ? end : backup->stop_lsn) - 1;
        char name[WAL_NAME_SIZE];
        wal_segment_name(name, timeline_history_at(plan->path, last_lsn), number, segment_size);
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

static bool
rescue_file(WalStore *store, const World *world, int wal_fd, const char *name, size_t *count,
            CairnError *err)
{
    WalFileName parsed;
    CairnError ignored = {0};
    bool existed;
    bool tail_differs;

    if (!wal_file_name_parse(name, &parsed, &ignored))
        return true; /* nothing that PostgreSQL would archive */
    const int fd = world->disk->openat(world->disk, wal_fd, name,
                                       O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0) {
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal/%s'", name);
    }
    const bool stored = wal_store_put(store, name, fd, &existed, &tail_differs, err);
    world->disk->close(world->disk, fd);
    if (!stored)
        return cairn_error_wrap(err, "unable to rescue 'pg_wal/%s'", name);
    if (!existed) {
        log_info("rescued %s, which was not archived yet", name);
        (*count)++;
    }
    return true;
}

static bool
rescue_listed(WalStore *store, const World *world, int wal_fd, DIR *status, size_t *count,
              CairnError *err)
{
    static const char READY[] = ".ready";
    for (;;) {
        char name[WAL_FILE_NAME_LIMIT + sizeof READY];
        errno = 0;
        const struct dirent *entry = world->disk->readdir(world->disk, status);
        if (entry == NULL)
            return errno == 0 || cairn_error_errno(err, "unable to list 'pg_wal/archive_status'");
        const size_t length = strlen(entry->d_name);
        if (length >= sizeof name || length < sizeof READY ||
            strcmp(entry->d_name + length - (sizeof READY - 1), READY) != 0) {
            continue;
        }
        memcpy(name, entry->d_name, length - (sizeof READY - 1));
        name[length - (sizeof READY - 1)] = '\0';
        if (!rescue_file(store, world, wal_fd, name, count, err))
            return false;
    }
}

bool
wal_files_rescue(WalStore *store, const World *world, int pgdata_fd, size_t *count_out,
                 CairnError *err)
{
    const Disk *disk = world->disk;
    *count_out = 0;

    /* pg_wal is often a symbolic link to another disk. */
    SCOPED_FD wal_fd =
        disk->openat(disk, pgdata_fd, "pg_wal", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (wal_fd < 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal'");
    int status_fd =
        disk->openat(disk, wal_fd, "archive_status", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (status_fd < 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal/archive_status'");
    DIR *status = disk->opendir(disk, status_fd);
    if (status == NULL) {
        cairn_error_errno(err, "unable to list 'pg_wal/archive_status'");
        disk->close(disk, status_fd);
        return false;
    }
    const bool good = rescue_listed(store, world, wal_fd, status, count_out, err);
    disk->closedir(disk, status);
    return good;
}
