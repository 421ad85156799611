#include "repository/verify.h"

#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/verify_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
            assert_int_equal(verify_fixture_is_verified(fixture, k), scopes[i] == VERIFY_FULL);
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
    openings->data += strcmp(name, verify_fixture_first_pack(openings->fixture)) == 0;
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
enum { DAMAGES = sizeof damages / sizeof *damages };

/* A missing WAL file goes by PostgreSQL's name for it. */
static const char *
object_of(const char *name, const VerifyVictim *victim, FindingKind kind)
{
    return victim->backup < 0 && kind == FINDING_MISSING ? strrchr(name, '/') + 1 : name;
}

static void
expect_found(const VerifyReport *report, const char *name, const VerifyVictim *victim,
             size_t damage)
{
    const FindingKind kind = damages[damage].kind;
    const VerifyFinding *finding = verify_find(report, object_of(name, victim, kind));
    if (finding == NULL || finding->kind != kind || strcmp(finding->backups, victim->labels) != 0)
        fail_msg("%s %s: %s, touches '%s'", victim->title, damages[damage].title,
                 finding == NULL ? "not found" : finding->text,
                 finding == NULL ? "" : finding->backups);
}

/* Each of three comes to it while the two others wait, or the meeting does not come about. */
static void
check_meetings(VerifyFixture *fixture, const char *end, int expected)
{
    CairnError err = {0};
    const VerifyOptions options = {.cluster = "main", .scope = VERIFY_FULL, .jobs = 4};
    verify_fixture_meet(fixture, end, VERIFY_BACKUPS);
    SCOPED(VerifyReport) report = verify_run(fixture->repository, &options, &err);
    assert_non_null(report);
    assert_int_equal(report->finding_count, 0);
    assert_int_equal(verify_fixture_meetings(), expected);
}

static void
test_far_away_summaries_and_maps_are_read_several_at_a_time(void **state)
{
    VerifyFixture *fixture = *state;
    check_meetings(fixture, "/refs", 2);         /* for the packs, and for the maps */
    check_meetings(fixture, "/m/00000000", 2);   /* their bytes, and their walks */
    check_meetings(fixture, "/fate", 1 + 1 + 2); /* the catalog, the objects, who is left, twice */
}

static void
check_damage(size_t v, size_t d, bool is_far)
{
    static const char *const labels[] = {"first", "second", "third"};
    const VerifyVictim *victim = &verify_victims[v];
    SCOPED_MEMORY VerifyFixture *fixture = malloc(sizeof *fixture);
    assert_non_null(fixture);
    verify_fixture_open(fixture);
    if (is_far)
        verify_fixture_move_away(fixture);
    const char *name = verify_victim_name(fixture, victim);
    /* Swapped with what no backup rests on. */
    damages[d].mutilate(fixture, name, verify_fixture_segment(fixture, 6));
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    expect_found(report, name, victim, d);
    for (int k = 0; k < VERIFY_BACKUPS; k++) {
        const bool touched = strstr(victim->labels, labels[k]) != NULL;
        assert_int_equal(verify_fixture_is_verified(fixture, k), !touched);
        /* Missing WAL may still come, and is no damage. */
        assert_int_equal(verify_fixture_is_damaged(fixture, k),
                         touched && (victim->backup >= 0 || damages[d].kind == FINDING_DAMAGED));
    }
    verify_fixture_close(fixture);
}

static void
test_each_damage_to_each_object_is_named_with_all_who_need_it(void **state)
{
    (void)state;
    for (size_t v = 0; v < VERIFY_VICTIMS; v++) {
        for (size_t d = 0; d < DAMAGES; d++) {
            check_damage(v, d, false);
            check_damage(v, d, true);
        }
    }
}

static void
test_a_quick_look_finds_what_is_not_there_and_no_more(void **state)
{
    (void)state;
    for (size_t v = 0; v < VERIFY_VICTIMS; v++) {
        SCOPED_MEMORY VerifyFixture *fixture = malloc(sizeof *fixture);
        assert_non_null(fixture);
        verify_fixture_open(fixture);
        const char *name = verify_victim_name(fixture, &verify_victims[v]);
        mutilate_remove(fixture, name, NULL);
        SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_QUICK, 0);
        expect_found(report, name, &verify_victims[v], DAMAGES - 1);
        verify_fixture_close(fixture);
    }
}

static void
test_a_damaged_page_is_named_with_its_file_and_blocks(void **state)
{
    VerifyFixture *fixture = *state;
    mutilate_middle(fixture, verify_fixture_first_pack(fixture), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, verify_fixture_first_pack(fixture));
    assert_non_null(finding);
    assert_non_null(strstr(finding->files, "base/1/100 blocks 16.."));
    assert_int_equal(report->damaged_backup_count, 3);
}

static void
test_damage_stands_with_its_packs_until_a_later_proof(void **state)
{
    VerifyFixture *fixture = *state;
    const char *pack = verify_fixture_first_pack(fixture);
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    mutilate_middle(fixture, pack, NULL);
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    const size_t objects = verify_fixture_count(fixture);
    for (int k = 0; k < VERIFY_BACKUPS; k++) {
        assert_true(verify_fixture_is_damaged(fixture, k) &&
                    !verify_fixture_is_verified(fixture, k));
        assert_true(verify_fixture_is_suspect(fixture, &fixture->bids[k], 0));
        assert_false(verify_fixture_is_suspect(fixture, &fixture->bids[k], 1));
    }
    /* Said once, however often it is found. */
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    assert_int_equal(verify_fixture_count(fixture), objects);

    mutilate_middle(fixture, pack, NULL); /* the same bit again: whole */
    SCOPED(VerifyReport) quick = verify_fixture_run(fixture, VERIFY_QUICK, 0);
    assert_int_equal(quick->finding_count, 0);
    assert_int_equal(quick->good_backup_count, 0); /* a look has not read what was damaged */
    assert_int_equal(quick->damaged_backup_count, 3);
    assert_true(verify_fixture_is_damaged(fixture, FIRST) &&
                verify_fixture_is_suspect(fixture, &fixture->bids[FIRST], 0));
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0));
    for (int k = 0; k < VERIFY_BACKUPS; k++) {
        assert_true(!verify_fixture_is_damaged(fixture, k) &&
                    verify_fixture_is_verified(fixture, k));
        assert_false(verify_fixture_is_suspect(fixture, &fixture->bids[k], 0));
    }
    /* And it can break again. */
    mutilate_remove(fixture, pack, NULL);
    verify_report_free(verify_fixture_run(fixture, VERIFY_QUICK, 0));
    assert_true(verify_fixture_is_damaged(fixture, THIRD) &&
                verify_fixture_is_suspect(fixture, &fixture->bids[THIRD], 0));
}

static void
test_what_cannot_be_read_is_neither_missing_nor_damaged(void **state)
{
    VerifyFixture *fixture = *state;
    verify_fixture_refuse(fixture, verify_fixture_first_pack(fixture));
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, verify_fixture_first_pack(fixture));
    assert_non_null(finding);
    assert_int_equal(finding->kind, FINDING_UNREACHABLE);
    assert_string_equal(finding->backups, "first, second, third");
    assert_int_equal(report->finding_count, 1);
    assert_int_equal(report->good_backup_count, 0);
    for (int k = 0; k < VERIFY_BACKUPS; k++)
        assert_false(verify_fixture_is_damaged(fixture, k) ||
                     verify_fixture_is_verified(fixture, k));
}

/* The first opening of the pack sets the fault. */
typedef struct {
    VerifyFixture *fixture;
    unsigned read;
} RefusedRead;

static void
refuse_read(void *context, const char *name)
{
    RefusedRead *refused = context;
    FaultDisk *disk = &refused->fixture->wal.disk;
    if (strcmp(name, verify_fixture_first_pack(refused->fixture)) == 0 &&
        disk->fail[FAULT_READ].at_call == 0)
        disk->fail[FAULT_READ] =
            (Fault){.at_call = disk->calls[FAULT_READ] + refused->read, .error = EACCES};
}

/* Whose "denied" it is: a host that only seals may pass over what it cannot open, not what the
   storage does not give. */
static void
test_on_a_sealed_host_a_refused_read_is_not_a_good_pack(void **state)
{
    (void)state;
    VerifyFixture fixture;
    CairnError err = {0};
    const char *asked = getenv("PGCAIRN_TEST_ENCRYPTION");
    char before[16];
    snprintf(before, sizeof before, "%s", asked != NULL ? asked : "");
    setenv("PGCAIRN_TEST_ENCRYPTION", "sealed", 1);
    verify_fixture_open(&fixture);
    setenv("PGCAIRN_TEST_ENCRYPTION", before, 1); /* empty is as none */
    Repository *whole = fixture.repository;
    const RepositoryConfig config = {
        .name = "main", .path = fixture.wal.root, .encryption = "none"};
    SCOPED(Repository) host = repository_open(&fixture.wal.disk.world, &config, &err);
    assert_non_null(host);
    repository_take_keyring(host, test_keyring(KEY_MODE_SEALED, false));
    fixture.repository = host;
    verify_report_free(verify_fixture_run(&fixture, VERIFY_FULL, 0));
    /* Header, trailer, index, then all in one window. One thread: reads are counted. */
    const VerifyOptions options = {.cluster = "main", .scope = VERIFY_FULL, .jobs = 1};
    for (unsigned read = 1; read <= 4; read++) {
        RefusedRead refused = {.fixture = &fixture, .read = read};
        fault_disk_reset(&fixture.wal.disk);
        verify_fixture_on_open(&fixture, refuse_read, &refused);
        SCOPED(VerifyReport) report = verify_run(host, &options, &err);
        verify_fixture_on_open(&fixture, NULL, NULL);
        const VerifyFinding *finding = verify_find(report, verify_fixture_first_pack(&fixture));
        if (finding == NULL || finding->kind != FINDING_UNREACHABLE)
            fail_msg("read %u", read);
    }
    fault_disk_reset(&fixture.wal.disk);
    fixture.repository = whole;
    verify_fixture_close(&fixture);
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
    mutilate_middle(fixture, verify_fixture_first_pack(fixture), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    const VerifyFinding *finding = verify_find(report, verify_fixture_first_pack(fixture));
    assert_non_null(finding);
    assert_string_equal(finding->backups, "second, third");
    assert_false(verify_fixture_is_damaged(fixture, FIRST));
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
    assert_true(verify_fixture_look_up(fixture, &bid).damaged);
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
    assert_true(verify_fixture_is_verified(fixture, FIRST));
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
    assert_false(verify_fixture_is_damaged(
        fixture, FIRST)); /* evidence tells of a backup, it is no part of it */
}

/* Everything that a report says, one line a finding. */
static void
describe_report(const VerifyReport *report, ByteWriter *text)
{
    for (size_t i = 0; i < report->listed; i++) {
        const VerifyFinding *finding = &report->findings[i];
        byte_writer_format(text, "%d %s: %s; %s; %s; %d\n", finding->kind, finding->object,
                           finding->text, finding->backups, finding->files,
                           finding->moments != NULL);
    }
    byte_writer_format(text, "%zu objects, %zu bytes, %zu of %zu good, %zu WAL files",
                       (size_t)report->object_count, (size_t)report->byte_count,
                       report->good_backup_count, report->backup_count, report->wal_file_count);
}

/* Findings that are listed in the order of a listing, several of one pack, missing and damaged. */
static void
test_neither_threads_nor_distance_change_the_report(void **state)
{
    VerifyFixture *fixture = *state;
    CairnError err = {0};
    mutilate_body(fixture, verify_fixture_first_pack(fixture), NULL);
    mutilate_middle(fixture, verify_fixture_first_pack(fixture), NULL);
    mutilate_middle(fixture, verify_fixture_segment(fixture, 3), NULL);
    mutilate_middle(fixture, verify_fixture_name(&fixture->bids[THIRD], "m/00000000"), NULL);
    mutilate_remove(fixture, verify_fixture_name(&fixture->bids[SECOND], "m/00000000"), NULL);
    for (unsigned i = 0; i < 300; i++) { /* more than wait at a time */
        char below[64];
        snprintf(below, sizeof below, "ev.failed.%016x", i);
        assert_true(storage_put(repository_storage(fixture->repository),
                                verify_fixture_name(&fixture->bids[FIRST], below), "rubbish", 7,
                                &err));
    }
    verify_report_free(verify_fixture_run(fixture, VERIFY_FULL, 0)); /* leaves its evidence */
    SCOPED_BYTES ByteWriter first = {0};
    for (int run = 0; run < 10; run++) {
        const VerifyOptions options = {
            .cluster = "main", .scope = VERIFY_FULL, .jobs = 1 << run % 5};
        if (run == 5)
            verify_fixture_move_away(fixture);
        SCOPED(VerifyReport) report = verify_run(fixture->repository, &options, &err);
        assert_non_null(report);
        assert_true(report->finding_count > 300);
        SCOPED_BYTES ByteWriter text = {0};
        describe_report(report, run == 0 ? &first : &text);
        if (run > 0)
            assert_true(text.size == first.size && memcmp(text.data, first.data, text.size) == 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        VERIFY_TEST(test_every_object_is_looked_at_exactly_once),
        VERIFY_TEST(test_what_is_shared_is_opened_once),
        VERIFY_TEST_FAR(test_far_away_summaries_and_maps_are_read_several_at_a_time),
        cmocka_unit_test(test_each_damage_to_each_object_is_named_with_all_who_need_it),
        cmocka_unit_test(test_a_quick_look_finds_what_is_not_there_and_no_more),
        VERIFY_TEST(test_a_damaged_page_is_named_with_its_file_and_blocks),
        VERIFY_TEST(test_damage_stands_with_its_packs_until_a_later_proof),
        VERIFY_TEST(test_what_cannot_be_read_is_neither_missing_nor_damaged),
        cmocka_unit_test(test_on_a_sealed_host_a_refused_read_is_not_a_good_pack),
        VERIFY_TEST(test_what_only_expired_backups_need_is_promised_to_nobody),
        VERIFY_TEST(test_a_map_that_leads_beyond_its_reference_summary_is_damaged),
        VERIFY_TEST(test_one_backup_is_read_with_its_wal_and_nothing_else),
        VERIFY_TEST(test_findings_beyond_the_list_are_counted_and_keep_their_kind),
        VERIFY_TEST_NEAR(test_neither_threads_nor_distance_change_the_report),
    };
    return cmocka_run_group_tests_name("verify", tests, NULL, NULL);
}
