/*
 * What a restored directory tells PostgreSQL: postgresql.auto.conf.
 *
 * The backup's own text is kept, less every recovery setting of an earlier attempt; ours follow.
 * Where postgresql.conf sets another target, it is unset here (PostgreSQL refuses two). Limits that
 * hot standby compares with pg_control are raised where the restored configuration is lower. An
 * original's archive_mode = always becomes on.
 */
#ifndef PGCAIRN_RESTORE_SETTINGS_H
#define PGCAIRN_RESTORE_SETTINGS_H

#include "common/bytes.h"
#include "common/config.h"
#include "postgres/control.h"
#include "restore/plan.h"

typedef enum { RESTORE_AS_ORIGINAL, RESTORE_AS_CLONE, RESTORE_AS_STANDBY } RestoreAs;
const char *restore_as_name(RestoreAs as);

/*
 * What a clone must not do in its origin's name: archive into its place, wait for its standbys,
 * take over its subscriptions' slots. Appended for a clone, taken away by `pgcairn adopt`.
 */
typedef struct {
    const char *name;
    const char *value;
} CloneSetting;
extern const CloneSetting clone_settings[]; /* ended by a NULL name */
/* Copies text without those lines; what its owner set to another value stays. */
bool settings_without_clones(const char *text, size_t size, ByteWriter *filtered,
                             CairnError *err) MUST_CHECK;

typedef struct {
    const RestorePlan *plan;
    RestoreAs as;
    const char *restore_command;
    const ControlFile *control;
    const char *auto_conf; /* of the backup; size 0 where it has none */
    size_t auto_conf_size;
    const char *main_conf; /* postgresql.conf as it will lie there */
    size_t main_conf_size;
    bool was_clone; /* the backup was made of a clone: clone_settings are ours, not its owner's */
} SettingsOptions;

bool settings_make(const SettingsOptions *options, ByteWriter *text_out,
                   CairnError *err) MUST_CHECK;

/* Where pgcairn-wal finds what we found: a configuration file, or the environment as a prefix. */
typedef struct {
    const char *program; /* absolute path of pgcairn-wal */
    const char *config_file;
    const char *cluster;
    const RepositoryConfig *repository;
    bool all_repositories;  /* every one that the cluster names, as it is configured then */
    const char *hole_after; /* "": none */
} RestoreCommandOptions;

bool settings_restore_command(const RestoreCommandOptions *options, ByteWriter *command_out,
                              CairnError *err) MUST_CHECK;

#endif
