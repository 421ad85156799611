/*
 * Fingerprints and frames of earlier packs, out of their directories: a least-recently-used set,
 * bounded in bytes. Files that follow one another lie in packs that do, so most look-ups hit.
 *
 * What may be trusted is decided here, once a pack: it is named by the parent's reference summary
 * (so that no collector takes it) or belongs to an attempt that is salvaged, no evidence calls it
 * damaged, and it opens: header, identity, directory and its length are right. Packs of salvaged
 * attempts, which no backup ever vouched for, are read whole and compared with their SHA-256 first.
 *
 * Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_FINGERPRINTS_H
#define PGCAIRN_REPOSITORY_FINGERPRINTS_H

#include "common/digest.h"
#include "repository/creator_table.h"
#include "repository/damage.h"
#include "repository/refs.h"

enum { FINGERPRINTS_MEMORY = 12 << 20 };

typedef struct {
    Repository *repository;
    const char *cluster;
    const CreatorTable *creators; /* everything borrowed */
    const Refs *refs;             /* the parent's; NULL: none */
    const DamagedPacks *damage;   /* NULL: none is known */
    uint32_t first_salvage;       /* creators from this number on are salvaged attempts */
    size_t memory_bytes;
} FingerprintsOptions;

/* What a pack's directory says. */
typedef struct {
    uint32_t slot_count;
    const uint8_t (*fingerprints)[FINGERPRINT_SIZE];
    uint32_t frame_count;
    const uint32_t *frame_first; /* first slot of each frame, and slot_count behind the last */
} PackPrints;

typedef struct Fingerprints Fingerprints;
Fingerprints *fingerprints_new(const FingerprintsOptions *options, CairnError *err) MUST_CHECK;
void fingerprints_free(Fingerprints *prints);
/* *prints_out: borrowed until the next call; NULL when the pack is not to be trusted. Fails when
   the storage does not answer. */
bool fingerprints_get(Fingerprints *prints, uint32_t creator, uint32_t pack,
                      const PackPrints **prints_out, CairnError *err) MUST_CHECK;
/* Packs that were asked for and are missing, damaged or not to be trusted. */
uint64_t fingerprints_distrusted(const Fingerprints *prints);
SCOPED_TYPE(Fingerprints, fingerprints_free);

/* An error that speaks of one object, not of the storage as a whole: a backup goes on without it.
 */
static inline bool
error_is_of_object(const CairnError *err)
{
    return err->kind == CAIRN_NOT_FOUND || err->kind == CAIRN_CORRUPT ||
           err->kind == CAIRN_UNSUPPORTED || err->kind == CAIRN_MISMATCH || err->kind == CAIRN_IO;
}

#endif
