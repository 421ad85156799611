#include "repository/collect.h"

#include "common/log.h"
#include "repository/condemned.h"
#include "repository/fate.h"
#include "repository/mark.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/fault_disk.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <time.h>

#include <stdio.h>

enum { HOUR = 3600 };

static void
test_an_expired_backup_goes_after_the_grace_and_leaves_a_grave(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    const BackupId old = lab_backup(&lab, 1, &(LabBackup){.packs = 3, .map_packs = 1});
    const BackupId new = lab_backup(&lab, 2, &(LabBackup){.packs = 2, .map_packs = 1});
    lab_expire(&lab, &old);

    CollectReport report = lab_collect(&lab, HOUR);
    assert_true(report.waiting);
    assert_int_equal(report.waiting_packs, 4);
    assert_int_equal(report.waiting_backups, 1);
    assert_int_equal(report.packs + report.map_packs + report.backups_swept, 0);
    assert_int_equal(lab_packs(&lab, &old, 3), 4);

    lab_pass(&lab, HOUR - 1);
    report = lab_collect(&lab, HOUR);
    assert_true(report.waiting);
    assert_int_equal(lab_packs(&lab, &old, 3), 4);

    lab_pass(&lab, 1);
    report = lab_collect(&lab, HOUR);
    assert_false(report.waiting);
    assert_int_equal(report.packs, 3);
    assert_int_equal(report.map_packs, 1);
    assert_int_equal(report.bytes, 3 * 4 + 3);
    assert_int_equal(report.backups_swept, 1);
    assert_int_equal(lab_packs(&lab, &old, 3), 0);
    assert_false(lab_has_object(&lab, &old, "refs"));
    assert_true(lab_has_object(&lab, &old, "fate"));
    assert_true(lab_has_object(&lab, &old, "mark.0"));
    char below[64];
    snprintf(below, sizeof below, "b/%s", old.text);
    assert_int_equal(lab_count(&lab, below), 2);
    assert_int_equal(lab_count(&lab, "gc"), 0);
    assert_true(lab_is_whole(&lab, &new));

    report = lab_collect(&lab, HOUR);
    assert_false(report.waiting);
    assert_int_equal(report.packs + report.backups_swept, 0);
}

static void
test_what_is_named_stays_and_the_rest_goes(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    const LabStage stage = lab_stage(&lab);
    CollectReport report = lab_collect(&lab, HOUR);
    assert_true(report.waiting);
    assert_int_equal(report.waiting_packs, 4 + 3 + 2);
    assert_int_equal(report.holder_count, 1);
    assert_string_equal(report.holders[0].name, stage.attempt.text);
    assert_string_equal(report.holders[0].host, "elsewhere");
    lab_pass(&lab, HOUR);
    report = lab_collect(&lab, HOUR);
    assert_int_equal(report.packs, 3 + 2 + 2);
    assert_int_equal(report.map_packs, 1 + 1);
    assert_int_equal(report.backups_swept, 3);
    lab_check_kept(&lab, &stage);
    lab_check_gone(&lab, &stage);
}

static void
test_without_a_grace_one_run_does_it_all(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    const LabStage stage = lab_stage(&lab);
    const CollectReport report = lab_collect(&lab, 0);
    assert_false(report.waiting);
    lab_check_kept(&lab, &stage);
    lab_check_gone(&lab, &stage);
}

static void
test_a_dry_run_counts_and_touches_nothing(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    CairnError err = {0};
    CollectReport dry;
    const LabStage stage = lab_stage(&lab);
    const size_t before = memory_storage_count(repository_storage(lab.repository));
    const CollectOptions options = {.cluster = "main", .grace_s = 0, .dry_run = true};
    assert_true(collect_run(lab.repository, &options, &dry, &err));
    assert_int_equal(memory_storage_count(repository_storage(lab.repository)), before);
    const CollectReport report = lab_collect(&lab, 0);
    assert_int_equal(dry.packs, report.packs);
    assert_int_equal(dry.map_packs, report.map_packs);
    assert_int_equal(dry.bytes, report.bytes);
    assert_int_equal(dry.backups_swept, report.backups_swept);
    lab_check_kept(&lab, &stage);
}

static void
test_packs_that_outlive_their_backup_go_with_the_last_that_names_them(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    const LabStage stage = lab_stage(&lab);
    lab_collect(&lab, 0);
    assert_int_equal(lab_packs(&lab, &stage.base, 3), 2);
    CairnError err = {0};
    assert_true(fate_revoke(lab.repository, "main", &stage.attempt, "0011223344556677", "", &err));
    lab_expire(&lab, &stage.child);
    lab_collect(&lab, 0);
    assert_int_equal(lab_packs(&lab, &stage.base, 3), 0);
    assert_int_equal(lab_packs(&lab, &stage.child, 1), 0);
    assert_int_equal(lab_packs(&lab, &stage.attempt, 2), 0);
    assert_true(lab_is_whole(&lab, &stage.newest));
}

static void
test_an_open_attempt_keeps_its_expired_parent_and_salvage(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    const BackupId parent = lab_backup(&lab, 1, &(LabBackup){.packs = 2, .map_packs = 1});
    const BackupId dead = lab_revoked(&lab, 2, 2);
    const BackupId attempt = lab_attempt(&lab, 3, &parent, &dead, 0);
    lab_backup(&lab, 4, &(LabBackup){.packs = 1});
    lab_expire(&lab, &parent);
    lab_collect(&lab, 0);
    assert_true(lab_is_whole(&lab, &parent));
    assert_int_equal(lab_packs(&lab, &dead, 2), 2);
    CairnError err = {0};
    assert_true(fate_revoke(lab.repository, "main", &attempt, "0011223344556677", "", &err));
    lab_collect(&lab, 0);
    assert_int_equal(lab_packs(&lab, &parent, 2), 0);
    assert_int_equal(lab_packs(&lab, &dead, 2), 0);
}

static void
test_packs_taken_over_from_a_dead_attempt_stay(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    const BackupId dead = lab_revoked(&lab, 1, 3);
    const PackRange salvaged = {.creator = dead, .first_pack = 1, .pack_count = 1};
    const BackupId backup =
        lab_backup(&lab, 2, &(LabBackup){.packs = 1, .others = &salvaged, .other_count = 1});
    lab_collect(&lab, 0);
    assert_true(lab_is_whole(&lab, &backup));
    assert_int_equal(lab_packs(&lab, &dead, 3), 1);
    /* It may be salvage again: no doomed object of ours stays. */
    bool doomed;
    CairnError err = {0};
    assert_true(doomed_any(lab.repository, "main", &dead, &doomed, &err));
    assert_false(doomed);
    lab_collect(&lab, 0);
    assert_int_equal(lab_packs(&lab, &dead, 3), 1);
}

static void
test_an_attempt_without_an_intent_is_kept_a_grace_then_revoked(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    const BackupId bare = lab_attempt(&lab, 1, NULL, NULL, 2);
    lab_backup(&lab, 2, &(LabBackup){.packs = 1});
    snprintf(name, sizeof name, "c/main/b/%s/intent", bare.text);
    assert_true(storage_remove(repository_storage(lab.repository), name, &err));
    lab_collect(&lab, HOUR);
    assert_false(lab_has_object(&lab, &bare, "fate"));
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    assert_true(lab_has_object(&lab, &bare, "fate"));
    assert_int_equal(lab_packs(&lab, &bare, 2), 2);
    lab_collect(&lab, HOUR);
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    assert_int_equal(lab_packs(&lab, &bare, 2), 0);
}

static void
test_a_clock_that_jumped_forward_and_back_only_delays(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    const LabStage stage = lab_stage(&lab);
    lab_pass(&lab, 100 * 86400);
    lab_collect(&lab, HOUR);
    lab_pass(&lab, -100 * 86400);
    /* The list is of the future: a new one is written, and counts from now. */
    CollectReport report = lab_collect(&lab, HOUR);
    assert_true(report.clock_jumped);
    assert_true(report.waiting);
    assert_int_equal(lab_packs(&lab, &stage.old, 3), 4);
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    lab_check_kept(&lab, &stage);
    lab_check_gone(&lab, &stage);
}

static void
test_a_later_expiry_has_a_grace_of_its_own(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    const LabStage stage = lab_stage(&lab);
    lab_collect(&lab, HOUR);
    lab_pass(&lab, HOUR - 10);
    lab_expire(&lab, &stage.newest);
    lab_collect(&lab, HOUR);
    lab_pass(&lab, 10);
    lab_collect(&lab, HOUR);
    assert_int_equal(lab_packs(&lab, &stage.old, 3), 0);
    assert_true(lab_is_whole(&lab, &stage.newest));
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    assert_int_equal(lab_packs(&lab, &stage.newest, 1), 0);
}

/* What was condemned together with something that only now died keeps what the latter names. */
static void
test_the_newly_dead_keep_what_they_name(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    CairnError err = {0};
    const LabStage stage = lab_stage(&lab);
    /* old was dead, is alive, is dead again: its packs stand on an old list, it does not. */
    lab_expire(&lab, &stage.newest);
    lab_collect(&lab, HOUR);
    assert_true(collect_unexpire(lab.repository, "main", &stage.newest, "", &err));
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    assert_true(lab_is_whole(&lab, &stage.newest));
    lab_expire(&lab, &stage.newest);
    lab_collect(&lab, HOUR);
    assert_true(lab_is_whole(&lab, &stage.newest));
}

/* A list that is old enough names a pack, but a backup that died later names it too: that one may
 * still come back. */
static void
test_packs_of_the_newly_dead_wait_whatever_an_old_list_says(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    CairnError err = {0};
    uint32_t number = 0;
    SCOPED_PACK_SET packs = {0};
    SCOPED_CONDEMNED lists = {0};
    const BackupId base = lab_backup(&lab, 1, &(LabBackup){.packs = 2});
    const PackRange shared = {.creator = base, .first_pack = 0, .pack_count = 1};
    const BackupId child =
        lab_backup(&lab, 2, &(LabBackup){.packs = 1, .others = &shared, .other_count = 1});
    lab_backup(&lab, 3, &(LabBackup){.packs = 1});
    lab_expire(&lab, &base);
    assert_true(pack_set_add(&packs, (PackRange){.creator = base, .pack_count = 2}, &err));
    pack_set_settle(&packs);
    assert_true(condemned_put(lab.repository, "main", "0011223344556677", &number, &packs, &base, 1,
                              &lists, &err));
    lab_pass(&lab, HOUR);
    lab_expire(&lab, &child);
    lab_collect(&lab, HOUR);
    assert_true(lab_is_whole(&lab, &child));
    assert_int_equal(lab_packs(&lab, &base, 2), 1);
    assert_true(collect_unexpire(lab.repository, "main", &child, "", &err));
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    assert_true(lab_is_whole(&lab, &child));
}

static void
test_directories_that_are_empty_go_too(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    char below[64];
    FaultDisk disk;
    fault_disk_init(&disk);
    disk.pretend_sync = true;
    lab_open_disk(&lab, &disk.disk, scratch_path(scratch_directory(), "directories"));
    const LabStage stage = lab_stage(&lab);
    lab_collect(&lab, 0);
    lab_check_gone(&lab, &stage);
    assert_int_equal(lab_count(&lab, "gc"), 0);
    snprintf(below, sizeof below, "b/%s", stage.old.text);
    assert_int_equal(lab_count(&lab, below), 2);
    snprintf(below, sizeof below, "b/%s/p", stage.base.text);
    assert_int_equal(lab_count(&lab, below), 1);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MANY = 1000, PARENTS = 30 };
#else
enum { MANY = 10000, PARENTS = 30 };
#endif

/* What others do on this machine meanwhile is not counted. */
static int64_t
cpu_ms(void)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* As a daily full with hourly incrementals leaves them: each names a few packs of each since the
 * last full. */
static void
test_many_backups_are_collected_in_seconds(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    PackRange others[2 * PARENTS];
    for (uint64_t i = 1; i <= MANY; i++) {
        const uint64_t since_full = (i - 1) % PARENTS;
        for (uint64_t k = 0; k < since_full; k++)
            others[k] = (PackRange){
                .creator = test_backup_id(i - since_full + k), .first_pack = 0, .pack_count = 1};
        lab_backup(
            &lab, i,
            &(LabBackup){
                .packs = 2, .map_packs = 1, .others = others, .other_count = (size_t)since_full});
    }
    for (uint64_t i = 1; i <= MANY - 100; i++) {
        const BackupId bid = test_backup_id(i);
        lab_expire(&lab, &bid);
    }
    const int64_t begin_ms = cpu_ms();
    lab_collect(&lab, HOUR);
    lab_pass(&lab, HOUR);
    const CollectReport report = lab_collect(&lab, HOUR);
    const int64_t took_ms = cpu_ms() - begin_ms;
    print_message("%d backups, two runs: %lld ms of CPU\n", MANY, (long long)took_ms);
    assert_int_equal(report.backups_swept, MANY - 100);
    for (uint64_t i = MANY - 99; i <= MANY; i++) {
        const BackupId bid = test_backup_id(i);
        assert_true(lab_is_whole(&lab, &bid));
    }
    assert_true(took_ms < 120000); /* seconds; sanitizers included */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_expired_backup_goes_after_the_grace_and_leaves_a_grave),
        cmocka_unit_test(test_what_is_named_stays_and_the_rest_goes),
        cmocka_unit_test(test_without_a_grace_one_run_does_it_all),
        cmocka_unit_test(test_a_dry_run_counts_and_touches_nothing),
        cmocka_unit_test(test_packs_that_outlive_their_backup_go_with_the_last_that_names_them),
        cmocka_unit_test(test_an_open_attempt_keeps_its_expired_parent_and_salvage),
        cmocka_unit_test(test_packs_taken_over_from_a_dead_attempt_stay),
        cmocka_unit_test(test_an_attempt_without_an_intent_is_kept_a_grace_then_revoked),
        cmocka_unit_test(test_a_clock_that_jumped_forward_and_back_only_delays),
        cmocka_unit_test(test_a_later_expiry_has_a_grace_of_its_own),
        cmocka_unit_test(test_the_newly_dead_keep_what_they_name),
        cmocka_unit_test(test_packs_of_the_newly_dead_wait_whatever_an_old_list_says),
        cmocka_unit_test(test_directories_that_are_empty_go_too),
        cmocka_unit_test(test_many_backups_are_collected_in_seconds),
    };
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests_name("collect", tests, NULL, NULL);
}
