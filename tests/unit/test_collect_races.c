/* Somebody else acts in the middle of a run, at every storage call. */
#include "common/log.h"
#include "repository/claim.h"
#include "repository/collect.h"
#include "repository/fate.h"
#include "repository/mark.h"
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

#include <stdio.h>
#include <string.h>

enum { SEEDS = 6000, ACTIONS = 6, CALLS = 140 };

typedef enum { EXPIRE, UNEXPIRE, WRITER, READER, COLLECT, ACTION_KINDS } ActionKind;

/* One backup that everybody wants something of. */
typedef struct {
    Lab lab;
    HookedStorage *hooks;
    BackupId parent;
    uint64_t random;
    unsigned at[ACTIONS];
    ActionKind kind[ACTIONS];
    unsigned writer_state; /* 0, 1 intent, 2 claimed, 3 published, 9 refused */
    BackupId child;
    Pin *pin;
    unsigned published, pinned, unexpired; /* how often, over all seeds: the test must see them */
} Scene;

static void
collect_at_once(Scene *scene)
{
    CairnError err = {0};
    CollectReport report;
    const CollectOptions options = {.cluster = "main", .grace_s = 0};
    if (!collect_run(scene->lab.repository, &options, &report, &err))
        fail_msg("collect: %s", err.message);
}

static void
writer_step(Scene *scene)
{
    CairnError err = {0};
    const ClaimSources sources = {.parent = &scene->parent};
    const PackRange inherited[] = {
        {.creator = scene->parent, .is_map = false, .first_pack = 0, .pack_count = 1},
        {.creator = scene->parent, .is_map = true, .first_pack = 0, .pack_count = 1},
    };
    switch (scene->writer_state) {
    case 0:
        scene->child = lab_attempt(&scene->lab, 5, &scene->parent, NULL, 1);
        scene->writer_state = 1;
        break;
    case 1:
        if (claim_check(scene->lab.repository, "main", &sources, &err)) {
            scene->writer_state = 2;
        } else {
            assert_int_equal(err.kind, CAIRN_REFUSED);
            scene->writer_state = 9;
        }
        break;
    case 2:
        assert_true(lab_publish(&scene->lab, &scene->child,
                                &(LabBackup){.packs = 1, .others = inherited, .other_count = 2}));
        scene->writer_state = 3;
        break;
    default:
        break;
    }
}

static void
reader_step(Scene *scene)
{
    CairnError err = {0};
    if (scene->pin != NULL)
        return;
    MarkState marks;
    assert_true(mark_read(scene->lab.repository, "main", &scene->parent, &marks, &err));
    scene->pin = pin_take(scene->lab.repository, "main", "restore", &scene->parent, 1, &err);
    /* Gone before the reader came: that is its own affair. */
    if (scene->pin != NULL && !lab_has_object(&scene->lab, &scene->parent, "refs")) {
        pin_release(scene->pin);
        scene->pin = NULL;
    }
}

static void
act(Scene *scene, ActionKind kind)
{
    CairnError err = {0};
    MarkState marks;
    switch (kind) {
    case EXPIRE:
        assert_true(mark_read(scene->lab.repository, "main", &scene->parent, &marks, &err));
        if (!marks.expired)
            lab_expire(&scene->lab, &scene->parent);
        break;
    case UNEXPIRE:
        if (!collect_unexpire(scene->lab.repository, "main", &scene->parent, "", &err))
            assert_int_equal(err.kind, CAIRN_REFUSED);
        break;
    case WRITER:
        writer_step(scene);
        break;
    case READER:
        reader_step(scene);
        break;
    case COLLECT:
        collect_at_once(scene);
        break;
    case ACTION_KINDS:
        break;
    }
}

static void
on_call(void *context, unsigned call)
{
    Scene *scene = context;
    for (size_t i = 0; i < ACTIONS; i++) {
        if (scene->at[i] == call)
            act(scene, scene->kind[i]);
    }
}

static void
check_promises(Scene *scene, uint64_t seed)
{
    CairnError err = {0};
    MarkState marks;
    if (scene->writer_state == 3 && !lab_is_whole(&scene->lab, &scene->child))
        fail_msg("seed %llu: a committed backup lost a pack", (unsigned long long)seed);
    assert_true(mark_read(scene->lab.repository, "main", &scene->parent, &marks, &err));
    if (!marks.expired && !marks.pending && !lab_is_whole(&scene->lab, &scene->parent))
        fail_msg("seed %llu: an unexpired backup lost a pack", (unsigned long long)seed);
    if (scene->pin != NULL && !lab_is_whole(&scene->lab, &scene->parent))
        fail_msg("seed %llu: a pinned backup lost a pack", (unsigned long long)seed);
}

static void
open_scene(Scene *scene)
{
    scene->hooks = hooked_storage_new(memory_storage_new());
    lab_open_storage(&scene->lab, &scene->hooks->base);
    scene->parent = lab_backup(&scene->lab, 1, &(LabBackup){.packs = 2, .map_packs = 1});
    lab_backup(&scene->lab, 2, &(LabBackup){.packs = 1});
    scene->writer_state = 0;
    scene->pin = NULL;
    hooked_storage_reset(scene->hooks);
}

static void
close_scene(Scene *scene)
{
    pin_release(scene->pin);
    lab_close(&scene->lab);
}

static void
play(Scene *scene, uint64_t seed)
{
    CairnError err = {0};
    MarkState marks;
    scene->random = seed * 2 + 1;
    for (int i = 0; i < 10; i++)
        test_random(&scene->random);
    open_scene(scene);
    if (test_random_below(&scene->random, 4) != 0)
        lab_expire(&scene->lab, &scene->parent);
    if (test_random_below(&scene->random, 4) == 0)
        writer_step(scene);
    hooked_storage_reset(scene->hooks);
    for (size_t i = 0; i < ACTIONS; i++) {
        scene->at[i] = (unsigned)test_random_below(&scene->random, CALLS);
        scene->kind[i] = (ActionKind)test_random_below(&scene->random, ACTION_KINDS);
        if (scene->kind[i] == COLLECT && test_random_below(&scene->random, 2) == 0)
            scene->kind[i] = WRITER;
    }
    scene->hooks->hook = on_call;
    scene->hooks->context = scene;
    collect_at_once(scene);
    hooked_storage_reset(scene->hooks);
    if (scene->writer_state == 2)
        writer_step(scene);
    check_promises(scene, seed);
    collect_at_once(scene);
    check_promises(scene, seed);
    assert_true(mark_read(scene->lab.repository, "main", &scene->parent, &marks, &err));
    scene->published += scene->writer_state == 3;
    scene->pinned += scene->pin != NULL && marks.expired;
    scene->unexpired += marks.next > 2 && !marks.expired;
    close_scene(scene);
}

static void
test_promises_hold_whoever_acts_in_the_middle_of_a_run(void **state)
{
    (void)state;
    Scene scene = {0};
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        play(&scene, seed);
    /* A test in which nobody ever gets through proves nothing. */
    assert_true(scene.published > SEEDS / 100);
    assert_true(scene.pinned > SEEDS / 100);
    assert_true(scene.unexpired > SEEDS / 100);
}

/* The other way round: a whole run, or an expire, in the middle of an un-expire. */
static void
test_unexpire_keeps_it_whole_or_refuses_whatever_comes_in_between(void **state)
{
    (void)state;
    unsigned whole = 0, refused = 0;
    for (unsigned first = 1; first <= 14; first++) {
        for (unsigned second = 1; second <= 14; second++) {
            for (int kinds = 0; kinds < 4; kinds++) {
                Scene scene = {0};
                CairnError err = {0};
                open_scene(&scene);
                lab_expire(&scene.lab, &scene.parent);
                hooked_storage_reset(scene.hooks);
                scene.at[0] = first;
                scene.kind[0] = (kinds & 1) != 0 ? COLLECT : EXPIRE;
                scene.at[1] = second;
                scene.kind[1] = (kinds & 2) != 0 ? COLLECT : EXPIRE;
                scene.hooks->hook = on_call;
                scene.hooks->context = &scene;
                const bool done =
                    collect_unexpire(scene.lab.repository, "main", &scene.parent, "", &err);
                hooked_storage_reset(scene.hooks);
                whole += done;
                refused += !done;
                if (!done)
                    assert_int_equal(err.kind, CAIRN_REFUSED);
                check_promises(&scene, first * 100 + second);
                if (done && !lab_is_whole(&scene.lab, &scene.parent))
                    fail_msg("success was reported of a backup that is not whole");
                close_scene(&scene);
            }
        }
    }
    assert_true(whole > 50 && refused > 50);
}

/* A backup that is made of a dead attempt's pack and expired, all before one call of a run. */
typedef struct {
    Lab lab;
    BackupId dead, child;
    unsigned at;
    bool made;
} Passage;

static void
come_and_go(void *context, unsigned call)
{
    Passage *passage = context;
    CairnError err = {0};
    if (call != passage->at)
        return;
    const PackRange salvaged = {.creator = passage->dead, .pack_count = 1};
    const ClaimSources sources = {.salvage = &passage->dead, .salvage_count = 1};
    passage->child = lab_attempt(&passage->lab, 5, NULL, &passage->dead, 1);
    if (!claim_check(passage->lab.repository, "main", &sources, &err) ||
        !lab_has(&passage->lab, &passage->dead, false, 0))
        return; /* refused, or there is nothing to salvage */
    passage->made = lab_publish(&passage->lab, &passage->child,
                                &(LabBackup){.packs = 1, .others = &salvaged, .other_count = 1});
    lab_expire(&passage->lab, &passage->child);
}

/* The run finds it dead and did not doom it: un-expire may bring it back. */
static void
test_what_came_and_went_during_a_run_comes_back_whole_or_not(void **state)
{
    (void)state;
    unsigned whole = 0;
    for (unsigned at = 1; at < CALLS; at++) {
        CairnError err = {0};
        CollectReport report;
        Passage passage = {.at = at};
        HookedStorage *hooks = hooked_storage_new(memory_storage_new());
        lab_open_storage(&passage.lab, &hooks->base);
        passage.dead = lab_revoked(&passage.lab, 1, 1);
        lab_backup(&passage.lab, 2, &(LabBackup){.packs = 1});
        hooked_storage_reset(hooks);
        hooks->hook = come_and_go;
        hooks->context = &passage;
        const CollectOptions options = {.cluster = "main", .grace_s = 0};
        if (!collect_run(passage.lab.repository, &options, &report, &err))
            fail_msg("call %u: %s", at, err.message);
        hooked_storage_reset(hooks);
        if (passage.made &&
            collect_unexpire(passage.lab.repository, "main", &passage.child, "", &err)) {
            if (!lab_is_whole(&passage.lab, &passage.child))
                fail_msg("call %u: success was reported of a backup that is not whole", at);
            whole++;
        }
        lab_close(&passage.lab);
    }
    assert_true(whole > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_came_and_went_during_a_run_comes_back_whole_or_not),
        cmocka_unit_test(test_promises_hold_whoever_acts_in_the_middle_of_a_run),
        cmocka_unit_test(test_unexpire_keeps_it_whole_or_refuses_whatever_comes_in_between),
    };
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests_name("collect_races", tests, NULL, NULL);
}
