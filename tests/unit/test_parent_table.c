#include "repository/parent_table.h"

#include "repository/path_table.h"
#include "tests/unit/support/backup_fixture.h"
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

/* A record of a size and content that follow from its key's number. */
static size_t
record_of(unsigned number, uint8_t *record)
{
    uint64_t random = number * 0x9e3779b97f4a7c15u + 1;
    const size_t size = number % 97 == 0 ? 5000 : test_random_below(&random, 40);
    test_fill(&random, record, size);
    return size;
}

static void
add_all(PathTable *table, unsigned count)
{
    uint8_t record[5000];
    char key[64];
    CairnError err = {0};
    for (unsigned i = 0; i < count; i++) {
        const size_t size = record_of(i, record);
        const int key_size = snprintf(key, sizeof key, "base/%u/%u", i % 7, i);
        assert_true(path_table_add(table, key, (size_t)key_size, record, size, &err));
    }
}

/* In an order that has nothing to do with the one they came in; and some that are not there. */
static void
find_all(PathTable *table, unsigned count)
{
    uint8_t record[5000];
    char key[64];
    CairnError err = {0};
    for (unsigned n = 0; n < count; n++) {
        const unsigned i = (unsigned)((uint64_t)n * 7919 % count);
        const uint8_t *found;
        size_t found_size;
        int key_size = snprintf(key, sizeof key, "base/%u/%u", i % 7, i);
        assert_true(path_table_find(table, key, (size_t)key_size, &found, &found_size, &err));
        assert_non_null(found);
        const size_t size = record_of(i, record);
        assert_int_equal(found_size, size);
        assert_true(size == 0 || memcmp(found, record, size) == 0);
        key_size = snprintf(key, sizeof key, "base/%u/%u", i % 7 + 1, i);
        assert_true(path_table_find(table, key, (size_t)key_size, &found, &found_size, &err));
        assert_null(found);
    }
}

/* The masks make many keys share a hash: only the keys themselves tell them apart then. */
static void
test_records_are_found_by_path_whatever_their_hash(void **state)
{
    (void)state;
    static const struct {
        uint64_t mask;
        unsigned count;
    } cases[] = {{UINT64_MAX, 20000}, {0x3ff, 3000}, {0, 200}, {UINT64_MAX, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SCOPED(Repository) repository = memory_repository("lz4");
        CairnError err = {0};
        SCOPED(PathTable) table = path_table_new(repository, scratch, cases[i].mask, &err);
        assert_non_null(table);
        add_all(table, cases[i].count);
        find_all(table, cases[i].count);
        /* Adding goes on after a look-up. */
        const uint8_t late[3] = {'a', 'b', 'c'};
        const uint8_t *found;
        size_t size;
        assert_true(path_table_add(table, "late", 4, late, 3, &err));
        assert_true(path_table_find(table, "late", 4, &found, &size, &err));
        assert_true(found != NULL && size == 3 && memcmp(found, late, 3) == 0);
    }
}

typedef struct {
    Repository *repository;
    Fate *fate;
    Refs *refs;
    CreatorTable *creators;
    TestFile files[4];
} Parent;

static void
make_parent(Parent *parent)
{
    static const uint64_t sizes[] = {0, 100, 50 * UNIT_SIZE + 17, 3 * UNIT_SIZE};
    CairnError err = {0};
    uint32_t number;
    parent->repository = memory_repository("lz4");
    for (size_t i = 0; i < 4; i++) {
        parent->files[i] =
            (TestFile){.mode = 0600, .size_bytes = sizes[i], .seed = i + 1, .zero_percent = 20};
        snprintf(parent->files[i].path, sizeof parent->files[i].path, "base/1/%zu", i);
    }
    parent->files[3].class = MAP_CLASS_OURS;
    SCOPED(BackupWriter) writer = test_backup_begin(parent->repository, scratch, 1, &err);
    assert_non_null(writer);
    assert_true(test_backup_write(writer, parent->files, 4, 5, &err));
    assert_true(test_backup_commit(writer, &parent->fate, &err));
    parent->refs = refs_read(parent->repository, parent->fate, &err);
    assert_non_null(parent->refs);
    parent->creators = creator_table_new(&err);
    const BackupId self = test_backup_id(77);
    assert_true(creator_table_add(parent->creators, &self, &number, &err));
}

static void
free_parent(Parent *parent)
{
    refs_free(parent->refs);
    creator_table_free(parent->creators);
    fate_free(parent->fate);
    repository_close(parent->repository);
}

static ParentTable *
open_table(const Parent *parent, uint64_t hash_mask, CairnError *err)
{
    return parent_table_new(&(ParentTableOptions){.repository = parent->repository,
                                                  .cluster = "main",
                                                  .map_root = &parent->fate->map_root,
                                                  .refs = parent->refs,
                                                  .creators = parent->creators,
                                                  .scratch_directory = scratch,
                                                  .hash_mask = hash_mask},
                            err);
}

static void
test_files_of_the_parent_are_found_in_any_order(void **state)
{
    (void)state;
    Parent parent = {0};
    CairnError err = {0};
    uint32_t number;
    make_parent(&parent);
    assert_true(creator_table_add(parent.creators, &parent.fate->bid, &number, &err));
    SCOPED(ParentTable) table = open_table(&parent, 0, &err);
    assert_non_null(table);
    static const size_t order[] = {2, 1, 3, 2};
    for (size_t i = 0; i < 4; i++) {
        const TestFile *file = &parent.files[order[i]];
        uint64_t size, units = 0;
        bool found;
        ParentRegion region;
        assert_true(parent_table_file(table, file->class, file->path, &size, &found, &err));
        assert_true(found && size == file->size_bytes);
        assert_true(parent_table_region(table, 0, &region, &err));
        assert_int_equal(region.units, units_of_size(size));
        for (size_t k = 0; k < region.count; k++) {
            units += region.runs[k].units;
            assert_true(region.runs[k].is_zero || region.runs[k].creator == number);
        }
        assert_int_equal(units, region.units);
        assert_true(parent_table_region(table, 1, &region, &err));
        assert_int_equal(region.count, 0);
    }
    uint64_t size;
    bool found;
    assert_true(parent_table_file(table, MAP_CLASS_OURS, "base/1/2", &size, &found, &err));
    assert_false(found); /* of another class */
    free_parent(&parent);
}

/* A collector keeps what summaries name, and nothing else. */
static void
test_creators_that_the_summary_does_not_name_are_unknown(void **state)
{
    (void)state;
    Parent parent = {0};
    CairnError err = {0};
    make_parent(&parent); /* whose own id is not in the table */
    SCOPED(ParentTable) table = open_table(&parent, UINT64_MAX, &err);
    assert_non_null(table);
    uint64_t size;
    bool found;
    ParentRegion region;
    assert_true(parent_table_file(table, MAP_CLASS_CLUSTER, "base/1/2", &size, &found, &err));
    assert_true(found);
    assert_true(parent_table_region(table, 0, &region, &err));
    assert_true(region.count > 0);
    for (size_t i = 0; i < region.count; i++)
        assert_true(region.runs[i].is_zero || region.runs[i].creator == PARENT_CREATOR_UNKNOWN);
    free_parent(&parent);
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
        cmocka_unit_test(test_records_are_found_by_path_whatever_their_hash),
        cmocka_unit_test(test_files_of_the_parent_are_found_in_any_order),
        cmocka_unit_test(test_creators_that_the_summary_does_not_name_are_unknown),
    };
    return cmocka_run_group_tests_name("parent_table", tests, set_up, NULL);
}
