#include "storage/posix.h"

#include "tests/unit/support/fault_disk.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    FaultDisk disk;
    const char *root;
    Storage *storage;
} Fixture;

static int
setup(void **state)
{
    Fixture *fixture = calloc(1, sizeof *fixture);
    CairnError err = {0};
    fault_disk_init(&fixture->disk);
    fixture->root = scratch_path(scratch_directory(), "repo");
    fixture->root = strdup(fixture->root);
    fixture->storage = posix_storage_open(&fixture->disk.world, fixture->root, true, &err);
    fault_disk_reset(&fixture->disk);
    *state = fixture;
    return fixture->storage != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
    Fixture *fixture = *state;
    storage_close(fixture->storage);
    free((void *)(uintptr_t)fixture->root);
    free(fixture);
    return 0;
}

static StorageListNext
count_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)entry;
    (void)err;
    (*(unsigned *)context)++;
    return STORAGE_LIST_GO_ON;
}

static StorageListNext
count_gone(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)err;
    assert_true(!entry->is_gone || (!entry->is_directory && entry->size_bytes == 0));
    *(unsigned *)context += entry->is_gone;
    return STORAGE_LIST_GO_ON;
}

static unsigned
count_listed(Fixture *fixture, const char *prefix)
{
    CairnError err = {0};
    unsigned count = 0;
    assert_true(storage_list(fixture->storage, prefix, count_entry, &count, &err));
    return count;
}

/* Names on disk, leftovers included. */
static unsigned
count_on_disk(Fixture *fixture, const char *prefix)
{
    DIR *dir = opendir(scratch_path(fixture->root, prefix));
    assert_non_null(dir);
    unsigned count = 0;
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count - 2;
}

static void
put(Fixture *fixture, const char *name, const char *text)
{
    CairnError err = {0};
    assert_true(storage_put(fixture->storage, name, text, strlen(text), &err));
}

static void
assert_object(Fixture *fixture, const char *name, const char *text)
{
    CairnError err = {0};
    size_t size;
    SCOPED_MEMORY uint8_t *data = storage_get(fixture->storage, name, 1000, &size, &err);
    assert_non_null(data);
    assert_int_equal(size, strlen(text));
    assert_memory_equal(data, text, size);
}

static void
test_names_keep_to_their_alphabet(void **state)
{
    (void)state;
    char longest[STORAGE_NAME_LIMIT + 2];
    memset(longest, 'a', sizeof longest);
    longest[STORAGE_NAME_LIMIT] = '\0';
    assert_true(storage_name_valid(longest));
    longest[STORAGE_NAME_LIMIT] = 'a';
    longest[STORAGE_NAME_LIMIT + 1] = '\0';
    assert_false(storage_name_valid(longest));
    static const char *const GOOD[] = {"a", "a/b", "A-Z_0.9/x.y", "a.."};
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++)
        assert_true(storage_name_valid(GOOD[i]));
    static const char *const BAD[] = {"",     "/",  "/a",   "a/",  "a//b", ".",    "..",    "a/..",
                                      "../a", ".a", "a/.b", "a b", "a\n",  "a\\b", "a\xc3", "a*"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
        assert_false(storage_name_valid(BAD[i]));
    CairnError err = {0};
    Fixture *fixture = *state;
    assert_false(storage_put(fixture->storage, "../x", "", 0, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
}

static void
test_what_was_put_is_got(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    const mode_t umask_before = umask(077);
    put(fixture, "c/main/w/seg", "hello");
    put(fixture, "c/empty", "");
    umask(umask_before);
    assert_object(fixture, "c/main/w/seg", "hello");
    assert_object(fixture, "c/empty", "");

    uint64_t size;
    assert_true(storage_exists(fixture->storage, "c/main/w/seg", &size, &err));
    assert_int_equal(size, 5);
    struct stat status;
    assert_int_equal(stat(scratch_path(fixture->root, "c/main/w/seg"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0640);
    assert_int_equal(status.st_nlink, 1);
    assert_int_equal(stat(scratch_path(fixture->root, "c/main"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0750);

    size_t ignored;
    assert_null(storage_get(fixture->storage, "c/main/w/seg", 4, &ignored, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    cairn_error_clear(&err);
    SCOPED(StorageReader) reader = storage_open(fixture->storage, "c/main/w/seg", &err);
    char data[8];
    assert_true(storage_pread(reader, data, 2, 3, &err));
    assert_memory_equal(data, "lo", 2);
    assert_false(storage_pread(reader, data, 3, 3, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_absence_is_not_found(void **state)
{
    Fixture *fixture = *state;
    static const char *const NAMES[] = {"x", "no/such/x"};
    for (size_t i = 0; i < 2; i++) {
        CairnError err = {0};
        uint64_t size;
        assert_null(storage_open(fixture->storage, NAMES[i], &err));
        assert_int_equal(err.kind, CAIRN_NOT_FOUND);
        cairn_error_clear(&err);
        assert_false(storage_exists(fixture->storage, NAMES[i], &size, &err));
        assert_int_equal(err.kind, CAIRN_NOT_FOUND);
        cairn_error_clear(&err);
        assert_true(storage_remove(fixture->storage, NAMES[i], &err));
    }
    assert_int_equal(count_listed(fixture, "no/such"), 0);
    CairnError err = {0};
    assert_null(posix_storage_open(world_real(), "/nonexistent/repository", false, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

static void
test_nothing_is_ever_overwritten(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    put(fixture, "a/x", "first");
    assert_false(storage_put(fixture->storage, "a/x", "second", 6, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    assert_object(fixture, "a/x", "first");
    assert_int_equal(count_on_disk(fixture, "a"), 1);
}

static void
test_of_two_writers_the_first_commit_wins(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    SCOPED(StorageWriter) one = storage_create(fixture->storage, "a/x", &err);
    SCOPED(StorageWriter) two = storage_create(fixture->storage, "a/x", &err);
    assert_true(storage_write(one, "one", 3, &err));
    assert_true(storage_write(two, "two", 3, &err));
    uint64_t size;
    assert_false(storage_exists(fixture->storage, "a/x", &size, &err));
    cairn_error_clear(&err);
    assert_true(storage_commit(two, &err));
    assert_false(storage_commit(one, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    assert_object(fixture, "a/x", "two");
}

static void
test_an_abandoned_writer_leaves_nothing(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    StorageWriter *writer = storage_create(fixture->storage, "a/x", &err);
    assert_true(storage_write(writer, "one", 3, &err));
    assert_int_equal(count_on_disk(fixture, "a"), 1);
    assert_int_equal(count_listed(fixture, "a"), 0);
    storage_writer_free(writer);
    assert_int_equal(count_on_disk(fixture, "a"), 0);
}

static void
test_commit_syncs_the_file_then_links_then_syncs_the_directory(void **state)
{
    Fixture *fixture = *state;
    put(fixture, "a/y", "make the directory");
    fault_disk_reset(&fixture->disk);
    put(fixture, "a/x", "data");
    assert_true(fault_disk_order(&fixture->disk, FAULT_WRITE, FAULT_FSYNC));
    assert_true(fault_disk_order(&fixture->disk, FAULT_FSYNC, FAULT_LINK));
    assert_true(fault_disk_order(&fixture->disk, FAULT_LINK, FAULT_FSYNC_DIRECTORY));
    assert_int_equal(fixture->disk.calls[FAULT_MKDIR], 0);
    assert_int_equal(fixture->disk.calls[FAULT_FSYNC], 1);
    assert_int_equal(fixture->disk.calls[FAULT_FSYNC_DIRECTORY], 1);
    assert_int_equal(fixture->disk.calls[FAULT_RENAME], 0);
}

static void
test_each_new_directory_is_synced_into_its_parent(void **state)
{
    Fixture *fixture = *state;
    put(fixture, "c/main/b/x", "data");
    assert_int_equal(fixture->disk.calls[FAULT_MKDIR], 3);
    assert_int_equal(fixture->disk.calls[FAULT_FSYNC_DIRECTORY], 4);
}

/* Its maker died before the directory above was synced: whoever finds it must not rely on it. */
static void
test_a_directory_that_another_made_is_synced_by_who_finds_it(void **state)
{
    Fixture *fixture = *state;
    for (unsigned call = 1; call <= 3; call++) {
        char name[32];
        CairnError err = {0};
        snprintf(name, sizeof name, "d%u/e/f/x", call);
        fault_disk_reset(&fixture->disk);
        fixture->disk.fail[FAULT_FSYNC_DIRECTORY] = (Fault){.at_call = call, .error = EIO};
        assert_false(storage_put(fixture->storage, name, "data", 4, &err));

        /* What is not synced yet, down to the object, and the object's own directory. */
        fault_disk_reset(&fixture->disk);
        put(fixture, name, "data");
        assert_int_equal(fixture->disk.calls[FAULT_FSYNC_DIRECTORY], 3 - (call - 1) + 1);

        /* Once, not for ever. */
        fault_disk_reset(&fixture->disk);
        name[strlen(name) - 1] = 'y';
        put(fixture, name, "data");
        assert_int_equal(fixture->disk.calls[FAULT_FSYNC_DIRECTORY], 1);
    }
}

static void
test_a_directory_whose_maker_died_in_between_is_found_fresh(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    fixture->disk.fail[FAULT_FCHMOD] = (Fault){.at_call = 1, .error = EIO};
    assert_false(storage_put(fixture->storage, "a/x", "data", 4, &err));
    fault_disk_reset(&fixture->disk);
    put(fixture, "a/x", "data");
    assert_int_equal(fixture->disk.calls[FAULT_FSYNC_DIRECTORY], 2);
    assert_int_equal(fixture->disk.calls[FAULT_MKDIR], 0);
}

static void
test_nothing_is_published_where_the_repository_is_no_longer(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    char away[PATH_MAX];
    put(fixture, "a/y", "make the directory");
    SCOPED(StorageWriter) writer = storage_create(fixture->storage, "a/x", &err);
    assert_non_null(writer);
    assert_true(storage_write(writer, "data", 4, &err));
    snprintf(away, sizeof away, "%s.away", fixture->root);
    assert_int_equal(rename(fixture->root, away), 0);
    assert_false(storage_commit(writer, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    assert_int_equal(rename(away, fixture->root), 0);
    cairn_error_clear(&err);
    put(fixture, "a/x", "data");
}

static void
test_any_failure_before_the_link_leaves_nothing(void **state)
{
    Fixture *fixture = *state;
    static const struct {
        FaultKind kind;
        int error;
        CairnErrorKind expected;
    } CASES[] = {
        {FAULT_WRITE, ENOSPC, CAIRN_NO_SPACE}, {FAULT_WRITE, EIO, CAIRN_IO},
        {FAULT_FSYNC, EIO, CAIRN_IO},          {FAULT_FSYNC, ENOSPC, CAIRN_NO_SPACE},
        {FAULT_CLOSE, EDQUOT, CAIRN_NO_SPACE}, {FAULT_FCHMOD, EPERM, CAIRN_DENIED},
        {FAULT_LINK, EIO, CAIRN_IO},           {FAULT_LINK, ENOSPC, CAIRN_NO_SPACE},
        {FAULT_OPEN, EACCES, CAIRN_DENIED},
    };
    put(fixture, "a/y", "make the directory");
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CairnError err = {0};
        fault_disk_reset(&fixture->disk);
        fixture->disk.fail[CASES[i].kind] = (Fault){.at_call = 1, .error = CASES[i].error};
        assert_false(storage_put(fixture->storage, "a/x", "data", 4, &err));
        assert_int_equal(err.kind, CASES[i].expected);
        assert_int_equal(count_on_disk(fixture, "a"), 1);
    }
}

static void
test_a_failed_write_or_sync_is_final(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    SCOPED(StorageWriter) writer = storage_create(fixture->storage, "a/x", &err);
    fault_disk_reset(&fixture->disk);
    fixture->disk.fail[FAULT_WRITE] = (Fault){.at_call = 1, .error = EIO};
    assert_false(storage_write(writer, "data", 4, &err));
    cairn_error_clear(&err);
    assert_false(storage_write(writer, "data", 4, &err));
    assert_int_equal(err.kind, CAIRN_INTERNAL);
    cairn_error_clear(&err);
    assert_false(storage_commit(writer, &err));
    assert_int_equal(err.kind, CAIRN_INTERNAL);
    assert_int_equal(fixture->disk.calls[FAULT_LINK], 0);

    cairn_error_clear(&err);
    SCOPED(StorageWriter) other = storage_create(fixture->storage, "a/x", &err);
    fault_disk_reset(&fixture->disk);
    fixture->disk.fail[FAULT_FSYNC] = (Fault){.at_call = 1, .error = EIO};
    assert_false(storage_commit(other, &err));
    cairn_error_clear(&err);
    assert_false(storage_commit(other, &err));
    assert_int_equal(fixture->disk.calls[FAULT_FSYNC], 1); /* never asked again */
}

static void
test_an_unsynced_directory_is_no_success(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    put(fixture, "a/y", "make the directory");
    fault_disk_reset(&fixture->disk);
    fixture->disk.fail[FAULT_FSYNC_DIRECTORY] = (Fault){.at_call = 1, .error = EIO};
    assert_false(storage_put(fixture->storage, "a/x", "data", 4, &err));
    assert_int_equal(err.kind, CAIRN_IO);
    /* It may be there, whole; a second attempt finds it and makes it durable. */
    cairn_error_clear(&err);
    assert_object(fixture, "a/x", "data");
    fault_disk_reset(&fixture->disk);
    assert_true(storage_make_durable(fixture->storage, "a/x", &err));
    assert_int_equal(fixture->disk.calls[FAULT_FSYNC], 1);
    assert_int_equal(fixture->disk.calls[FAULT_FSYNC_DIRECTORY], 2); /* a and the root */
}

static void
test_a_link_whose_reply_was_lost_is_ours(void **state)
{
    Fixture *fixture = *state;
    fixture->disk.fail[FAULT_LINK] = (Fault){.at_call = 1, .error = EEXIST, .after = true};
    put(fixture, "a/x", "data");
    assert_object(fixture, "a/x", "data");
    assert_int_equal(count_on_disk(fixture, "a"), 1);
}

static void
test_short_writes_make_whole_objects(void **state)
{
    Fixture *fixture = *state;
    fixture->disk.transfer_limit = 3;
    fixture->disk.interrupt = true;
    put(fixture, "a/x", "a text of some length");
    assert_object(fixture, "a/x", "a text of some length");
}

static void
test_writeback_starts_early_and_may_fail(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    enum { PIECE = 1 << 20 };
    SCOPED_MEMORY uint8_t *data = calloc(1, PIECE);
    SCOPED(StorageWriter) writer = storage_create(fixture->storage, "a/x", &err);
    fixture->disk.fail[FAULT_WRITEBACK] = (Fault){.at_call = 1, .error = ENOSYS};
    for (int i = 0; i < 20; i++)
        assert_true(storage_write(writer, data, PIECE, &err));
    assert_int_equal(fixture->disk.calls[FAULT_WRITEBACK], 2);
}

static void
test_leftovers_of_a_crash_are_never_listed_and_are_swept(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    put(fixture, "a/x", "data");
    /* What a killed writer leaves, and what only looks like it. */
    static const char *const NAMES[] = {"a/.y.0123456789abcdef.tmp", "a/.y.0123.tmp",
                                        "a/.y.0123456789abcdeX.tmp", "a/.nfs0001"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        fclose(fopen(scratch_path(fixture->root, NAMES[i]), "w"));
    assert_int_equal(count_listed(fixture, "a"), 1);

    assert_true(storage_sweep(fixture->storage, "a", 0, &err)); /* nothing is that old */
    assert_int_equal(count_on_disk(fixture, "a"), 5);
    assert_true(storage_sweep(fixture->storage, "a", INT64_MAX, &err));
    assert_int_equal(count_on_disk(fixture, "a"), 4);
    assert_int_equal(access(scratch_path(fixture->root, NAMES[0]), F_OK), -1);
    assert_object(fixture, "a/x", "data");
    assert_true(storage_sweep(fixture->storage, "no/such", INT64_MAX, &err));
}

static void
test_only_regular_files_are_objects(void **state)
{
    Fixture *fixture = *state;
    put(fixture, "a/real", "data");
    assert_int_equal(mkfifo(scratch_path(fixture->root, "a/fifo"), 0600), 0);
    assert_int_equal(symlink("real", scratch_path(fixture->root, "a/link")), 0);
    assert_int_equal(symlink("a", scratch_path(fixture->root, "linked")), 0);
    assert_int_equal(mkdir(scratch_path(fixture->root, "a/dir"), 0700), 0);
    static const char *const NAMES[] = {"a/fifo", "a/link", "a/dir", "linked/real", "a/real/x"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        CairnError err = {0};
        assert_null(storage_open(fixture->storage, NAMES[i], &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
    CairnError err = {0};
    assert_false(storage_put(fixture->storage, "linked/new", "x", 1, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    cairn_error_clear(&err);
    assert_false(storage_put(fixture->storage, "a/link", "x", 1, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    assert_object(fixture, "a/real", "data");
    assert_int_equal(count_listed(fixture, "a"), 2); /* real and dir */
}

static void
test_a_listing_cut_short_is_an_error(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    unsigned count = 0;
    put(fixture, "a/x", "data");
    fixture->disk.calls[FAULT_READDIR] = 0;
    fixture->disk.fail[FAULT_READDIR] = (Fault){.at_call = 2, .error = EIO};
    assert_false(storage_list(fixture->storage, "a", count_entry, &count, &err));
    assert_int_equal(err.kind, CAIRN_IO);
}

static StorageListNext
stop_or_fail(void *context, const StorageEntry *entry, CairnError *err)
{
    const char *want = context;
    assert_int_equal(entry->size_bytes, entry->is_directory ? 0 : 4);
    if (strcmp(want, "stop") == 0)
        return STORAGE_LIST_STOP;
    cairn_error(err, CAIRN_CORRUPT, "from the callback");
    return STORAGE_LIST_FAILED;
}

/* Whose name was read before it was removed, and looked at afterwards. */
static void
test_what_goes_during_a_listing_is_told_to_who_asks(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    unsigned count = 0, gone = 0;

    put(fixture, "a/one", "1");
    put(fixture, "a/two", "2");
    fault_disk_reset(&fixture->disk);
    fixture->disk.fail[FAULT_FSTAT] = (Fault){.at_call = 1, .error = ENOENT};
    assert_true(storage_list(fixture->storage, "a", count_entry, &count, &err));
    assert_int_equal(count, 1);
    fault_disk_reset(&fixture->disk);
    fixture->disk.fail[FAULT_FSTAT] = (Fault){.at_call = 1, .error = ENOENT};
    assert_true(storage_list_with_gone(fixture->storage, "a", count_gone, &gone, &err));
    assert_int_equal(gone, 1);
    fault_disk_reset(&fixture->disk);
    fixture->disk.fail[FAULT_FSTAT] = (Fault){.at_call = 1, .error = EIO};
    assert_false(storage_list_with_gone(fixture->storage, "a", count_gone, &gone, &err));
    assert_int_equal(err.kind, CAIRN_IO);
}

static void
test_a_callback_may_stop_or_fail_a_listing(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    char stop[] = "stop";
    char failing[] = "fail";
    put(fixture, "a/x", "data");
    put(fixture, "a/y/z", "data");
    assert_true(storage_list(fixture->storage, "a", stop_or_fail, stop, &err));
    assert_false(storage_list(fixture->storage, "a", stop_or_fail, failing, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_string_equal(err.message, "from the callback");
}

static void
test_remove_is_durable_and_may_be_repeated(void **state)
{
    Fixture *fixture = *state;
    CairnError err = {0};
    put(fixture, "a/x", "data");
    fault_disk_reset(&fixture->disk);
    assert_true(storage_remove(fixture->storage, "a/x", &err));
    assert_true(fault_disk_order(&fixture->disk, FAULT_UNLINK, FAULT_FSYNC_DIRECTORY));
    assert_true(storage_remove(fixture->storage, "a/x", &err));
    assert_int_equal(count_on_disk(fixture, "a"), 0);
    uint64_t bytes;
    assert_true(storage_free_space(fixture->storage, &bytes, &err));
    assert_true(bytes > 0);
}

#define STORAGE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        STORAGE_TEST(test_names_keep_to_their_alphabet),
        STORAGE_TEST(test_what_was_put_is_got),
        STORAGE_TEST(test_absence_is_not_found),
        STORAGE_TEST(test_nothing_is_ever_overwritten),
        STORAGE_TEST(test_of_two_writers_the_first_commit_wins),
        STORAGE_TEST(test_an_abandoned_writer_leaves_nothing),
        STORAGE_TEST(test_commit_syncs_the_file_then_links_then_syncs_the_directory),
        STORAGE_TEST(test_each_new_directory_is_synced_into_its_parent),
        STORAGE_TEST(test_a_directory_that_another_made_is_synced_by_who_finds_it),
        STORAGE_TEST(test_a_directory_whose_maker_died_in_between_is_found_fresh),
        STORAGE_TEST(test_nothing_is_published_where_the_repository_is_no_longer),
        STORAGE_TEST(test_any_failure_before_the_link_leaves_nothing),
        STORAGE_TEST(test_a_failed_write_or_sync_is_final),
        STORAGE_TEST(test_an_unsynced_directory_is_no_success),
        STORAGE_TEST(test_a_link_whose_reply_was_lost_is_ours),
        STORAGE_TEST(test_short_writes_make_whole_objects),
        STORAGE_TEST(test_writeback_starts_early_and_may_fail),
        STORAGE_TEST(test_leftovers_of_a_crash_are_never_listed_and_are_swept),
        STORAGE_TEST(test_only_regular_files_are_objects),
        STORAGE_TEST(test_a_listing_cut_short_is_an_error),
        STORAGE_TEST(test_what_goes_during_a_listing_is_told_to_who_asks),
        STORAGE_TEST(test_a_callback_may_stop_or_fail_a_listing),
        STORAGE_TEST(test_remove_is_durable_and_may_be_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
