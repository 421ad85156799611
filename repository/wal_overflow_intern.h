/*
 * What the files of overflow-path share. Inside repository/ only.
 *
 * wal_overflow.c         the directory, and one file in it, read and compared with its digest
 * wal_overflow_put.c     putting, so that nothing half is ever seen
 * wal_overflow_list.c    what waits
 * wal_overflow_ship.c    into the repository
 * wal_overflow_others.c  what waits in directories that are not ours
 *
 * Invariants
 * 1. <name> appears by link, after its bytes and <name>.sha256 are durable.
 * 2. <name> goes only after the same bytes are durable in the repository.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_OVERFLOW_INTERN_H
#define PGCAIRN_REPOSITORY_WAL_OVERFLOW_INTERN_H

#include "common/digest.h"
#include "repository/wal_overflow.h"

#define WAL_OVERFLOW_DIGEST_SUFFIX ".sha256"

enum {
    WAL_OVERFLOW_DIGEST_NAME_SIZE = WAL_FILE_NAME_LIMIT + sizeof WAL_OVERFLOW_DIGEST_SUFFIX,
    WAL_OVERFLOW_HEX_SIZE = 2 * SHA256_SIZE + 1,
    WAL_OVERFLOW_LINE_SIZE = 256, /* the content of a digest's file */
    WAL_OVERFLOW_CHUNK_SIZE = 128 << 10,
};

struct WalOverflow {
    const World *world;
    int fd;
    uint8_t chunk[WAL_OVERFLOW_CHUNK_SIZE];
};

/* "<name>.sha256", and what stands in it. */
void wal_overflow_digest_name(char name[WAL_OVERFLOW_DIGEST_NAME_SIZE], const char *file_name);
void wal_overflow_digest_line(char line[WAL_OVERFLOW_LINE_SIZE], const char *hex,
                              const char *file_name);

/* To read; -1 on failure. */
int wal_overflow_open_file(const WalOverflow *overflow, const char *name,
                           CairnError *err) MUST_CHECK;
/* Reads `from` from its beginning, digests, and writes to `to` unless that is -1. */
bool wal_overflow_copy(WalOverflow *overflow, int from, int to, const char *name,
                       char hex_out[WAL_OVERFLOW_HEX_SIZE], CairnError *err) MUST_CHECK;
/* The same, compared with the digest beside it. NOT_FOUND: both are gone. */
bool wal_overflow_copy_verified(WalOverflow *overflow, int from, int to, const char *file_name,
                                CairnError *err) MUST_CHECK;

#endif
