/* Driver and server together, while their connection holds. */
#include "storage/connect.h"
#include "storage/ssh_protocol.h"
#include "tests/unit/support/ssh_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { THREADS = 8 };

static void
test_what_was_put_is_got(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Storage) storage = ssh_test_connect();
    static const size_t SIZES[] = {
        0, 1, SSH_HEAD_SIZE, SSH_HEAD_SIZE + 1, SSH_KEEP_SIZE + 1, SSH_TEST_LARGE};
    for (uint32_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        char name[32];
        snprintf(name, sizeof name, "c/main/o%u", i);
        assert_true(ssh_test_put(storage, name, SIZES[i], i, &err));
        assert_true(ssh_test_has(name, SIZES[i], i));
        uint64_t size = 99;
        assert_true(storage_exists(storage, name, &size, &err));
        assert_int_equal(size, SIZES[i]);
        for (size_t step = 1 << 20; SIZES[i] > 0 && step > 7000; step /= 3)
            ssh_test_read_back(storage, name, SIZES[i], i, step);
    }
    assert_int_equal(ssh_test_count("c/main"), sizeof SIZES / sizeof SIZES[0]);
}

static void
test_pieces_are_read_in_any_order(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Storage) storage = ssh_test_connect();
    assert_true(ssh_test_put(storage, "a", SSH_TEST_LARGE, 5, &err));
    uint8_t *expected = malloc(SSH_TEST_LARGE), *found = malloc(SSH_TEST_LARGE);
    ssh_test_fill(expected, SSH_TEST_LARGE, 5);
    SCOPED(StorageReader) reader = storage_open(storage, "a", &err);
    assert_non_null(reader);
    uint32_t random = 1;
    for (int i = 0; i < 400; i++) {
        random = random * 1664525 + 1013904223;
        size_t offset = (random >> 4) % SSH_TEST_LARGE;
        size_t size = (random >> 20) * 300 % (SSH_TEST_LARGE - offset + 1);
        /* Every other one in a row, so that what is asked for ahead is used, dropped and asked
         * anew. */
        for (int k = 0; k < (i % 2 == 0 ? 1 : 6) && offset + size <= SSH_TEST_LARGE; k++) {
            assert_true(storage_pread(reader, found, size, offset, &err));
            assert_memory_equal(found, expected + offset, size);
            offset += size + (size_t)k;
        }
    }
    free(expected);
    free(found);
}

static void
test_a_name_is_taken_once(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Storage) storage = ssh_test_connect();
    assert_true(ssh_test_put(storage, "a", 100, 1, &err));
    assert_false(ssh_test_put(storage, "a", 100, 2, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    cairn_error_clear(&err);
    /* The same bytes by another writer are a conflict, too: only a lost answer makes them ours. */
    assert_false(ssh_test_put(storage, "a", 100, 1, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    assert_true(ssh_test_has("a", 100, 1));
}

static void
test_absence_is_not_found(void **state)
{
    (void)state;
    uint64_t size;
    SCOPED(Storage) storage = ssh_test_connect();
    CairnError err = {0};
    assert_null(storage_open(storage, "c/none", &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    cairn_error_clear(&err);
    assert_false(storage_exists(storage, "c/none", &size, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    cairn_error_clear(&err);
    assert_true(storage_remove(storage, "c/none", &err));
}

typedef struct {
    Storage *storage;
    unsigned count;
    unsigned directories;
    bool remove;
    unsigned stop_after;
} Listed;

static StorageListNext
note_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    Listed *listed = context;
    listed->count++;
    listed->directories += entry->is_directory ? 1 : 0;
    if (!entry->is_directory) {
        char name[300];
        assert_int_equal(entry->size_bytes, 10);
        assert_true(entry->modified_us > 1600000000000000);
        snprintf(name, sizeof name, "d/%s", entry->name);
        if (listed->remove && !storage_remove(listed->storage, name, err))
            return STORAGE_LIST_FAILED;
    }
    return listed->count == listed->stop_after ? STORAGE_LIST_STOP : STORAGE_LIST_GO_ON;
}

static void
test_listings_are_whole_and_callbacks_may_use_the_storage(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    CairnError err = {0};
    SCOPED(Storage) storage = ssh_test_connect();
    /* Long names, so that they fill several frames. */
    for (unsigned i = 0; i < COUNT; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/d", ssh_test.root);
        mkdir(path, 0750);
        snprintf(path, sizeof path, "%s/d/%060u", ssh_test.root, i);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs("0123456789", file);
        fclose(file);
    }
    assert_true(ssh_test_put(storage, "d/e/f", 1, 1, &err));
    Listed listed = {.storage = storage};
    assert_true(storage_list(storage, "d", note_entry, &listed, &err));
    assert_int_equal(listed.count, COUNT + 1);
    assert_int_equal(listed.directories, 1);
    listed = (Listed){.storage = storage, .stop_after = 3};
    assert_true(storage_list(storage, "d", note_entry, &listed, &err));
    assert_int_equal(listed.count, 3);
    listed = (Listed){.storage = storage, .remove = true};
    assert_true(storage_list(storage, "d", note_entry, &listed, &err));
    assert_int_equal(ssh_test_count("d"), 1);
    assert_true(storage_list(storage, "nothing/here", note_entry, &listed, &err));
}

static void
test_the_rest_of_the_interface(void **state)
{
    (void)state;
    CairnError err = {0};
    uint64_t bytes = 0;
    char path[600];
    SCOPED(Storage) storage = ssh_test_connect();
    assert_true(storage_free_space(storage, &bytes, &err));
    assert_true(bytes > 0);
    assert_true(ssh_test_put(storage, "x/a", 3, 1, &err));
    assert_true(storage_make_durable(storage, "x/a", &err));
    snprintf(path, sizeof path, "%s/x/.b.0123456789abcdef.tmp", ssh_test.root);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_true(storage_sweep(storage, "x", INT64_MAX, &err));
    assert_int_equal(ssh_test_count("x"), 1);
    assert_true(storage_prune(storage, "x", &err));
    assert_true(storage_remove(storage, "x/a", &err));
    assert_true(storage_prune(storage, "x", &err));
    assert_int_equal(ssh_test_count(""), 0);
    assert_false(storage_is_local(storage));
    assert_false(storage_is_create_only(storage));
    /* On an object of the root alone: sweep takes "" as well. */
    assert_true(storage_sweep(storage, "", 0, &err));
}

static void
test_an_abandoned_writer_leaves_nothing(void **state)
{
    (void)state;
    CairnError err = {0};
    uint8_t data[1000] = {0};
    uint64_t size;
    SCOPED(Storage) storage = ssh_test_connect();
    for (int i = 0; i < 3 * SSH_WRITER_LIMIT; i++) {
        SCOPED(StorageWriter) writer = storage_create(storage, "c/x", &err);
        assert_non_null(writer);
        assert_true(storage_write(writer, data, sizeof data, &err));
    }
    /* An answer later all of them were obeyed. */
    assert_false(storage_exists(storage, "c/x", &size, &err));
    assert_int_equal(ssh_test_count("c"), 0);
}

static void
test_more_handles_than_there_are_is_no_crash(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Storage) storage = ssh_test_connect();
    StorageWriter *writers[SSH_WRITER_LIMIT + 1];
    for (size_t i = 0; i <= SSH_WRITER_LIMIT; i++)
        writers[i] = storage_create(storage, "c/x", &err);
    assert_null(writers[SSH_WRITER_LIMIT]);
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    cairn_error_clear(&err);
    for (size_t i = 0; i < SSH_WRITER_LIMIT; i++)
        storage_writer_free(writers[i]);
    assert_true(ssh_test_put(storage, "c/x", 10, 1, &err));
}

typedef struct {
    Storage *storage;
    unsigned number;
} ThreadJob;

static void *
use_storage(void *context)
{
    ThreadJob *job = context;
    CairnError err = {0};
    for (uint32_t round = 0; round < 4; round++) {
        char name[64];
        const size_t size = 400000 + 1000 * job->number + round;
        snprintf(name, sizeof name, "t/%u/%u", job->number, round);
        if (!ssh_test_put(job->storage, name, size, job->number, &err))
            fail_msg("%s", err.message);
        ssh_test_read_back(job->storage, name, size, job->number, 60000);
    }
    return NULL;
}

static void
test_threads_share_one_connection(void **state)
{
    (void)state;
    SCOPED(Storage) storage = ssh_test_connect();
    pthread_t threads[THREADS];
    ThreadJob jobs[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        jobs[i] = (ThreadJob){storage, i};
        assert_int_equal(pthread_create(&threads[i], NULL, use_storage, &jobs[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&ssh_test.connection_count), 1);
}

typedef struct {
    StorageReader *reader;
    const uint8_t *expected;
    atomic_uint next; /* frame */
    atomic_uint wrong;
} SharedRead;

enum { SHARED_FRAME = 15000 };

/* As restore reads a pack: whoever is free takes the next frame. */
static void *
read_shared(void *context)
{
    SharedRead *shared = context;
    uint8_t found[SHARED_FRAME];
    for (;;) {
        CairnError err = {0};
        const uint64_t at = (uint64_t)atomic_fetch_add(&shared->next, 1) * SHARED_FRAME;
        if (at + SHARED_FRAME > SSH_TEST_LARGE)
            return NULL;
        if (!storage_pread(shared->reader, found, SHARED_FRAME, at, &err) ||
            memcmp(found, shared->expected + at, SHARED_FRAME) != 0)
            atomic_fetch_add(&shared->wrong, 1);
    }
}

static void
test_threads_share_one_reader(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Storage) storage = ssh_test_connect();
    SharedRead shared = {0};
    pthread_t threads[THREADS];
    uint8_t *expected = malloc(SSH_TEST_LARGE);
    ssh_test_fill(expected, SSH_TEST_LARGE, 7);
    shared.expected = expected;
    assert_true(ssh_test_put(storage, "a/shared", SSH_TEST_LARGE, 7, &err));
    for (int round = 0; round < 5; round++) {
        SCOPED(StorageReader) reader = storage_open(storage, "a/shared", &err);
        assert_non_null(reader);
        shared.reader = reader;
        atomic_store(&shared.next, 0);
        for (size_t i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, read_shared, &shared), 0);
        for (size_t i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&shared.wrong), 0);
    free(expected);
}

static void
test_a_full_disk_over_there_is_no_space_here(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Storage) storage = ssh_test_connect();
    ssh_test.disk.fail[FAULT_WRITE] = (Fault){.at_call = 3, .error = ENOSPC};
    assert_false(ssh_test_put(storage, "c/x", SSH_TEST_LARGE, 1, &err));
    assert_int_equal(err.kind, CAIRN_NO_SPACE);
    assert_int_equal(err.system_errno, ENOSPC);
    assert_non_null(strstr(err.message, "c/x"));
    cairn_error_clear(&err);
    fault_disk_reset(&ssh_test.disk);
    assert_true(ssh_test_put(storage, "c/x", SSH_TEST_LARGE, 1,
                             &err)); /* the same handle, and no memory of it */
    assert_int_equal(ssh_test_count("c"), 1);
}

static void
test_a_failed_sync_is_no_success(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Storage) storage = ssh_test_connect();
    ssh_test.disk.fail[FAULT_FSYNC] = (Fault){.at_call = 1, .error = EIO};
    assert_false(ssh_test_put(storage, "c/x", 100, 1, &err));
    assert_int_equal(err.kind, CAIRN_IO);
    assert_int_equal(ssh_test_count("c"), 0);
}

static void
test_a_place_that_is_not_there_is_not_found(void **state)
{
    (void)state;
    CairnError err = {0};
    snprintf(ssh_test.root, sizeof ssh_test.root, "%s", "/nonexistent/pgcairn");
    assert_null(ssh_fixture_connect(&ssh_test, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    assert_non_null(strstr(err.message, "backup1"));
}

static size_t
allocated(void)
{
    const struct mallinfo2 now = mallinfo2();
    return now.uordblks + now.hblkhd;
}

/* What planners are told is what readers hold, however many of them read in order. (Sanitizers keep
   no such account: there it proves nothing.) */
static void
test_readers_hold_no_more_than_planners_are_told(void **state)
{
    (void)state;
    enum { READERS = 16, STEP = 16 << 10, SERVER_SIDE = 2 << 20 };
    static uint8_t data[STEP];
    StorageReader *readers[READERS];
    CairnError err = {0};
    SCOPED(Storage) storage = ssh_test_connect();
    assert_true(ssh_test_put(storage, "c/x", 4 * SSH_TEST_LARGE, 5, &err));
    const size_t before = allocated();
    for (size_t i = 0; i < READERS; i++) {
        readers[i] = storage_open(storage, "c/x", &err);
        assert_non_null(readers[i]);
        /* As an object's end is read first, and then its frames. */
        for (uint64_t offset = SSH_HEAD_SIZE; offset < SSH_HEAD_SIZE + 8 * STEP; offset += STEP)
            assert_true(storage_pread(readers[i], data, STEP, offset, &err));
    }
    const size_t held = allocated() - before;
    const uint64_t told = storage_memory(storage).reader_bytes;
    assert_int_equal(told, SSH_FIXED_MEMORY + SSH_AHEAD_LIMIT);
    if (held > told + SERVER_SIDE)
        fail_msg("%zu bytes are held, planners are told %" PRIu64, held, told);
    for (size_t i = 0; i < READERS; i++)
        storage_reader_free(readers[i]);
}

/* What push remembers of one must not be believed of the other. */
static void
test_repositories_of_one_host_are_told_apart(void **state)
{
    (void)state;
    static const SshConfig CONFIGS[] = {
        {.host = "backup1"},
        {.host = "backup2"},
        {.host = "backup1", .command = "ssh -T -i /k/one"},
        {.host = "backup1", .command = "ssh -T -i /k/two"},
        {.host = "backup1", .program = "pgcairn --repository two"},
        {.host = "backup1", .program = "pgcairn --repository three"},
    };
    enum { COUNT = sizeof CONFIGS / sizeof CONFIGS[0] };
    char texts[COUNT][STORAGE_PLACE_TEXT_SIZE];
    for (size_t i = 0; i < COUNT; i++) {
        const RepositoryConfig config = {.name = "r", .type = "ssh", .ssh = CONFIGS[i]};
        storage_place_text(&config, texts[i]);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(texts[i], texts[k]);
    }
}

/* So that no two of them look alike for being cut off. */
static void
test_a_place_that_has_no_room_for_its_name_is_refused(void **state)
{
    (void)state;
    CairnError err = {0};
    char command[STORAGE_PLACE_TEXT_SIZE];
    memset(command, 'x', sizeof command - 1);
    command[sizeof command - 1] = '\0';
    const RepositoryConfig config = {
        .name = "r", .type = "ssh", .ssh = {.host = "backup1", .command = command}};
    assert_false(storage_config_check(&config, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SSH_TEST(test_what_was_put_is_got),
        SSH_TEST(test_pieces_are_read_in_any_order),
        SSH_TEST(test_a_name_is_taken_once),
        SSH_TEST(test_absence_is_not_found),
        SSH_TEST(test_listings_are_whole_and_callbacks_may_use_the_storage),
        SSH_TEST(test_the_rest_of_the_interface),
        SSH_TEST(test_an_abandoned_writer_leaves_nothing),
        SSH_TEST(test_more_handles_than_there_are_is_no_crash),
        SSH_TEST(test_threads_share_one_connection),
        SSH_TEST(test_threads_share_one_reader),
        SSH_TEST(test_a_full_disk_over_there_is_no_space_here),
        SSH_TEST(test_a_failed_sync_is_no_success),
        SSH_TEST(test_a_place_that_is_not_there_is_not_found),
        SSH_TEST(test_readers_hold_no_more_than_planners_are_told),
        SSH_TEST(test_repositories_of_one_host_are_told_apart),
        SSH_TEST(test_a_place_that_has_no_room_for_its_name_is_refused),
    };
    signal(SIGPIPE, SIG_IGN); /* as both programs do */
    return cmocka_run_group_tests_name("ssh_storage", tests, NULL, NULL);
}
