#include "repository/claim.h"

#include "repository/condemned.h"
#include "repository/fate.h"
#include "repository/mark.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define RUN "00112233aabbccdd"

typedef struct {
    Lab lab;
    BackupId parent, dead, other;
    PackRange foreign; /* of `other`, which parent names */
} Scene;

static void
set(Scene *scene)
{
    lab_open(&scene->lab);
    scene->other = lab_backup(&scene->lab, 1, &(LabBackup){.packs = 4, .map_packs = 1});
    scene->foreign = (PackRange){.creator = scene->other, .first_pack = 1, .pack_count = 2};
    scene->parent = lab_backup(
        &scene->lab, 2,
        &(LabBackup){.packs = 2, .map_packs = 1, .others = &scene->foreign, .other_count = 1});
    scene->dead = lab_revoked(&scene->lab, 3, 2);
}

static void
unset(Scene *scene)
{
    lab_close(&scene->lab);
}

static bool
check(Scene *scene, CairnError *err)
{
    const ClaimSources sources = {
        .parent = &scene->parent, .salvage = &scene->dead, .salvage_count = 1};
    return claim_check(scene->lab.repository, "main", &sources, err);
}

static void
condemn(Scene *scene, PackRange range)
{
    CairnError err = {0};
    uint32_t number = 0;
    SCOPED_PACK_SET packs = {0};
    SCOPED_CONDEMNED lists = {0};
    assert_true(pack_set_add(&packs, range, &err));
    pack_set_settle(&packs);
    assert_true(
        condemned_put(scene->lab.repository, "main", RUN, &number, &packs, NULL, 0, &lists, &err));
}

static void
nothing(Scene *scene)
{
    (void)scene;
}

static void
expire(Scene *scene)
{
    lab_expire(&scene->lab, &scene->parent);
}

static void
unexpire_pending(Scene *scene)
{
    CairnError err = {0};
    expire(scene);
    assert_true(
        mark_add(scene->lab.repository, "main", &scene->parent, MARK_UNEXPIRE_PENDING, "", &err));
}

static void
expire_and_back(Scene *scene)
{
    CairnError err = {0};
    unexpire_pending(scene);
    assert_true(mark_add(scene->lab.repository, "main", &scene->parent, MARK_UNEXPIRE, "", &err));
}

static void
expire_other(Scene *scene)
{
    lab_expire(&scene->lab, &scene->other);
}

static void
doom_parent(Scene *scene)
{
    CairnError err = {0};
    assert_true(doomed_put(scene->lab.repository, "main", &scene->parent, RUN, &err));
}

static void
doom_dead(Scene *scene)
{
    CairnError err = {0};
    assert_true(doomed_put(scene->lab.repository, "main", &scene->dead, RUN, &err));
}

static void
condemn_own(Scene *scene)
{
    condemn(scene, (PackRange){.creator = scene->parent, .first_pack = 1, .pack_count = 1});
}

static void
condemn_map(Scene *scene)
{
    condemn(scene, (PackRange){.creator = scene->parent, .is_map = true, .pack_count = 1});
}

static void
condemn_foreign(Scene *scene)
{
    condemn(scene, (PackRange){.creator = scene->other, .first_pack = 2, .pack_count = 9});
}

/* Packs of `other` that parent does not name. */
static void
condemn_unneeded(Scene *scene)
{
    condemn(scene, (PackRange){.creator = scene->other, .first_pack = 3, .pack_count = 1});
}

static void
condemn_dead(Scene *scene)
{
    condemn(scene, (PackRange){.creator = scene->dead, .first_pack = 7, .pack_count = 1});
}

static void
lose_refs(Scene *scene)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/main/b/%s/refs", scene->parent.text);
    assert_true(storage_remove(repository_storage(scene->lab.repository), name, &err));
}

static void
parent_is_revoked(Scene *scene)
{
    scene->parent = lab_revoked(&scene->lab, 9, 1);
}

static void
parent_is_open(Scene *scene)
{
    scene->parent = lab_attempt(&scene->lab, 9, NULL, NULL, 1);
}

static void
dead_is_open(Scene *scene)
{
    scene->dead = lab_attempt(&scene->lab, 9, NULL, NULL, 1);
}

static void
dead_is_a_backup(Scene *scene)
{
    scene->dead = scene->other;
}

static const struct {
    const char *title;
    void (*happen)(Scene *);
    bool may;
} cases[] = {
    {"all is well", nothing, true},
    {"the parent is expired", expire, false},
    {"its un-expire is under way", unexpire_pending, false},
    {"it was expired once", expire_and_back, true},
    {"another backup that it builds on is expired", expire_other, true},
    {"the parent is doomed", doom_parent, false},
    {"the salvage source is doomed", doom_dead, false},
    {"a pack of the parent is condemned", condemn_own, false},
    {"a map pack of the parent is condemned", condemn_map, false},
    {"a pack that the parent names is condemned", condemn_foreign, false},
    {"packs that nobody claims are condemned", condemn_unneeded, true},
    {"a pack of the salvage source is condemned", condemn_dead, false},
    {"the parent has lost its summary", lose_refs, false},
    {"the parent is a revoked attempt", parent_is_revoked, false},
    {"the parent is an open attempt", parent_is_open, false},
    {"the salvage source is open", dead_is_open, false},
    {"the salvage source is a backup", dead_is_a_backup, false},
};

static void
test_sources_are_refused_when_a_collector_may_take_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        __attribute__((cleanup(unset))) Scene scene;
        CairnError err = {0};
        set(&scene);
        cases[i].happen(&scene);
        if (check(&scene, &err) != cases[i].may)
            fail_msg("%s: wrong: %s", cases[i].title, err.message);
        if (!cases[i].may)
            assert_int_equal(err.kind, CAIRN_REFUSED);
    }
}

static void
test_without_sources_there_is_nothing_to_refuse(void **state)
{
    (void)state;
    __attribute__((cleanup(unset))) Scene scene;
    CairnError err = {0};
    set(&scene);
    condemn_own(&scene);
    assert_true(claim_check(scene.lab.repository, "main", &(ClaimSources){0}, &err));
}

static void
test_a_condemn_list_that_cannot_be_read_is_not_absent(void **state)
{
    (void)state;
    __attribute__((cleanup(unset))) Scene scene;
    CairnError err = {0};
    set(&scene);
    condemn_unneeded(&scene);
    lab_damage(&scene.lab, "c/main/gc/" RUN "/condemned.0");
    assert_false(check(&scene, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_true(err.hint[0] != '\0');
}

static void
test_condemn_lists_say_what_was_put(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    CairnError err = {0};
    uint32_t number = 0;
    SCOPED_PACK_SET packs = {0};
    SCOPED_CONDEMNED put = {0};
    SCOPED_CONDEMNED read = {0};
    BackupId dead[300];
    lab_open(&lab);
    /* Every second pack, so that no ranges merge; more than one object takes. */
    for (uint32_t i = 0; i < CONDEMNED_RANGES + 1000; i++)
        assert_true(pack_set_add(&packs,
                                 (PackRange){.creator = test_backup_id(1 + i / 20000),
                                             .is_map = i % 3 == 0,
                                             .first_pack = 2 * i,
                                             .pack_count = 1},
                                 &err));
    pack_set_settle(&packs);
    for (uint64_t i = 0; i < 300; i++)
        dead[i] = test_backup_id(i);
    assert_true(condemned_put(lab.repository, "main", RUN, &number, &packs, dead, 300, &put, &err));
    assert_int_equal(number, 2);
    assert_true(condemned_read_all(lab.repository, "main", &read, &err));
    assert_int_equal(read.count, 2);
    SCOPED_PACK_SET all = {0};
    size_t dead_count = 0;
    for (size_t i = 0; i < read.count; i++) {
        assert_string_equal(read.lists[i].run, RUN);
        assert_int_equal(read.lists[i].at_us, lab.wall_us);
        assert_true(pack_set_add_all(&all, &read.lists[i].packs, &err));
        dead_count += read.lists[i].dead_count;
    }
    pack_set_settle(&all);
    assert_int_equal(dead_count, 300);
    assert_int_equal(all.count, packs.count);
    for (size_t i = 0; i < all.count; i++)
        assert_memory_equal(&all.ranges[i].creator, &packs.ranges[i].creator, sizeof(BackupId));
    assert_int_equal(pack_set_packs(&all), pack_set_packs(&packs));
}

/* --- pack_set.c, against a bitmap --- */

enum { BITS = 64 };

static uint64_t
bits_of(const PackSet *set, const BackupId *creator, bool is_map)
{
    uint64_t bits = 0;
    for (uint32_t i = 0; i < BITS; i++)
        bits |= (uint64_t)pack_set_has(set, creator, is_map, i) << i;
    return bits;
}

static void
fill(PackSet *set, const BackupId *creator, uint64_t *random, uint64_t bits[2])
{
    CairnError err = {0};
    bits[0] = bits[1] = 0;
    for (int i = 0; i < 6; i++) {
        const uint32_t first = (uint32_t)test_random_below(random, BITS);
        const uint32_t count = (uint32_t)test_random_below(random, BITS - first + 1) % 12;
        const bool is_map = test_random_below(random, 2) == 0;
        assert_true(pack_set_add(
            set,
            (PackRange){
                .creator = *creator, .is_map = is_map, .first_pack = first, .pack_count = count},
            &err));
        for (uint32_t k = first; k < first + count; k++)
            bits[is_map] |= UINT64_C(1) << k;
    }
    pack_set_settle(set);
}

static void
test_pack_sets_are_sets(void **state)
{
    (void)state;
    uint64_t random = 42;
    CairnError err = {0};
    const BackupId creator = test_backup_id(1), other = test_backup_id(2);
    for (int round = 0; round < 2000; round++) {
        SCOPED_PACK_SET a = {0};
        SCOPED_PACK_SET b = {0};
        SCOPED_PACK_SET both = {0};
        SCOPED_PACK_SET rest = {0};
        uint64_t a_bits[2], b_bits[2], other_bits[2];
        fill(&a, &other, &random, other_bits);
        fill(&a, &creator, &random, a_bits);
        fill(&b, &creator, &random, b_bits);
        assert_true(pack_set_intersect(&a, &b, &both, &err));
        assert_true(pack_set_subtract(&a, &b, &rest, &err));
        for (int is_map = 0; is_map < 2; is_map++) {
            assert_true(bits_of(&a, &creator, is_map) == a_bits[is_map]);
            assert_true(bits_of(&both, &creator, is_map) == (a_bits[is_map] & b_bits[is_map]));
            assert_true(bits_of(&rest, &creator, is_map) == (a_bits[is_map] & ~b_bits[is_map]));
            assert_true(bits_of(&rest, &other, is_map) == other_bits[is_map]);
        }
        assert_int_equal(pack_set_packs(&a), __builtin_popcountll(a_bits[0]) +
                                                 __builtin_popcountll(a_bits[1]) +
                                                 __builtin_popcountll(other_bits[0]) +
                                                 __builtin_popcountll(other_bits[1]));
        pack_set_remove_creator(&a, &creator);
        assert_true(bits_of(&a, &creator, false) == 0 && bits_of(&a, &creator, true) == 0);
        assert_true(bits_of(&a, &other, true) == other_bits[1]);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources_are_refused_when_a_collector_may_take_them),
        cmocka_unit_test(test_without_sources_there_is_nothing_to_refuse),
        cmocka_unit_test(test_a_condemn_list_that_cannot_be_read_is_not_absent),
        cmocka_unit_test(test_condemn_lists_say_what_was_put),
        cmocka_unit_test(test_pack_sets_are_sets),
    };
    return cmocka_run_group_tests_name("claim", tests, NULL, NULL);
}
