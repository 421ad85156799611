/*
 * Scenes of the simulator: three to five actors of the real code who meet within a few calls of
 * each other, as chance would hardly ever have it. Each scene is played with the others coming in
 * after every single call of one of them; README.md of tests/sim has the
 * rules that must hold.
 */
#include "tests/sim/sim.h"

#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

enum { CALLS = 60, HOST = 0, OTHER_HOST = 1 };

/* Plays one scene, the others coming in after so many calls. False: there are no so many calls. */
typedef bool ScenePlay(Sim *sim, unsigned calls);

static void
play_one(Sim *sim, const char *role, const BackupId *subject)
{
    sim_scene_finish(sim_scene_enter(sim, role, HOST, subject));
}

/* A full backup: the only one there is. */
static BackupId
make_backup(Sim *sim)
{
    play_one(sim, "writer", NULL);
    assert_int_equal(sim->backup_count, 1);
    return sim->backups[0].bid;
}

static BackupId
make_expired_backup(Sim *sim)
{
    const BackupId bid = make_backup(sim);
    play_one(sim, "expirer", &bid);
    assert_true(sim->backups[0].expired);
    return bid;
}

/* A collector that has looked twice, and is about to doom the backup. */
static Actor *
collector_before_doom(Sim *sim)
{
    Actor *collector = sim_scene_enter(sim, "collector", HOST, NULL);
    if (!sim_scene_until(collector, "create", "/doomed."))
        fail_msg("no collector dooms: %s", sim->failure);
    return collector;
}

/* How many backups were committed in all of them. */
static unsigned
play_after_each_call(ScenePlay *play, SimStorageKind kind)
{
    Sim *sim = malloc(sizeof *sim);
    bool more = true;
    unsigned calls = 1, commits = 0;
    assert_non_null(sim);
    for (; more && calls < CALLS; calls++) {
        sim_scene_begin(sim, kind, calls);
        more = play(sim, calls);
        if (!sim_scene_end(sim))
            fail_msg("after %u calls: %s", calls, sim->failure);
        commits += sim->commits;
        sim_free(sim);
    }
    free(sim);
    assert_true(calls > 5);
    return commits;
}

/*
 * One collector sweeps; another, which has doomed the same backup, sees an un-expire in its last
 * look and gives way. The first one's doomed object is what tells the un-expire that it is too
 * late.
 */
static bool
play_a_second_collector_gives_way(Sim *sim, unsigned calls)
{
    const BackupId bid = make_expired_backup(sim);
    Actor *first = sim_scene_enter(sim, "collector", HOST, NULL);
    assert_true(sim_scene_until(first, "remove", bid.text));
    Actor *second = collector_before_doom(sim);
    const bool more = sim_scene_calls(second, calls);
    Actor *undo = sim_scene_enter(sim, "unexpirer", HOST, &bid);
    assert_true(sim_scene_until(undo, "create", "/mark."));
    sim_scene_calls(undo, 1);
    sim_scene_finish(second);
    sim_scene_finish(undo);
    sim_scene_finish(first);
    return more;
}

static void
test_who_gives_way_takes_back_only_what_is_its_own(void **state)
{
    (void)state;
    play_after_each_call(play_a_second_collector_gives_way, SIM_LOCAL);
    play_after_each_call(play_a_second_collector_gives_way, SIM_S3);
}

/*
 * An un-expire that had looked before the collector doomed lets a reader in; then the backup is
 * expired again, with the reader still in it. Only a collector that asks for the pins after the
 * marks knows of it.
 */
static bool
play_a_reader_comes_in_between_two_expiries(Sim *sim, unsigned calls)
{
    const BackupId bid = make_expired_backup(sim);
    Actor *collector = collector_before_doom(sim);
    Actor *undo = sim_scene_enter(sim, "unexpirer", HOST, &bid);
    assert_true(sim_scene_until(undo, "create", "/mark."));
    sim_scene_until(undo, "create", "/mark.");
    const bool more = sim_scene_calls(collector, calls);
    sim_scene_finish(undo);
    Actor *reader = sim_scene_enter(sim, "reader", HOST, &bid);
    sim_scene_until(reader, "open", "/m/");
    play_one(sim, "expirer", &bid);
    sim_scene_finish(collector);
    sim_scene_finish(reader);
    return more;
}

static void
test_a_reader_between_two_expiries_reads_to_the_end(void **state)
{
    (void)state;
    play_after_each_call(play_a_reader_comes_in_between_two_expiries, SIM_LOCAL);
    play_after_each_call(play_a_reader_comes_in_between_two_expiries, SIM_S3);
}

/*
 * The collector's list is gone, since another one found the backup alive again; so a writer takes
 * it for a parent, and it is expired once more. Nothing but the last look at intents and fates
 * knows of the child, which is committed in the middle of that look.
 */
static bool
play_a_child_is_committed_during_the_last_look(Sim *sim, unsigned calls)
{
    const BackupId bid = make_expired_backup(sim);
    Actor *collector = collector_before_doom(sim);
    play_one(sim, "unexpirer", &bid);
    play_one(sim, "collector", NULL);
    assert_false(sim->backups[0].expired);
    Actor *writer = sim_scene_enter(sim, "writer", HOST, &bid);
    assert_true(sim_scene_until(writer, "create", "/fate"));
    play_one(sim, "expirer", &bid);
    const bool more = sim_scene_calls(collector, calls);
    sim_scene_finish(writer);
    assert_int_equal(sim->commits, 2);
    sim_scene_finish(collector);
    return more;
}

static void
test_a_commit_in_the_middle_of_the_last_look_is_not_missed(void **state)
{
    (void)state;
    play_after_each_call(play_a_child_is_committed_during_the_last_look, SIM_LOCAL);
    play_after_each_call(play_a_child_is_committed_during_the_last_look, SIM_S3);
}

/* An un-expire comes when packs are going, or when they are gone and doomed object or summary is
 * left. */
static bool
play_an_unexpire_comes_during_the_sweep(Sim *sim, unsigned calls)
{
    const BackupId bid = make_expired_backup(sim);
    Actor *collector = sim_scene_enter(sim, "collector", HOST, NULL);
    assert_true(sim_scene_until(collector, "remove", bid.text));
    const bool more = sim_scene_calls(collector, calls);
    play_one(sim, "unexpirer", &bid);
    sim_scene_finish(collector);
    return more;
}

static void
test_nothing_of_which_a_part_is_gone_is_unexpired(void **state)
{
    (void)state;
    play_after_each_call(play_an_unexpire_comes_during_the_sweep, SIM_LOCAL);
    play_after_each_call(play_an_unexpire_comes_during_the_sweep, SIM_S3);
}

/* A whole run deletes the backup between any two calls of a reader that found it alive. */
static bool
play_a_backup_goes_while_a_reader_comes(Sim *sim, unsigned calls)
{
    const BackupId bid = make_backup(sim);
    Actor *reader = sim_scene_enter(sim, "reader", HOST, &bid);
    assert_true(sim_scene_until(reader, "", ""));
    const bool more = sim_scene_calls(reader, calls);
    play_one(sim, "expirer", &bid);
    play_one(sim, "collector", NULL);
    sim_scene_finish(reader);
    return more;
}

static void
test_a_reader_is_told_before_it_begins_or_reads_to_the_end(void **state)
{
    (void)state;
    play_after_each_call(play_a_backup_goes_while_a_reader_comes, SIM_LOCAL);
    play_after_each_call(play_a_backup_goes_while_a_reader_comes, SIM_S3);
}

/*
 * A writer whose parent is expired gives up and removes its packs; it is revoked by force while it
 * does, and somebody salvages them.
 */
static bool
play_an_attempt_is_salvaged_while_it_gives_up(Sim *sim, unsigned calls)
{
    const BackupId bid = make_backup(sim);
    Actor *writer = sim_scene_enter(sim, "writer", HOST, &bid);
    assert_true(sim_scene_until(writer, "create", "/refs"));
    const BackupId attempt = sim->backups[1].bid;
    play_one(sim, "expirer", &bid);
    const bool more = sim_scene_calls(writer, calls);
    play_one(sim, "forcer", &attempt);
    Actor *salvager = sim_scene_enter(sim, "writer", HOST, &attempt);
    salvager->salvages = true;
    sim_scene_until(salvager, "create", "/fate");
    sim_scene_finish(writer);
    sim_scene_finish(salvager);
    return more;
}

static void
test_who_gives_up_removes_nothing_that_another_one_salvages(void **state)
{
    (void)state;
    /* The first backup and the last one of each scene's end, and the salvager's. */
    assert_true(play_after_each_call(play_an_attempt_is_salvaged_while_it_gives_up, SIM_LOCAL) >
                30);
    assert_true(play_after_each_call(play_an_attempt_is_salvaged_while_it_gives_up, SIM_S3) > 30);
}

/*
 * Listings may be a minute old: the collector's last look misses the mark of the un-expire, whose
 * look would miss the doomed object, did it not wait.
 */
static bool
play_listings_hide_both_from_each_other(Sim *sim, unsigned calls)
{
    const BackupId bid = make_expired_backup(sim);
    sim->now_us += SIM_HOUR;          /* old enough for every listing */
    play_one(sim, "collector", NULL); /* condemns */
    sim->now_us += 25 * SIM_HOUR;
    Actor *collector = collector_before_doom(sim);
    Actor *undo = sim_scene_enter(sim, "unexpirer", OTHER_HOST, &bid);
    assert_true(sim_scene_until(undo, "create", "/mark."));
    sim_scene_calls(undo, 1);
    const bool more = sim_scene_calls(collector, calls);
    sim_scene_finish(undo);
    sim_scene_finish(collector);
    return more;
}

static void
test_old_listings_hide_no_unexpire_from_a_collector(void **state)
{
    (void)state;
    play_after_each_call(play_listings_hide_both_from_each_other, SIM_NFS);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_gives_way_takes_back_only_what_is_its_own),
        cmocka_unit_test(test_a_reader_between_two_expiries_reads_to_the_end),
        cmocka_unit_test(test_a_commit_in_the_middle_of_the_last_look_is_not_missed),
        cmocka_unit_test(test_nothing_of_which_a_part_is_gone_is_unexpired),
        cmocka_unit_test(test_a_reader_is_told_before_it_begins_or_reads_to_the_end),
        cmocka_unit_test(test_who_gives_up_removes_nothing_that_another_one_salvages),
        cmocka_unit_test(test_old_listings_hide_no_unexpire_from_a_collector),
    };
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests_name("scenes", tests, NULL, NULL);
}
