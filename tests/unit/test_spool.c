#include "walarchive/spool.h"

#include "tests/unit/support/scratch.h"
#include "walarchive/ready_list.h"
#include "walarchive/spool_lock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT "000000010000000000000005"

static const uint8_t repository_id_a[REPOSITORY_ID_SIZE] = {1, 2, 3};
static const uint8_t repository_id_b[REPOSITORY_ID_SIZE] = {1, 2, 4};
static const Incarnation incarnation_a = {.system_id = 77, .major = 15};
static const Incarnation incarnation_b = {.system_id = 78, .major = 15};
static const Incarnation incarnation_c = {.system_id = 77, .major = 16};
static const RepositoryConfig repository = {.name = "main", .path = "/somewhere"};

typedef struct {
    char root[256];
    int pgdata_fd;
    Spool *spool;
} Fixture;

static Spool *
open_spool(const Fixture *fixture, const char *cluster, CairnError *err)
{
    const SpoolPlace place = {.path = fixture->root,
                              .repository = &repository,
                              .cluster = cluster,
                              .pgdata_fd = fixture->pgdata_fd};
    return spool_open(world_real(), &place, err);
}

static int
setup(void **state)
{
    static Fixture fixture;
    char pgdata[512];
    CairnError err = {0};

    snprintf(fixture.root, sizeof fixture.root, "%s/spool", scratch_directory());
    snprintf(pgdata, sizeof pgdata, "%s/data", scratch_directory());
    mkdir(pgdata, 0700);
    fixture.pgdata_fd = open(pgdata, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fixture.pgdata_fd >= 0);
    fixture.spool = open_spool(&fixture, "main", &err);
    assert_non_null(fixture.spool);
    *state = &fixture;
    return 0;
}

static int
teardown(void **state)
{
    Fixture *fixture = *state;

    spool_free(fixture->spool);
    close(fixture->pgdata_fd);
    return 0;
}

static SpoolClaim
claim(void)
{
    return (SpoolClaim){
        .repository_id = repository_id_a,
        .cluster = "main",
        .incarnation = &incarnation_a,
        .file_name = SEGMENT,
        .file = {.size = 1 << 20,
                 .device = 3,
                 .inode = 4,
                 .modified_ns = 5000000001,
                 .changed_ns = 6000000001,
                 .page_crc = 0xabcdef},
        .mark = {.device = 7, .inode = 8, .changed_ns = 9},
        .object_size = 4711,
    };
}

static void
test_what_is_remembered_is_remembered_and_nothing_else(void **state)
{
    const Fixture *fixture = *state;
    const SpoolClaim same = claim();
    CairnError err = {0};

    assert_false(spool_remembers(fixture->spool, &same));
    assert_true(spool_remember(fixture->spool, &same, &err));
    assert_true(spool_remembers(fixture->spool, &same));
    assert_true(spool_has(fixture->spool, SEGMENT));

    SpoolClaim others[15];
    const size_t count = sizeof others / sizeof others[0];
    for (size_t i = 0; i < count; i++)
        others[i] = same;
    others[0].repository_id = repository_id_b;
    others[1].cluster = "main2";
    others[2].incarnation = &incarnation_b;
    others[3].incarnation = &incarnation_c;
    others[4].file_name = "000000010000000000000006";
    others[5].file.size++;
    others[6].file.device++;
    others[7].file.inode++;
    others[8].file.modified_ns++;
    others[9].file.changed_ns++;
    others[10].file.page_crc++;
    others[11].file_name = SEGMENT ".partial";
    others[12].mark.device++;
    others[13].mark.inode++;
    others[14].mark.changed_ns++;
    for (size_t i = 0; i < count; i++)
        assert_false(spool_remembers(fixture->spool, &others[i]));
    /* Recalled is the same of whatever repository, but only for a while. */
    const int64_t minute_us = 60000000;
    uint64_t object_size = 0;
    assert_true(spool_recalls(fixture->spool, &same, minute_us, &object_size));
    assert_int_equal(object_size, same.object_size);
    assert_false(spool_recalls(fixture->spool, &same, -1, &object_size));
    assert_true(spool_recalls(fixture->spool, &others[0], minute_us, &object_size));
    SpoolClaim unasked = same; /* as who recalls has it: nothing of the repository */
    unasked.repository_id = NULL;
    unasked.object_size = 0;
    object_size = 0;
    assert_true(spool_recalls(fixture->spool, &unasked, minute_us, &object_size));
    assert_int_equal(object_size, same.object_size);
    for (size_t i = 1; i < count; i++)
        assert_false(spool_recalls(fixture->spool, &others[i], minute_us, &object_size));
}

/* Path of the .ok below the root; in a static buffer. */
static const char *
record_path(const Fixture *fixture)
{
    static char path[1024];
    char command[600];

    snprintf(command, sizeof command, "ls %s/main-*/" SEGMENT ".ok", fixture->root);
    FILE *list = popen(command, "r");
    assert_non_null(list);
    assert_non_null(fgets(path, sizeof path, list));
    pclose(list);
    path[strcspn(path, "\n")] = '\0';
    return path;
}

static void
test_any_damage_of_a_record_makes_it_unbelievable(void **state)
{
    const Fixture *fixture = *state;
    const SpoolClaim same = claim();
    CairnError err = {0};
    char content[2048];

    assert_true(spool_remember(fixture->spool, &same, &err));
    const char *path = record_path(fixture);
    SCOPED_FD fd = open(path, O_RDWR | O_CLOEXEC);
    const ssize_t size = read(fd, content, sizeof content);
    assert_true(size > 100);
    for (ssize_t at = 0; at < size; at++) {
        const char changed = (char)(content[at] ^ 1);
        assert_int_equal(pwrite(fd, &changed, 1, at), 1);
        assert_false(spool_remembers(fixture->spool, &same));
        assert_int_equal(pwrite(fd, &content[at], 1, at), 1);
    }
    assert_true(spool_remembers(fixture->spool, &same));
    for (ssize_t cut = 0; cut < size; cut++) {
        assert_int_equal(ftruncate(fd, cut), 0);
        assert_false(spool_remembers(fixture->spool, &same));
        assert_int_equal(pwrite(fd, content, (size_t)size, 0), size);
    }
    assert_int_equal(pwrite(fd, content, 10, size), 10);
    assert_false(spool_remembers(fixture->spool, &same));
    assert_int_equal(ftruncate(fd, 100 << 20), 0);
    assert_false(spool_remembers(fixture->spool, &same));
}

static void
test_two_clusters_have_two_spools(void **state)
{
    const Fixture *fixture = *state;
    SpoolClaim same = claim();
    CairnError err = {0};
    SCOPED(Spool) other = open_spool(fixture, "other", &err);

    assert_non_null(other);
    assert_true(spool_remember(fixture->spool, &same, &err));
    assert_false(spool_remembers(other, &same));
    assert_false(spool_has(other, SEGMENT));
}

static void
test_a_directory_that_others_can_write_to_is_no_spool(void **state)
{
    const Fixture *fixture = *state;
    char command[600];
    CairnError err = {0};

    snprintf(command, sizeof command, "chmod g+w %s/main-*", fixture->root);
    assert_int_equal(system(command), 0);
    assert_null(open_spool(fixture, "main", &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    snprintf(command, sizeof command, "chmod g-w %s/main-*", fixture->root);
    assert_int_equal(system(command), 0);
}

static void
test_a_name_is_locked_for_threads_of_one_process_too(void **state)
{
    const Fixture *fixture = *state;
    CairnError err = {0};
    SpoolLock first, second, other, batch;

    assert_true(spool_lock_try(fixture->spool, SEGMENT, &first, &err));
    assert_false(spool_lock_try(fixture->spool, SEGMENT, &second, &err));
    assert_int_equal(err.kind, CAIRN_OK);
    assert_true(spool_lock_try(fixture->spool, "00000002.history", &other, &err));
    assert_true(spool_lock_try(fixture->spool, NULL, &batch, &err));
    spool_unlock(&first);
    assert_true(spool_lock_try(fixture->spool, SEGMENT, &second, &err));
    spool_unlock(&second);
    spool_unlock(&other);
    spool_unlock(&batch);
}

static void
test_a_failure_is_told_once(void **state)
{
    const Fixture *fixture = *state;
    const CairnError failure = {.kind = CAIRN_IO, .message = "two\nlines"};
    char text[512];

    spool_note_failure(fixture->spool, SEGMENT, &failure);
    spool_take_failure(fixture->spool, SEGMENT, text, sizeof text);
    assert_string_equal(text, "two lines");
    spool_take_failure(fixture->spool, SEGMENT, text, sizeof text);
    assert_string_equal(text, "");
}

static bool
keep_six(void *context, const char *file_name)
{
    (void)context;
    return strcmp(file_name, "000000010000000000000006") == 0;
}

static void
test_the_sweep_takes_only_what_need_not_be_kept(void **state)
{
    const Fixture *fixture = *state;
    SpoolClaim five = claim();
    SpoolClaim six = claim();
    CairnError err = {0};

    six.file_name = "000000010000000000000006";
    assert_true(spool_remember(fixture->spool, &five, &err));
    assert_true(spool_remember(fixture->spool, &six, &err));
    spool_sweep(fixture->spool, keep_six, NULL);
    assert_false(spool_has(fixture->spool, SEGMENT));
    assert_true(spool_remembers(fixture->spool, &six));
}

static void
test_a_file_that_was_written_just_now_is_not_settled(void **state)
{
    (void)state;
    const World *world = world_real();
    const int64_t now_ns = world->clock->wall_us(world->clock) * 1000;
    const FileIdentity old = {.modified_ns = now_ns - 1000000000,
                              .changed_ns = now_ns - 1000000000};
    const FileIdentity young = {.modified_ns = now_ns - 1000000000, .changed_ns = now_ns};
    const FileIdentity future = {.modified_ns = now_ns + 3600 * INT64_C(1000000000)};

    assert_int_equal(file_identity_settles_ns(world, &old), 0);
    assert_true(file_identity_settles_ns(world, &young) <= 20000000);
    assert_true(file_identity_settles_ns(world, &future) < 0);
}

static void
make_ready(const Fixture *fixture, const char *name)
{
    char path[128];

    mkdirat(fixture->pgdata_fd, "pg_wal", 0700);
    mkdirat(fixture->pgdata_fd, "pg_wal/archive_status", 0700);
    snprintf(path, sizeof path, "pg_wal/archive_status/%s", name);
    SCOPED_FD fd = openat(fixture->pgdata_fd, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
}

static void
test_the_ready_come_in_the_servers_order_and_bounded(void **state)
{
    const Fixture *fixture = *state;
    static ReadyList list;
    CairnError err = {0};
    char name[64];

    for (unsigned i = 200; i > 0; i--) {
        snprintf(name, sizeof name, "0000000100000000000000%02X.ready", i);
        make_ready(fixture, name);
    }
    make_ready(fixture, "00000003.history.ready");
    make_ready(fixture, "00000002.history.ready");
    make_ready(fixture, "000000010000000000000004.done");
    make_ready(fixture, "000000010000000000000001.00000028.backup.ready");
    make_ready(fixture, "pg_control.ready");
    make_ready(fixture, "..ready");
    assert_true(ready_list_read(world_real(), fixture->pgdata_fd, &list, &err));
    assert_int_equal(list.count, READY_LIMIT);
    assert_int_equal(list.total, 203);
    assert_string_equal(list.names[0], "00000002.history");
    assert_string_equal(list.names[1], "00000003.history");
    assert_string_equal(list.names[2], "000000010000000000000001");
    assert_string_equal(list.names[3], "000000010000000000000001.00000028.backup");
    assert_string_equal(list.names[READY_LIMIT - 1], "00000001000000000000003D");
    assert_true(ready_list_holds(world_real(), fixture->pgdata_fd, "00000002.history"));
    assert_false(ready_list_holds(world_real(), fixture->pgdata_fd, "00000004.history"));
    assert_true(ready_list_has_other(world_real(), fixture->pgdata_fd, "00000002.history"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_remembered_is_remembered_and_nothing_else),
        TEST(test_any_damage_of_a_record_makes_it_unbelievable),
        TEST(test_two_clusters_have_two_spools),
        TEST(test_a_directory_that_others_can_write_to_is_no_spool),
        TEST(test_a_name_is_locked_for_threads_of_one_process_too),
        TEST(test_a_failure_is_told_once),
        TEST(test_the_sweep_takes_only_what_need_not_be_kept),
        TEST(test_a_file_that_was_written_just_now_is_not_settled),
        TEST(test_the_ready_come_in_the_servers_order_and_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
