/* The collector beside objects that may not be deleted (R-5 row 59): reported, skipped, tried
 * again. */
#include "repository/collect.h"

#include "repository/removals.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/memory_storage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static StorageOps ops;
static bool (*really_remove)(Storage *storage, const char *name, CairnError *err);
static const char *locked; /* names that hold this text; NULL: none */

static bool
remove_unlocked(Storage *storage, const char *name, CairnError *err)
{
    if (locked != NULL && strstr(name, locked) != NULL)
        return cairn_error(err, CAIRN_DENIED, "'%s' is locked", name);
    return really_remove(storage, name, err);
}

static void
open_lab(Lab *lab)
{
    Storage *storage = memory_storage_new();
    ops = *storage->ops;
    really_remove = ops.remove;
    ops.remove = remove_unlocked;
    storage->ops = &ops;
    locked = NULL;
    lab_open_storage(lab, storage);
}

static void
test_what_is_locked_is_told_and_the_rest_goes(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    open_lab(&lab);
    const BackupId old = lab_backup(&lab, 1, &(LabBackup){.packs = 3, .map_packs = 1});
    const BackupId new = lab_backup(&lab, 2, &(LabBackup){.packs = 2, .map_packs = 1});
    lab_expire(&lab, &old);
    locked = "/00000001"; /* one data pack */
    CollectReport report = lab_collect(&lab, 0);
    assert_int_equal(report.packs, 2);
    assert_int_equal(report.map_packs, 1);
    assert_int_equal(report.removals.denied, 1);
    assert_non_null(strstr(report.removals.name, old.text));
    assert_non_null(strstr(report.removals.why, "is locked"));
    assert_true(lab_has(&lab, &old, false, 1));
    assert_true(lab_is_whole(&lab, &new));

    /* As long as it lasts, each run says so; then it goes. */
    assert_int_equal(lab_collect(&lab, 0).removals.denied, 1);
    locked = NULL;
    report = lab_collect(&lab, 0);
    assert_int_equal(report.packs, 1);
    assert_int_equal(report.removals.denied, 0);
    assert_int_equal(lab_packs(&lab, &old, 3), 0);
    assert_true(lab_is_whole(&lab, &new));
}

static void
test_a_locked_summary_keeps_its_backup_dead_and_doomed(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    open_lab(&lab);
    const BackupId old = lab_backup(&lab, 1, &(LabBackup){.packs = 3, .map_packs = 1});
    lab_backup(&lab, 2, &(LabBackup){.packs = 2, .map_packs = 1});
    lab_expire(&lab, &old);
    locked = "/refs";
    const CollectReport report = lab_collect(&lab, 0);
    assert_int_equal(report.packs, 3);
    assert_true(report.removals.denied > 0);
    assert_true(lab_has_object(&lab, &old, "refs"));
    CairnError err = {0};
    assert_false(collect_unexpire(lab.repository, "main", &old, "too late", &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    locked = NULL;
    lab_collect(&lab, 0);
    assert_false(lab_has_object(&lab, &old, "refs"));
    assert_true(lab_has_object(&lab, &old, "fate"));
}

static void
test_who_may_delete_nothing_is_told_to_go_elsewhere(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    open_lab(&lab);
    const BackupId old = lab_backup(&lab, 1, &(LabBackup){.packs = 40, .map_packs = 1});
    lab_backup(&lab, 2, &(LabBackup){.packs = 2, .map_packs = 1});
    lab_expire(&lab, &old);
    locked = "c/main/";
    const CollectOptions options = {.cluster = "main"};
    CollectReport report;
    CairnError err = {0};
    assert_false(collect_run(lab.repository, &options, &report, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    assert_non_null(strstr(err.hint, "where the right to delete is"));
    assert_int_equal(lab_packs(&lab, &old, 40), 41);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_locked_is_told_and_the_rest_goes),
        cmocka_unit_test(test_a_locked_summary_keeps_its_backup_dead_and_doomed),
        cmocka_unit_test(test_who_may_delete_nothing_is_told_to_go_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
