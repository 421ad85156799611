/*
 * Packs that are open, shared by all readers of a restore.
 *
 * What: a backup may draw on packs of hundreds of backups, and every job comes back to the same
 * ones. A pack in use stays open; of those that nobody uses, as many stay as fit into the memory
 * given, the last used ones. Only frame tables are kept. Memory: cache_bytes, and what the users
 * hold, RESTORE_PACK_MEMORY each at most. Errors: what pack_open says; those who wait for the same
 * pack try for themselves. Threads: any; packs are opened outside the lock, each by one thread.
 */
#ifndef PGCAIRN_RESTORE_PACK_CACHE_H
#define PGCAIRN_RESTORE_PACK_CACHE_H

#include "common/scoped.h"
#include "repository/pack.h"

#include <stddef.h>
#include <stdint.h>

/* Users at one time, and packs that are kept beyond those (each is an open descriptor). */
enum { READERS_LIMIT = 64, PACKS_KEPT_LIMIT = 128 };

typedef struct PackCache PackCache;
PackCache *pack_cache_new(Repository *repository, const char *cluster, size_t cache_bytes,
                          CairnError *err) MUST_CHECK;
/* Nothing is in use. */
void pack_cache_free(PackCache *cache);
SCOPED_TYPE(PackCache, pack_cache_free);

typedef struct OpenPack OpenPack;
/* Opens it where it is not open; the user gives it back. */
OpenPack *pack_cache_use(PackCache *cache, const BackupId *bid, uint32_t number,
                         CairnError *err) MUST_CHECK;
void pack_cache_give_back(PackCache *cache, OpenPack *open);
const PackReader *open_pack_reader(const OpenPack *open);
bool open_pack_is(const OpenPack *open, const BackupId *bid, uint32_t number);

#endif
