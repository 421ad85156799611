#include "walarchive/file_identity.h"

#include "common/digest.h"
#include "common/file.h"

enum { PAGE_SIZE = 8192 };

/* The kernel's file times tick with its timer: 10 ms at most, and twice that is on the safe side.
 */
static const int64_t SETTLED_NS = 20 * 1000000;

static int64_t
nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

bool
file_identity_read(const World *world, int fd, const char *name, FileIdentity *identity_out,
                   CairnError *err)
{
    uint8_t page[PAGE_SIZE];
    struct stat status;

    if (world->disk->fstat(world->disk, fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine '%s'", name);
    const size_t size = status.st_size < PAGE_SIZE ? (size_t)status.st_size : PAGE_SIZE;
    if (!file_pread(world, fd, page, size, 0, name, err))
        return false;
    *identity_out = (FileIdentity){
        .size = (uint64_t)status.st_size,
        .device = (uint64_t)status.st_dev,
        .inode = (uint64_t)status.st_ino,
        .modified_ns = nanoseconds(status.st_mtim),
        .changed_ns = nanoseconds(status.st_ctim),
        .page_crc = crc32c(0, page, size),
    };
    return true;
}

bool
file_identity_equal(const FileIdentity *left, const FileIdentity *right)
{
    return left->size == right->size && left->device == right->device &&
           left->inode == right->inode && left->modified_ns == right->modified_ns &&
           left->changed_ns == right->changed_ns && left->page_crc == right->page_crc;
}

int64_t
file_identity_settles_ns(const World *world, const FileIdentity *identity)
{
    const int64_t now_ns = world->clock->wall_us(world->clock) * 1000;
    const int64_t newest_ns =
        identity->changed_ns > identity->modified_ns ? identity->changed_ns : identity->modified_ns;
    const int64_t age_ns = now_ns - newest_ns;

    if (age_ns >= SETTLED_NS)
        return 0;
    /* A step back of the clock larger than a tick: who knows what later times will look like. */
    return age_ns < -SETTLED_NS ? -1 : SETTLED_NS - age_ns;
}
