/* serve: the archive module's helper process. */
#include "cli/commands.h"
#include "cli/wal_push_each.h"
#include "cli/wal_push_report.h"
#include "cli/wal_settings.h"
#include "common/cancel.h"
#include "common/log.h"
#include "walarchive/push_server.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TIMEOUT_SECONDS = 60, AHEAD_WORDS = 16 };

typedef struct {
    const World *world;
    const CommonOptions *common;
    WalSettings settings;
    bool loaded;
    char path[PATH_MAX]; /* of the configuration file; "" when there is none */
    struct stat file;    /* as it was just before it was read */
    int64_t timeout_ms;
    WalBatch batch;
    char *ahead[AHEAD_WORDS];
    WalPushRoom room;
} KeptSettings;

static bool
is_same_file(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino &&
           one->st_size == other->st_size && one->st_ctim.tv_sec == other->st_ctim.tv_sec &&
           one->st_ctim.tv_nsec == other->st_ctim.tv_nsec;
}

/* All zeros when there is none. */
static struct stat
look_at_file(const KeptSettings *kept)
{
    const Disk *disk = kept->world->disk;
    struct stat status;

    if (kept->path[0] == '\0' || disk->fstatat(disk, AT_FDCWD, kept->path, &status, 0) != 0)
        return (struct stat){0};
    return status;
}

static bool
has_changed(const KeptSettings *kept)
{
    const struct stat now = look_at_file(kept);

    return !kept->loaded || !is_same_file(&now, &kept->file);
}

/*
 * Looks before it reads, so that a change in between shows next time. Which file to look at is
 * known only once it has been read: the first time it is read twice.
 */
static bool
load(KeptSettings *kept, CairnError *err)
{
    bool looked = false;

    kept->loaded = false;
    while (!looked) {
        kept->file = look_at_file(kept);
        wal_settings_free(&kept->settings);
        kept->settings = (WalSettings){0};
        if (!wal_settings_load(kept->world, kept->common, &kept->settings, err))
            return false;
        const char *path = config_global(kept->settings.config)->file;
        if (path == NULL)
            path = "";
        looked = strcmp(path, kept->path) == 0;
        if (snprintf(kept->path, sizeof kept->path, "%s", path) >= (int)sizeof kept->path)
            return cairn_error(err, CAIRN_USAGE, "the configuration's path is too long");
    }
    kept->loaded = true;
    return true;
}

/* Words for the process that pushes ahead of the server's asking, for the data directory of path.
 */
static void
make_ahead_command(KeptSettings *kept, const char *path)
{
    static char program[] = "pgcairn-wal";
    static char family[] = "wal";
    static char name[] = "push-ahead";
    const CommonOptions *common = kept->common;
    const struct {
        char *option;
        const char *value;
    } options[] = {
        {"--config", common->config},
        {"--cluster", common->cluster},
        {"--repository", common->repository},
        {"--log-level", common->log_level},
    };
    size_t count = 0;

    kept->ahead[count++] = program;
    kept->ahead[count++] = family;
    kept->ahead[count++] = name;
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (options[i].value != NULL) {
            kept->ahead[count++] = options[i].option;
            kept->ahead[count++] = (char *)options[i].value;
        }
    }
    kept->ahead[count++] = (char *)path;
    kept->ahead[count] = NULL;
}

static bool
prepare(void *context, const char *path, WalPushAll *push_out, bool *changed_out, CairnError *err)
{
    KeptSettings *kept = context;
    const WalSettings *settings = &kept->settings;

    *changed_out = has_changed(kept);
    if (*changed_out && !load(kept, err))
        return false;
    make_ahead_command(kept, path);
    kept->batch = (WalBatch){
        .spool_path = settings->global->spool_path,
        .jobs = wal_settings_push_jobs(settings),
        .command = kept->ahead,
        /* The other half is for pushing the file itself. */
        .patience_ms = kept->timeout_ms / 2,
    };
    const WalPush push = {
        .cluster = settings->cluster->name,
        .batch = &kept->batch,
        .overflow_path = settings->global->overflow_path,
    };
    wal_push_each(settings, &push, &kept->room, push_out);
    return true;
}

static void
report(void *context, const char *path, const WalPushedAll *pushed)
{
    (void)context;
    wal_push_report_all(path, pushed);
}

static void
report_shipped(void *context, const WalPushed *pushed, const char *repository)
{
    (void)context;
    wal_push_report_shipped(pushed, repository);
}

static bool
serve(const World *world, const CommonOptions *common, int64_t timeout_s, CairnError *err)
{
    KeptSettings kept = {.world = world, .common = common, .timeout_ms = timeout_s * 1000};
    const PushServerOptions options = {
        .input_fd = STDIN_FILENO,
        .output_fd = STDOUT_FILENO,
        .timeout_ms = timeout_s * 1000,
        .prepare = prepare,
        .report = report,
        .report_shipped = report_shipped,
        .context = &kept,
    };

    cancel_install();
    const bool done =
        wal_check_seconds("timeout", timeout_s, 1, err) && push_server_run(world, &options, err);
    wal_settings_free(&kept.settings);
    return done;
}

int
command_wal_serve(const World *world, int argc, char **argv)
{
    CairnError err = {0};
    CommonOptions common = {0};
    int64_t timeout_s = TIMEOUT_SECONDS;
    size_t count = 0;
    const Option options[] = {
        {"timeout", 0, OPTION_INTEGER, &timeout_s, "SECONDS", "for one file (default 60)"},
        {.name = NULL},
    };
    const CommandHelp help = {
        .name = argv[0],
        .synopsis = "pgcairn-wal serve [options]",
        .summary = "The archive module's helper process: archives one file after the other, as the "
                   "module asks\nfor it on standard input. Nobody else calls it.",
        .examples = "  archive_library = 'pgcairn_archive'\n"
                    "  pgcairn_archive.command = '/usr/bin/pgcairn-wal'\n",
        .options = options,
    };

    if (!options_parse(&help, &common, argc, argv, NULL, 0, &count, &err)) {
        log_error(&err);
        return WAL_EXIT_FAILED;
    }
    if (common.help) {
        options_print_help(&help);
        return WAL_EXIT_DONE;
    }
    if (!serve(world, &common, timeout_s, &err)) {
        log_error(&err);
        return WAL_EXIT_FAILED;
    }
    return WAL_EXIT_DONE;
}
