/* Does push take along what else is ready? That needs a directory to remember it in. */
#include "agent/check_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define NAME "batches"

void
check_batches(CheckRun *run)
{
    const Disk *disk = run->options->world->disk;
    const char *configured = run->options->spool_path;
    const char *path = configured != NULL ? configured : CONFIG_DEFAULT_SPOOL_PATH;
    struct stat status;

    if (run->receives)
        return; /* nobody pushes, or little depends on it */
    const bool found = disk->fstatat(disk, AT_FDCWD, path, &status, 0) == 0;
    if (!found && errno == ENOENT && configured == NULL) {
        check_add(run, NAME, CHECK_OK,
                  "off: push sends one segment at a time, since there is no '%s'; it is made by: "
                  "install -d -o postgres -g postgres -m 0700 %s",
                  path, path);
        return;
    }
    if (!found && errno == ENOENT) {
        check_add(run, NAME, CHECK_OK, "the first push makes '%s'", path);
        return;
    }
    if (!found) {
        check_add(run, NAME, CHECK_WARNING,
                  "off: spool-path '%s' cannot be looked at (%s); push sends one segment at a time",
                  path, strerror(errno));
        return;
    }
    if (!S_ISDIR(status.st_mode))
        check_add(run, NAME, CHECK_WARNING,
                  "off: spool-path '%s' is no directory; push sends one segment at a time", path);
    else
        check_add(run, NAME, CHECK_OK, "what is ready goes along, remembered in '%s'", path);
}
