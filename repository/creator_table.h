/*
 * Backup ids by small numbers: whose packs a run or a node reference means. A map, a backup in the
 * making and a reference summary each draw on some hundred of them, over and over.
 *
 * Ownership: creator_table_free. Pointers that creator_table_get returns stay valid as long as the
 * table. Errors: UNSUPPORTED beyond CREATOR_LIMIT ids. Threads: one writer; once nothing is added
 * any more, any number of readers.
 */
#ifndef PGCAIRN_REPOSITORY_CREATOR_TABLE_H
#define PGCAIRN_REPOSITORY_CREATOR_TABLE_H

#include "common/scoped.h"
#include "repository/backup_id.h"

#include <stddef.h>

enum { CREATOR_LIMIT = 65536 };

typedef struct CreatorTable CreatorTable;
CreatorTable *creator_table_new(CairnError *err) MUST_CHECK;
void creator_table_free(CreatorTable *table);
/* The number of bid, which is added when it is new; numbers count up from 0. */
bool creator_table_add(CreatorTable *table, const BackupId *bid, uint32_t *number_out,
                       CairnError *err) MUST_CHECK;
/* False when the table does not hold bid. */
bool creator_table_find(const CreatorTable *table, const BackupId *bid, uint32_t *number_out);
const BackupId *creator_table_get(const CreatorTable *table, uint32_t number);
uint32_t creator_table_count(const CreatorTable *table);
SCOPED_TYPE(CreatorTable, creator_table_free);

#endif
