/*
 * Order of writing (each step relies on the one before):
 * 1. marker, then the old pg_control goes, then everything old (target_directory_clear);
 * 2. the backup's files, WAL, settings, identity, manifest;
 * 3. everything synced, pg_control renamed into place, marker away (target_directory_commit).
 */
#include "restore/restore.h"

#include "common/cancel.h"
#include "common/file.h"
#include "common/log.h"
#include "common/timestamp.h"
#include "repository/identity.h"
#include "restore/config_files.h"
#include "restore/manifest_file.h"
#include "restore/materialise.h"
#include "restore/tablespaces.h"
#include "restore/wal_files.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_FILE_LIMIT = 4 << 20 };

#define CONTROL_PATH "global/pg_control"

typedef struct {
    const RestoreOptions *options;
    RestoreResult *result;
    const RestorePlan *plan;
    const Fate *backup;
    MapReader *map;
    FrameSource *frame_source;
    FrameReader *frames;
    TargetDirectory *directory;
    TablespaceOptions tablespaces;
    bool tablespaces_moved;
    bool was_clone;          /* the backup has an identity file */
    ControlFile old_control; /* of a cluster that is replaced; zeros otherwise */
    uint32_t directory_mode;
    uint32_t file_mode;
    char *control_text;
    size_t control_size;
    ControlFile control;
    ConfigFiles config;
    ByteWriter auto_conf;
    ByteWriter identity;
    ByteWriter tablespace_map;
} Restore;

static void
restore_free(Restore *restore)
{
    if (restore->frames != NULL)
        frame_reader_free(restore->frames);
    if (restore->frame_source != NULL)
        frame_source_free(restore->frame_source);
    if (restore->map != NULL)
        map_reader_free(restore->map);
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

static bool
check_state(const Restore *restore, CairnError *err)
{
    const TargetDirectory *directory = restore->directory;
    const char *path = target_directory_path(directory);

    switch (target_directory_state(directory)) {
    case DIRECTORY_EMPTY:
        return true;
    case DIRECTORY_OURS:
        return target_directory_refuse_running(directory, err);
    case DIRECTORY_CLUSTER:
        if (!target_directory_refuse_running(directory, err))
            return false;
        if (restore->result->as == RESTORE_AS_ORIGINAL && restore->options->force)
            return true;
        cairn_error(err, CAIRN_REFUSED, "'%s' holds a database cluster", path);
        return cairn_error_hint(err, "give an empty directory, or let it be replaced: "
                                     "--as=original --force (its unarchived WAL is saved first)");
    default:
        cairn_error(err, CAIRN_REFUSED, "'%s' is not empty", path);
        return cairn_error_hint(err, "give an empty directory");
    }
}

static bool
open_directory(Restore *restore, CairnError *err)
{
    restore->directory = target_directory_open(restore->options->world, restore->options->to, err);
    if (restore->directory == NULL || !check_state(restore, err))
        return false;
    snprintf(restore->result->directory, sizeof restore->result->directory, "%s",
             target_directory_path(restore->directory));
    return true;
}

static bool
rescue_into(const Restore *restore, const ControlFile *old, int fd, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    Incarnation incarnation;

    if (!incarnation_get(options->repository, options->cluster, old->system_id, old->major,
                         &incarnation, err)) {
        return false;
    }
    SCOPED(WalStore)
    store = wal_store_open(options->repository, options->cluster, &incarnation, err);
    return store != NULL && wal_files_rescue(store, options->world, fd, old->checkpoint_lsn,
                                             &restore->result->rescued_count, err);
}

/*
 * What the old cluster had not archived is stored before anything changes, and before the plan is
 * made: the target may lie in it.
 */
static bool
rescue_wal(Restore *restore, CairnError *err)
{
    const int fd = target_directory_fd(restore->directory);
    size_t size;

    if (target_directory_state(restore->directory) != DIRECTORY_CLUSTER ||
        restore->options->dry_run) {
        return true;
    }
    SCOPED_MEMORY char *text =
        file_read_all(restore->options->world, fd, CONTROL_PATH, CONTROL_FILE_SIZE, &size, err);
    if (text == NULL || !control_parse(text, size, &restore->old_control, err)) {
        log_warn("the old cluster's " CONTROL_PATH
                 " cannot be read, so none of its WAL is rescued: %s",
                 err->message);
        cairn_error_clear(err);
        return true;
    }
    const ControlState state = restore->old_control.state;
    if (state != CONTROL_SHUT_DOWN && state != CONTROL_SHUT_DOWN_IN_RECOVERY)
        log_warn("the old cluster was not shut down cleanly");
    if (!rescue_into(restore, &restore->old_control, fd, err)) {
        cairn_error_wrap(err, "nothing was changed");
        return cairn_error_hint(err, "WAL that waits in pg_wal/archive_status/*.ready has to be "
                                     "archived, or its .ready files removed, first");
    }
    return true;
}

/* What is replaced must be this cluster. */
static bool
check_replaced(const Restore *restore, CairnError *err)
{
    const uint64_t old_id = restore->old_control.system_id;
    if (old_id == 0 || old_id == restore->backup->system_id)
        return true;
    return cairn_error(err, CAIRN_MISMATCH,
                       "'%s' holds another cluster (system identifier %llu, the backup's is %llu)",
                       restore->options->to, (unsigned long long)old_id,
                       (unsigned long long)restore->backup->system_id);
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
    restore->frame_source = frame_source_new(options->repository, options->cluster, err);
    if (restore->frame_source == NULL)
        return false;
    restore->frames = frame_reader_new(restore->frame_source, err);
    return restore->frames != NULL && find_modes(restore, err) && read_control(restore, err) &&
           config_files_collect(restore->map, restore->frames, &restore->config, err) &&
           stored_file_find(restore->map, MAP_CLASS_CLUSTER, IDENTITY_FILE_NAME, &entry,
                            &restore->was_clone, err);
}

static bool
open_tablespaces(Restore *restore, CairnError *err)
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

static bool
check_space(Restore *restore, CairnError *err)
{
    const size_t count = restore->backup->tablespace_count + 1;
    SCOPED_MEMORY SpaceNeed *needs = calloc(count, sizeof *needs);
    if (needs == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    needs[0].bytes = restore->result->size_bytes;
    for (size_t i = 1; i < count; i++)
        needs[i].oid = restore->backup->tablespaces[i - 1].oid;
    if (count > 1 && !sum_tablespaces(restore, needs, count, err))
        return false;
    if (!restore->options->no_wal)
        needs[0].bytes += wal_files_count(restore->plan) * restore->backup->wal_segment_size;
    return target_directory_check_space(restore->directory, needs, count, err);
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

    int jobs = options->jobs > 0 ? options->jobs : RESTORE_JOBS_DEFAULT;
    if (jobs > MATERIALISE_JOBS_LIMIT)
        jobs = MATERIALISE_JOBS_LIMIT;
    const MaterialiseOptions materialise_options = {
        .world = options->world,
        .map = restore->map,
        .frames = restore->frame_source,
        .directory = restore->directory,
        .jobs = jobs,
        .wanted = is_wanted,
        .context = restore,
        .progress = progress,
    };
    return materialise(&materialise_options, err) &&
           target_directory_link_tablespaces(restore->directory, err);
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
    return true;
}

static bool
make_settings(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    SCOPED_MEMORY char *old = NULL;
    SCOPED_MEMORY char *main_conf = NULL;
    size_t old_size;
    size_t main_size;
    SCOPED_BYTES ByteWriter command = {0};
    const ConfigFile *laid = &restore->config.files[CONFIG_MAIN];
    const RestoreCommandOptions command_options = {
        .program = options->wal_program,
        .config_file = options->config_file,
        .cluster = options->cluster,
        .repository = repository_config(options->repository),
    };

    if (!stored_file_read(restore->map, restore->frames, MAP_CLASS_CLUSTER, "postgresql.auto.conf",
                          SMALL_FILE_LIMIT, &old, &old_size, err) ||
        !stored_file_read(restore->map, restore->frames, MAP_CLASS_CLUSTER, "postgresql.conf",
                          SMALL_FILE_LIMIT, &main_conf, &main_size, err) ||
        !settings_restore_command(&command_options, &command, err)) {
        return false;
    }
    byte_writer_u8(&command, 0);
    if (!byte_writer_check(&command, err))
        return false;
    const SettingsOptions settings = {
        .plan = restore->plan,
        .as = restore->result->as,
        .restore_command = (const char *)command.data,
        .control = &restore->control,
        .auto_conf = old != NULL ? old : "",
        .auto_conf_size = old_size,
        .main_conf = main_conf != NULL ? main_conf : (const char *)laid->text.data,
        .main_conf_size = main_conf != NULL ? main_size : laid->text.size,
        .was_clone = restore->was_clone,
    };
    return settings_make(&settings, &restore->auto_conf, err);
}

/* An original needs none: no file means that the directory may archive as whom it is configured. */
static bool
make_identity(Restore *restore, CairnError *err)
{
    const RestoreOptions *options = restore->options;
    const RestoreAs as = restore->result->as;
    Identity identity = {0};
    char now[TIMESTAMP_TEXT_SIZE];

    if (as == RESTORE_AS_ORIGINAL)
        return true;
    timestamp_format(now, options->world->clock->wall_us(options->world->clock));
    snprintf(identity.role, sizeof identity.role, "%s", restore_as_name(as));
    snprintf(identity.origin, sizeof identity.origin, "%s", options->cluster);
    /* A standby that is promoted goes on as the cluster. */
    if (as == RESTORE_AS_STANDBY)
        snprintf(identity.cluster, sizeof identity.cluster, "%s", options->cluster);
    snprintf(identity.backup, sizeof identity.backup, "%s", restore->plan->backup->bid.text);
    snprintf(identity.restored_at, sizeof identity.restored_at, "%.47s", now);
    return identity_format(&identity, &restore->identity, err);
}

static bool
make_tablespace_map(Restore *restore, CairnError *err)
{
    SCOPED_MEMORY char *text = NULL;
    size_t size;
    if (!restore->tablespaces_moved)
        return true;
    return stored_file_read(restore->map, restore->frames, MAP_CLASS_CLUSTER, "tablespace_map",
                            SMALL_FILE_LIMIT, &text, &size, err) &&
           (text == NULL || tablespaces_rewrite_map(text, size, &restore->tablespaces,
                                                    &restore->tablespace_map, err));
}

static bool
lay_text(Restore *restore, const char *path, const ByteWriter *text, ManifestEdits *edits,
         CairnError *err)
{
    if (text->size == 0)
        return true;
    manifest_edits_set(edits, path, text->data, text->size);
    return target_directory_write(restore->directory, path, text->data, text->size,
                                  restore->file_mode, err);
}

static bool
write_signal(Restore *restore, CairnError *err)
{
    const TargetType type = restore->plan->target.type;
    if (type == TARGET_NONE)
        return true;
    return target_directory_write(restore->directory,
                                  type == TARGET_STANDBY ? "standby.signal" : "recovery.signal", "",
                                  0, restore->file_mode, err);
}

/* Everything that is ours, and the manifest that knows of it. */
static bool
write_ours(Restore *restore, CairnError *err)
{
    ManifestEdits edits = {0};

    manifest_edits_drop(&edits, RESTORE_MARKER);
    manifest_edits_drop(&edits, "postmaster.pid");
    if (restore->identity.size == 0)
        manifest_edits_drop(&edits, IDENTITY_FILE_NAME);
    for (int i = 0; i < CONFIG_FILE_COUNT; i++) {
        const ConfigFile *file = &restore->config.files[i];
        if (!lay_text(restore, file->name, &file->text, &edits, err))
            return false;
    }
    restore->result->made_up_hba = restore->config.files[CONFIG_HBA].made_up;
    restore->result->made_up_main = restore->config.files[CONFIG_MAIN].made_up;
    return lay_text(restore, IDENTITY_FILE_NAME, &restore->identity, &edits, err) &&
           lay_text(restore, "tablespace_map", &restore->tablespace_map, &edits, err) &&
           target_directory_write(restore->directory, "postgresql.auto.conf",
                                  restore->auto_conf.data, restore->auto_conf.size,
                                  restore->file_mode, err) &&
           write_signal(restore, err) &&
           manifest_file_lay(restore->map, restore->frames, restore->options->world,
                             restore->directory, &edits, restore->file_mode, err) &&
           target_directory_write(restore->directory, CONTROL_TEMPORARY_PATH, restore->control_text,
                                  restore->control_size, restore->file_mode, err);
}

static bool
prepare(Restore *restore, CairnError *err)
{
    return choose_role(restore, err) && open_directory(restore, err) && rescue_wal(restore, err) &&
           make_plan(restore, err) && check_replaced(restore, err) && open_backup(restore, err) &&
           open_tablespaces(restore, err) && make_settings(restore, err) &&
           make_identity(restore, err) && make_tablespace_map(restore, err) &&
           check_space(restore, err);
}

static bool
write_all(Restore *restore, CairnError *err)
{
    return target_directory_create(restore->directory, err) &&
           target_directory_clear(restore->directory, err) && write_files(restore, err) &&
           lay_wal(restore, err) && write_ours(restore, err) && cancel_check(err) &&
           target_directory_commit(restore->directory, restore->directory_mode, err);
}

bool
restore_run(const RestoreOptions *options, RestoreResult *result_out, CairnError *err)
{
    const Clock *clock = options->world->clock;
    const int64_t start_ns = clock->monotonic_ns(clock);
    Restore restore = {.options = options, .result = result_out};

    *result_out = (RestoreResult){.dry_run = options->dry_run};
    const bool good = prepare(&restore, err) && (options->dry_run || write_all(&restore, err));
    restore_free(&restore);
    result_out->duration_us = (clock->monotonic_ns(clock) - start_ns) / 1000;
    if (!good)
        restore_result_free(result_out);
    return good;
}
