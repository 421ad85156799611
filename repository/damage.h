/*
 * Data packs that somebody found missing or damaged (evidence of kind "damaged", docs/format.md):
 * what they held is stored anew, whatever their fingerprints say.
 *
 * Ownership: damage_free. Threads: read-only once it is read.
 */
#ifndef PGCAIRN_REPOSITORY_DAMAGE_H
#define PGCAIRN_REPOSITORY_DAMAGE_H

#include "common/scoped.h"
#include "repository/backup_id.h"
#include "repository/repository.h"

typedef struct Damage Damage;

/*
 * All evidence of damage in a cluster, whichever backup it lies with: packs are shared. Where
 * evidence names no packs (older versions), every pack that the backup made is suspect. CORRUPT
 * when evidence cannot be read: then nobody knows what is damaged.
 */
Damage *damage_read(Repository *repository, const char *cluster, CairnError *err) MUST_CHECK;
void damage_free(Damage *damage);
bool damage_names(const Damage *damage, const BackupId *creator, uint32_t pack);
SCOPED_TYPE(Damage, damage_free);

#endif
