#include "repository/mark.h"

#include "repository/json.h"
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

#define LAB(name)                                                                                  \
    __attribute__((cleanup(lab_close))) Lab name;                                                  \
    lab_open(&name)

static MarkState
state_of(Lab *lab, const BackupId *bid)
{
    CairnError err = {0};
    MarkState state;
    assert_true(mark_read(lab->repository, "main", bid, &state, &err));
    return state;
}

static void
add(Lab *lab, const BackupId *bid, MarkKind kind)
{
    CairnError err = {0};
    assert_true(mark_add(lab->repository, "main", bid, kind, "because", &err));
}

static void
test_marks_are_numbered_and_the_highest_of_its_kind_counts(void **state)
{
    (void)state;
    LAB(lab);
    const BackupId bid = test_backup_id(1);
    MarkState marks = state_of(&lab, &bid);
    assert_false(marks.expired || marks.pending || marks.kept);
    assert_int_equal(marks.next, 0);

    add(&lab, &bid, MARK_KEEP);
    add(&lab, &bid, MARK_EXPIRE);
    marks = state_of(&lab, &bid);
    assert_true(marks.expired && marks.kept);
    assert_int_equal(marks.next, 2);

    add(&lab, &bid, MARK_UNEXPIRE_PENDING);
    marks = state_of(&lab, &bid);
    assert_true(marks.pending && !marks.expired);

    add(&lab, &bid, MARK_UNEXPIRE);
    add(&lab, &bid, MARK_RELEASE);
    marks = state_of(&lab, &bid);
    assert_false(marks.pending || marks.expired || marks.kept);

    for (int i = 0; i < 10; i++)
        add(&lab, &bid, i % 2 == 0 ? MARK_KEEP : MARK_RELEASE);
    add(&lab, &bid, MARK_EXPIRE);
    marks = state_of(&lab, &bid);
    assert_true(marks.expired && !marks.kept);
    assert_int_equal(marks.next, 16);
}

static void
test_a_number_that_is_taken_is_never_overwritten(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    add(&lab, &bid, MARK_EXPIRE);
    assert_false(mark_add_at(lab.repository, "main", &bid, 0, MARK_UNEXPIRE, "", &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    assert_true(state_of(&lab, &bid).expired);
}

typedef struct {
    Lab *lab;
    BackupId bid;
    unsigned at;
} Rival;

static void
mark_before(void *context, unsigned call)
{
    Rival *rival = context;
    if (call == rival->at)
        add(rival->lab, &rival->bid, MARK_KEEP);
}

/* Between the listing and the creation somebody else takes the number. */
static void
test_two_that_mark_at_once_both_have_their_mark(void **state)
{
    (void)state;
    for (unsigned at = 1; at <= 3; at++) {
        __attribute__((cleanup(lab_close))) Lab lab;
        HookedStorage *hooks = hooked_storage_new(memory_storage_new());
        lab_open_storage(&lab, &hooks->base);
        Rival rival = {.lab = &lab, .bid = test_backup_id(1), .at = at};
        hooked_storage_reset(hooks);
        hooks->hook = mark_before;
        hooks->context = &rival;
        add(&lab, &rival.bid, MARK_EXPIRE);
        hooked_storage_reset(hooks);
        const MarkState marks = state_of(&lab, &rival.bid);
        assert_true(marks.expired && marks.kept);
        assert_int_equal(marks.next, 2);
    }
}

static void
test_an_unreadable_mark_is_an_error_where_it_would_count(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    MarkState marks;
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(1);
    add(&lab, &bid, MARK_EXPIRE);
    add(&lab, &bid, MARK_KEEP);
    add(&lab, &bid, MARK_EXPIRE);
    snprintf(name, sizeof name, "c/main/b/%s/mark.1", bid.text);
    lab_damage(&lab, name);
    assert_false(mark_read(lab.repository, "main", &bid, &marks, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_non_null(strstr(err.message, name));
    /* Decided above it: what it said makes no difference. */
    add(&lab, &bid, MARK_RELEASE);
    assert_true(state_of(&lab, &bid).expired);
    assert_false(state_of(&lab, &bid).kept);
}

static void
test_a_mark_of_a_newer_version_is_not_passed_over(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    MarkState marks;
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(1);
    add(&lab, &bid, MARK_EXPIRE);
    snprintf(name, sizeof name, "c/main/b/%s/mark.1", bid.text);
    SCOPED_JSON json_t *json = json_pack("{s:s}", "mark", "hold");
    assert_true(json_put(lab.repository, name, OBJECT_MARK, 1, json, NULL, &err));
    assert_false(mark_read(lab.repository, "main", &bid, &marks, &err));
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marks_are_numbered_and_the_highest_of_its_kind_counts),
        cmocka_unit_test(test_a_number_that_is_taken_is_never_overwritten),
        cmocka_unit_test(test_two_that_mark_at_once_both_have_their_mark),
        cmocka_unit_test(test_an_unreadable_mark_is_an_error_where_it_would_count),
        cmocka_unit_test(test_a_mark_of_a_newer_version_is_not_passed_over),
    };
    return cmocka_run_group_tests_name("mark", tests, NULL, NULL);
}
