/* push into two repositories: what one of them does keeps nothing from the other. */
#include "walarchive/push_all.h"

#include "repository/incarnation.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/scratch.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The short patience is for a disk that hangs; one that only is slow must not be taken for it. */
enum {
    MIB = 1 << 20,
    FIRST = 5,
    PATIENCE_MS = 60000,
    SHORT_MS = 200,
    PATH_SIZE = 400,
    TESTS_LIMIT = 8
};

#define NAME "000000010000000000000005"
#define OTHER_NAME "000000010000000000000006"

/* A disk on which whatever has "far" in its path hangs, as a dead mount does. What is under `near`
 * waits until `awaited` calls hang: however late their threads come, patience begins behind that.
 */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool hangs;
    unsigned hanging, awaited;
    const char *near;
} hang = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Under the mutex. A far one that never comes fails the test, not the machine it runs on. */
static void
await_hanging(void)
{
    struct timespec limit;

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 60;
    while (hang.hangs && hang.hanging < hang.awaited &&
           pthread_cond_timedwait(&hang.changed, &hang.mutex, &limit) == 0)
        continue;
}

/* Or one that takes nothing any more, and how often it was opened. */
static struct {
    atomic_bool is_dead;
    atomic_uint opened;
} dying;

static int
hanging_openat(const Disk *disk, int directory_fd, const char *path, int flags, mode_t mode)
{
    const Disk *real = world_real()->disk;

    (void)disk;
    if (dying.is_dead && (flags & O_CREAT) != 0) {
        errno = ETIMEDOUT;
        return -1;
    }
    dying.opened += strstr(path, "/far") != NULL;
    pthread_mutex_lock(&hang.mutex);
    if (hang.hangs && strstr(path, "/far") != NULL) {
        hang.hanging++;
        pthread_cond_broadcast(&hang.changed);
        while (hang.hangs)
            pthread_cond_wait(&hang.changed, &hang.mutex);
        hang.hanging--;
    } else if (strcmp(path, hang.near) == 0) {
        await_hanging();
    }
    pthread_mutex_unlock(&hang.mutex);
    return real->openat(real, directory_fd, path, flags, mode);
}

static void
set_hang(bool hangs, unsigned awaited)
{
    pthread_mutex_lock(&hang.mutex);
    hang.hangs = hangs;
    hang.awaited = awaited;
    pthread_cond_broadcast(&hang.changed);
    pthread_mutex_unlock(&hang.mutex);
}

static unsigned
count_hanging(void)
{
    pthread_mutex_lock(&hang.mutex);
    const unsigned hanging = hang.hanging;
    pthread_mutex_unlock(&hang.mutex);
    return hanging;
}

/* Stands still once it is set: how old a record is, the test says. */
static _Atomic int64_t stopped_us;

static int64_t
wall_us(const Clock *clock)
{
    const Clock *real = world_real()->clock;

    (void)clock;
    return stopped_us != 0 ? stopped_us : real->wall_us(real);
}

typedef struct {
    WalFixture wal;
    Disk disk;
    Clock clock;
    World world;
    RepositoryConfig near, far;
    char far_root[300];
    char away[310];
    char data[256];
    char path[300], other_path[300];
    int data_fd;
    WalPushAll all;
    WalBatch batch;
    size_t thread_count; /* before the test; a sanitizer has one of its own */
} Fixture;

static void
write_file(const Fixture *fixture, const char *name, const void *content, size_t size)
{
    SCOPED_FD fd = openat(fixture->data_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, size), (ssize_t)size);
}

static void
write_segment(const Fixture *fixture, uint64_t number, const char *name)
{
    char path[64];
    SCOPED_MEMORY uint8_t *segment = wal_fixture_segment(&fixture->wal, 1, number);

    snprintf(path, sizeof path, "pg_wal/%s", name);
    write_file(fixture, path, segment, MIB);
}

static void
make_far(Fixture *fixture)
{
    CairnError err = {0};
    SCOPED(Repository) repository = scratch_repository(world_real(), fixture->far_root);

    assert_non_null(repository);
    assert_true(incarnation_record(repository, "main", &fixture->wal.incarnation, &err));
}

static size_t
count_threads(void)
{
    glob_t found;

    assert_int_equal(glob("/proc/self/task/*", 0, NULL, &found), 0);
    const size_t count = found.gl_pathc;
    globfree(&found);
    return count;
}

/* Each test has memory of its own: a thread that was left behind ends when it likes. */
static int
setup(void **state)
{
    static Fixture fixtures[TESTS_LIMIT];
    static size_t next;
    assert_true(next < TESTS_LIMIT);
    Fixture *fixture = &fixtures[next++];
    char data[sizeof fixture->data] = "";

    fixture->thread_count = count_threads();
    wal_fixture_open(&fixture->wal, MIB);
    fixture->disk = *world_real()->disk;
    fixture->disk.openat = hanging_openat;
    fixture->world = *world_real();
    fixture->world.disk = &fixture->disk;
    fixture->clock = *world_real()->clock;
    fixture->clock.wall_us = wall_us;
    fixture->world.clock = &fixture->clock;
    stopped_us = 0;
    hang.near = fixture->wal.root; /* nobody is there yet */
    snprintf(data, sizeof data, "%s", scratch_directory());
    memcpy(fixture->data, data, sizeof data);
    snprintf(fixture->far_root, sizeof fixture->far_root, "%s/far", data);
    snprintf(fixture->away, sizeof fixture->away, "%s/away", data);
    make_far(fixture);
    fixture->data_fd = open(fixture->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fixture->data_fd >= 0);
    mkdirat(fixture->data_fd, "global", 0700);
    mkdirat(fixture->data_fd, "pg_wal", 0700);
    mkdirat(fixture->data_fd, "pg_wal/archive_status", 0700);
    write_file(fixture, "global/pg_control", "x", 1);
    write_segment(fixture, FIRST, NAME);
    snprintf(fixture->path, sizeof fixture->path, "%s/pg_wal/" NAME, data);
    snprintf(fixture->other_path, sizeof fixture->other_path, "%s/pg_wal/" OTHER_NAME, data);
    fixture->near =
        (RepositoryConfig){.name = "near", .path = fixture->wal.root, .encryption = "none"};
    fixture->far =
        (RepositoryConfig){.name = "far", .path = fixture->far_root, .encryption = "none"};
    const RepositoryConfig *const repositories[] = {&fixture->far, &fixture->near};
    fixture->all.count = 2;
    fixture->all.patience_ms = PATIENCE_MS;
    for (size_t i = 0; i < 2; i++)
        fixture->all.pushes[i] = (WalPush){.repository = repositories[i],
                                           .cluster = "main",
                                           .path = fixture->path,
                                           .pgdata = fixture->data};
    *state = fixture;
    return 0;
}

/* What was left behind goes on when the disk is back, with what belongs to the test. However long
 * that takes: who waits in vain is ended by tests/run-unit. */
static void
wait_for_threads(const Fixture *fixture)
{
    const struct timespec step = {.tv_nsec = 2000000};

    set_hang(false, 0);
    while (count_threads() > fixture->thread_count)
        nanosleep(&step, NULL);
}

static int
teardown(void **state)
{
    Fixture *fixture = *state;

    wait_for_threads(fixture);
    close(fixture->data_fd);
    wal_fixture_close(&fixture->wal);
    return 0;
}

static bool
has(const Fixture *fixture, const RepositoryConfig *config)
{
    CairnError err = {0};
    bool present = false;
    SCOPED(Repository) repository = repository_open(world_real(), config, &err);

    assert_non_null(repository);
    SCOPED(WalStore)
    store = wal_store_open(repository, "main", &fixture->wal.incarnation, &err);
    assert_non_null(store);
    assert_true(wal_store_has(store, NAME, &present, &err));
    return present;
}

static void
test_both_get_it_and_the_next_call_finds_it(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    WalPushedAll pushed;

    assert_true(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_int_equal(pushed.count, 2);
    assert_string_equal(pushed.ones[0].repository, "far");
    assert_true(has(fixture, &fixture->near) && has(fixture, &fixture->far));
    assert_false(pushed.ones[0].pushed.existed);
    assert_true(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_true(pushed.ones[0].pushed.existed && pushed.ones[1].pushed.existed);
}

static void
test_a_required_one_that_fails_fails_the_file_and_the_other_has_it(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    WalPushedAll pushed;

    assert_int_equal(rename(fixture->far_root, fixture->away), 0);
    assert_false(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_non_null(strstr(err.message, "repository 'far'"));
    assert_false(pushed.ones[0].done);
    assert_true(pushed.ones[1].done);
    assert_true(has(fixture, &fixture->near));
    cairn_error_clear(&err);
    assert_int_equal(rename(fixture->away, fixture->far_root), 0);
    assert_true(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_true(has(fixture, &fixture->far));
}

static void
test_one_that_is_not_required_may_fail(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    WalPushedAll pushed;

    fixture->far.required = "no";
    assert_int_equal(rename(fixture->far_root, fixture->away), 0);
    assert_true(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_false(pushed.ones[0].done || pushed.left_behind);
    assert_true(pushed.ones[0].err.kind != CAIRN_OK);
    assert_int_equal(rename(fixture->away, fixture->far_root), 0);
}

static void
test_where_none_is_required_all_are(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    WalPushedAll pushed;

    fixture->far.required = fixture->near.required = "no";
    assert_int_equal(rename(fixture->far_root, fixture->away), 0);
    assert_false(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_int_equal(rename(fixture->away, fixture->far_root), 0);
}

/* Its thread is left behind; here it ends when the disk is back. */
static void
test_one_that_is_not_required_and_hangs_is_left_behind(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    WalPushedAll pushed;

    fixture->far.required = "no";
    fixture->all.patience_ms = SHORT_MS;
    set_hang(true, 1);
    assert_true(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_true(pushed.left_behind);
    assert_false(pushed.ones[0].done);
    assert_int_equal(pushed.ones[0].err.kind, CAIRN_UNAVAILABLE);
    assert_true(pushed.ones[1].done && has(fixture, &fixture->near));
    assert_int_equal(count_hanging(), 1);
    wait_for_threads(fixture);
    assert_true(has(fixture, &fixture->far));
}

/* The only file of that name in whichever of the spools; false where there is none. */
static bool
find_in_spools(const char *spool_path, const char *name, char path_out[PATH_SIZE])
{
    char pattern[PATH_SIZE];
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s/*/%s", spool_path, name);
    const bool there = glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc == 1;
    if (there)
        snprintf(path_out, PATH_SIZE, "%s", found.gl_pathv[0]);
    globfree(&found);
    return there;
}

static bool
has_absence(const char *spool_path)
{
    char path[PATH_SIZE];

    return find_in_spools(spool_path, "absent", path);
}

/* The record of the one that did not answer, as if made so long before the stopped clock. */
static void
age_absence(const char *spool_path, int64_t age_us)
{
    char path[PATH_SIZE];
    const int64_t at_us = stopped_us - age_us;
    const struct timespec at = {.tv_sec = at_us / 1000000, .tv_nsec = at_us % 1000000 * 1000};
    const struct timespec times[2] = {at, at};

    assert_true(find_in_spools(spool_path, "absent", path));
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* The near one has to go to its disk again. */
static void
forget_near(const char *spool_path)
{
    char path[PATH_SIZE];

    assert_true(find_in_spools(spool_path, NAME ".ok", path));
    assert_int_equal(unlink(path), 0);
}

/* The far one hangs as the so-many-th; the near one goes on behind it. */
static void
leave_behind(Fixture *fixture, unsigned number)
{
    CairnError err = {0};
    WalPushedAll pushed;

    fixture->all.patience_ms = SHORT_MS;
    set_hang(true, number);
    assert_true(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_true(pushed.left_behind);
    assert_int_equal(count_hanging(), number);
    fixture->all.patience_ms = PATIENCE_MS;
}

static void
expect_not_tried(Fixture *fixture, const char *message)
{
    CairnError err = {0};
    WalPushedAll pushed;
    const unsigned before = count_hanging();

    assert_true(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_false(pushed.left_behind || pushed.ones[0].done);
    assert_true(pushed.ones[0].pushed.not_tried && pushed.ones[1].done);
    assert_int_equal(pushed.ones[0].err.kind, CAIRN_UNAVAILABLE);
    assert_non_null(strstr(pushed.ones[0].err.message, message));
    assert_int_equal(count_hanging(), before); /* nobody else went there */
}

/* Until a minute has passed; and never when the answer rests on it. */
static void
test_one_that_did_not_answer_is_not_waited_for_at_each_call(void **state)
{
    static const int64_t minute_us = 60 * INT64_C(1000000);
    Fixture *fixture = *state;
    CairnError err = {0};
    WalPushedAll pushed;
    static char spool_path[280];

    snprintf(spool_path, sizeof spool_path, "%s/spool", fixture->data);
    fixture->batch = (WalBatch){.spool_path = spool_path, .jobs = 1, .patience_ms = 1000};

    fixture->all.pushes[0].batch = fixture->all.pushes[1].batch = &fixture->batch;
    fixture->far.required = "no";
    stopped_us = wall_us(&fixture->clock) + minute_us; /* files are old by then */
    leave_behind(fixture, 1);
    age_absence(spool_path, 0);
    expect_not_tried(fixture, "not tried, nor in the next 60 s");
    age_absence(spool_path, minute_us - 1);
    expect_not_tried(fixture, "not tried, nor in the next 1 s");

    /* Too old, and too new by a clock that was put back: it is asked. */
    static const int64_t ages_us[] = {60 * INT64_C(1000000), -1};
    for (unsigned i = 0; i < 2; i++) {
        age_absence(spool_path, ages_us[i]);
        forget_near(spool_path);
        leave_behind(fixture, i + 2);
    }
    /* Required: whatever was remembered. */
    fixture->far.required = "yes";
    wait_for_threads(fixture);
    assert_true(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_true(pushed.ones[0].done && has(fixture, &fixture->far));
    /* An answer ends it. */
    fixture->far.required = "no";
    assert_true(wal_push_all(&fixture->world, &fixture->all, &pushed, &err));
    assert_true(pushed.ones[0].done);
    assert_false(has_absence(spool_path));
}

/* A server waits for the answer: whether somebody gave the file up is not asked of one that does
   not answer, but of one that could be opened since. */
static void
test_one_that_was_open_and_does_not_answer_is_waited_for_once(void **state)
{
    Fixture *fixture = *state;
    CairnError first = {0}, second = {0}, third = {0};
    WalPushed pushed;
    SCOPED(PushKept) kept = push_kept_new(&first);
    WalPush *push = &fixture->all.pushes[0];

    assert_non_null(kept);
    push->kept = kept;
    assert_true(wal_push(&fixture->world, push, &pushed, &first));
    write_segment(fixture, FIRST + 1, OTHER_NAME);
    push->path = fixture->other_path;
    dying.is_dead = true;
    dying.opened = 0;
    assert_false(wal_push(&fixture->world, push, &pushed, &second));
    assert_int_equal(second.kind, CAIRN_UNAVAILABLE);
    assert_int_equal(dying.opened, 0);
    assert_true(pushed.unreachable);
    assert_false(wal_push(&fixture->world, push, &pushed, &third));
    assert_int_equal(dying.opened, 2); /* to store, and to ask */
    assert_false(pushed.unreachable);
    dying.is_dead = false;
    assert_true(wal_push(&fixture->world, push, &pushed, &first));
}

static void *
tell_number(void *context)
{
    *(pid_t *)context = gettid();
    return NULL;
}

/* A sanitizer may start a thread of its own with the first one, which counts. That one itself is
 * listed for a moment after it was joined, and must not be counted. */
static void
start_and_end_a_thread(void)
{
    const struct timespec step = {.tv_nsec = 2000000};
    pthread_t thread;
    pid_t number = 0;
    char path[64];

    if (pthread_create(&thread, NULL, tell_number, &number) != 0)
        return;
    pthread_join(thread, NULL);
    snprintf(path, sizeof path, "/proc/self/task/%d", (int)number);
    while (access(path, F_OK) == 0)
        nanosleep(&step, NULL);
}

int
main(void)
{
    start_and_end_a_thread();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_get_it_and_the_next_call_finds_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_a_required_one_that_fails_fails_the_file_and_the_other_has_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_that_is_not_required_may_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_where_none_is_required_all_are, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_that_is_not_required_and_hangs_is_left_behind,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_that_did_not_answer_is_not_waited_for_at_each_call,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_one_that_was_open_and_does_not_answer_is_waited_for_once, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
