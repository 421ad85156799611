#include "restore/sources.h"

#include "common/bytes.h"
#include "repository/object.h"
#include "repository/pack.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

/* Of the second backup: packs 1020..1029 of the first one (two folders), 0..1 of its own, and a map
 * pack of each. */
typedef struct {
    Repository *repository;
    Fate *backup;
} Fixture;

static void
add_ranges(ByteWriter *refs, uint64_t creator, uint64_t first, uint64_t count)
{
    const BackupId bid = test_backup_id(creator);
    byte_writer_bytes(refs, bid.text, BACKUP_ID_LENGTH);
    byte_writer_varint(refs, 1);
    byte_writer_varint(refs, first);
    byte_writer_varint(refs, count);
    byte_writer_varint(refs, 100);
    byte_writer_varint(refs, 1);
    byte_writer_varint(refs, 0);
    byte_writer_varint(refs, 1);
    byte_writer_varint(refs, 0);
}

static void
put_pack(const Fixture *fixture, uint64_t creator, uint32_t pack, bool is_map)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(creator);
    if (is_map)
        map_pack_name(name, "main", &bid, pack);
    else
        pack_name(name, "main", &bid, pack);
    assert_true(storage_put(repository_storage(fixture->repository), name, "x", 1, &err));
}

static int
setup(void **state)
{
    static Fixture fixture;
    CairnError err = {0};
    const BackupId bid = test_backup_id(2);
    char name[STORAGE_NAME_LIMIT];
    SCOPED_BYTES ByteWriter refs = {0};

    fixture.repository = memory_repository("none");
    fixture.backup = test_fate(&bid, "20261122-233140F_20261123-233140I");
    byte_writer_u16(&refs, 1);
    byte_writer_u16(&refs, 0);
    byte_writer_varint(&refs, 2);
    add_ranges(&refs, 1, 1020, 10);
    add_ranges(&refs, 2, 0, 2);
    snprintf(name, sizeof name, "c/main/b/%s/refs", bid.text);
    assert_true(object_put_small(fixture.repository, name, OBJECT_REFS, 2, refs.data, refs.size,
                                 fixture.backup->refs_sha256, &err));
    for (uint32_t pack = 1020; pack < 1030; pack++)
        put_pack(&fixture, 1, pack, false);
    for (uint32_t pack = 0; pack < 2; pack++)
        put_pack(&fixture, 2, pack, false);
    put_pack(&fixture, 1, 0, true);
    put_pack(&fixture, 2, 0, true);
    *state = &fixture;
    return 0;
}

static int
teardown(void **state)
{
    Fixture *fixture = *state;
    fate_free(fixture->backup);
    repository_close(fixture->repository);
    return 0;
}

static void
test_a_backup_whose_packs_are_all_there_may_be_restored(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    put_pack(fixture, 1, 1030, false); /* of no concern */
    assert_true(sources_check(fixture->repository, fixture->backup, &err));
}

static void
test_any_missing_pack_of_any_backup_is_named(void **state)
{
    static const struct {
        uint64_t creator;
        uint32_t pack;
        bool is_map;
    } MISSING[] = {{1, 1020, false}, {1, 1023, false}, {1, 1024, false}, {1, 1029, false},
                   {2, 1, false},    {1, 0, true},     {2, 0, true}};
    Fixture *fixture = *state;
    for (size_t i = 0; i < sizeof MISSING / sizeof MISSING[0]; i++) {
        CairnError err = {0};
        char name[STORAGE_NAME_LIMIT];
        const BackupId bid = test_backup_id(MISSING[i].creator);
        if (MISSING[i].is_map)
            map_pack_name(name, "main", &bid, MISSING[i].pack);
        else
            pack_name(name, "main", &bid, MISSING[i].pack);
        assert_true(storage_remove(repository_storage(fixture->repository), name, &err));
        assert_false(sources_check(fixture->repository, fixture->backup, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        assert_non_null(strstr(err.message, name));
        cairn_error_clear(&err);
        put_pack(fixture, MISSING[i].creator, MISSING[i].pack, MISSING[i].is_map);
    }
}

static void
test_without_refs_a_restore_goes_on(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    fixture->backup->refs_sha256[0] ^= 1;
    assert_true(sources_check(fixture->repository, fixture->backup, &err));
    assert_int_equal(err.kind, CAIRN_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_backup_whose_packs_are_all_there_may_be_restored,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_missing_pack_of_any_backup_is_named, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_without_refs_a_restore_goes_on, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
