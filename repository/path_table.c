#include "repository/path_table.h"

#include "common/bytes.h"
#include "common/file.h"
#include "common/scratch_file.h"

#include <stdio.h>

enum {
    WRITE_BUFFER_SIZE = 64 << 10,
    PLACES_MIN = 4096,
    PLACE_SIZE = 16,   /* u64 hash, u64 offset of the record + 1 (0: free) */
    WINDOW_PLACES = 8, /* read at once: most searches end within */
    REBUILD_PLACES = 4096,
    RECORD_HEADER_SIZE = 8, /* u32 key size, u32 record size; then key and record */
    FIRST_READ_SIZE = 1024,
};

struct PathTable {
    const World *world;
    KeyedDigest *digest; /* whoever names files cannot make them collide */
    char scratch[4096];
    uint64_t hash_mask;

    int records_fd;
    uint8_t *pending; /* the record file's end, not written yet */
    size_t pending_size;
    uint64_t written;

    int index_fd;
    uint64_t places, used;

    uint8_t *found;
    size_t found_capacity;
};

static bool
new_index(PathTable *table, uint64_t places, CairnError *err)
{
    const Disk *disk = table->world->disk;
    int fd = scratch_file_open(table->world, table->scratch, err);
    if (fd < 0)
        return false;
    if (disk->ftruncate(disk, fd, (off_t)(places * PLACE_SIZE)) != 0) {
        disk->close(disk, fd);
        return cairn_error_errno(err, "unable to enlarge a scratch file");
    }
    table->index_fd = fd;
    table->places = places;
    return true;
}

PathTable *
path_table_new(Repository *repository, const char *scratch_directory, uint64_t hash_mask,
               CairnError *err)
{
    SCOPED(PathTable) table = calloc(1, sizeof *table);
    if (table == NULL || (table->pending = malloc(WRITE_BUFFER_SIZE)) == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    table->world = repository_world(repository);
    table->hash_mask = hash_mask;
    table->records_fd = table->index_fd = -1;
    snprintf(table->scratch, sizeof table->scratch, "%s", scratch_directory);
    table->digest = repository_digest(repository, DIGEST_FINGERPRINT, err);
    if (table->digest == NULL)
        return NULL;
    table->records_fd = scratch_file_open(table->world, scratch_directory, err);
    if (table->records_fd < 0 || !new_index(table, PLACES_MIN, err))
        return NULL;
    return take(&table);
}

void
path_table_free(PathTable *table)
{
    if (table == NULL)
        return;
    const Disk *disk = table->world != NULL ? table->world->disk : NULL;
    if (disk != NULL && table->records_fd >= 0)
        disk->close(disk, table->records_fd);
    if (disk != NULL && table->index_fd >= 0)
        disk->close(disk, table->index_fd);
    keyed_digest_free(table->digest);
    free(table->pending);
    free(table->found);
    free(table);
}

static bool
hash_of(PathTable *table, const void *key, size_t key_size, uint64_t *hash_out, CairnError *err)
{
    uint8_t digest[KEYED_DIGEST_SIZE];
    if (!keyed_digest_of(table->digest, key, key_size, digest, err))
        return false;
    *hash_out = get_u64(digest) & table->hash_mask;
    return true;
}

/* Puts a record into the first free place of its chain. */
static bool
insert(PathTable *table, uint64_t hash, uint64_t offset, CairnError *err)
{
    uint8_t window[WINDOW_PLACES * PLACE_SIZE], place[PLACE_SIZE];
    for (uint64_t at = hash % table->places;; at = (at + WINDOW_PLACES) % table->places) {
        /* Windows begin at multiples of their size, which divides the number of places. */
        uint64_t begin = at - at % WINDOW_PLACES;
        if (!file_pread(table->world, table->index_fd, window, sizeof window, begin * PLACE_SIZE,
                        "scratch file", err))
            return false;
        for (uint64_t i = at - begin; i < WINDOW_PLACES; i++) {
            if (get_u64(window + i * PLACE_SIZE + 8) != 0)
                continue;
            put_u64(place, hash);
            put_u64(place + 8, offset + 1);
            table->used++;
            return file_pwrite(table->world, table->index_fd, place, sizeof place,
                               (begin + i) * PLACE_SIZE, "scratch file", err);
        }
        at = begin;
    }
}

static bool
rebuild(PathTable *table, int before_fd, uint64_t places_before, CairnError *err)
{
    SCOPED_MEMORY uint8_t *block = malloc((size_t)REBUILD_PLACES * PLACE_SIZE);
    if (block == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (uint64_t at = 0; at < places_before; at += REBUILD_PLACES) {
        if (!file_pread(table->world, before_fd, block, (size_t)REBUILD_PLACES * PLACE_SIZE,
                        at * PLACE_SIZE, "scratch file", err))
            return false;
        for (size_t i = 0; i < REBUILD_PLACES; i++) {
            uint64_t offset = get_u64(block + i * PLACE_SIZE + 8);
            if (offset != 0 && !insert(table, get_u64(block + i * PLACE_SIZE), offset - 1, err))
                return false;
        }
    }
    return true;
}

static bool
grow(PathTable *table, CairnError *err)
{
    int before_fd = table->index_fd;
    uint64_t places_before = table->places, used = table->used;
    if (!new_index(table, 4 * places_before, err))
        return false; /* the old one stands */
    table->used = 0;
    bool rebuilt = rebuild(table, before_fd, places_before, err);
    table->world->disk->close(table->world->disk, before_fd);
    CAIRN_ASSERT(!rebuilt || table->used == used);
    return rebuilt;
}

static bool
flush(PathTable *table, CairnError *err)
{
    if (!file_pwrite(table->world, table->records_fd, table->pending, table->pending_size,
                     table->written, "scratch file", err))
        return false;
    table->written += table->pending_size;
    table->pending_size = 0;
    return true;
}

static bool
append(PathTable *table, const void *data, size_t size, CairnError *err)
{
    const uint8_t *bytes = data;
    while (size > 0) {
        if (table->pending_size == WRITE_BUFFER_SIZE && !flush(table, err))
            return false;
        size_t piece = WRITE_BUFFER_SIZE - table->pending_size;
        if (piece > size)
            piece = size;
        memcpy(table->pending + table->pending_size, bytes, piece);
        table->pending_size += piece;
        bytes += piece;
        size -= piece;
    }
    return true;
}

bool
path_table_add(PathTable *table, const void *key, size_t key_size, const void *record, size_t size,
               CairnError *err)
{
    CAIRN_ASSERT(size <= PATH_RECORD_LIMIT && key_size <= PATH_RECORD_LIMIT);
    uint64_t hash, offset = table->written + table->pending_size;
    uint8_t header[RECORD_HEADER_SIZE];
    put_u32(header, (uint32_t)key_size);
    put_u32(header + 4, (uint32_t)size);
    if (table->used >= table->places / 2 && !grow(table, err))
        return false;
    return hash_of(table, key, key_size, &hash, err) && insert(table, hash, offset, err) &&
           append(table, header, sizeof header, err) && append(table, key, key_size, err) &&
           append(table, record, size, err);
}

static bool
reserve_found(PathTable *table, size_t size, CairnError *err)
{
    if (table->found_capacity >= size)
        return true;
    uint8_t *found = realloc(table->found, size);
    if (found == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    table->found = found;
    table->found_capacity = size;
    return true;
}

/* Reads the record at an offset; NULL in *record_out when it is another key's. */
static bool
read_record(PathTable *table, uint64_t offset, const void *key, size_t key_size,
            const uint8_t **record_out, size_t *size_out, CairnError *err)
{
    *record_out = NULL;
    uint64_t left = table->written - offset;
    size_t first = left < FIRST_READ_SIZE ? (size_t)left : FIRST_READ_SIZE;
    if (!reserve_found(table, FIRST_READ_SIZE, err) ||
        !file_pread(table->world, table->records_fd, table->found, first, offset, "scratch file",
                    err))
        return false;
    size_t found_key_size = first >= RECORD_HEADER_SIZE ? get_u32(table->found) : 0;
    size_t size = first >= RECORD_HEADER_SIZE ? get_u32(table->found + 4) : 0;
    size_t whole = RECORD_HEADER_SIZE + found_key_size + size;
    if (whole > left || size > PATH_RECORD_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT, "scratch file holds an impossible record");
    if (found_key_size != key_size)
        return true;
    if (whole > first && (!reserve_found(table, whole, err) ||
                          !file_pread(table->world, table->records_fd, table->found + first,
                                      whole - first, offset + first, "scratch file", err)))
        return false;
    if (memcmp(table->found + RECORD_HEADER_SIZE, key, key_size) == 0) {
        *record_out = table->found + RECORD_HEADER_SIZE + key_size;
        *size_out = size;
    }
    return true;
}

bool
path_table_find(PathTable *table, const void *key, size_t key_size, const uint8_t **record_out,
                size_t *size_out, CairnError *err)
{
    uint64_t hash;
    uint8_t window[WINDOW_PLACES * PLACE_SIZE];
    *record_out = NULL;
    *size_out = 0;
    if ((table->pending_size > 0 && !flush(table, err)) ||
        !hash_of(table, key, key_size, &hash, err))
        return false;
    for (uint64_t at = hash % table->places;; at = (at + WINDOW_PLACES) % table->places) {
        uint64_t begin = at - at % WINDOW_PLACES;
        if (!file_pread(table->world, table->index_fd, window, sizeof window, begin * PLACE_SIZE,
                        "scratch file", err))
            return false;
        for (uint64_t i = at - begin; i < WINDOW_PLACES; i++) {
            uint64_t offset = get_u64(window + i * PLACE_SIZE + 8);
            if (offset == 0)
                return true;
            if (get_u64(window + i * PLACE_SIZE) != hash)
                continue;
            if (!read_record(table, offset - 1, key, key_size, record_out, size_out, err))
                return false;
            if (*record_out != NULL)
                return true;
        }
        at = begin;
    }
}
