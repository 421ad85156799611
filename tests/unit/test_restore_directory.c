#include "restore/place.h"
#include "restore/target_directory.h"

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
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    FaultDisk disk;
    char path[256];
} Fixture;

static int
setup(void **state)
{
    static Fixture fixture;
    static int number;
    char name[32];

    fault_disk_init(&fixture.disk);
    snprintf(name, sizeof name, "target-%d", number++);
    snprintf(fixture.path, sizeof fixture.path, "%s", scratch_path(scratch_directory(), name));
    *state = &fixture;
    return 0;
}

static const char *
below(const Fixture *fixture, const char *name)
{
    return scratch_path(fixture->path, name);
}

static void
make_file(const Fixture *fixture, const char *name, const char *text)
{
    const int fd = open(below(fixture, name), O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void
make_directory(const Fixture *fixture, const char *name)
{
    assert_int_equal(mkdir(below(fixture, name), 0700), 0);
}

static bool
present(const Fixture *fixture, const char *name)
{
    struct stat status;
    return lstat(below(fixture, name), &status) == 0;
}

static TargetDirectory *
open_target(Fixture *fixture)
{
    CairnError err = {0};
    TargetDirectory *directory = target_directory_open(&fixture->disk.world, fixture->path, &err);
    if (directory == NULL)
        fail_msg("%s", err.message);
    return directory;
}

static DirectoryState
state_of(Fixture *fixture)
{
    SCOPED(TargetDirectory) directory = open_target(fixture);
    return target_directory_state(directory);
}

static void
test_an_interrupted_restore_is_ours_and_a_finished_one_is_a_cluster(void **state)
{
    Fixture *fixture = *state;
    assert_int_equal(state_of(fixture), DIRECTORY_EMPTY); /* missing */
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    assert_int_equal(state_of(fixture), DIRECTORY_EMPTY);
    make_file(fixture, "notes.txt", "mine");
    assert_int_equal(state_of(fixture), DIRECTORY_FOREIGN);
    make_file(fixture, RESTORE_MARKER, "");
    assert_int_equal(state_of(fixture), DIRECTORY_OURS);
    /* The marker may outlive the commit by a crash; what can be started is never taken for ours. */
    make_directory(fixture, "global");
    make_file(fixture, "global/pg_control", "");
    assert_int_equal(state_of(fixture), DIRECTORY_CLUSTER);
}

static void
test_clear_removes_everything_and_follows_no_link(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    char outside[256];

    snprintf(outside, sizeof outside, "%s", scratch_path(scratch_directory(), "outside"));
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    assert_true(mkdir(outside, 0700) == 0 || errno == EEXIST);
    make_directory(fixture, "global");
    make_file(fixture, "global/pg_control", "");
    make_file(fixture, "precious", "");
    assert_int_equal(rename(below(fixture, "precious"), scratch_path(outside, "precious")), 0);
    assert_int_equal(symlink(outside, below(fixture, "pg_log")), 0);

    SCOPED(TargetDirectory) directory = open_target(fixture);
    assert_true(target_directory_create(directory, &err));
    assert_true(target_directory_clear(directory, &err));
    assert_false(present(fixture, "global"));
    assert_false(present(fixture, "pg_log"));
    assert_true(present(fixture, RESTORE_MARKER));
    assert_int_equal(access(scratch_path(outside, "precious"), F_OK), 0);
}

static void
test_a_linked_pg_wal_is_emptied_and_used_and_a_strange_one_refused(void **state)
{
    static const char SEGMENT[] = "000000010000000000000001";
    Fixture *fixture = *state;
    CairnError err = {0};
    char wal[256];
    char strange[256];

    snprintf(wal, sizeof wal, "%s", scratch_path(scratch_directory(), "wal-disk"));
    snprintf(strange, sizeof strange, "%s", scratch_path(wal, "photo.jpg"));
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    assert_int_equal(mkdir(wal, 0700), 0);
    make_directory(fixture, "global");
    make_file(fixture, "global/pg_control", "");
    assert_int_equal(symlink(wal, below(fixture, "pg_wal")), 0);
    make_file(fixture, "pg_wal/000000010000000000000001", "old");
    make_file(fixture, "pg_wal/photo.jpg", "");

    SCOPED(TargetDirectory) directory = open_target(fixture);
    assert_true(target_directory_create(directory, &err));
    assert_false(target_directory_clear(directory, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    assert_true(present(fixture, "global/pg_control"));
    assert_true(present(fixture, "pg_wal/000000010000000000000001"));

    cairn_error_clear(&err);
    assert_int_equal(unlink(strange), 0);
    assert_true(target_directory_clear(directory, &err));
    assert_int_equal(access(scratch_path(wal, SEGMENT), F_OK), -1);
    assert_true(target_directory_make(directory, "pg_wal", 0700, &err));
    assert_true(target_directory_make(directory, "pg_wal/archive_status", 0700, &err));
    assert_true(
        target_directory_write(directory, "pg_wal/archive_status/x.done", "", 0, 0600, &err));
    assert_int_equal(access(scratch_path(wal, "archive_status/x.done"), F_OK), 0);
    assert_true(present(fixture, "pg_wal"));
    assert_int_equal(state_of(fixture), DIRECTORY_OURS);
}

static void
test_an_old_control_file_goes_before_anything_else(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    make_directory(fixture, "global");
    make_file(fixture, "global/pg_control", "");
    make_file(fixture, "PG_VERSION", "15\n");

    SCOPED(TargetDirectory) directory = open_target(fixture);
    assert_true(target_directory_create(directory, &err));
    fault_disk_reset(&fixture->disk);
    /* Both steps go wrong in turn; nothing but pg_control may be gone then. */
    fixture->disk.fail[FAULT_READDIR] = (Fault){.at_call = 1, .error = EIO};
    assert_false(target_directory_clear(directory, &err));
    assert_false(present(fixture, "global/pg_control"));
    assert_true(present(fixture, "PG_VERSION"));
    assert_int_equal(state_of(fixture), DIRECTORY_OURS);
}

static void
test_two_restores_do_not_share_a_directory(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    SCOPED(TargetDirectory) first = open_target(fixture);
    SCOPED(TargetDirectory) second = open_target(fixture);
    assert_true(target_directory_create(first, &err));
    assert_false(target_directory_create(second, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
}

static void
test_a_directory_filled_meanwhile_is_refused(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    SCOPED(TargetDirectory) directory = open_target(fixture);
    make_file(fixture, "somebody", "");
    assert_false(target_directory_create(directory, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
}

static void
test_a_running_server_is_noticed(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    SCOPED(TargetDirectory) directory = open_target(fixture);
    assert_true(target_directory_refuse_running(directory, &err));
    make_file(fixture, "postmaster.pid", "1\n/data\n"); /* init is always alive */
    assert_false(target_directory_refuse_running(directory, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);

    CairnError err_stale = {0};
    assert_int_equal(unlink(below(fixture, "postmaster.pid")), 0);
    make_file(fixture, "postmaster.pid", "2147480000\n/data\n");
    assert_true(target_directory_refuse_running(directory, &err_stale));
}

static void
test_nothing_is_written_through_a_link(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    SCOPED(TargetDirectory) directory = open_target(fixture);
    assert_true(target_directory_create(directory, &err));
    assert_true(target_directory_clear(directory, &err));
    assert_int_equal(symlink("/tmp", below(fixture, "base")), 0);
    assert_false(target_directory_write(directory, "base/evil", "x", 1, 0600, &err));

    CairnError err_file = {0};
    assert_int_equal(symlink("/tmp/evil", below(fixture, "PG_VERSION")), 0);
    assert_false(target_directory_write(directory, "PG_VERSION", "x", 1, 0600, &err_file));
    assert_int_not_equal(access("/tmp/evil", F_OK), 0);
}

static void
test_commit_puts_the_control_file_in_place_and_ends_the_marker(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    struct stat status;
    SCOPED(TargetDirectory) directory = open_target(fixture);
    assert_true(target_directory_create(directory, &err));
    assert_true(target_directory_clear(directory, &err));
    assert_true(target_directory_make(directory, "global", 0750, &err));
    assert_true(target_directory_write(directory, CONTROL_TEMPORARY_PATH, "c", 1, 0640, &err));
    assert_false(present(fixture, "global/pg_control"));
    assert_true(target_directory_commit(directory, 0750, &err));
    assert_true(present(fixture, "global/pg_control"));
    assert_false(present(fixture, RESTORE_MARKER));
    assert_false(present(fixture, CONTROL_TEMPORARY_PATH));
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0750);
}

static void
test_tablespaces_lie_apart_and_are_linked(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    char place[300];
    char target[300];
    snprintf(place, sizeof place, "%s.ts", fixture->path);

    SCOPED(TargetDirectory) directory = open_target(fixture);
    assert_true(target_directory_add_tablespace(directory, 16400, place, 15, false, &err));
    assert_true(target_directory_create(directory, &err));
    assert_true(target_directory_clear(directory, &err));
    assert_true(target_directory_make(directory, "pg_tblspc", 0700, &err));
    assert_true(target_directory_make(directory, "pg_tblspc/16400", 0700, &err));
    assert_true(target_directory_write(directory, "pg_tblspc/16400/PG_15/f", "x", 1, 0600, &err));
    assert_true(target_directory_link_tablespaces(directory, &err));
    const ssize_t size = readlink(below(fixture, "pg_tblspc/16400"), target, sizeof target - 1);
    assert_true(size > 0);
    target[size] = '\0';
    assert_string_equal(target, place);
    assert_int_equal(access(scratch_path(place, "PG_15/f"), F_OK), 0);

    assert_false(target_directory_add_tablespace(directory, 16401, fixture->path, 15, false, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
}

/* A cluster with tablespace 16400 at *.old, which a server of version 14 uses too. */
static const char *
make_cluster_with_tablespace(const Fixture *fixture, bool linked)
{
    static char place[300];
    snprintf(place, sizeof place, "%s.old", fixture->path);
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    make_directory(fixture, "global");
    make_file(fixture, "global/pg_control", "x");
    make_directory(fixture, "pg_tblspc");
    assert_int_equal(mkdir(place, 0700), 0);
    assert_int_equal(mkdir(scratch_path(place, "PG_14_202107181"), 0700), 0);
    assert_int_equal(mkdir(scratch_path(place, "PG_15_202209061"), 0700), 0);
    if (linked)
        assert_int_equal(symlink(place, below(fixture, "pg_tblspc/16400")), 0);
    return place;
}

static void
test_a_replaced_tablespace_loses_its_own_version_only(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    const char *place = make_cluster_with_tablespace(fixture, true);

    SCOPED(TargetDirectory) directory = open_target(fixture);
    assert_true(target_directory_add_tablespace(directory, 16400, place, 15, true, &err));
    assert_true(target_directory_create(directory, &err));
    assert_int_equal(access(scratch_path(place, "PG_15_202209061"), F_OK), 0);
    assert_true(target_directory_clear(directory, &err));
    assert_int_equal(access(scratch_path(place, "PG_14_202107181"), F_OK), 0);
    assert_int_not_equal(access(scratch_path(place, "PG_15_202209061"), F_OK), 0);
    assert_false(present(fixture, "pg_tblspc"));
}

static void
test_a_tablespace_that_the_replaced_cluster_does_not_have_is_refused(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    const char *place = make_cluster_with_tablespace(fixture, false);

    SCOPED(TargetDirectory) directory = open_target(fixture);
    assert_false(target_directory_add_tablespace(directory, 16400, place, 15, true, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
}

static void
test_an_interrupted_replacement_finds_its_tablespaces_again(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    const char *place = make_cluster_with_tablespace(fixture, true);
    {
        SCOPED(TargetDirectory) directory = open_target(fixture);
        assert_true(target_directory_add_tablespace(directory, 16400, place, 15, true, &err));
        assert_true(target_directory_create(directory, &err));
        /* pg_control and the link go, the tablespace's directory does not. */
        fixture->disk.fail[FAULT_UNLINK] = (Fault){.at_call = 5, .error = EIO};
        assert_false(target_directory_clear(directory, &err));
        cairn_error_clear(&err);
    }
    fault_disk_reset(&fixture->disk);
    assert_false(present(fixture, "pg_tblspc/16400"));
    assert_int_equal(access(scratch_path(place, "PG_15_202209061"), F_OK), 0);

    SCOPED(TargetDirectory) directory = open_target(fixture);
    assert_int_equal(target_directory_state(directory), DIRECTORY_OURS);
    assert_true(target_directory_add_tablespace(directory, 16400, place, 15, true, &err));
    assert_true(target_directory_create(directory, &err));
    assert_true(target_directory_clear(directory, &err));
    assert_int_equal(access(scratch_path(place, "PG_14_202107181"), F_OK), 0);
    assert_int_not_equal(access(scratch_path(place, "PG_15_202209061"), F_OK), 0);
}

static void
write_big(const char *path)
{
    static const char BYTES[1 << 20] = {1};
    const int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, BYTES, sizeof BYTES), (ssize_t)sizeof BYTES);
    close(fd);
}

static void
test_only_what_will_be_removed_counts_as_free(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    const char *path = make_cluster_with_tablespace(fixture, true);
    char other_name[320];
    uint64_t bytes;
    Place place;

    write_big(scratch_path(path, "PG_14_202107181/f"));
    write_big(scratch_path(path, "PG_15_202209061/f"));
    snprintf(other_name, sizeof other_name, "%s", scratch_path(path, "PG_14_202107181/linked"));
    assert_int_equal(link(scratch_path(path, "PG_14_202107181/f"), other_name), 0);
    assert_true(place_open(&fixture->disk.world, path, false, &place, &err));
    place.oid = 16400;
    place.major = 15;
    assert_true(place_used_bytes(&fixture->disk.world, &place, &bytes, &err));
    assert_true(bytes >= 1 << 20 && bytes <= (1 << 20) + (64 << 10));
    place.major = 14;
    assert_true(place_used_bytes(&fixture->disk.world, &place, &bytes, &err));
    assert_true(bytes <= 64 << 10);
    place_close(&fixture->disk.world, &place);
}

/* A process that is killed removes nothing behind itself. */
static void
test_a_restore_that_ends_before_its_marker_is_written_can_be_repeated(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    {
        SCOPED(TargetDirectory) directory = open_target(fixture);
        assert_true(target_directory_create(directory, &err));
        fixture->disk.fail[FAULT_WRITE] = (Fault){.at_call = 1, .error = EIO};
        fixture->disk.fail[FAULT_UNLINK] = (Fault){.at_call = 1, .error = EIO};
        assert_false(target_directory_clear(directory, &err));
    }
    fault_disk_reset(&fixture->disk);
    assert_int_equal(state_of(fixture), DIRECTORY_OURS);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_an_interrupted_restore_is_ours_and_a_finished_one_is_a_cluster,
                               setup),
        cmocka_unit_test_setup(test_clear_removes_everything_and_follows_no_link, setup),
        cmocka_unit_test_setup(test_a_linked_pg_wal_is_emptied_and_used_and_a_strange_one_refused,
                               setup),
        cmocka_unit_test_setup(test_an_old_control_file_goes_before_anything_else, setup),
        cmocka_unit_test_setup(
            test_a_restore_that_ends_before_its_marker_is_written_can_be_repeated, setup),
        cmocka_unit_test_setup(test_two_restores_do_not_share_a_directory, setup),
        cmocka_unit_test_setup(test_a_directory_filled_meanwhile_is_refused, setup),
        cmocka_unit_test_setup(test_a_running_server_is_noticed, setup),
        cmocka_unit_test_setup(test_nothing_is_written_through_a_link, setup),
        cmocka_unit_test_setup(test_commit_puts_the_control_file_in_place_and_ends_the_marker,
                               setup),
        cmocka_unit_test_setup(test_tablespaces_lie_apart_and_are_linked, setup),
        cmocka_unit_test_setup(test_a_replaced_tablespace_loses_its_own_version_only, setup),
        cmocka_unit_test_setup(test_a_tablespace_that_the_replaced_cluster_does_not_have_is_refused,
                               setup),
        cmocka_unit_test_setup(test_an_interrupted_replacement_finds_its_tablespaces_again, setup),
        cmocka_unit_test_setup(test_only_what_will_be_removed_counts_as_free, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
