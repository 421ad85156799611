/* The archiving thread on a real spool and repository; what the thread of control does meanwhile is
   put into the state that both share. */
#include "walarchive/receive_intern.h"

#include "common/cancel.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, SEGMENT = 5, PART_SIZE = 100000 };

typedef struct {
    WalFixture wal;
    ClusterConfig cluster;
    RepositoryConfig repository;
    const RepositoryConfig *repositories[1];
    ReceiveOptions options;
    Receive receive;
    uint8_t *segment;
} Lab;

static int
setup(void **state)
{
    static Lab lab;
    CairnError err = {0};

    memset(&lab, 0, sizeof lab);
    wal_fixture_open(&lab.wal, MIB);
    lab.segment = wal_fixture_segment(&lab.wal, 1, SEGMENT);
    lab.cluster.name = "main";
    lab.repository = (RepositoryConfig){.name = "main", .path = lab.wal.root, .encryption = "none"};
    lab.repositories[0] = &lab.repository;
    lab.options = (ReceiveOptions){.cluster = &lab.cluster,
                                   .repositories = lab.repositories,
                                   .repository_count = 1,
                                   .tail_interval_ms = 3600 * 1000,
                                   .spool_limit_bytes = (uint64_t)64 * MIB};
    Receive *receive = &lab.receive;
    receive->world = &lab.wal.disk.world;
    receive->options = &lab.options;
    receive->incarnation = lab.wal.incarnation;
    assert_true(receive_spool_open(receive->world, lab.wal.root, "main", &receive->incarnation,
                                   &receive->spool, &err));
    receive->archiver.notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_true(receive->archiver.notify_fd >= 0);
    assert_int_equal(pthread_mutex_init(&receive->archiver.lock, NULL), 0);
    pthread_condattr_t attributes;
    assert_int_equal(pthread_condattr_init(&attributes), 0);
    assert_int_equal(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC), 0);
    assert_int_equal(pthread_cond_init(&receive->archiver.wake, &attributes), 0);
    pthread_condattr_destroy(&attributes);
    *state = &lab;
    return 0;
}

static int
teardown(void **state)
{
    Lab *lab = *state;

    close(lab->receive.archiver.notify_fd);
    pthread_cond_destroy(&lab->receive.archiver.wake);
    pthread_mutex_destroy(&lab->receive.archiver.lock);
    receive_spool_close(&lab->receive.spool);
    free(lab->segment);
    wal_fixture_close(&lab->wal);
    return 0;
}

static void
put_part(Lab *lab)
{
    CairnError err = {0};
    ReceiveSpool *spool = &lab->receive.spool;

    assert_true(receive_spool_begin(spool, 1, SEGMENT, &err));
    assert_true(receive_spool_write(spool, lab->segment, PART_SIZE, &err));
    assert_true(receive_spool_leave(spool, &err));
}

static void
put_segment(Lab *lab, uint64_t segment)
{
    CairnError err = {0};
    ReceiveSpool *spool = &lab->receive.spool;
    SCOPED_MEMORY uint8_t *data = wal_fixture_segment(&lab->wal, 1, segment);

    assert_true(receive_spool_begin(spool, 1, segment, &err));
    assert_true(receive_spool_write(spool, data, MIB, &err));
    assert_true(receive_spool_finish(spool, &err));
}

/* The part of SEGMENT is what the stream is at. */
static void
begin_part(Lab *lab)
{
    put_part(lab);
    archiver_open_part(&lab->receive, 1, SEGMENT);
    archiver_begin_timeline(&lab->receive, (Position){1, (uint64_t)SEGMENT * MIB + PART_SIZE});
}

/* The thread's last round looks at all that is there. */
static void
archive_everything(Lab *lab)
{
    CairnError err = {0};

    assert_true(archiver_start(&lab->receive, &err));
    archiver_stop(&lab->receive);
    assert_false(lab->receive.archiver.failed);
}

static size_t
spool_files(Lab *lab)
{
    CairnError err = {0};
    SCOPED_MEMORY ReceiveFile *files = NULL;
    size_t count = 0;

    assert_true(receive_spool_list(&lab->receive.spool, &files, &count, &err));
    return count;
}

static size_t
stored_pieces(Lab *lab)
{
    CairnError err = {0};
    SCOPED_MEMORY WalPieceName *names = NULL;
    size_t count = 0;

    assert_true(wal_piece_list(lab->wal.store, 1, SEGMENT, &names, &count, &err));
    return count;
}

static void
test_a_left_part_becomes_pieces_and_goes(void **state)
{
    Lab *lab = *state;

    put_part(lab);
    lab->receive.archiver.part = (Position){.timeline = UINT32_MAX};
    archive_everything(lab);
    assert_int_equal(spool_files(lab), 0);
    assert_int_equal(stored_pieces(lab), 1);
}

/* What the thread was told is from before the connection, the part was begun since. */
static void
test_the_part_that_is_open_stays(void **state)
{
    Lab *lab = *state;

    put_part(lab);
    lab->receive.archiver.part = (Position){.timeline = UINT32_MAX};
    archiver_open_part(&lab->receive, 1, SEGMENT);
    archive_everything(lab);
    assert_int_equal(spool_files(lab), 1);
}

static void
test_what_is_stored_ahead_of_the_part_is_not_all_before_it(void **state)
{
    Lab *lab = *state;

    begin_part(lab);
    put_segment(lab, SEGMENT + 3);
    archive_everything(lab);
    assert_int_equal(spool_files(lab), 1);
    assert_int_equal(lab->receive.archiver.archived.lsn, (uint64_t)SEGMENT * MIB + PART_SIZE);
}

/* A crash came between the last byte and the name. */
static void
test_a_part_that_is_full_becomes_a_segment(void **state)
{
    Lab *lab = *state;
    CairnError err = {0};
    SCOPED_MEMORY ReceiveFile *files = NULL;
    size_t count = 0, used;
    ReceiveSpool *spool = &lab->receive.spool;
    SCOPED_MEMORY uint8_t *data = wal_fixture_short_segment(&lab->wal, 1, SEGMENT, true, &used);

    assert_true(receive_spool_begin(spool, 1, SEGMENT, &err));
    assert_true(receive_spool_write(spool, data, MIB, &err));
    assert_true(receive_spool_leave(spool, &err));
    assert_true(receive_open_part(&lab->receive, (Position){1, (uint64_t)SEGMENT * MIB}, &err));
    assert_int_equal(lab->receive.at.lsn, (uint64_t)(SEGMENT + 1) * MIB);
    assert_int_equal(lab->receive.archiver.open.lsn, (uint64_t)(SEGMENT + 1) * MIB);
    assert_int_equal(lab->receive.archiver.spool_bytes, MIB);
    assert_true(receive_spool_list(spool, &files, &count, &err));
    assert_int_equal(count, 2);
    assert_int_equal(files[0].kind, RECEIVE_SEGMENT);
    assert_int_equal(files[0].segment, SEGMENT);
}

static void
test_a_part_whose_sync_failed_is_not_shipped(void **state)
{
    Lab *lab = *state;

    begin_part(lab);
    archiver_forget_part(&lab->receive);
    archive_everything(lab);
    assert_int_equal(spool_files(lab), 1);
    assert_int_equal(stored_pieces(lab), 0);
}

/* A former run left one that nothing leads to. */
static void
test_a_piece_behind_a_hole_is_not_merged(void **state)
{
    enum { SHIPS = 40, STEP = 1000 };
    static Worker worker;
    Lab *lab = *state;
    CairnError err = {0};
    WalPieceName orphan;

    put_part(lab);
    char name[WAL_FILE_NAME_LIMIT];
    receive_spool_part_name(&lab->receive.spool, 1, SEGMENT, name);
    SCOPED_FD fd = receive_spool_open_file(&lab->receive.spool, name, &err);
    assert_true(wal_piece_put(lab->wal.store, 1, SEGMENT, fd, 90000, STEP, &orphan, &err));
    worker = (Worker){
        .receive = &lab->receive, .repository = lab->wal.repository, .store = lab->wal.store};
    for (uint32_t i = 1; i <= SHIPS; i++)
        assert_true(receive_ship(&worker, 1, SEGMENT, i * STEP, &err));
    assert_int_equal(stored_pieces(lab), 1 + 1 + SHIPS - 32);
    SCOPED(WalPieces) pieces = wal_pieces_open(lab->wal.store, 1, SEGMENT, &err);
    assert_non_null(pieces);
    assert_int_equal(wal_pieces_size(pieces), SHIPS * STEP);
}

/* The last test: a signal that has come is never forgotten. */
static void
test_after_a_signal_the_part_is_shipped_but_not_all_before_it(void **state)
{
    Lab *lab = *state;

    begin_part(lab);
    put_segment(lab, SEGMENT - 1);
    cancel_install();
    assert_int_equal(raise(SIGTERM), 0);
    archive_everything(lab);
    assert_int_equal(spool_files(lab), 2);
    assert_int_equal(stored_pieces(lab), 1);
    assert_int_equal(lab->receive.archiver.archived.lsn, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_left_part_becomes_pieces_and_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_part_that_is_open_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_stored_ahead_of_the_part_is_not_all_before_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_part_that_is_full_becomes_a_segment, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_part_whose_sync_failed_is_not_shipped, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_piece_behind_a_hole_is_not_merged, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_after_a_signal_the_part_is_shipped_but_not_all_before_it, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
