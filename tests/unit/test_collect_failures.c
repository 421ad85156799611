/* What the collector cannot read, and calls that fail or never return. */
#include "common/log.h"
#include "repository/collect.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/fault_disk.h"
#include "tests/unit/support/hooked_storage.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { HOUR = 3600 };

static void
name_intent(Lab *lab, const LabStage *stage, char *name)
{
    (void)lab;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/intent", stage->attempt.text);
}

static void
name_fate(Lab *lab, const LabStage *stage, char *name)
{
    (void)lab;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/fate", stage->newest.text);
}

static void
name_dead_fate(Lab *lab, const LabStage *stage, char *name)
{
    (void)lab;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/fate", stage->dead.text);
}

static void
name_mark(Lab *lab, const LabStage *stage, char *name)
{
    (void)lab;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/mark.0", stage->old.text);
}

static void
name_refs(Lab *lab, const LabStage *stage, char *name)
{
    (void)lab;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/refs", stage->child.text);
}

static void
name_pin(Lab *lab, const LabStage *stage, char *name)
{
    (void)lab;
    (void)stage;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/pin/0123456789abcdef");
}

static StorageListNext
first_run(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)err;
    if (strcmp(entry->name, "reserve") == 0)
        return STORAGE_LIST_GO_ON;
    snprintf(context, 64, "%s", entry->name);
    return STORAGE_LIST_STOP;
}

static void
name_list(Lab *lab, const LabStage *stage, char *name)
{
    char run[64] = "";
    CairnError err = {0};
    (void)stage;
    assert_true(
        storage_list(repository_storage(lab->repository), "c/main/gc", first_run, run, &err));
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/gc/%s/condemned.0", run);
}

static const struct {
    const char *title;
    void (*name)(Lab *, const LabStage *, char *);
} unreadables[] = {
    {"intent of an open attempt", name_intent},
    {"fate of a backup", name_fate},
    {"fate of a dead attempt", name_dead_fate},
    {"mark", name_mark},
    {"summary of a backup", name_refs},
    {"pin", name_pin},
    {"condemn list", name_list},
};

static void
test_what_cannot_be_read_stops_the_collector(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof unreadables / sizeof unreadables[0]; i++) {
        OPEN_LAB(lab);
        CairnError err = {0};
        CollectReport report;
        char name[STORAGE_NAME_LIMIT];
        const LabStage stage = lab_stage(&lab);
        lab_collect(&lab, HOUR);
        lab_pass(&lab, HOUR);
        unreadables[i].name(&lab, &stage, name);
        lab_damage(&lab, name);
        const size_t before = memory_storage_count(repository_storage(lab.repository));
        const CollectOptions options = {.cluster = "main", .grace_s = HOUR};
        if (collect_run(lab.repository, &options, &report, &err))
            fail_msg("%s: it went on", unreadables[i].title);
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        if (strstr(err.message, name) == NULL || err.hint[0] == '\0')
            fail_msg("%s: the message does not help: %s", unreadables[i].title, err.message);
        assert_int_equal(memory_storage_count(repository_storage(lab.repository)), before);
    }
}

static void
test_a_backup_without_its_summary_stops_the_collector(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    CairnError err = {0};
    CollectReport report;
    char name[STORAGE_NAME_LIMIT];
    const LabStage stage = lab_stage(&lab);
    name_refs(&lab, &stage, name);
    assert_true(storage_remove(repository_storage(lab.repository), name, &err));
    const CollectOptions options = {.cluster = "main", .grace_s = 0};
    assert_false(collect_run(lab.repository, &options, &report, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_int_equal(lab_packs(&lab, &stage.old, 3), 4);
}

static void
test_a_damaged_summary_of_the_dead_stops_nobody(void **state)
{
    (void)state;
    OPEN_LAB(lab);
    char name[STORAGE_NAME_LIMIT];
    const LabStage stage = lab_stage(&lab);
    snprintf(name, sizeof name, "c/main/b/%s/refs", stage.old.text);
    lab_damage(&lab, name);
    lab_collect(&lab, HOUR);
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    lab_check_kept(&lab, &stage);
    lab_check_gone(&lab, &stage);
}

static const struct {
    const char *title;
    CairnErrorKind kind;
    bool after, on;
} failures[] = {
    {"a call fails", CAIRN_UNAVAILABLE, false, false},
    {"its reply is lost", CAIRN_UNAVAILABLE, true, false},
    {"the disk is full", CAIRN_NO_SPACE, false, false},
    {"the process dies", CAIRN_UNAVAILABLE, false, true},
    {"the process dies, the call was done", CAIRN_UNAVAILABLE, true, true},
};

static void
test_any_failure_leaves_the_living_whole_and_the_next_run_finishes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        unsigned calls = 1000;
        for (unsigned at = 0; at <= calls; at++) {
            __attribute__((cleanup(lab_close))) Lab lab;
            CairnError err = {0};
            CollectReport report;
            HookedStorage *hooks = hooked_storage_new(memory_storage_new());
            lab_open_storage(&lab, &hooks->base);
            const LabStage stage = lab_stage(&lab);
            lab_collect(&lab, HOUR);
            lab_pass(&lab, HOUR);
            hooked_storage_reset(hooks);
            hooks->fail_at = at;
            hooks->fail_kind = failures[i].kind;
            hooks->fail_after = failures[i].after;
            hooks->fail_on = failures[i].on;
            const CollectOptions options = {.cluster = "main", .grace_s = HOUR};
            const bool done = collect_run(lab.repository, &options, &report, &err);
            if (at == 0) {
                assert_true(done);
                calls = hooks->calls;
                assert_true(calls >= 50 && calls <= 400);
            }
            hooked_storage_reset(hooks);
            lab_check_kept(&lab, &stage);
            lab_collect(&lab, HOUR);
            lab_check_kept(&lab, &stage);
            lab_pass(&lab, HOUR);
            lab_collect(&lab, HOUR);
            lab_check_kept(&lab, &stage);
            lab_check_gone(&lab, &stage);
        }
    }
}

static void
test_a_full_disk_is_emptied_with_what_the_reserve_frees(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    HookedStorage *hooks = hooked_storage_new(memory_storage_new());
    lab_open_storage(&lab, &hooks->base);
    const LabStage stage = lab_stage(&lab);
    lab_collect(&lab, HOUR);
    hooked_storage_limit(hooks, 0);
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    lab_check_kept(&lab, &stage);
    lab_check_gone(&lab, &stage);
}

static void
test_a_full_disk_without_a_reserve_is_said_with_a_remedy(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    CairnError err = {0};
    CollectReport report;
    HookedStorage *hooks = hooked_storage_new(memory_storage_new());
    lab_open_storage(&lab, &hooks->base);
    const LabStage stage = lab_stage(&lab);
    hooked_storage_limit(hooks, 0);
    const CollectOptions options = {.cluster = "main", .grace_s = 0};
    assert_false(collect_run(lab.repository, &options, &report, &err));
    assert_int_equal(err.kind, CAIRN_NO_SPACE);
    assert_true(err.hint[0] != '\0');
    lab_check_kept(&lab, &stage);
}

/* Every system call of a kind fails in turn. */
static void
test_any_failing_system_call_leaves_the_living_whole(void **state)
{
    (void)state;
    static const FaultKind kinds[] = {FAULT_OPEN,    FAULT_READ,           FAULT_WRITE,
                                      FAULT_FSYNC,   FAULT_LINK,           FAULT_UNLINK,
                                      FAULT_READDIR, FAULT_FSYNC_DIRECTORY};
    const char *scratch = scratch_directory();
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        /* A few hundred calls of each: steps that meet every phase of a run. */
        for (unsigned at = 1; at < 400; at = at * 5 / 4 + 1) {
            __attribute__((cleanup(lab_close))) Lab lab;
            CairnError err = {0};
            CollectReport report;
            FaultDisk disk;
            char name[32];
            fault_disk_init(&disk);
            disk.pretend_sync = true;
            snprintf(name, sizeof name, "repository-%zu-%u", i, at);
            lab_open_disk(&lab, &disk.disk, scratch_path(scratch, name));
            const LabStage stage = lab_stage(&lab);
            lab_collect(&lab, HOUR);
            lab_pass(&lab, HOUR);
            fault_disk_reset(&disk);
            disk.fail[kinds[i]] = (Fault){.at_call = at, .error = EIO};
            const CollectOptions options = {.cluster = "main", .grace_s = HOUR};
            const bool done = collect_run(lab.repository, &options, &report, &err);
            const bool struck = disk.calls[kinds[i]] >= at;
            fault_disk_reset(&disk);
            lab_check_kept(&lab, &stage);
            lab_collect(&lab, HOUR);
            lab_pass(&lab, HOUR);
            lab_collect(&lab, HOUR);
            lab_check_kept(&lab, &stage);
            lab_check_gone(&lab, &stage);
            if (!struck) {
                assert_true(done);
                break;
            }
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_cannot_be_read_stops_the_collector),
        cmocka_unit_test(test_a_backup_without_its_summary_stops_the_collector),
        cmocka_unit_test(test_a_damaged_summary_of_the_dead_stops_nobody),
        cmocka_unit_test(test_any_failure_leaves_the_living_whole_and_the_next_run_finishes),
        cmocka_unit_test(test_a_full_disk_is_emptied_with_what_the_reserve_frees),
        cmocka_unit_test(test_a_full_disk_without_a_reserve_is_said_with_a_remedy),
        cmocka_unit_test(test_any_failing_system_call_leaves_the_living_whole),
    };
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests_name("collect_failures", tests, NULL, NULL);
}
