#include "common/file.h"

#include "common/scoped.h"
#include "tests/unit/support/fault_disk.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static int
open_scratch(const char *directory)
{
    const int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void
write_file(const char *directory, const char *name, const char *text)
{
    FILE *file = fopen(scratch_path(directory, name), "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static unsigned
count_entries(const char *directory)
{
    DIR *dir = opendir(directory);
    unsigned count = 0;
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count - 2;
}

static void
test_short_and_interrupted_transfers_are_completed(void **state)
{
    (void)state;
    FaultDisk disk;
    fault_disk_init(&disk);
    disk.transfer_limit = 7;
    disk.interrupt = true;
    uint8_t data[1000];
    uint8_t back[1000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);

    CairnError err = {0};
    const char *directory = scratch_directory();
    SCOPED_FD fd = open(scratch_path(directory, "f"), O_RDWR | O_CREAT, 0600);
    assert_true(file_write(&disk.world, fd, data, sizeof data, "f", &err));
    assert_true(file_pread(&disk.world, fd, back, sizeof back, 0, "f", &err));
    assert_memory_equal(data, back, sizeof data);
    assert_true(file_pwrite(&disk.world, fd, "hello world", 11, 500, "f", &err));
    size_t size;
    assert_int_equal(lseek(fd, 490, SEEK_SET), 490);
    assert_true(file_read(&disk.world, fd, back, sizeof back, &size, "f", &err));
    assert_int_equal(size, 510);
    assert_memory_equal(back + 10, "hello world", 11);
    assert_true(disk.calls[FAULT_WRITE] > 1000 / 7);
}

static void
test_a_file_that_ends_early_is_corrupt(void **state)
{
    (void)state;
    CairnError err = {0};
    const char *directory = scratch_directory();
    write_file(directory, "f", "12345");
    SCOPED_FD fd = open(scratch_path(directory, "f"), O_RDONLY);
    char back[6];
    assert_true(file_pread(world_real(), fd, back, 3, 2, "f", &err));
    assert_false(file_pread(world_real(), fd, back, 4, 2, "f", &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    cairn_error_clear(&err);
    assert_false(file_pread(world_real(), fd, back, 1, UINT64_MAX, "f", &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_disk_errors_keep_their_kind(void **state)
{
    (void)state;
    FaultDisk disk;
    fault_disk_init(&disk);
    CairnError err = {0};
    const char *directory = scratch_directory();
    int fd = open(scratch_path(directory, "f"), O_RDWR | O_CREAT, 0600);
    disk.fail[FAULT_WRITE] = (Fault){.at_call = 1, .error = ENOSPC};
    assert_false(file_write(&disk.world, fd, "x", 1, "f", &err));
    assert_int_equal(err.kind, CAIRN_NO_SPACE);
    assert_non_null(strstr(err.message, "unable to write 'f': "));

    cairn_error_clear(&err);
    disk.fail[FAULT_FSYNC] = (Fault){.at_call = 1, .error = EIO};
    assert_false(file_sync_close(&disk.world, fd, "f", &err));
    assert_int_equal(err.kind, CAIRN_IO);
    assert_int_equal(disk.calls[FAULT_CLOSE], 1);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* gone either way */

    cairn_error_clear(&err);
    fault_disk_reset(&disk);
    fd = open(scratch_path(directory, "f"), O_RDWR);
    disk.fail[FAULT_CLOSE] = (Fault){.at_call = 1, .error = EDQUOT};
    assert_false(file_sync_close(&disk.world, fd, "f", &err));
    assert_int_equal(err.kind, CAIRN_NO_SPACE);
}

static void
test_read_all_is_bounded_and_takes_regular_files_only(void **state)
{
    (void)state;
    CairnError err = {0};
    const char *directory = scratch_directory();
    SCOPED_FD dir = open_scratch(directory);
    write_file(directory, "f", "12345");
    size_t size;
    for (size_t limit = 5; limit < 8; limit++) {
        SCOPED_MEMORY char *text = file_read_all(world_real(), dir, "f", limit, &size, &err);
        assert_non_null(text);
        assert_int_equal(size, 5);
        assert_string_equal(text, "12345");
    }
    assert_null(file_read_all(world_real(), dir, "f", 4, &size, &err));
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
    cairn_error_clear(&err);
    assert_null(file_read_all(world_real(), dir, "missing", 4, &size, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    cairn_error_clear(&err);
    assert_int_equal(mkfifo(scratch_path(directory, "fifo"), 0600), 0);
    assert_null(file_read_all(world_real(), dir, "fifo", 4, &size, &err)); /* and does not hang */
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
    cairn_error_clear(&err);
    SCOPED_MEMORY char *proc =
        file_read_all(world_real(), AT_FDCWD, "/proc/self/comm", 64, &size, &err);
    assert_non_null(proc); /* st_size says 0 */
    assert_true(size > 0);
}

static void
test_replace_is_durable_before_and_after_the_rename(void **state)
{
    (void)state;
    FaultDisk disk;
    fault_disk_init(&disk);
    CairnError err = {0};
    const char *directory = scratch_directory();
    SCOPED_FD dir = open_scratch(directory);
    assert_int_equal(mkdirat(dir, "sub", 0700), 0);
    assert_true(file_replace(&disk.world, dir, "sub/f", "one", 3, 0640, &err));
    assert_true(fault_disk_order(&disk, FAULT_WRITE, FAULT_FSYNC));
    assert_true(fault_disk_order(&disk, FAULT_FSYNC, FAULT_RENAME));
    assert_true(fault_disk_order(&disk, FAULT_RENAME, FAULT_FSYNC_DIRECTORY));
    assert_true(file_replace(&disk.world, dir, "sub/f", "second", 6, 0640, &err));
    size_t size;
    SCOPED_MEMORY char *text = file_read_all(world_real(), dir, "sub/f", 100, &size, &err);
    assert_string_equal(text, "second");
    struct stat status;
    assert_int_equal(fstatat(dir, "sub/f", &status, 0), 0);
    assert_int_equal(status.st_mode & 07777, 0640);
}

static void
test_a_failed_replace_leaves_the_old_file_and_nothing_else(void **state)
{
    (void)state;
    static const FaultKind KINDS[] = {FAULT_OPEN,  FAULT_WRITE, FAULT_FCHMOD,
                                      FAULT_FSYNC, FAULT_CLOSE, FAULT_RENAME};
    const char *directory = scratch_directory();
    SCOPED_FD dir = open_scratch(directory);
    write_file(directory, "f", "old");
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        FaultDisk disk;
        fault_disk_init(&disk);
        disk.fail[KINDS[i]] = (Fault){.at_call = 1, .error = EIO};
        CairnError err = {0};
        assert_false(file_replace(&disk.world, dir, "f", "new", 3, 0600, &err));
        assert_int_equal(err.kind, CAIRN_IO);
        assert_int_equal(count_entries(directory), 1);
        cairn_error_clear(&err);
        size_t size;
        SCOPED_MEMORY char *text = file_read_all(world_real(), dir, "f", 100, &size, &err);
        assert_string_equal(text, "old");
    }
}

static void
test_make_directories_syncs_each_new_ones_parent_only(void **state)
{
    (void)state;
    FaultDisk disk;
    fault_disk_init(&disk);
    CairnError err = {0};
    const char *directory = scratch_directory();
    SCOPED_FD dir = open_scratch(directory);
    const mode_t umask_before = umask(077);
    assert_true(file_make_directories(&disk.world, dir, "a/b//c/", 0750, &err));
    umask(umask_before);
    assert_int_equal(disk.calls[FAULT_MKDIR], 3);
    assert_int_equal(disk.calls[FAULT_FSYNC_DIRECTORY], 3);
    struct stat status;
    assert_int_equal(fstatat(dir, "a/b/c", &status, 0), 0);
    assert_int_equal(status.st_mode & 07777, 0750);

    fault_disk_reset(&disk);
    assert_true(file_make_directories(&disk.world, dir, "a/b/c", 0750, &err));
    assert_int_equal(disk.calls[FAULT_MKDIR], 0);
    assert_int_equal(disk.calls[FAULT_FSYNC_DIRECTORY], 0);

    assert_true(
        file_make_directories(&disk.world, AT_FDCWD, scratch_path(directory, "x/y"), 0700, &err));
    assert_int_equal(fstatat(dir, "x/y", &status, 0), 0);
}

static void
test_make_directories_goes_through_no_link_below_a_descriptor(void **state)
{
    (void)state;
    CairnError err = {0};
    const char *directory = scratch_directory();
    const char *elsewhere = scratch_directory();
    SCOPED_FD dir = open_scratch(directory);
    assert_int_equal(symlinkat(elsewhere, dir, "link"), 0);
    assert_false(file_make_directories(world_real(), dir, "link/sub", 0750, &err));
    assert_int_equal(count_entries(elsewhere), 0);
    cairn_error_clear(&err);
    /* The administrator's own path may. */
    assert_true(file_make_directories(world_real(), AT_FDCWD, scratch_path(directory, "link/sub"),
                                      0750, &err));
    assert_int_equal(count_entries(elsewhere), 1);
    write_file(directory, "file", "");
    assert_false(file_make_directories(world_real(), dir, "file", 0750, &err));
}

static void
test_open_beneath_refuses_links_and_ways_out(void **state)
{
    (void)state;
    const Disk *disk = world_real()->disk;
    const char *directory = scratch_directory();
    SCOPED_FD dir = open_scratch(directory);
    assert_int_equal(mkdirat(dir, "sub", 0700), 0);
    write_file(directory, "sub/f", "x");
    assert_int_equal(symlinkat("sub", dir, "link"), 0);
    SCOPED_FD good = disk->openat_beneath(disk, dir, "sub/f", O_RDONLY, 0);
    assert_true(good >= 0);
    assert_int_equal(disk->openat_beneath(disk, dir, "link/f", O_RDONLY, 0), -1);
    assert_int_equal(errno, ELOOP);
    assert_int_equal(disk->openat_beneath(disk, dir, "../x", O_RDONLY, 0), -1);
    assert_int_equal(errno, EXDEV);
    assert_int_equal(disk->openat_beneath(disk, dir, "/etc/passwd", O_RDONLY, 0), -1);
    assert_int_equal(errno, EXDEV);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_and_interrupted_transfers_are_completed),
        cmocka_unit_test(test_a_file_that_ends_early_is_corrupt),
        cmocka_unit_test(test_disk_errors_keep_their_kind),
        cmocka_unit_test(test_read_all_is_bounded_and_takes_regular_files_only),
        cmocka_unit_test(test_replace_is_durable_before_and_after_the_rename),
        cmocka_unit_test(test_a_failed_replace_leaves_the_old_file_and_nothing_else),
        cmocka_unit_test(test_make_directories_syncs_each_new_ones_parent_only),
        cmocka_unit_test(test_make_directories_goes_through_no_link_below_a_descriptor),
        cmocka_unit_test(test_open_beneath_refuses_links_and_ways_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
