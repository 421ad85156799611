/*
 * How many slots packs have that were opened before: a hint, in a constant amount of memory. What
 * does not fit pushes out what stood there. Threads: any.
 */
#ifndef PGCAIRN_REPOSITORY_PACK_SLOTS_H
#define PGCAIRN_REPOSITORY_PACK_SLOTS_H

#include "common/error.h"
#include "common/scoped.h"
#include "repository/backup_id.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct PackSlots PackSlots;

PackSlots *pack_slots_new(CairnError *err) MUST_CHECK;
void pack_slots_free(PackSlots *slots);
SCOPED_TYPE(PackSlots, pack_slots_free);

void pack_slots_put(PackSlots *slots, const BackupId *creator, uint32_t pack, uint32_t slot_count);
/* False: not known (any more). */
bool pack_slots_find(PackSlots *slots, const BackupId *creator, uint32_t pack,
                     uint32_t *slot_count_out) MUST_CHECK;

#endif
