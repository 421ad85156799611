#include "repository/wal_log_index.h"

#include "common/log.h"
#include "repository/wal_facts_format.h"
#include "repository/wal_object.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYOUT = 1, GENERATIONS_LIMIT = 64 };

/* One segment's bytes in `bytes`. */
typedef struct {
    uint32_t low; /* number in the log */
    uint32_t offset;
    uint32_t size;
} LogEntry;

struct WalLogIndex {
    WalStore *store;
    WalLogName log;
    char *bytes;
    LogEntry *entries; /* ascending */
    size_t count;
};

struct WalLogIndexBuilder {
    WalStore *store;
    WalLogName log;
    ByteWriter entries;
    size_t count;
    uint32_t next_low;
    bool too_large;
};

static uint32_t
segments_of_log(const WalStore *store)
{
    return (uint32_t)wal_segments_per_log(store->incarnation->wal_segment_size);
}

WalLogName
wal_log_of(uint32_t timeline, uint64_t segment_number, uint32_t segment_size)
{
    return (WalLogName){.timeline = timeline,
                        .log = (uint32_t)(segment_number * segment_size >> 32)};
}

/* "c/<cluster>/cat/<incarnation>/<TLI>": the store's prefix with "cat" for "w". */
static void
index_prefix(const WalStore *store, uint32_t timeline, char prefix[STORAGE_NAME_LIMIT + 1])
{
    const char *incarnation = strrchr(store->prefix, '/');
    const int cluster_size = (int)(incarnation - store->prefix) - (int)strlen("/w");
    snprintf(prefix, STORAGE_NAME_LIMIT + 1, "%.*s/cat%.40s/%08" PRIX32, cluster_size,
             store->prefix, incarnation, timeline);
}

static void
index_name(const WalStore *store, const WalLogName *log, uint32_t generation,
           char name[STORAGE_NAME_LIMIT + 1])
{
    char prefix[STORAGE_NAME_LIMIT + 1];
    index_prefix(store, log->timeline, prefix);
    snprintf(name, STORAGE_NAME_LIMIT + 1, "%.400s/%08" PRIX32 ".%" PRIu32, prefix, log->log,
             generation);
}

/* Numbers under which a log has been indexed, ascending as they come. */
typedef struct {
    const WalLogName *log;
    uint32_t numbers[GENERATIONS_LIMIT];
    size_t count;
} Generations;

static StorageListNext
add_generation(void *context, const StorageEntry *entry, CairnError *err)
{
    Generations *generations = context;
    uint32_t log, number;
    char canonical[32];
    (void)err;
    if (entry->is_directory || generations->count == GENERATIONS_LIMIT ||
        sscanf(entry->name, "%8" SCNx32 ".%" SCNu32, &log, &number) != 2 ||
        log != generations->log->log)
        return STORAGE_LIST_GO_ON;
    snprintf(canonical, sizeof canonical, "%08" PRIX32 ".%" PRIu32, log, number);
    if (strcmp(canonical, entry->name) == 0)
        generations->numbers[generations->count++] = number;
    return STORAGE_LIST_GO_ON;
}

static bool
list_generations(WalStore *store, const WalLogName *log, Generations *generations_out,
                 CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT + 1];
    *generations_out = (Generations){.log = log};
    index_prefix(store, log->timeline, prefix);
    return storage_list(repository_storage(store->repository), prefix, add_generation,
                        generations_out, err);
}

static uint32_t
newest_of(const Generations *generations)
{
    uint32_t newest = 0;
    for (size_t i = 0; i < generations->count; i++) {
        if (generations->numbers[i] > newest)
            newest = generations->numbers[i];
    }
    return newest;
}

/* Head and place of each entry; their facts are read when they are asked for. */
static bool
parse(WalLogIndex *index, size_t size)
{
    ByteReader bytes = byte_reader(index->bytes, size);
    uint64_t next_low = 0;
    const uint32_t limit = segments_of_log(index->store);

    if (byte_reader_u16(&bytes) != LAYOUT || byte_reader_u32(&bytes) != index->log.timeline ||
        byte_reader_u32(&bytes) != index->log.log ||
        byte_reader_u32(&bytes) != index->store->incarnation->wal_segment_size)
        return false;
    const uint64_t count = byte_reader_varint_max(&bytes, limit);
    if (bytes.failed)
        return false;
    index->entries = calloc((size_t)count + 1, sizeof *index->entries);
    if (index->entries == NULL)
        return false;
    for (; index->count < count; index->count++) {
        next_low += byte_reader_varint_max(&bytes, limit);
        const uint64_t entry_size = byte_reader_varint_max(&bytes, WAL_FACTS_SIZE_LIMIT);
        const size_t at = bytes.at;
        if (byte_reader_bytes(&bytes, (size_t)entry_size) == NULL || next_low >= limit)
            return false;
        index->entries[index->count] = (LogEntry){
            .low = (uint32_t)next_low++, .offset = (uint32_t)at, .size = (uint32_t)entry_size};
    }
    return byte_reader_done(&bytes);
}

static WalLogIndex *
read_generation(WalStore *store, const WalLogName *log, uint32_t generation, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT + 1];
    size_t size;
    index_name(store, log, generation, name);
    SCOPED(WalLogIndex) index = calloc(1, sizeof *index);
    if (index == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    index->store = store;
    index->log = *log;
    index->bytes = object_get_small(store->repository, name, OBJECT_CATALOG, &size, NULL, err);
    if (index->bytes == NULL)
        return NULL;
    if (!parse(index, size)) {
        cairn_error(err, CAIRN_CORRUPT, "recovery index '%s' is malformed", name);
        return NULL;
    }
    return take(&index);
}

static bool
is_fatal(const CairnError *err)
{
    return err->kind == CAIRN_INTERNAL || err->kind == CAIRN_CANCELLED;
}

bool
wal_log_index_read(WalStore *store, const WalLogName *log, WalLogIndex **index_out, CairnError *err)
{
    Generations generations;
    *index_out = NULL;
    if (list_generations(store, log, &generations, err) && generations.count > 0)
        *index_out = read_generation(store, log, newest_of(&generations), err);
    if (err->kind == CAIRN_OK)
        return true;
    if (is_fatal(err))
        return false;
    if (err->kind != CAIRN_NOT_FOUND)
        log_warn("a recovery index is not used: %s; `pgcairn verify --reindex` makes it anew",
                 err->message);
    cairn_error_clear(err);
    return true;
}

void
wal_log_index_free(WalLogIndex *index)
{
    if (index == NULL)
        return;
    free(index->bytes);
    free(index->entries);
    free(index);
}

WalFacts *
wal_log_index_facts(const WalLogIndex *index, uint64_t segment_number, CairnError *err)
{
    const Incarnation *incarnation = index->store->incarnation;
    const uint32_t low = (uint32_t)(segment_number % segments_of_log(index->store));
    const WalIdentity segment = {
        .major = incarnation->major,
        .system_id = incarnation->system_id,
        .timeline = index->log.timeline,
        .lsn = segment_number * incarnation->wal_segment_size,
        .segment_size = incarnation->wal_segment_size,
    };
    for (size_t i = 0; i < index->count; i++) {
        const LogEntry *entry = &index->entries[i];
        if (entry->low != low)
            continue;
        WalFacts *facts = wal_facts_parse(index->bytes + entry->offset, entry->size, &segment, err);
        if (facts == NULL && !is_fatal(err))
            cairn_error_clear(err);
        return facts;
    }
    return NULL;
}

WalLogIndexBuilder *
wal_log_index_begin(WalStore *store, const WalLogName *log, CairnError *err)
{
    WalLogIndexBuilder *builder = calloc(1, sizeof *builder);
    if (builder == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    builder->store = store;
    builder->log = *log;
    return builder;
}

void
wal_log_index_builder_free(WalLogIndexBuilder *builder)
{
    if (builder == NULL)
        return;
    byte_writer_free(&builder->entries);
    free(builder);
}

void
wal_log_index_add(WalLogIndexBuilder *builder, uint64_t segment_number, const WalFacts *facts,
                  bool complete)
{
    const uint32_t low = (uint32_t)(segment_number % segments_of_log(builder->store));
    SCOPED_BYTES ByteWriter bytes = {0};
    /* What an index is not asked for: changed blocks, and parts of records that it has whole. */
    WalFacts told = *facts;
    told.fork_count = 0;
    told.chunk_count = 0;
    told.head = (WalEdge){0};
    told.tail = (WalEdge){0};
    told.tail_lsn = 0;

    CAIRN_ASSERT(low >= builder->next_low);
    if (!complete || builder->too_large)
        return;
    wal_facts_format(&told, &bytes);
    builder->too_large = builder->entries.size + bytes.size > LOG_INDEX_LIMIT - 64;
    if (builder->too_large)
        return;
    byte_writer_varint(&builder->entries, low - builder->next_low);
    byte_writer_varint(&builder->entries, bytes.size);
    byte_writer_bytes(&builder->entries, bytes.data, bytes.size);
    builder->entries.failed |= bytes.failed;
    builder->next_low = low + 1;
    builder->count++;
}

/* The newest one holds just these bytes. */
static bool
is_stored(WalLogIndexBuilder *builder, uint32_t generation, const ByteWriter *bytes)
{
    char name[STORAGE_NAME_LIMIT + 1];
    size_t size = 0;
    CairnError ignored = {0};
    index_name(builder->store, &builder->log, generation, name);
    SCOPED_MEMORY char *stored =
        object_get_small(builder->store->repository, name, OBJECT_CATALOG, &size, NULL, &ignored);
    return stored != NULL && size == bytes->size && memcmp(stored, bytes->data, size) == 0;
}

static bool
remove_older(WalLogIndexBuilder *builder, const Generations *generations, uint32_t kept,
             CairnError *err)
{
    for (size_t i = 0; i < generations->count; i++) {
        char name[STORAGE_NAME_LIMIT + 1];
        if (generations->numbers[i] == kept)
            continue;
        index_name(builder->store, &builder->log, generations->numbers[i], name);
        if (!storage_remove(repository_storage(builder->store->repository), name, err) &&
            err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
    }
    return true;
}

bool
wal_log_index_store(WalLogIndexBuilder *builder, bool *written_out, CairnError *err)
{
    WalStore *store = builder->store;
    Generations generations;
    char name[STORAGE_NAME_LIMIT + 1];
    SCOPED_BYTES ByteWriter bytes = {0};

    *written_out = false;
    byte_writer_u16(&bytes, LAYOUT);
    byte_writer_u32(&bytes, builder->log.timeline);
    byte_writer_u32(&bytes, builder->log.log);
    byte_writer_u32(&bytes, store->incarnation->wal_segment_size);
    byte_writer_varint(&bytes, builder->count);
    if (builder->entries.size > 0)
        byte_writer_bytes(&bytes, builder->entries.data, builder->entries.size);
    bytes.failed |= builder->entries.failed;
    if (!byte_writer_check(&bytes, err) ||
        !list_generations(store, &builder->log, &generations, err))
        return false;
    const uint32_t newest = newest_of(&generations);
    if (builder->too_large || (newest > 0 && is_stored(builder, newest, &bytes)))
        return true;
    index_name(store, &builder->log, newest + 1, name);
    if (!object_put_small(store->repository, name, OBJECT_CATALOG, 0, bytes.data, bytes.size, NULL,
                          err)) {
        /* Somebody else made it at the same time: that one is as good. */
        if (err->kind != CAIRN_CONFLICT)
            return false;
        cairn_error_clear(err);
        return true;
    }
    *written_out = true;
    return remove_older(builder, &generations, newest + 1, err);
}
