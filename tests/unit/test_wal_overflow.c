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
#define HISTORY "1\t0/5000100\tno recovery target specified\n"

enum { SIZE = 300000, SEGMENT_SIZE = 16 << 20 };

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
    char command[768];

    fault_disk_init(&fixture.disk);
    fixture.disk.pretend_sync = true;
    snprintf(fixture.root, sizeof fixture.root, "%s/overflow", scratch_directory());
    snprintf(command, sizeof command, "rm -rf %s && mkdir %s", fixture.root, fixture.root);
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
    assert_true(fault_disk_order(&fixture->disk, FAULT_FSYNC, FAULT_LINK));
    /* The last of all: the name's own directory. */
    assert_int_equal(fixture->disk.calls[FAULT_LINK], 2); /* the digest, then the file */
    size_t link_at = 0, directory_at = 0;
    for (size_t i = 0; i < fixture->disk.log_size; i++) {
        link_at = fixture->disk.log[i] == FAULT_LINK ? i : link_at;
        directory_at = fixture->disk.log[i] == FAULT_FSYNC_DIRECTORY ? i : directory_at;
    }
    assert_true(directory_at > link_at);
    assert_int_equal(fixture->disk.calls[FAULT_FSYNC_DIRECTORY], 2);
}

static void
test_no_failing_call_is_taken_for_success(void **state)
{
    static const FaultKind KINDS[] = {FAULT_OPEN,  FAULT_READ,  FAULT_WRITE,           FAULT_CLOSE,
                                      FAULT_FSTAT, FAULT_FSYNC, FAULT_FSYNC_DIRECTORY, FAULT_LINK};
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
            /* Looks at what is not there yet or at leftovers, and the close of what was only read,
               may fail. */
            if (done && fired)
                assert_true(KINDS[kind] == FAULT_FSTAT || KINDS[kind] == FAULT_CLOSE ||
                            (KINDS[kind] == FAULT_OPEN && call == 1));
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

/* A shell command in the directory of the files. */
static void
in_directory(const Fixture *fixture, const char *what)
{
    char command[768];

    snprintf(command, sizeof command, "cd %s/main-*/* && %s", fixture->root, what);
    assert_int_equal(system(command), 0);
}

static void
put_text(const Fixture *fixture, const char *name, const char *text)
{
    CairnError err = {0};

    assert_int_equal(ftruncate(fixture->source, 0), 0);
    assert_int_equal(pwrite(fixture->source, text, strlen(text), 0), (ssize_t)strlen(text));
    assert_true(put(fixture, name, &err));
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
    put_text(fixture, "00000002.history", HISTORY);
    assert_true(wal_overflow_list(fixture->overflow, &list, &err));
    assert_int_equal(list.queue.total, 3);
    assert_int_equal(list.bytes, 2 * SIZE + strlen(HISTORY));
    assert_string_equal(list.queue.names[0], "00000002.history");
    assert_string_equal(list.queue.names[1], SEGMENT);
    assert_true(list.oldest_us > 0);

    assert_true(wal_overflow_has_later(fixture->overflow, SEGMENT_SIZE, "000000010000000000000004",
                                       &later, &err));
    assert_true(later);
    assert_true(wal_overflow_has_later(fixture->overflow, SEGMENT_SIZE, SEGMENT, &later, &err));
    assert_false(later);
    assert_true(wal_overflow_has_later(fixture->overflow, SEGMENT_SIZE, "000000030000000000000001",
                                       &later, &err));
    assert_false(later);
}

static void
fail_next_look(Fixture *fixture, int error)
{
    fault_disk_reset(&fixture->disk);
    fixture->disk.fail[FAULT_FSTAT] = (Fault){.at_call = 1, .error = error};
}

static void
test_what_cannot_be_examined_is_not_absent(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    WalOverflowList list;
    bool later = false;

    assert_true(put(fixture, SEGMENT, &err));
    fail_next_look(fixture, EIO);
    assert_false(wal_overflow_list(fixture->overflow, &list, &err));
    assert_int_equal(err.kind, CAIRN_IO);
    assert_non_null(strstr(err.message, SEGMENT));
    cairn_error_clear(&err);
    fail_next_look(fixture, EIO);
    assert_false(wal_overflow_has_later(fixture->overflow, SEGMENT_SIZE, "000000010000000000000004",
                                        &later, &err));
    assert_int_equal(err.kind, CAIRN_IO);
    cairn_error_clear(&err);
    fail_next_look(fixture, ENOENT); /* shipped meanwhile */
    assert_true(wal_overflow_list(fixture->overflow, &list, &err));
    assert_int_equal(list.queue.total, 0);
    fault_disk_reset(&fixture->disk);
}

static void
test_a_history_that_forks_later_proves_a_hole(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};
    bool later = false;

    put_text(fixture, "00000002.history", HISTORY);
    assert_true(wal_overflow_has_later(fixture->overflow, SEGMENT_SIZE, "000000010000000000000004",
                                       &later, &err));
    assert_true(later);
    assert_true(wal_overflow_has_later(fixture->overflow, SEGMENT_SIZE, SEGMENT, &later, &err));
    assert_false(later);
    in_directory(fixture, "echo x >> 00000002.history");
    assert_false(wal_overflow_has_later(fixture->overflow, SEGMENT_SIZE, SEGMENT, &later, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_a_file_without_its_digest_is_corrupt_not_absent(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};
    size_t shipped = 0;

    assert_true(put(fixture, SEGMENT, &err));
    in_directory(fixture, "rm " SEGMENT ".sha256");
    assert_false(wal_overflow_fetch(fixture->overflow, SEGMENT, fixture->target, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    cairn_error_clear(&err);
    /* It ends before it looks at the repository. */
    assert_false(wal_overflow_ship(fixture->overflow, NULL, 1, &shipped, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_a_digest_of_other_content_is_not_replaced(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};

    /* Another push with other content has linked its digest, and not yet its file. */
    assert_true(put(fixture, SEGMENT, &err));
    in_directory(fixture, "rm " SEGMENT);
    fill_source(fixture, 2);
    assert_false(put(fixture, SEGMENT, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    cairn_error_clear(&err);
    /* The same content goes on where it stopped; an old digest is a leftover. */
    fill_source(fixture, 1);
    assert_true(put(fixture, SEGMENT, &err));
    expect_fetched(fixture, SEGMENT);
    in_directory(fixture, "rm " SEGMENT " && touch -d '2 hours ago' " SEGMENT ".sha256");
    fill_source(fixture, 2);
    assert_true(put(fixture, SEGMENT, &err));
    expect_fetched(fixture, SEGMENT);
}

static void
test_leftovers_of_killed_puts_are_swept(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};

    in_directory(fixture, "touch .a.young.tmp .a.old.tmp && touch -d '2 hours ago' .a.old.tmp");
    assert_true(put(fixture, SEGMENT, &err));
    in_directory(fixture, "test -e .a.young.tmp && test ! -e .a.old.tmp");
}

static void
test_overflow_path_itself_is_never_made(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    const size_t end = strlen(fixture->root);

    snprintf(fixture->root + end, sizeof fixture->root - end, "/unmounted");
    assert_null(open_overflow(fixture, "main", false, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    cairn_error_clear(&err);
    assert_null(open_overflow(fixture, "main", true, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    fixture->root[end] = '\0';
}

static void
test_memory_is_no_place_to_wait_in(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};

    if (access("/dev/shm", W_OK) != 0)
        skip();
    snprintf(fixture->root, sizeof fixture->root, "/dev/shm/pgcairn-unit-XXXXXX");
    assert_non_null(mkdtemp(fixture->root));
    SCOPED(WalOverflow) overflow = open_overflow(fixture, "main", true, &err);
    assert_non_null(overflow);
    assert_false(wal_overflow_put(overflow, fixture->elsewhere, SEGMENT, fixture->source, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    char command[512];
    snprintf(command, sizeof command, "rm -r %s", fixture->root);
    assert_int_equal(system(command), 0);
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
        TEST(test_what_cannot_be_examined_is_not_absent),
        TEST(test_a_history_that_forks_later_proves_a_hole),
        TEST(test_a_file_without_its_digest_is_corrupt_not_absent),
        TEST(test_a_digest_of_other_content_is_not_replaced),
        TEST(test_leftovers_of_killed_puts_are_swept),
        TEST(test_overflow_path_itself_is_never_made),
        TEST(test_memory_is_no_place_to_wait_in),
        TEST(test_another_cluster_has_nothing_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
