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
