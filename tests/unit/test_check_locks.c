/* check's line about object locks, over a storage in memory that locks from when it is asked. */
#include "agent/check_steps.h"
#include "repository/object_locks.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/memory_storage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

enum { LOCK_DAYS = 10, REFRESH_DAYS = 2 };

static StorageOps ops;
static int64_t until_us; /* of all locks; 0: none */

static StorageLockTerms
lock_terms(Storage *storage)
{
    (void)storage;
    return (StorageLockTerms){
        .mode = "governance", .days = LOCK_DAYS, .refresh_days = REFRESH_DAYS};
}

static bool
ensure_lock(Storage *storage, const char *name, int64_t left_us, StorageLock *lock_out,
            CairnError *err)
{
    uint64_t size;
    assert_int_equal(left_us, 0); /* a check changes nothing */
    *lock_out = (StorageLock){.until_us = until_us};
    return storage->ops->exists(storage, name, &size, err);
}

static void
open_lab(Lab *lab)
{
    Storage *storage = memory_storage_new();
    ops = *storage->ops;
    ops.lock_terms = lock_terms;
    ops.ensure_lock = ensure_lock;
    storage->ops = &ops;
    lab_open_storage(lab, storage);
}

/* The line for what the repository has; the last backup is the newest. */
static CheckResult
check(Lab *lab, CheckReport *report)
{
    const RepositoryConfig repository = {.name = "main", .retention = "full 2"};
    const ClusterConfig cluster = {.name = "main"};
    const CheckOptions options = {
        .world = &lab->world, .repository = &repository, .cluster = &cluster};
    CairnError err = {0};
    CheckRun run = {.options = &options, .report = report, .repository = lab->repository};
    SCOPED(Catalog) catalog = catalog_read(lab->repository, "main", &err);
    assert_non_null(catalog);
    report->count = 0;
    check_locks(&run, catalog, &catalog->backups[catalog->count - 1]);
    assert_int_equal(report->count, 1);
    return report->results[0];
}

static void
test_a_newest_backup_whose_lock_is_over_is_no_ok(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    SCOPED(Arena) arena = arena_new();
    CheckReport report = {.arena = arena};
    CairnError err = {0};
    open_lab(&lab);
    const BackupId bid = lab_backup(&lab, 1, &(LabBackup){.packs = 2, .map_packs = 1});
    SCOPED(Catalog) catalog = catalog_read(lab.repository, "main", &err);
    assert_non_null(catalog);
    const CatalogBackup *backup = &catalog->backups[0];
    assert_string_equal(backup->bid.text, bid.text);
    const int64_t made_us = backup->stored_us != 0 ? backup->stored_us : backup->fate->stopped_us;

    lab.wall_us = made_us + LOCK_DAY_US;
    until_us = made_us + (LOCK_DAYS + REFRESH_DAYS) * LOCK_DAY_US;
    assert_int_equal(check(&lab, &report).status, CHECK_OK);
    lab.wall_us = until_us - 1;
    assert_int_equal(check(&lab, &report).status, CHECK_OK);

    /* As long as promised, and over. */
    lab.wall_us = until_us + 1;
    const CheckResult over = check(&lab, &report);
    assert_int_equal(over.status, CHECK_WARNING);
    assert_non_null(
        strstr(over.text, "is kept and its lock has run out: run `pgcairn repo renew`"));

    lab.wall_us = made_us + LOCK_DAY_US;
    until_us = made_us + (LOCK_DAYS - 1) * LOCK_DAY_US;
    assert_int_equal(check(&lab, &report).status, CHECK_FAILED);
    until_us = 0;
    const CheckResult none = check(&lab, &report);
    assert_int_equal(none.status, CHECK_FAILED);
    assert_non_null(strstr(none.text, "never (there is no lock)"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_newest_backup_whose_lock_is_over_is_no_ok),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
