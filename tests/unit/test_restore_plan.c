#include "restore/plan.h"

#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MIB = 1 << 20, FIRST_SEGMENT = 5, SEGMENTS = 3 };

#define SECONDS(n) (INT64_C(1000000) * (n) + INT64_C(1700000000000000))

/*
 * Segments 5 to 7 of timeline 1:
 *   backup A { commit 100 at 10 } commit 101 at 20, point "once" at 21, "twice" at 22, commit 102
 * at 30, backup B { commit 103 at 40 } commit 104 at 50, "twice" at 51, "twice" at 52, commit 105
 * at 60, switch, filler, commit 106 at 70, point "last" at 75, switch. A ended at 15, B at 45.
 */
typedef struct {
    WalFixture wal;
    Catalog catalog;
    CatalogBackup backups[2]; /* A, B */
    uint64_t commit[107];     /* where each begins */
    uint64_t after_104;
    uint64_t once;
    uint64_t fork_lsn; /* between commits 104 and 105 */
    uint64_t last_switch;
    uint64_t end_lsn;
} Fixture;

static void
begin_backup(Fixture *fixture, int i, const char *label, uint64_t start_lsn)
{
    CatalogBackup *backup = &fixture->backups[i];
    Fate *fate = fate_new();

    assert_non_null(fate);
    *backup = (CatalogBackup){.presence = BACKUP_COMMITTED, .fate = fate};
    snprintf(backup->bid.text, sizeof backup->bid.text, "%010u-0123456789abcdef",
             (unsigned)(i + 1) % 1000);
    fate->committed = true;
    fate->bid = backup->bid;
    fate->label = label;
    fate->cluster = "main";
    fate->system_id = fixture->wal.incarnation.system_id;
    fate->major = fixture->wal.incarnation.major;
    fate->wal_segment_size = MIB;
    fate->start_lsn = start_lsn;
    fate->start_timeline = 1;
    fate->stop_timeline = 1;
}

static void
end_backup(Fixture *fixture, int i, uint64_t stop_lsn, int64_t stopped_us)
{
    fixture->backups[i].fate->stop_lsn = stop_lsn;
    fixture->backups[i].fate->stopped_us = stopped_us;
}

static void
commit(Fixture *fixture, WalBuilder *wal, uint32_t xid, int64_t time_us)
{
    fixture->commit[xid] = wal_builder_commit(wal, xid, time_us);
}

static void
write_history(Fixture *fixture, WalBuilder *wal)
{
    wal_builder_filler(wal, 4000);
    begin_backup(fixture, 0, "A", wal->next_lsn);
    commit(fixture, wal, 100, SECONDS(10));
    wal_builder_filler(wal, 100); /* where a server writes its end-of-backup record */
    end_backup(fixture, 0, wal->next_lsn, SECONDS(15));
    commit(fixture, wal, 101, SECONDS(20));
    fixture->once = wal_builder_restore_point(wal, SECONDS(21), "once");
    wal_builder_restore_point(wal, SECONDS(22), "twice");
    commit(fixture, wal, 102, SECONDS(30));
    while (wal->next_lsn < 6 * MIB + 100000)
        wal_builder_filler(wal, 4000);

    begin_backup(fixture, 1, "B", wal->next_lsn);
    commit(fixture, wal, 103, SECONDS(40));
    wal_builder_filler(wal, 100);
    end_backup(fixture, 1, wal->next_lsn, SECONDS(45));
    commit(fixture, wal, 104, SECONDS(50));
    fixture->after_104 = wal->next_lsn;
    wal_builder_restore_point(wal, SECONDS(51), "twice");
    wal_builder_restore_point(wal, SECONDS(52), "twice");
    fixture->fork_lsn = wal->next_lsn;
    commit(fixture, wal, 105, SECONDS(60));
    wal_builder_switch(wal);
    wal_builder_filler(wal, 4000);
    commit(fixture, wal, 106, SECONDS(70));
    wal_builder_restore_point(wal, SECONDS(75), "last");
    fixture->last_switch = wal_builder_switch(wal);
    fixture->end_lsn = (FIRST_SEGMENT + SEGMENTS) * (uint64_t)MIB;
}

static void
store_segments(Fixture *fixture, const WalBuilder *wal, uint32_t timeline, int first)
{
    for (int i = first; i < SEGMENTS; i++) {
        char name[WAL_NAME_SIZE];
        const size_t at = (size_t)i * MIB;
        uint8_t *segment = calloc(1, MIB);
        assert_non_null(segment);
        if (wal->size > at)
            memcpy(segment, wal->data + at, wal->size - at < MIB ? wal->size - at : MIB);
        wal_segment_name(name, timeline, (uint64_t)(FIRST_SEGMENT + i), MIB);
        wal_fixture_store(&fixture->wal, name, segment, MIB);
        free(segment);
    }
}

static int
setup(void **state)
{
    static Fixture fixture;
    WalBuilder wal;

    memset(&fixture, 0, sizeof fixture);
    wal_fixture_open(&fixture.wal, MIB);
    wal_builder_init(&wal, 15, MIB, FIRST_SEGMENT * (uint64_t)MIB);
    write_history(&fixture, &wal);
    store_segments(&fixture, &wal, 1, 0);
    wal_builder_free(&wal);
    fixture.catalog.backups = fixture.backups;
    fixture.catalog.count = 2;
    *state = &fixture;
    return 0;
}

static int
teardown(void **state)
{
    Fixture *fixture = *state;
    fate_free(fixture->backups[0].fate);
    fate_free(fixture->backups[1].fate);
    wal_fixture_close(&fixture->wal);
    return 0;
}

/* The same WAL on timeline 2 from the fork on, without its history. */
static void
store_fork(Fixture *fixture)
{
    WalBuilder wal;
    Fixture again = {.wal = fixture->wal};

    wal_builder_init(&wal, 15, MIB, FIRST_SEGMENT * (uint64_t)MIB);
    write_history(&again, &wal);
    store_segments(fixture, &wal, 2, 1);
    wal_builder_free(&wal);
    fate_free(again.backups[0].fate);
    fate_free(again.backups[1].fate);
}

static void
fork_timeline(Fixture *fixture)
{
    char history[64];

    store_fork(fixture);
    snprintf(history, sizeof history, "1\t0/%X\tx\n", (unsigned)fixture->fork_lsn);
    wal_fixture_store(&fixture->wal, "00000002.history", history, strlen(history));
}

static RestorePlan *
try_plan(Fixture *fixture, Target target, const char *set, CairnError *err)
{
    const PlanOptions options = {.cluster = "main", .set = set};
    return plan_make(fixture->wal.repository, &fixture->catalog, &target, &options, err);
}

static RestorePlan *
plan_of(Fixture *fixture, Target target, const char *set)
{
    CairnError err = {0};
    RestorePlan *plan = try_plan(fixture, target, set, &err);
    if (plan == NULL)
        fail_msg("%s", err.message);
    return plan;
}

static CairnError
refusal(Fixture *fixture, Target target, const char *set, CairnErrorKind kind)
{
    CairnError err = {0};
    assert_null(try_plan(fixture, target, set, &err));
    if (err.kind != kind)
        fail_msg("%s", err.message);
    return err;
}

static Target
at_time(int64_t time_us, bool exclusive)
{
    return (Target){.type = TARGET_TIME, .time_us = time_us, .exclusive = exclusive};
}

static Target
named(const char *name)
{
    Target target = {.type = TARGET_NAME};
    snprintf(target.name, sizeof target.name, "%s", name);
    return target;
}

static void
assert_stops(const RestorePlan *plan, const char *label, uint64_t record_lsn, bool before)
{
    assert_string_equal(plan->backup->fate->label, label);
    assert_true(plan->stop.has_record);
    assert_int_equal(plan->stop.record.start_lsn, record_lsn);
    assert_int_equal(plan->stop.before, before);
}

static void
test_time_stops_before_the_first_later_commit(void **state)
{
    Fixture *fixture = *state;
    SCOPED(RestorePlan) plan = plan_of(fixture, at_time(SECONDS(50), false), NULL);
    assert_stops(plan, "B", fixture->commit[105], true);
    assert_string_equal(plan->setting, "recovery_target_time");
    assert_true(plan->inclusive);
    assert_int_equal(plan->stop.last_commit_us, SECONDS(50));
    assert_int_equal(plan->timeline, 1);

    SCOPED(RestorePlan) exclusive = plan_of(fixture, at_time(SECONDS(50), true), NULL);
    assert_stops(exclusive, "B", fixture->commit[104], true);
    assert_false(exclusive->inclusive);
}

static void
test_a_time_within_a_backup_takes_the_one_before(void **state)
{
    Fixture *fixture = *state;
    SCOPED(RestorePlan) plan = plan_of(fixture, at_time(SECONDS(42), false), NULL);
    assert_stops(plan, "A", fixture->commit[104], true);
}

static void
test_a_time_after_the_last_commit_is_written_as_the_proven_end(void **state)
{
    Fixture *fixture = *state;
    SCOPED(RestorePlan) plan = plan_of(fixture, at_time(SECONDS(72), false), NULL);
    char lsn[LSN_TEXT_SIZE];
    assert_stops(plan, "B", fixture->last_switch, false);
    assert_string_equal(plan->setting, "recovery_target_lsn");
    lsn_format(lsn, fixture->last_switch);
    assert_string_equal(plan->value, lsn);
    assert_int_equal(plan->stop.end_lsn, fixture->end_lsn);
}

static void
test_times_outside_the_archive_are_refused_with_its_windows(void **state)
{
    Fixture *fixture = *state;
    const CairnError early = refusal(fixture, at_time(SECONDS(12), false), NULL, CAIRN_REFUSED);
    const CairnError late = refusal(fixture, at_time(SECONDS(76), false), NULL, CAIRN_REFUSED);
    assert_non_null(strstr(early.message, "no backup is old enough"));
    assert_non_null(strstr(late.message, "later than the newest time"));
    assert_non_null(strstr(early.hint, "timeline 1: from "));
    assert_non_null(strstr(late.hint, "(backup A)"));
}

static void
test_lsn_stops_at_the_first_record_that_starts_there_or_later(void **state)
{
    Fixture *fixture = *state;
    Target target = {.type = TARGET_LSN, .lsn = fixture->commit[105] - 8};
    SCOPED(RestorePlan) between = plan_of(fixture, target, NULL);
    assert_stops(between, "B", fixture->commit[105], false);

    target.lsn = fixture->commit[105];
    target.exclusive = true;
    SCOPED(RestorePlan) exclusive = plan_of(fixture, target, NULL);
    assert_stops(exclusive, "B", fixture->commit[105], true);
    assert_int_equal(exclusive->stop.end_lsn, fixture->commit[105]);
}

static void
test_lsn_before_a_backup_ended_takes_the_one_before(void **state)
{
    Fixture *fixture = *state;
    const Target target = {.type = TARGET_LSN, .lsn = fixture->commit[103]};
    SCOPED(RestorePlan) plan = plan_of(fixture, target, NULL);
    assert_stops(plan, "A", fixture->commit[103], false);

    const Target too_old = {.type = TARGET_LSN, .lsn = fixture->commit[100]};
    refusal(fixture, too_old, NULL, CAIRN_REFUSED);
}

static void
test_the_end_of_the_archive_is_reached_and_nothing_behind_it(void **state)
{
    Fixture *fixture = *state;
    Target target = {.type = TARGET_LSN, .lsn = fixture->end_lsn};
    SCOPED(RestorePlan) at_end = plan_of(fixture, target, NULL);
    assert_stops(at_end, "B", fixture->last_switch, false);

    /* Where the server says it stands after the switch: behind the next page's header. */
    target.lsn = fixture->end_lsn + 40;
    SCOPED(RestorePlan) behind_header = plan_of(fixture, target, NULL);
    assert_stops(behind_header, "B", fixture->last_switch, false);

    target.lsn = fixture->end_lsn + 41;
    refusal(fixture, target, NULL, CAIRN_REFUSED);
}

static void
test_xid_is_found_from_the_newest_backup_that_serves(void **state)
{
    Fixture *fixture = *state;
    Target target = {.type = TARGET_XID, .xid = 104};
    SCOPED(RestorePlan) newer = plan_of(fixture, target, NULL);
    assert_stops(newer, "B", fixture->commit[104], false);

    target.xid = 101;
    target.exclusive = true;
    SCOPED(RestorePlan) older = plan_of(fixture, target, NULL);
    assert_stops(older, "A", fixture->commit[101], true);

    /* Within backup B, so only A leads there. */
    target = (Target){.type = TARGET_XID, .xid = 103};
    SCOPED(RestorePlan) within = plan_of(fixture, target, NULL);
    assert_stops(within, "A", fixture->commit[103], false);

    target.xid = 100;
    refusal(fixture, target, NULL, CAIRN_REFUSED);
    target.xid = 999;
    refusal(fixture, target, NULL, CAIRN_NOT_FOUND);
}

static void
test_a_name_that_follows_several_times_needs_a_backup_by_hand(void **state)
{
    Fixture *fixture = *state;
    SCOPED(RestorePlan) once = plan_of(fixture, named("once"), NULL);
    assert_stops(once, "A", fixture->once, false);

    const CairnError err = refusal(fixture, named("twice"), NULL, CAIRN_REFUSED);
    assert_non_null(strstr(err.message, "2 restore points"));
    SCOPED(RestorePlan) by_hand = plan_of(fixture, named("twice"), "B");
    assert_stops(by_hand, "B", fixture->after_104, false);
    refusal(fixture, named("never"), NULL, CAIRN_NOT_FOUND);
}

static void
test_default_and_immediate_take_the_newest_backup(void **state)
{
    Fixture *fixture = *state;
    SCOPED(RestorePlan) all = plan_of(fixture, (Target){.type = TARGET_DEFAULT}, NULL);
    assert_stops(all, "B", fixture->last_switch, false);
    assert_null(all->setting);
    assert_int_equal(all->timeline, 1);

    SCOPED(RestorePlan) immediate = plan_of(fixture, (Target){.type = TARGET_IMMEDIATE}, NULL);
    assert_string_equal(immediate->value, "immediate");
    assert_int_equal(immediate->stop.end_lsn, fixture->backups[1].fate->stop_lsn);
}

static void
test_damaged_and_expired_backups_are_passed_over(void **state)
{
    Fixture *fixture = *state;
    fixture->backups[1].damaged = true;
    SCOPED(RestorePlan) plan = plan_of(fixture, at_time(SECONDS(50), false), NULL);
    assert_stops(plan, "A", fixture->commit[105], true);
    refusal(fixture, (Target){.type = TARGET_DEFAULT}, "B", CAIRN_REFUSED);

    fixture->backups[0].presence = BACKUP_EXPIRED;
    refusal(fixture, at_time(SECONDS(50), false), NULL, CAIRN_NOT_FOUND);
}

static void
test_a_gap_is_no_end(void **state)
{
    Fixture *fixture = *state;
    assert_int_equal(remove(wal_fixture_object_path(&fixture->wal,
                                                    "00000001/00000000/000000010000000000000006")),
                     0);
    /* B needs the lost segment itself; from A on the WAL breaks off, and 7 is there. */
    const CairnError err = refusal(fixture, (Target){.type = TARGET_DEFAULT}, NULL, CAIRN_REFUSED);
    assert_non_null(strstr(err.message, "000000010000000000000006 is missing"));
    refusal(fixture, (Target){.type = TARGET_LSN, .lsn = fixture->commit[106]}, NULL,
            CAIRN_REFUSED);
    refusal(fixture, (Target){.type = TARGET_IMMEDIATE}, "B", CAIRN_REFUSED);
    SCOPED(RestorePlan) before_gap = plan_of(fixture, at_time(SECONDS(20), false), NULL);
    assert_stops(before_gap, "A", fixture->commit[102], true);
}

static void
test_a_gap_in_an_ancestor_is_no_end_either(void **state)
{
    Fixture *fixture = *state;
    const char history[] = "1\t0/800100\tx\n";
    Target numbered = {.type = TARGET_DEFAULT, .timeline_choice = TIMELINE_NUMBER, .timeline = 2};
    /* Timeline 2 began, and nothing of it is archived yet. */
    wal_fixture_store(&fixture->wal, "00000002.history", history, strlen(history));
    SCOPED(RestorePlan) whole = plan_of(fixture, numbered, NULL);
    assert_int_equal(whole->timeline, 2);

    assert_int_equal(remove(wal_fixture_object_path(&fixture->wal,
                                                    "00000001/00000000/000000010000000000000006")),
                     0);
    const CairnError err = refusal(fixture, numbered, NULL, CAIRN_REFUSED);
    assert_non_null(strstr(err.message, "000000010000000000000006 is missing"));
}

static void
test_a_timeline_without_wal_is_not_recovered_into_its_parent(void **state)
{
    Fixture *fixture = *state;
    char history[64];
    char fork[LSN_TEXT_SIZE];
    /* It began within the last stored segment of timeline 1, and nothing of it is archived yet. */
    lsn_format(fork, fixture->last_switch);
    snprintf(history, sizeof history, "1\t%s\tx\n", fork);
    wal_fixture_store(&fixture->wal, "00000002.history", history, strlen(history));

    Target numbered = {.type = TARGET_DEFAULT, .timeline_choice = TIMELINE_NUMBER, .timeline = 2};
    const CairnError err = refusal(fixture, numbered, NULL, CAIRN_REFUSED);
    assert_non_null(strstr(err.message, "no WAL of it is stored"));
    assert_non_null(strstr(err.hint, "--target-timeline=1 --lsn="));

    numbered.type = TARGET_XID;
    numbered.xid = 102;
    SCOPED(RestorePlan) before = plan_of(fixture, numbered, NULL);
    assert_stops(before, "A", fixture->commit[102], false);
}

static void
test_several_leaves_are_refused_unless_the_target_lies_before_the_fork(void **state)
{
    Fixture *fixture = *state;
    fork_timeline(fixture);

    const CairnError err = refusal(fixture, (Target){.type = TARGET_DEFAULT}, NULL, CAIRN_REFUSED);
    assert_non_null(strstr(err.hint, "--target-timeline"));
    assert_non_null(strstr(err.hint, "timeline 2 (left 1 at "));
    refusal(fixture, (Target){.type = TARGET_XID, .xid = 106}, NULL, CAIRN_REFUSED);

    SCOPED(RestorePlan) before = plan_of(fixture, (Target){.type = TARGET_XID, .xid = 104}, NULL);
    assert_stops(before, "B", fixture->commit[104], false);
    Target latest = {.type = TARGET_DEFAULT, .timeline_choice = TIMELINE_LATEST};
    SCOPED(RestorePlan) on_latest = plan_of(fixture, latest, NULL);
    assert_int_equal(on_latest->timeline, 2);
    Target numbered = {.type = TARGET_DEFAULT, .timeline_choice = TIMELINE_NUMBER, .timeline = 1};
    SCOPED(RestorePlan) on_first = plan_of(fixture, numbered, NULL);
    assert_int_equal(on_first->timeline, 1);
    assert_int_equal(on_first->closed_by, 0);
    numbered.timeline = 3;
    refusal(fixture, numbered, NULL, CAIRN_NOT_FOUND);
}

static void
test_wal_whose_history_is_not_stored_is_never_passed_over(void **state)
{
    Fixture *fixture = *state;
    const TargetType types[] = {TARGET_DEFAULT, TARGET_IMMEDIATE, TARGET_STANDBY, TARGET_XID};
    const TimelineChoice choices[] = {TIMELINE_UNSAID, TIMELINE_LATEST};
    store_fork(fixture);

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        for (size_t j = 0; j < sizeof choices / sizeof choices[0]; j++) {
            const Target target = {.type = types[i], .xid = 104, .timeline_choice = choices[j]};
            const CairnError err = refusal(fixture, target, NULL, CAIRN_REFUSED);
            assert_non_null(strstr(err.message, "timeline 2"));
            assert_non_null(strstr(err.message, "00000002.history"));
            assert_non_null(strstr(err.hint, "pgcairn-wal push pg_wal/00000002.history"));
            assert_non_null(strstr(err.hint, "--target-timeline="));
            assert_non_null(strstr(err.hint, "timeline 1: from "));
        }
    }
    refusal(fixture, at_time(SECONDS(50), false), "B", CAIRN_REFUSED);
}

static void
test_a_timeline_named_by_number_can_be_looked_at_without_the_other_history(void **state)
{
    Fixture *fixture = *state;
    Target target = {
        .type = TARGET_XID, .xid = 104, .timeline_choice = TIMELINE_NUMBER, .timeline = 1};
    store_fork(fixture);

    SCOPED(RestorePlan) plan = plan_of(fixture, target, NULL);
    assert_stops(plan, "B", fixture->commit[104], false);
    assert_int_equal(plan->timeline, 1);
    assert_int_equal(plan->closed_by, 2);

    /* PostgreSQL would ask for 00000002.history when it opens, and not get an answer. */
    target.action = ACTION_PROMOTE;
    refusal(fixture, target, NULL, CAIRN_REFUSED);
    target = (Target){.type = TARGET_DEFAULT, .timeline_choice = TIMELINE_NUMBER, .timeline = 1};
    refusal(fixture, target, NULL, CAIRN_REFUSED);
    target.timeline = 2;
    const CairnError err = refusal(fixture, target, NULL, CAIRN_NOT_FOUND);
    assert_non_null(strstr(err.hint, "pgcairn-wal push pg_wal/00000002.history"));
}

/* As where it is missing, but said as what it is; and nobody can tell the end of the archive. */
static void
test_a_damaged_history_leaves_the_other_timelines_targets(void **state)
{
    Fixture *fixture = *state;
    Target target = {
        .type = TARGET_XID, .xid = 104, .timeline_choice = TIMELINE_NUMBER, .timeline = 1};
    fork_timeline(fixture);
    const char *object = wal_fixture_object_path(&fixture->wal, "00000002/history");
    assert_int_equal(truncate(object, 100), 0);

    CairnError err = refusal(fixture, (Target){.type = TARGET_DEFAULT}, NULL, CAIRN_CORRUPT);
    assert_non_null(strstr(err.message, "00000002.history"));
    assert_non_null(strstr(err.message, "damaged"));
    assert_non_null(strstr(err.message, "/00000002/history"));
    assert_non_null(strstr(err.hint, "--target-timeline="));
    assert_non_null(strstr(err.hint, "timeline 1: from "));
    SCOPED(RestorePlan) plan = plan_of(fixture, target, NULL);
    assert_stops(plan, "B", fixture->commit[104], false);
    assert_int_equal(plan->timeline, 1);
    assert_int_equal(plan->closed_by, 2);
    assert_string_not_equal(plan->hole_after, "");
    target.action = ACTION_PROMOTE;
    refusal(fixture, target, NULL, CAIRN_CORRUPT);
    target = (Target){.type = TARGET_DEFAULT, .timeline_choice = TIMELINE_NUMBER, .timeline = 1};
    err = refusal(fixture, target, NULL, CAIRN_CORRUPT);
    assert_non_null(strstr(err.message, "the end of the WAL"));
    target.timeline = 2;
    refusal(fixture, target, NULL, CAIRN_CORRUPT);
}

static void
test_a_backup_on_a_timeline_without_history_is_not_replaced_by_an_older_one(void **state)
{
    Fixture *fixture = *state;
    Target target = {.type = TARGET_IMMEDIATE, .timeline_choice = TIMELINE_CURRENT};
    store_fork(fixture);
    fixture->backups[1].fate->stop_timeline = 2;

    const CairnError err = refusal(fixture, target, NULL, CAIRN_REFUSED);
    assert_non_null(strstr(err.message, "00000002.history"));
    SCOPED(RestorePlan) older = plan_of(fixture, target, "A");
    assert_string_equal(older->backup->fate->label, "A");
}

static void
test_a_history_told_by_a_later_timeline_is_enough(void **state)
{
    Fixture *fixture = *state;
    char history[96];
    store_fork(fixture);
    snprintf(history, sizeof history, "1\t0/%X\tx\n2\t0/%X\tx\n", (unsigned)fixture->fork_lsn,
             (unsigned)fixture->end_lsn);
    wal_fixture_store(&fixture->wal, "00000003.history", history, strlen(history));

    /* Timelines 1 and 3 disagree on what follows 105, so before that there is one answer. */
    SCOPED(RestorePlan) plan = plan_of(fixture, (Target){.type = TARGET_XID, .xid = 104}, NULL);
    assert_stops(plan, "B", fixture->commit[104], false);
}

static void
test_backups_of_an_earlier_system_are_named_where_the_target_is_refused(void **state)
{
    Fixture *fixture = *state;
    fixture->backups[0].fate->system_id++;
    const CairnError err = refusal(fixture, at_time(SECONDS(20), false), NULL, CAIRN_REFUSED);
    assert_non_null(strstr(err.message, "no backup is old enough"));
    assert_non_null(strstr(err.hint, "1 backup of an earlier system: by --set=LABEL"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_time_stops_before_the_first_later_commit, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_time_within_a_backup_takes_the_one_before, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_a_time_after_the_last_commit_is_written_as_the_proven_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_times_outside_the_archive_are_refused_with_its_windows,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_lsn_stops_at_the_first_record_that_starts_there_or_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lsn_before_a_backup_ended_takes_the_one_before, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_the_end_of_the_archive_is_reached_and_nothing_behind_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_xid_is_found_from_the_newest_backup_that_serves, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_a_name_that_follows_several_times_needs_a_backup_by_hand, setup, teardown),
        cmocka_unit_test_setup_teardown(test_default_and_immediate_take_the_newest_backup, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_damaged_and_expired_backups_are_passed_over, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_gap_is_no_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_gap_in_an_ancestor_is_no_end_either, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_a_timeline_without_wal_is_not_recovered_into_its_parent, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_several_leaves_are_refused_unless_the_target_lies_before_the_fork, setup,
            teardown),
        cmocka_unit_test_setup_teardown(test_wal_whose_history_is_not_stored_is_never_passed_over,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_timeline_named_by_number_can_be_looked_at_without_the_other_history, setup,
            teardown),
        cmocka_unit_test_setup_teardown(
            test_a_backup_on_a_timeline_without_history_is_not_replaced_by_an_older_one, setup,
            teardown),
        cmocka_unit_test_setup_teardown(
            test_backups_of_an_earlier_system_are_named_where_the_target_is_refused, setup,
            teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_history_leaves_the_other_timelines_targets,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_history_told_by_a_later_timeline_is_enough, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
