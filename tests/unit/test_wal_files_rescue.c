#include "restore/wal_files.h"

#include "tests/unit/support/fault_disk.h"
#include "tests/unit/support/scratch.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT "000000010000000000000003"

/* An old data directory with one segment that waits to be archived. */
static int
old_directory(void)
{
    const int fd = open(scratch_directory(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(mkdirat(fd, "pg_wal", 0700), 0);
    assert_int_equal(mkdirat(fd, "pg_wal/archive_status", 0700), 0);
    assert_int_equal(close(openat(fd, "pg_wal/" SEGMENT, O_WRONLY | O_CREAT, 0600)), 0);
    assert_int_equal(
        close(openat(fd, "pg_wal/archive_status/" SEGMENT ".ready", O_WRONLY | O_CREAT, 0600)), 0);
    return fd;
}

static void
test_a_segment_that_waits_is_seen(void **state)
{
    (void)state;
    CairnError err = {0};
    WalFilesOwner owner;
    SCOPED_FD fd = old_directory();

    assert_true(wal_files_find_owner(world_real(), fd, &owner, &err));
    assert_true(owner.waits);
    assert_false(owner.identified); /* it is empty */
}

/* The directory is replaced afterwards: what waits in it must not be taken for archived, or for
 * unfinished. */
static void
test_a_status_that_cannot_be_examined_is_not_absent(void **state)
{
    (void)state;
    FaultDisk disk;
    WalFilesOwner owner;
    Rescued rescued;
    SCOPED_FD fd = old_directory();

    fault_disk_init(&disk);
    disk.fail[FAULT_FSTAT] = (Fault){.at_call = 1, .error = EIO};
    CairnError asked = {0};
    assert_false(wal_files_find_owner(&disk.world, fd, &owner, &asked));
    assert_int_equal(asked.kind, CAIRN_IO);
    assert_non_null(strstr(asked.message, "archive_status/" SEGMENT ".ready"));
    for (unsigned call = 1; call <= 2; call++) { /* .done, .ready */
        CairnError err = {0};
        fault_disk_reset(&disk);
        disk.fail[FAULT_FSTAT] = (Fault){.at_call = call, .error = EIO};
        assert_false(wal_files_rescue(NULL, &disk.world, fd, 0, &rescued, &err));
        assert_int_equal(err.kind, CAIRN_IO);
    }
}

static void
test_a_listing_cut_short_is_an_error(void **state)
{
    (void)state;
    FaultDisk disk;
    CairnError err = {0};
    WalFilesOwner owner;
    SCOPED_FD fd = old_directory();

    fault_disk_init(&disk);
    disk.fail[FAULT_READDIR] = (Fault){.at_call = 1, .error = EIO};
    assert_false(wal_files_find_owner(&disk.world, fd, &owner, &err));
    assert_int_equal(err.kind, CAIRN_IO);
}

/* -- without archive_status */

static void
lay(int fd, const char *name, const void *content, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "pg_wal/%s", name);
    SCOPED_FD file = openat(fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(file >= 0);
    assert_int_equal(write(file, content, size), (ssize_t)size);
}

/* content: of segment `number`, under whatever name. */
static void
lay_segment(const WalFixture *fixture, int fd, const char *name, uint64_t number, bool is_whole)
{
    size_t used;
    SCOPED_MEMORY uint8_t *segment =
        is_whole ? wal_fixture_segment(fixture, 1, number)
                 : wal_fixture_short_segment(fixture, 1, number, false, &used);

    lay(fd, name, segment, fixture->segment_size);
}

static bool
is_stored(const WalFixture *fixture, const char *name)
{
    CairnError err = {0};
    bool present;

    assert_true(wal_store_has(fixture->store, name, &present, &err));
    return present;
}

/* 2 is archived, 3 is only here, 4 was being written, 5 is kept to be written later. */
static int
statusless_directory(WalFixture *fixture)
{
    static const char HISTORY[] = "1\t0/100000\tno recovery target specified\n";
    const int fd = open(scratch_directory(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(mkdirat(fd, "pg_wal", 0700), 0);
    SCOPED_MEMORY uint8_t *archived = wal_fixture_segment(fixture, 1, 2);
    wal_fixture_store(fixture, "000000010000000000000002", archived, fixture->segment_size);
    lay(fd, "000000010000000000000002", archived, fixture->segment_size);
    lay_segment(fixture, fd, "000000010000000000000003", 3, true);
    lay_segment(fixture, fd, "000000010000000000000004", 4, false);
    lay_segment(fixture, fd, "000000010000000000000005", 1, true);
    lay(fd, "00000002.history", HISTORY, sizeof HISTORY - 1);
    lay(fd, "xlogtemp.4711", "x", 1);
    return fd;
}

/* Where nobody can tell what was archived, all is kept; but what was being written does not stand
 * for a whole segment, and what is no WAL yet is none. */
static void
test_without_archive_status_all_is_kept(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    WalFilesOwner owner;
    Rescued rescued;
    SCOPED_FD fd = statusless_directory(fixture);

    assert_true(wal_files_find_owner(world_real(), fd, &owner, &err));
    assert_true(owner.waits && owner.identified);
    assert_true(owner.system_id == fixture->incarnation.system_id);
    /* The checkpoint is no limit: it says nothing of other timelines. */
    assert_true(
        wal_files_rescue(fixture->store, world_real(), fd, UINT64_C(9) << 20, &rescued, &err));
    assert_int_equal(rescued.count, 3); /* 3, 4, and the history */
    assert_true(is_stored(fixture, "000000010000000000000003"));
    assert_true(is_stored(fixture, "00000002.history"));
    assert_false(is_stored(fixture, "000000010000000000000004"));
    assert_true(is_stored(fixture, "000000010000000000000004.partial"));
    assert_string_equal(rescued.partial, "000000010000000000000004.partial");
    assert_false(is_stored(fixture, "000000010000000000000005"));
    assert_false(is_stored(fixture, "000000010000000000000005.partial"));
}

/* It has been full, the next one says: nothing may be replaced before somebody has looked. */
static void
test_without_archive_status_damage_is_no_reason_to_drop_a_segment(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    Rescued rescued;
    SCOPED_FD fd = statusless_directory(fixture);
    SCOPED_FD damaged = openat(fd, "pg_wal/000000010000000000000003", O_WRONLY | O_CLOEXEC);

    assert_int_equal(pwrite(damaged, "????????", 8, 0), 8);
    assert_false(wal_files_rescue(fixture->store, world_real(), fd, 0, &rescued, &err));
    assert_non_null(strstr(err.message, "unable to rescue 'pg_wal/000000010000000000000003'"));
}

static void
test_an_archive_status_that_cannot_be_opened_is_not_missing(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    Rescued rescued;
    SCOPED_FD fd = statusless_directory(fixture);

    lay(fd, "archive_status", "", 0); /* no directory */
    assert_false(wal_files_rescue(fixture->store, world_real(), fd, 0, &rescued, &err));
}

/* A directory with pg_wal and nothing in it. */
static int
bare_directory(void)
{
    const int fd = open(scratch_directory(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(mkdirat(fd, "pg_wal", 0700), 0);
    return fd;
}

/* As where a running server's directory was copied: 6 while it was written, 7 later. 8 was
 * switched away from, and is whole so. */
static void
test_without_archive_status_half_a_segment_never_stands_for_a_whole_one(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    Rescued rescued;
    size_t used;
    SCOPED_FD fd = bare_directory();
    SCOPED_MEMORY uint8_t *switched = wal_fixture_short_segment(fixture, 1, 8, true, &used);

    lay_segment(fixture, fd, "000000010000000000000006", 6, false);
    lay_segment(fixture, fd, "000000010000000000000007", 7, true);
    lay(fd, "000000010000000000000008", switched, fixture->segment_size);
    lay_segment(fixture, fd, "000000010000000000000009", 9, false);
    assert_true(wal_files_rescue(fixture->store, world_real(), fd, 0, &rescued, &err));
    assert_false(is_stored(fixture, "000000010000000000000006"));
    assert_true(is_stored(fixture, "000000010000000000000006.partial"));
    assert_true(is_stored(fixture, "000000010000000000000007"));
    assert_true(is_stored(fixture, "000000010000000000000008"));
    assert_true(is_stored(fixture, "000000010000000000000009.partial"));
    assert_int_equal(rescued.count, 4);
    assert_string_equal(rescued.partial, "000000010000000000000006.partial");
}

/* The last one may be whole and archived, as where recovery left a timeline in it. */
static void
test_without_archive_status_what_is_stored_whole_is_not_rescued_once_more(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    Rescued rescued;
    SCOPED_FD fd = bare_directory();
    SCOPED_MEMORY uint8_t *archived = wal_fixture_segment(fixture, 1, 2);

    wal_fixture_store(fixture, "000000010000000000000002", archived, fixture->segment_size);
    lay(fd, "000000010000000000000002", archived, fixture->segment_size);
    assert_true(wal_files_rescue(fixture->store, world_real(), fd, 0, &rescued, &err));
    assert_int_equal(rescued.count, 0);
    assert_string_equal(rescued.partial, "");
    assert_false(is_stored(fixture, "000000010000000000000002.partial"));
    /* One that reads on otherwise is kept beside it. */
    wal_fixture_store_segment(fixture, 1, 3);
    lay_segment(fixture, fd, "000000010000000000000003", 3, true);
    assert_true(wal_files_rescue(fixture->store, world_real(), fd, 0, &rescued, &err));
    assert_int_equal(rescued.count, 1);
    assert_true(is_stored(fixture, "000000010000000000000003.partial"));
}

/* What is told to be not replayed is what was written last. */
static void
test_without_archive_status_an_old_timeline_does_not_hide_the_newest_end(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    Rescued rescued;
    SCOPED_FD fd = bare_directory();

    lay_segment(fixture, fd, "000000010000000000000009", 9, false);
    lay_segment(fixture, fd, "00000002000000000000000C", 12, false);
    for (uint64_t checkpoint = 0; checkpoint <= 12; checkpoint += 12) {
        assert_true(
            wal_files_rescue(fixture->store, world_real(), fd, checkpoint << 20, &rescued, &err));
        assert_string_equal(rescued.partial, "00000002000000000000000C.partial");
        assert_true(rescued.partial_lsn == UINT64_C(12) << 20);
        assert_true(is_stored(fixture, "000000010000000000000009.partial"));
    }
}

/* As where another server's disk is mounted there: it is not ours to replace. */
static void
test_without_archive_status_wal_of_another_system_is_not_passed_over(void **state)
{
    enum { SYSTEM_ID_AT = 24 };
    WalFixture *fixture = *state;
    CairnError err = {0};
    Rescued rescued;
    SCOPED_FD fd = bare_directory();
    SCOPED_MEMORY uint8_t *segment = wal_fixture_segment(fixture, 1, 3);

    segment[SYSTEM_ID_AT] ^= 1;
    lay(fd, "000000010000000000000003", segment, fixture->segment_size);
    assert_false(wal_files_rescue(fixture->store, world_real(), fd, 0, &rescued, &err));
    assert_int_equal(err.kind, CAIRN_MISMATCH);
    assert_non_null(strstr(err.message, "belongs to system"));
}

static void
test_behind_the_last_segment_that_can_be_named_there_is_none(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    Rescued rescued;
    SCOPED_FD fd = bare_directory();

    lay(fd, "00000001FFFFFFFF00000FFF", "x", 1);
    lay(fd, "00000001FFFFFFFF00001000", "x", 1);
    assert_true(wal_files_rescue(fixture->store, world_real(), fd, 0, &rescued, &err));
    assert_int_equal(rescued.count, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_segment_that_waits_is_seen),
        cmocka_unit_test(test_a_status_that_cannot_be_examined_is_not_absent),
        cmocka_unit_test(test_a_listing_cut_short_is_an_error),
        WAL_FIXTURE_TEST(test_without_archive_status_all_is_kept),
        WAL_FIXTURE_TEST(test_without_archive_status_damage_is_no_reason_to_drop_a_segment),
        WAL_FIXTURE_TEST(test_an_archive_status_that_cannot_be_opened_is_not_missing),
        WAL_FIXTURE_TEST(test_without_archive_status_half_a_segment_never_stands_for_a_whole_one),
        WAL_FIXTURE_TEST(test_without_archive_status_what_is_stored_whole_is_not_rescued_once_more),
        WAL_FIXTURE_TEST(test_without_archive_status_an_old_timeline_does_not_hide_the_newest_end),
        WAL_FIXTURE_TEST(test_without_archive_status_wal_of_another_system_is_not_passed_over),
        WAL_FIXTURE_TEST(test_behind_the_last_segment_that_can_be_named_there_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
