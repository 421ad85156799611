#include "repository/incarnation.h"

#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

enum { MIB = 1 << 20, PLANTED = INCARNATION_LIMIT + 10 };

static int
setup(void **state)
{
    static WalFixture fixture; /* its own system has the highest identifier of all here */

    wal_fixture_open(&fixture, MIB);
    *state = &fixture;
    return 0;
}

static int
teardown(void **state)
{
    wal_fixture_close(*state);
    return 0;
}

/* Valid records, as whoever may create can make them: before the cluster's own by name. */
static void
plant(WalFixture *fixture, uint64_t first, uint64_t count)
{
    CairnError err = {0};

    for (uint64_t i = first; i < first + count; i++) {
        const Incarnation made = {.system_id = i, .major = 15, .wal_segment_size = MIB};
        assert_true(i < fixture->incarnation.system_id);
        assert_true(incarnation_record(fixture->repository, "main", &made, &err));
    }
}

typedef struct {
    Incarnation list[INCARNATION_LIMIT];
    size_t count;
    IncarnationTrouble trouble;
} Listed;

static Listed
list(WalFixture *fixture, const IncarnationWish *wish)
{
    CairnError err = {0};
    Listed listed;

    assert_true(incarnation_list_first(fixture->repository, "main", wish, listed.list,
                                       &listed.count, &listed.trouble, &err));
    return listed;
}

static bool
has(const Listed *listed, uint64_t system_id)
{
    for (size_t i = 0; i < listed->count; i++) {
        if (listed->list[i].system_id == system_id)
            return true;
    }
    return false;
}

static void
test_a_system_with_wal_comes_before_any_number_without(void **state)
{
    WalFixture *fixture = *state;

    plant(fixture, 1, PLANTED);
    wal_fixture_store_segment(fixture, 1, 5);
    const Listed listed = list(fixture, NULL);
    assert_int_equal(listed.count, INCARNATION_LIMIT);
    assert_true(has(&listed, fixture->incarnation.system_id));
    assert_int_equal(listed.trouble.count, PLANTED + 1 - INCARNATION_LIMIT);
    assert_int_equal(listed.trouble.left_out, listed.trouble.count);
    assert_int_equal(listed.trouble.problem.kind, CAIRN_UNSUPPORTED);
}

static void
test_what_the_storage_has_had_longest_comes_before_what_came_later(void **state)
{
    WalFixture *fixture = *state;

    plant(fixture, 1, PLANTED);
    const Listed listed = list(fixture, NULL);
    assert_true(has(&listed, fixture->incarnation.system_id));
}

static void
test_a_system_that_backups_name_comes_first_of_all(void **state)
{
    WalFixture *fixture = *state;
    const IncarnationId named = {.system_id = PLANTED, .major = 15};
    const IncarnationWish wish = {.first = &named, .first_count = 1};

    plant(fixture, 1, PLANTED);
    const Listed without = list(fixture, NULL);
    assert_false(has(&without, PLANTED));
    const Listed listed = list(fixture, &wish);
    assert_true(has(&listed, PLANTED));
    assert_int_equal(listed.count, INCARNATION_LIMIT);
}

/* Rubbish takes no room: it is named, and the next one read. */
static void
test_records_that_cannot_be_read_take_no_room(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};

    for (unsigned i = 1; i <= PLANTED; i++) {
        char name[64];
        snprintf(name, sizeof name, "c/main/i/%016x-15", i);
        assert_true(storage_put(repository_storage(fixture->repository), name, "rubbish", 7, &err));
    }
    plant(fixture, 1000, 5);
    const Listed listed = list(fixture, NULL);
    assert_int_equal(listed.count, 6);
    assert_int_equal(listed.trouble.count, PLANTED);
    assert_int_equal(listed.trouble.left_out, 0);
}

/* As many names as are gathered at a time, and more: the oldest stay. */
static void
test_any_number_of_names_is_counted_in_bounded_memory(void **state)
{
    enum { MANY = 9000 };
    WalFixture *fixture = *state;

    for (unsigned i = 1; i <= MANY; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/c/main/i/%016x-15", fixture->root, i);
        FILE *file = fopen(path, "w"); /* without a sync each, which would take minutes */
        assert_non_null(file);
        assert_int_equal(fclose(file), 0);
    }
    const Listed listed = list(fixture, NULL);
    assert_int_equal(listed.count, 1);
    assert_true(has(&listed, fixture->incarnation.system_id));
    assert_int_equal(listed.trouble.count, MANY);
    assert_true(listed.trouble.left_out > 0 && listed.trouble.left_out < MANY);
}

#define LIST_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        LIST_TEST(test_a_system_with_wal_comes_before_any_number_without),
        LIST_TEST(test_what_the_storage_has_had_longest_comes_before_what_came_later),
        LIST_TEST(test_a_system_that_backups_name_comes_first_of_all),
        LIST_TEST(test_records_that_cannot_be_read_take_no_room),
        LIST_TEST(test_any_number_of_names_is_counted_in_bounded_memory),
    };
    return cmocka_run_group_tests_name("incarnation", tests, NULL, NULL);
}
