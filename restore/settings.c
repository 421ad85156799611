#include "restore/settings.h"

#include "postgres/recovery_settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const TARGET_SETTINGS[] = {
    "recovery_target",      "recovery_target_lsn", "recovery_target_name",
    "recovery_target_time", "recovery_target_xid", NULL,
};

/* Commands of the standby that was backed up: they would clean up archives and switch addresses. */
static const char *const COMMANDS[] = {"archive_cleanup_command", "recovery_end_command", NULL};

const CloneSetting clone_settings[] = {
    {"archive_mode", "off"},
    {"synchronous_standby_names", ""},
    {"max_logical_replication_workers", "0"},
    {NULL, NULL},
};

bool
settings_without_clones(const char *text, size_t size, ByteWriter *filtered, CairnError *err)
{
    SCOPED_BYTES ByteWriter kept = {0};

    byte_writer_bytes(&kept, text, size);
    for (const CloneSetting *setting = clone_settings; setting->name != NULL; setting++) {
        SCOPED_BYTES ByteWriter before = kept;
        kept = (ByteWriter){0};
        if (!byte_writer_check(&before, err))
            return false;
        settings_filter_value((const char *)before.data, before.size, setting->name, setting->value,
                              &kept);
    }
    byte_writer_bytes(filtered, kept.data, kept.size);
    return byte_writer_check(&kept, err) && byte_writer_check(filtered, err);
}

static bool
append_clone_settings(ByteWriter *text, CairnError *err)
{
    for (const CloneSetting *setting = clone_settings; setting->name != NULL; setting++) {
        if (!settings_append(text, setting->name, setting->value, err))
            return false;
    }
    return true;
}

const char *
restore_as_name(RestoreAs as)
{
    static const char *const NAMES[] = {
        [RESTORE_AS_ORIGINAL] = "original",
        [RESTORE_AS_CLONE] = "clone",
        [RESTORE_AS_STANDBY] = "standby",
    };
    return NAMES[as];
}

static void
append_text(ByteWriter *text, const char *more)
{
    byte_writer_bytes(text, more, strlen(more));
}

static bool
main_conf_sets(const SettingsOptions *options, const char *name)
{
    SCOPED_MEMORY char *value = settings_find(options->main_conf, options->main_conf_size, name);
    return value != NULL && *value != '\0';
}

static bool
append_target(const SettingsOptions *options, ByteWriter *text, CairnError *err)
{
    const RestorePlan *plan = options->plan;
    const char *action = target_action_name(plan->target.action);

    for (const char *const *name = TARGET_SETTINGS; *name != NULL; name++) {
        const bool ours = plan->setting != NULL && strcmp(plan->setting, *name) == 0;
        if (ours ? !settings_append(text, *name, plan->value, err)
                 : main_conf_sets(options, *name) && !settings_append(text, *name, "", err)) {
            return false;
        }
    }
    for (const char *const *name = COMMANDS; *name != NULL && plan->target.type != TARGET_STANDBY;
         name++) {
        if (main_conf_sets(options, *name) && !settings_append(text, *name, "", err))
            return false;
    }
    if (plan->setting == NULL)
        return true;
    if (!settings_append(text, "recovery_target_inclusive", plan->inclusive ? "on" : "off", err))
        return false;
    if (action == NULL && main_conf_sets(options, "recovery_target_action"))
        action = "pause";
    return action == NULL || settings_append(text, "recovery_target_action", action, err);
}

/* The proven number. PostgreSQL takes one above 1 only with its history, which a cluster promoted
 * before it archived here may have lost: then the backup's own timeline is meant. */
static void
timeline_text(const RestorePlan *plan, char text[16])
{
    if (plan->timeline == 0)
        snprintf(text, 16, "latest");
    else if (plan->timeline > 1 && plan->path->stretch_count == 1)
        snprintf(text, 16, "current");
    else
        snprintf(text, 16, "%" PRIu32, plan->timeline);
}

static bool
append_recovery(const SettingsOptions *options, ByteWriter *text, CairnError *err)
{
    const RestorePlan *plan = options->plan;
    char timeline[16];

    if (plan->target.type == TARGET_NONE)
        return true;
    timeline_text(plan, timeline);
    return settings_append(text, "restore_command", options->restore_command, err) &&
           append_target(options, text, err) &&
           settings_append(text, "recovery_target_timeline", timeline, err);
}

/* What the server would use by the text so far: the last line wins, postgresql.auto.conf last of
 * all. */
static int64_t
configured(const SettingsOptions *options, const ByteWriter *text, const char *name,
           int64_t default_value)
{
    SCOPED_MEMORY char *value = settings_find((const char *)text->data, text->size, name);
    if (value == NULL)
        value = settings_find(options->main_conf, options->main_conf_size, name);
    return value == NULL ? default_value : strtoll(value, NULL, 0);
}

/* Recovery ends in FATAL, or pauses, where one of these is lower than when the WAL was written. */
static bool
append_limits(const SettingsOptions *options, ByteWriter *text, CairnError *err)
{
    const ControlFile *control = options->control;
    const struct {
        const char *name;
        int64_t default_value;
        int64_t needed;
    } limits[] = {
        {"max_connections", 100, control->max_connections},
        {"max_worker_processes", 8, control->max_worker_processes},
        {"max_wal_senders", 10, control->max_wal_senders},
        {"max_prepared_transactions", 0, control->max_prepared_xacts},
        {"max_locks_per_transaction", 64, control->max_locks_per_xact},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        char value[24];
        if (configured(options, text, limits[i].name, limits[i].default_value) >= limits[i].needed)
            continue;
        snprintf(value, sizeof value, "%" PRId64, limits[i].needed);
        if (!settings_append(text, limits[i].name, value, err))
            return false;
    }
    return true;
}

/*
 * With `always` PostgreSQL archives what restore_command delivered, too: a segment that was never
 * finished, padded with zeros, would be stored as whole under the name that the real one has.
 */
static bool
append_archive_mode(const SettingsOptions *options, ByteWriter *text, CairnError *err)
{
    SCOPED_MEMORY char *value = settings_find((const char *)text->data, text->size, "archive_mode");

    if (options->as != RESTORE_AS_ORIGINAL || options->plan->target.type == TARGET_NONE)
        return true;
    if (value == NULL)
        value = settings_find(options->main_conf, options->main_conf_size, "archive_mode");
    return value == NULL || strcasecmp(value, "always") != 0 ||
           settings_append(text, "archive_mode", "on", err);
}

bool
settings_make(const SettingsOptions *options, ByteWriter *text_out, CairnError *err)
{
    SCOPED_BYTES ByteWriter kept = {0};
    const char *label = options->plan->backup->fate->label;
    char heading[160];

    settings_filter(options->auto_conf, options->auto_conf_size, recovery_setting_names, &kept);
    if (!byte_writer_check(&kept, err))
        return false;
    /* What its owner set by ALTER SYSTEM stays, for the day of its adoption. */
    if (!options->was_clone)
        byte_writer_bytes(text_out, kept.data, kept.size);
    else if (!settings_without_clones((const char *)kept.data, kept.size, text_out, err))
        return false;

    snprintf(heading, sizeof heading, "# pgcairn restore of backup %.40s, as %s\n", label,
             restore_as_name(options->as));
    append_text(text_out, heading);
    if (!append_recovery(options, text_out, err) || !append_limits(options, text_out, err) ||
        !append_archive_mode(options, text_out, err))
        return false;
    return options->as != RESTORE_AS_CLONE || append_clone_settings(text_out, err);
}

/* For the shell, and for PostgreSQL, which takes a percent sign for a placeholder. */
static void
append_word(ByteWriter *command, const char *word)
{
    byte_writer_u8(command, '\'');
    for (const char *c = word; *c != '\0'; c++) {
        if (*c == '\'')
            append_text(command, "'\\''");
        else if (*c == '%')
            append_text(command, "%%");
        else
            byte_writer_u8(command, (uint8_t)*c);
    }
    byte_writer_u8(command, '\'');
}

bool
settings_restore_command(const RestoreCommandOptions *options, ByteWriter *command_out,
                         CairnError *err)
{
    if (options->config_file == NULL) {
        append_text(command_out, "PGCAIRN_REPOSITORY_PATH=");
        append_word(command_out, options->repository->path);
        if (options->repository->encryption != NULL) {
            append_text(command_out, " PGCAIRN_REPOSITORY_ENCRYPTION=");
            append_word(command_out, options->repository->encryption);
        }
        append_text(command_out, " ");
    }
    append_word(command_out, options->program);
    append_text(command_out, " get");
    if (options->config_file != NULL) {
        append_text(command_out, " --config=");
        append_word(command_out, options->config_file);
        if (!options->all_repositories) {
            append_text(command_out, " --repository=");
            append_word(command_out, options->repository->name);
        }
    }
    append_text(command_out, " --cluster=");
    append_word(command_out, options->cluster);
    if (options->hole_after[0] != '\0') {
        append_text(command_out, " --hole-after=");
        append_text(command_out, options->hole_after);
    }
    append_text(command_out, " %f \"%p\"");
    return byte_writer_check(command_out, err);
}
