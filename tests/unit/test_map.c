#include "repository/map.h"

#include "repository/map_sort.h"
#include "repository/pack.h"
#include "tests/unit/support/map_fixture.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *scratch;

/* What was put into a map. Runs follow from seed. */
typedef struct {
    MapClass class;
    char *path;
    MapEntryType type;
    uint64_t units;
    uint32_t tail_bytes; /* the last unit has fewer bytes than the others by so much */
    uint64_t seed;
} Planned;

typedef struct {
    Planned *entries;
    size_t count;
} Plan;

static void
free_plan(Plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        free(plan->entries[i].path);
    free(plan->entries);
}

/* Runs of a planned file: zeros and data, neighbours sometimes continuing each other. malloc'ed. */
static MapRun *
planned_runs(const Planned *planned, size_t *count_out)
{
    uint64_t random = planned->seed, left = planned->units;
    size_t count = 0, capacity = 16;
    MapRun *runs = malloc(capacity * sizeof *runs);
    uint32_t slot = (uint32_t)test_random_below(&random, 1000);
    while (left > 0) {
        MapRun run = {.is_zero = test_random_below(&random, 3) == 0,
                      .units = 1 + test_random_below(&random, 40)};
        if (run.units > left)
            run.units = left;
        left -= run.units;
        if (!run.is_zero) {
            if (test_random_below(&random, 4) == 0)
                slot = (uint32_t)test_random_below(&random, 1000000);
            run.pack = (uint32_t)(planned->seed % 5);
            run.slot = slot;
            slot += (uint32_t)run.units;
        }
        if (count == capacity)
            runs = realloc(runs, (capacity *= 2) * sizeof *runs);
        assert_non_null(runs);
        runs[count++] = run;
    }
    *count_out = count;
    return runs;
}

static int
by_key(const void *a, const void *b)
{
    const Planned *left = a, *right = b;
    return left->class != right->class ? (int)left->class - (int)right->class
                                       : strcmp(left->path, right->path);
}

/* Distinct random paths in random order: short, deep and as long as may be. */
static Plan
make_plan(size_t count, uint64_t random)
{
    Plan plan = {.entries = calloc(count, sizeof *plan.entries), .count = count};
    assert_non_null(plan.entries);
    for (size_t i = 0; i < count; i++) {
        char path[MAP_KEY_LIMIT];
        size_t size = (size_t)snprintf(path, sizeof path, "%llu/%zu",
                                       (unsigned long long)test_random_below(&random, 20), i);
        const size_t wanted = test_random_below(&random, 50) == 0
                                  ? MAP_KEY_LIMIT - 1
                                  : size + test_random_below(&random, 30);
        while (size < wanted) {
            const bool slash = size + 1 < wanted && path[size - 1] != '/' && size % 11 == 0;
            path[size++] = slash ? '/' : (char)('a' + test_random_below(&random, 26));
        }
        path[size] = '\0';
        const bool is_file = test_random_below(&random, 4) > 0;
        uint64_t units = is_file ? test_random_below(&random, 60) : 0;
        if (is_file && test_random_below(&random, 300) == 0)
            units = REGION_UNITS * 2 + 77;
        plan.entries[i] = (Planned){
            .class = test_random_below(&random, 10) == 0 ? MAP_CLASS_OURS : MAP_CLASS_CLUSTER,
            .path = strdup(path),
            .type = is_file ? MAP_FILE : MAP_DIRECTORY,
            .units = units,
            .tail_bytes = units > 0 ? (uint32_t)test_random_below(&random, UNIT_SIZE) : 0,
            .seed = test_random(&random),
        };
    }
    return plan;
}

static uint64_t
planned_size(const Planned *planned)
{
    return planned->units * UNIT_SIZE - planned->tail_bytes;
}

static bool
ignore_digest(void *context, const uint8_t digest[SHA256_SIZE], CairnError *err)
{
    (void)digest;
    (void)err;
    ++*(unsigned *)context;
    return true;
}

static MapResult
build(Repository *repository, const BackupId *bid, const Plan *plan)
{
    CairnError err = {0};
    MapResult result;
    unsigned digests = 0;
    SCOPED(MapBuilder) builder = map_builder_new(repository, "main", bid, scratch, &err);
    assert_non_null(builder);
    for (size_t i = 0; i < plan->count; i++) {
        const Planned *planned = &plan->entries[i];
        const MapEntry entry = {.class = planned->class,
                                .path = planned->path,
                                .type = planned->type,
                                .mode = planned->seed & 0777,
                                .size_bytes = planned_size(planned),
                                .has_crc32c = planned->seed % 2 == 0,
                                .crc32c = (uint32_t)planned->seed};
        size_t count;
        SCOPED_MEMORY MapRun *runs = planned_runs(planned, &count);
        assert_true(map_builder_add(builder, &entry, runs, count, &err));
    }
    assert_true(map_builder_finish(builder, ignore_digest, &digests, &result, &err));
    assert_int_equal(digests, result.map_pack_count);
    return result;
}

/* A run, or the rest of one, as a stream of single units: regions cut runs where they like. */
typedef struct {
    const MapRun *runs;
    size_t count, at;
    uint64_t taken;
} RunStream;

static bool
next_unit(RunStream *stream, MapRun *unit_out)
{
    if (stream->at == stream->count)
        return false;
    const MapRun *run = &stream->runs[stream->at];
    *unit_out = (MapRun){.is_zero = run->is_zero, .units = 1};
    if (!run->is_zero) {
        unit_out->pack = run->pack;
        unit_out->slot = run->slot + (uint32_t)stream->taken;
    }
    if (++stream->taken == run->units) {
        stream->at++;
        stream->taken = 0;
    }
    return true;
}

static void
compare_regions(MapReader *reader, const Planned *planned, const BackupId *bid)
{
    CairnError err = {0};
    size_t planned_count;
    SCOPED_MEMORY MapRun *planned_memory = planned_runs(planned, &planned_count);
    RunStream wanted = {.runs = planned_memory, .count = planned_count};
    MapRun left, right;
    for (;;) {
        const MapRun *runs;
        size_t count;
        uint64_t first_unit;
        assert_true(map_reader_region(reader, &runs, &count, &first_unit, &err));
        if (count == 0)
            break;
        assert_int_equal(first_unit % REGION_UNITS, 0);
        RunStream found = {.runs = runs, .count = count};
        for (size_t i = 0; i < count; i++) {
            if (!runs[i].is_zero)
                assert_string_equal(map_reader_creator(reader, runs[i].creator)->text, bid->text);
        }
        while (next_unit(&found, &left)) {
            assert_true(next_unit(&wanted, &right));
            assert_true(left.is_zero == right.is_zero && left.pack == right.pack &&
                        left.slot == right.slot);
        }
    }
    assert_false(next_unit(&wanted, &right));
}

static void
compare_entry(const MapEntry *entry, const Planned *planned)
{
    assert_int_equal(entry->class, planned->class);
    assert_string_equal(entry->path, planned->path);
    assert_int_equal(entry->type, planned->type);
    assert_int_equal(entry->mode, planned->seed & 0777);
    assert_true(entry->size_bytes == planned_size(planned));
    if (planned->type == MAP_FILE) {
        assert_int_equal(entry->has_crc32c, planned->seed % 2 == 0);
        assert_int_equal(entry->crc32c, entry->has_crc32c ? (uint32_t)planned->seed : 0);
    }
}

static void
test_a_walk_gives_what_was_added_in_key_order(void **state)
{
    (void)state;
    static const size_t counts[] = {0, 1, 2, 50, 3000, 20000};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        SCOPED(Repository) repository = memory_repository(i % 2 == 0 ? "lz4" : "zstd");
        CairnError err = {0};
        const BackupId bid = test_backup_id(1);
        Plan plan = make_plan(counts[i], 1000 + i);
        const MapResult result = build(repository, &bid, &plan);
        qsort(plan.entries, plan.count, sizeof *plan.entries, by_key);
        SCOPED(MapReader) reader = map_reader_open(repository, "main", &result.root, &err);
        assert_non_null(reader);
        MapEntry entry;
        bool found;
        for (size_t k = 0; k < plan.count; k++) {
            assert_true(map_reader_next(reader, &entry, &found, &err));
            assert_true(found);
            compare_entry(&entry, &plan.entries[k]);
            if (k % 3 > 0) /* passing over an entry's runs is fine too */
                compare_regions(reader, &plan.entries[k], &bid);
        }
        for (int again = 0; again < 2; again++) {
            assert_true(map_reader_next(reader, &entry, &found, &err));
            assert_false(found);
        }
        free_plan(&plan);
    }
}

static void
test_a_seek_finds_the_first_entry_at_or_after(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    uint64_t random = 77;
    Plan plan = make_plan(COUNT, 5);
    const MapResult result = build(repository, &bid, &plan);
    qsort(plan.entries, plan.count, sizeof *plan.entries, by_key);
    SCOPED(MapReader) reader = map_reader_open(repository, "main", &result.root, &err);
    assert_non_null(reader);
    for (int i = 0; i < 400; i++) {
        const size_t place = (size_t)test_random_below(&random, COUNT);
        Planned wanted = plan.entries[place];
        char path[MAP_KEY_LIMIT + 2];
        snprintf(path, sizeof path, "%s", wanted.path);
        size_t expected = place;
        if (i % 3 == 1) { /* just after it */
            path[strlen(path) - 1]++;
            while (expected < COUNT && (plan.entries[expected].class < wanted.class ||
                                        (plan.entries[expected].class == wanted.class &&
                                         strcmp(plan.entries[expected].path, path) < 0)))
                expected++;
        }
        assert_true(map_reader_seek(reader, wanted.class, path, &err));
        for (size_t k = expected; k < expected + 5; k++) {
            MapEntry entry;
            bool found;
            assert_true(map_reader_next(reader, &entry, &found, &err));
            assert_int_equal(found, k < COUNT);
            if (!found)
                break;
            compare_entry(&entry, &plan.entries[k]);
            compare_regions(reader, &plan.entries[k], &bid);
        }
    }
    MapEntry entry;
    bool found;
    assert_true(map_reader_seek(reader, MAP_CLASS_OURS, "\xff", &err));
    assert_true(map_reader_next(reader, &entry, &found, &err));
    assert_false(found);
    assert_true(map_reader_seek(reader, MAP_CLASS_CLUSTER, "", &err));
    assert_true(map_reader_next(reader, &entry, &found, &err));
    assert_true(found);
    assert_string_equal(entry.path, plan.entries[0].path);
    free_plan(&plan);
}

static void
test_frame_tables_are_found_by_pack(void **state)
{
    (void)state;
    enum { PACKS = 1100 }; /* three lists */
    SCOPED(Repository) repository = memory_repository("lz4");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    MapResult result;
    unsigned digests = 0;
    SCOPED(MapBuilder) builder = map_builder_new(repository, "main", &bid, scratch, &err);
    assert_non_null(builder);
    for (uint32_t i = 0; i < PACKS; i++) {
        char table[32];
        const int size = snprintf(table, sizeof table, "table %u", i);
        assert_true(map_builder_add_frame_table(builder, i, table, (size_t)size, &err));
    }
    assert_true(map_builder_finish(builder, ignore_digest, &digests, &result, &err));
    SCOPED(MapReader) reader = map_reader_open(repository, "main", &result.root, &err);
    assert_non_null(reader);
    static const uint32_t packs[] = {0, 1, 511, 512, 1023, 1024, 1099};
    for (size_t i = 0; i < sizeof packs / sizeof *packs; i++) {
        char expected[32];
        size_t size;
        snprintf(expected, sizeof expected, "table %u", packs[i]);
        SCOPED_MEMORY uint8_t *table = map_reader_frame_table(reader, packs[i], &size, &err);
        assert_non_null(table);
        assert_int_equal(size, strlen(expected));
        assert_memory_equal(table, expected, size);
    }
    size_t size;
    assert_null(map_reader_frame_table(reader, PACKS, &size, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

/* Walks over everything; CAIRN_OK at the end, or the failure's kind. */
static CairnErrorKind
walk(Repository *repository, const MapNodeRef *root, uint64_t *entries_out)
{
    CairnError err = {0};
    *entries_out = 0;
    SCOPED(MapReader) reader = map_reader_open(repository, "main", root, &err);
    if (reader == NULL)
        return err.kind;
    for (;;) {
        MapEntry entry;
        bool found;
        if (!map_reader_next(reader, &entry, &found, &err))
            return err.kind;
        if (!found)
            return CAIRN_OK;
        ++*entries_out;
        for (size_t count = 1; count > 0;) {
            const MapRun *runs;
            uint64_t first_unit;
            if (!map_reader_region(reader, &runs, &count, &first_unit, &err))
                return err.kind;
        }
    }
}

static void
test_each_changed_byte_of_a_node_is_noticed(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    const BackupId bid = test_backup_id(1);
    Plan plan = make_plan(60, 3);
    const MapResult result = build(repository, &bid, &plan);
    char name[STORAGE_NAME_LIMIT];
    size_t size;
    uint64_t entries;
    map_pack_name(name, "main", &bid, 0);
    uint8_t *bytes = memory_storage_bytes(repository_storage(repository), name, &size);
    assert_non_null(bytes);
    assert_int_equal(walk(repository, &result.root, &entries), CAIRN_OK);
    /* The root is the last node: up to its end every byte belongs to a node. */
    const uint64_t end = result.root.offset + result.root.stored_size;
    for (uint64_t i = OBJECT_HEADER_SIZE; i < end; i += 1 + i % 3) {
        bytes[i] ^= 0x20;
        if (walk(repository, &result.root, &entries) != CAIRN_CORRUPT)
            fail_msg("byte %llu was changed unnoticed", (unsigned long long)i);
        bytes[i] ^= 0x20;
    }
    free_plan(&plan);
}

/* An enemy's leaf, entry by entry: the key, then what the test wants. */
static void
leaf_entry(ByteWriter *leaf, uint64_t shared, const char *suffix, size_t suffix_size)
{
    byte_writer_varint(leaf, shared);
    byte_writer_varint(leaf, suffix_size);
    byte_writer_bytes(leaf, suffix, suffix_size);
}

static void
directory_entry(ByteWriter *leaf, const char *key, size_t key_size)
{
    leaf_entry(leaf, 0, key, key_size);
    byte_writer_u8(leaf, MAP_DIRECTORY);
    byte_writer_varint(leaf, 0700);
}

/* Reads a map of one leaf. */
static CairnErrorKind
walk_leaf(Repository *repository, uint64_t sequence, const ByteWriter *leaf)
{
    const BackupId bid = test_backup_id(sequence);
    uint64_t entries;
    RawMap map;
    raw_map_begin(&map, repository, &bid);
    const MapNodeRef top = raw_map_node(&map, leaf->data, leaf->size);
    const MapNodeRef root = raw_map_root(&map, 0, &top);
    raw_map_finish(&map);
    return walk(repository, &root, &entries);
}

static const struct {
    const char *title;
    const char *key;
    size_t key_size;
} bad_keys[] = {
    {"parent", "\0../x", 5},
    {"parent inside", "\0base/../../x", 13},
    {"absolute", "\0/etc/passwd", 12},
    {"dot", "\0./x", 4},
    {"empty component", "\0base//x", 8},
    {"slash at the end", "\0base/", 6},
    {"NUL inside", "\0ba\0e", 5},
    {"no path", "\0", 1},
    {"nothing", "", 0},
    {"class 2", "\2x", 2},
    {"class 255", "\377x", 2},
};

static void
test_paths_that_leave_the_target_are_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    for (size_t i = 0; i < sizeof bad_keys / sizeof *bad_keys; i++) {
        const BackupId bid = test_backup_id(100 + i);
        SCOPED_BYTES ByteWriter leaf = {0};
        node_start(&leaf, NODE_LEAF, &bid);
        byte_writer_varint(&leaf, 1);
        directory_entry(&leaf, bad_keys[i].key, bad_keys[i].key_size);
        if (walk_leaf(repository, 100 + i, &leaf) != CAIRN_CORRUPT)
            fail_msg("%s was accepted", bad_keys[i].title);
    }
}

static void
test_a_key_too_long_is_refused(void **state)
{
    (void)state;
    static char key[2 * MAP_KEY_LIMIT];
    memset(key + 1, 'x', sizeof key - 1);
    for (size_t size = MAP_KEY_LIMIT; size < MAP_KEY_LIMIT + 3; size++) {
        for (int split = 0; split < 2; split++) {
            SCOPED(Repository) repository = memory_repository("lz4");
            const BackupId bid = test_backup_id(1);
            SCOPED_BYTES ByteWriter leaf = {0};
            node_start(&leaf, NODE_LEAF, &bid);
            byte_writer_varint(&leaf, split ? 2 : 1);
            directory_entry(&leaf, key, split ? 1000 : size);
            if (split) { /* shares 1000 bytes with the one before */
                leaf_entry(&leaf, 1000, key + 1000, size - 1000);
                byte_writer_u8(&leaf, MAP_DIRECTORY);
                byte_writer_varint(&leaf, 0700);
            }
            assert_int_equal(walk_leaf(repository, 1, &leaf),
                             size <= MAP_KEY_LIMIT ? CAIRN_OK : CAIRN_CORRUPT);
        }
    }
}

static void
test_keys_must_ascend(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"b", "a"}, {"b", "b"}, {"ba", "b"}, {"a", "b"}, {"a", "aa"}};
    for (size_t i = 0; i < 5; i++) {
        SCOPED(Repository) repository = memory_repository("lz4");
        const BackupId bid = test_backup_id(1);
        SCOPED_BYTES ByteWriter leaf = {0};
        node_start(&leaf, NODE_LEAF, &bid);
        byte_writer_varint(&leaf, 2);
        for (int k = 0; k < 2; k++) {
            char key[8] = {0};
            snprintf(key + 1, sizeof key - 1, "%s", pairs[i][k]);
            directory_entry(&leaf, key, 1 + strlen(pairs[i][k]));
        }
        assert_int_equal(walk_leaf(repository, 1, &leaf), i < 3 ? CAIRN_CORRUPT : CAIRN_OK);
    }
}

/* Runs of a file of 100 units, as an enemy writes them. */
static const struct {
    const char *title;
    uint64_t run_count;
    size_t number_count;
    uint64_t numbers[6];
    CairnErrorKind kind;
} run_lists[] = {
    {"zeros", 1, 1, {100 * 4}, CAIRN_OK},
    {"data", 1, 4, {100 * 4 + 1, 0, 0, 5}, CAIRN_OK},
    {"two runs", 2, 6, {60 * 4 + 1, 0, 0, 5, 40 * 4 + 2, 0}, CAIRN_OK},
    {"too few units", 1, 1, {99 * 4}, CAIRN_CORRUPT},
    {"too many units", 1, 1, {101 * 4}, CAIRN_CORRUPT},
    {"more than a region", 1, 1, {(REGION_UNITS + 1) * 4}, CAIRN_CORRUPT},
    {"huge", 1, 1, {UINT64_MAX & ~3ull}, CAIRN_CORRUPT},
    {"empty run", 2, 2, {0, 100 * 4}, CAIRN_CORRUPT},
    {"no run", 0, 0, {0}, CAIRN_CORRUPT},
    {"too many runs", REGION_UNITS + 1, 1, {100 * 4}, CAIRN_CORRUPT},
    {"runs missing", 2, 1, {50 * 4}, CAIRN_CORRUPT},
    {"kind 3", 1, 1, {100 * 4 + 3}, CAIRN_CORRUPT},
    {"next of nothing", 1, 2, {100 * 4 + 2, 0}, CAIRN_CORRUPT},
    {"next after zeros", 2, 3, {50 * 4, 50 * 4 + 2, 0}, CAIRN_CORRUPT},
    {"unnamed creator", 1, 4, {100 * 4 + 1, 1, 0, 5}, CAIRN_CORRUPT},
    {"huge creator", 1, 4, {100 * 4 + 1, UINT64_MAX, 0, 5}, CAIRN_CORRUPT},
    {"huge pack", 1, 4, {100 * 4 + 1, 0, UINT32_MAX, 5}, CAIRN_CORRUPT},
    {"huge slot", 1, 4, {100 * 4 + 1, 0, 0, UINT32_MAX}, CAIRN_CORRUPT},
    {"slots that overflow", 1, 4, {100 * 4 + 1, 0, 0, INT32_MAX}, CAIRN_CORRUPT},
    {"a gap that overflows",
     2,
     6,
     {50 * 4 + 1, 0, 0, INT32_MAX - 50, 50 * 4 + 2, INT32_MAX},
     CAIRN_CORRUPT},
    {"a gap that wraps",
     2,
     6,
     {50 * 4 + 1, 0, 0, INT32_MAX - 50, 50 * 4 + 2, UINT32_MAX},
     CAIRN_CORRUPT},
};

/* Inline in the leaf, or in a region node. */
static CairnErrorKind
walk_runs(size_t number, bool as_region, uint64_t region_first_unit)
{
    SCOPED(Repository) repository = memory_repository("lz4");
    const BackupId bid = test_backup_id(1);
    RawMap map;
    uint64_t entries;
    SCOPED_BYTES ByteWriter runs = {0}, region = {0}, leaf = {0};
    raw_map_begin(&map, repository, &bid);
    byte_writer_varint(&runs, run_lists[number].run_count);
    for (size_t i = 0; i < run_lists[number].number_count; i++)
        byte_writer_varint(&runs, run_lists[number].numbers[i]);

    node_start(&leaf, NODE_LEAF, &bid);
    byte_writer_varint(&leaf, 1);
    leaf_entry(&leaf, 0, "\0file", 5);
    byte_writer_u8(&leaf, MAP_FILE);
    byte_writer_varint(&leaf, 0600);
    byte_writer_varint(&leaf, 100 * UNIT_SIZE);
    byte_writer_u8(&leaf, 0);
    byte_writer_varint(&leaf, 1);
    byte_writer_u8(&leaf, as_region);
    if (as_region) {
        node_start(&region, NODE_REGION, &bid);
        byte_writer_varint(&region, region_first_unit);
        byte_writer_bytes(&region, runs.data, runs.size);
        const MapNodeRef ref = raw_map_node(&map, region.data, region.size);
        node_ref_append(&leaf, &ref, 0);
    } else {
        byte_writer_bytes(&leaf, runs.data, runs.size);
    }
    const MapNodeRef top = raw_map_node(&map, leaf.data, leaf.size);
    const MapNodeRef root = raw_map_root(&map, 0, &top);
    raw_map_finish(&map);
    return walk(repository, &root, &entries);
}

static void
test_runs_that_do_not_fit_the_file_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof run_lists / sizeof *run_lists; i++) {
        for (int as_region = 0; as_region < 2; as_region++) {
            if (walk_runs(i, as_region, 0) != run_lists[i].kind)
                fail_msg("%s (%s): wrong", run_lists[i].title, as_region ? "region" : "inline");
        }
    }
    assert_int_equal(walk_runs(0, true, REGION_UNITS), CAIRN_CORRUPT);
}

/* An inner node whose children all are the same node. */
static MapNodeRef
inner_of(RawMap *map, const MapNodeRef *child, size_t children, bool same_key)
{
    SCOPED_BYTES ByteWriter inner = {0};
    node_start(&inner, NODE_INNER, &map->bid);
    byte_writer_varint(&inner, children);
    for (size_t i = 0; i < children; i++) {
        const char key[2] = {0, (char)('a' + (same_key ? 0 : (int)i))};
        byte_writer_varint(&inner, sizeof key);
        byte_writer_bytes(&inner, key, sizeof key);
        node_ref_append(&inner, child, 0);
    }
    return raw_map_node(map, inner.data, inner.size);
}

/* Leaves of `entries` directories below `depth` inner levels of 20 children each, all the same. */
static CairnErrorKind
walk_knot(uint64_t depth, size_t entries, size_t children, bool same_key)
{
    SCOPED(Repository) repository = memory_repository("lz4");
    const BackupId bid = test_backup_id(1);
    RawMap map;
    uint64_t found;
    SCOPED_BYTES ByteWriter leaf = {0};
    raw_map_begin(&map, repository, &bid);
    node_start(&leaf, NODE_LEAF, &bid);
    byte_writer_varint(&leaf, entries);
    for (size_t i = 0; i < entries; i++) {
        const char key[3] = {0, 'a', (char)('a' + i)};
        directory_entry(&leaf, key, i == 0 ? 2 : 3);
    }
    MapNodeRef ref = raw_map_node(&map, leaf.data, leaf.size);
    for (uint64_t i = 0; i < depth && i < 8; i++)
        ref = inner_of(&map, &ref, children, same_key);
    const MapNodeRef root = raw_map_root(&map, depth, &ref);
    raw_map_finish(&map);
    return walk(repository, &root, &found);
}

/* With 20 children on 8 levels an unchecked walk takes 25 600 000 000 nodes. */
static void
test_a_knotted_tree_does_not_take_for_ever(void **state)
{
    (void)state;
    assert_int_equal(walk_knot(8, 1, 20, false), CAIRN_CORRUPT);
    assert_int_equal(walk_knot(8, 1, 20, true), CAIRN_CORRUPT);
    assert_int_equal(walk_knot(8, 0, 20, false), CAIRN_CORRUPT); /* empty leaves */
    assert_int_equal(walk_knot(8, 3, 1, false), CAIRN_OK);
    assert_int_equal(walk_knot(1, 1, 0, false), CAIRN_CORRUPT); /* no children */
    assert_int_equal(walk_knot(9, 1, 1, false), CAIRN_CORRUPT); /* too deep */
    assert_int_equal(walk_knot(UINT64_MAX, 1, 1, false), CAIRN_CORRUPT);
    assert_int_equal(walk_knot(0, 0, 0, false), CAIRN_OK); /* an empty map is one empty leaf */
}

static void
test_a_leaf_under_another_key_is_refused(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("lz4");
    const BackupId bid = test_backup_id(1);
    RawMap map;
    uint64_t found;
    SCOPED_BYTES ByteWriter leaf = {0};
    raw_map_begin(&map, repository, &bid);
    node_start(&leaf, NODE_LEAF, &bid);
    byte_writer_varint(&leaf, 1);
    directory_entry(&leaf, "\0b", 2); /* its parent says "a" */
    const MapNodeRef ref = raw_map_node(&map, leaf.data, leaf.size);
    const MapNodeRef top = inner_of(&map, &ref, 1, false);
    const MapNodeRef root = raw_map_root(&map, 1, &top);
    raw_map_finish(&map);
    assert_int_equal(walk(repository, &root, &found), CAIRN_CORRUPT);
}

static void
test_references_out_of_the_pack_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t offset;
        uint32_t stored, raw;
        uint8_t codec;
    } refs[] = {{0, 10, 10, 0},
                {UINT64_MAX - 4, 10, 10, 0},
                {OBJECT_HEADER_SIZE, 1000000, 1000000, 0},
                {OBJECT_HEADER_SIZE, 10, 20, 0},
                {OBJECT_HEADER_SIZE, 10, 1000000, 1},
                {OBJECT_HEADER_SIZE, 10, 1000000, 2},
                {OBJECT_HEADER_SIZE, 0, 0, 0}};
    for (size_t i = 0; i < sizeof refs / sizeof *refs; i++) {
        SCOPED(Repository) repository = memory_repository("lz4");
        const BackupId bid = test_backup_id(1);
        RawMap map;
        uint64_t found;
        raw_map_begin(&map, repository, &bid);
        MapNodeRef ref = raw_map_node(&map, "a node, or not", 14);
        ref.offset = refs[i].offset;
        ref.stored_size = refs[i].stored;
        ref.raw_size = refs[i].raw;
        ref.codec = refs[i].codec;
        const MapNodeRef root = raw_map_root(&map, 0, &ref);
        raw_map_finish(&map);
        assert_int_equal(walk(repository, &root, &found), CAIRN_CORRUPT);
    }
}

static void
test_the_sorter_spills_and_merges(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    static const size_t memories[] = {4096, 100000, MAP_SORT_MEMORY};
    for (size_t m = 0; m < 3; m++) {
        CairnError err = {0};
        SCOPED(MapSort) sort = map_sort_new(world_real(), scratch, memories[m], &err);
        assert_non_null(sort);
        for (uint32_t i = 0; i < COUNT; i++) {
            char key[16], payload[1500];
            const uint32_t number = i * 7919 % COUNT;
            const int size = snprintf(key, sizeof key, "%06u", number);
            memset(payload, (int)(number & 0xff), sizeof payload);
            assert_true(map_sort_add(sort, key, (size_t)size, payload,
                                     number % 200 == 0 ? 1500 : number % 7, &err));
        }
        for (uint32_t i = 0; i <= COUNT; i++) {
            const uint8_t *key, *payload;
            size_t key_size, payload_size;
            bool found;
            char expected[16];
            assert_true(
                map_sort_next(sort, &key, &key_size, &payload, &payload_size, &found, &err));
            assert_int_equal(found, i < COUNT);
            if (!found)
                break;
            snprintf(expected, sizeof expected, "%06u", i);
            assert_int_equal(key_size, 6);
            assert_memory_equal(key, expected, 6);
            assert_int_equal(payload_size, i % 200 == 0 ? 1500 : i % 7);
            for (size_t k = 0; k < payload_size; k++)
                assert_true(payload[k] == (uint8_t)i);
        }
    }
}

static void
test_a_key_added_twice_is_refused_wherever_it_is(void **state)
{
    (void)state;
    for (unsigned distance = 0; distance < 2000; distance += 500) {
        CairnError err = {0};
        SCOPED(MapSort) sort = map_sort_new(world_real(), scratch, 4096, &err);
        assert_non_null(sort);
        assert_true(map_sort_add(sort, "\0twice", 6, "", 0, &err));
        for (unsigned i = 0; i < distance; i++) {
            char key[16];
            const int size = snprintf(key, sizeof key, "%06u", i);
            assert_true(map_sort_add(sort, key, (size_t)size, "", 0, &err));
        }
        assert_true(map_sort_add(sort, "\0twice", 6, "", 0, &err));
        const uint8_t *key, *payload;
        size_t key_size, payload_size;
        bool found = true, sorted = true;
        while (sorted && found)
            sorted = map_sort_next(sort, &key, &key_size, &payload, &payload_size, &found, &err);
        assert_false(sorted);
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        assert_non_null(strstr(err.message, "twice"));
    }
}

static int
set_up(void **state)
{
    (void)state;
    scratch = scratch_directory();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_walk_gives_what_was_added_in_key_order),
        cmocka_unit_test(test_a_seek_finds_the_first_entry_at_or_after),
        cmocka_unit_test(test_frame_tables_are_found_by_pack),
        cmocka_unit_test(test_each_changed_byte_of_a_node_is_noticed),
        cmocka_unit_test(test_paths_that_leave_the_target_are_refused),
        cmocka_unit_test(test_a_key_too_long_is_refused),
        cmocka_unit_test(test_keys_must_ascend),
        cmocka_unit_test(test_runs_that_do_not_fit_the_file_are_refused),
        cmocka_unit_test(test_a_knotted_tree_does_not_take_for_ever),
        cmocka_unit_test(test_a_leaf_under_another_key_is_refused),
        cmocka_unit_test(test_references_out_of_the_pack_are_refused),
        cmocka_unit_test(test_the_sorter_spills_and_merges),
        cmocka_unit_test(test_a_key_added_twice_is_refused_wherever_it_is),
    };
    return cmocka_run_group_tests_name("map", tests, set_up, NULL);
}
