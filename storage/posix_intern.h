/*
 * Shared by posix.c (objects) and posix_list.c (directories). Nobody else includes this.
 */
#ifndef PGCAIRN_STORAGE_POSIX_INTERN_H
#define PGCAIRN_STORAGE_POSIX_INTERN_H

#include "storage/storage.h"

/* Random bytes in a temporary name, written as hex. */
enum { POSIX_TOKEN_SIZE = 8 };

typedef struct {
    Storage base; /* first */
    const World *world;
    int root_fd;
    char *root;
} PosixStorage;

/* A descriptor of the directory `path` below the root ("" for itself); -1 on failure. */
int posix_open_directory(const PosixStorage *storage, const char *path, CairnError *err);

bool posix_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
                CairnError *err);
bool posix_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err);

#endif
