#include "repository/wal_overflow.h"

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

#define SEGMENT "000000010000000000000005"

enum { SIZE = 300000 };

typedef struct {
    FaultDisk disk;
    char root[256];
    WalOverflow *overflow;
    int elsewhere; /* a directory of another file system */
    int source;
    int target;
} Fixture;

static int
scratch_file(const char *name)
{
    const int fd =
        open(scratch_path(scratch_directory(), name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

static void
fill_source(const Fixture *fixture, uint8_t first)
{
    static uint8_t content[SIZE];

    for (size_t i = 0; i < SIZE; i++)
        content[i] = (uint8_t)(i * 7 + i / 251);
    content[0] = first;
    assert_int_equal(pwrite(fixture->source, content, SIZE, 0), SIZE);
}

static WalOverflow *
open_overflow(const Fixture *fixture, const char *cluster, bool create, CairnError *err)
{
    static const RepositoryConfig repository = {.name = "main", .path = "/somewhere"};
    const WalOverflowPlace place = {.path = fixture->root,
                                    .repository = &repository,
                                    .cluster = cluster,
                                    .system_id = 77,
                                    .major = 15};
    return wal_overflow_open(&fixture->disk.world, &place, create, err);
}

static int
setup(void **state)
{
    static Fixture fixture;
    CairnError err = {0};
    char command[512];

    fault_disk_init(&fixture.disk);
    fixture.disk.pretend_sync = true;
    snprintf(fixture.root, sizeof fixture.root, "%s/overflow", scratch_directory());
    snprintf(command, sizeof command, "rm -rf %s", fixture.root);
    assert_int_equal(system(command), 0);
    fixture.overflow = open_overflow(&fixture, "main", true, &err);
    assert_non_null(fixture.overflow);
    fixture.elsewhere = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fixture.elsewhere >= 0);
    fixture.source = scratch_file("source");
    fixture.target = scratch_file("target");
    fill_source(&fixture, 1);
    *state = &fixture;
    return 0;
}

static int
teardown(void **state)
{
    Fixture *fixture = *state;

    wal_overflow_close(fixture->overflow);
    close(fixture->elsewhere);
    close(fixture->source);
    close(fixture->target);
    return 0;
}

static bool
put(const Fixture *fixture, const char *name, CairnError *err)
{
    return wal_overflow_put(fixture->overflow, fixture->elsewhere, name, fixture->source, err);
}

static void
expect_fetched(const Fixture *fixture, const char *name)
{
    static uint8_t ours[SIZE], theirs[SIZE];
    CairnError err = {0};

    assert_int_equal(ftruncate(fixture->target, 0), 0);
    assert_true(wal_overflow_fetch(fixture->overflow, name, fixture->target, &err));
    assert_int_equal(pread(fixture->source, ours, SIZE, 0), SIZE);
    assert_int_equal(pread(fixture->target, theirs, SIZE, 0), SIZE);
    assert_memory_equal(ours, theirs, SIZE);
}

static void
test_what_was_put_comes_back_and_again_is_success(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};

    assert_false(wal_overflow_fetch(fixture->overflow, SEGMENT, fixture->target, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    cairn_error_clear(&err);
    assert_true(put(fixture, SEGMENT, &err));
    expect_fetched(fixture, SEGMENT);
    assert_true(put(fixture, SEGMENT, &err));
    expect_fetched(fixture, SEGMENT);
}

static void
test_bytes_and_digest_are_durable_before_the_name(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};

    fault_disk_reset(&fixture->disk);
    assert_true(put(fixture, SEGMENT, &err));
    assert_true(fault_disk_order(&fixture->disk, FAULT_WRITE, FAULT_LINK));
    assert_true(fault_disk_order(&fixture->disk, FAULT_RENAME, FAULT_LINK));
    assert_true(fault_disk_order(&fixture->disk, FAULT_FSYNC, FAULT_LINK));
    /* The last of all: the name's own directory. */
    assert_int_equal(fixture->disk.calls[FAULT_LINK], 1);
    size_t link_at = 0, directory_at = 0;
    for (size_t i = 0; i < fixture->disk.log_size; i++) {
        link_at = fixture->disk.log[i] == FAULT_LINK ? i : link_at;
        directory_at = fixture->disk.log[i] == FAULT_FSYNC_DIRECTORY ? i : directory_at;
    }
    assert_true(directory_at > link_at);
}

static void
test_no_failing_call_is_taken_for_success(void **state)
{
    static const FaultKind KINDS[] = {FAULT_OPEN,  FAULT_READ,  FAULT_WRITE,           FAULT_CLOSE,
                                      FAULT_FSTAT, FAULT_FSYNC, FAULT_FSYNC_DIRECTORY, FAULT_LINK,
                                      FAULT_RENAME};
    Fixture *fixture = *state;
    unsigned failures = 0;
    unsigned number = 16;

    for (size_t kind = 0; kind < sizeof KINDS / sizeof KINDS[0]; kind++) {
        for (unsigned call = 1;; call++) {
            CairnError err = {0};
            char name[WAL_NAME_SIZE];

            snprintf(name, sizeof name, "0000000100000000%08X", number++ % 4096);
            fault_disk_reset(&fixture->disk);
            fixture->disk.pretend_sync = true;
            fixture->disk.fail[KINDS[kind]] = (Fault){.at_call = call, .error = EIO};
            const bool done = put(fixture, name, &err);
            const bool fired = fixture->disk.calls[KINDS[kind]] >= call;
            fault_disk_reset(&fixture->disk);
            fixture->disk.pretend_sync = true;
            if (!done) {
                failures++;
                cairn_error_clear(&err);
                assert_true(put(fixture, name, &err));
            }
            expect_fetched(fixture, name);
            /* Looks at what is not there yet, and the close of what was only read, may fail. */
            if (done && fired)
                assert_true(KINDS[kind] == FAULT_FSTAT || KINDS[kind] == FAULT_CLOSE);
            if (!fired)
                break;
        }
    }
    assert_true(failures > 15);
}

static void
test_other_content_is_refused_and_nothing_changes(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};

    assert_true(put(fixture, SEGMENT, &err));
    fill_source(fixture, 2);
    assert_false(put(fixture, SEGMENT, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    fill_source(fixture, 1);
    expect_fetched(fixture, SEGMENT);
}

static void
test_the_file_system_of_pg_wal_is_refused(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};
    SCOPED_FD same = open(scratch_directory(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_false(wal_overflow_put(fixture->overflow, same, SEGMENT, fixture->source, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
}

static void
test_a_file_that_does_not_agree_with_its_digest_is_corrupt(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};
    char command[512];

    assert_true(put(fixture, SEGMENT, &err));
    snprintf(command, sizeof command, "for f in %s/main-*/*/" SEGMENT "; do printf x >> $f; done",
             fixture->root);
    assert_int_equal(system(command), 0);
    assert_false(wal_overflow_fetch(fixture->overflow, SEGMENT, fixture->target, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_the_list_is_in_the_servers_order(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};
    WalOverflowList list;
    bool later = false;

    assert_true(put(fixture, "000000020000000000000007", &err));
    assert_true(put(fixture, SEGMENT, &err));
    assert_true(put(fixture, "00000002.history", &err));
    assert_true(wal_overflow_list(fixture->overflow, &list, &err));
    assert_int_equal(list.total, 3);
    assert_int_equal(list.bytes, 3 * SIZE);
    assert_string_equal(list.names[0], "00000002.history");
    assert_string_equal(list.names[1], SEGMENT);
    assert_true(list.oldest_us > 0);

    assert_true(
        wal_overflow_has_later(fixture->overflow, "000000010000000000000004", &later, &err));
    assert_true(later);
    assert_true(wal_overflow_has_later(fixture->overflow, SEGMENT, &later, &err));
    assert_false(later);
    assert_true(
        wal_overflow_has_later(fixture->overflow, "000000030000000000000001", &later, &err));
    assert_false(later);
}

static void
test_another_cluster_has_nothing_there(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};

    assert_true(put(fixture, SEGMENT, &err));
    assert_null(open_overflow(fixture, "other", false, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_was_put_comes_back_and_again_is_success),
        TEST(test_bytes_and_digest_are_durable_before_the_name),
        TEST(test_no_failing_call_is_taken_for_success),
        TEST(test_other_content_is_refused_and_nothing_changes),
        TEST(test_the_file_system_of_pg_wal_is_refused),
        TEST(test_a_file_that_does_not_agree_with_its_digest_is_corrupt),
        TEST(test_the_list_is_in_the_servers_order),
        TEST(test_another_cluster_has_nothing_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
