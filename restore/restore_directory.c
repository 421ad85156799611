#include "restore/restore_job.h"

#include "common/file.h"
#include "common/log.h"
#include "repository/identity.h"
#include "restore/wal_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
check_state(const Restore *restore, CairnError *err)
{
    const TargetDirectory *directory = restore->directory;
    const char *path = target_directory_path(directory);

    switch (target_directory_state(directory)) {
    case DIRECTORY_EMPTY:
        return true;
    case DIRECTORY_OURS:
        return target_directory_refuse_running(directory, err) &&
               target_directory_check_wal(directory, err);
    case DIRECTORY_CLUSTER:
        if (!target_directory_refuse_running(directory, err))
            return false;
        if (restore->result->as == RESTORE_AS_ORIGINAL && restore->options->force)
            return target_directory_check_wal(directory, err);
        cairn_error(err, CAIRN_REFUSED, "'%s' holds a database cluster", path);
        return cairn_error_hint(err, "give an empty directory; only to replace the original "
                                     "cluster itself, which then archives in its own place: "
                                     "--as=original --force (unarchived WAL is saved first)");
    default:
        cairn_error(err, CAIRN_REFUSED, "'%s' is not empty", path);
        return cairn_error_hint(err, "give an empty directory");
    }
}

bool
restore_open_directory(Restore *restore, CairnError *err)
{
    restore->directory = target_directory_open(restore->options->world, restore->options->to, err);
    if (restore->directory == NULL || !check_state(restore, err))
        return false;
    snprintf(restore->result->directory, sizeof restore->result->directory, "%s",
             target_directory_path(restore->directory));
    return true;
}

static bool
rescue_into(Restore *restore, const Incarnation *incarnation, uint64_t checkpoint_lsn, int fd,
            CairnError *err)
{
    const RestoreOptions *options = restore->options;
    SCOPED(WalStore)
    store = wal_store_open(options->repository, options->cluster, incarnation, err);
    if (store == NULL ||
        !wal_files_rescue(store, options->world, fd, checkpoint_lsn, &restore->rescued, err))
        return false;
    restore->wal_rescued = true;
    restore->result->rescued_count = restore->rescued.count;
    return true;
}

/* No segment says whose the old directory was: what else waits is the cluster's newest system's.
 * Where that cannot be told, replacing the directory could destroy what nobody else has. */
static bool
rescue_of_newest(Restore *restore, bool waits, int fd, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    IncarnationTrouble trouble;
    size_t count = 0;
    SCOPED_MEMORY Incarnation *known = calloc(INCARNATION_LIMIT, sizeof *known);
    if (known == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!incarnation_list(options->repository, options->cluster, known, &count, &trouble, err))
        return false;
    incarnation_warn(&trouble);
    if (count > 0)
        return rescue_into(restore, &known[count - 1], 0, fd, err);
    if (!waits || trouble.count == 0)
        return true;
    *err = trouble.problem;
    return cairn_error_wrap(err, "WAL waits in the old directory, and whose it is cannot be told");
}

/* A damaged pg_control is why some restore at all. Segments say themselves whose they are. */
static bool
rescue_without_control(Restore *restore, int fd, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    WalFilesOwner owner;
    Incarnation incarnation;
    if (!wal_files_find_owner(options->world, fd, &owner, err))
        return false;
    if (!owner.identified)
        return rescue_of_newest(restore, owner.waits, fd, err);
    if (incarnation_get(options->repository, options->cluster, owner.system_id, owner.major,
                        &incarnation, err))
        return rescue_into(restore, &incarnation, 0, fd, err);
    if (err->kind == CAIRN_NOT_FOUND && !owner.waits) {
        cairn_error_clear(err); /* another cluster's, and archived as far as it goes */
        return true;
    }
    return cairn_error_wrap(
        err, "WAL of system %" PRIu64 " (PostgreSQL %d) %s in the old directory", owner.system_id,
        owner.major, owner.waits ? "waits" : "lies unfinished");
}

/* What a copy wrote is no WAL of the cluster, whatever its system identifier says. */
static bool
find_whether_copy(const Restore *restore, int fd, bool *copy_out, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    *copy_out = !identity_may_archive(options->world, fd, options->cluster, err);
    if (!*copy_out)
        return true;
    if (err->kind != CAIRN_REFUSED)
        return false;
    log_warn("no WAL of the old directory is rescued: %s", err->message);
    cairn_error_clear(err);
    return true;
}

static bool
rescue(Restore *restore, int fd, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    ControlFile *control = &restore->old_control;
    Incarnation incarnation;
    size_t size;
    bool copy;

    SCOPED_MEMORY char *text =
        file_read_all(options->world, fd, CONTROL_PATH, CONTROL_FILE_SIZE, &size, err);
    const bool readable = text != NULL && control_parse(text, size, control, err);
    if (!readable) {
        log_warn("the old cluster's " CONTROL_PATH " cannot be read: %s", err->message);
        cairn_error_clear(err);
        *control = (ControlFile){0};
    }
    if (!find_whether_copy(restore, fd, &copy, err))
        return false;
    if (copy)
        return true;
    if (!readable)
        return rescue_without_control(restore, fd, err);
    if (control->state != CONTROL_SHUT_DOWN && control->state != CONTROL_SHUT_DOWN_IN_RECOVERY)
        log_warn("the old cluster was not shut down cleanly");
    return incarnation_get(options->repository, options->cluster, control->system_id,
                           control->major, &incarnation, err) &&
           rescue_into(restore, &incarnation, control->checkpoint_lsn, fd, err);
}

bool
restore_rescue_wal(Restore *restore, CairnError *err)
{
    if (target_directory_state(restore->directory) != DIRECTORY_CLUSTER ||
        restore->options->dry_run || rescue(restore, target_directory_fd(restore->directory), err))
        return true;
    cairn_error_wrap(err, "nothing was changed");
    return cairn_error_hint(err, "WAL that waits in pg_wal/archive_status/*.ready has to be "
                                 "archived, or its .ready files removed, first; where there is no "
                                 "pg_wal/archive_status all WAL waits: make that directory to say "
                                 "that none does");
}

/* It is taken from the old pg_wal where that can be, since several versions may be stored. */
static bool
open_old_tail(Restore *restore, const char *name, CairnError *err)
{
    const Disk *disk = restore->options->world->disk;
    struct stat status;

    SCOPED_FD wal_fd = disk->openat(disk, target_directory_fd(restore->directory), "pg_wal",
                                    O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (wal_fd < 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal'");
    SCOPED_FD fd =
        disk->openat(disk, wal_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0)
        return errno == ENOENT || cairn_error_errno(err, "unable to open 'pg_wal/%s'", name);
    if (disk->fstat(disk, fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine 'pg_wal/%s'", name);
    if (S_ISREG(status.st_mode) && status.st_size == restore->backup->wal_segment_size)
        restore->old_tail_fd = take_fd(&fd);
    return true;
}

bool
restore_find_tail(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    RestoreResult *result = restore->result;
    WalTail *tail = &result->tail;

    memcpy(result->kept, restore->rescued.partial, sizeof result->kept);
    result->kept_lsn = restore->rescued.partial_lsn;
    if (result->as != RESTORE_AS_ORIGINAL || options->no_wal || options->dry_run)
        return true;
    SCOPED(WalStore)
    store = wal_store_open(options->repository, options->cluster, &restore->plan->incarnation, err);
    if (store == NULL || !wal_tail_find(store, restore->plan, tail, err))
        return false;
    if (!tail->stored)
        return true;
    snprintf(result->kept, sizeof result->kept, "%s.partial", tail->name);
    result->kept_lsn = tail->start_lsn;
    return tail->obstacle[0] != '\0' || !restore->wal_rescued ||
           open_old_tail(restore, tail->name, err);
}

bool
restore_check_replaced(const Restore *restore, CairnError *err)
{
    const uint64_t old_id = restore->old_control.system_id;
    if (old_id == 0 || old_id == restore->backup->system_id)
        return true;
    return cairn_error(err, CAIRN_MISMATCH,
                       "'%s' holds another cluster (system identifier %llu, the backup's is %llu)",
                       restore->options->to, (unsigned long long)old_id,
                       (unsigned long long)restore->backup->system_id);
}

bool
restore_open_tablespaces(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    const bool original = restore->result->as == RESTORE_AS_ORIGINAL;

    restore->tablespaces = (TablespaceOptions){
        .mappings = options->tablespace_mappings,
        .mapping_count = options->tablespace_mapping_count,
        .original = original,
        .replace = original && options->force,
    };
    return tablespaces_open(restore->backup, &restore->tablespaces, restore->directory,
                            &restore->tablespaces_moved, err);
}

/* Sizes per tablespace: one walk over the map when there are any. */
static bool
sum_tablespaces(Restore *restore, SpaceNeed *needs, size_t count, CairnError *err)
{
    MapEntry entry;
    bool found;
    if (!map_reader_seek(restore->map, MAP_CLASS_CLUSTER, "pg_tblspc/", err))
        return false;
    for (;;) {
        if (!map_reader_next(restore->map, &entry, &found, err))
            return false;
        if (!found || strncmp(entry.path, "pg_tblspc/", 10) != 0)
            return true;
        const unsigned long oid = strtoul(entry.path + 10, NULL, 10);
        for (size_t i = 1; i < count && entry.type == MAP_FILE; i++) {
            if (needs[i].oid != oid)
                continue;
            needs[i].bytes += entry.size_bytes;
            needs[0].bytes -= entry.size_bytes < needs[0].bytes ? entry.size_bytes : needs[0].bytes;
        }
    }
}

bool
restore_check_space(Restore *restore, CairnError *err)
{
    const size_t count = restore->backup->tablespace_count + 1;
    const bool linked = target_directory_wal_is_linked(restore->directory);
    SCOPED_MEMORY SpaceNeed *needs = calloc(count + 1, sizeof *needs);
    if (needs == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    needs[0].bytes = restore->result->size_bytes;
    for (size_t i = 1; i < count; i++)
        needs[i].oid = restore->backup->tablespaces[i - 1].oid;
    if (count > 1 && !sum_tablespaces(restore, needs, count, err))
        return false;
    needs[count].oid = TARGET_WAL_OID;
    SpaceNeed *wal = linked ? &needs[count] : &needs[0];
    if (!restore->options->no_wal)
        wal->bytes += wal_files_count(restore->plan) * restore->backup->wal_segment_size;
    /* It is there twice: what is unlinked while it is open frees nothing. */
    if (restore->result->tail.stored)
        wal->bytes += UINT64_C(2) * restore->backup->wal_segment_size;
    return target_directory_check_space(restore->directory, needs, linked ? count + 1 : count, err);
}
