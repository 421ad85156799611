/* heal_run over a storage in memory that keeps versions: what it does, and that a collector gets
 * along with it. */
#include "repository/condemned.h"
#include "repository/heal.h"
#include "repository/mark.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/versioned_storage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND INT64_C(1000000)
#define HOUR INT64_C(3600)
#define BACKUP "c/main/b/0000000012-3f9a010203040506/"

typedef struct {
    size_t counts[HEAL_FAILED + 1];
    bool stop;
} Noted;

static bool
note(void *context, const HealItem *item, HealResult result, const CairnError *failure,
     CairnError *err)
{
    Noted *noted = context;
    assert_true(item->name[0] != '\0' && result != HEAL_SAME);
    assert_int_equal(failure->kind != CAIRN_OK, result == HEAL_FAILED);
    noted->counts[result]++;
    return !noted->stop || cairn_error(err, CAIRN_IO, "unable to write to standard output");
}

static bool
heal(VersionedStorage *storage, int64_t since_us, bool dry_run, Noted *noted, HealReport *report,
     CairnError *err)
{
    *noted = (Noted){.stop = noted->stop};
    *err = (CairnError){0};
    return heal_run(&(HealOptions){.storage = &storage->base,
                                   .since_us = since_us,
                                   .dry_run = dry_run,
                                   .jobs = 3,
                                   .note = note,
                                   .context = noted},
                    report, err);
}

/* -- what it does */

static int64_t now_us;

/* An empty one; its clock is now_us. */
static VersionedStorage *
storage_at(int64_t second)
{
    now_us = second * SECOND;
    return versioned_storage_new(&now_us);
}

static void
put_at(VersionedStorage *storage, int64_t second, const char *name, const char *text)
{
    now_us = second * SECOND;
    if (text != NULL)
        versioned_storage_put(storage, name, text, strlen(text));
    else
        versioned_storage_remove(storage, name);
}

static void
check_there(VersionedStorage *storage, const char *name, const void *data, size_t size)
{
    size_t there_size = 0;
    const uint8_t *there = memory_storage_bytes(storage->inner, name, &there_size);
    assert_non_null(there);
    assert_int_equal(there_size, size);
    assert_memory_equal(there, data, size);
}

static void
test_it_comes_back_once_and_a_plan_changes_nothing(void **state)
{
    (void)state;
    VersionedStorage *storage = storage_at(0);
    SCOPED(Storage) closed = &storage->base;
    Noted noted = {0};
    HealReport report;
    CairnError err;
    put_at(storage, 10, BACKUP "fate", "fate");
    put_at(storage, 110, BACKUP "fate", NULL);
    put_at(storage, 11, BACKUP "refs", "refs");
    put_at(storage, 120, BACKUP "refs", "junk");
    put_at(storage, 9, BACKUP "intent", "intent");
    const size_t rows = storage->count;
    now_us = 1000 * SECOND;

    assert_true(heal(storage, 100 * SECOND, true, &noted, &report, &err));
    assert_int_equal(storage->count, rows);
    assert_int_equal(noted.counts[HEAL_DONE], 2);
    assert_true(report.hidden == 1 && report.overwritten == 1 && report.bytes == 8);
    assert_true(report.first_us == 110 * SECOND && report.last_us == 120 * SECOND);
    assert_int_equal(report.subjects[HEAL_FATE].hidden, 1);
    assert_int_equal(report.subjects[HEAL_REFS].overwritten, 1);

    assert_true(heal(storage, 100 * SECOND, false, &noted, &report, &err));
    assert_true(report.hidden == 1 && report.overwritten == 1 && report.failed == 0);
    check_there(storage, BACKUP "fate", "fate", 4);
    check_there(storage, BACKUP "refs", "refs", 4);
    assert_int_equal(storage->count, rows + 2);

    /* As large as before, and no digest: reading tells that it is done. */
    assert_true(heal(storage, 100 * SECOND, false, &noted, &report, &err));
    assert_true(report.hidden == 0 && report.overwritten == 0);
    assert_int_equal(storage->count, rows + 2);
}

static void
test_what_one_object_fails_at_leaves_the_others(void **state)
{
    (void)state;
    VersionedStorage *storage = storage_at(0);
    SCOPED(Storage) closed = &storage->base;
    Noted noted = {0};
    HealReport report;
    CairnError err;
    const int64_t since_us = 100 * SECOND;
    put_at(storage, 10, BACKUP "fate", "fate");
    put_at(storage, 110, BACKUP "fate", NULL);
    for (int i = 0; i < 20; i++) {
        char name[64];
        snprintf(name, sizeof name, BACKUP "p/000/%08x", (unsigned)i);
        put_at(storage, 10, name, "pack");
        put_at(storage, 110, name, NULL);
    }
    now_us = 1000 * SECOND;
    storage->denied = BACKUP "p/";
    storage->denied_as = CAIRN_CORRUPT;
    assert_true(heal(storage, since_us, false, &noted, &report, &err));
    assert_true(report.failed == 20 && report.hidden == 1);
    assert_int_equal(report.failure.kind, CAIRN_CORRUPT);
    check_there(storage, BACKUP "fate", "fate", 4);

    /* Where nothing may be done, it is not tried a million times. */
    storage->denied = "c/";
    storage->denied_as = CAIRN_DENIED;
    assert_false(heal(storage, since_us, false, &noted, &report, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    assert_true(noted.counts[HEAL_FAILED] < 20);

    /* A store that is away is away for all. */
    storage->denied_as = CAIRN_UNAVAILABLE;
    assert_false(heal(storage, since_us, false, &noted, &report, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);

    storage->denied = NULL;
    noted.stop = true;
    assert_false(heal(storage, since_us, false, &noted, &report, &err));
    assert_int_equal(err.kind, CAIRN_IO);
    noted.stop = false;
    storage->list_fails = true;
    assert_false(heal(storage, since_us, false, &noted, &report, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    storage->list_fails = false;
    assert_true(heal(storage, since_us, false, &noted, &report, &err));
    check_there(storage, BACKUP "p/000/00000013", "pack", 4);
}

/* A mark's bytes as a repository writes them; returned owned. */
static uint8_t *
mark_bytes(Repository *repository, const char *name, MarkKind kind, size_t *size_out)
{
    CairnError err = {0};
    BackupId bid;
    assert_true(backup_id_parse("0000000012-3f9a010203040506", &bid));
    if (!mark_add_at(repository, "main", &bid, 1, kind, "test", &err))
        fail_msg("%s", err.message);
    uint8_t *bytes = storage_get(repository_storage(repository), name, 65536, size_out, &err);
    assert_non_null(bytes);
    assert_true(storage_remove(repository_storage(repository), name, &err));
    return bytes;
}

/* Hidden, a new one put down by somebody who saw none; and a thief's in the same place. */
static void
test_a_whole_mark_of_later_stays_and_anything_else_gives_way(void **state)
{
    (void)state;
#define MARK BACKUP "mark.1"
    SCOPED(Repository) ours = memory_repository("none");
    SCOPED(Repository) theirs = memory_repository("none");
    size_t old_size = 0, new_size = 0, other_size = 0;
    SCOPED_MEMORY uint8_t *old = mark_bytes(ours, MARK, MARK_EXPIRE, &old_size);
    SCOPED_MEMORY uint8_t *new = mark_bytes(ours, MARK, MARK_KEEP, &new_size);
    SCOPED_MEMORY uint8_t *damaged = mark_bytes(ours, MARK, MARK_KEEP, &new_size);
    SCOPED_MEMORY uint8_t *other = mark_bytes(theirs, MARK, MARK_KEEP, &other_size);
    damaged[new_size / 2] ^= 1;
    static const uint8_t JUNK[] = "junk", THIEF[] = "thief";
    const struct {
        const uint8_t *old, *data;
        size_t old_size, size;
        bool stays;
    } CASES[] = {{old, new, old_size, new_size, true},
                 {old, damaged, old_size, new_size, false},
                 {old, other, old_size, other_size, false},
                 {old, THIEF, old_size, sizeof THIEF, false},
                 /* What was there was none of ours either. */
                 {JUNK, new, sizeof JUNK, new_size, true},
                 {JUNK, THIEF, sizeof JUNK, sizeof THIEF, false}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        VersionedStorage *storage = storage_at(10);
        SCOPED(Storage) closed = &storage->base;
        Noted noted = {0};
        HealReport report;
        CairnError err;
        versioned_storage_put(storage, MARK, CASES[i].old, CASES[i].old_size);
        put_at(storage, 110, MARK, NULL);
        versioned_storage_put(storage, MARK, CASES[i].data, CASES[i].size);
        assert_true(heal(storage, 100 * SECOND, false, &noted, &report, &err));
        assert_int_equal(report.newer, CASES[i].stays);
        assert_int_equal(noted.counts[HEAL_NEWER], CASES[i].stays);
        assert_int_equal(report.overwritten, !CASES[i].stays);
        if (CASES[i].stays)
            check_there(storage, MARK, new, new_size);
        else
            check_there(storage, MARK, CASES[i].old, CASES[i].old_size);
    }
}

static void
test_where_no_versions_are_kept_it_says_so(void **state)
{
    (void)state;
    VersionedStorage *storage = storage_at(10);
    SCOPED(Storage) closed = &storage->base;
    Noted noted = {0};
    HealReport report;
    CairnError err;
    assert_false(heal(storage, 100 * SECOND, false, &noted, &report, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    put_at(storage, 10, BACKUP "fate", "fate");
    snprintf(storage->rows[0].version, sizeof storage->rows[0].version, "null");
    assert_false(heal(storage, 100 * SECOND, false, &noted, &report, &err));
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
    assert_non_null(strstr(err.message, "keeps no versions"));

    SCOPED(Storage) plain = memory_storage_new();
    const HealOptions options = {.storage = plain, .since_us = 0, .jobs = 1, .note = note};
    err = (CairnError){0};
    assert_false(heal_run(&options, &report, &err));
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
}

/* -- beside a collector */

typedef struct {
    Lab lab;
    VersionedStorage *storage;
    BackupId old, newest, attempt;
} Stage;

/* An old backup, a newest one that needs the first of its packs, and a dead attempt. */
static void
set_stage(Stage *stage)
{
    Lab *lab = &stage->lab;
    stage->storage = versioned_storage_new(&lab->wall_us);
    lab_open_storage(lab, &stage->storage->base);
    stage->old = lab_backup(lab, 1, &(LabBackup){.packs = 3, .map_packs = 1});
    const PackRange shared = {.creator = stage->old, .first_pack = 0, .pack_count = 1};
    stage->newest =
        lab_backup(lab, 2, &(LabBackup){.packs = 2, .others = &shared, .other_count = 1});
    stage->attempt = lab_revoked(lab, 3, 2);
    lab_pass(lab, 10);
}

static void
end_stage(Stage *stage)
{
    lab_close(&stage->lab);
}
#define STAGE(stage)                                                                               \
    __attribute__((cleanup(end_stage))) Stage stage = {0};                                         \
    set_stage(&stage)

/* After a moment, so that what comes is of another second. */
static int64_t
moment(Stage *stage)
{
    lab_pass(&stage->lab, 2);
    const int64_t since_us = stage->lab.wall_us / SECOND * SECOND;
    lab_pass(&stage->lab, 2);
    return since_us;
}

static HealReport
heal_stage(Stage *stage, int64_t since_us)
{
    Noted noted = {0};
    HealReport report;
    CairnError err;
    lab_pass(&stage->lab, 2);
    if (!heal(stage->storage, since_us, false, &noted, &report, &err))
        fail_msg("%s", err.message);
    assert_int_equal(report.failed, 0);
    return report;
}

static bool
is_doomed(Stage *stage, const BackupId *bid)
{
    bool doomed;
    CairnError err = {0};
    assert_true(doomed_any(stage->lab.repository, "main", bid, &doomed, &err));
    return doomed;
}

static bool
unexpire(Stage *stage, const BackupId *bid, CairnError *err)
{
    *err = (CairnError){0};
    return collect_unexpire(stage->lab.repository, "main", bid, "test", err);
}

static void
test_what_a_collector_took_comes_back_as_garbage_and_goes_again(void **state)
{
    (void)state;
    STAGE(stage);
    Lab *lab = &stage.lab;
    lab_expire(lab, &stage.old);
    const int64_t since_us = moment(&stage);
    lab_collect(lab, 0);
    assert_int_equal(lab_packs(lab, &stage.old, 3), 1);
    assert_int_equal(lab_packs(lab, &stage.attempt, 2), 0);

    heal_stage(&stage, since_us);
    assert_true(lab_is_whole(lab, &stage.old));
    assert_true(lab_is_whole(lab, &stage.newest));
    assert_int_equal(lab_packs(lab, &stage.attempt, 2), 2);
    assert_true(lab_has_object(lab, &stage.old, "refs") && !is_doomed(&stage, &stage.old));

    /* Nothing permits to delete it: it is condemned anew, and its grace begins now. */
    CollectReport report = lab_collect(lab, HOUR);
    assert_true(report.waiting && report.packs == 0);
    assert_true(lab_is_whole(lab, &stage.old));
    lab_pass(lab, HOUR);
    report = lab_collect(lab, HOUR);
    assert_int_equal(report.packs, 4);
    assert_int_equal(lab_packs(lab, &stage.old, 3), 1);
    assert_int_equal(lab_packs(lab, &stage.attempt, 2), 0);
    assert_false(lab_has_object(lab, &stage.old, "refs"));
    assert_true(lab_is_whole(lab, &stage.newest));
    assert_false(lab_collect(lab, 0).waiting);
}

/* The thief had the collector's credentials, and used our own program. */
static void
test_what_was_expired_and_collected_can_be_had_back(void **state)
{
    (void)state;
    STAGE(stage);
    Lab *lab = &stage.lab;
    CairnError err;
    const int64_t since_us = moment(&stage);
    lab_expire(lab, &stage.old);
    lab_expire(lab, &stage.newest);
    lab_collect(lab, 0);
    assert_int_equal(lab_packs(lab, &stage.old, 3) + lab_packs(lab, &stage.newest, 2), 0);
    assert_false(unexpire(&stage, &stage.newest, &err));

    const HealReport report = heal_stage(&stage, since_us);
    assert_true(report.counts.new_marks >= 2);
    if (!unexpire(&stage, &stage.newest, &err) || !unexpire(&stage, &stage.old, &err))
        fail_msg("%s", err.message);
    lab_collect(lab, 0);
    assert_true(lab_is_whole(lab, &stage.old) && lab_is_whole(lab, &stage.newest));
    assert_int_equal(lab_packs(lab, &stage.old, 3) + lab_packs(lab, &stage.newest, 2), 6);
}

/* A collector that does not see the fate takes the backup for nobody's, by right. */
static void
test_a_backup_that_was_revoked_while_its_fate_was_hidden_is_one_again(void **state)
{
    (void)state;
    STAGE(stage);
    Lab *lab = &stage.lab;
    char name[STORAGE_NAME_LIMIT];
    const int64_t since_us = moment(&stage);
    static const char *const HIDDEN[] = {"fate", "intent"};
    for (size_t i = 0; i < sizeof HIDDEN / sizeof HIDDEN[0]; i++) {
        snprintf(name, sizeof name, "c/main/b/%s/%s", stage.newest.text, HIDDEN[i]);
        versioned_storage_remove(stage.storage, name);
    }
    for (int i = 0; i < 4; i++)
        lab_collect(lab, 0);
    assert_true(lab_has_object(lab, &stage.newest, "fate")); /* a revocation */
    assert_int_equal(lab_packs(lab, &stage.newest, 2), 0);

    const HealReport report = heal_stage(&stage, since_us);
    assert_true(report.overwritten == 1 && report.subjects[HEAL_FATE].overwritten == 1);
    assert_true(lab_is_whole(lab, &stage.newest));
    for (int i = 0; i < 4; i++)
        lab_collect(lab, 0);
    assert_true(lab_is_whole(lab, &stage.newest));
    assert_int_equal(lab_packs(lab, &stage.newest, 2), 2);
}

/* Packs went before TIME, or for good: what is left must not be taken for a backup. */
static void
test_what_comes_back_in_part_cannot_be_unexpired(void **state)
{
    (void)state;
    for (int for_good = 0; for_good < 2; for_good++) {
        STAGE(stage);
        Lab *lab = &stage.lab;
        CairnError err = {0};
        char pack[STORAGE_NAME_LIMIT];
        lab_expire(lab, &stage.old);
        snprintf(pack, sizeof pack, "c/main/b/%s/p/000/00000002", stage.old.text);
        if (!for_good) { /* a sweep had begun */
            assert_true(doomed_put(lab->repository, "main", &stage.old, "0123456789abcdef", &err));
            versioned_storage_remove(stage.storage, pack);
        }
        const int64_t since_us = moment(&stage);
        lab_collect(lab, 0);
        assert_false(lab_has_object(lab, &stage.old, "refs"));
        if (for_good)
            versioned_storage_forget(stage.storage, pack);

        const HealReport report = heal_stage(&stage, since_us);
        /* The collector removes what is not there, too; a bucket notes it as a deletion. */
        assert_true(report.counts.without_version > 0 || !for_good);
        assert_true(lab_has_object(lab, &stage.old, "refs") && is_doomed(&stage, &stage.old));
        assert_false(unexpire(&stage, &stage.old, &err));
        assert_int_equal(err.kind, CAIRN_REFUSED);
        lab_collect(lab, 0);
        assert_false(lab_has_object(lab, &stage.old, "refs") || is_doomed(&stage, &stage.old));
        assert_true(lab_is_whole(lab, &stage.newest));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_comes_back_once_and_a_plan_changes_nothing),
        cmocka_unit_test(test_what_one_object_fails_at_leaves_the_others),
        cmocka_unit_test(test_a_whole_mark_of_later_stays_and_anything_else_gives_way),
        cmocka_unit_test(test_where_no_versions_are_kept_it_says_so),
        cmocka_unit_test(test_what_a_collector_took_comes_back_as_garbage_and_goes_again),
        cmocka_unit_test(test_what_was_expired_and_collected_can_be_had_back),
        cmocka_unit_test(test_a_backup_that_was_revoked_while_its_fate_was_hidden_is_one_again),
        cmocka_unit_test(test_what_comes_back_in_part_cannot_be_unexpired),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
