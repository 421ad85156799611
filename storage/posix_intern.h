/*
 * Shared by posix.c (objects), posix_directory.c (making directories) and posix_list.c (listing
 * them). Nobody else includes this.
 */
#ifndef PGCAIRN_STORAGE_POSIX_INTERN_H
#define PGCAIRN_STORAGE_POSIX_INTERN_H

#include "storage/storage.h"

#include <sys/stat.h>

/* Random bytes in a temporary name, written as hex. */
enum { POSIX_TOKEN_SIZE = 8 };

typedef struct {
    Storage base; /* first */
    const World *world;
    int root_fd;
    struct stat root_status; /* of root_fd, when it was opened */
    char *root;
} PosixStorage;

/* A descriptor of the directory `path` below the root ("" for itself); -1 on failure. */
int posix_open_directory(const PosixStorage *storage, const char *path, CairnError *err);
/* The same, made with its parents where it is missing; it is durable before anything is in it. */
int posix_make_directory(const PosixStorage *storage, const char *path, CairnError *err);
/* By errno. */
void posix_open_failed(const PosixStorage *storage, const char *name, CairnError *err);

bool posix_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
                CairnError *err);
bool posix_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err);

#endif
