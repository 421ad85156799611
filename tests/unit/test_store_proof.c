/* Records of probes, over storage in memory whose probe says what a test wants. */
#include "repository/store_proof.h"

#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/memory_storage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { DAY_S = 24 * 3600 };

static StorageOps ops;
static StorageProbe answer;
static unsigned probes;

static bool
probe(Storage *storage, StorageProbe *probe_out, CairnError *err)
{
    (void)storage;
    (void)err;
    probes++;
    *probe_out = answer;
    return true;
}

/* A store that does all that is asked for. */
static void
open_lab(Lab *lab)
{
    Storage *storage = memory_storage_new();
    ops = *storage->ops;
    ops.probe = probe;
    storage->ops = &ops;
    lab_open_storage(lab, storage);
    probes = 0;
    answer = (StorageProbe){.exclusive_create = STORAGE_FEATURE_HOLDS,
                            .list_after_write = STORAGE_FEATURE_HOLDS,
                            .ranged_read = STORAGE_FEATURE_HOLDS,
                            .digest_check = STORAGE_FEATURE_HOLDS};
}

static StoreProof
renew(Lab *lab)
{
    StoreProof proof;
    CairnError err = {0};
    if (!store_proof_renew(lab->repository, &proof, &err))
        fail_msg("%s", err.message);
    return proof;
}

static StorageListNext
count_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)entry;
    (void)err;
    ++*(unsigned *)context;
    return STORAGE_LIST_GO_ON;
}

static unsigned
records(Lab *lab)
{
    unsigned count = 0;
    CairnError err = {0};
    assert_true(
        storage_list(repository_storage(lab->repository), "probe", count_entry, &count, &err));
    return count;
}

static void
test_a_record_spares_the_probe_for_a_day(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    open_lab(&lab);
    const StoreProof first = renew(&lab);
    assert_int_equal(first.at_us, lab.wall_us);
    assert_int_equal(first.probe.digest_check, STORAGE_FEATURE_HOLDS);
    lab_pass(&lab, DAY_S - 1);
    assert_int_equal(renew(&lab).at_us, first.at_us);
    assert_int_equal(probes, 1);
    lab_pass(&lab, 1);
    assert_int_equal(renew(&lab).at_us, lab.wall_us);
    assert_int_equal(probes, 2);
    assert_int_equal(records(&lab), 2);
}

static void
test_a_clock_that_went_back_does_not_trust_a_record_of_tomorrow(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    open_lab(&lab);
    renew(&lab);
    lab_pass(&lab, -DAY_S);
    assert_int_equal(renew(&lab).at_us, lab.wall_us);
    assert_int_equal(probes, 2);
}

static void
test_a_store_that_fails_is_refused_and_not_recorded(void **state)
{
    (void)state;
    static const struct {
        StorageProbe probe;
        const char *message;
    } CASES[] = {
        {{.exclusive_create = STORAGE_FEATURE_FAILS, .detail = "3 of 8"}, "once only: 3 of 8"},
        {{.exclusive_create = STORAGE_FEATURE_HOLDS,
          .list_after_write = STORAGE_FEATURE_FAILS,
          .detail = "missing"},
         "relied on: missing"},
        {{.exclusive_create = STORAGE_FEATURE_HOLDS,
          .ranged_read = STORAGE_FEATURE_FAILS,
          .detail = "range"},
         "relied on: range"},
        {{.exclusive_create = STORAGE_FEATURE_HOLDS,
          .object_lock = STORAGE_FEATURE_FAILS,
          .detail = "no lock"},
         "does not lock: no lock"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        __attribute__((cleanup(lab_close))) Lab lab;
        open_lab(&lab);
        answer = CASES[i].probe;
        StoreProof proof;
        CairnError err = {0};
        assert_false(store_proof_renew(lab.repository, &proof, &err));
        assert_int_equal(err.kind, CAIRN_REFUSED);
        if (strstr(err.message, CASES[i].message) == NULL)
            fail_msg("%s", err.message);
        assert_true(err.hint[0] != '\0');
        assert_int_equal(records(&lab), 0);
    }
}

static void
test_damage_that_only_reading_finds_is_no_refusal(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    open_lab(&lab);
    answer.digest_check = STORAGE_FEATURE_FAILS;
    renew(&lab);
    assert_int_equal(renew(&lab).probe.digest_check, STORAGE_FEATURE_FAILS);
    assert_int_equal(probes, 1);
}

static void
test_a_record_of_one_writer_is_no_proof_for_many(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    open_lab(&lab);
    answer.exclusive_create = STORAGE_FEATURE_NOT_ASKED;
    renew(&lab);
    answer.exclusive_create = STORAGE_FEATURE_HOLDS;
    assert_int_equal(renew(&lab).probe.exclusive_create, STORAGE_FEATURE_HOLDS);
    assert_int_equal(probes, 2);
}

static void
test_a_damaged_record_is_none(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    open_lab(&lab);
    renew(&lab);
    Storage *storage = repository_storage(lab.repository);
    memory_storage_replace(storage, "probe/proof.99991231T235959Z.0123456789abcdef", "rubbish", 7);
    renew(&lab);
    assert_int_equal(probes, 2);
}

static void
test_a_sweep_keeps_the_newest_and_what_is_young(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    open_lab(&lab);
    CairnError err = {0};
    Storage *storage = repository_storage(lab.repository);
    renew(&lab);
    assert_true(storage_put(storage, "probe/0123456789abcdef.race1", "x", 1, &err));
    lab_pass(&lab, DAY_S);
    renew(&lab);
    assert_int_equal(records(&lab), 3);
    assert_true(store_proof_sweep(lab.repository, &err));
    const unsigned young = records(&lab);
    lab_pass(&lab, 400 * DAY_S);
    assert_true(store_proof_sweep(lab.repository, &err));
    assert_int_equal(records(&lab), 1);
    assert_true(young >= 1);
    renew(&lab);
    assert_int_equal(probes, 3);
}

static void
test_a_directory_needs_no_proof(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    lab_open(&lab);
    assert_int_equal(renew(&lab).at_us, 0);
    assert_int_equal(records(&lab), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_record_spares_the_probe_for_a_day),
        cmocka_unit_test(test_a_clock_that_went_back_does_not_trust_a_record_of_tomorrow),
        cmocka_unit_test(test_a_store_that_fails_is_refused_and_not_recorded),
        cmocka_unit_test(test_damage_that_only_reading_finds_is_no_refusal),
        cmocka_unit_test(test_a_record_of_one_writer_is_no_proof_for_many),
        cmocka_unit_test(test_a_damaged_record_is_none),
        cmocka_unit_test(test_a_sweep_keeps_the_newest_and_what_is_young),
        cmocka_unit_test(test_a_directory_needs_no_proof),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
