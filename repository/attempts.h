/*
 * Attempts at backups: their ids, dead ones of this host, and giving one up.
 *
 * Safety rests on the single-use fate: an attempt whose fate says REVOKED can never become a
 * backup. Its packs may belong to other backups by then (salvage), so only its own writer removes
 * them, under a fate that says so, and else a collector. Attempts of other hosts are never touched
 * and never waited for.
 */
#ifndef PGCAIRN_REPOSITORY_ATTEMPTS_H
#define PGCAIRN_REPOSITORY_ATTEMPTS_H

#include "repository/backup_id.h"
#include "repository/repository.h"

/* Ids of all attempts and backups, ascending. malloc'ed (returned owned), NULL when there are none.
 */
bool attempts_list(Repository *repository, const char *cluster, BackupId **ids_out,
                   size_t *count_out, CairnError *err) MUST_CHECK;

/* Highest listed sequence + 1 and fresh randomness. */
bool attempts_next_id(Repository *repository, const char *cluster, BackupId *id_out,
                      CairnError *err) MUST_CHECK;

/*
 * Takes the fate of every unfinished attempt whose process on this very host is gone: it can never
 * become a backup then; its packs stay, for salvage and for the collector. And removes the packs of
 * attempts that were abandoned since the newest backup, where their writer died before that.
 */
bool attempts_revoke_dead(Repository *repository, const char *cluster, CairnError *err) MUST_CHECK;

/* The fates alone. */
bool attempts_fence_dead(Repository *repository, const char *cluster, CairnError *err) MUST_CHECK;

/* Revoked attempts that have packs and are newer than the newest backup, newest first, at most
   eight: what the next one may salvage. malloc'ed (returned owned). */
bool attempts_salvage(Repository *repository, const char *cluster, BackupId **ids_out,
                      size_t *count_out, CairnError *err) MUST_CHECK;

/*
 * Gives up our own attempt by taking its fate. keep_packs: what it stored stays, for the next one
 * to salvage; else the fate says that its packs go, and they do, so that a full disk is not full
 * for the next run as well. Never fails: what cannot be done now (the disk may be full or gone) the
 * next run on this host does. Where somebody else took the fate the packs stay.
 */
void attempts_abandon(Repository *repository, const char *cluster, const BackupId *bid,
                      const char *token, const char *reason, bool keep_packs);

/* Newest backup with a COMMITTED fate and the digest of that fate; bid_out is "" when there is
 * none. */
bool attempts_newest_committed(Repository *repository, const char *cluster, BackupId *bid_out,
                               uint8_t fate_sha256_out[SHA256_SIZE], CairnError *err) MUST_CHECK;

#endif
