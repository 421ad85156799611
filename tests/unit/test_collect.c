#include "repository/collect.h"

#include "common/log.h"
#include "repository/claim.h"
#include "repository/condemned.h"
#include "repository/fate.h"
#include "repository/mark.h"
#include "repository/pin.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/fault_disk.h"
#include "tests/unit/support/hooked_storage.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"
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

#define LAB(name)                                                                                  \
    __attribute__((cleanup(lab_close))) Lab name;                                                  \
    lab_open(&name)

static void
test_an_expired_backup_goes_after_the_grace_and_leaves_a_grave(void **state)
{
    (void)state;
    LAB(lab);
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

/* One of everything: what stays, what goes, and why. */
typedef struct {
    BackupId old;     /* expired, nobody needs it */
    BackupId base;    /* expired, but child needs data pack 0 and map pack 0 */
    BackupId child;   /* a backup */
    BackupId dead;    /* a revoked attempt */
    BackupId attempt; /* open, of another host; parent is child */
    BackupId newest;  /* a backup */
} Stage;

static Stage
set_stage(Lab *lab)
{
    Stage stage;
    stage.old = lab_backup(lab, 1, &(LabBackup){.packs = 3, .map_packs = 1});
    stage.base = lab_backup(lab, 2, &(LabBackup){.packs = 3, .map_packs = 2});
    const PackRange shared[] = {
        {.creator = stage.base, .is_map = false, .first_pack = 0, .pack_count = 1},
        {.creator = stage.base, .is_map = true, .first_pack = 0, .pack_count = 1},
    };
    stage.child = lab_backup(
        lab, 3, &(LabBackup){.packs = 1, .map_packs = 1, .others = shared, .other_count = 2});
    stage.dead = lab_revoked(lab, 4, 2);
    stage.attempt = lab_attempt(lab, 5, &stage.child, NULL, 2);
    stage.newest = lab_backup(lab, 6, &(LabBackup){.packs = 1, .map_packs = 1});
    lab_expire(lab, &stage.old);
    lab_expire(lab, &stage.base);
    return stage;
}

static void
check_kept(Lab *lab, const Stage *stage)
{
    assert_true(lab_is_whole(lab, &stage->child));
    assert_true(lab_is_whole(lab, &stage->newest));
    assert_int_equal(lab_packs(lab, &stage->attempt, 2), 2);
    assert_true(lab_has_object(lab, &stage->attempt, "intent"));
    assert_true(lab_has_object(lab, &stage->old, "fate"));
    assert_true(lab_has_object(lab, &stage->base, "fate"));
    assert_true(lab_has_object(lab, &stage->dead, "fate"));
}

static void
check_gone(Lab *lab, const Stage *stage)
{
    assert_int_equal(lab_packs(lab, &stage->old, 3), 0);
    assert_int_equal(lab_packs(lab, &stage->base, 3), 2);
    assert_int_equal(lab_packs(lab, &stage->dead, 2), 0);
    assert_false(lab_has_object(lab, &stage->old, "refs"));
    assert_false(lab_has_object(lab, &stage->base, "refs"));
    assert_false(lab_has_object(lab, &stage->dead, "intent"));
    CairnError err = {0};
    SCOPED_CONDEMNED lists = {0};
    assert_true(condemned_read_all(lab->repository, "main", &lists, &err));
    assert_int_equal(lists.count, 0);
}

static void
test_what_is_named_stays_and_the_rest_goes(void **state)
{
    (void)state;
    LAB(lab);
    const Stage stage = set_stage(&lab);
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
    check_kept(&lab, &stage);
    check_gone(&lab, &stage);
}

static void
test_without_a_grace_one_run_does_it_all(void **state)
{
    (void)state;
    LAB(lab);
    const Stage stage = set_stage(&lab);
    const CollectReport report = lab_collect(&lab, 0);
    assert_false(report.waiting);
    check_kept(&lab, &stage);
    check_gone(&lab, &stage);
}

static void
test_a_dry_run_counts_and_touches_nothing(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    CollectReport dry;
    const Stage stage = set_stage(&lab);
    const size_t before = memory_storage_count(repository_storage(lab.repository));
    const CollectOptions options = {.cluster = "main", .grace_s = 0, .dry_run = true};
    assert_true(collect_run(lab.repository, &options, &dry, &err));
    assert_int_equal(memory_storage_count(repository_storage(lab.repository)), before);
    const CollectReport report = lab_collect(&lab, 0);
    assert_int_equal(dry.packs, report.packs);
    assert_int_equal(dry.map_packs, report.map_packs);
    assert_int_equal(dry.bytes, report.bytes);
    assert_int_equal(dry.backups_swept, report.backups_swept);
    check_kept(&lab, &stage);
}

static void
test_packs_that_outlive_their_backup_go_with_the_last_that_names_them(void **state)
{
    (void)state;
    LAB(lab);
    const Stage stage = set_stage(&lab);
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
    LAB(lab);
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
    LAB(lab);
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
    LAB(lab);
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
    LAB(lab);
    const Stage stage = set_stage(&lab);
    lab_pass(&lab, 100 * 86400);
    lab_collect(&lab, HOUR);
    lab_pass(&lab, -100 * 86400);
    /* The list is of the future: a new one is written, and counts from now. */
    CollectReport report = lab_collect(&lab, HOUR);
    assert_true(report.clock_jumped);
    assert_true(report.waiting);
    assert_int_equal(lab_packs(&lab, &stage.old, 3), 4);
    lab_pass(&lab, HOUR);
    report = lab_collect(&lab, HOUR);
    check_kept(&lab, &stage);
    check_gone(&lab, &stage);
}

static void
test_a_later_expiry_has_a_grace_of_its_own(void **state)
{
    (void)state;
    LAB(lab);
    const Stage stage = set_stage(&lab);
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
    LAB(lab);
    CairnError err = {0};
    const Stage stage = set_stage(&lab);
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
    LAB(lab);
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

/* --- nothing is absent that cannot be read --- */

static void
name_intent(Lab *lab, const Stage *stage, char *name)
{
    (void)lab;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/intent", stage->attempt.text);
}

static void
name_fate(Lab *lab, const Stage *stage, char *name)
{
    (void)lab;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/fate", stage->newest.text);
}

static void
name_dead_fate(Lab *lab, const Stage *stage, char *name)
{
    (void)lab;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/fate", stage->dead.text);
}

static void
name_mark(Lab *lab, const Stage *stage, char *name)
{
    (void)lab;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/mark.0", stage->old.text);
}

static void
name_refs(Lab *lab, const Stage *stage, char *name)
{
    (void)lab;
    snprintf(name, STORAGE_NAME_LIMIT, "c/main/b/%s/refs", stage->child.text);
}

static void
name_pin(Lab *lab, const Stage *stage, char *name)
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
name_list(Lab *lab, const Stage *stage, char *name)
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
    void (*name)(Lab *, const Stage *, char *);
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
        LAB(lab);
        CairnError err = {0};
        CollectReport report;
        char name[STORAGE_NAME_LIMIT];
        const Stage stage = set_stage(&lab);
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
    LAB(lab);
    CairnError err = {0};
    CollectReport report;
    char name[STORAGE_NAME_LIMIT];
    const Stage stage = set_stage(&lab);
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
    LAB(lab);
    char name[STORAGE_NAME_LIMIT];
    const Stage stage = set_stage(&lab);
    snprintf(name, sizeof name, "c/main/b/%s/refs", stage.old.text);
    lab_damage(&lab, name);
    lab_collect(&lab, HOUR);
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    check_kept(&lab, &stage);
    check_gone(&lab, &stage);
}

/* --- failures and deaths at every call --- */

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
            const Stage stage = set_stage(&lab);
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
            check_kept(&lab, &stage);
            lab_collect(&lab, HOUR);
            check_kept(&lab, &stage);
            lab_pass(&lab, HOUR);
            lab_collect(&lab, HOUR);
            check_kept(&lab, &stage);
            check_gone(&lab, &stage);
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
    const Stage stage = set_stage(&lab);
    lab_collect(&lab, HOUR);
    hooked_storage_limit(hooks, 0);
    lab_pass(&lab, HOUR);
    lab_collect(&lab, HOUR);
    check_kept(&lab, &stage);
    check_gone(&lab, &stage);
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
    const Stage stage = set_stage(&lab);
    hooked_storage_limit(hooks, 0);
    const CollectOptions options = {.cluster = "main", .grace_s = 0};
    assert_false(collect_run(lab.repository, &options, &report, &err));
    assert_int_equal(err.kind, CAIRN_NO_SPACE);
    assert_true(err.hint[0] != '\0');
    check_kept(&lab, &stage);
}

/* --- on disk --- */

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
            const Stage stage = set_stage(&lab);
            lab_collect(&lab, HOUR);
            lab_pass(&lab, HOUR);
            fault_disk_reset(&disk);
            disk.fail[kinds[i]] = (Fault){.at_call = at, .error = EIO};
            const CollectOptions options = {.cluster = "main", .grace_s = HOUR};
            const bool done = collect_run(lab.repository, &options, &report, &err);
            const bool struck = disk.calls[kinds[i]] >= at;
            fault_disk_reset(&disk);
            check_kept(&lab, &stage);
            lab_collect(&lab, HOUR);
            lab_pass(&lab, HOUR);
            lab_collect(&lab, HOUR);
            check_kept(&lab, &stage);
            check_gone(&lab, &stage);
            if (!struck) {
                assert_true(done);
                break;
            }
        }
    }
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
    const Stage stage = set_stage(&lab);
    lab_collect(&lab, 0);
    check_gone(&lab, &stage);
    assert_int_equal(lab_count(&lab, "gc"), 0);
    snprintf(below, sizeof below, "b/%s", stage.old.text);
    assert_int_equal(lab_count(&lab, below), 2);
    snprintf(below, sizeof below, "b/%s/p", stage.base.text);
    assert_int_equal(lab_count(&lab, below), 1);
}

/* --- many --- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MANY = 1000, PARENTS = 30 };
#else
enum { MANY = 10000, PARENTS = 30 };
#endif

/* As a daily full with hourly incrementals leaves them: each names a few packs of each since the
 * last full. */
static void
test_many_backups_are_collected_in_seconds(void **state)
{
    (void)state;
    LAB(lab);
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
    const Clock *clock = world_real()->clock;
    const int64_t begin_ns = clock->monotonic_ns(clock);
    lab_collect(&lab, HOUR);
    lab_pass(&lab, HOUR);
    const CollectReport report = lab_collect(&lab, HOUR);
    const int64_t took_ms = (clock->monotonic_ns(clock) - begin_ns) / 1000000;
    print_message("%d backups, two runs: %lld ms\n", MANY, (long long)took_ms);
    assert_int_equal(report.backups_swept, MANY - 100);
    for (uint64_t i = MANY - 99; i <= MANY; i++) {
        const BackupId bid = test_backup_id(i);
        assert_true(lab_is_whole(&lab, &bid));
    }
    assert_true(took_ms < 120000); /* seconds; sanitizers and a busy machine included */
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
        cmocka_unit_test(test_what_cannot_be_read_stops_the_collector),
        cmocka_unit_test(test_a_backup_without_its_summary_stops_the_collector),
        cmocka_unit_test(test_a_damaged_summary_of_the_dead_stops_nobody),
        cmocka_unit_test(test_any_failure_leaves_the_living_whole_and_the_next_run_finishes),
        cmocka_unit_test(test_a_full_disk_is_emptied_with_what_the_reserve_frees),
        cmocka_unit_test(test_a_full_disk_without_a_reserve_is_said_with_a_remedy),
        cmocka_unit_test(test_any_failing_system_call_leaves_the_living_whole),
        cmocka_unit_test(test_directories_that_are_empty_go_too),
        cmocka_unit_test(test_many_backups_are_collected_in_seconds),
    };
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests_name("collect", tests, NULL, NULL);
}
