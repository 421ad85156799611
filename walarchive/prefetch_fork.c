#include "walarchive/prefetch_fork.h"

#include "common/error.h"
#include "common/file.h"
#include "common/scoped.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { POSTMASTER_FILE_LIMIT = 4096, DESCRIPTORS_LIMIT = 65536 };

bool
prefetch_may_fork(const World *world, int pgdata_fd)
{
    CairnError ignored = {0}; /* no postmaster: somebody tries it by hand */
    size_t size;
    SCOPED_MEMORY char *text =
        file_read_all(world, pgdata_fd, "postmaster.pid", POSTMASTER_FILE_LIMIT, &size, &ignored);

    return text == NULL || strtol(text, NULL, 10) != 1;
}

static bool
is_kept(int fd, const int *kept, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (kept[i] == fd)
            return true;
    }
    return false;
}

static void
close_others(const int *kept, size_t count)
{
    const long limit = sysconf(_SC_OPEN_MAX);
    int highest = limit > 0 && limit < DESCRIPTORS_LIMIT ? (int)limit : DESCRIPTORS_LIMIT;
    int from = STDERR_FILENO + 1;

    /* From one kept descriptor to the next. */
    for (;;) {
        int next = INT_MAX;
        for (size_t i = 0; i < count; i++) {
            if (kept[i] >= from && kept[i] < next)
                next = kept[i];
        }
        const unsigned last = next == INT_MAX ? ~0U : (unsigned)next - 1;
        if ((unsigned)from <= last && close_range((unsigned)from, last, 0) != 0) {
            for (int fd = from; fd < highest && fd < next; fd++)
                close(fd);
        }
        if (next == INT_MAX)
            return;
        CAIRN_ASSERT(is_kept(next, kept, count));
        from = next + 1;
    }
}

bool
prefetch_fork(const int *kept, size_t count)
{
    if (fork() != 0)
        return false; /* or it failed: then nothing is fetched ahead */
    const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (setsid() < 0 || nowhere < 0 || dup2(nowhere, STDIN_FILENO) < 0 ||
        dup2(nowhere, STDOUT_FILENO) < 0 || dup2(nowhere, STDERR_FILENO) < 0)
        _exit(1);
    close_others(kept, count);
    signal(SIGPIPE, SIG_IGN);
    return true;
}
