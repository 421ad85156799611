#include "walarchive/push.h"

#include "tests/unit/support/scratch.h"
#include "tests/unit/support/wal_fixture.h"
#include "walarchive/ready_list.h"
#include "walarchive/spool_lock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MIB = 1 << 20, FIRST = 5, COUNT = 12 };

/* Time passes only in sleeps, and files are old: nobody waits for the real clock. */
static _Atomic int64_t slept_ms;

static int64_t
wall_us(const Clock *clock)
{
    const Clock *real = world_real()->clock;

    (void)clock;
    return real->wall_us(real) + 60 * INT64_C(1000000);
}

static int64_t
monotonic_ns(const Clock *clock)
{
    (void)clock;
    return atomic_load(&slept_ms) * 1000000;
}

static void
sleep_ms(const Clock *clock, int64_t duration_ms)
{
    (void)clock;
    atomic_fetch_add(&slept_ms, duration_ms);
    sched_yield();
}

static const Clock test_clock = {
    .wall_us = wall_us, .monotonic_ns = monotonic_ns, .sleep_ms = sleep_ms};

typedef struct {
    WalFixture wal;
    World world;
    RepositoryConfig repository;
    char data[256];
    char spool[256];
    char path[300]; /* %p of the first segment */
    int data_fd;
    WalBatch batch;
    WalPush push;
} Fixture;

static void
write_file(const Fixture *fixture, const char *name, const void *content, size_t size)
{
    SCOPED_FD fd = openat(fixture->data_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, size), (ssize_t)size);
}

static void
make_ready(const Fixture *fixture, const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "pg_wal/archive_status/%s.ready", name);
    write_file(fixture, path, "", 0);
}

static void
segment_name(char name[WAL_NAME_SIZE], unsigned number)
{
    wal_segment_name(name, 1, number, MIB);
}

static void
add_segment(const Fixture *fixture, unsigned number, size_t size)
{
    char name[WAL_NAME_SIZE];
    char path[64];
    uint8_t *segment = wal_fixture_segment(&fixture->wal, 1, number);

    segment_name(name, number);
    snprintf(path, sizeof path, "pg_wal/%s", name);
    write_file(fixture, path, segment, size);
    make_ready(fixture, name);
    free(segment);
}

static int
setup(void **state)
{
    static Fixture fixture;

    wal_fixture_open(&fixture.wal, MIB);
    fixture.wal.disk.pretend_sync = true;
    fixture.world = fixture.wal.disk.world;
    fixture.world.clock = &test_clock;
    snprintf(fixture.data, sizeof fixture.data, "%s", scratch_directory());
    snprintf(fixture.spool, sizeof fixture.spool, "%s/spool", scratch_directory());
    fixture.data_fd = open(fixture.data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fixture.data_fd >= 0);
    mkdirat(fixture.data_fd, "global", 0700);
    mkdirat(fixture.data_fd, "pg_wal", 0700);
    mkdirat(fixture.data_fd, "pg_wal/archive_status", 0700);
    write_file(&fixture, "global/pg_control", "x", 1);
    for (unsigned number = FIRST; number < FIRST + COUNT; number++)
        add_segment(&fixture, number, MIB);

    fixture.repository =
        (RepositoryConfig){.name = "main", .path = fixture.wal.root, .encryption = "none"};
    fixture.batch =
        (WalBatch){.spool_path = fixture.spool, .jobs = 4, .command = NULL, .patience_ms = 100};
    fixture.push = (WalPush){.repository = &fixture.repository,
                             .cluster = "main",
                             .path = fixture.path,
                             .pgdata = fixture.data,
                             .batch = &fixture.batch};
    snprintf(fixture.path, sizeof fixture.path, "%s/pg_wal/000000010000000000000005", fixture.data);
    *state = &fixture;
    return 0;
}

static int
teardown(void **state)
{
    Fixture *fixture = *state;

    close(fixture->data_fd);
    wal_fixture_close(&fixture->wal);
    return 0;
}

static bool
is_stored(Fixture *fixture, unsigned number)
{
    CairnError err = {0};
    char name[WAL_NAME_SIZE];
    bool present = false;

    segment_name(name, number);
    assert_true(wal_store_has(fixture->wal.store, name, &present, &err));
    if (present)
        assert_true(wal_store_verify(fixture->wal.store, name, &err));
    return present;
}

static WalPushed
push_segment(Fixture *fixture, unsigned number, bool expected)
{
    CairnError err = {0};
    WalPushed pushed;
    char name[WAL_NAME_SIZE];

    segment_name(name, number);
    snprintf(fixture->path, sizeof fixture->path, "%s/pg_wal/%s", fixture->data, name);
    assert_int_equal(wal_push(&fixture->world, &fixture->push, &pushed, &err), expected);
    return pushed;
}

static void
test_several_threads_push_everything_once_and_remember_it(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};

    assert_true(wal_push_ahead(&fixture->world, &fixture->push, &err));
    for (unsigned number = FIRST; number < FIRST + COUNT; number++) {
        assert_true(is_stored(fixture, number));
        assert_true(push_segment(fixture, number, true).remembered);
    }
}

static void
test_one_bad_file_is_passed_over_and_told_to_its_own_call(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};

    add_segment(fixture, FIRST + 3, MIB - 1);
    assert_true(wal_push_ahead(&fixture->world, &fixture->push, &err));
    for (unsigned number = FIRST; number < FIRST + COUNT; number++)
        assert_int_equal(is_stored(fixture, number), number != FIRST + 3);
    assert_string_not_equal(push_segment(fixture, FIRST + 3, false).failed_ahead, "");
    assert_string_equal(push_segment(fixture, FIRST + 3, false).failed_ahead, "");
    assert_string_equal(push_segment(fixture, FIRST + 4, true).failed_ahead, "");
}

static void
test_nothing_is_begun_behind_a_history_file_that_fails(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};

    write_file(fixture, "pg_wal/00000002.history", "nonsense\n", 9);
    make_ready(fixture, "00000002.history");
    assert_true(wal_push_ahead(&fixture->world, &fixture->push, &err));
    for (unsigned number = FIRST; number < FIRST + COUNT; number++)
        assert_false(is_stored(fixture, number));
}

static void
test_a_failing_repository_ends_it(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    unsigned stored = 0;

    fixture->wal.disk.fail[FAULT_LINK] = (Fault){.at_call = 3, .error = ENOSPC, .for_good = true};
    assert_true(wal_push_ahead(&fixture->world, &fixture->push, &err));
    for (unsigned number = FIRST; number < FIRST + COUNT; number++)
        stored += is_stored(fixture, number);
    /* Each of the four threads ends with the first failure of its own at the latest. */
    assert_int_equal(stored, 2);
    assert_true(fixture->wal.disk.calls[FAULT_LINK] <= 2 + 4);
}

static void
test_a_second_process_leaves_the_first_alone(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    const SpoolPlace place = {.path = fixture->spool,
                              .repository = &fixture->repository,
                              .cluster = "main",
                              .pgdata_fd = fixture->data_fd};
    SCOPED(Spool) spool = spool_open(&fixture->world, &place, &err);
    SCOPED_SPOOL_LOCK lock = SPOOL_UNLOCKED;

    assert_non_null(spool);
    assert_true(spool_lock_try(spool, NULL, &lock, &err));
    assert_true(wal_push_ahead(&fixture->world, &fixture->push, &err));
    assert_false(is_stored(fixture, FIRST));
}

static void
test_a_call_waits_for_its_name_and_then_pushes_all_the_same(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    const SpoolPlace place = {.path = fixture->spool,
                              .repository = &fixture->repository,
                              .cluster = "main",
                              .pgdata_fd = fixture->data_fd};
    SCOPED(Spool) spool = spool_open(&fixture->world, &place, &err);
    SCOPED_SPOOL_LOCK lock = SPOOL_UNLOCKED;
    char name[WAL_NAME_SIZE];

    segment_name(name, FIRST);
    assert_non_null(spool);
    assert_true(spool_lock_try(spool, name, &lock, &err));
    const int64_t before_ms = atomic_load(&slept_ms);
    assert_false(push_segment(fixture, FIRST, true).remembered);
    assert_true(atomic_load(&slept_ms) - before_ms >= fixture->batch.patience_ms);
    assert_true(is_stored(fixture, FIRST));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int
main(void)
{
    unsetenv("PGCAIRN_TEST_ENCRYPTION"); /* push opens the repository by its configuration */
    const struct CMUnitTest tests[] = {
        TEST(test_several_threads_push_everything_once_and_remember_it),
        TEST(test_one_bad_file_is_passed_over_and_told_to_its_own_call),
        TEST(test_nothing_is_begun_behind_a_history_file_that_fails),
        TEST(test_a_failing_repository_ends_it),
        TEST(test_a_second_process_leaves_the_first_alone),
        TEST(test_a_call_waits_for_its_name_and_then_pushes_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
