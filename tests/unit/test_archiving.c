#include "agent/archiving.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static const int64_t SECOND = 1000000;
static const int64_t NOW = INT64_C(1800000000) * 1000000;
enum { MIB = 1 << 20 };

static Archiving
healthy(void)
{
    Archiving archiving = {.system_id = 1,
                           .segment_size = 16 * MIB,
                           .archives = true,
                           .now_us = NOW,
                           .lsn = UINT64_C(0x10) * 16 * MIB + 5,
                           .archived_us = NOW - 30 * SECOND,
                           .ready_known = true};
    strcpy(archiving.archived, "00000001000000000000000F");
    return archiving;
}

static void
add_ready(Archiving *archiving, uint64_t count, int64_t oldest_s, int64_t newest_s)
{
    archiving->ready_count = count;
    archiving->ready_oldest_us = NOW - oldest_s * SECOND;
    archiving->ready_newest_us = NOW - newest_s * SECOND;
    strcpy(archiving->ready_oldest, "000000010000000000000010");
}

static ArchivingState
state_of(const Archiving *archiving)
{
    return archiving_judge(archiving).state;
}

static void
test_nothing_waiting_is_fine_whatever_failed_long_ago(void **state)
{
    Archiving archiving = healthy();
    (void)state;

    assert_int_equal(state_of(&archiving), ARCHIVING_FINE);
    archiving.failed_us = NOW - 100 * SECOND;
    archiving.failed_count = 7;
    assert_int_equal(state_of(&archiving), ARCHIVING_FINE);
    assert_int_equal(archiving_judge(&archiving).since_us, 0);
}

static void
test_a_server_that_archives_nothing_is_not_red(void **state)
{
    Archiving archiving = healthy();
    (void)state;

    archiving.archives = false;
    add_ready(&archiving, 4, 1000, 10);
    assert_int_equal(state_of(&archiving), ARCHIVING_NONE);
}

static void
test_a_file_that_waits_is_behind_within_a_minute(void **state)
{
    Archiving archiving = healthy();
    (void)state;

    add_ready(&archiving, 2, 5, 1);
    assert_int_equal(state_of(&archiving), ARCHIVING_FINE);
    add_ready(&archiving, 2, 59, 1);
    const ArchivingVerdict verdict = archiving_judge(&archiving);
    assert_int_equal(verdict.state, ARCHIVING_BEHIND);
    assert_int_equal(verdict.since_us, NOW - 59 * SECOND);
    assert_int_equal(verdict.waiting_bytes, 2 * 16 * MIB);
}

static void
test_a_failure_after_the_last_success_is_failing_at_once(void **state)
{
    Archiving archiving = healthy();
    (void)state;

    add_ready(&archiving, 1, 2, 2);
    archiving.failed_us = NOW - SECOND;
    assert_int_equal(state_of(&archiving), ARCHIVING_FAILING);
    /* It never archived anything. */
    archiving.archived_us = 0;
    archiving.archived[0] = '\0';
    assert_int_equal(state_of(&archiving), ARCHIVING_FAILING);
}

static void
test_without_a_look_at_the_files_positions_tell(void **state)
{
    Archiving archiving = healthy();
    (void)state;

    archiving.ready_known = false;
    archiving.archived_us = NOW - 600 * SECOND;
    assert_int_equal(state_of(&archiving), ARCHIVING_FINE); /* 0x10 is being written */
    archiving.lsn += UINT64_C(3) * 16 * MIB;
    const ArchivingVerdict verdict = archiving_judge(&archiving);
    assert_int_equal(verdict.state, ARCHIVING_BEHIND);
    assert_true(verdict.waiting_is_guess);
    assert_int_equal(verdict.waiting, 3);
}

static void
test_the_disk_lasts_as_long_as_what_waits_came_fast(void **state)
{
    Archiving archiving = healthy();
    (void)state;

    archiving.average_rate = 1;
    archiving.free_known = true;
    archiving.free_bytes = UINT64_C(16) * MIB * 3600;
    assert_int_equal(archiving_judge(&archiving).disk_lasts_s, 10 * 365 * 86400); /* a bound */
    /* 101 segments in 100 s are one a second. */
    add_ready(&archiving, 101, 160, 60);
    assert_int_equal(archiving_judge(&archiving).disk_lasts_s, 3600);
    archiving.free_known = false;
    assert_int_equal(archiving_judge(&archiving).disk_lasts_s, -1);
}

static void
test_the_line_names_what_a_person_needs(void **state)
{
    Archiving archiving = healthy();
    char text[ARCHIVING_TEXT_SIZE];
    (void)state;

    archiving.free_known = archiving.wal_known = true;
    archiving.free_bytes = UINT64_C(16) * MIB * 3600 * 3;
    archiving.wal_bytes = UINT64_C(2000) * MIB;
    add_ready(&archiving, 101, 160, 60);
    archiving.failed_us = NOW - SECOND;
    archiving.failed_count = 12;
    strcpy(archiving.failed, "000000010000000000000010");
    const ArchivingVerdict verdict = archiving_judge(&archiving);
    archiving_format(&archiving, &verdict, text);
    assert_non_null(strstr(text, "FAILING since "));
    assert_non_null(strstr(text, "101 files"));
    assert_non_null(strstr(text, "first 000000010000000000000010"));
    assert_non_null(strstr(text, "failed 12 times"));
    assert_non_null(strstr(text, "the disk lasts about 3 h"));
}

static void
test_slots_are_named_when_they_hold_much_or_lost_it(void **state)
{
    Archiving archiving = healthy();
    char text[ARCHIVING_TEXT_SIZE];
    (void)state;

    archiving.slot_count = 3;
    archiving.slots[0] = (ArchivingSlot){.name = "big", .held_bytes = ARCHIVING_SLOT_BYTES};
    archiving.slots[1] = (ArchivingSlot){.name = "small", .held_bytes = MIB, .active = true};
    assert_true(archiving_format_slots(&archiving, text));
    assert_non_null(strstr(text, "slot big holds back"));
    assert_non_null(strstr(text, "nobody uses it"));
    assert_null(strstr(text, "small"));
    archiving.slots[2] = (ArchivingSlot){.name = "gone", .lost = true};
    assert_true(archiving_format_slots(&archiving, text));
    assert_non_null(strstr(text, "slot gone lost"));
    archiving.slot_count = 0;
    assert_false(archiving_format_slots(&archiving, text));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_waiting_is_fine_whatever_failed_long_ago),
        cmocka_unit_test(test_a_server_that_archives_nothing_is_not_red),
        cmocka_unit_test(test_a_file_that_waits_is_behind_within_a_minute),
        cmocka_unit_test(test_a_failure_after_the_last_success_is_failing_at_once),
        cmocka_unit_test(test_without_a_look_at_the_files_positions_tell),
        cmocka_unit_test(test_the_disk_lasts_as_long_as_what_waits_came_fast),
        cmocka_unit_test(test_the_line_names_what_a_person_needs),
        cmocka_unit_test(test_slots_are_named_when_they_hold_much_or_lost_it),
    };
    return cmocka_run_group_tests_name("archiving", tests, NULL, NULL);
}
