#include "restore/wal_files.h"

#include "tests/unit/support/fault_disk.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_segment_that_waits_is_seen),
        cmocka_unit_test(test_a_status_that_cannot_be_examined_is_not_absent),
        cmocka_unit_test(test_a_listing_cut_short_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
