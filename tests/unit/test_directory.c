#include "common/directory.h"

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

static int
scratch_with_two_files(void)
{
    const int fd = open(scratch_directory(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(close(openat(fd, ".a", O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
    assert_int_equal(close(openat(fd, "b", O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
    return fd;
}

static void
test_every_name_is_given_but_the_two_dots(void **state)
{
    (void)state;
    SCOPED_FD fd = scratch_with_two_files();

    for (int pass = 0; pass < 2; pass++) { /* each from the beginning */
        SCOPED(Directory) directory = directory_open(world_real(), fd, ".", 0);
        size_t count = 0;
        assert_non_null(directory);
        for (const char *name; (name = directory_next(directory)) != NULL; count++) {
            struct stat status;
            assert_true(strcmp(name, ".a") == 0 || strcmp(name, "b") == 0);
            assert_int_equal(fstatat(directory_fd(directory), name, &status, 0), 0);
        }
        assert_int_equal(count, 2);
        assert_true(directory_complete(directory));
    }
}

static void
test_a_listing_cut_short_is_not_complete(void **state)
{
    (void)state;
    FaultDisk disk;
    SCOPED_FD fd = scratch_with_two_files();

    fault_disk_init(&disk);
    disk.fail[FAULT_READDIR] = (Fault){.at_call = 2, .error = EIO};
    SCOPED(Directory) directory = directory_open(&disk.world, fd, ".", 0);
    assert_non_null(directory);
    while (directory_next(directory) != NULL)
        ;
    errno = 0;
    assert_false(directory_complete(directory));
    assert_int_equal(errno, EIO);
}

static void
test_what_does_not_open_says_why_and_keeps_no_descriptor(void **state)
{
    (void)state;
    FaultDisk disk;
    SCOPED_FD fd = scratch_with_two_files();

    fault_disk_init(&disk);
    assert_null(directory_open(&disk.world, fd, "missing", 0));
    assert_int_equal(errno, ENOENT);
    assert_int_equal(symlinkat(".", fd, "link"), 0);
    assert_null(directory_open(&disk.world, fd, "link", O_NOFOLLOW));
    assert_true(errno == ELOOP || errno == ENOTDIR);
    assert_int_equal(disk.calls[FAULT_CLOSE], 0);

    const int file = openat(fd, "b", O_RDONLY | O_CLOEXEC);
    assert_null(directory_open_fd(&disk.world, file));
    assert_int_equal(errno, ENOTDIR);
    assert_int_equal(fcntl(file, F_GETFD), -1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name_is_given_but_the_two_dots),
        cmocka_unit_test(test_a_listing_cut_short_is_not_complete),
        cmocka_unit_test(test_what_does_not_open_says_why_and_keeps_no_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
