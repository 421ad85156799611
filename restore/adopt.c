#include "restore/adopt.h"

#include "common/directory.h"
#include "common/file.h"
#include "common/scoped.h"
#include "postgres/backup_label.h"
#include "postgres/control.h"
#include "postgres/recovery_settings.h"
#include "postgres/timeline.h"
#include "postgres/wal_name.h"
#include "restore/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SETTINGS_LIMIT = 4 << 20, LABEL_LIMIT = 64 << 10 };

static const char AUTO_CONF[] = "postgresql.auto.conf";

static mode_t
mode_of(const World *world, int fd, const char *path)
{
    struct stat status;
    return world->disk->fstatat(world->disk, fd, path, &status, 0) == 0 ? status.st_mode & 0777
                                                                        : S_IRUSR | S_IWUSR;
}

/* ALTER SYSTEM rewrites the file without comments, so the lines are known by value alone. What the
 * original said before it counts again. */
static bool
allow_archiving(const World *world, int fd, CairnError *err)
{
    size_t size;
    SCOPED_MEMORY char *text = file_read_all(world, fd, AUTO_CONF, SETTINGS_LIMIT, &size, err);
    if (text == NULL)
        return false;
    SCOPED_BYTES ByteWriter filtered = {0};
    if (!settings_without_clones(text, size, &filtered, err))
        return false;
    if (filtered.size == size && memcmp(filtered.data, text, size) == 0)
        return true;
    return file_replace(world, fd, AUTO_CONF, filtered.data, filtered.size,
                        mode_of(world, fd, AUTO_CONF), err);
}

/* The copy's pg_wal, and what is learned there. */
typedef struct {
    const World *world;
    int wal_fd;
    int status_fd;
    Adopted *adopted;
} Histories;

static bool
has_status(const Histories *histories, const char *name, const char *status)
{
    const Disk *disk = histories->world->disk;
    char path[NAME_MAX + 8];
    struct stat unused;
    snprintf(path, sizeof path, "%s%s", name, status);
    return disk->fstatat(disk, histories->status_fd, path, &unused, AT_SYMLINK_NOFOLLOW) == 0;
}

/* As the server would have done at the promotion, had archive_mode been on. */
static bool
mark_ready(const Histories *histories, const char *name, CairnError *err)
{
    const World *world = histories->world;
    char path[NAME_MAX + 8];
    snprintf(path, sizeof path, "%s.ready", name);
    const int fd = world->disk->openat(world->disk, histories->status_fd, path,
                                       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                       mode_of(world, histories->wal_fd, name));
    if (fd < 0)
        return cairn_error_errno(err, "unable to create 'pg_wal/archive_status/%s'", path);
    return file_sync_close(world, fd, path, err);
}

static bool
await_history(Histories *histories, const char *name, uint32_t timeline, CairnError *err)
{
    Adopted *adopted = histories->adopted;
    size_t size;
    SCOPED_MEMORY char *text = file_read_all(histories->world, histories->wal_fd, name,
                                             TIMELINE_HISTORY_FILE_LIMIT, &size, err);
    SCOPED_MEMORY TimelineHistory *history = malloc(sizeof *history);
    if (history == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (text == NULL || !timeline_history_parse(timeline, text, size, history, err))
        return cairn_error_wrap(err, "pg_wal/%s", name);
    if (!has_status(histories, name, ".ready") && !mark_ready(histories, name, err))
        return false;

    adopted->history_count++;
    /* What went unarchived begins where the oldest of them does. */
    if (adopted->silent_timeline == 0 || timeline < adopted->silent_timeline) {
        adopted->silent_timeline = timeline;
        adopted->silent_from_lsn = history->stretches[history->stretch_count - 1].start_lsn;
    }
    return true;
}

static bool
await_listed(Histories *histories, CairnError *err)
{
    SCOPED(Directory) directory = directory_open(histories->world, histories->wal_fd, ".", 0);
    const char *name;

    if (directory == NULL)
        return cairn_error_errno(err, "unable to list 'pg_wal'");
    while ((name = directory_next(directory)) != NULL) {
        WalFileName parsed;
        CairnError ignored = {0};
        if (wal_file_name_parse(name, &parsed, &ignored) && parsed.kind == WAL_FILE_HISTORY &&
            !has_status(histories, name, ".done") &&
            !await_history(histories, name, parsed.timeline, err))
            return false;
    }
    return directory_complete(directory) || cairn_error_errno(err, "unable to list 'pg_wal'");
}

/*
 * A server archives a history file once, when the timeline begins, and only if archive_mode is on
 * then. Without it nobody knows where the WAL that follows belongs.
 */
static bool
await_histories(const World *world, int pgdata_fd, Adopted *adopted, CairnError *err)
{
    const Disk *disk = world->disk;
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

    /* pg_wal is often a symbolic link to another disk. */
    SCOPED_FD wal_fd = disk->openat(disk, pgdata_fd, "pg_wal", flags, 0);
    if (wal_fd < 0)
        return cairn_error_errno(err, "unable to open 'pg_wal'");
    SCOPED_FD status_fd = disk->openat(disk, wal_fd, "archive_status", flags, 0);
    if (status_fd < 0)
        return cairn_error_errno(err, "unable to open 'pg_wal/archive_status'");
    Histories histories = {
        .world = world,
        .wal_fd = wal_fd,
        .status_fd = status_fd,
        .adopted = adopted,
    };
    return await_listed(&histories, err) && file_sync_directory(world, status_fd, ".", err);
}

static bool
is_there(const World *world, int fd, const char *name)
{
    struct stat unused;
    return world->disk->fstatat(world->disk, fd, name, &unused, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Of the backup that was restored; 0: nothing says so. The server renames the file once it is done
 * with it. */
static bool
backup_timeline(const World *world, int fd, uint32_t *timeline_out, CairnError *err)
{
    static const char *const names[] = {"backup_label", "backup_label.old"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        BackupLabel label;
        size_t size;
        SCOPED_MEMORY char *text = file_read_all(world, fd, names[i], LABEL_LIMIT, &size, err);
        if (text == NULL && err->kind == CAIRN_NOT_FOUND) {
            cairn_error_clear(err);
            continue;
        }
        if (text == NULL || !backup_label_parse(text, size, &label, err))
            return cairn_error_wrap(err, "'%s'", names[i]);
        *timeline_out = label.start_timeline;
        return true;
    }
    *timeline_out = 0;
    return true;
}

/*
 * Restored with --type=none a copy goes on in the timeline of its backup, as the original did: two
 * files of one name and different content, of which the archive has or will have the original's. A
 * recovery that is still to come, or has ended, gives a timeline of its own; the control file knows
 * of that from the very moment of the promotion, as the end of recovery.
 */
static bool
check_own_timeline(const World *world, int fd, CairnError *err)
{
    ControlFile control;
    uint32_t timeline = 0;
    if (is_there(world, fd, "recovery.signal") || is_there(world, fd, "standby.signal"))
        return true;
    if (!backup_timeline(world, fd, &timeline, err) || !control_read(world, fd, &control, err))
        return false;
    if (timeline == 0 || control.checkpoint_timeline > timeline ||
        control.min_recovery_timeline > timeline)
        return true;
    cairn_error(err, CAIRN_REFUSED,
                "the copy never left timeline %" PRIu32
                ", in which the original writes, or wrote: its WAL would take the place of the "
                "original's, or be refused for ever",
                timeline);
    return cairn_error_hint(err,
                            "give it a timeline of its own: stop it, create an empty "
                            "standby.signal in its data directory, start it, `pg_ctl promote`, "
                            "and adopt it then; or give it a place of its own with "
                            "--as-cluster NAME");
}

static bool
write_identity(const World *world, int fd, const Identity *identity, CairnError *err)
{
    SCOPED_BYTES ByteWriter text = {0};
    return identity_format(identity, &text, err) &&
           file_replace(world, fd, IDENTITY_FILE_NAME, text.data, text.size,
                        mode_of(world, fd, IDENTITY_FILE_NAME), err);
}

bool
adopt_run(const World *world, const char *pgdata, const char *as_cluster, Adopted *adopted_out,
          CairnError *err)
{
    Adopted adopted = {0};
    Identity *identity = &adopted.identity;
    bool present;

    SCOPED_FD fd =
        world->disk->openat(world->disk, AT_FDCWD, pgdata, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return cairn_error_errno(err, "unable to open directory '%s'", pgdata);
    if (!identity_read(world, fd, identity, &present, err))
        return false;
    if (!present) {
        return cairn_error(err, CAIRN_NOT_FOUND,
                           "'%s' is no restored copy: it has no " IDENTITY_FILE_NAME, pgdata);
    }
    const char *cluster = as_cluster != NULL ? as_cluster : identity->origin;
    if (!cluster_name_valid(cluster))
        return cairn_error(err, CAIRN_USAGE, "'%.80s' is no name for a cluster", cluster);
    if (strcmp(cluster, identity->origin) == 0 && !check_own_timeline(world, fd, err))
        return cairn_error_wrap(err, "'%s'", pgdata);
    snprintf(identity->cluster, sizeof identity->cluster, "%s", cluster);
    snprintf(identity->role, sizeof identity->role, "original");

    /* Who may archive first, then that it does: the other order could archive under no name at all.
     */
    if (!write_identity(world, fd, identity, err) || !await_histories(world, fd, &adopted, err) ||
        !allow_archiving(world, fd, err)) {
        return cairn_error_wrap(err, "'%s'", pgdata);
    }
    *adopted_out = adopted;
    return true;
}
