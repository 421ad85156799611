#include "repository/heal_rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { SINCE = 100 };

#define BID "0000000012-3f9a010203040506"
#define BACKUP "c/main/b/" BID "/"
#define WAL "c/main/w/0123456789abcdef-15/00000001/00000000/"
#define SEGMENT WAL "000000010000000000000007"

/* What a store tells, newest version of a name first. size 0: a deletion. */
typedef struct {
    const char *name;
    const char *version;
    int64_t at;
    uint64_t size;
    const char *digest;
} Row;

typedef struct {
    char text[4096]; /* "hidden NAME VERSION at N;" or "overwritten NAME CURRENT>VERSION at N;" */
} Seen;

static bool
note(void *context, const HealItem *item, CairnError *err)
{
    (void)err;
    Seen *seen = context;
    const size_t used = strlen(seen->text);
    const char *last = strrchr(item->name, '/');
    snprintf(seen->text + used, sizeof seen->text - used, "%s %s %s%s%s at %d%s%s;",
             item->overwritten ? "overwritten" : "hidden", last != NULL ? last + 1 : item->name,
             item->current, item->overwritten ? ">" : "", item->version, (int)item->changed_us,
             item->same_size ? " same size" : "", item->may_be_newer ? " newer?" : "");
    return true;
}

static HealCounts
check(const Row *rows, const char *expected)
{
    Seen seen = {0};
    CairnError err = {0};
    SCOPED(HealRules) rules = heal_rules_new(SINCE, note, &seen, &err);
    assert_non_null(rules);
    for (; rows->name != NULL; rows++) {
        const StorageVersion version = {.name = rows->name,
                                        .version = rows->version,
                                        .digest = rows->digest != NULL ? rows->digest : "",
                                        .is_deletion = rows->size == 0,
                                        .size_bytes = rows->size,
                                        .created_us = rows->at};
        assert_true(heal_rules_add(rules, &version, &err));
    }
    assert_true(heal_rules_finish(rules, &err));
    assert_string_equal(seen.text, expected);
    return *heal_rules_counts(rules);
}

static void
test_a_name_goes_back_to_what_it_was_then(void **state)
{
    (void)state;
    static const struct {
        Row rows[6];
        const char *expected;
    } CASES[] = {
        {{{BACKUP "fate", "a", 10, 5, NULL}}, ""},
        {{{BACKUP "fate", "x", 110, 0, NULL}, {BACKUP "fate", "a", 10, 5, NULL}},
         "hidden fate a at 110;"},
        /* In that very second: since. */
        {{{BACKUP "fate", "x", 100, 0, NULL}, {BACKUP "fate", "a", 10, 5, NULL}},
         "hidden fate a at 100;"},
        {{{BACKUP "fate", "b", 110, 9, NULL}, {BACKUP "fate", "a", 10, 5, NULL}},
         "overwritten fate b>a at 110;"},
        /* The first change counts, and what is there now. */
        {{{BACKUP "fate", "c", 130, 5, NULL},
          {BACKUP "fate", "b", 120, 9, NULL},
          {BACKUP "fate", "x", 110, 0, NULL},
          {BACKUP "fate", "a", 10, 5, NULL}},
         "overwritten fate c>a at 110 same size;"},
        /* A revocation by a collector that did not see the commit gives way to it. */
        {{{BACKUP "fate", "r", 120, 9, NULL},
          {BACKUP "fate", "x", 110, 0, NULL},
          {BACKUP "fate", "a", 10, 5, NULL}},
         "overwritten fate r>a at 110;"},
        /* Deleted before, and since: it was absent then. */
        {{{BACKUP "refs", "y", 120, 0, NULL},
          {BACKUP "refs", "x", 50, 0, NULL},
          {BACKUP "refs", "a", 10, 5, NULL}},
         ""},
        {{{BACKUP "refs", "x", 50, 0, NULL}, {BACKUP "refs", "a", 10, 5, NULL}}, ""},
        /* Created since: what it was created with. */
        {{{SEGMENT, "x", 130, 0, NULL}, {SEGMENT, "b", 120, 7, NULL}, {SEGMENT, "a", 110, 5, NULL}},
         "hidden 000000010000000000000007 a at 120;"},
        {{{SEGMENT, "a", 110, 5, NULL}}, ""},
        /* Expired, pushed again, deleted. */
        {{{SEGMENT, "y", 130, 0, NULL},
          {SEGMENT, "b", 120, 7, NULL},
          {SEGMENT, "x", 50, 0, NULL},
          {SEGMENT, "a", 5, 5, NULL}},
         "hidden 000000010000000000000007 b at 130;"},
        /* A second heal finds its work done. */
        {{{SEGMENT, "h", 140, 5, "d"}, {SEGMENT, "x", 110, 0, NULL}, {SEGMENT, "a", 10, 5, "d"}},
         ""},
        /* Without a digest, or with another one, only reading tells. */
        {{{SEGMENT, "h", 140, 5, NULL}, {SEGMENT, "x", 110, 0, NULL}, {SEGMENT, "a", 10, 5, NULL}},
         "overwritten 000000010000000000000007 h>a at 110 same size;"},
        {{{SEGMENT, "h", 140, 5, "e"}, {SEGMENT, "x", 110, 0, NULL}, {SEGMENT, "a", 10, 5, "d"}},
         "overwritten 000000010000000000000007 h>a at 110 same size;"},
        /* Equal digests of other sizes are nothing. */
        {{{SEGMENT, "h", 140, 6, "d"}, {SEGMENT, "a", 10, 5, "d"}},
         "overwritten 000000010000000000000007 h>a at 140;"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        check(CASES[i].rows, CASES[i].expected);
}

static void
test_what_permits_deletions_and_what_only_passes_stays_hidden(void **state)
{
    (void)state;
    static const char *const NAMES[] = {
        BACKUP "doomed.0123456789abcdef",
        "c/main/cat/0123456789abcdef-15/00000001/00000000.3",
        "c/main/gc/0123456789abcdef/condemned.1",
        "c/main/pin/0123456789abcdef",
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        const Row rows[] = {{NAMES[i], "x", 110, 0, NULL}, {NAMES[i], "a", 10, 5, NULL}, {0}};
        assert_int_equal(check(rows, "").left_hidden, 1);
        /* Overwritten it would stop collectors, which read all of them. */
        const Row changed[] = {{NAMES[i], "b", 110, 6, NULL}, {NAMES[i], "a", 10, 5, NULL}, {0}};
        char expected[256];
        snprintf(expected, sizeof expected, "overwritten %s b>a at 110;",
                 strrchr(NAMES[i], '/') + 1);
        check(changed, expected);
    }
    static const char *const NEVER[] = {"probe/proof.x",
                                        "c/main/gc/reserve",
                                        "c/main/check-1",
                                        "somebody/elses",
                                        "c/main/b/short/fate",
                                        "cx",
                                        "c/",
                                        "c/a"};
    for (size_t i = 0; i < sizeof NEVER / sizeof NEVER[0]; i++) {
        const Row rows[] = {{NEVER[i], "b", 110, 6, NULL},
                            {NEVER[i], "x", 105, 0, NULL},
                            {NEVER[i], "a", 10, 5, NULL},
                            {0}};
        assert_int_equal(check(rows, "").names, 0);
    }
}

/* Its number was used again, by right: the old one was removed, or all of them were. */
static void
test_an_index_that_was_made_anew_stays(void **state)
{
    (void)state;
#define INDEX "c/main/cat/0123456789abcdef-15/00000001/00000000.1"
    const Row rows[] = {
        {INDEX, "b", 120, 6, NULL}, {INDEX, "x", 110, 0, NULL}, {INDEX, "a", 10, 5, NULL}, {0}};
    check(rows, "");
}

static void
test_marks_and_keys_may_have_been_put_down_again(void **state)
{
    (void)state;
    static const char *const NAMES[] = {BACKUP "mark.2", "keys/escrow", "keys/recipients.3"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        const char *last = strrchr(NAMES[i], '/') + 1;
        char expected[256];
        const Row again[] = {{NAMES[i], "b", 120, 6, NULL},
                             {NAMES[i], "x", 110, 0, NULL},
                             {NAMES[i], "a", 10, 5, NULL},
                             {0}};
        snprintf(expected, sizeof expected, "overwritten %s b>a at 110 newer?;", last);
        check(again, expected);
        /* Nothing of ours ever overwrites. */
        const Row over[] = {{NAMES[i], "b", 120, 6, NULL}, {NAMES[i], "a", 10, 5, NULL}, {0}};
        snprintf(expected, sizeof expected, "overwritten %s b>a at 120;", last);
        check(over, expected);
    }
}

/* The collector's sweep had begun, or versions are gone for good: the summary may name packs that
   are not there, and without its doomed object its expiry could be taken back. */
static void
test_a_summary_comes_back_with_its_doomed_object_where_packs_are_gone(void **state)
{
    (void)state;
#define DOOMED BACKUP "doomed.0123456789abcdef"
#define PACK BACKUP "p/000/00000000"
#define REFS_HIDDEN                                                                                \
    {BACKUP "refs", "x", 110, 0, NULL},                                                            \
    {                                                                                              \
        BACKUP "refs", "a", 10, 5, NULL                                                            \
    }
    const Row old[] = {{DOOMED, "x", 110, 0, NULL},
                       {DOOMED, "d", 90, 5, NULL},
                       {PACK, "x", 95, 0, NULL},
                       {PACK, "p", 10, 5, NULL},
                       REFS_HIDDEN,
                       {0}};
    assert_int_equal(
        check(old, "hidden doomed.0123456789abcdef d at 110;hidden refs a at 110;").left_hidden, 0);
    const Row no_version[] = {{DOOMED, "x", 110, 0, NULL},
                              {DOOMED, "d", 105, 5, NULL},
                              {PACK, "x", 107, 0, NULL},
                              REFS_HIDDEN,
                              {0}};
    assert_int_equal(
        check(no_version, "hidden doomed.0123456789abcdef d at 110;hidden refs a at 110;")
            .without_version,
        1);
    /* All of it was swept since: whole again, and its expiry may be taken back. */
    const Row swept[] = {{DOOMED, "x", 110, 0, NULL},
                         {DOOMED, "d", 105, 5, NULL},
                         {PACK, "x", 107, 0, NULL},
                         {PACK, "p", 10, 5, NULL},
                         REFS_HIDDEN,
                         {0}};
    check(swept, "hidden 00000000 p at 107;hidden refs a at 110;");
    /* Alive, and the collector gave it back: a doomed object would keep readers off it. */
    const Row given_back[] = {{DOOMED, "x", 110, 0, NULL},
                              {DOOMED, "d", 90, 5, NULL},
                              {BACKUP "refs", "a", 10, 5, NULL},
                              {0}};
    assert_int_equal(check(given_back, "").left_hidden, 1);
    /* Another backup's doomed object says nothing of this one. */
#define OTHER "c/main/b/0000000011-3f9a010203040506/"
    const Row other[] = {{OTHER "doomed.0123456789abcdef", "x", 110, 0, NULL},
                         {OTHER "doomed.0123456789abcdef", "d", 90, 5, NULL},
                         REFS_HIDDEN,
                         {0}};
    check(other, "hidden refs a at 110;");
}

static void
test_pieces_of_a_segment_that_is_there_stay_hidden(void **state)
{
    (void)state;
#define PIECE SEGMENT ".tail.0123456789abcdef.00000000"
    const Row whole[] = {
        {SEGMENT, "a", 120, 5, NULL}, {PIECE, "x", 121, 0, NULL}, {PIECE, "p", 115, 5, NULL}, {0}};
    assert_int_equal(check(whole, "").left_hidden, 1);
    /* Names that lie between the two, and a piece before it. */
    const Row between[] = {{SEGMENT, "a", 120, 5, NULL},
                           {SEGMENT ".00000028.backup", "b", 120, 5, NULL},
                           {SEGMENT ".partial.01234567", "c", 110, 5, NULL},
                           {SEGMENT ".tail.0123456789abcdef.00000000", "d", 110, 5, NULL},
                           {SEGMENT ".tail.0123456789abcdef.00002000", "x", 121, 0, NULL},
                           {SEGMENT ".tail.0123456789abcdef.00002000", "p", 115, 5, NULL},
                           {0}};
    assert_int_equal(check(between, "").left_hidden, 1);
    const Row hidden[] = {{SEGMENT, "x", 130, 0, NULL},
                          {SEGMENT, "a", 120, 5, NULL},
                          {PIECE, "x", 121, 0, NULL},
                          {PIECE, "p", 115, 5, NULL},
                          {0}};
    check(hidden, "hidden 000000010000000000000007 a at 130;");
    const Row alone[] = {{PIECE, "x", 121, 0, NULL}, {PIECE, "p", 115, 5, NULL}, {0}};
    check(alone, "hidden 000000010000000000000007.tail.0123456789abcdef.00000000 p at 121;");
}

static void
test_what_cannot_come_back_and_what_came_too_early_is_counted(void **state)
{
    (void)state;
    const Row gone[] = {{BACKUP "fate", "x", 110, 0, NULL}, {0}};
    assert_int_equal(check(gone, "").without_version, 1);
    const Row long_gone[] = {
        {BACKUP "fate", "y", 110, 0, NULL}, {BACKUP "fate", "x", 10, 0, NULL}, {0}};
    assert_int_equal(check(long_gone, "").without_version, 0);
    const Row earlier[] = {
        {SEGMENT, "x", 110, 0, NULL}, {SEGMENT, "b", 90, 5, "e"}, {SEGMENT, "a", 10, 5, "d"}, {0}};
    assert_int_equal(check(earlier, "hidden 000000010000000000000007 b at 110;").earlier, 1);
    /* An earlier heal of garbage, or of a deletion, is no such thing. */
    const Row healed[] = {
        {SEGMENT, "h", 95, 5, "d"}, {SEGMENT, "b", 90, 5, "e"}, {SEGMENT, "a", 10, 5, "d"}, {0}};
    assert_int_equal(check(healed, "").earlier, 0);
    const Row undeleted[] = {
        {SEGMENT, "h", 95, 5, NULL}, {SEGMENT, "x", 90, 0, NULL}, {SEGMENT, "a", 10, 5, NULL}, {0}};
    assert_int_equal(check(undeleted, "").earlier, 0);
    const Row mark[] = {
        {BACKUP "mark.1", "a", 110, 5, NULL}, {BACKUP "mark.2", "b", 90, 5, NULL}, {0}};
    assert_int_equal(check(mark, "").new_marks, 1);
}

static void
test_a_bucket_without_versions_is_known(void **state)
{
    (void)state;
    const Row plain[] = {
        {BACKUP "fate", "null", 10, 5, NULL}, {SEGMENT, "null", 110, 5, NULL}, {0}};
    assert_false(check(plain, "").kept_versions);
    const Row later[] = {{SEGMENT, "x", 110, 0, NULL}, {SEGMENT, "null", 10, 5, NULL}, {0}};
    assert_true(check(later, "hidden 000000010000000000000007 null at 110;").kept_versions);
}

static void
test_each_name_of_the_format_has_a_subject(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        HealSubject subject;
    } CASES[] = {
        {"pgcairn.repo", HEAL_DESCRIPTOR},
        {"pgcairn.replica", HEAL_DESCRIPTOR},
        {"keys/main", HEAL_KEY},
        {"c/main/i/0123456789abcdef-15", HEAL_INCARNATION},
        {BACKUP "intent", HEAL_INTENT},
        {BACKUP "p/000/00000000", HEAL_PACK},
        {BACKUP "m/00000000", HEAL_MAP_PACK},
        {BACKUP "refs", HEAL_REFS},
        {BACKUP "fate", HEAL_FATE},
        {BACKUP "mark.1", HEAL_MARK},
        {BACKUP "ev.verified.0123456789abcdef", HEAL_EVIDENCE},
        {BACKUP "doomed.0123456789abcdef", HEAL_DOOMED},
        {"c/main/pin/0123456789abcdef.2", HEAL_PIN},
        {"c/main/gc/0123456789abcdef/condemned.1", HEAL_CONDEMNED},
        {"c/main/gc/reserve", HEAL_PASSING},
        {"c/main/cat/0123456789abcdef-15/00000001/00000000.1", HEAL_INDEX},
        {SEGMENT, HEAL_WAL},
        {WAL "ack.0-1.0123456789abcdef", HEAL_WAL},
        {"probe/0123456789abcdef.race1", HEAL_PASSING},
        {"c/main/b/" BID "/unknown", HEAL_FOREIGN},
        {"c/main/b/" BID, HEAL_FOREIGN},
        {"lost+found", HEAL_FOREIGN},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        if (heal_subject(CASES[i].name) != CASES[i].subject)
            fail_msg("%s is %s", CASES[i].name, heal_subject_name(heal_subject(CASES[i].name)));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_name_goes_back_to_what_it_was_then),
        cmocka_unit_test(test_what_permits_deletions_and_what_only_passes_stays_hidden),
        cmocka_unit_test(test_an_index_that_was_made_anew_stays),
        cmocka_unit_test(test_marks_and_keys_may_have_been_put_down_again),
        cmocka_unit_test(test_a_summary_comes_back_with_its_doomed_object_where_packs_are_gone),
        cmocka_unit_test(test_pieces_of_a_segment_that_is_there_stay_hidden),
        cmocka_unit_test(test_what_cannot_come_back_and_what_came_too_early_is_counted),
        cmocka_unit_test(test_a_bucket_without_versions_is_known),
        cmocka_unit_test(test_each_name_of_the_format_has_a_subject),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
