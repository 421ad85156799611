/* What a create-only connection may do, and what not. */
#include "tests/unit/support/ssh_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <string.h>

static const char *const CLUSTERS[] = {"main"};

static Storage *
connect_restricted(void)
{
    ssh_test.clusters = CLUSTERS;
    ssh_test.cluster_count = 1;
    return ssh_test_connect();
}

#define A_BACKUP "c/main/b/0000000001-0123456789abcdef"

static void
test_create_only_lets_backups_be_made(void **state)
{
    (void)state;
    static const char *const ALLOWED[] = {
        A_BACKUP "/intent",
        A_BACKUP "/p/000/00000000",
        A_BACKUP "/m/00000000",
        A_BACKUP "/refs",
        A_BACKUP "/fate",
        A_BACKUP "/ev.verified.all.0123",
        "c/main/w/1-15/00000001/00000000/000000010000000000000001",
        "c/main/pin/0123456789abcdef",
        "c/main/i/1-15",
        "c/main/check-0123456789abcdef",
    };
    SCOPED(Storage) storage = connect_restricted();
    assert_true(storage_is_create_only(storage));
    for (size_t i = 0; i < sizeof ALLOWED / sizeof ALLOWED[0]; i++) {
        CairnError err = {0};
        if (!ssh_test_put(storage, ALLOWED[i], 10, 1, &err))
            fail_msg("%s: %s", ALLOWED[i], err.message);
        ssh_test_read_back(storage, ALLOWED[i], 10, 1, 10);
        assert_true(storage_make_durable(storage, ALLOWED[i], &err));
    }
}

static void
test_create_only_refuses_what_lets_go(void **state)
{
    (void)state;
    static const char *const REFUSED[] = {
        "pgcairn.repo",
        "keys/one",
        "c/other/pin/1",
        "c/mainly/pin/1",
        "c/main",
        "c",
        "check-0123",
        "c/main/gc/1/condemned.1",
        "c/main/cat/1/2",
        "c/main/anything",
        "c/main/b/anything",
        A_BACKUP "/mark.1",
        A_BACKUP "/doomed.1",
        A_BACKUP "/ev.damaged.all.0123",
        A_BACKUP "/fate/x",
        A_BACKUP "/intentional",
    };
    SCOPED(Storage) storage = connect_restricted();
    for (size_t i = 0; i < sizeof REFUSED / sizeof REFUSED[0]; i++) {
        CairnError err = {0};
        if (ssh_test_put(storage, REFUSED[i], 10, 1, &err))
            fail_msg("%s was created", REFUSED[i]);
        assert_int_equal(err.kind, CAIRN_DENIED);
        assert_non_null(strstr(err.hint, "backup1"));
    }
}

static void
test_create_only_removes_nothing_that_was_there(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Storage) before = connect_restricted();
    static const char *const THERE[] = {A_BACKUP "/fate", "c/main/pin/aa", A_BACKUP "/p/0"};
    for (size_t i = 0; i < 3; i++)
        assert_true(ssh_test_put(before, THERE[i], 10, 1, &err));
    /* Its own fate and pack not even the connection that made them. */
    assert_false(storage_remove(before, THERE[0], &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    cairn_error_clear(&err);

    SCOPED(Storage) storage = connect_restricted();
    for (size_t i = 0; i < 3; i++) {
        assert_false(storage_remove(storage, THERE[i], &err));
        assert_int_equal(err.kind, CAIRN_DENIED);
        assert_true(ssh_test_has(THERE[i], 10, 1));
        cairn_error_clear(&err);
        assert_false(ssh_test_put(storage, THERE[i], 10, 2, &err));
        assert_int_equal(err.kind, CAIRN_CONFLICT);
        cairn_error_clear(&err);
        /* A conflict is no creation: it is still not this connection's. */
        assert_false(storage_remove(storage, THERE[i], &err));
        cairn_error_clear(&err);
    }
    assert_false(storage_sweep(storage, "c/main/pin", INT64_MAX, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    cairn_error_clear(&err);
    assert_false(storage_prune(storage, "c/main/pin", &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
}

static void
test_create_only_takes_back_its_own_pins_once(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Storage) storage = connect_restricted();
    assert_true(ssh_test_put(storage, "c/main/pin/aa", 10, 1, &err));
    assert_true(storage_remove(storage, "c/main/pin/aa", &err));
    SCOPED(Storage) other = connect_restricted();
    assert_true(ssh_test_put(other, "c/main/pin/aa", 10, 1, &err));
    assert_false(storage_remove(storage, "c/main/pin/aa", &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    assert_true(ssh_test_has("c/main/pin/aa", 10, 1));
}

static StorageListNext
count_names(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)err;
    assert_string_not_equal(entry->name, "other");
    assert_string_not_equal(entry->name, "secret");
    (*(unsigned *)context)++;
    return STORAGE_LIST_GO_ON;
}

static void
test_create_only_sees_its_own_cluster_alone(void **state)
{
    (void)state;
    CairnError err = {0};
    unsigned count = 0;
    {
        SCOPED(Storage) storage = ssh_test_connect();
        static const char *const THERE[] = {"pgcairn.repo", "pgcairn.replica", "keys/one",
                                            "c/main/i/1",   "c/other/i/1",     "secret"};
        for (size_t i = 0; i < sizeof THERE / sizeof THERE[0]; i++)
            assert_true(ssh_test_put(storage, THERE[i], 10, 1, &err));
    }
    SCOPED(Storage) storage = connect_restricted();
    assert_true(storage_list(storage, "", count_names, &count, &err));
    assert_int_equal(count, 4); /* pgcairn.repo and .replica, keys, c */
    count = 0;
    assert_true(storage_list(storage, "c", count_names, &count, &err));
    assert_int_equal(count, 1);
    ssh_test_read_back(storage, "pgcairn.repo", 10, 1, 10);
    ssh_test_read_back(storage, "keys/one", 10, 1, 10);
    static const char *const HIDDEN[] = {"c/other/i/1", "secret"};
    for (size_t i = 0; i < 2; i++) {
        uint64_t size;
        assert_null(storage_open(storage, HIDDEN[i], &err));
        assert_int_equal(err.kind, CAIRN_DENIED);
        cairn_error_clear(&err);
        assert_false(storage_exists(storage, HIDDEN[i], &size, &err));
        assert_int_equal(err.kind, CAIRN_DENIED);
        cairn_error_clear(&err);
    }
    assert_false(storage_list(storage, "c/other", count_names, &count, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SSH_TEST(test_create_only_lets_backups_be_made),
        SSH_TEST(test_create_only_refuses_what_lets_go),
        SSH_TEST(test_create_only_removes_nothing_that_was_there),
        SSH_TEST(test_create_only_takes_back_its_own_pins_once),
        SSH_TEST(test_create_only_sees_its_own_cluster_alone),
    };
    signal(SIGPIPE, SIG_IGN); /* as both programs do */
    return cmocka_run_group_tests_name("ssh_create_only", tests, NULL, NULL);
}
