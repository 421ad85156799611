/* What is refused at the door of the WAL store. */
#include "common/bytes.h"
#include "repository/wal_store.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20 };

#define SEGMENT_5 "000000010000000000000005"

/* What is refused at the door. */
typedef struct {
    const char *title;
    const char *name;
    void (*mutilate)(uint8_t *segment, size_t *size);
    CairnErrorKind kind;
} Refusal;

static void
change_system(uint8_t *segment, size_t *size)
{
    (void)size;
    segment[24] ^= 1;
}

static void
change_major(uint8_t *segment, size_t *size)
{
    (void)size;
    put_u16(segment, wal_magic_of_major(16));
}

static void
change_address(uint8_t *segment, size_t *size)
{
    (void)size;
    put_u64(segment + 8, 6 * MIB);
}

static void
change_timeline(uint8_t *segment, size_t *size)
{
    (void)size;
    put_u32(segment + 4, 2);
}

static void
change_segment_size(uint8_t *segment, size_t *size)
{
    (void)size;
    put_u32(segment + 32, 16 * MIB);
    put_u64(segment + 8, 0);
}

static void
truncate_segment(uint8_t *segment, size_t *size)
{
    (void)segment;
    *size -= 8192;
}

static void
clear_all(uint8_t *segment, size_t *size)
{
    memset(segment, 0, *size);
}

static void
change_nothing(uint8_t *segment, size_t *size)
{
    (void)segment;
    (void)size;
}

static const Refusal refusals[] = {
    {"another system", SEGMENT_5, change_system, CAIRN_MISMATCH},
    {"another version", SEGMENT_5, change_major, CAIRN_MISMATCH},
    {"another address", SEGMENT_5, change_address, CAIRN_MISMATCH},
    {"a newer timeline than its name", SEGMENT_5, change_timeline, CAIRN_MISMATCH},
    {"another segment size", SEGMENT_5, change_segment_size, CAIRN_MISMATCH},
    {"a truncated segment", SEGMENT_5, truncate_segment, CAIRN_MISMATCH},
    {"a truncated partial", SEGMENT_5 ".partial", truncate_segment, CAIRN_MISMATCH},
    {"all zeros", SEGMENT_5, clear_all, CAIRN_CORRUPT},
    {"another segment's name", "000000010000000000000006", change_nothing, CAIRN_MISMATCH},
    {"a name that no segment of this size has", "000000010000000000001000", change_nothing,
     CAIRN_USAGE},
    {"a name that is none", "pg_control", change_nothing, CAIRN_USAGE},
    {"a history file that is none", "00000002.history", change_nothing, CAIRN_CORRUPT},
};

static void
test_what_does_not_belong_is_refused_and_leaves_nothing(void **state)
{
    WalFixture *fixture = *state;
    CairnError err = {0};
    uint32_t *timelines = NULL;
    size_t count = 1;

    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        size_t size = MIB;
        size_t used;
        uint8_t *segment = wal_fixture_short_segment(fixture, 1, 5, true, &used);

        refusals[i].mutilate(segment, &size);
        const PutResult result = wal_fixture_put(fixture, refusals[i].name, segment, size);
        if (result.err.kind != refusals[i].kind)
            print_message("%s: %s\n", refusals[i].title, result.err.message);
        assert_int_equal(result.err.kind, refusals[i].kind);
        free(segment);
    }
    assert_true(wal_store_timelines(fixture->store, &timelines, &count, &err));
    assert_int_equal(count, 0);
    free(timelines);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WAL_FIXTURE_TEST(test_what_does_not_belong_is_refused_and_leaves_nothing),
    };
    return cmocka_run_group_tests_name("wal_refusal", tests, NULL, NULL);
}
