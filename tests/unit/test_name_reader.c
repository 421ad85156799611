#include "postgres/name_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* What the callbacks saw, a line each. */
typedef struct {
    char text[4096];
    int stop_after; /* 0: never */
    int seen;
} Seen;

static bool
see_relation(void *context, const RelationName *relation, CairnError *err)
{
    Seen *seen = context;
    const size_t used = strlen(seen->text);
    (void)err;
    snprintf(seen->text + used, sizeof seen->text - used, "%u %u %u %u %c <%s> <%s>\n",
             relation->oid, relation->relfilenode, relation->tablespace, relation->root,
             relation->kind, relation->schema, relation->name);
    return ++seen->seen != seen->stop_after;
}

static bool
see_database(void *context, const DatabaseName *database, CairnError *err)
{
    Seen *seen = context;
    const size_t used = strlen(seen->text);
    (void)err;
    snprintf(seen->text + used, sizeof seen->text - used, "%u %u <%s>\n", database->oid,
             database->tablespace, database->name);
    return true;
}

static bool
read_pieces(const char *text, size_t size, size_t piece, bool databases, Seen *seen,
            bool *whole_out, CairnError *err)
{
    NameReader reader;
    const NameCallbacks callbacks = {.relation = databases ? NULL : see_relation,
                                     .database = databases ? see_database : NULL,
                                     .context = seen};
    name_reader_begin(&reader, &callbacks);
    for (size_t at = 0; at < size; at += piece) {
        if (!name_reader_feed(&reader, text + at, piece < size - at ? piece : size - at, err))
            return false;
    }
    return name_reader_finish(&reader, whole_out, err);
}

#define LIST                                                                                       \
    "16385\t16385\t1663\t0\tr\tpublic\torders\n"                                                   \
    "16390\t16400\t1663\t16385\ti\tmy schema\tta\\tb\\\\c\\nd\n"                                   \
    "\\.\n"

static void
test_pieces_of_any_size_give_the_same_rows(void **state)
{
    (void)state;
    for (size_t piece = 1; piece <= strlen(LIST); piece++) {
        Seen seen = {0};
        CairnError err = {0};
        bool whole = false;
        assert_true(read_pieces(LIST, strlen(LIST), piece, false, &seen, &whole, &err));
        assert_true(whole);
        assert_string_equal(seen.text, "16385 16385 1663 0 r <public> <orders>\n"
                                       "16390 16400 1663 16385 i <my schema> <ta\tb\\c\nd>\n");
    }
}

static void
test_databases_are_read(void **state)
{
    static const char text[] = "5\t1663\tpostgres\n16384\t16500\tw\xc3\xa4hrung\n\\.\n";
    Seen seen = {0};
    CairnError err = {0};
    bool whole = false;
    (void)state;
    assert_true(read_pieces(text, strlen(text), 7, true, &seen, &whole, &err));
    assert_true(whole);
    assert_string_equal(seen.text, "5 1663 <postgres>\n16384 16500 <w\xc3\xa4hrung>\n");
}

static void
test_a_list_that_was_cut_is_not_whole(void **state)
{
    static const char text[] = "16385\t16385\t1663\t0\tr\tpublic\torders\n";
    Seen seen = {0};
    CairnError err = {0};
    bool whole = true;
    (void)state;
    assert_true(read_pieces(text, strlen(text), 100, false, &seen, &whole, &err));
    assert_false(whole);
    assert_int_equal(seen.seen, 1);
    assert_false(read_pieces(text, strlen(text) - 1, 100, false, &seen, &whole, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_a_callback_that_has_enough_ends_it(void **state)
{
    Seen seen = {.stop_after = 1};
    CairnError err = {0};
    bool whole = false;
    (void)state;
    /* What follows is not even looked at. */
    static const char text[] = "1\t2\t3\t0\tr\ts\tt\nrubbish\nmore";
    assert_true(read_pieces(text, strlen(text), 3, false, &seen, &whole, &err));
    assert_true(whole);
    assert_int_equal(seen.seen, 1);
}

static void
test_what_is_no_list_is_refused(void **state)
{
    static const struct {
        const char *name;
        const char *text;
    } cases[] = {
        {"field missing", "1\t2\t3\t0\tr\ts\n"},
        {"field too many", "1\t2\t3\t0\tr\ts\tt\tu\n"},
        {"empty line", "\n"},
        {"no number", "1x\t2\t3\t0\tr\ts\tt\n"},
        {"empty number", "\t2\t3\t0\tr\ts\tt\n"},
        {"33 bits", "4294967296\t2\t3\t0\tr\ts\tt\n"},
        {"null", "1\t\\N\t3\t0\tr\ts\tt\n"},
        {"long kind", "1\t2\t3\t0\trr\ts\tt\n"},
        {"row after the end", "\\.\n1\t2\t3\t0\tr\ts\tt\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Seen seen = {0};
        CairnError err = {0};
        bool whole;
        if (read_pieces(cases[i].text, strlen(cases[i].text), 1000, false, &seen, &whole, &err))
            fail_msg("%s was taken", cases[i].name);
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        assert_int_equal(seen.seen, 0);
    }
}

static void
test_a_nul_and_an_endless_line_are_refused(void **state)
{
    static const char nul[] = "1\t2\t3\t0\tr\ts\tt\0u\n";
    static char endless[NAME_LINE_LIMIT + 10];
    Seen seen = {0};
    CairnError err = {0};
    bool whole;
    (void)state;
    assert_false(read_pieces(nul, sizeof nul - 1, 1000, false, &seen, &whole, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    cairn_error_clear(&err);
    memset(endless, '1', sizeof endless);
    assert_false(read_pieces(endless, sizeof endless, 100, false, &seen, &whole, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_of_any_size_give_the_same_rows),
        cmocka_unit_test(test_databases_are_read),
        cmocka_unit_test(test_a_list_that_was_cut_is_not_whole),
        cmocka_unit_test(test_a_callback_that_has_enough_ends_it),
        cmocka_unit_test(test_what_is_no_list_is_refused),
        cmocka_unit_test(test_a_nul_and_an_endless_line_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
