/* wal skip: give one segment up, on the record. */
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/wal_settings.h"
#include "common/log.h"
#include "repository/wal_ack.h"
#include "walarchive/data_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

/* The WAL of the server whose data directory this is. */
typedef struct {
    Repository *repository;
    Incarnation incarnation;
    WalStore *store;
} Archive;

static bool
open_archive(const World *world, const WalSettings *settings, const RepositoryConfig *repository,
             const char *pgdata, Archive *archive, CairnError *err)
{
    ControlFile control;
    SCOPED_FD pgdata_fd = data_directory_open(world, pgdata, "", err);

    if (pgdata_fd < 0 || !data_directory_control(world, pgdata_fd, &control, err))
        return false;
    archive->repository = repository_open(world, repository, err);
    if (archive->repository == NULL)
        return cairn_error_hint(err, "what is given up is recorded in the repository, so nothing "
                                     "can be given up while it is out of reach");
    if (!incarnation_get(archive->repository, settings->cluster->name, control.system_id,
                         control.major, &archive->incarnation, err))
        return false;
    archive->store =
        wal_store_open(archive->repository, settings->cluster->name, &archive->incarnation, err);
    return archive->store != NULL;
}

static void
close_archive(Archive *archive)
{
    wal_store_close(archive->store);
    if (archive->repository != NULL)
        repository_close(archive->repository);
}

/* A record for a segment that does not exist yet would drop it unseen when it does. */
static bool
check_offered(const World *world, const char *pgdata, const char *segment, CairnError *err)
{
    const Disk *disk = world->disk;
    WalFileName file;
    char path[WAL_FILE_NAME_LIMIT + 64];
    struct stat status;
    SCOPED_FD pgdata_fd = data_directory_open(world, pgdata, "", err);

    if (pgdata_fd < 0 || !wal_file_name_parse(segment, &file, err))
        return false;
    snprintf(path, sizeof path, "pg_wal/archive_status/%.63s.ready", segment);
    if (disk->fstatat(disk, pgdata_fd, path, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return true;
    if (errno != ENOENT)
        return cairn_error_errno(err, "unable to look for '%s'", path);
    cairn_error(err, CAIRN_REFUSED, "the server does not wait for '%s' to be archived", segment);
    return cairn_error_hint(err,
                            "only what it offers can be given up: '%s' is not in the data "
                            "directory; `pgcairn-wal status` names the next one",
                            path);
}

static bool
give_up(const Archive *archive, const char *segment, const char *reason, bool confirmed,
        CairnError *err)
{
    const uint32_t size = archive->incarnation.wal_segment_size;
    WalAck ack = {.decision = WAL_ACK_SKIP};
    uint64_t number;

    if (!wal_segment_parse(segment, size, &ack.timeline, &number))
        return cairn_error(err, CAIRN_USAGE, "'%.64s' is not the name of a WAL segment", segment);
    if (!confirmed) {
        cairn_error(err, CAIRN_REFUSED,
                    "without '%s' nothing after it can be recovered from the backups before it",
                    segment);
        return cairn_error_hint(err,
                                "to give it up all the same: `wal skip --confirm %s`, then "
                                "take a backup at once",
                                segment);
    }
    ack.start_lsn = number * size;
    ack.end_lsn = (number + 1) * size;
    snprintf(ack.reason, sizeof ack.reason, "%.500s", reason);
    return wal_ack_put(archive->store, &ack, err);
}

/* In each repository: push answers 0 when each that is required holds the record. */
static bool
give_up_in_each(const World *world, const WalSettings *settings, const char *pgdata,
                const char *segment, const char *reason, bool confirmed, CairnError *err)
{
    for (size_t i = 0; i < settings->repository_count; i++) {
        Archive archive = {0};
        const RepositoryConfig *repository = settings->repositories[i];
        const bool done = open_archive(world, settings, repository, pgdata, &archive, err) &&
                          give_up(&archive, segment, reason, confirmed, err);
        close_archive(&archive);
        if (!done && settings->repository_count > 1)
            return cairn_error_wrap(err, "repository '%s'", repository->name);
        if (!done)
            return false;
    }
    return true;
}

int
command_wal_skip(const World *world, int argc, char **argv)
{
    CairnError err = {0};
    CommonOptions common = {0};
    WalSettings settings = {0};
    const char *pgdata = NULL;
    const char *reason = "given up with `wal skip`";
    const char *segment = NULL;
    bool confirm = false;
    int code;
    const Option options[] = {
        {"confirm", 0, OPTION_FLAG, &confirm, NULL, "yes, this segment is to be lost"},
        {"reason", 0, OPTION_TEXT, &reason, "TEXT", "for the record"},
        {"pgdata", 'D', OPTION_TEXT, &pgdata, "DIR",
         "data directory (default: that of the configuration, else the current one)"},
        {.name = NULL},
    };
    const CommandHelp help = {
        .name = argv[0],
        .synopsis = "pgcairn-wal skip --confirm [options] SEGMENT",
        .summary =
            "Give one segment up that the server offers and that cannot be archived: push answers "
            "0\nfor it from then on.\n"
            "It leaves a hole for ever, and a record of it in the repository. Take a backup next.",
        .examples = "  pgcairn-wal skip --confirm --reason 'disk block unreadable' \\\n"
                    "      000000010000000A000000C4\n",
        .options = options,
    };

    if (!cli_parse(&help, &common, argc, argv, &segment, &code))
        return code;
    if (segment == NULL)
        cairn_error(&err, CAIRN_USAGE, "%s: which segment?", argv[0]);
    bool done = segment != NULL && wal_settings_load(world, &common, &settings, &err);
    if (done && pgdata == NULL)
        pgdata = settings.cluster->pgdata != NULL ? settings.cluster->pgdata : ".";
    done = done && check_offered(world, pgdata, segment, &err) &&
           give_up_in_each(world, &settings, pgdata, segment, reason, confirm, &err);
    wal_settings_free(&settings);
    if (!done)
        return cli_failed(&err);
    log_warn("'%s' is given up: recovery from earlier backups ends before it; take a backup now",
             segment);
    return WAL_EXIT_DONE;
}
