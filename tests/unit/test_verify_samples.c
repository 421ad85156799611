/* Runs that each read one slice of the objects, and prove everything together. */
#include "repository/evidence.h"
#include "repository/verify.h"
#include "tests/unit/support/verify_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
test_samples_read_everything_in_exactly_n_runs(void **state)
{
    (void)state;
    enum { SLICES = 4 };
    for (size_t v = 0; v < VERIFY_VICTIMS; v++) {
        SCOPED_MEMORY VerifyFixture *fixture = malloc(sizeof *fixture);
        bool seen[SLICES] = {false};
        unsigned found = 0;
        assert_non_null(fixture);
        verify_fixture_open(fixture);
        const char *name = verify_victim_name(fixture, &verify_victims[v]);
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
        const bool small =
            verify_victims[v].backup >= 0 && strcmp(verify_victims[v].below, "refs") == 0;
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
        assert_false(verify_fixture_is_verified(fixture, FIRST));
        verify_report_free(verify_fixture_run(fixture, VERIFY_SAMPLE, SLICES));
        if (run == 2)
            late = verify_fixture_add(fixture, "late", 6, true);
    }
    assert_true(verify_fixture_is_verified(fixture, FIRST) &&
                verify_fixture_is_verified(fixture, SECOND) &&
                verify_fixture_is_verified(fixture, THIRD));
    /* One that came in between needs a whole rotation of its own. */
    for (int run = 0; run < 3; run++) {
        assert_false(verify_fixture_look_up(fixture, &late).verified);
        verify_report_free(verify_fixture_run(fixture, VERIFY_SAMPLE, SLICES));
    }
    assert_true(verify_fixture_look_up(fixture, &late).verified);
}

static void
test_the_rotation_goes_on_where_nothing_can_be_proven(void **state)
{
    VerifyFixture *fixture = *state;
    enum { SLICES = 3 };
    bool seen[SLICES] = {false};
    verify_fixture_refuse(fixture, verify_fixture_first_pack(fixture));
    for (int run = 0; run < SLICES; run++) {
        uint32_t slice, slices;
        SCOPED(VerifyReport) report = verify_fixture_run(fixture, VERIFY_SAMPLE, SLICES);
        assert_true(evidence_scope_parse(report->scope, &slice, &slices));
        assert_int_equal(report->counts[FINDING_UNREACHABLE], 1);
        assert_false(seen[slice - 1]);
        seen[slice - 1] = true;
    }
    verify_fixture_refuse(fixture, NULL);
    assert_false(verify_fixture_is_verified(fixture, FIRST) ||
                 verify_fixture_is_damaged(fixture, FIRST));
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples_read_everything_in_exactly_n_runs),
        VERIFY_TEST(test_all_slices_make_a_proof_and_one_less_makes_none),
        VERIFY_TEST(test_the_rotation_goes_on_where_nothing_can_be_proven),
        cmocka_unit_test(test_the_slice_of_a_name_never_changes),
    };
    return cmocka_run_group_tests_name("verify_samples", tests, NULL, NULL);
}
