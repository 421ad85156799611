/* Maps that an enemy wrote, with every digest right. */
#include "repository/map.h"

#include "tests/unit/support/map_fixture.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

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
    return map_fixture_walk(repository, &root, &entries);
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
    return map_fixture_walk(repository, &root, &entries);
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

/* How a tree is knotted: every node of a level is the same one. */
typedef struct {
    uint64_t depth;
    size_t entries;         /* of the leaf */
    size_t bottom_children; /* of the lowest inner node, all the leaf */
    size_t children;        /* of those above */
    bool same_key;
} Knot;

static CairnErrorKind
walk_knot(Knot knot)
{
    SCOPED(Repository) repository = memory_repository("lz4");
    const BackupId bid = test_backup_id(1);
    RawMap map;
    uint64_t found;
    SCOPED_BYTES ByteWriter leaf = {0};
    raw_map_begin(&map, repository, &bid);
    node_start(&leaf, NODE_LEAF, &bid);
    byte_writer_varint(&leaf, knot.entries);
    for (size_t i = 0; i < knot.entries; i++) {
        const char key[3] = {0, 'a', (char)('a' + i)};
        directory_entry(&leaf, key, i == 0 ? 2 : 3);
    }
    MapNodeRef ref = raw_map_node(&map, leaf.data, leaf.size);
    for (uint64_t i = 0; i < knot.depth && i < 8; i++)
        ref = inner_of(&map, &ref, i == 0 ? knot.bottom_children : knot.children, knot.same_key);
    const MapNodeRef root = raw_map_root(&map, knot.depth, &ref);
    raw_map_finish(&map);
    return map_fixture_walk(repository, &root, &found);
}

/* With 20 children on 8 levels an unchecked walk takes 25 600 000 000 nodes. */
static void
test_a_knotted_tree_does_not_take_for_ever(void **state)
{
    (void)state;
    assert_int_equal(walk_knot((Knot){8, 1, 20, 20, false}), CAIRN_CORRUPT);
    assert_int_equal(walk_knot((Knot){8, 1, 1, 20, false}), CAIRN_CORRUPT);
    assert_int_equal(walk_knot((Knot){8, 1, 20, 20, true}), CAIRN_CORRUPT);
    assert_int_equal(walk_knot((Knot){8, 0, 20, 20, false}), CAIRN_CORRUPT); /* empty leaves */
    assert_int_equal(walk_knot((Knot){8, 3, 1, 1, false}), CAIRN_OK);
    assert_int_equal(walk_knot((Knot){1, 1, 0, 0, false}), CAIRN_CORRUPT); /* no children */
    assert_int_equal(walk_knot((Knot){9, 1, 1, 1, false}), CAIRN_CORRUPT); /* too deep */
    assert_int_equal(walk_knot((Knot){UINT64_MAX, 1, 1, 1, false}), CAIRN_CORRUPT);
    assert_int_equal(walk_knot((Knot){0, 0, 0, 0, false}),
                     CAIRN_OK); /* an empty map is an empty leaf */
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
    assert_int_equal(map_fixture_walk(repository, &root, &found), CAIRN_CORRUPT);
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
        assert_int_equal(map_fixture_walk(repository, &root, &found), CAIRN_CORRUPT);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths_that_leave_the_target_are_refused),
        cmocka_unit_test(test_a_key_too_long_is_refused),
        cmocka_unit_test(test_keys_must_ascend),
        cmocka_unit_test(test_runs_that_do_not_fit_the_file_are_refused),
        cmocka_unit_test(test_a_knotted_tree_does_not_take_for_ever),
        cmocka_unit_test(test_a_leaf_under_another_key_is_refused),
        cmocka_unit_test(test_references_out_of_the_pack_are_refused),
    };
    return cmocka_run_group_tests_name("map_hostile", tests, NULL, NULL);
}
