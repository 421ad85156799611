#include "repository/evidence.h"

#include "repository/catalog.h"
#include "repository/damage.h"
#include "repository/json.h"
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

#define DAY INT64_C(86400000000)
#define NOON INT64_C(1795435200000000) /* 2026-11-23 12:00:00 UTC */

/* One piece of evidence; days may run backwards, as clocks of several hosts do. */
typedef struct {
    const char *name; /* "ev.<kind>.<token>" */
    const char *scope;
    int day;
    const char *result; /* members, without braces */
} Piece;

static void
put_piece(Repository *repository, const BackupId *bid, const Piece *piece)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT], result[4096];
    snprintf(name, sizeof name, "c/main/b/%s/%s", bid->text, piece->name);
    snprintf(result, sizeof result, "{%s}", piece->result != NULL ? piece->result : "");
    json_t *members = json_loads(result, 0, NULL);
    assert_non_null(members);
    SCOPED_JSON json_t *json =
        json_pack("{s:o, s:s, s:o}", "at", json_time(NOON + piece->day * DAY), "scope",
                  piece->scope, "result", members);
    assert_true(json_put(repository, name, OBJECT_EVIDENCE, 1, json, NULL, &err));
}

static EvidenceState
state_of(Repository *repository, const BackupId *bid)
{
    CairnError err = {0};
    EvidenceState state;
    SCOPED_MEMORY EvidenceList *list = malloc(sizeof *list);
    assert_non_null(list);
    assert_true(evidence_list_read(repository, "main", bid, list, &err));
    evidence_state(repository, "main", bid, list, &state);
    return state;
}

enum { PIECES = 8 };

static const struct {
    const char *title;
    Piece pieces[PIECES];
    bool verified, damaged;
    int day; /* of the proof */
} cases[] = {
    {"nothing", {{0}}, false, false, 0},
    {"a full proof", {{"ev.verified.a", "full", 3, NULL}}, true, false, 3},
    {"the newest of two",
     {{"ev.verified.a", "full", 3, NULL}, {"ev.verified.b", "full", 2, NULL}},
     true,
     false,
     3},
    {"damage", {{"ev.damaged.d", "full", 1, NULL}}, false, true, 0},
    {"damage found after the proof",
     {{"ev.verified.a", "full", 1, NULL}, {"ev.damaged.d", "full", 2, NULL}},
     false,
     true,
     0},
    {"a proof that did not know of the damage, whatever its clock says",
     {{"ev.damaged.d", "full", 1, NULL}, {"ev.verified.a", "full", 9, "\"seen\": []"}},
     false,
     true,
     0},
    {"a proof that knew of it, whatever its clock says",
     {{"ev.damaged.d", "full", 9, NULL}, {"ev.verified.a", "full", 1, "\"seen\": [\"d\"]"}},
     true,
     false,
     1},
    {"a proof that knew of one of two",
     {{"ev.damaged.d", "full", 1, NULL},
      {"ev.damaged.e", "full", 1, NULL},
      {"ev.verified.a", "full", 2, "\"seen\": [\"d\"]"}},
     false,
     true,
     0},
    {"a proof of nothing full",
     {{"ev.damaged.d", "full", 1, NULL}, {"ev.verified.a", "quick", 2, "\"seen\": [\"d\"]"}},
     false,
     true,
     0},
    {"two slices of three",
     {{"ev.verified.a", "sample 1/3", 1, NULL}, {"ev.verified.b", "sample 3/3", 2, NULL}},
     false,
     false,
     0},
    {"all slices, dated by the one that was read longest ago",
     {{"ev.verified.a", "sample 1/3", 1, NULL},
      {"ev.verified.b", "sample 3/3", 5, NULL},
      {"ev.verified.c", "sample 2/3", 4, NULL},
      {"ev.verified.d", "sample 1/3", 6, NULL}},
     true,
     false,
     4},
    {"slices of two rotations",
     {{"ev.verified.a", "sample 1/2", 1, NULL}, {"ev.verified.b", "sample 2/3", 2, NULL}},
     false,
     false,
     0},
    {"damage that one slice did not know of",
     {{"ev.verified.a", "sample 1/2", 1, NULL},
      {"ev.damaged.d", "sample 2/2", 2, NULL},
      {"ev.verified.b", "sample 2/2", 3, "\"seen\": [\"d\"]"}},
     false,
     true,
     0},
    {"damage that all slices knew of",
     {{"ev.damaged.d", "sample 2/2", 2, NULL},
      {"ev.verified.b", "sample 1/2", 3, "\"seen\": [\"d\"]"},
      {"ev.verified.c", "sample 2/2", 4, "\"seen\": [\"d\"]"}},
     true,
     false,
     3},
    {"a damage's name that is none of ours",
     {{"ev.damaged.0123456789012345678901234567890123456789", "full", 1, NULL},
      {"ev.verified.a", "full", 2, "\"seen\": [\"01234567890123456789012345678901\"]"}},
     false,
     true,
     0},
    {"readings that only took place", {{"ev.sampled.a", "sample 1/2", 1, NULL}}, false, false, 0},
};

static void
test_evidence_adds_up_to_a_state(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SCOPED(Repository) repository = memory_repository("none");
        const BackupId bid = test_backup_id(1);
        for (size_t k = 0; k < PIECES && cases[i].pieces[k].name != NULL; k++)
            put_piece(repository, &bid, &cases[i].pieces[k]);
        const EvidenceState found = state_of(repository, &bid);
        const int64_t expected_us = cases[i].verified ? NOON + cases[i].day * DAY : 0;
        if (found.verified != cases[i].verified || found.damaged != cases[i].damaged ||
            (found.verified && found.verified_us != expected_us))
            fail_msg("%s: verified %d, damaged %d", cases[i].title, found.verified, found.damaged);
    }
}

static void
test_the_newest_drill_says_how_long_it_took(void **state)
{
    static const Piece drills[] = {
        {"ev.drilled.a", "full", 3, "\"duration_s\": 692.5"},
        {"ev.drilled.b", "full", 2, "\"duration_s\": 12"},
    };
    static const Piece mute = {"ev.drilled.c", "full", 4, "\"duration_s\": \"soon\""};
    SCOPED(Repository) repository = memory_repository("none");
    const BackupId bid = test_backup_id(1);
    (void)state;
    put_piece(repository, &bid, &drills[0]);
    put_piece(repository, &bid, &drills[1]);
    assert_int_equal(state_of(repository, &bid).drilled_us, NOON + 3 * DAY);
    assert_int_equal(state_of(repository, &bid).drill_duration_us, INT64_C(692500000));
    put_piece(repository, &bid, &mute);
    assert_int_equal(state_of(repository, &bid).drilled_us, NOON + 4 * DAY);
    assert_int_equal(state_of(repository, &bid).drill_duration_us, 0);
}

static void
test_evidence_that_cannot_be_read_proves_and_ends_nothing(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("none");
    const BackupId bid = test_backup_id(1);
    char name[STORAGE_NAME_LIMIT];
    put_piece(repository, &bid, &(Piece){"ev.damaged.d", "full", 1, NULL});
    put_piece(repository, &bid, &(Piece){"ev.verified.a", "full", 2, "\"seen\": [\"d\"]"});
    assert_false(state_of(repository, &bid).damaged);
    snprintf(name, sizeof name, "c/main/b/%s/ev.verified.a", bid.text);
    memory_storage_replace(repository_storage(repository), name, "rubbish", 7);
    assert_true(state_of(repository, &bid).damaged);
    assert_false(state_of(repository, &bid).verified);
}

static void
test_damage_beyond_the_limit_stands(void **state)
{
    (void)state;
    SCOPED_MEMORY EvidenceList *list = calloc(1, sizeof *list);
    SCOPED(Repository) repository = memory_repository("none");
    const BackupId bid = test_backup_id(1);
    EvidenceState found;
    assert_non_null(list);
    for (int i = 0; i <= EVIDENCE_DAMAGE_LIMIT; i++) {
        char name[64];
        snprintf(name, sizeof name, "ev.damaged.%016x", i);
        evidence_list_add(list, name, i);
    }
    assert_int_equal(list->damage_count, EVIDENCE_DAMAGE_LIMIT);
    evidence_state(repository, "main", &bid, list, &found);
    assert_true(list->damage_overflow && found.damaged);
}

static void
test_the_newest_of_many_proofs_are_kept(void **state)
{
    (void)state;
    SCOPED_MEMORY EvidenceList *list = calloc(1, sizeof *list);
    assert_non_null(list);
    for (int i = 0; i < 10 * EVIDENCE_READ_LIMIT; i++) {
        char name[64];
        snprintf(name, sizeof name, "ev.verified.%016x", i);
        evidence_list_add(list, name, i * 7919 % (10 * EVIDENCE_READ_LIMIT));
    }
    assert_int_equal(list->proof_count, EVIDENCE_READ_LIMIT);
    for (int i = 0; i < EVIDENCE_READ_LIMIT; i++)
        assert_true(list->proofs[i].modified_us >= 9 * EVIDENCE_READ_LIMIT);
}

static void
test_only_canonical_scopes_name_a_slice(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "sample 0/7", "sample 8/7", "sample 1/1", "sample 1/33", "sample 1/7x", "sample 01/7",
        "sample",     "full",       "",           " sample 1/7", "sample -1/7"};
    uint32_t slice = 0, slices = 0;
    assert_true(evidence_scope_parse("sample 7/7", &slice, &slices));
    assert_true(slice == 7 && slices == 7);
    assert_true(evidence_scope_parse("sample 1/32", &slice, &slices));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(evidence_scope_parse(wrong[i], &slice, &slices));
}

static void
test_the_rotation_goes_on_after_the_highest_run(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("none");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    SCOPED_MEMORY EvidenceList *list = malloc(sizeof *list);
    assert_non_null(list);
    put_piece(repository, &bid, &(Piece){"ev.verified.a", "sample 2/7", 9, "\"run\": 9"});
    put_piece(repository, &bid, &(Piece){"ev.damaged.b", "sample 3/7", 1, "\"run\": 10"});
    put_piece(repository, &bid, &(Piece){"ev.sampled.c", "sample 4/7", 2, "\"run\": 11"});
    put_piece(repository, &bid, &(Piece){"ev.verified.d", "sample 1/3", 2, "\"run\": 100"});
    /* A number that is not its slice's own is nobody's. */
    put_piece(repository, &bid, &(Piece){"ev.verified.e", "sample 1/7", 2, "\"run\": 99999"});
    assert_true(evidence_list_read(repository, "main", &bid, list, &err));
    assert_int_equal(evidence_highest_run(repository, "main", &bid, list, 7), 11);
    assert_int_equal(evidence_highest_run(repository, "main", &bid, list, 3), 100);
    assert_int_equal(evidence_highest_run(repository, "main", &bid, list, 5), 0);
}

/* What damage.h makes of it. */
static void
read_damage(Repository *repository, const BackupId *bid, DamagedPacks *packs)
{
    CairnError err = {0};
    damaged_packs_free(packs);
    assert_true(damage_read(repository, "main", bid, packs, &err));
}

static void
put_damage(Repository *repository, const BackupId *bid, const char *name, const char *packs)
{
    char result[4096];
    snprintf(result, sizeof result, "\"packs\": [%s], \"packs_complete\": true", packs);
    put_piece(repository, bid, &(Piece){name, "full", 1, result});
}

static void
test_standing_damage_names_its_packs(void **state)
{
    (void)state;
    SCOPED(Repository) repository = memory_repository("none");
    const BackupId bid = test_backup_id(5), first = test_backup_id(1), other = test_backup_id(2);
    SCOPED_DAMAGED_PACKS DamagedPacks packs = {0};
    char text[256];
    read_damage(repository, &bid, &packs);
    assert_true(packs.count == 0 && !packs.all && !packs.standing);
    snprintf(text, sizeof text, "\"%s/7\", \"%s/0\"", other.text, first.text);
    put_damage(repository, &bid, "ev.damaged.d", text);
    snprintf(text, sizeof text, "\"%s/7\", \"%s/4294967\"", other.text, first.text);
    put_damage(repository, &bid, "ev.damaged.e", text);
    read_damage(repository, &bid, &packs);
    assert_true(packs.count == 3 && !packs.all && packs.standing);
    assert_true(damaged_packs_contain(&packs, &first, 0));
    assert_true(damaged_packs_contain(&packs, &first, 4294967));
    assert_true(damaged_packs_contain(&packs, &other, 7));
    assert_false(damaged_packs_contain(&packs, &other, 0));
    assert_false(damaged_packs_contain(&packs, &bid, 7));

    put_piece(repository, &bid, &(Piece){"ev.verified.a", "full", 2, "\"seen\": [\"e\"]"});
    read_damage(repository, &bid, &packs);
    assert_true(packs.count == 2 && damaged_packs_contain(&packs, &first, 0));
    put_piece(repository, &bid, &(Piece){"ev.verified.b", "full", 2, "\"seen\": [\"e\", \"d\"]"});
    read_damage(repository, &bid, &packs);
    assert_true(packs.count == 0 && !packs.all && !packs.standing);
}

static void
test_damage_that_does_not_say_which_packs_is_of_all(void **state)
{
    (void)state;
    static const char *const results[] = {
        "", /* as older programs wrote it */
        "\"packs\": []",
        "\"packs\": [], \"packs_complete\": false",
        "\"packs\": \"none\", \"packs_complete\": true",
        "\"packs\": [7], \"packs_complete\": true",
        "\"packs\": [\"0000000001-9e3779b97f4a7c15\"], \"packs_complete\": true",
        "\"packs\": [\"0000000001-9e3779b97f4a7c15/-1\"], \"packs_complete\": true",
        "\"packs\": [\"0000000001-9e3779b97f4a7c15/01\"], \"packs_complete\": true",
        "\"packs\": [\"0000000001-9e3779b97f4a7c15/4294967295\"], \"packs_complete\": true",
        "\"packs\": [\"000000000x-9e3779b97f4a7c15/1\"], \"packs_complete\": true",
    };
    const BackupId bid = test_backup_id(1);
    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        SCOPED(Repository) repository = memory_repository("none");
        SCOPED_DAMAGED_PACKS DamagedPacks packs = {0};
        put_piece(repository, &bid, &(Piece){"ev.damaged.d", "full", 1, results[i]});
        read_damage(repository, &bid, &packs);
        if (!packs.all || !damaged_packs_contain(&packs, &bid, 0))
            fail_msg("{%s} is believed", results[i]);
    }
    SCOPED(Repository) repository = memory_repository("none");
    SCOPED_DAMAGED_PACKS DamagedPacks packs = {0};
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/main/b/%s/ev.damaged.d", bid.text);
    memory_storage_replace(repository_storage(repository), name, "rubbish", 7);
    read_damage(repository, &bid, &packs);
    assert_true(packs.all);
}

static void
test_more_damaged_packs_than_are_kept_are_all(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED_DAMAGED_PACKS DamagedPacks packs = {0};
    const BackupId bid = test_backup_id(1);
    for (uint32_t i = 0; i < DAMAGE_PACKS_LIMIT; i++) {
        assert_true(damaged_packs_add(&packs, &bid, i, &err));
        assert_true(damaged_packs_add(&packs, &bid, i, &err));
    }
    damaged_packs_settle(&packs);
    assert_true(packs.count == DAMAGE_PACKS_LIMIT && !packs.all);
    assert_true(damaged_packs_contain(&packs, &bid, DAMAGE_PACKS_LIMIT - 1));
    assert_false(damaged_packs_contain(&packs, &bid, DAMAGE_PACKS_LIMIT));
    assert_true(damaged_packs_add(&packs, &bid, DAMAGE_PACKS_LIMIT, &err));
    assert_true(packs.count == DAMAGE_PACKS_LIMIT && packs.all);
    assert_true(damaged_packs_contain(&packs, &bid, 12345678));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_evidence_adds_up_to_a_state),
        cmocka_unit_test(test_the_newest_drill_says_how_long_it_took),
        cmocka_unit_test(test_evidence_that_cannot_be_read_proves_and_ends_nothing),
        cmocka_unit_test(test_damage_beyond_the_limit_stands),
        cmocka_unit_test(test_the_newest_of_many_proofs_are_kept),
        cmocka_unit_test(test_only_canonical_scopes_name_a_slice),
        cmocka_unit_test(test_the_rotation_goes_on_after_the_highest_run),
        cmocka_unit_test(test_standing_damage_names_its_packs),
        cmocka_unit_test(test_damage_that_does_not_say_which_packs_is_of_all),
        cmocka_unit_test(test_more_damaged_packs_than_are_kept_are_all),
    };
    return cmocka_run_group_tests_name("evidence", tests, NULL, NULL);
}
