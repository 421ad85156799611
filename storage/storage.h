/*
 * Where objects are kept: an interface and its drivers. Knows names and bytes, nothing of what is
 * stored.
 *
 * Names: relative, slash-separated, components of [A-Za-z0-9._-] that do not start with a dot, at
 * most STORAGE_NAME_LIMIT bytes (storage_name_valid). Anything else is refused before the driver
 * sees it. Objects are created once, whole, and never change: storage_writer_commit publishes only
 * when the name was free. There is no overwrite.
 *
 * Errors: NOT_FOUND is proven absence; CONFLICT the name is taken; UNAVAILABLE, DENIED, NO_SPACE,
 * IO as everywhere. Crash: before commit returns true the object is absent or whole; after, it is
 * durable, directory entries included. Leftovers have names `.*.tmp` that no listing returns;
 * storage_sweep removes them. Threads: a Storage may be shared; a writer or reader belongs to one
 * thread at a time.
 *
 *     SCOPED(StorageWriter) writer = storage_create(storage, name, &err);
 *     if (writer == NULL || !storage_write(writer, data, size, &err) || !storage_commit(writer,
 * &err)) return cairn_error_wrap(&err, "...");
 */
#ifndef PGCAIRN_STORAGE_STORAGE_H
#define PGCAIRN_STORAGE_STORAGE_H

#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"

#include <stdbool.h>
#include <stdint.h>

enum { STORAGE_NAME_LIMIT = 512 };

typedef struct Storage Storage;
typedef struct StorageWriter StorageWriter;
typedef struct StorageReader StorageReader;

typedef struct {
    const char *name;    /* last component; borrowed for the call */
    bool is_directory;   /* a prefix that holds more names */
    uint64_t size_bytes; /* of an object */
    int64_t modified_us; /* of an object */
} StorageEntry;

typedef enum { STORAGE_LIST_GO_ON, STORAGE_LIST_STOP, STORAGE_LIST_FAILED } StorageListNext;
typedef StorageListNext StorageListCallback(void *context, const StorageEntry *entry,
                                            CairnError *err);

typedef struct {
    void (*close)(Storage *storage);
    StorageWriter *(*create)(Storage *storage, const char *name, CairnError *err);
    StorageReader *(*open)(Storage *storage, const char *name, CairnError *err);
    bool (*list)(Storage *storage, const char *prefix, StorageListCallback *callback, void *context,
                 CairnError *err);
    bool (*exists)(Storage *storage, const char *name, uint64_t *size_out, CairnError *err);
    bool (*make_durable)(Storage *storage, const char *name, CairnError *err);
    bool (*remove)(Storage *storage, const char *name, CairnError *err);
    bool (*free_space)(Storage *storage, uint64_t *bytes_out, CairnError *err);
    bool (*sweep)(Storage *storage, const char *prefix, int64_t older_than_us, CairnError *err);
    bool (*prune)(Storage *storage, const char *prefix, CairnError *err); /* NULL: nothing to do */
    bool (*is_local)(Storage *storage);                                   /* NULL: no */
} StorageOps;

struct Storage {
    const StorageOps *ops;
};

typedef struct {
    bool (*write)(StorageWriter *writer, const void *data, size_t size, CairnError *err);
    bool (*commit)(StorageWriter *writer, CairnError *err);
    void (*free)(StorageWriter *writer);
} StorageWriterOps;

struct StorageWriter {
    const StorageWriterOps *ops;
    uint64_t size_bytes;
    bool finished; /* committed, or failed for good: then every call answers INTERNAL */
};

typedef struct {
    bool (*pread)(StorageReader *reader, void *data, size_t size, uint64_t offset, CairnError *err);
    void (*free)(StorageReader *reader);
} StorageReaderOps;

struct StorageReader {
    const StorageReaderOps *ops;
    uint64_t size_bytes;
};

void storage_close(Storage *storage);
SCOPED_TYPE(Storage, storage_close);

bool storage_name_valid(const char *name);

/* Start an object; nothing is visible until storage_commit. Missing prefixes are made. */
StorageWriter *storage_create(Storage *storage, const char *name, CairnError *err) MUST_CHECK;
bool storage_write(StorageWriter *writer, const void *data, size_t size,
                   CairnError *err) MUST_CHECK;
/* Durable and named, or CONFLICT (taken; nothing new is visible), NO_SPACE, IO, ... */
bool storage_commit(StorageWriter *writer, CairnError *err) MUST_CHECK;
void storage_writer_free(StorageWriter *writer); /* not committed: abandons, leaves nothing */
SCOPED_TYPE(StorageWriter, storage_writer_free);

/* One small object in one call. */
bool storage_put(Storage *storage, const char *name, const void *data, size_t size,
                 CairnError *err) MUST_CHECK;

/* Refuses (CORRUPT) what is no regular file: symbolic links, FIFOs, directories. */
StorageReader *storage_open(Storage *storage, const char *name, CairnError *err) MUST_CHECK;
/* Exactly size bytes at offset; CORRUPT when the object is shorter. */
bool storage_pread(StorageReader *reader, void *data, size_t size, uint64_t offset,
                   CairnError *err) MUST_CHECK;
void storage_reader_free(StorageReader *reader);
SCOPED_TYPE(StorageReader, storage_reader_free);

/* Whole object of at most limit bytes, malloc'ed (returned owned); CORRUPT when larger. */
uint8_t *storage_get(Storage *storage, const char *name, size_t limit, size_t *size_out,
                     CairnError *err) MUST_CHECK;

/* Entries directly below prefix ("" for the root), in no order. A missing prefix is an empty one.
 */
bool storage_list(Storage *storage, const char *prefix, StorageListCallback *callback,
                  void *context, CairnError *err) MUST_CHECK;
/* True and the size, or NOT_FOUND. */
bool storage_exists(Storage *storage, const char *name, uint64_t *size_out,
                    CairnError *err) MUST_CHECK;
/* Makes an existing object durable again: it may be left from a crash before its sync. */
bool storage_make_durable(Storage *storage, const char *name, CairnError *err) MUST_CHECK;
/* Absent already is success. */
bool storage_remove(Storage *storage, const char *name, CairnError *err) MUST_CHECK;
bool storage_free_space(Storage *storage, uint64_t *bytes_out, CairnError *err) MUST_CHECK;
/* Removes leftovers of crashed writers below prefix (not deeper) older than a wall-clock time. */
bool storage_sweep(Storage *storage, const char *prefix, int64_t older_than_us,
                   CairnError *err) MUST_CHECK;
/* Where prefixes are things of their own (directories): removes this one when nothing is in it. A
   writer that is about to use it may fail once. Absent, or not empty, is success. */
bool storage_prune(Storage *storage, const char *prefix, CairnError *err) MUST_CHECK;
/* True when this host alone uses it, through a local file system: what is written is seen at once.
   False when in doubt. */
bool storage_is_local(Storage *storage);

#endif
