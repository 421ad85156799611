#include "repository/map.h"

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
    MapRun left = {0}, right = {0};
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
    assert_int_equal(map_fixture_walk(repository, &result.root, &entries), CAIRN_OK);
    /* The root is the last node: up to its end every byte belongs to a node. */
    const uint64_t end = result.root.offset + result.root.stored_size;
    for (uint64_t i = OBJECT_HEADER_SIZE; i < end; i += 1 + i % 3) {
        bytes[i] ^= 0x20;
        if (map_fixture_walk(repository, &result.root, &entries) != CAIRN_CORRUPT)
            fail_msg("byte %llu was changed unnoticed", (unsigned long long)i);
        bytes[i] ^= 0x20;
    }
    free_plan(&plan);
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
    };
    return cmocka_run_group_tests_name("map", tests, set_up, NULL);
}
