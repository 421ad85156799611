/*
 * Does this key really open what was stored? The newest backup and the newest WAL are asked: a
 * frame of pages and a WAL segment are fetched, authenticated, decrypted and decoded.
 *
 * For keys that lie in a safe: a slot that opens is not yet a page that can be read.
 *
 * Where a record of a system cannot be read, the newest WAL of the others is asked, and the proof
 * says so.
 *
 * Errors: DENIED where the key opens metadata only (a sealed host); NOT_FOUND where there is
 * neither backup nor WAL; CORRUPT and storage errors pass through. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_KEY_VERIFY_H
#define PGCAIRN_REPOSITORY_KEY_VERIFY_H

#include "postgres/wal_name.h"
#include "repository/catalog.h"
#include "repository/incarnation.h"

typedef struct {
    bool has_backup;
    char backup[64];     /* label */
    char file[512];      /* of the cluster, a frame of which was read */
    uint64_t page_bytes; /* that were decrypted */
    bool has_wal;
    char segment[WAL_FILE_NAME_LIMIT];
    IncarnationTrouble unread; /* systems whose WAL was not looked at */
} KeyProof;

bool key_verify(Repository *repository, const char *cluster, KeyProof *proof_out,
                CairnError *err) MUST_CHECK;

#endif
