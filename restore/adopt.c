#include "restore/adopt.h"

#include "common/file.h"
#include "common/scoped.h"
#include "postgres/recovery_settings.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SETTINGS_LIMIT = 4 << 20 };

static const char AUTO_CONF[] = "postgresql.auto.conf";
static const char *const ARCHIVE_MODE[] = {"archive_mode", NULL};

static mode_t
mode_of(const World *world, int fd, const char *path)
{
    struct stat status;
    return world->disk->fstatat(world->disk, fd, path, &status, 0) == 0 ? status.st_mode & 0777
                                                                        : S_IRUSR | S_IWUSR;
}

/* ALTER SYSTEM rewrites the file without comments, so the line is known by its value alone. */
static bool
allow_archiving(const World *world, int fd, CairnError *err)
{
    size_t size;
    SCOPED_MEMORY char *text = file_read_all(world, fd, AUTO_CONF, SETTINGS_LIMIT, &size, err);
    if (text == NULL)
        return false;
    SCOPED_MEMORY char *value = settings_find(text, size, ARCHIVE_MODE[0]);
    if (value == NULL || strcmp(value, "off") != 0)
        return true;
    SCOPED_BYTES ByteWriter filtered = {0};
    settings_filter(text, size, ARCHIVE_MODE, &filtered);
    return byte_writer_check(&filtered, err) &&
           file_replace(world, fd, AUTO_CONF, filtered.data, filtered.size,
                        mode_of(world, fd, AUTO_CONF), err);
}

bool
adopt_run(const World *world, const char *pgdata, const char *as_cluster, Identity *identity_out,
          CairnError *err)
{
    Identity identity;
    bool present;

    SCOPED_FD fd =
        world->disk->openat(world->disk, AT_FDCWD, pgdata, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return cairn_error_errno(err, "unable to open directory '%s'", pgdata);
    if (!identity_read(world, fd, &identity, &present, err))
        return false;
    if (!present) {
        return cairn_error(err, CAIRN_NOT_FOUND,
                           "'%s' is no restored copy: it has no " IDENTITY_FILE_NAME, pgdata);
    }
    const char *cluster = as_cluster != NULL ? as_cluster : identity.origin;
    if (!cluster_name_valid(cluster))
        return cairn_error(err, CAIRN_USAGE, "'%.80s' is no name for a cluster", cluster);
    snprintf(identity.cluster, sizeof identity.cluster, "%s", cluster);
    snprintf(identity.role, sizeof identity.role, "original");

    SCOPED_BYTES ByteWriter text = {0};
    /* Who may archive first, then that it does: the other order could archive under no name at all.
     */
    if (!identity_format(&identity, &text, err) ||
        !file_replace(world, fd, IDENTITY_FILE_NAME, text.data, text.size,
                      mode_of(world, fd, IDENTITY_FILE_NAME), err) ||
        !allow_archiving(world, fd, err)) {
        return cairn_error_wrap(err, "'%s'", pgdata);
    }
    *identity_out = identity;
    return true;
}
