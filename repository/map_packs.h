/*
 * Map packs that are open, for walks over several maps at a time: each is opened once, whoever of
 * them comes to it first, and stays open as long as there is room.
 *
 * Memory: a reader of each, without its index. Errors: those of object_open; a pack that could not
 * be opened is tried again by the next who asks. Threads: any.
 */
#ifndef PGCAIRN_REPOSITORY_MAP_PACKS_H
#define PGCAIRN_REPOSITORY_MAP_PACKS_H

#include "common/scoped.h"
#include "repository/backup_id.h"
#include "repository/object.h"

typedef struct MapPacks MapPacks;

/* walks: how many threads have one in hand at a time, at most. */
MapPacks *map_packs_new(Repository *repository, const char *cluster, int walks,
                        CairnError *err) MUST_CHECK;
/* None may be in hand. */
void map_packs_free(MapPacks *packs);
SCOPED_TYPE(MapPacks, map_packs_free);

/* Borrowed until it is given back; one at a time by each thread. */
ObjectReader *map_packs_get(MapPacks *packs, const BackupId *creator, uint32_t pack,
                            CairnError *err) MUST_CHECK;
void map_packs_give_back(MapPacks *packs, const ObjectReader *reader);

#endif
