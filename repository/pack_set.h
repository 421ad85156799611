/*
 * Sets of packs as ranges: of which backup, data or map packs, from where, how many. What the
 * collector compares: live packs, condemned ones, those to be swept.
 *
 * Memory: 40 bytes a range; neighbouring ranges become one. Ownership: pack_set_free empties; a
 * zeroed set is empty. Threads: one thread.
 *
 *     pack_set_add(&set, ...)..., pack_set_settle(&set), then ask and walk set.ranges
 */
#ifndef PGCAIRN_REPOSITORY_PACK_SET_H
#define PGCAIRN_REPOSITORY_PACK_SET_H

#include "common/scoped.h"
#include "repository/backup_id.h"
#include "repository/refs.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    BackupId creator;
    bool is_map;
    uint32_t first_pack;
    uint32_t pack_count;
} PackRange;

typedef struct {
    PackRange *ranges; /* settled: sorted by creator, kind and number, none touching the next */
    size_t count;
    size_t capacity;
    bool unsettled;
} PackSet;

enum { PACK_NUMBER_LIMIT = INT32_MAX };

void pack_set_free(PackSet *set);
#define SCOPED_PACK_SET __attribute__((cleanup(pack_set_free))) PackSet

bool pack_set_add(PackSet *set, PackRange range, CairnError *err) MUST_CHECK;
bool pack_set_add_all(PackSet *set, const PackSet *other, CairnError *err) MUST_CHECK;
/* Everything that a summary names. */
bool pack_set_add_refs(PackSet *set, const Refs *refs, CairnError *err) MUST_CHECK;
void pack_set_settle(PackSet *set);

/* Both settled. */
bool pack_set_has(const PackSet *set, const BackupId *creator, bool is_map, uint32_t pack);
bool pack_set_overlaps(const PackSet *set, const PackRange *range);
/* What is in both; in the first but not in the second. Settled; result_out is empty before. */
bool pack_set_intersect(const PackSet *a, const PackSet *b, PackSet *result_out,
                        CairnError *err) MUST_CHECK;
bool pack_set_subtract(const PackSet *a, const PackSet *b, PackSet *result_out,
                       CairnError *err) MUST_CHECK;
/* Takes every pack of one creator out of a settled set. */
void pack_set_remove_creator(PackSet *set, const BackupId *creator);
/* Ranges of one creator: first index and count. */
size_t pack_set_of_creator(const PackSet *set, const BackupId *creator, size_t *first_out);
uint64_t pack_set_packs(const PackSet *set);

#endif
