#include "repository/identity.h"

#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static int
open_directory(void)
{
    const int fd = open(scratch_directory(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void
write_identity(int directory_fd, const void *text, size_t size)
{
    const int fd =
        openat(directory_fd, IDENTITY_FILE_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), (ssize_t)size);
    close(fd);
}

static const Identity clone = {
    .role = "clone",
    .cluster = "",
    .origin = "main",
    .backup = "0000000007-0123456789abcdef",
    .restored_at = "2026-11-22 23:31:40+00",
};

static void
write_formatted(int directory_fd, const Identity *identity)
{
    CairnError err = {0};
    SCOPED_BYTES ByteWriter text = {0};

    assert_true(identity_format(identity, &text, &err));
    write_identity(directory_fd, text.data, text.size);
}

static void
test_what_is_written_is_read_back(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED_FD fd = open_directory();
    Identity read;
    bool present = false;

    write_formatted(fd, &clone);
    assert_true(identity_read(world_real(), fd, &read, &present, &err));
    assert_true(present);
    assert_string_equal(read.role, clone.role);
    assert_string_equal(read.cluster, clone.cluster);
    assert_string_equal(read.origin, clone.origin);
    assert_string_equal(read.backup, clone.backup);
    assert_string_equal(read.restored_at, clone.restored_at);
}

static void
test_no_file_means_the_original_may_archive(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED_FD fd = open_directory();
    Identity read;
    bool present = true;

    assert_true(identity_read(world_real(), fd, &read, &present, &err));
    assert_false(present);
    assert_true(identity_may_archive(world_real(), fd, "main", &err));
}

static void
test_a_clone_may_not_archive_and_is_told_what_to_do(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED_FD fd = open_directory();

    write_formatted(fd, &clone);
    assert_false(identity_may_archive(world_real(), fd, "main", &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    assert_non_null(strstr(err.hint, "pgcairn adopt"));
}

static void
test_an_adopted_clone_archives_in_its_own_place_only(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED_FD fd = open_directory();
    Identity adopted = clone;

    snprintf(adopted.cluster, sizeof adopted.cluster, "staging");
    write_formatted(fd, &adopted);
    assert_true(identity_may_archive(world_real(), fd, "staging", &err));
    assert_false(identity_may_archive(world_real(), fd, "main", &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    assert_non_null(strstr(err.message, "staging"));
}

static const struct {
    const char *title;
    const char *text;
} damages[] = {
    {"empty", ""},
    {"cut short", "role = clone\norigin = main\n"},
    {"no value sign", "role clone\ncluster =\norigin = main\nbackup =\nrestored-at =\n"},
    {"unknown role", "role = master\ncluster =\norigin = main\nbackup =\nrestored-at =\n"},
    {"said twice",
     "role = clone\ncluster = main\ncluster =\norigin = main\nbackup =\nrestored-at =\n"},
    {"no cluster name", "role = clone\ncluster = a/b\norigin = main\nbackup =\nrestored-at =\n"},
    {"no origin", "role = clone\ncluster =\norigin =\nbackup =\nrestored-at =\n"},
    {"too long", "role = clone-clone-clone\ncluster =\norigin = main\nbackup =\nrestored-at =\n"},
};

static void
test_a_damaged_file_forbids_archiving(void **state)
{
    (void)state;
    SCOPED_FD fd = open_directory();

    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        CairnError err = {0};
        write_identity(fd, damages[i].text, strlen(damages[i].text));
        if (identity_may_archive(world_real(), fd, "main", &err))
            fail_msg("%s was accepted", damages[i].title);
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
    CairnError err = {0};
    static const char zeros[64];
    write_identity(fd, zeros, sizeof zeros);
    assert_false(identity_may_archive(world_real(), fd, "main", &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_keys_of_newer_versions_and_comments_are_passed_over(void **state)
{
    (void)state;
    static const char text[] = "# comment\n\n  role=clone \r\ncluster = main\norigin = main\n"
                               "backup =\nrestored-at =\nmood = good";
    CairnError err = {0};
    SCOPED_FD fd = open_directory();

    write_identity(fd, text, strlen(text));
    assert_true(identity_may_archive(world_real(), fd, "main", &err));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read_back),
        cmocka_unit_test(test_no_file_means_the_original_may_archive),
        cmocka_unit_test(test_a_clone_may_not_archive_and_is_told_what_to_do),
        cmocka_unit_test(test_an_adopted_clone_archives_in_its_own_place_only),
        cmocka_unit_test(test_a_damaged_file_forbids_archiving),
        cmocka_unit_test(test_keys_of_newer_versions_and_comments_are_passed_over),
    };
    return cmocka_run_group_tests_name("identity", tests, NULL, NULL);
}
