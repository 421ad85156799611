/*
 * What is known of a backup beyond its fate: evidence objects beside it, and the state that they
 * add up to (docs/format.md, "Evidence").
 *
 * No clock decides. A proof (verified) names the damage that stood when its reading began
 * (`result.seen`), and ends exactly that: damage found later, or by another host meanwhile, stands
 * until a later proof names it. A proof is one full reading, or all N slices of sampled ones.
 *
 * Errors: what cannot be read proves nothing, and so ends no damage; storage out of reach counts as
 * the same. Memory: an EvidenceList while one backup is looked at. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_EVIDENCE_H
#define PGCAIRN_REPOSITORY_EVIDENCE_H

#include "repository/backup_id.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EVIDENCE_TOKEN_SIZE = 33,
    EVIDENCE_DAMAGE_LIMIT = 256, /* of one backup; beyond it damage does not end any more */
    EVIDENCE_READ_LIMIT = 64,    /* newest proofs and drills that are opened */
    EVIDENCE_SLICES_MIN = 2,
    EVIDENCE_SLICES_MAX = 32, /* so that a whole rotation is among those that are opened */
};

typedef struct {
    char token[EVIDENCE_TOKEN_SIZE];
    int64_t modified_us; /* of the storage: says which are worth opening, nothing more */
} EvidenceName;

/* What one listing says. */
typedef struct {
    bool scrubbed, verified, drilled, failed;
    EvidenceName damages[EVIDENCE_DAMAGE_LIMIT];
    size_t damage_count;
    bool damage_overflow; /* there was more, or a name that none of ours bears */
    EvidenceName proofs[EVIDENCE_READ_LIMIT];
    size_t proof_count;
    EvidenceName drills[EVIDENCE_READ_LIMIT];
    size_t drill_count;
    EvidenceName samples[EVIDENCE_READ_LIMIT]; /* readings that say only that they took place */
    size_t sample_count;
} EvidenceList;

/* An entry "ev.<kind>.<token>" of a backup's listing; other kinds are passed over. */
void evidence_list_add(EvidenceList *list, const char *name, int64_t modified_us);

/* "ev.<kind>.<token>" of one backup, listed. */
bool evidence_list_read(Repository *repository, const char *cluster, const BackupId *bid,
                        EvidenceList *list_out, CairnError *err) MUST_CHECK;

typedef struct {
    bool verified;       /* proven whole, and no damage stands */
    int64_t verified_us; /* of the newest proof; of samples: of the slice that was read longest ago.
                            0: no proof that can be read */
    int64_t drilled_us;
    int64_t drill_duration_us; /* how long the newest drill took until the server answered; 0: not
                                  said */
    bool damaged;              /* damage stands */
    bool stands[EVIDENCE_DAMAGE_LIMIT]; /* as list->damages */
} EvidenceState;

void evidence_state(Repository *repository, const char *cluster, const BackupId *bid,
                    const EvidenceList *list, EvidenceState *state_out);

/* Highest number that a sampled reading in `slices` slices of this backup bears; 0: none. */
uint64_t evidence_highest_run(Repository *repository, const char *cluster, const BackupId *bid,
                              const EvidenceList *list, uint32_t slices);

/* "sample 3/7"; false for any other text. */
bool evidence_scope_parse(const char *scope, uint32_t *slice_out, uint32_t *slices_out) MUST_CHECK;

#endif
