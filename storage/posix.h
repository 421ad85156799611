/*
 * The storage driver for a directory on a local or network file system.
 *
 * Durability: temporary name `.<name>.<16 hex>.tmp` in the same directory (O_EXCL, O_NOFOLLOW),
 * write, fsync, link, unlink, fsync directory. link(2) answers EEXIST when the name is taken: the
 * single-use slot. EEXIST with st_nlink of our temporary file at 2 is our own link whose reply was
 * lost (NFS). A write or fsync error is final for that object. Files 0640, directories 0750
 * whatever the umask. Never follows a symbolic link below root.
 */
#ifndef PGCAIRN_STORAGE_POSIX_H
#define PGCAIRN_STORAGE_POSIX_H

#include "storage/storage.h"

/*
 * root   absolute path of an existing directory (borrowed for the call)
 * create make root (and parents) when missing
 * NOT_FOUND when it is missing, DENIED, UNAVAILABLE.
 */
Storage *posix_storage_open(const World *world, const char *root, bool create,
                            CairnError *err) MUST_CHECK;

#endif
