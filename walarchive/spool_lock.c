#include "walarchive/spool_lock.h"

#include "common/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LOCK_NAME "lock"

enum { FILE_MODE = 0600 };

/* The kernel's, about running processes: locks do not go through the World. */

/* Kept positive and off byte 0. Two names that collide wait for each other, no more. */
static int64_t
name_offset(const char *file_name)
{
    if (file_name == NULL)
        return 0;
    return (int64_t)(fnv1a(file_name, strlen(file_name)) >> 2) + 1;
}

bool
spool_lock_try(const Spool *spool, const char *file_name, SpoolLock *lock_out, CairnError *err)
{
    SCOPED_FD fd = openat(spool_directory(spool), LOCK_NAME,
                          O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};

    if (fd < 0)
        return cairn_error_errno(err, "unable to open the spool's lock");
    range.l_start = name_offset(file_name);
    if (fcntl(fd, F_OFD_SETLK, &range) != 0) {
        if (errno != EAGAIN && errno != EACCES)
            cairn_error_errno(err, "unable to take the spool's lock");
        return false;
    }
    *lock_out = (SpoolLock){.fd = take_fd(&fd), .offset = range.l_start};
    return true;
}

/* Closing the only descriptor of its open file description ends the lock. */
void
spool_unlock(SpoolLock *lock)
{
    if (lock->fd >= 0)
        close(lock->fd);
    lock->fd = -1;
}
