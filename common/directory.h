/*
 * The names in a directory, one after another.
 *
 * Errors: by errno, so that the caller's message says which directory it was. directory_next gives
 * NULL at the end and on failure alike; a listing cut short would read as absence, so whoever
 * concludes anything from what is not there asks directory_complete. Threads: one each.
 *
 *     SCOPED(Directory) directory = directory_open(world, fd, ".", 0);
 *     const char *name;
 *
 *     if (directory == NULL)
 *         return cairn_error_errno(err, "unable to list '%s'", path);
 *     while ((name = directory_next(directory)) != NULL)
 *         ...
 *     return directory_complete(directory) || cairn_error_errno(err, "unable to list '%s'", path);
 */
#ifndef PGCAIRN_COMMON_DIRECTORY_H
#define PGCAIRN_COMMON_DIRECTORY_H

#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"

typedef struct Directory Directory;

/* `path` below dirfd, "." for dirfd itself: with a descriptor of its own, so that it is read from
   its beginning. flags: O_NOFOLLOW or 0. NULL and errno when it does not open. */
Directory *directory_open(const World *world, int dirfd, const char *path, int flags) MUST_CHECK;
/* The same for a descriptor, which is taken, also on failure. */
Directory *directory_open_fd(const World *world, int fd) MUST_CHECK;
void directory_close(Directory *directory);
SCOPED_TYPE(Directory, directory_close);

/* To reach the entries by; borrowed. */
int directory_fd(const Directory *directory);

/* All but "." and ".."; borrowed until the next call. */
const char *directory_next(Directory *directory);
/* After NULL: was that the end? False with errno when it was a failure. */
bool directory_complete(const Directory *directory) MUST_CHECK;

#endif
