/*
 * A storage driver in a file of its own, loaded by who needs it: pgcairn-wal must start in
 * milliseconds and link no libcurl.
 *
 * The file (pgcairn_s3.so) carries everything it needs of ours, hidden, and exports one function;
 * what only the program has (its signals, its log) it gets in a table. Program and driver are built
 * together and refuse each other when they were not.
 */
#ifndef PGCAIRN_STORAGE_DRIVER_H
#define PGCAIRN_STORAGE_DRIVER_H

#include "common/config.h"
#include "common/log.h"
#include "storage/storage.h"

#include <stdarg.h>

#ifndef PGCAIRN_VERSION
#define PGCAIRN_VERSION "unversioned"
#endif

/* Differs whenever a struct that both sides know has another size. */
#define STORAGE_DRIVER_SIZES                                                                       \
    (sizeof(StorageOps) + 1000 * sizeof(RepositoryConfig) + 1000000 * sizeof(World) +              \
     1000000 * sizeof(StorageHost))

typedef struct {
    bool (*cancel_requested)(void);
    bool (*cancel_check)(CairnError *err);
    LogLevel (*log_level)(void);
    void (*log_text)(LogLevel level, const char *text);
} StorageHost;

typedef struct {
    const char *version; /* PGCAIRN_VERSION */
    size_t sizes;        /* STORAGE_DRIVER_SIZES */
    Storage *(*open)(const World *world, const RepositoryConfig *config, CairnError *err);
} StorageDriver;

#define STORAGE_DRIVER_SYMBOL "pgcairn_storage_driver"
/* host: borrowed for ever. */
typedef const StorageDriver *StorageDriverFunction(const StorageHost *host);

#endif
