/* A key's proof, where a record of a system cannot be read. */
#include "repository/key_verify.h"

#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#define RUBBISH "c/main/i/0000000000000001-15"

static void
plant(WalFixture *fixture)
{
    CairnError err = {0};

    assert_true(storage_put(repository_storage(fixture->repository), RUBBISH, "rubbish", 7, &err));
}

static void
test_wal_of_the_other_systems_proves_the_key(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    KeyProof proof;

    wal_fixture_store_segment(fixture, 1, 5);
    plant(fixture);
    assert_true(key_verify(fixture->repository, "main", &proof, &err));
    assert_true(proof.has_wal);
    assert_string_equal(proof.segment, "000000010000000000000005");
    assert_int_equal(proof.unread.count, 1);
    assert_string_equal(proof.unread.object, RUBBISH);
}

/* That there is nothing to prove it with would be a guess. */
static void
test_without_any_proof_the_record_is_the_error(void **state)
{
    WalFixture *fixture = *state;
    CairnError none = {0}, err = {0};
    KeyProof proof;

    assert_false(key_verify(fixture->repository, "main", &proof, &none));
    assert_int_equal(none.kind, CAIRN_NOT_FOUND);
    plant(fixture);
    assert_false(key_verify(fixture->repository, "main", &proof, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_non_null(strstr(err.message, RUBBISH));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WAL_FIXTURE_TEST(test_wal_of_the_other_systems_proves_the_key),
        WAL_FIXTURE_TEST(test_without_any_proof_the_record_is_the_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
