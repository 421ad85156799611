#include "repository/collect.h"

#include "common/log.h"
#include "repository/fate.h"
#include "repository/incarnation.h"
#include "repository/pin.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/hooked_storage.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SEGMENT_SIZE = 16 << 20, HOUR = 3600 };

#define LAB(name)                                                                                  \
    __attribute__((cleanup(lab_close))) Lab name;                                                  \
    lab_open(&name);                                                                               \
    record(&name, 1)

static void
record(Lab *lab, uint64_t system_id)
{
    CairnError err = {0};
    const Incarnation incarnation = {
        .system_id = system_id, .major = 17, .wal_segment_size = SEGMENT_SIZE};
    assert_true(incarnation_record(lab->repository, "main", &incarnation, &err));
}

static void
object_name(char *name, uint64_t system_id, uint32_t timeline, uint64_t segment, const char *suffix)
{
    snprintf(name, STORAGE_NAME_LIMIT,
             "c/main/w/%016" PRIx64 "-17/%08" PRIX32 "/%08" PRIX32 "/%08" PRIX32 "%08" PRIX32
             "%08" PRIX32 "%s",
             system_id, timeline, (uint32_t)(segment / 256), timeline, (uint32_t)(segment / 256),
             (uint32_t)(segment % 256), suffix);
}

static void
put(Lab *lab, uint64_t system_id, uint32_t timeline, uint64_t segment, const char *suffix)
{
    char name[STORAGE_NAME_LIMIT];
    object_name(name, system_id, timeline, segment, suffix);
    memory_storage_replace(repository_storage(lab->repository), name, "wal", 3);
}

/* Segments first .. last of timeline 1 of system 1. */
static void
put_segments(Lab *lab, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++)
        put(lab, 1, 1, i, "");
}

static bool
has(Lab *lab, uint64_t system_id, uint32_t timeline, uint64_t segment, const char *suffix)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    uint64_t size;
    object_name(name, system_id, timeline, segment, suffix);
    return storage_exists(repository_storage(lab->repository), name, &size, &err);
}

/* The lowest segment of timeline 1 that is there; everything above it up to `last` must be. */
static uint64_t
lowest(Lab *lab, uint64_t last)
{
    uint64_t segment = 0;
    while (segment <= last && !has(lab, 1, 1, segment, ""))
        segment++;
    for (uint64_t i = segment; i <= last; i++)
        assert_true(has(lab, 1, 1, i, ""));
    return segment;
}

/* Starts in the middle of the segment of its sequence. */
static BackupId
put_backup(Lab *lab, uint64_t sequence)
{
    return lab_backup(lab, sequence,
                      &(LabBackup){.packs = 1, .start_lsn = sequence * SEGMENT_SIZE + 4096});
}

static void
test_wal_before_the_oldest_backup_goes(void **state)
{
    (void)state;
    LAB(lab);
    put_segments(&lab, 1, 600);
    put(&lab, 1, 1, 300, ".partial.0011aabb");
    put(&lab, 1, 1, 300, ".00000028.backup");
    put(&lab, 1, 1, 400, ".partial.0011aabb");
    put(&lab, 1, 1, 300, ".tail.0123456789abcdef.00010000");
    put(&lab, 1, 1, 400, ".tail.0123456789abcdef.00000000");
    memory_storage_replace(repository_storage(lab.repository),
                           "c/main/w/0000000000000001-17/00000001/history", "h", 1);
    put_backup(&lab, 301);
    put_backup(&lab, 500);
    const CollectReport report = lab_collect(&lab, HOUR);
    /* Its own segment is needed from its first byte on: 301 stays. */
    assert_int_equal(report.wal_files, 300 + 3);
    assert_int_equal(lowest(&lab, 600), 301);
    assert_false(has(&lab, 1, 1, 300, ".tail.0123456789abcdef.00010000"));
    assert_true(has(&lab, 1, 1, 400, ".tail.0123456789abcdef.00000000"));
    assert_false(has(&lab, 1, 1, 300, ".partial.0011aabb"));
    assert_false(has(&lab, 1, 1, 300, ".00000028.backup"));
    assert_true(has(&lab, 1, 1, 400, ".partial.0011aabb"));
    assert_int_equal(lab_count(&lab, "w/0000000000000001-17/00000001"), 1 + 2);
}

static void
test_a_start_at_a_segment_boundary_needs_only_from_there(void **state)
{
    (void)state;
    LAB(lab);
    put_segments(&lab, 1, 20);
    lab_backup(&lab, 10, &(LabBackup){.start_lsn = UINT64_C(10) * SEGMENT_SIZE});
    lab_collect(&lab, HOUR);
    assert_int_equal(lowest(&lab, 20), 10);
}

static void
test_all_timelines_keep_what_lies_above_the_floor(void **state)
{
    (void)state;
    LAB(lab);
    for (uint32_t timeline = 1; timeline <= 3; timeline++) {
        for (uint64_t i = 5; i <= 15; i++)
            put(&lab, 1, timeline, i, "");
    }
    put_backup(&lab, 10);
    lab_collect(&lab, HOUR);
    for (uint32_t timeline = 1; timeline <= 3; timeline++) {
        assert_false(has(&lab, 1, timeline, 9, ""));
        assert_true(has(&lab, 1, timeline, 10, ""));
    }
}

static void
test_without_a_backup_nothing_goes(void **state)
{
    (void)state;
    LAB(lab);
    record(&lab, 2);
    put_segments(&lab, 1, 20);
    put(&lab, 2, 1, 3, "");
    lab_collect(&lab, 0);
    assert_int_equal(lowest(&lab, 20), 1);
    /* A backup of another system says nothing about this one. */
    lab_backup(&lab, 10, &(LabBackup){.system_id = 2});
    lab_collect(&lab, 0);
    assert_int_equal(lowest(&lab, 20), 1);
    assert_false(has(&lab, 2, 1, 3, ""));
}

static void
test_the_last_backup_expired_leaves_the_wal_alone(void **state)
{
    (void)state;
    LAB(lab);
    put_segments(&lab, 1, 20);
    const BackupId only = put_backup(&lab, 10);
    lab_expire(&lab, &only);
    lab_collect(&lab, 0);
    assert_int_equal(lab_packs(&lab, &only, 1), 0);
    assert_int_equal(lowest(&lab, 20), 1);
}

static void
test_wal_of_an_expired_backup_waits_for_its_grace(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    put_segments(&lab, 1, 20);
    const BackupId old = put_backup(&lab, 5);
    put_backup(&lab, 10);
    lab_expire(&lab, &old);
    lab_collect(&lab, HOUR);
    assert_int_equal(lowest(&lab, 20), 5);
    /* Taken back, it is whole with its WAL. */
    assert_true(collect_unexpire(lab.repository, "main", &old, "", &err));
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    assert_int_equal(lowest(&lab, 20), 5);
    lab_expire(&lab, &old);
    lab_collect(&lab, HOUR);
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    assert_int_equal(lowest(&lab, 20), 10);
}

static void
test_an_open_attempt_keeps_wal_from_its_floor_on(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    put_segments(&lab, 1, 20);
    const BackupId attempt = lab_attempt(&lab, 7, NULL, NULL, 0);
    put_backup(&lab, 10);
    lab_collect(&lab, HOUR);
    assert_int_equal(lowest(&lab, 20), 7);
    assert_true(fate_revoke(lab.repository, "main", &attempt, "0011223344556677", "", &err));
    lab_collect(&lab, HOUR);
    assert_int_equal(lowest(&lab, 20), 10);
}

static void
test_an_attempt_that_says_no_floor_stops_it(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    put_segments(&lab, 1, 20);
    const BackupId attempt = lab_attempt(&lab, 7, NULL, NULL, 1);
    put_backup(&lab, 10);
    snprintf(name, sizeof name, "c/main/b/%s/intent", attempt.text);
    assert_true(storage_remove(repository_storage(lab.repository), name, &err));
    lab_collect(&lab, HOUR);
    assert_int_equal(lowest(&lab, 20), 1);
}

static void
test_a_pinned_backup_keeps_its_wal(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    put_segments(&lab, 1, 20);
    const BackupId old = put_backup(&lab, 5);
    put_backup(&lab, 10);
    SCOPED(Pin) pin = pin_take(lab.repository, "main", "restore", &old, 1, &err);
    assert_non_null(pin);
    lab_expire(&lab, &old);
    lab_collect(&lab, 0);
    assert_int_equal(lowest(&lab, 20), 5);
    pin_release(take(&pin));
    lab_collect(&lab, 0);
    assert_int_equal(lowest(&lab, 20), 10);
}

static void
test_a_backup_without_pitr_keeps_start_to_stop(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    CollectReport report;
    put_segments(&lab, 1, 20);
    const BackupId kept = lab_backup(&lab, 5,
                                     &(LabBackup){.start_lsn = UINT64_C(5) * SEGMENT_SIZE + 100,
                                                  .stop_lsn = UINT64_C(7) * SEGMENT_SIZE + 1});
    put_backup(&lab, 10);
    const CollectOptions options = {
        .cluster = "main", .grace_s = HOUR, .without_pitr = &kept, .without_pitr_count = 1};
    assert_true(collect_run(lab.repository, &options, &report, &err));
    for (uint64_t i = 1; i <= 20; i++)
        assert_int_equal(has(&lab, 1, 1, i, ""), (i >= 5 && i <= 7) || i >= 10);
}

/* Were it the newest, what comes after it is kept all the same. */
static void
test_the_newest_backup_keeps_all_later_wal_even_without_pitr(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    CollectReport report;
    put_segments(&lab, 1, 20);
    const BackupId newest = put_backup(&lab, 10);
    const CollectOptions options = {
        .cluster = "main", .grace_s = HOUR, .without_pitr = &newest, .without_pitr_count = 1};
    assert_true(collect_run(lab.repository, &options, &report, &err));
    assert_int_equal(lowest(&lab, 20), 10);
}

static void
test_a_dry_run_counts_wal(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    CollectReport report;
    put_segments(&lab, 1, 20);
    const BackupId old = put_backup(&lab, 5);
    put_backup(&lab, 10);
    lab_expire(&lab, &old);
    const CollectOptions options = {.cluster = "main", .grace_s = 0, .dry_run = true};
    assert_true(collect_run(lab.repository, &options, &report, &err));
    assert_int_equal(report.wal_files, 9);
    assert_int_equal(lowest(&lab, 20), 1);
}

/* A branch at low LSNs archives while we run: no backup needs that yet, but one may begin there
 * that we have not seen. */
typedef struct {
    Storage *storage;
    unsigned at;
} Push;

static void
push_on_a_branch(void *context, unsigned call)
{
    const Push *push = context;
    char name[STORAGE_NAME_LIMIT];
    if (call != push->at)
        return;
    for (uint32_t timeline = 1; timeline <= 2; timeline++) {
        object_name(name, 1, timeline, 8, "");
        memory_storage_replace(push->storage, name, "wal", 3);
    }
}

static void
test_segments_that_come_during_the_run_stay(void **state)
{
    (void)state;
    unsigned stayed = 0;
    for (unsigned at = 1; at <= 60; at++) {
        __attribute__((cleanup(lab_close))) Lab lab;
        char name[STORAGE_NAME_LIMIT];
        HookedStorage *hooks = hooked_storage_new(memory_storage_new());
        lab_open_storage(&lab, &hooks->base);
        record(&lab, 1);
        object_name(name, 1, 1, 3, "");
        memory_storage_replace(hooks->inner, name, "wal", 3);
        put_backup(&lab, 10);
        hooked_storage_reset(hooks);
        Push push = {.storage = hooks->inner, .at = at};
        hooks->hook = push_on_a_branch;
        hooks->context = &push;
        lab_collect(&lab, HOUR);
        hooked_storage_reset(hooks);
        assert_false(has(&lab, 1, 1, 3, ""));
        /* Before the run looked how far WAL had got, both may go; after that, neither. */
        assert_true(has(&lab, 1, 2, 8, "") >= has(&lab, 1, 1, 8, ""));
        stayed += has(&lab, 1, 1, 8, "");
    }
    assert_true(stayed > 10);
}

/* Nobody can tell what is needed of a system whose record is rubbish; of the others it is known. */
static void
test_a_record_that_cannot_be_read_keeps_the_wal_of_its_system_only(void **state)
{
    (void)state;
    LAB(lab);
    record(&lab, 2);
    lab_damage(&lab, "c/main/i/0000000000000002-17");
    put_segments(&lab, 1, 4);
    put(&lab, 2, 1, 1, "");
    lab_backup(&lab, 3, &(LabBackup){.packs = 1});
    const CollectReport report = lab_collect(&lab, 0);
    assert_int_equal(report.unread_incarnations.count, 1);
    assert_string_equal(report.unread_incarnations.object, "c/main/i/0000000000000002-17");
    assert_int_equal(report.wal_files, 2);
    assert_true(has(&lab, 2, 1, 1, ""));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_before_the_oldest_backup_goes),
        cmocka_unit_test(test_a_start_at_a_segment_boundary_needs_only_from_there),
        cmocka_unit_test(test_all_timelines_keep_what_lies_above_the_floor),
        cmocka_unit_test(test_without_a_backup_nothing_goes),
        cmocka_unit_test(test_the_last_backup_expired_leaves_the_wal_alone),
        cmocka_unit_test(test_wal_of_an_expired_backup_waits_for_its_grace),
        cmocka_unit_test(test_an_open_attempt_keeps_wal_from_its_floor_on),
        cmocka_unit_test(test_an_attempt_that_says_no_floor_stops_it),
        cmocka_unit_test(test_a_pinned_backup_keeps_its_wal),
        cmocka_unit_test(test_a_backup_without_pitr_keeps_start_to_stop),
        cmocka_unit_test(test_the_newest_backup_keeps_all_later_wal_even_without_pitr),
        cmocka_unit_test(test_a_dry_run_counts_wal),
        cmocka_unit_test(test_segments_that_come_during_the_run_stay),
        cmocka_unit_test(test_a_record_that_cannot_be_read_keeps_the_wal_of_its_system_only),
    };
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests_name("collect_wal", tests, NULL, NULL);
}
