/*
 * Which packs must not be relied on although a backup names them: what `ev.damaged` evidence that
 * still stands says of them.
 *
 * Memory: DAMAGE_PACKS_LIMIT packs at most; where more are damaged, or where it is not known which,
 * `all` is set. Errors: storage that cannot be reached; damage that cannot be read is no error, it
 * sets `all`. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_DAMAGE_H
#define PGCAIRN_REPOSITORY_DAMAGE_H

#include "common/scoped.h"
#include "repository/backup_id.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DAMAGE_PACKS_LIMIT = 65536, DAMAGE_OBJECTS_LISTED = 16 };

typedef struct {
    BackupId creator;
    uint32_t pack;
} DamagedPack;

typedef struct {
    DamagedPack *packs; /* owned; ascending, each once */
    size_t count;
    bool all;      /* no pack that the backup names is above suspicion */
    bool standing; /* there is damage at all, of packs or of anything else */
} DamagedPacks;

/* out is empty (zeroed) on entry and freed with damaged_packs_free. */
bool damage_read(Repository *repository, const char *cluster, const BackupId *bid,
                 DamagedPacks *out, CairnError *err) MUST_CHECK;
void damaged_packs_free(DamagedPacks *packs);

/* Is this data pack under suspicion? */
bool damaged_packs_contain(const DamagedPacks *packs, const BackupId *creator, uint32_t pack);

static inline void
scoped_damaged_packs_free(DamagedPacks *packs)
{
    damaged_packs_free(packs);
}
#define SCOPED_DAMAGED_PACKS __attribute__((cleanup(scoped_damaged_packs_free)))

/* For those who find damage: adds one; false when there are too many, and then `all` is set. */
bool damaged_packs_add(DamagedPacks *packs, const BackupId *creator, uint32_t pack,
                       CairnError *err) MUST_CHECK;
/* Sorts, drops what stands twice. Before damaged_packs_contain. */
void damaged_packs_settle(DamagedPacks *packs);

#endif
