/* Driver and server together, over sockets that are cut where it hurts. */
#include "storage/ssh_protocol.h"
#include "tests/unit/support/ssh_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A small object, with the first connection cut at every byte of one direction. */
static void
put_with_every_cut(bool to_server)
{
    size_t total = 1;
    for (size_t at = 0; at < total; at++) {
        CairnError err = {0};
        ssh_fixture_free(&ssh_test);
        ssh_fixture_init(&ssh_test);
        ssh_test.cuts[0] = to_server ? (SshCut){at, SIZE_MAX} : (SshCut){SIZE_MAX, at};
        Storage *storage = ssh_fixture_connect(&ssh_test, &err);
        const bool connected = storage != NULL;
        if (connected && !ssh_test_put(storage, "c/x", 300, 7, &err))
            fail_msg("cut after %zu bytes: %s", at, err.message);
        storage_close(storage);
        ssh_fixture_settle(&ssh_test);
        if (connected) {
            assert_true(ssh_test_has("c/x", 300, 7));
            assert_int_equal(ssh_test_count("c"), 1);
        } else {
            assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
        }
        if (at == 0) { /* how many there are, from one that is not cut */
            ssh_fixture_init(&ssh_test);
            cairn_error_clear(&err);
            storage = ssh_test_connect();
            assert_true(ssh_test_put(storage, "c/x", 300, 7, &err));
            storage_close(storage);
            ssh_fixture_settle(&ssh_test);
            total =
                to_server ? ssh_test.connections[0].to_server : ssh_test.connections[0].to_client;
            assert_true(total > 60);
        }
    }
}

static void
test_a_small_object_survives_a_cut_at_every_byte_sent(void **state)
{
    (void)state;
    put_with_every_cut(true);
}

static void
test_a_small_object_survives_a_cut_at_every_byte_received(void **state)
{
    (void)state;
    put_with_every_cut(false);
}

static void
test_a_large_object_is_there_or_unavailable(void **state)
{
    (void)state;
    unsigned there = 0, missing = 0;
    for (size_t at = 1; at <= SSH_TEST_LARGE + 2000;
         at += at < 1000 || at > SSH_TEST_LARGE ? 131 : 200003) {
        CairnError err = {0};
        ssh_fixture_free(&ssh_test);
        ssh_fixture_init(&ssh_test);
        ssh_test.cuts[0].to_server = at;
        Storage *storage = ssh_fixture_connect(&ssh_test, &err);
        if (storage != NULL && ssh_test_put(storage, "c/x", SSH_TEST_LARGE, 7, &err)) {
            assert_true(ssh_test_has("c/x", SSH_TEST_LARGE, 7));
            there++;
        } else {
            assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
            missing++;
        }
        storage_close(storage);
        ssh_fixture_settle(&ssh_test);
        assert_true(ssh_test_count("c") == (err.kind == CAIRN_OK ? 1u : 0u));
    }
    assert_true(there > 0 && missing > 10);
}

/* Bytes that the server sends up to the answer to the commit of such an object. */
static size_t
measure_answers(size_t size)
{
    CairnError err = {0};
    ssh_fixture_free(&ssh_test);
    ssh_fixture_init(&ssh_test);
    Storage *storage = ssh_test_connect();
    assert_true(ssh_test_put(storage, "c/x", size, 7, &err));
    storage_close(storage);
    ssh_fixture_settle(&ssh_test);
    const size_t total = ssh_test.connections[0].to_client;
    ssh_fixture_init(&ssh_test);
    return total;
}

static void
test_a_commit_whose_answer_is_lost_is_looked_for(void **state)
{
    (void)state;
    static const size_t SIZES[] = {300, SSH_TEST_LARGE};
    for (size_t i = 0; i < 2; i++) {
        CairnError err = {0};
        /* All but the last byte of the answer. */
        ssh_test.cuts[0].to_client = measure_answers(SIZES[i]) - 1;
        SCOPED(Storage) storage = ssh_test_connect();
        if (!ssh_test_put(storage, "c/x", SIZES[i], 7, &err))
            fail_msg("%s", err.message);
        assert_true(ssh_test_has("c/x", SIZES[i], 7));
        assert_int_equal(atomic_load(&ssh_test.connection_count), 2);
        /* Named by the old connection: the new one made it durable before saying so. */
        assert_true(ssh_test.disk.calls[FAULT_FSYNC] >= 2);
    }
}

static void
test_a_lost_answer_does_not_make_others_content_ours(void **state)
{
    (void)state;
    static const size_t SIZES[] = {300, SSH_TEST_LARGE};
    for (size_t i = 0; i < 2; i++) {
        CairnError err = {0};
        const size_t answers = measure_answers(SIZES[i]);
        SCOPED(Storage) other = ssh_test_connect();
        assert_true(ssh_test_put(other, "c/x", SIZES[i], 8, &err));
        ssh_test.cuts[1].to_client = answers - 1; /* in the words of the conflict */
        SCOPED(Storage) storage = ssh_test_connect();
        assert_false(ssh_test_put(storage, "c/x", SIZES[i], 7, &err));
        assert_int_equal(err.kind, CAIRN_CONFLICT);
        assert_true(ssh_test_has("c/x", SIZES[i], 8));
    }
}

static void
test_a_reader_goes_on_over_a_new_connection(void **state)
{
    (void)state;
    CairnError err = {0};
    Storage *first = ssh_test_connect();
    assert_true(ssh_test_put(first, "a", SSH_TEST_LARGE, 3, &err));
    storage_close(first);
    for (size_t at = 200; at < SSH_TEST_LARGE; at += 250007) {
        ssh_test.cuts[atomic_load(&ssh_test.connection_count)].to_client = at;
        SCOPED(Storage) storage = ssh_test_connect();
        ssh_test_read_back(storage, "a", SSH_TEST_LARGE, 3, at % 2 == 0 ? 50000 : 700000);
    }
}

static void
test_a_host_that_stays_away_is_unavailable(void **state)
{
    (void)state;
    CairnError err = {0};
    uint64_t size;
    ssh_test.cuts[0].to_client = measure_answers(300) - 1;
    ssh_test.refuse_after = 1;
    SCOPED(Storage) storage = ssh_test_connect();
    assert_false(ssh_test_put(storage, "c/x", 300, 7, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    cairn_error_clear(&err);
    assert_false(storage_exists(storage, "c/x", &size, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    /* And when it is back, so are we. */
    cairn_error_clear(&err);
    ssh_test.refuse_after = SSH_FIXTURE_CONNECTIONS;
    assert_true(storage_exists(storage, "c/x", &size, &err));
}

/* A repository host that comes back before its file system is mounted: of the objects nothing is
 * known. */
static void
test_a_place_that_is_gone_at_a_new_connection_is_unavailable(void **state)
{
    (void)state;
    CairnError err = {0};
    uint64_t size;
    char away[sizeof ssh_test.root + 8];
    ssh_test.cuts[0].to_client = measure_answers(300);
    SCOPED(Storage) storage = ssh_test_connect();
    storage_set_patience(storage, 100);
    assert_true(ssh_test_put(storage, "c/x", 300, 7, &err));
    snprintf(away, sizeof away, "%s.away", ssh_test.root);
    assert_int_equal(rename(ssh_test.root, away), 0);
    assert_false(storage_exists(storage, "c/x", &size, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    cairn_error_clear(&err);
    assert_null(storage_open(storage, "c/x", &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    cairn_error_clear(&err);
    assert_int_equal(rename(away, ssh_test.root), 0);
    assert_true(storage_exists(storage, "c/x", &size, &err));
}

static void
write_descriptor(const char *root, const char *name, const char *text)
{
    char path[sizeof ssh_test.root + 32];
    snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* Another file system under the same path: what is not there says nothing of what was. */
static void
test_another_repository_at_a_new_connection_is_unavailable(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *said;
    } OTHERS[] = {{"pgcairn.repo", "of another repository", "another repository"},
                  {"pgcairn.replica", "of ours", "another repository"}, /* a copy of ours */
                  {NULL, NULL, "no repository"}};
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        CairnError err = {0};
        uint64_t size;
        char away[sizeof ssh_test.root + 8], aside[sizeof ssh_test.root + 8];
        ssh_test.cuts[0].to_client = measure_answers(300) + SSH_IDENTITY_SIZE;
        write_descriptor(ssh_test.root, "pgcairn.repo", "of ours");
        SCOPED(Storage) storage = ssh_test_connect();
        storage_set_patience(storage, 100);
        assert_true(ssh_test_put(storage, "c/x", 300, 7, &err));
        snprintf(away, sizeof away, "%s.away", ssh_test.root);
        assert_int_equal(rename(ssh_test.root, away), 0);
        assert_int_equal(mkdir(ssh_test.root, 0700), 0);
        if (OTHERS[i].name != NULL)
            write_descriptor(ssh_test.root, OTHERS[i].name, OTHERS[i].text);
        assert_false(storage_exists(storage, "c/x", &size, &err));
        assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
        assert_int_equal(err.system_errno, ESTALE);
        assert_non_null(strstr(err.message, OTHERS[i].said));
        cairn_error_clear(&err);
        assert_null(storage_open(storage, "c/x", &err));
        assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
        cairn_error_clear(&err);
        /* Ours again. */
        snprintf(aside, sizeof aside, "%s.%zu", ssh_test.root, i);
        assert_int_equal(rename(ssh_test.root, aside), 0);
        assert_int_equal(rename(away, ssh_test.root), 0);
        assert_true(storage_exists(storage, "c/x", &size, &err));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SSH_TEST(test_a_small_object_survives_a_cut_at_every_byte_sent),
        SSH_TEST(test_a_small_object_survives_a_cut_at_every_byte_received),
        SSH_TEST(test_a_large_object_is_there_or_unavailable),
        SSH_TEST(test_a_commit_whose_answer_is_lost_is_looked_for),
        SSH_TEST(test_a_lost_answer_does_not_make_others_content_ours),
        SSH_TEST(test_a_reader_goes_on_over_a_new_connection),
        SSH_TEST(test_a_host_that_stays_away_is_unavailable),
        SSH_TEST(test_a_place_that_is_gone_at_a_new_connection_is_unavailable),
        SSH_TEST(test_another_repository_at_a_new_connection_is_unavailable),
    };
    signal(SIGPIPE, SIG_IGN); /* as both programs do */
    return cmocka_run_group_tests_name("ssh_cuts", tests, NULL, NULL);
}
