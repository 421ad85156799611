#include "repository/refs_sweep.h"

#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { CREATORS = 5, PACKS = 60, BACKUPS_LIMIT = 40 };

/* Who needs which pack, as a table; and what the sweep said. */
typedef struct {
    uint32_t backup_count;
    bool needs[BACKUPS_LIMIT][CREATORS][2][PACKS];
    unsigned visits[CREATORS][2][PACKS];
    char last[64];       /* position, as text that sorts */
    bool fail;           /* at the first pack */
    uint32_t unreadable; /* a backup without a summary; UINT32_MAX: none */
} Needs;

static uint64_t
creator_number(const BackupId *creator)
{
    return backup_id_sequence(creator) - 1;
}

static Refs *
refs_of(void *context, uint32_t backup, CairnError *err)
{
    const Needs *table = context;
    (void)err;
    if (backup == table->unreadable)
        return NULL;
    Refs *refs = calloc(1, sizeof *refs);
    assert_non_null(refs);
    refs->ranges = calloc((size_t)CREATORS * 2 * PACKS, sizeof *refs->ranges);
    assert_non_null(refs->ranges);
    for (unsigned c = CREATORS; c-- > 0;) { /* in no order that the sweep could rely on */
        for (int m = 0; m < 2; m++) {
            for (uint32_t p = 0; p < PACKS; p++) {
                RefsRange *last = refs->count > 0 ? &refs->ranges[refs->count - 1] : NULL;
                const BackupId creator = test_backup_id(c + 1);
                if (!table->needs[backup][c][m][p])
                    continue;
                if (last != NULL && backup_id_equal(&last->creator, &creator) &&
                    last->is_map == (m == 1) && last->first_pack + last->pack_count == p)
                    last->pack_count++;
                else
                    refs->ranges[refs->count++] = (RefsRange){
                        .creator = creator, .is_map = m == 1, .first_pack = p, .pack_count = 1};
            }
        }
    }
    return refs;
}

static bool
visit(void *context, const BackupId *creator, bool is_map, uint32_t pack,
      const BackupSet *needed_by, CairnError *err)
{
    Needs *table = context;
    char position[64];
    if (table->fail)
        return cairn_error(err, CAIRN_CANCELLED, "enough");
    snprintf(position, sizeof position, "%s %d %06u", creator->text, is_map, pack);
    assert_true(strcmp(position, table->last) > 0);
    memcpy(table->last, position, sizeof position);
    const uint64_t c = creator_number(creator);
    size_t expected = 0;
    for (uint32_t b = 0; b < table->backup_count; b++) {
        if (b == table->unreadable || !table->needs[b][c][is_map][pack])
            continue;
        assert_true(expected < needed_by->count);
        assert_int_equal(needed_by->indexes[expected++], b);
    }
    assert_int_equal(needed_by->count, expected);
    table->visits[c][is_map][pack]++;
    return true;
}

static void
fill(Needs *table, uint64_t *random)
{
    memset(table, 0, sizeof *table);
    table->unreadable = UINT32_MAX;
    table->backup_count = 1 + (uint32_t)test_random_below(random, BACKUPS_LIMIT);
    for (uint32_t b = 0; b < table->backup_count; b++) {
        for (int c = 0; c < CREATORS; c++) {
            for (int m = 0; m < 2; m++) {
                /* Runs of random length, needed or not. */
                for (uint32_t p = 0; p < PACKS;) {
                    const bool needed = test_random_below(random, 2) == 0;
                    const uint64_t length = 1 + test_random_below(random, PACKS / 4);
                    for (uint64_t k = 0; k < length && p < PACKS; k++)
                        table->needs[b][c][m][p++] = needed;
                }
            }
        }
    }
}

static void
expect_each_once(const Needs *table)
{
    for (int c = 0; c < CREATORS; c++) {
        for (int m = 0; m < 2; m++) {
            for (uint32_t p = 0; p < PACKS; p++) {
                bool needed = false;
                for (uint32_t b = 0; b < table->backup_count; b++)
                    needed |= b != table->unreadable && table->needs[b][c][m][p];
                assert_int_equal(table->visits[c][m][p], needed);
            }
        }
    }
}

static RefsSweepFigures
sweep(Needs *table, size_t limit)
{
    CairnError err = {0};
    RefsSweepFigures figures = {0};
    table->last[0] = '\0';
    memset(table->visits, 0, sizeof table->visits);
    assert_true(refs_sweep(&(RefsSweep){.backup_count = table->backup_count,
                                        .range_limit = limit,
                                        .source = refs_of,
                                        .visit = visit,
                                        .context = table},
                           &figures, &err));
    return figures;
}

static void
test_each_pack_is_visited_once_in_order_with_all_who_need_it(void **state)
{
    (void)state;
    SCOPED_MEMORY Needs *table = malloc(sizeof *table);
    uint64_t random = 4711;
    assert_non_null(table);
    for (int round = 0; round < 60; round++) {
        fill(table, &random);
        if (round % 4 == 3)
            table->unreadable = (uint32_t)test_random_below(&random, table->backup_count);
        const RefsSweepFigures figures = sweep(table, 0);
        assert_int_equal(figures.passes, 1);
        expect_each_once(table);
    }
}

static void
test_ranges_beyond_the_limit_wait_for_another_pass(void **state)
{
    (void)state;
    SCOPED_MEMORY Needs *table = malloc(sizeof *table);
    uint64_t random = 99;
    unsigned several = 0;
    assert_non_null(table);
    for (int round = 0; round < 60; round++) {
        fill(table, &random);
        const RefsSweepFigures figures = sweep(table, 1);
        assert_true(figures.most_ranges <= 4 * table->backup_count);
        several += figures.passes > 2;
        expect_each_once(table);
    }
    assert_true(several > 50);
}

static void
test_nothing_is_needed_by_nobody(void **state)
{
    (void)state;
    SCOPED_MEMORY Needs *table = calloc(1, sizeof *table);
    assert_non_null(table);
    table->unreadable = UINT32_MAX;
    sweep(table, 0);
    table->backup_count = 3;
    sweep(table, 0);
    expect_each_once(table);
}

static void
test_a_failing_visit_ends_the_sweep(void **state)
{
    (void)state;
    SCOPED_MEMORY Needs *table = malloc(sizeof *table);
    uint64_t random = 7;
    CairnError err = {0};
    assert_non_null(table);
    fill(table, &random);
    table->fail = true;
    assert_false(refs_sweep(&(RefsSweep){.backup_count = table->backup_count,
                                         .source = refs_of,
                                         .visit = visit,
                                         .context = table},
                            NULL, &err));
    assert_int_equal(err.kind, CAIRN_CANCELLED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_pack_is_visited_once_in_order_with_all_who_need_it),
        cmocka_unit_test(test_ranges_beyond_the_limit_wait_for_another_pass),
        cmocka_unit_test(test_nothing_is_needed_by_nobody),
        cmocka_unit_test(test_a_failing_visit_ends_the_sweep),
    };
    return cmocka_run_group_tests_name("refs_sweep", tests, NULL, NULL);
}
