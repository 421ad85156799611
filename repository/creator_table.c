#include "repository/creator_table.h"

#include <string.h>

enum { CHUNK_SIZE = 256, CHUNKS = CREATOR_LIMIT / CHUNK_SIZE, HASH_SIZE_MIN = 64 };

/* Ids lie in chunks that never move, so that pointers to them last. */
struct CreatorTable {
    BackupId *chunks[CHUNKS];
    uint32_t count;
    uint32_t *hash; /* number + 1 of the id at this place, 0: none; open addressing, half empty */
    uint32_t hash_size;
};

CreatorTable *
creator_table_new(CairnError *err)
{
    SCOPED(CreatorTable) table = calloc(1, sizeof *table);
    if (table == NULL || (table->hash = calloc(HASH_SIZE_MIN, sizeof *table->hash)) == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    table->hash_size = HASH_SIZE_MIN;
    return take(&table);
}

void
creator_table_free(CreatorTable *table)
{
    if (table == NULL)
        return;
    for (size_t i = 0; i < CHUNKS; i++)
        free(table->chunks[i]);
    free(table->hash);
    free(table);
}

const BackupId *
creator_table_get(const CreatorTable *table, uint32_t number)
{
    CAIRN_ASSERT(number < table->count);
    return &table->chunks[number / CHUNK_SIZE][number % CHUNK_SIZE];
}

uint32_t
creator_table_count(const CreatorTable *table)
{
    return table->count;
}

/* FNV-1a: ids end in random digits. */
static uint32_t
hash_of(const BackupId *bid)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < BACKUP_ID_LENGTH; i++)
        hash = (hash ^ (uint8_t)bid->text[i]) * 16777619u;
    return hash;
}

/* Where bid stands in the hash, or the free place where it belongs. */
static uint32_t
place_of(const CreatorTable *table, const BackupId *bid)
{
    uint32_t place = hash_of(bid) & (table->hash_size - 1);
    while (table->hash[place] != 0 &&
           !backup_id_equal(creator_table_get(table, table->hash[place] - 1), bid))
        place = (place + 1) & (table->hash_size - 1);
    return place;
}

bool
creator_table_find(const CreatorTable *table, const BackupId *bid, uint32_t *number_out)
{
    uint32_t place = place_of(table, bid);
    if (table->hash[place] == 0)
        return false;
    *number_out = table->hash[place] - 1;
    return true;
}

static bool
grow_hash(CreatorTable *table)
{
    uint32_t *before = table->hash;
    uint32_t *hash = calloc((size_t)table->hash_size * 2, sizeof *hash);
    if (hash == NULL)
        return false;
    table->hash = hash;
    table->hash_size *= 2;
    for (uint32_t i = 0; i < table->count; i++)
        table->hash[place_of(table, creator_table_get(table, i))] = i + 1;
    free(before);
    return true;
}

bool
creator_table_add(CreatorTable *table, const BackupId *bid, uint32_t *number_out, CairnError *err)
{
    if (creator_table_find(table, bid, number_out))
        return true;
    if (table->count == CREATOR_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "more than %d backups are drawn on",
                           CREATOR_LIMIT);
    BackupId **chunk = &table->chunks[table->count / CHUNK_SIZE];
    if (*chunk == NULL)
        *chunk = calloc(CHUNK_SIZE, sizeof **chunk);
    if (*chunk == NULL || (table->count >= table->hash_size / 2 && !grow_hash(table)))
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    (*chunk)[table->count % CHUNK_SIZE] = *bid;
    *number_out = table->count++;
    table->hash[place_of(table, bid)] = *number_out + 1;
    return true;
}
