/* Copied objects, and what a replica allows. */
#include "repository/replica.h"

#include "common/world.h"
#include "repository/copy_object.h"
#include "repository/object.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define NAME "c/main/i/0000000000000001-15"

typedef struct {
    Repository *repository;
    Storage *from, *to;
    CopyObject copy;
} Lab;

static int
setup(void **state)
{
    static Lab lab;
    CairnError err = {0};
    uint8_t content[5000];
    uint64_t random = 7;

    lab.repository = memory_repository("lz4");
    lab.from = repository_storage(lab.repository);
    lab.to = memory_storage_new();
    test_fill(&random, content, sizeof content);
    assert_true(object_put_small(lab.repository, NAME, OBJECT_INCARNATION, 0, content,
                                 sizeof content, NULL, &err));
    lab.copy = (CopyObject){.from = lab.from,
                            .to = lab.to,
                            .from_name = NAME,
                            .to_name = NAME,
                            .name = NAME,
                            .repository_id = repository_id(lab.repository)};
    *state = &lab;
    return 0;
}

static int
teardown(void **state)
{
    Lab *lab = *state;

    storage_close(lab->to);
    repository_close(lab->repository);
    return 0;
}

static void
assert_equal(Lab *lab)
{
    size_t size = 0, copied = 0;
    const uint8_t *original = memory_storage_bytes(lab->from, NAME, &size);
    const uint8_t *copy = memory_storage_bytes(lab->to, NAME, &copied);

    assert_non_null(copy);
    assert_int_equal(size, copied);
    assert_memory_equal(original, copy, size);
}

static void
test_a_copy_has_the_same_bytes_and_is_found_again(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};

    assert_true(copy_object(&lab->copy, &err));
    assert_false(lab->copy.existed);
    assert_equal(lab);
    assert_true(copy_object(&lab->copy, &err));
    assert_true(lab->copy.existed);
    assert_equal(lab);
}

static void
test_each_changed_byte_of_the_original_is_noticed_and_nothing_is_stored(void **state)
{
    Lab *lab = *state;
    size_t size = 0;
    uint8_t *bytes = memory_storage_bytes(lab->from, NAME, &size);

    for (size_t i = 0; i < size; i++) {
        CairnError err = {0};
        bytes[i] ^= 1;
        assert_false(copy_object(&lab->copy, &err));
        assert_true(lab->copy.at_source);
        assert_true(err.kind == CAIRN_CORRUPT || err.kind == CAIRN_MISMATCH);
        bytes[i] ^= 1;
    }
    assert_int_equal(memory_storage_count(lab->to), 0);
}

static void
test_an_original_that_is_cut_is_noticed(void **state)
{
    Lab *lab = *state;
    size_t size = 0;
    uint8_t whole[8192];
    const uint8_t *bytes = memory_storage_bytes(lab->from, NAME, &size);

    assert_true(size < sizeof whole);
    memcpy(whole, bytes, size);
    for (size_t cut = 0; cut < size; cut += 97) {
        CairnError err = {0};
        memory_storage_replace(lab->from, NAME, whole, cut);
        assert_false(copy_object(&lab->copy, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
    assert_int_equal(memory_storage_count(lab->to), 0);
}

static void
test_other_content_in_the_copy_is_a_conflict_and_stays(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    size_t size = 0;

    assert_true(copy_object(&lab->copy, &err));
    uint8_t *bytes = memory_storage_bytes(lab->to, NAME, &size);
    bytes[size - 1] ^= 1; /* of its digest */
    const uint8_t last = bytes[size - 1];
    assert_false(copy_object(&lab->copy, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    assert_int_equal(memory_storage_bytes(lab->to, NAME, &size)[size - 1], last);
}

/* A body that rotted behind ends that agree. */
static void
test_what_is_there_is_read_where_that_is_asked_for(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    size_t size = 0;

    assert_true(copy_object(&lab->copy, &err));
    uint8_t *bytes = memory_storage_bytes(lab->to, NAME, &size);
    lab->copy.reads_present = true;
    assert_true(copy_object(&lab->copy, &err));
    assert_true(lab->copy.existed && !lab->copy.at_target);
    bytes[OBJECT_HEADER_SIZE + 1] ^= 1;
    assert_false(copy_object(&lab->copy, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_true(lab->copy.at_target && !lab->copy.at_source);
    cairn_error_clear(&err);
    lab->copy.reads_present = false;
    assert_true(copy_object(&lab->copy, &err));
    assert_true(lab->copy.existed);
}

static void
test_an_object_under_another_name_or_of_another_repository_is_refused(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    const uint8_t other[REPOSITORY_ID_SIZE] = {1};

    lab->copy.name = "c/main/i/0000000000000002-15";
    assert_false(copy_object(&lab->copy, &err));
    assert_int_equal(err.kind, CAIRN_MISMATCH);
    cairn_error_clear(&err);
    lab->copy.name = NAME;
    lab->copy.repository_id = other;
    assert_false(copy_object(&lab->copy, &err));
    assert_int_equal(err.kind, CAIRN_MISMATCH);
}

/* The repository's descriptor under the replica's name, in lab->to. */
static void
make_replica(Lab *lab)
{
    CairnError err = {0};
    CopyObject descriptor = {.from = lab->from,
                             .to = lab->to,
                             .from_name = DESCRIPTOR_NAME,
                             .to_name = REPLICA_DESCRIPTOR,
                             .name = DESCRIPTOR_NAME};

    assert_true(copy_object(&descriptor, &err));
}

static void
test_a_replica_is_read_and_never_written(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    RepositoryConfig config = *repository_config(lab->repository);
    size_t size = 0;

    assert_true(copy_object(&lab->copy, &err));
    make_replica(lab);
    /* The repository takes the storage; the test gives it another one to close. */
    Storage *storage = lab->to;
    lab->to = memory_storage_new();
    SCOPED(Repository)
    replica = repository_open_storage(world_real(), &config, storage, false, &err);
    assert_non_null(replica);
    assert_true(repository_is_replica(replica));
    assert_false(repository_is_replica(lab->repository));
    assert_memory_equal(repository_id(replica), repository_id(lab->repository), REPOSITORY_ID_SIZE);
    SCOPED_MEMORY char *content =
        object_get_small(replica, NAME, OBJECT_INCARNATION, &size, NULL, &err);
    assert_non_null(content);
    assert_false(object_put_small(replica, "c/main/i/0000000000000002-15", OBJECT_INCARNATION, 0,
                                  "x", 1, NULL, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    cairn_error_clear(&err);
    assert_false(storage_remove(repository_storage(replica), NAME, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    cairn_error_clear(&err);
    assert_false(repository_check_writable(replica, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
}

static char locked[STORAGE_NAME_LIMIT]; /* whose lock was asked for last */

static StorageLockTerms
lock_terms(Storage *storage)
{
    (void)storage;
    return (StorageLockTerms){.mode = "governance", .days = 3, .refresh_days = 1};
}

static bool
ensure_lock(Storage *storage, const char *name, int64_t left_us, StorageLock *lock_out,
            CairnError *err)
{
    (void)storage;
    (void)err;
    snprintf(locked, sizeof locked, "%s", name);
    *lock_out = (StorageLock){.until_us = left_us, .renewed = true};
    return true;
}

/* Locks of a replica are extended like any other's: nothing is written. */
static void
test_what_a_replica_holds_is_locked_under_its_own_names(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    StorageLock lock = {0};
    StorageOps ops = *lab->to->ops;
    const StorageOps *before = lab->to->ops;
    ops.lock_terms = lock_terms;
    ops.ensure_lock = ensure_lock;
    lab->to->ops = &ops;
    Storage *replica = replica_storage(lab->to, &err);
    assert_non_null(replica);
    assert_int_equal(storage_lock_terms(replica).days, 3);
    assert_true(storage_ensure_lock(replica, DESCRIPTOR_NAME, 5, &lock, &err));
    assert_string_equal(locked, REPLICA_DESCRIPTOR);
    assert_true(lock.renewed && lock.until_us == 5);
    assert_true(storage_ensure_lock(replica, NAME, 5, &lock, &err));
    assert_string_equal(locked, NAME);
    lab->to->ops = before;
    storage_close(replica);
    lab->to = memory_storage_new();
}

static void
test_promoting_adds_the_descriptor_once(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    PlaceKind kind;
    bool existed = true;

    assert_true(replica_look(lab->to, &kind, &err));
    assert_int_equal(kind, PLACE_EMPTY);
    assert_false(replica_promote(lab->to, &existed, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    cairn_error_clear(&err);
    make_replica(lab);
    assert_true(replica_look(lab->to, &kind, &err));
    assert_int_equal(kind, PLACE_REPLICA);
    assert_true(replica_promote(lab->to, &existed, &err));
    assert_false(existed);
    assert_true(replica_look(lab->to, &kind, &err));
    assert_int_equal(kind, PLACE_REPOSITORY);
    assert_true(replica_promote(lab->to, &existed, &err));
    assert_true(existed);
    assert_true(replica_look(lab->from, &kind, &err));
    assert_int_equal(kind, PLACE_REPOSITORY);
    assert_false(replica_promote(lab->from, &existed, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_copy_has_the_same_bytes_and_is_found_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_each_changed_byte_of_the_original_is_noticed_and_nothing_is_stored, setup,
            teardown),
        cmocka_unit_test_setup_teardown(test_an_original_that_is_cut_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_there_is_read_where_that_is_asked_for, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_other_content_in_the_copy_is_a_conflict_and_stays,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_an_object_under_another_name_or_of_another_repository_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_replica_is_read_and_never_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_a_replica_holds_is_locked_under_its_own_names,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_promoting_adds_the_descriptor_once, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
