/* A storage that holds objects in memory until they are stored: packs are smaller, several are on
 * their way at once, and the slowest one may be the first. */
#include "repository/backup_writer.h"

#include "repository/fate.h"
#include "repository/pack.h"
#include "storage/posix.h"
#include "tests/unit/support/backup_fixture.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, FILES = 12 };

static const char *scratch;

/* The posix driver, with writers that keep their bytes. */
static StorageOps held_ops;
static const StorageOps *plain_ops;
static StorageWriterOps slow_ops;
static const StorageWriterOps *plain_writer_ops;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t held_now, held_most; /* bytes of packs that are written or on their way */
static pthread_cond_t joined = PTHREAD_COND_INITIALIZER;
static int committing_now, committing_most;
static bool wait_for_second; /* the first commit ends when another has begun, or after a minute */
static unsigned commits, fail_at;

static bool
slow_write(StorageWriter *writer, const void *data, size_t size, CairnError *err)
{
    pthread_mutex_lock(&mutex);
    held_now += size;
    held_most = held_now > held_most ? held_now : held_most;
    pthread_mutex_unlock(&mutex);
    return plain_writer_ops->write(writer, data, size, err);
}

/* Under the mutex. However slow the machine is: that two are on their way at once is what is asked.
 */
static void
wait_until_joined(void)
{
    struct timespec limit;

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 60;
    while (committing_most < 2 && pthread_cond_timedwait(&joined, &mutex, &limit) == 0)
        ;
}

/* Every third takes longer than the two behind it. */
static bool
slow_commit(StorageWriter *writer, CairnError *err)
{
    pthread_mutex_lock(&mutex);
    committing_now++;
    committing_most = committing_now > committing_most ? committing_now : committing_most;
    const unsigned number = commits++;
    const bool fails = fail_at != 0 && number >= fail_at;
    pthread_cond_broadcast(&joined);
    if (wait_for_second && number == 0)
        wait_until_joined();
    pthread_mutex_unlock(&mutex);
    usleep(number % 3 == 0 ? 100000 : 2000);
    const bool done = fails ? cairn_error(err, CAIRN_UNAVAILABLE, "the store is gone")
                            : plain_writer_ops->commit(writer, err);
    pthread_mutex_lock(&mutex);
    committing_now--;
    pthread_mutex_unlock(&mutex);
    return done;
}

static void
slow_free(StorageWriter *writer)
{
    pthread_mutex_lock(&mutex);
    held_now -= writer->size_bytes;
    pthread_mutex_unlock(&mutex);
    plain_writer_ops->free(writer);
}

static StorageWriter *
held_create(Storage *storage, const char *name, CairnError *err)
{
    StorageWriter *writer = plain_ops->create(storage, name, err);
    if (writer == NULL)
        return NULL;
    if (plain_writer_ops == NULL) {
        plain_writer_ops = writer->ops;
        slow_ops = (StorageWriterOps){slow_write, slow_commit, slow_free};
    }
    writer->ops = &slow_ops;
    return writer;
}

static StorageMemory
held_memory(Storage *storage)
{
    (void)storage;
    return (StorageMemory){.writer_bytes = 20 * MIB, .reader_bytes = 6 * MIB};
}

static Repository *
held_repository(const char *name)
{
    held_now = held_most = 0;
    committing_now = committing_most = 0;
    commits = fail_at = 0;
    wait_for_second = false;
    CairnError err = {0};
    const char *root = scratch_path(scratch, name);
    const RepositoryConfig config = {
        .name = "held", .path = root, .encryption = "none", .compression = "none"};
    Storage *storage = posix_storage_open(world_real(), root, true, &err);
    assert_non_null(storage);
    plain_ops = storage->ops;
    held_ops = *storage->ops;
    held_ops.create = held_create;
    held_ops.memory = held_memory;
    storage->ops = &held_ops;
    Repository *repository = repository_open_storage(world_real(), &config, storage, true, &err);
    assert_non_null(repository);
    return repository;
}

static void
make_files(TestFile files[FILES])
{
    memset(files, 0, FILES * sizeof *files);
    for (unsigned i = 0; i < FILES; i++) {
        files[i].mode = 0600;
        files[i].size_bytes = 3 * MIB + i * 1000;
        files[i].seed = i + 1;
        snprintf(files[i].path, sizeof files[i].path, "base/1/%u", 1000 + i);
    }
}

static BackupWriter *
begin(Repository *repository, uint64_t max_memory_bytes, CairnError *err)
{
    return backup_writer_begin(repository,
                               &(BackupWriterOptions){.cluster = "main",
                                                      .system_id = 1,
                                                      .major = 17,
                                                      .jobs = 2,
                                                      .max_memory_bytes = max_memory_bytes,
                                                      .scratch_directory = scratch},
                               err);
}

static void
test_packs_that_overtake_each_other_make_the_same_backup(void **state)
{
    (void)state;
    static const uint64_t limits[] = {46 * MIB, 64 * MIB, 256 * (uint64_t)MIB};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        char name[32];
        snprintf(name, sizeof name, "held-%zu", i);
        SCOPED(Repository) repository = held_repository(name);
        wait_for_second = i == 0; /* larger ones come too rarely */
        CairnError err = {0};
        TestFile files[FILES];
        make_files(files);
        SCOPED(BackupWriter) writer = begin(repository, limits[i], &err);
        SCOPED(Fate) fate = NULL;
        assert_non_null(writer);
        assert_true(test_backup_write(writer, files, FILES, 7 + i, &err));
        assert_true(test_backup_commit(writer, &fate, &err));
        test_backup_compare(repository, fate, files, FILES);

        assert_true(i > 0 || committing_most >= 2);
        assert_true(held_most < limits[i] - 18 * MIB);
        assert_true(commits > 36 / 16);
    }
}

static void
test_an_upload_that_fails_fails_the_backup_with_its_error(void **state)
{
    (void)state;
    for (unsigned at = 2; at < 8; at++) {
        char name[32];
        snprintf(name, sizeof name, "failing-%u", at);
        SCOPED(Repository) repository = held_repository(name);
        CairnError err = {0};
        TestFile files[FILES];
        make_files(files);
        SCOPED(BackupWriter) writer = begin(repository, 46 * MIB, &err);
        assert_non_null(writer);
        fail_at = at;
        assert_false(test_backup_write(writer, files, FILES, 7, &err) &&
                     test_backup_commit(writer, NULL, &err));
        assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    }
}

static void
test_too_little_memory_is_refused_with_advice(void **state)
{
    (void)state;
    SCOPED(Repository) repository = held_repository("little");
    CairnError err = {0};
    assert_null(begin(repository, 32 * MIB, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    assert_non_null(strstr(err.hint, "--max-memory="));
}

static int
set_up(void **state)
{
    (void)state;
    scratch = scratch_directory();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packs_that_overtake_each_other_make_the_same_backup),
        cmocka_unit_test(test_an_upload_that_fails_fails_the_backup_with_its_error),
        cmocka_unit_test(test_too_little_memory_is_refused_with_advice),
    };
    return cmocka_run_group_tests_name("held_packs", tests, set_up, NULL);
}
