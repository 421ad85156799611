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
 * storage_sweep removes them. Threads: a Storage may be shared, and so may a
 * reader (packs are read by several threads at once); a writer belongs to one thread at a time.
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

enum { STORAGE_NAME_LIMIT = 512, STORAGE_REMOVE_LIMIT = 500, STORAGE_VERSION_LIMIT = 1024 };

typedef struct Storage Storage;
typedef struct StorageWriter StorageWriter;
typedef struct StorageReader StorageReader;

typedef struct {
    const char *name;    /* last component; borrowed for the call */
    bool is_directory;   /* a prefix that holds more names */
    uint64_t size_bytes; /* of an object */
    int64_t modified_us; /* of an object */
    bool is_gone;        /* removed while the list was made: a name, no more */
} StorageEntry;

typedef enum { STORAGE_LIST_GO_ON, STORAGE_LIST_STOP, STORAGE_LIST_FAILED } StorageListNext;
typedef StorageListNext StorageListCallback(void *context, const StorageEntry *entry,
                                            CairnError *err);

/* Where a storage keeps what was overwritten or deleted: one version of a name, or its deletion. */
typedef struct {
    const char *name;    /* the whole name; borrowed for the call, as all of it */
    const char *version; /* the store's id; "null": from before it kept versions */
    const char *digest;  /* equal ones are of equal content; "" for none */
    bool is_deletion;    /* since then the name is absent; no size, no digest */
    uint64_t size_bytes;
    int64_t created_us; /* by the store's clock, whole seconds */
} StorageVersion;

typedef bool StorageVersionCallback(void *context, const StorageVersion *version, CairnError *err);

/* What a store was seen to do, as opposed to what it answers. */
typedef enum {
    STORAGE_FEATURE_NOT_ASKED, /* nothing depends on it here */
    STORAGE_FEATURE_HOLDS,
    STORAGE_FEATURE_FAILS,
} StorageFeature;

typedef struct {
    StorageFeature
        exclusive_create; /* of racing creates of a name one wins, and is what is there */
    StorageFeature list_after_write; /* what was just created is listed */
    StorageFeature ranged_read;
    StorageFeature digest_check; /* a body that differs from its digest is refused */
    StorageFeature object_lock;  /* what is created with a lock has it */
    char detail[256];            /* what was seen instead, of the first that fails; else "" */
} StorageProbe;

/* What a driver holds in memory, for who plans it. All zeros: next to nothing. */
typedef struct {
    uint64_t writer_bytes; /* an open writer holds its object up to this size, then so much of it */
    uint64_t reader_bytes; /* all open readers together */
} StorageMemory;

/* The lock that a driver gives to everything it creates. All zeros: none, where nothing locks. */
typedef struct {
    const char *mode; /* "governance", "compliance"; borrowed from the storage */
    int days;         /* that whatever a new backup needs must have left */
    int refresh_days; /* that a lock gets on top, so that it needs no renewal before they are over
                       */
} StorageLockTerms;

/* One object's lock, as the store tells it. */
typedef struct {
    int64_t until_us; /* 0: none */
    int64_t now_us;   /* when that was asked, by the store's clock as far as we know it */
    bool renewed;     /* by this call */
} StorageLock;

typedef struct {
    void (*close)(Storage *storage);
    StorageWriter *(*create)(Storage *storage, const char *name, CairnError *err);
    StorageReader *(*open)(Storage *storage, const char *name, CairnError *err);
    bool (*list)(Storage *storage, const char *prefix, StorageListCallback *callback, void *context,
                 CairnError *err);
    bool (*exists)(Storage *storage, const char *name, uint64_t *size_out, CairnError *err);
    bool (*make_durable)(Storage *storage, const char *name, CairnError *err);
    bool (*remove)(Storage *storage, const char *name, CairnError *err);
    /* NULL: one by one */
    bool (*remove_many)(Storage *storage, const char *const *names, size_t count, bool *gone_out,
                        CairnError *denied_out, CairnError *err);
    bool (*free_space)(Storage *storage, uint64_t *bytes_out, CairnError *err);
    bool (*sweep)(Storage *storage, const char *prefix, int64_t older_than_us, CairnError *err);
    bool (*prune)(Storage *storage, const char *prefix, CairnError *err); /* NULL: nothing to do */
    bool (*is_local)(Storage *storage);                                   /* NULL: no */
    bool (*probe)(Storage *storage, StorageProbe *probe_out, CairnError *err); /* NULL: proven */
    bool (*creates_exclusively)(Storage *storage);                             /* NULL: yes */
    bool (*is_create_only)(Storage *storage);                                  /* NULL: no */
    StorageMemory (*memory)(Storage *storage);                                 /* NULL: all zeros */
    void (*set_patience)(Storage *storage, int64_t patience_ms); /* NULL: nothing waits */
    int (*requests_at_once)(Storage *storage);                   /* NULL: 1 */
    /* NULL, all three: it keeps no versions */
    bool (*list_versions)(Storage *storage, StorageVersionCallback *callback, void *context,
                          CairnError *err);
    StorageReader *(*open_version)(Storage *storage, const char *name, const char *version,
                                   CairnError *err);
    bool (*put_back)(Storage *storage, const char *name, const char *version, uint64_t size_bytes,
                     CairnError *err);
    StorageLockTerms (*lock_terms)(Storage *storage); /* NULL: all zeros */
    bool (*ensure_lock)(Storage *storage, const char *name, int64_t left_us, StorageLock *lock_out,
                        CairnError *err); /* NULL: nothing locks */
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
/* The same with what is_gone, where a driver sees it (a local directory does): for who must not
   take a list for complete from which one object went while the one in its place came. */
bool storage_list_with_gone(Storage *storage, const char *prefix, StorageListCallback *callback,
                            void *context, CairnError *err) MUST_CHECK;
/* True and the size, or NOT_FOUND. */
bool storage_exists(Storage *storage, const char *name, uint64_t *size_out,
                    CairnError *err) MUST_CHECK;
/* Makes an existing object durable again: it may be left from a crash before its sync. */
bool storage_make_durable(Storage *storage, const char *name, CairnError *err) MUST_CHECK;
/* Absent already is success. */
bool storage_remove(Storage *storage, const char *name, CairnError *err) MUST_CHECK;
/* Several in as few requests as can be, at most STORAGE_REMOVE_LIMIT. True when each is gone, or
   may not be deleted: gone_out tells which (count of them), denied_out, empty before, keeps the
   first refusal. False for any other failure: then some may be gone. */
bool storage_remove_many(Storage *storage, const char *const *names, size_t count, bool *gone_out,
                         CairnError *denied_out, CairnError *err) MUST_CHECK;
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
/* So many small requests at a time are answered sooner than one after the other: many where the way
 * is far, 1 where they only stand in each other's way. */
int storage_requests_at_once(Storage *storage);
/* Must be probed: what it promises depends on a store that others run. */
bool storage_needs_probe(Storage *storage);
/* Creates, reads and removes a few small objects below `probe/`; what it may not remove stays. An
   error says that the store could not be asked; what it fails at is in probe_out. */
bool storage_probe(Storage *storage, StorageProbe *probe_out, CairnError *err) MUST_CHECK;
/* False where two hosts that create the same name could both succeed: then nobody may decide over
   another's name (revoke its attempt), and one host writes. */
bool storage_creates_exclusively(Storage *storage);
/* True where this connection may create and read, and remove nothing but its own pins: what lets go
   of something runs on another host. Removing answers DENIED then, sweeping and pruning too. */
bool storage_is_create_only(Storage *storage);
StorageMemory storage_memory(Storage *storage);
/* How long one call may wait for a storage that is in trouble before it gives up (UNAVAILABLE).
   Unless told, a driver is patient: fifteen minutes suit a backup, not who holds up a server. */
void storage_set_patience(Storage *storage, int64_t patience_ms);
StorageLockTerms storage_lock_terms(Storage *storage);
/*
 * Sees to it that an object stays locked for left_us from now (0: only asks). A lock that ends
 * earlier is extended to days + refresh_days of the terms, which must be as long, and believed when
 * read back; none is ever shortened, and a mode only made stronger, where the terms want that and
 * the right to it is there. Of a name that has several versions it
 * is the lock of the one that is read; what lies below that is left as it is. Measured from now and
 * not given as a moment, since the store's clock counts and this host's may be off. Errors:
 * NOT_FOUND; DENIED where the lock may not be read or extended; MISMATCH when it is of a weaker
 * mode than the terms; UNSUPPORTED when the store takes an extension and does not keep it. Only
 * where storage_lock_terms has a mode.
 */
bool storage_ensure_lock(Storage *storage, const char *name, int64_t left_us, StorageLock *lock_out,
                         CairnError *err) MUST_CHECK;

/* Every version of every name: names ascend bytewise, the versions of one come newest first.
   UNSUPPORTED where the storage keeps none. */
bool storage_list_versions(Storage *storage, StorageVersionCallback *callback, void *context,
                           CairnError *err) MUST_CHECK;
StorageReader *storage_open_version(Storage *storage, const char *name, const char *version,
                                    CairnError *err) MUST_CHECK;
/* The one exception to "created once": puts a copy of an older version, of so many bytes, in front
   of what hides it. Nothing is removed. Doing it twice does no harm. */
bool storage_put_back(Storage *storage, const char *name, const char *version, uint64_t size_bytes,
                      CairnError *err) MUST_CHECK;

#endif
