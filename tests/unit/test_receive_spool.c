#include "walarchive/receive_spool.h"

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
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1 << 20, SEGMENT = 5 };

typedef struct {
    WalFixture wal;
    ReceiveSpool spool;
    uint8_t *segment;
} Lab;

static int
setup(void **state)
{
    static Lab lab;
    CairnError err = {0};

    wal_fixture_open(&lab.wal, MIB);
    lab.segment = wal_fixture_segment(&lab.wal, 1, SEGMENT);
    assert_true(receive_spool_open(&lab.wal.disk.world, lab.wal.root, "main", &lab.wal.incarnation,
                                   &lab.spool, &err));
    *state = &lab;
    return 0;
}

static int
teardown(void **state)
{
    Lab *lab = *state;

    receive_spool_close(&lab->spool);
    free(lab->segment);
    wal_fixture_close(&lab->wal);
    return 0;
}

/* As a crash leaves it: so many bytes of the segment, then others. */
static void
leave_part(Lab *lab, size_t size, size_t garbage)
{
    char path[PATH_MAX + 64];
    uint8_t rubbish[10000];

    assert_true(garbage <= sizeof rubbish);
    memset(rubbish, 0xa5, sizeof rubbish);
    snprintf(path, sizeof path, "%s/000000010000000000000005.part", lab->spool.path);
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, lab->segment, size, 0), size);
    assert_int_equal(pwrite(fd, rubbish, garbage, (off_t)size), garbage);
    close(fd);
}

static uint32_t
resumed_size(Lab *lab)
{
    CairnError err = {0};

    assert_true(receive_spool_begin(&lab->spool, 1, SEGMENT, &err));
    return lab->spool.size;
}

static void
test_a_segment_is_written_in_pieces_and_gets_its_name_when_whole(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    SCOPED_MEMORY ReceiveFile *files = NULL;
    size_t count = 0;

    assert_int_equal(resumed_size(lab), 0);
    for (size_t at = 0; at < MIB; at += 65536)
        assert_true(receive_spool_write(&lab->spool, lab->segment + at, 65536, &err));
    fault_disk_reset(&lab->wal.disk);
    assert_true(receive_spool_finish(&lab->spool, &err));
    assert_true(fault_disk_order(&lab->wal.disk, FAULT_FSYNC, FAULT_RENAME));
    assert_true(fault_disk_order(&lab->wal.disk, FAULT_RENAME, FAULT_FSYNC_DIRECTORY));
    assert_true(receive_spool_list(&lab->spool, &files, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(files[0].kind, RECEIVE_SEGMENT);
    assert_int_equal(files[0].size, MIB);
    assert_string_equal(files[0].name, "000000010000000000000005");
}

static void
test_what_is_whole_of_a_part_is_kept(void **state)
{
    Lab *lab = *state;

    leave_part(lab, 500000, 0);
    const uint32_t size = resumed_size(lab);
    assert_true(size > 400000 && size <= 500000);
}

static void
test_an_empty_part_keeps_nothing_of_a_former_run(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    struct stat status;

    leave_part(lab, 500000, 0);
    fault_disk_reset(&lab->wal.disk);
    assert_true(receive_spool_begin_empty(&lab->spool, 1, SEGMENT, &err));
    assert_int_equal(lab->spool.size, 0);
    assert_int_equal(fstat(lab->spool.part_fd, &status), 0);
    assert_int_equal(status.st_size, 0);
    assert_true(fault_disk_order(&lab->wal.disk, FAULT_FSYNC, FAULT_FSYNC_DIRECTORY));
}

static void
test_a_segment_with_pages_of_elsewhere_gets_no_name(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    SCOPED_MEMORY ReceiveFile *files = NULL;
    size_t count = 0;

    /* As a stream does that goes on at another offset. */
    assert_int_equal(resumed_size(lab), 0);
    assert_true(receive_spool_write(&lab->spool, lab->segment, 65536, &err));
    assert_true(receive_spool_write(&lab->spool, lab->segment, MIB - 65536, &err));
    assert_false(receive_spool_finish(&lab->spool, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    cairn_error_clear(&err);
    assert_true(receive_spool_list(&lab->spool, &files, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(files[0].kind, RECEIVE_PART);

    /* The next run goes on from what is good. */
    assert_true(receive_spool_leave(&lab->spool, &err));
    const uint32_t size = resumed_size(lab);
    assert_true(size <= 65536 && size > 50000);
}

static void
test_zeros_behind_a_switch_are_pages(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    size_t used;
    SCOPED_MEMORY uint8_t *segment = wal_fixture_short_segment(&lab->wal, 1, SEGMENT, true, &used);

    assert_int_equal(resumed_size(lab), 0);
    assert_true(receive_spool_write(&lab->spool, segment, MIB, &err));
    assert_true(receive_spool_finish(&lab->spool, &err));
}

static void
test_a_torn_tail_is_cut(void **state)
{
    Lab *lab = *state;
    struct stat status;

    leave_part(lab, 500000, 0);
    const uint32_t whole = resumed_size(lab);
    CairnError err = {0};
    assert_true(receive_spool_leave(&lab->spool, &err));
    leave_part(lab, 500000, 9000);
    assert_int_equal(resumed_size(lab), whole);
    assert_int_equal(fstat(lab->spool.part_fd, &status), 0);
    assert_int_equal(status.st_size, whole);
}

static void
test_a_flipped_bit_ends_what_is_kept(void **state)
{
    Lab *lab = *state;

    lab->segment[300000] ^= 1;
    leave_part(lab, 500000, 0);
    assert_true(resumed_size(lab) <= 300000);
}

static void
test_a_failed_sync_is_an_error_and_nothing_counts_as_synced(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};

    assert_int_equal(resumed_size(lab), 0);
    assert_true(receive_spool_write(&lab->spool, lab->segment, 1000, &err));
    fault_disk_reset(&lab->wal.disk);
    lab->wal.disk.fail[FAULT_FSYNC] = (Fault){.at_call = 1, .error = EIO};
    assert_false(receive_spool_sync(&lab->spool, &err));
    assert_int_equal(err.kind, CAIRN_IO);
    assert_int_equal(lab->spool.synced, 0);

    /* Nothing calls it durable later, neither this process nor the next. */
    struct stat status;
    cairn_error_clear(&err);
    assert_false(receive_spool_sync(&lab->spool, &err));
    assert_int_equal(lab->wal.disk.calls[FAULT_FSYNC], 1);
    assert_int_equal(fstat(lab->spool.part_fd, &status), 0);
    assert_int_equal(status.st_size, 0);
}

static void
test_histories_come_before_segments_and_parts(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    SCOPED_MEMORY ReceiveFile *files = NULL;
    size_t count = 0;

    leave_part(lab, 1000, 0);
    assert_true(receive_spool_put_history(&lab->spool, 2, "1\t0/500000\tx\n", 13, &err));
    assert_true(receive_spool_list(&lab->spool, &files, &count, &err));
    assert_int_equal(count, 2);
    assert_int_equal(files[0].kind, RECEIVE_HISTORY);
    assert_int_equal(files[0].timeline, 2);
    assert_int_equal(files[1].kind, RECEIVE_PART);
}

static void
test_a_listing_cut_short_is_no_listing(void **state)
{
    Lab *lab = *state;
    FaultDisk *disk = &lab->wal.disk;
    CairnError err = {0};
    ReceiveFile *files = NULL;
    size_t count = 0;

    leave_part(lab, 1000, 0);
    disk->fail[FAULT_READDIR] = (Fault){.at_call = 2, .error = EIO};
    assert_false(receive_spool_list(&lab->spool, &files, &count, &err));
    assert_int_equal(err.kind, CAIRN_IO);
    assert_non_null(strstr(err.message, "unable to list"));
    cairn_error_clear(&err);
    disk->fail[FAULT_FSTAT] = (Fault){.at_call = 1, .error = EIO};
    assert_false(receive_spool_list(&lab->spool, &files, &count, &err));
    assert_int_equal(err.kind, CAIRN_IO);
}

static void
test_a_second_receiver_is_refused(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    ReceiveSpool other;

    assert_false(receive_spool_open(&lab->wal.disk.world, lab->wal.root, "main",
                                    &lab->wal.incarnation, &other, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
}

static void
test_a_closed_spool_can_be_opened_again(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};

    receive_spool_close(&lab->spool);
    assert_true(receive_spool_open(&lab->wal.disk.world, lab->wal.root, "main",
                                   &lab->wal.incarnation, &lab->spool, &err));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_a_segment_is_written_in_pieces_and_gets_its_name_when_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_whole_of_a_part_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_empty_part_keeps_nothing_of_a_former_run, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_with_pages_of_elsewhere_gets_no_name, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_zeros_behind_a_switch_are_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_torn_tail_is_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_flipped_bit_ends_what_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_sync_is_an_error_and_nothing_counts_as_synced,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_histories_come_before_segments_and_parts, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_listing_cut_short_is_no_listing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_second_receiver_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_closed_spool_can_be_opened_again, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
