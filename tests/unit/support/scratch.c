#include "tests/unit/support/scratch.h"

#include "common/error.h"

#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[PATH_MAX];
static pid_t owner;

static int
remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static void
remove_base(void)
{
    if (getpid() == owner) /* not in a forked child of the test */
        nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *
scratch_directory(void)
{
    enum { DIRECTORIES = 512 };
    static char paths[DIRECTORIES][PATH_MAX];
    static unsigned count;

    if (base[0] == '\0') {
        const char *parent = getenv("TMPDIR");
        snprintf(base, sizeof base, "%s/pgcairn-test-XXXXXX", parent != NULL ? parent : "/tmp");
        CAIRN_ASSERT(mkdtemp(base) != NULL);
        owner = getpid();
        atexit(remove_base);
    }
    CAIRN_ASSERT(count < DIRECTORIES);
    char *path = paths[count];
    CAIRN_ASSERT(snprintf(path, PATH_MAX, "%s/%u", base, count) < PATH_MAX);
    count++;
    CAIRN_ASSERT(mkdir(path, 0755) == 0);
    return path;
}

const char *
scratch_path(const char *directory, const char *name)
{
    static char buffers[8][PATH_MAX];
    static unsigned next;
    char *buffer = buffers[next++ % 8];
    CAIRN_ASSERT(snprintf(buffer, PATH_MAX, "%s/%s", directory, name) < PATH_MAX);
    return buffer;
}
