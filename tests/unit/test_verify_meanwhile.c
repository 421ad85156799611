/* What is expired, collected and committed while verify reads. */
#include "repository/verify.h"
#include "tests/unit/support/verify_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

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
    assert_true(verify_fixture_is_damaged(fixture, THIRD));
    assert_false(verify_fixture_is_damaged(fixture, SECOND));
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
    if (writer->done || strcmp(name, verify_fixture_first_pack(writer->fixture)) != 0)
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
    mutilate_middle(fixture, verify_fixture_first_pack(fixture), NULL);
    SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_FULL, 0);
    assert_true(writer.done);
    assert_int_equal(report->damaged_backup_count, 4);
    assert_string_equal(report->damaged_backups[3], "late");
    assert_true(verify_fixture_look_up(fixture, &writer.made).damaged);
    assert_true(verify_fixture_is_suspect(fixture, &writer.made, 0));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        VERIFY_TEST(test_what_is_collected_meanwhile_is_no_finding),
        VERIFY_TEST(test_what_is_lost_while_one_of_several_expires_is_a_finding),
        VERIFY_TEST(test_a_backup_made_meanwhile_on_a_damaged_pack_learns_of_it),
    };
    return cmocka_run_group_tests_name("verify_meanwhile", tests, NULL, NULL);
}
