/*
 * Order of writing (each step relies on the one before):
 * 1. marker, then the old pg_control goes, then everything old (target_directory_clear);
 * 2. the backup's files, WAL, settings, identity, manifest;
 * 3. everything synced, pg_control renamed into place, marker away (target_directory_commit).
 */
#include "restore/restore_job.h"

#include "common/cancel.h"
#include "repository/identity.h"
#include "restore/materialise.h"
#include "restore/sources.h"
#include "restore/wal_files.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
restore_free(Restore *restore)
{
    pin_release(restore->pin);
    if (restore->frames != NULL)
        frame_reader_free(restore->frames);
    if (restore->frame_source != NULL)
        frame_source_free(restore->frame_source);
    if (restore->map != NULL)
        map_reader_free(restore->map);
    if (restore->old_tail_fd >= 0)
        restore->options->world->disk->close(restore->options->world->disk, restore->old_tail_fd);
    if (restore->directory != NULL)
        target_directory_free(restore->directory);
    free(restore->control_text);
    config_files_free(&restore->config);
    byte_writer_free(&restore->auto_conf);
    byte_writer_free(&restore->identity);
    byte_writer_free(&restore->tablespace_map);
}

void
restore_result_free(RestoreResult *result)
{
    plan_free(result->plan);
    if (result->catalog != NULL)
        catalog_free(result->catalog);
    *result = (RestoreResult){0};
}

static bool
make_plan(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    const PlanOptions plan_options = {
        .cluster = options->cluster,
        .set = options->set,
        .force = options->force,
        .without_wal = options->no_wal,
    };
    restore->result->catalog = catalog_read(options->repository, options->cluster, err);
    if (restore->result->catalog == NULL)
        return false;
    restore->result->plan = plan_make(options->repository, restore->result->catalog,
                                      &options->target, &plan_options, err);
    if (restore->result->plan == NULL)
        return false;
    restore->plan = restore->result->plan;
    restore->backup = restore->plan->backup->fate;
    return true;
}

static bool
pin_backup(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    return options->dry_run || pin_take_or_warn(options->repository, options->cluster, "restore",
                                                &restore->backup->bid, 1, &restore->pin, err);
}

/* Both lead to the same directory; where one is missing, to the same name. */
static bool
same_directory(const Disk *disk, const char *a, const char *b)
{
    struct stat status_a;
    struct stat status_b;
    if (disk->fstatat(disk, AT_FDCWD, a, &status_a, 0) == 0 &&
        disk->fstatat(disk, AT_FDCWD, b, &status_b, 0) == 0) {
        return status_a.st_dev == status_b.st_dev && status_a.st_ino == status_b.st_ino;
    }
    return strcmp(a, b) == 0;
}

static bool
choose_role(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    RestoreAs as = RESTORE_AS_CLONE;

    if (options->as == AS_ORIGINAL)
        as = RESTORE_AS_ORIGINAL;
    else if (options->as == AS_STANDBY ||
             (options->as == AS_UNSAID && options->target.type == TARGET_STANDBY))
        as = RESTORE_AS_STANDBY;
    else if (options->as == AS_UNSAID && options->pgdata != NULL &&
             same_directory(options->world->disk, options->to, options->pgdata))
        as = RESTORE_AS_ORIGINAL;
    restore->result->as = as;
    struct stat status;
    restore->result->original_here =
        as == RESTORE_AS_CLONE && options->pgdata != NULL &&
        options->world->disk->fstatat(options->world->disk, AT_FDCWD, options->pgdata, &status,
                                      0) == 0;

    if ((as == RESTORE_AS_STANDBY) != (options->target.type == TARGET_STANDBY))
        return cairn_error(err, CAIRN_USAGE, "--as=standby and --type=standby go together");
    if (as == RESTORE_AS_ORIGINAL && options->target.type == TARGET_NONE && !options->force) {
        cairn_error(err, CAIRN_REFUSED,
                    "the original restored with --type=none would write WAL of the same timeline a "
                    "second time");
        return cairn_error_hint(err, "--type=immediate gives a timeline of its own; --as=clone "
                                     "makes a copy; --force insists");
    }
    return true;
}

/* Modes of what we add follow the backup's own: 0750 and 0640 where the group may read. */
static bool
find_modes(Restore *restore, CairnError *err)
{
    MapEntry entry;
    bool found;
    if (!map_reader_seek(restore->map, MAP_CLASS_CLUSTER, "global", err) ||
        !map_reader_next(restore->map, &entry, &found, err)) {
        return false;
    }
    const bool group = found && entry.type == MAP_DIRECTORY && strcmp(entry.path, "global") == 0 &&
                       (entry.mode & S_IRGRP) != 0;
    restore->directory_mode = group ? S_IRWXU | S_IRGRP | S_IXGRP : S_IRWXU;
    restore->file_mode = group ? S_IRUSR | S_IWUSR | S_IRGRP : S_IRUSR | S_IWUSR;
    return true;
}

static bool
read_control(Restore *restore, CairnError *err)
{
    if (!stored_file_read(restore->map, restore->frames, MAP_CLASS_CLUSTER, CONTROL_PATH,
                          CONTROL_FILE_SIZE, &restore->control_text, &restore->control_size, err)) {
        return false;
    }
    if (restore->control_text == NULL)
        return cairn_error(err, CAIRN_CORRUPT, "the backup has no " CONTROL_PATH);
    if (!control_parse(restore->control_text, restore->control_size, &restore->control, err))
        return cairn_error_wrap(err, CONTROL_PATH);
    if (restore->control.system_id != restore->backup->system_id) {
        return cairn_error(err, CAIRN_MISMATCH, CONTROL_PATH " belongs to another cluster");
    }
    return true;
}

static bool
open_backup(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    MapEntry entry;

    restore->map =
        map_reader_open(options->repository, options->cluster, &restore->backup->map_root, err);
    if (restore->map == NULL)
        return false;
    uint64_t directory_count;
    map_reader_totals(restore->map, &restore->result->file_count, &directory_count,
                      &restore->result->size_bytes);
    restore->frame_source =
        frame_source_new(options->repository, options->cluster, restore->memory.cache_bytes, err);
    if (restore->frame_source == NULL)
        return false;
    restore->frames = frame_reader_new(restore->frame_source, err);
    return restore->frames != NULL && find_modes(restore, err) && read_control(restore, err) &&
           config_files_collect(restore->map, restore->frames, &restore->config, err) &&
           stored_file_find(restore->map, MAP_CLASS_CLUSTER, IDENTITY_FILE_NAME, &entry,
                            &restore->was_clone, err);
}

/* False for what restore lays down itself, or leaves out. */
static bool
is_wanted(void *context, const char *path)
{
    static const char *const OTHERS[] = {
        CONTROL_PATH,       "postgresql.auto.conf", "recovery.signal", "standby.signal",
        IDENTITY_FILE_NAME, RESTORE_MARKER,         "postmaster.pid",
    };
    const Restore *restore = context;
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        if (strcmp(path, OTHERS[i]) == 0)
            return false;
    }
    return !restore->tablespaces_moved || strcmp(path, "tablespace_map") != 0;
}

static bool
write_files(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    SCOPED(Progress) progress = NULL;
    if (options->show_progress)
        progress = progress_new(options->world, "restore", restore->result->size_bytes);

    const MaterialiseOptions materialise_options = {
        .world = options->world,
        .map = restore->map,
        .frames = restore->frame_source,
        .directory = restore->directory,
        .jobs = restore->memory.jobs,
        .wanted = is_wanted,
        .context = restore,
        .progress = progress,
    };
    return materialise(&materialise_options, err) &&
           target_directory_link_tablespaces(restore->directory, err);
}

/* What recovery replays from pg_wal follows what it replays from the archive. */
static bool
lay_tail(Restore *restore, WalStore *store, CairnError *err)
{
    RestoreResult *result = restore->result;
    WalTail *tail = &result->tail;

    if (!tail->stored || tail->obstacle[0] != '\0')
        return true;
    if (!wal_tail_lay(store, restore->plan, restore->options->world, restore->directory,
                      restore->old_tail_fd, tail, err))
        return false;
    if (tail->laid) {
        result->plan->stop = tail->stop;
        result->kept[0] = '\0';
    }
    return true;
}

static bool
lay_wal(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    if (options->no_wal)
        return true;
    SCOPED(WalStore)
    store = wal_store_open(options->repository, options->cluster, &restore->plan->incarnation, err);
    if (store == NULL ||
        !wal_files_lay(store, restore->plan, options->world, restore->directory, err)) {
        return false;
    }
    restore->result->wal_laid = true;
    return lay_tail(restore, store, err);
}

static bool
plan_memory(Restore *restore, CairnError *err)
{
    int jobs = restore->options->jobs > 0 ? restore->options->jobs : RESTORE_JOBS_DEFAULT;
    if (jobs > MATERIALISE_JOBS_LIMIT)
        jobs = MATERIALISE_JOBS_LIMIT;
    const StorageMemory storage = storage_memory(repository_storage(restore->options->repository));
    return restore_memory_plan(restore->options->max_memory_bytes, storage.reader_bytes, jobs,
                               &restore->memory, err);
}

static bool
check_wal(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    if (options->no_wal)
        return true;
    SCOPED(WalStore)
    store = wal_store_open(options->repository, options->cluster, &restore->plan->incarnation, err);
    return store != NULL && wal_files_check(store, restore->plan, err);
}

static bool
prepare(Restore *restore, CairnError *err)
{
    return plan_memory(restore, err) && choose_role(restore, err) &&
           restore_open_directory(restore, err) && restore_rescue_wal(restore, err) &&
           make_plan(restore, err) && pin_backup(restore, err) &&
           restore_check_replaced(restore, err) && restore_find_tail(restore, err) &&
           check_wal(restore, err) &&
           sources_check(restore->options->repository, restore->backup, err) &&
           open_backup(restore, err) && restore_open_tablespaces(restore, err) &&
           restore_make_ours(restore, err) && restore_check_space(restore, err);
}

static bool
write_all(Restore *restore, CairnError *err)
{
    return target_directory_create(restore->directory, err) &&
           target_directory_clear(restore->directory, err) && write_files(restore, err) &&
           lay_wal(restore, err) && restore_write_ours(restore, err) && cancel_check(err) &&
           target_directory_commit(restore->directory, restore->directory_mode, err);
}

bool
restore_run(const RestoreOptions *options, RestoreResult *result_out, CairnError *err)
{
    const Clock *clock = options->world->clock;
    const int64_t start_ns = clock->monotonic_ns(clock);
    Restore restore = {.options = options, .result = result_out, .old_tail_fd = -1};

    *result_out = (RestoreResult){.dry_run = options->dry_run};
    const bool good = prepare(&restore, err) && (options->dry_run || write_all(&restore, err));
    restore_free(&restore);
    result_out->duration_us = (clock->monotonic_ns(clock) - start_ns) / 1000;
    if (!good)
        restore_result_free(result_out);
    return good;
}
