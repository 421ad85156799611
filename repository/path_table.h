/*
 * Records by path on local scratch, for look-ups in any order: what earlier backups hold of files
 * that stream by as the server reads its directories. A record file, and a hash index of 16 bytes a
 * place that doubles as it fills.
 *
 * Memory: a few buffers, whatever the number of records; scratch: the records and 32 to 64 bytes a
 * record. Crash: scratch files have no name. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_PATH_TABLE_H
#define PGCAIRN_REPOSITORY_PATH_TABLE_H

#include "common/error.h"
#include "common/scoped.h"
#include "repository/repository.h"

#include <stddef.h>
#include <stdint.h>

enum { PATH_RECORD_LIMIT = 4 << 20 };

typedef struct PathTable PathTable;
/* hash_mask: UINT64_MAX; fewer bits make keys collide, for tests. */
PathTable *path_table_new(Repository *repository, const char *scratch_directory, uint64_t hash_mask,
                          CairnError *err) MUST_CHECK;
void path_table_free(PathTable *table);
/* A key's record, at most PATH_RECORD_LIMIT bytes; no key twice. */
bool path_table_add(PathTable *table, const void *key, size_t key_size, const void *record,
                    size_t size, CairnError *err) MUST_CHECK;
/* The record, borrowed until the next call; NULL in *record_out when there is none. */
bool path_table_find(PathTable *table, const void *key, size_t key_size, const uint8_t **record_out,
                     size_t *size_out, CairnError *err) MUST_CHECK;
SCOPED_TYPE(PathTable, path_table_free);

#endif
