#include "repository/verify.h"

#include "repository/evidence.h"
#include "repository/object.h"
#include "repository/pack.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/verify_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static int
open_fixture(void **state)
{
    VerifyFixture *fixture = malloc(sizeof *fixture);
    assert_non_null(fixture);
    verify_fixture_open(fixture);
    *state = fixture;
    return 0;
}

static int
close_fixture(void **state)
{
    verify_fixture_close(*state);
    free(*state);
    return 0;
}

#define VERIFY_TEST(function) cmocka_unit_test_setup_teardown(function, open_fixture, close_fixture)

static CatalogBackup
look_up(const VerifyFixture *fixture, const BackupId *bid)
{
    CairnError err = {0};
    SCOPED(Catalog) catalog = catalog_read(fixture->repository, "main", &err);
    assert_non_null(catalog);
    for (size_t i = 0; i < catalog->count; i++) {
        if (backup_id_equal(&catalog->backups[i].bid, bid))
            return catalog->backups[i]; /* only the flags are looked at */
    }
    fail_msg("no backup %s", bid->text);
    return (CatalogBackup){0};
}

static bool
is_verified(const VerifyFixture *fixture, int backup)
{
    return look_up(fixture, &fixture->bids[backup]).verified;
}

static bool
is_damaged(const VerifyFixture *fixture, int backup)
{
    return look_up(fixture, &fixture->bids[backup]).damaged;
}

static const char *
pack_of_first(const VerifyFixture *fixture)
{
    return verify_fixture_name(&fixture->bids[FIRST], "p/000/00000000");
}

static bool
is_suspect(const VerifyFixture *fixture, const BackupId *bid, uint32_t pack)
{
    CairnError err = {0};
    SCOPED_DAMAGED_PACKS DamagedPacks packs = {0};
    assert_true(damage_read(fixture->repository, "main", bid, &packs, &err));
    assert_false(packs.all);
    return damaged_packs_contain(&packs, &fixture->bids[FIRST], pack);
}

static void
test_every_object_is_looked_at_exactly_once(void **state)
{
    VerifyFixture *fixture = *state;
    const size_t objects = verify_fixture_count(fixture);
    static const VerifyScope scopes[] = {VERIFY_QUICK, VERIFY_FULL};
    for (size_t i = 0; i < 2; i++) {
        SCOPED(VerifyReport) report = verify_fixture_run(fixture, scopes[i], 0);
        assert_int_equal(report->finding_count, 0);
        assert_int_equal(report->object_count, objects);
        assert_int_equal(report->backup_count, 3);
        assert_int_equal(report->good_backup_count, 3);
        assert_int_equal(report->wal_file_count, VERIFY_SEGMENTS);
        for (int k = 0; k < VERIFY_BACKUPS; k++)
            assert_int_equal(is_verified(fixture, k), scopes[i] == VERIFY_FULL);
    }
}

/* How often each pack is opened. */
typedef struct {
    unsigned data, second_map;
    const VerifyFixture *fixture;
} Openings;

static void
count_opening(void *context, const char *name)
{
    Openings *openings = context;
    openings->data += strcmp(name, pack_of_first(openings->fixture)) == 0;
    openings->second_map +=
        strcmp(name, verify_fixture_name(&openings->fixture->bids[SECOND], "m/00000000")) == 0;
}

static void
test_what_is_shared_is_opened_once(void **state)
{
    VerifyFixture *fixture = *state;
    Openings openings = {.fixture = fixture};
    verify_fixture_on_open(fixture, count_opening, &openings);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    assert_int_equal(report->finding_count, 0);
    assert_int_equal(openings.data, 1);
    /* Once for its bytes, once for second's walk; third's finds the leaf proven already. */
    assert_int_equal(openings.second_map, 2);
}

typedef struct {
    const char *title;
    int backup; /* -1: a WAL segment */
    const char *below;
    uint64_t segment;
    const char *labels; /* who needs it */
} Victim;

static const Victim victims[] = {
    {"data pack", FIRST, "p/000/00000000", 0, "first, second, third"},
    {"map pack of the first", FIRST, "m/00000000", 0, "first"},
    {"map pack with a shared leaf", SECOND, "m/00000000", 0, "second, third"},
    {"map pack of the third", THIRD, "m/00000000", 0, "third"},
    {"reference summary", SECOND, "refs", 0, "second"},
    {"WAL of a backup", -1, NULL, 3, "second"},
    {"WAL between backups", -1, NULL, 4, ""},
};

static const struct {
    const char *title;
    Mutilate *mutilate;
    FindingKind kind;
} damages[] = {
    {"header flipped", mutilate_header, FINDING_DAMAGED},
    {"middle flipped", mutilate_middle, FINDING_DAMAGED},
    {"trailer flipped", mutilate_trailer, FINDING_DAMAGED},
    {"digest flipped", mutilate_digest, FINDING_DAMAGED},
    {"cut", mutilate_cut, FINDING_DAMAGED},
    {"emptied", mutilate_empty, FINDING_DAMAGED},
    {"appended to", mutilate_append, FINDING_DAMAGED},
    {"swapped", mutilate_swap, FINDING_DAMAGED},
    {"removed", mutilate_remove, FINDING_MISSING},
};
enum { VICTIMS = sizeof victims / sizeof *victims, DAMAGES = sizeof damages / sizeof *damages };

static const char *
name_of(const VerifyFixture *fixture, const Victim *victim)
{
    return victim->backup < 0 ? verify_fixture_segment(fixture, victim->segment)
                              : verify_fixture_name(&fixture->bids[victim->backup], victim->below);
}

/* A missing WAL file goes by PostgreSQL's name for it. */
static const char *
object_of(const char *name, const Victim *victim, FindingKind kind)
{
    return victim->backup < 0 && kind == FINDING_MISSING ? strrchr(name, '/') + 1 : name;
}

static void
expect_found(const VerifyReport *report, const char *name, const Victim *victim, size_t damage)
{
    const FindingKind kind = damages[damage].kind;
    const VerifyFinding *finding = verify_find(report, object_of(name, victim, kind));
    if (finding == NULL || finding->kind != kind || strcmp(finding->backups, victim->labels) != 0)
        fail_msg("%s %s: %s, touches '%s'", victim->title, damages[damage].title,
                 finding == NULL ? "not found" : finding->text,
                 finding == NULL ? "" : finding->backups);
}

static void
test_each_damage_to_each_object_is_named_with_all_who_need_it(void **state)
{
    (void)state;
    for (size_t v = 0; v < VICTIMS; v++) {
        for (size_t d = 0; d < DAMAGES; d++) {
            SCOPED_MEMORY VerifyFixture *fixture = malloc(sizeof *fixture);
            assert_non_null(fixture);
            verify_fixture_open(fixture);
            const char *name = name_of(fixture, &victims[v]);
            /* Swapped with what no backup rests on. */
            const char *other = verify_fixture_segment(fixture, 6);
            damages[d].mutilate(fixture, name, other);
            SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
            expect_found(report, name, &victims[v], d);
            for (int k = 0; k < VERIFY_BACKUPS; k++) {
                static const char *const labels[] = {"first", "second", "third"};
                const bool touched = strstr(victims[v].labels, labels[k]) != NULL;
                assert_int_equal(is_verified(fixture, k), !touched);
                /* Missing WAL may still come, and is no damage. */
                assert_int_equal(
                    is_damaged(fixture, k),
                    touched && (victims[v].backup >= 0 || damages[d].kind == FINDING_DAMAGED));
            }
            verify_fixture_close(fixture);
        }
    }
}

static void
test_a_quick_look_finds_what_is_not_there_and_no_more(void **state)
{
    (void)state;
    for (size_t v = 0; v < VICTIMS; v++) {
        SCOPED_MEMORY VerifyFixture *fixture = malloc(sizeof *fixture);
        assert_non_null(fixture);
        verify_fixture_open(fixture);
        const char *name = name_of(fixture, &victims[v]);
        mutilate_remove(fixture, name, NULL);
        SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_QUICK, 0);
        expect_found(report, name, &victims[v], DAMAGES - 1);
        verify_fixture_close(fixture);
    }
}

static void
test_a_damaged_page_is_named_with_its_file_and_blocks(void **state)
{
    VerifyFixture *fixture = *state;
    mutilate_middle(fixture, pack_of_first(fixture), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, pack_of_first(fixture));
    assert_non_null(finding);
    assert_non_null(strstr(finding->files, "base/1/100 blocks 16.."));
    assert_int_equal(report->damaged_backup_count, 3);
}

static void
test_damage_stands_with_its_packs_until_a_later_proof(void **state)
{
    VerifyFixture *fixture = *state;
    const char *pack = pack_of_first(fixture);
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    mutilate_middle(fixture, pack, NULL);
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    const size_t objects = verify_fixture_count(fixture);
    for (int k = 0; k < VERIFY_BACKUPS; k++) {
        assert_true(is_damaged(fixture, k) && !is_verified(fixture, k));
        assert_true(is_suspect(fixture, &fixture->bids[k], 0));
        assert_false(is_suspect(fixture, &fixture->bids[k], 1));
    }
    /* Said once, however often it is found. */
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    assert_int_equal(verify_fixture_count(fixture), objects);

    mutilate_middle(fixture, pack, NULL); /* the same bit again: whole */
    SCOPED(VerifyReport) quick = verify_fixture_run(fixture, VERIFY_QUICK, 0);
    assert_int_equal(quick->finding_count, 0);
    assert_int_equal(quick->good_backup_count, 0); /* a look has not read what was damaged */
    assert_int_equal(quick->damaged_backup_count, 3);
    assert_true(is_damaged(fixture, FIRST) && is_suspect(fixture, &fixture->bids[FIRST], 0));
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    for (int k = 0; k < VERIFY_BACKUPS; k++) {
        assert_true(!is_damaged(fixture, k) && is_verified(fixture, k));
        assert_false(is_suspect(fixture, &fixture->bids[k], 0));
    }
    /* And it can break again. */
    mutilate_remove(fixture, pack, NULL);
    verify_report_free(verify_fixture_run(fixture, VERIFY_QUICK, 0));
    assert_true(is_damaged(fixture, THIRD) && is_suspect(fixture, &fixture->bids[THIRD], 0));
}

static void
test_damaged_wal_of_a_backup_ends_its_proof(void **state)
{
    VerifyFixture *fixture = *state;
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    mutilate_middle(fixture, verify_fixture_segment(fixture, 3), NULL);
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    assert_true(is_damaged(fixture, SECOND) && !is_verified(fixture, SECOND));
    assert_true(is_verified(fixture, FIRST) && is_verified(fixture, THIRD));
    assert_false(is_suspect(fixture, &fixture->bids[SECOND], 0)); /* its packs are good */
    mutilate_middle(fixture, verify_fixture_segment(fixture, 3), NULL);
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    assert_true(is_verified(fixture, SECOND));
}

static void
test_samples_read_everything_in_exactly_n_runs(void **state)
{
    (void)state;
    enum { SLICES = 4 };
    for (size_t v = 0; v < VICTIMS; v++) {
        SCOPED_MEMORY VerifyFixture *fixture = malloc(sizeof *fixture);
        bool seen[SLICES] = {false};
        unsigned found = 0;
        assert_non_null(fixture);
        verify_fixture_open(fixture);
        const char *name = name_of(fixture, &victims[v]);
        mutilate_body(fixture, name, NULL);
        for (int run = 0; run < SLICES; run++) {
            uint32_t slice, slices;
            SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_SAMPLE, SLICES);
            assert_true(evidence_scope_parse(report->scope, &slice, &slices));
            assert_true(slices == SLICES && !seen[slice - 1]);
            seen[slice - 1] = true;
            found += verify_find(report, name) != NULL;
        }
        /* Small objects are whole in their index: every look reads them. */
        const bool small = victims[v].backup >= 0 && strcmp(victims[v].below, "refs") == 0;
        assert_int_equal(found, small ? SLICES : 1);
        verify_fixture_close(fixture);
    }
}

static void
test_all_slices_make_a_proof_and_one_less_makes_none(void **state)
{
    VerifyFixture *fixture = *state;
    enum { SLICES = 5 };
    BackupId late = {0};
    for (int run = 0; run < SLICES; run++) {
        assert_false(is_verified(fixture, FIRST));
        verify_report_free(verify_fixture_run(fixture, VERIFY_SAMPLE, SLICES));
        if (run == 2)
            late = verify_fixture_add(fixture, "late", 6, true);
    }
    assert_true(is_verified(fixture, FIRST) && is_verified(fixture, SECOND) &&
                is_verified(fixture, THIRD));
    /* One that came in between needs a whole rotation of its own. */
    for (int run = 0; run < 3; run++) {
        assert_false(look_up(fixture, &late).verified);
        verify_report_free(verify_fixture_run(fixture, VERIFY_SAMPLE, SLICES));
    }
    assert_true(look_up(fixture, &late).verified);
}

static void
test_the_rotation_goes_on_where_nothing_can_be_proven(void **state)
{
    VerifyFixture *fixture = *state;
    enum { SLICES = 3 };
    bool seen[SLICES] = {false};
    verify_fixture_refuse(fixture, pack_of_first(fixture));
    for (int run = 0; run < SLICES; run++) {
        uint32_t slice, slices;
        SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_SAMPLE, SLICES);
        assert_true(evidence_scope_parse(report->scope, &slice, &slices));
        assert_int_equal(report->counts[FINDING_UNREACHABLE], 1);
        assert_false(seen[slice - 1]);
        seen[slice - 1] = true;
    }
    verify_fixture_refuse(fixture, NULL);
    assert_false(is_verified(fixture, FIRST) || is_damaged(fixture, FIRST));
}

static void
test_the_slice_of_a_name_never_changes(void **state)
{
    (void)state;
    CairnError err = {0};
    uint32_t slice, counts[7] = {0};
    /* SHA-256 of "abc" begins ba7816bf8f01cfea. */
    assert_true(verify_slice_of("abc", 7, &slice, &err));
    assert_int_equal(slice, 1 + UINT64_C(0xeacf018fbf1678ba) % 7);
    for (unsigned i = 0; i < 7000; i++) {
        char name[64];
        snprintf(name, sizeof name, "c/main/b/x/p/000/%08x", i);
        assert_true(verify_slice_of(name, 7, &slice, &err));
        assert_true(slice >= 1 && slice <= 7);
        counts[slice - 1]++;
    }
    for (int i = 0; i < 7; i++)
        assert_true(counts[i] >= 850 && counts[i] <= 1150);
}

static void
test_what_cannot_be_read_is_neither_missing_nor_damaged(void **state)
{
    VerifyFixture *fixture = *state;
    verify_fixture_refuse(fixture, pack_of_first(fixture));
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, pack_of_first(fixture));
    assert_non_null(finding);
    assert_int_equal(finding->kind, FINDING_UNREACHABLE);
    assert_string_equal(finding->backups, "first, second, third");
    assert_int_equal(report->finding_count, 1);
    assert_int_equal(report->good_backup_count, 0);
    for (int k = 0; k < VERIFY_BACKUPS; k++)
        assert_false(is_damaged(fixture, k) || is_verified(fixture, k));
}

static void
test_missing_wal_says_which_moments_it_cuts(void **state)
{
    VerifyFixture *fixture = *state;
    char name[WAL_NAME_SIZE];
    mutilate_remove(fixture, verify_fixture_segment(fixture, 4), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_QUICK, 0);
    wal_segment_name(name, 1, 4, VERIFY_SEGMENT);
    const VerifyFinding *finding = verify_find(report, name);
    assert_non_null(finding);
    const VerifyMoments *moments = finding->moments;
    assert_non_null(moments);
    assert_int_equal(moments->timeline, 1);
    assert_int_equal(moments->from_lsn, 4 * VERIFY_SEGMENT);
    assert_true(moments->from_us == verify_fixture_time(3));
    assert_string_equal(moments->backups, "first, second");
    assert_true(moments->reachable_again);
    assert_string_equal(moments->next, "third");
    assert_int_equal(moments->to_lsn, 5 * VERIFY_SEGMENT + 0x4000);
    assert_int_equal(report->finding_count, 1);
    assert_int_equal(report->good_backup_count, 3); /* each by itself is whole */
}

static void
test_a_longer_hole_is_one_finding(void **state)
{
    VerifyFixture *fixture = *state;
    char name[WAL_NAME_SIZE];
    for (uint64_t segment = 2; segment <= 4; segment++)
        mutilate_remove(fixture, verify_fixture_segment(fixture, segment), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    wal_segment_name(name, 1, 2, VERIFY_SEGMENT);
    const VerifyFinding *finding = verify_find(report, name);
    assert_non_null(finding);
    assert_int_equal(report->finding_count, 1);
    assert_string_equal(finding->backups, "second");
    assert_non_null(finding->moments);
    assert_int_equal(finding->moments->from_lsn, 2 * VERIFY_SEGMENT);
    assert_true(finding->moments->from_us == verify_fixture_time(1));
    assert_string_equal(finding->moments->backups, "first, second");
    assert_string_equal(finding->moments->next, "third");
    assert_false(is_verified(fixture, SECOND) || is_damaged(fixture, SECOND));
}

static void
test_damaged_wal_at_the_end_cuts_off_everything_after_it(void **state)
{
    VerifyFixture *fixture = *state;
    mutilate_middle(fixture, verify_fixture_segment(fixture, 6), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, verify_fixture_segment(fixture, 6));
    assert_non_null(finding);
    assert_non_null(finding->moments);
    assert_false(finding->moments->reachable_again);
    assert_string_equal(finding->moments->backups, "first, second, third");
    assert_true(finding->moments->from_us == verify_fixture_time(5));
    assert_int_equal(report->good_backup_count, 3);
}

static void
test_wal_that_no_backup_reaches_cuts_nothing(void **state)
{
    VerifyFixture *fixture = *state;
    verify_fixture_expire(fixture, &fixture->bids[FIRST]);
    mutilate_remove(fixture, verify_fixture_segment(fixture, 1), NULL);
    mutilate_remove(fixture, verify_fixture_segment(fixture, 2), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    assert_int_equal(report->finding_count, 0);
}

static void
test_what_only_expired_backups_need_is_promised_to_nobody(void **state)
{
    VerifyFixture *fixture = *state;
    verify_fixture_expire(fixture, &fixture->bids[FIRST]);
    mutilate_remove(fixture, verify_fixture_name(&fixture->bids[FIRST], "m/00000000"), NULL);
    SCOPED(VerifyReport) clean = verify_fixture_run(fixture, VERIFY_FULL, 0);
    assert_int_equal(clean->finding_count, 0);
    assert_int_equal(clean->backup_count, 2);
    /* Its data pack is still needed by the others. */
    mutilate_middle(fixture, pack_of_first(fixture), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, pack_of_first(fixture));
    assert_non_null(finding);
    assert_string_equal(finding->backups, "second, third");
    assert_false(is_damaged(fixture, FIRST));
}

/* Expires backups and collects what they needed just before verify comes to it. */
typedef struct {
    VerifyFixture *fixture;
    const char *victim;
    unsigned expired; /* a bit a backup */
    bool done;
} Collector;

static void
collect_on_open(void *context, const char *name)
{
    Collector *collector = context;
    if (collector->done || strcmp(name, collector->victim) != 0)
        return;
    collector->done = true;
    for (int k = 0; k < VERIFY_BACKUPS; k++) {
        if ((collector->expired & 1U << k) != 0)
            verify_fixture_expire(collector->fixture, &collector->fixture->bids[k]);
    }
    mutilate_remove(collector->fixture, name, NULL);
}

static void
test_what_is_collected_meanwhile_is_no_finding(void **state)
{
    VerifyFixture *fixture = *state;
    SCOPED_MEMORY char *victim = strdup(verify_fixture_name(&fixture->bids[SECOND], "m/00000000"));
    Collector collector = {
        .fixture = fixture, .victim = victim, .expired = 1U << SECOND | 1U << THIRD};
    verify_fixture_on_open(fixture, collect_on_open, &collector);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    assert_true(collector.done);
    assert_int_equal(report->finding_count, 0);
    assert_int_equal(report->backup_count, 1);
    assert_int_equal(report->good_backup_count, 1);
}

static void
test_what_is_lost_while_one_of_several_expires_is_a_finding(void **state)
{
    VerifyFixture *fixture = *state;
    SCOPED_MEMORY char *victim = strdup(verify_fixture_name(&fixture->bids[SECOND], "m/00000000"));
    Collector collector = {.fixture = fixture, .victim = victim, .expired = 1U << SECOND};
    verify_fixture_on_open(fixture, collect_on_open, &collector);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, victim);
    assert_true(collector.done);
    assert_non_null(finding);
    assert_string_equal(finding->backups, "third");
    assert_true(is_damaged(fixture, THIRD));
    assert_false(is_damaged(fixture, SECOND));
}

/* Commits a backup on a pack that is being found damaged. */
typedef struct {
    VerifyFixture *fixture;
    BackupId made;
    bool done;
} Writer;

static void
commit_on_open(void *context, const char *name)
{
    Writer *writer = context;
    if (writer->done || strcmp(name, pack_of_first(writer->fixture)) != 0)
        return;
    writer->done = true;
    writer->made = verify_fixture_add(writer->fixture, "late", 6, true);
}

static void
test_a_backup_made_meanwhile_on_a_damaged_pack_learns_of_it(void **state)
{
    VerifyFixture *fixture = *state;
    Writer writer = {.fixture = fixture};
    verify_fixture_on_open(fixture, commit_on_open, &writer);
    mutilate_middle(fixture, pack_of_first(fixture), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    assert_true(writer.done);
    assert_int_equal(report->damaged_backup_count, 4);
    assert_string_equal(report->damaged_backups[3], "late");
    assert_true(look_up(fixture, &writer.made).damaged);
    assert_true(is_suspect(fixture, &writer.made, 0));
}

static void
test_a_map_that_leads_beyond_its_reference_summary_is_damaged(void **state)
{
    VerifyFixture *fixture = *state;
    const BackupId bid = verify_fixture_add(fixture, "careless", 6, false);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    assert_int_equal(report->finding_count, 1);
    assert_string_equal(report->findings[0].backups, "careless");
    assert_non_null(strstr(report->findings[0].text, "does not name"));
    assert_true(look_up(fixture, &bid).damaged);
}

static void
test_a_damaged_history_file_touches_who_ends_on_its_timeline(void **state)
{
    VerifyFixture *fixture = *state;
    static const char history[] = "1\t0/680000\tno recovery target specified\n";
    char name[STORAGE_NAME_LIMIT], *end;
    wal_fixture_store(&fixture->wal, "00000002.history", history, sizeof history - 1);
    snprintf(name, sizeof name, "%s", verify_fixture_segment(fixture, 1));
    end = strstr(name, "/00000001/");
    assert_non_null(end);
    memcpy(end, "/00000002/history", sizeof "/00000002/history");
    mutilate_body(fixture, name, NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, name);
    assert_non_null(finding);
    assert_string_equal(finding->backups, ""); /* all of ours end on timeline 1 */
    assert_int_equal(report->good_backup_count, 3);
}

static void
test_one_backup_is_read_with_its_wal_and_nothing_else(void **state)
{
    VerifyFixture *fixture = *state;
    CairnError err = {0};
    mutilate_middle(fixture, verify_fixture_segment(fixture, 3), NULL);
    mutilate_middle(fixture, verify_fixture_name(&fixture->bids[THIRD], "m/00000000"), NULL);
    SCOPED(VerifyReport)
    first = verify_run(
        fixture->repository,
        &(VerifyOptions){.cluster = "main", .selector = "first", .scope = VERIFY_FULL}, &err);
    assert_non_null(first);
    assert_int_equal(first->finding_count, 0);
    assert_true(first->backup_count == 1 && first->wal_file_count == 1);
    assert_true(is_verified(fixture, FIRST));
    SCOPED(VerifyReport)
    second = verify_run(
        fixture->repository,
        &(VerifyOptions){.cluster = "main", .selector = "second", .scope = VERIFY_FULL}, &err);
    assert_non_null(second);
    assert_int_equal(second->finding_count, 1);
    assert_non_null(verify_find(second, verify_fixture_segment(fixture, 3)));
    assert_null(
        verify_run(fixture->repository,
                   &(VerifyOptions){
                       .cluster = "main", .selector = "first", .scope = VERIFY_SAMPLE, .slices = 7},
                   &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
}

static void
test_findings_beyond_the_list_are_counted_and_keep_their_kind(void **state)
{
    VerifyFixture *fixture = *state;
    CairnError err = {0};
    enum { MORE = VERIFY_FINDINGS_LISTED + 50 };
    for (unsigned i = 0; i < MORE; i++) {
        char below[64];
        snprintf(below, sizeof below, "ev.failed.%016x", i);
        assert_true(storage_put(repository_storage(fixture->repository),
                                verify_fixture_name(&fixture->bids[FIRST], below), "rubbish", 7,
                                &err));
    }
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_QUICK, 0);
    assert_int_equal(report->listed, VERIFY_FINDINGS_LISTED);
    assert_int_equal(report->finding_count, MORE);
    assert_int_equal(report->counts[FINDING_DAMAGED], MORE);
    assert_false(is_damaged(fixture, FIRST)); /* evidence tells of a backup, it is no part of it */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        VERIFY_TEST(test_every_object_is_looked_at_exactly_once),
        VERIFY_TEST(test_what_is_shared_is_opened_once),
        cmocka_unit_test(test_each_damage_to_each_object_is_named_with_all_who_need_it),
        cmocka_unit_test(test_a_quick_look_finds_what_is_not_there_and_no_more),
        VERIFY_TEST(test_a_damaged_page_is_named_with_its_file_and_blocks),
        VERIFY_TEST(test_damage_stands_with_its_packs_until_a_later_proof),
        VERIFY_TEST(test_damaged_wal_of_a_backup_ends_its_proof),
        cmocka_unit_test(test_samples_read_everything_in_exactly_n_runs),
        VERIFY_TEST(test_all_slices_make_a_proof_and_one_less_makes_none),
        VERIFY_TEST(test_the_rotation_goes_on_where_nothing_can_be_proven),
        cmocka_unit_test(test_the_slice_of_a_name_never_changes),
        VERIFY_TEST(test_what_cannot_be_read_is_neither_missing_nor_damaged),
        VERIFY_TEST(test_missing_wal_says_which_moments_it_cuts),
        VERIFY_TEST(test_a_longer_hole_is_one_finding),
        VERIFY_TEST(test_damaged_wal_at_the_end_cuts_off_everything_after_it),
        VERIFY_TEST(test_wal_that_no_backup_reaches_cuts_nothing),
        VERIFY_TEST(test_what_only_expired_backups_need_is_promised_to_nobody),
        VERIFY_TEST(test_what_is_collected_meanwhile_is_no_finding),
        VERIFY_TEST(test_what_is_lost_while_one_of_several_expires_is_a_finding),
        VERIFY_TEST(test_a_backup_made_meanwhile_on_a_damaged_pack_learns_of_it),
        VERIFY_TEST(test_a_map_that_leads_beyond_its_reference_summary_is_damaged),
        VERIFY_TEST(test_a_damaged_history_file_touches_who_ends_on_its_timeline),
        VERIFY_TEST(test_one_backup_is_read_with_its_wal_and_nothing_else),
        VERIFY_TEST(test_findings_beyond_the_list_are_counted_and_keep_their_kind),
    };
    return cmocka_run_group_tests_name("verify", tests, NULL, NULL);
}
