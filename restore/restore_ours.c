#include "restore/restore_job.h"

#include "common/timestamp.h"
#include "repository/identity.h"
#include "restore/manifest_file.h"

#include <stdio.h>
#include <string.h>

enum { SMALL_FILE_LIMIT = 4 << 20 };

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
        .all_repositories = options->all_repositories,
        .hole_after = restore->plan->hole_after,
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

bool
restore_make_ours(Restore *restore, CairnError *err)
{
    return make_settings(restore, err) && make_identity(restore, err) &&
           make_tablespace_map(restore, err);
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

bool
restore_write_ours(Restore *restore, CairnError *err)
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
