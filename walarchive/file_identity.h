/*
 * Is a WAL file still the very file that was read a while ago?
 *
 * A recycled segment gets another name and other times; a restored or rewritten one another inode
 * or other times. Nobody can set a file's change time, so equal means: not written since, unless
 * that was within one tick of the kernel's clock; hence file_identity_settles_ns. Threads: any.
 */
#ifndef PGCAIRN_WALARCHIVE_FILE_IDENTITY_H
#define PGCAIRN_WALARCHIVE_FILE_IDENTITY_H

#include "common/error.h"
#include "common/world.h"

#include <stdbool.h>
#include <stdint.h>

/* The identity of a WAL file's content, as far as it is cheap to tell. */
typedef struct {
    uint64_t size;
    uint64_t device;
    uint64_t inode;
    int64_t modified_ns;
    int64_t changed_ns;
    uint32_t page_crc;
} FileIdentity;

bool file_identity_read(const World *world, int fd, const char *name, FileIdentity *identity_out,
                        CairnError *err) MUST_CHECK;
bool file_identity_equal(const FileIdentity *left, const FileIdentity *right);

/*
 * Nanoseconds until a change from now on must show in the identity: the kernel's file times tick,
 * and a write within the tick of the last one would leave them as they are. 0: now. Negative: never
 * (the file's time lies in the future).
 */
int64_t file_identity_settles_ns(const World *world, const FileIdentity *identity);

#endif
