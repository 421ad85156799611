#include "repository/map_sort.h"

#include "common/bytes.h"
#include "common/file.h"
#include "common/scratch_file.h"

#include <stdio.h>
#include <string.h>

enum {
    RUN_BUFFER_SIZE = 64 << 10,
    RUN_LIMIT = 4096,
    RECORD_HEADER_SIZE = 8,
    RECORD_LIMIT = 1 << 20
};

/* A record in memory and on scratch: u32 key size, u32 payload size, key, payload. */
typedef struct {
    int fd; /* -1: this run is what is still in memory */
    uint8_t *buffer;
    size_t capacity;
    size_t size, at;  /* bytes in the buffer, and the next of them */
    uint64_t file_at; /* next byte of the file to read */
    uint64_t file_size;
    const uint8_t *record; /* the run's current record; NULL at its end */
} Run;

struct MapSort {
    const World *world;
    char scratch[4096];
    uint8_t *memory;
    size_t memory_size, used;
    uint32_t *offsets; /* of records in memory */
    size_t count, capacity;
    Run *runs;
    size_t run_count;
    bool merging;
    size_t memory_next; /* next of offsets, while merging */
    Run *last;          /* the run whose record was handed out */
    uint8_t *last_key;
    size_t last_key_size;
};

MapSort *
map_sort_new(const World *world, const char *scratch_directory, size_t memory_size, CairnError *err)
{
    CAIRN_ASSERT(memory_size <= UINT32_MAX);
    SCOPED(MapSort) sort = calloc(1, sizeof *sort);
    if (sort == NULL || (sort->memory = malloc(memory_size)) == NULL ||
        (sort->last_key = malloc(RECORD_LIMIT)) == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    sort->world = world;
    sort->memory_size = memory_size;
    snprintf(sort->scratch, sizeof sort->scratch, "%s", scratch_directory);
    return take(&sort);
}

void
map_sort_free(MapSort *sort)
{
    if (sort == NULL)
        return;
    for (size_t i = 0; i < sort->run_count; i++) {
        if (sort->runs[i].fd >= 0)
            sort->world->disk->close(sort->world->disk, sort->runs[i].fd);
        free(sort->runs[i].buffer);
    }
    free(sort->runs);
    free(sort->offsets);
    free(sort->memory);
    free(sort->last_key);
    free(sort);
}

static int
compare_keys(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order != 0 ? order : (a_size > b_size) - (a_size < b_size);
}

static int
compare_records(const uint8_t *a, const uint8_t *b)
{
    return compare_keys(a + RECORD_HEADER_SIZE, get_u32(a), b + RECORD_HEADER_SIZE, get_u32(b));
}

static int
compare_offsets(const void *a, const void *b, void *memory)
{
    return compare_records((const uint8_t *)memory + *(const uint32_t *)a,
                           (const uint8_t *)memory + *(const uint32_t *)b);
}

static size_t
record_size(const uint8_t *record)
{
    return RECORD_HEADER_SIZE + (size_t)get_u32(record) + get_u32(record + 4);
}

static bool
write_records(MapSort *sort, int fd, uint64_t *size_out, CairnError *err)
{
    SCOPED_MEMORY uint8_t *buffer = malloc(RUN_BUFFER_SIZE + RECORD_LIMIT);
    if (buffer == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    size_t used = 0;
    *size_out = 0;
    for (size_t i = 0; i < sort->count; i++) {
        const uint8_t *record = sort->memory + sort->offsets[i];
        size_t size = record_size(record);
        memcpy(buffer + used, record, size);
        used += size;
        *size_out += size;
        if (used >= RUN_BUFFER_SIZE || i + 1 == sort->count) {
            if (!file_write(sort->world, fd, buffer, used, "scratch file", err))
                return false;
            used = 0;
        }
    }
    return true;
}

static bool
add_run(MapSort *sort, int fd, uint64_t file_size, CairnError *err)
{
    Run *runs = realloc(sort->runs, (sort->run_count + 1) * sizeof *runs);
    if (runs == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    sort->runs = runs;
    sort->runs[sort->run_count++] = (Run){.fd = fd, .file_size = file_size};
    return true;
}

static void
sort_memory(MapSort *sort)
{
    if (sort->count > 1)
        qsort_r(sort->offsets, sort->count, sizeof *sort->offsets, compare_offsets, sort->memory);
}

static bool
spill(MapSort *sort, CairnError *err)
{
    if (sort->run_count == RUN_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "the cluster has too many files");
    sort_memory(sort);
    int fd = scratch_file_open(sort->world, sort->scratch, err);
    if (fd < 0)
        return false;
    uint64_t size = 0;
    if (!write_records(sort, fd, &size, err) || !add_run(sort, fd, size, err)) {
        sort->world->disk->close(sort->world->disk, fd);
        return false;
    }
    sort->used = 0;
    sort->count = 0;
    return true;
}

bool
map_sort_add(MapSort *sort, const void *key, size_t key_size, const void *payload,
             size_t payload_size, CairnError *err)
{
    CAIRN_ASSERT(!sort->merging);
    size_t size = RECORD_HEADER_SIZE + key_size + payload_size;
    CAIRN_ASSERT(size <= RECORD_LIMIT && size <= sort->memory_size);
    if (size > sort->memory_size - sort->used && !spill(sort, err))
        return false;
    if (sort->count == sort->capacity) {
        size_t capacity = sort->capacity == 0 ? 1024 : 2 * sort->capacity;
        uint32_t *offsets = realloc(sort->offsets, capacity * sizeof *offsets);
        if (offsets == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        sort->offsets = offsets;
        sort->capacity = capacity;
    }
    uint8_t *record = sort->memory + sort->used;
    put_u32(record, (uint32_t)key_size);
    put_u32(record + 4, (uint32_t)payload_size);
    memcpy(record + RECORD_HEADER_SIZE, key, key_size);
    memcpy(record + RECORD_HEADER_SIZE + key_size, payload, payload_size);
    sort->offsets[sort->count++] = (uint32_t)sort->used;
    sort->used += size;
    return true;
}

/* Makes sure that `need` bytes from the run's position on are in its buffer. */
static bool
fill(MapSort *sort, Run *run, size_t need, CairnError *err)
{
    if (run->size - run->at >= need)
        return true;
    size_t want = need > RUN_BUFFER_SIZE ? need : RUN_BUFFER_SIZE;
    if (want > run->capacity) {
        uint8_t *buffer = realloc(run->buffer, want);
        if (buffer == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        run->buffer = buffer;
        run->capacity = want;
    }
    memmove(run->buffer, run->buffer + run->at, run->size - run->at);
    run->size -= run->at;
    run->at = 0;
    uint64_t left = run->file_size - run->file_at;
    size_t more = want - run->size;
    if (more > left)
        more = (size_t)left;
    if (more > 0 && !file_pread(sort->world, run->fd, run->buffer + run->size, more, run->file_at,
                                "scratch file", err))
        return false;
    run->file_at += more;
    run->size += more;
    if (run->size < need)
        return cairn_error(err, CAIRN_CORRUPT, "scratch file ended early");
    return true;
}

static bool
advance(MapSort *sort, Run *run, CairnError *err)
{
    run->record = NULL;
    if (run->fd < 0) {
        if (sort->memory_next < sort->count)
            run->record = sort->memory + sort->offsets[sort->memory_next++];
        return true;
    }
    if (run->at == run->size && run->file_at == run->file_size)
        return true;
    if (!fill(sort, run, RECORD_HEADER_SIZE, err))
        return false;
    size_t size = record_size(run->buffer + run->at);
    if (size > RECORD_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT, "scratch file holds an impossible record");
    if (!fill(sort, run, size, err))
        return false;
    run->record = run->buffer + run->at;
    run->at += size;
    return true;
}

static bool
start_merge(MapSort *sort, CairnError *err)
{
    sort->merging = true;
    sort_memory(sort);
    if (!add_run(sort, -1, 0, err))
        return false;
    for (size_t i = 0; i < sort->run_count; i++) {
        if (!advance(sort, &sort->runs[i], err))
            return false;
    }
    return true;
}

/* Runs are few (one for every 100 000 files), so the smallest is found by looking at all. */
static Run *
smallest(MapSort *sort)
{
    Run *best = NULL;
    for (size_t i = 0; i < sort->run_count; i++) {
        Run *run = &sort->runs[i];
        if (run->record != NULL && (best == NULL || compare_records(run->record, best->record) < 0))
            best = run;
    }
    return best;
}

bool
map_sort_next(MapSort *sort, const uint8_t **key_out, size_t *key_size_out,
              const uint8_t **payload_out, size_t *payload_size_out, bool *found_out,
              CairnError *err)
{
    if (!sort->merging && !start_merge(sort, err))
        return false;
    if (sort->last != NULL && !advance(sort, sort->last, err))
        return false;
    Run *run = smallest(sort);
    sort->last = run;
    *found_out = run != NULL;
    if (run == NULL)
        return true;

    const uint8_t *key = run->record + RECORD_HEADER_SIZE;
    size_t key_size = get_u32(run->record);
    if (sort->last_key_size > 0 &&
        compare_keys(sort->last_key, sort->last_key_size, key, key_size) == 0) {
        return cairn_error(err, CAIRN_CORRUPT, "the server sent '%.*s' twice", (int)key_size - 1,
                           (const char *)key + 1);
    }
    memcpy(sort->last_key, key, key_size);
    sort->last_key_size = key_size;
    *key_out = key;
    *key_size_out = key_size;
    *payload_out = key + key_size;
    *payload_size_out = get_u32(run->record + 4);
    return true;
}
