#include "postgres/wal_facts.h"

#include "postgres/wal_changes.h"

#include "common/bytes.h"
#include "common/timestamp.h"
#include "repository/wal_facts_format.h"
#include "tests/unit/support/wal_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEGMENT = 1 << 20, TRANSACTION = 1, STORAGE = 2, DATABASE = 4, HEAP = 10 };
enum { COMMIT = 0x00, ABORT = 0x20, HAS_PARTS = 0x80, CREATE = 0x10, TRUNCATE = 0x20 };

static const uint64_t base = UINT64_C(0x300000000);
static const int64_t noon_us = INT64_C(1700000000123456);
static const WalRelation table = {1663, 5, 16384};

static WalIdentity
identity_of(const WalBuilder *builder, uint64_t lsn)
{
    return (WalIdentity){.major = builder->major,
                         .system_id = builder->system_id,
                         .timeline = builder->timeline,
                         .lsn = lsn,
                         .segment_size = SEGMENT};
}

static WalFacts *
facts_at(WalBuilder *builder, uint64_t lsn)
{
    CairnError err = {0};
    const WalIdentity identity = identity_of(builder, lsn);
    WalFacts *facts = wal_facts_collect(wal_builder_source, builder, &identity, &err);

    assert_non_null(facts);
    return facts;
}

static void
write_relation(ByteWriter *bytes, const WalRelation *relation)
{
    byte_writer_u32(bytes, relation->tablespace);
    byte_writer_u32(bytes, relation->database);
    byte_writer_u32(bytes, relation->relfilenode);
}

static uint64_t
add_writer(WalBuilder *builder, uint8_t manager, uint8_t info, uint32_t xid, ByteWriter *bytes)
{
    assert_false(bytes->failed);
    const uint64_t lsn = wal_builder_add(builder, manager, info, xid, bytes->data, bytes->size);
    byte_writer_free(bytes);
    return lsn;
}

/* The end of a transaction that had a subtransaction (0: none) and drops count relations. */
static uint64_t
add_end(WalBuilder *builder, uint8_t operation, uint32_t xid, uint32_t subtransaction,
        const WalRelation *first, uint32_t count)
{
    ByteWriter bytes = {0};

    byte_writer_u64(&bytes, (uint64_t)(noon_us + xid - POSTGRES_EPOCH_US));
    byte_writer_u32(&bytes, (subtransaction != 0 ? 2 : 0) | (count != 0 ? 4 : 0));
    if (subtransaction != 0) {
        byte_writer_u32(&bytes, 1);
        byte_writer_u32(&bytes, subtransaction);
    }
    if (count != 0)
        byte_writer_u32(&bytes, count);
    for (uint32_t i = 0; i < count; i++) {
        WalRelation relation = *first;
        relation.relfilenode += i;
        write_relation(&bytes, &relation);
    }
    return add_writer(builder, TRANSACTION, operation | HAS_PARTS, xid, &bytes);
}

static uint64_t
add_create(WalBuilder *builder, uint32_t xid, const WalRelation *relation, uint32_t fork)
{
    ByteWriter bytes = {0};

    write_relation(&bytes, relation);
    byte_writer_u32(&bytes, fork);
    return add_writer(builder, STORAGE, CREATE, xid, &bytes);
}

static uint64_t
add_truncate(WalBuilder *builder, uint32_t xid, const WalRelation *relation, uint32_t block)
{
    ByteWriter bytes = {0};

    byte_writer_u32(&bytes, block);
    write_relation(&bytes, relation);
    byte_writer_u32(&bytes, 7);
    return add_writer(builder, STORAGE, TRUNCATE, xid, &bytes);
}

/* A heap record that writes `block` and, as a second reference to the same relation, the one after.
 */
static uint64_t
add_blocks(WalBuilder *builder, const WalRelation *relation, uint8_t fork, uint32_t block)
{
    SCOPED_BYTES ByteWriter bytes = {0};

    byte_writer_u8(&bytes, 0);
    byte_writer_u8(&bytes, 0x20 | fork);
    byte_writer_u16(&bytes, 3);
    write_relation(&bytes, relation);
    byte_writer_u32(&bytes, block);
    byte_writer_u8(&bytes, 1);
    byte_writer_u8(&bytes, 0x80 | fork);
    byte_writer_u16(&bytes, 0);
    byte_writer_u32(&bytes, block + 1);
    byte_writer_u8(&bytes, 255);
    byte_writer_u8(&bytes, 2);
    byte_writer_bytes(&bytes, "datmn", 5);
    return wal_builder_raw(builder, HEAP, 0x20, 7, bytes.data, bytes.size);
}

static bool
is_changed(const WalFacts *facts, const WalRelation *relation, uint8_t fork, uint32_t block)
{
    const WalForkChange *change = wal_facts_fork(facts, relation, fork);

    assert_non_null(change);
    for (uint32_t i = 0; i < change->chunk_count; i++) {
        const WalChunk *chunk = &facts->chunks[change->first_chunk + i];
        if (chunk->number == block / WAL_CHUNK_BLOCKS)
            return (chunk->bits[block % WAL_CHUNK_BLOCKS / 64] >> block % 64 & 1) != 0;
    }
    return change->all_blocks;
}

/* Fillers up to `left` bytes before the end of the builder's segment. */
static void
fill_segment(WalBuilder *builder, uint32_t left)
{
    const uint64_t end = (builder->next_lsn / SEGMENT + 1) * SEGMENT;

    while (builder->next_lsn < end - 8192)
        wal_builder_fill_page(builder, 0);
    wal_builder_fill_page(builder, left);
}

static void
test_spans_and_events_are_collected(void **state)
{
    WalBuilder builder;
    const WalRelation made = {1663, 5, 20000};

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    const uint64_t first_lsn = add_end(&builder, COMMIT, 800, 0, NULL, 0);
    const uint64_t drop_lsn = add_end(&builder, COMMIT, 801, 0, &table, 2);
    add_create(&builder, 803, &made, 0); /* by a subtransaction of 802 */
    const uint64_t rewrite_lsn = add_end(&builder, COMMIT, 802, 803, &table, 1);
    add_create(&builder, 805, &made, 0);
    add_end(&builder, ABORT, 805, 0, &made, 1);
    const uint64_t cut_lsn = add_truncate(&builder, 0, &table, 20);
    wal_builder_restore_point(&builder, noon_us, "before release");
    const uint64_t switch_lsn = wal_builder_switch(&builder);

    SCOPED(WalFacts) facts = facts_at(&builder, base);
    assert_int_equal(facts->flags, 0);
    assert_int_equal(facts->record_count, 9);
    assert_int_equal(facts->first_record_lsn, first_lsn);
    assert_int_equal(facts->last_record_lsn, switch_lsn);
    assert_int_equal(facts->end_lsn, base + SEGMENT);
    assert_int_equal(facts->commits.count, 3);
    assert_int_equal(facts->commits.min_xid, 800);
    assert_int_equal(facts->commits.max_xid, 802);
    assert_int_equal(facts->commits.min_time_us, noon_us + 800);
    assert_int_equal(facts->commits.max_time_us, noon_us + 802);
    assert_int_equal(facts->aborts.count, 1);
    assert_int_equal(facts->aborts.min_xid, 805);

    static const WalEventKind kinds[] = {
        WAL_EVENT_RELATION_DROPPED,   WAL_EVENT_RELATION_DROPPED, WAL_EVENT_RELATION_CREATED,
        WAL_EVENT_RELATION_REWRITTEN, WAL_EVENT_RELATION_CREATED, WAL_EVENT_RELATION_TRUNCATED,
        WAL_EVENT_RESTORE_POINT,      WAL_EVENT_SWITCH,
    };
    const WalEvent *events = facts->events;
    assert_int_equal(facts->event_count, 8);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(events[i].kind, kinds[i]);
    assert_int_equal(events[1].lsn, drop_lsn);
    assert_int_equal(events[1].xid, 801);
    assert_int_equal(events[1].time_us, noon_us + 801);
    assert_int_equal(events[1].relation.relfilenode, table.relfilenode + 1);
    assert_true(events[2].committed);
    assert_int_equal(events[2].xid, 802); /* the transaction's, once that is known */
    assert_int_equal(events[3].lsn, rewrite_lsn);
    assert_int_equal(events[3].new_relfilenode, 20000);
    assert_true(events[4].aborted);
    assert_false(events[4].committed);
    assert_int_equal(events[5].lsn, cut_lsn);
    assert_int_equal(events[5].block, 20);
    assert_true(events[5].committed);
    assert_string_equal(events[6].name, "before release");
    wal_builder_free(&builder);
}

static void
test_changes_follow_the_order_of_the_wal(void **state)
{
    WalBuilder builder;
    const WalRelation other = {1664, 0, 1262};

    (void)state;
    wal_builder_init(&builder, 17, SEGMENT, base);
    add_blocks(&builder, &table, 0, 10);
    add_blocks(&builder, &table, 0, 70);
    add_blocks(&builder, &table, 1, 3); /* FSM: never listed */
    add_blocks(&builder, &table, 2, 0);
    add_truncate(&builder, 0, &table, 71);
    add_blocks(&builder, &table, 0, 131072); /* the second file of the fork */
    add_create(&builder, 9, &other, 0);
    add_blocks(&builder, &other, 0, 255); /* two bitmaps */

    SCOPED(WalFacts) facts = facts_at(&builder, base);
    assert_int_equal(facts->fork_count, 3);
    const WalForkChange *main_fork = wal_facts_fork(facts, &table, 0);
    assert_int_equal(main_fork->limit_block, 71);
    assert_true(is_changed(facts, &table, 0, 10) && is_changed(facts, &table, 0, 11));
    assert_true(is_changed(facts, &table, 0, 70));
    assert_false(is_changed(facts, &table, 0, 71)); /* cut off after it was written */
    assert_true(is_changed(facts, &table, 0, 131072) && is_changed(facts, &table, 0, 131073));
    assert_true(is_changed(facts, &table, 2, 0));
    assert_null(wal_facts_fork(facts, &table, 1));
    assert_int_equal(wal_facts_fork(facts, &other, 0)->limit_block, 0);
    assert_true(is_changed(facts, &other, 0, 255) && is_changed(facts, &other, 0, 256));
    wal_builder_free(&builder);

    /* A drop takes the other forks along. */
    wal_builder_init(&builder, 17, SEGMENT, base);
    add_blocks(&builder, &table, 0, 10);
    add_blocks(&builder, &table, 2, 0);
    add_end(&builder, COMMIT, 9, 0, &table, 1);
    SCOPED(WalFacts) dropped = facts_at(&builder, base);
    assert_int_equal(wal_facts_fork(dropped, &table, 0)->limit_block, 0);
    assert_false(is_changed(dropped, &table, 0, 10));
    assert_false(is_changed(dropped, &table, 2, 0));
    assert_int_equal(dropped->chunk_count, 0);
    assert_int_equal(dropped->flags, WAL_FACTS_ENDED_EARLY); /* no switch, and no next segment */
    wal_builder_free(&builder);
}

static void
expect_joined(WalBuilder *builder, uint64_t lsn, WalFacts *earlier, const WalFacts *later)
{
    CairnError err = {0};
    bool joined = false;

    assert_int_equal(earlier->commits.count, 0);
    assert_int_equal(earlier->tail_lsn, lsn);
    assert_true(wal_facts_join(earlier, later, &joined, &err));
    assert_true(joined);
    assert_int_equal(earlier->flags, WAL_FACTS_JOINED);
    assert_int_equal(earlier->commits.count, 1);
    assert_int_equal(earlier->commits.max_xid, 801);
    assert_int_equal(earlier->last_record_lsn, lsn);
    assert_int_equal(earlier->end_lsn, later->first_record_lsn);
    const WalEvent *event = &earlier->events[earlier->event_count - 1];
    assert_int_equal(event->kind,
                     WAL_EVENT_RELATION_REWRITTEN); /* the creation is in this segment */
    assert_int_equal(event->lsn, lsn);
    assert_true(is_changed(earlier, &table, 2, 5)); /* what was listed before is still there */
    assert_false(is_changed(earlier, &table, 0, 5));
    assert_int_equal(builder->major, earlier->major);
    /* Once is enough. */
    assert_true(wal_facts_join(earlier, later, &joined, &err) && joined);
    assert_int_equal(earlier->commits.count, 1);
}

static void
test_a_record_that_crosses_segments_is_joined_wherever_it_is_cut(void **state)
{
    (void)state;
    for (uint32_t left = 8; left <= 96; left += 8) {
        WalBuilder builder;
        const WalRelation made = {1663, 5, 20000};
        const WalRelation gone = {1663, 5, 16390};

        wal_builder_init(&builder, 16, SEGMENT, base);
        add_blocks(&builder, &table, 2, 5);
        add_blocks(&builder, &table, 0, 9);
        add_create(&builder, 801, &made, 0);
        fill_segment(&builder, left);
        const uint64_t lsn = add_end(&builder, COMMIT, 801, 0, &gone, 9);
        wal_builder_filler(&builder, 100);
        fill_segment(&builder, 0);
        wal_builder_filler(&builder, 100);

        SCOPED(WalFacts) earlier = facts_at(&builder, base);
        SCOPED(WalFacts) later = facts_at(&builder, base + SEGMENT);
        assert_int_equal(earlier->tail.segment_size, left);
        expect_joined(&builder, lsn, earlier, later);
        wal_builder_free(&builder);
    }
}

static void
test_a_record_cut_off_behind_its_headers_needs_no_rest(void **state)
{
    WalBuilder builder;
    CairnError err = {0};
    bool joined = false;

    (void)state;
    wal_builder_init(&builder, 16, SEGMENT, base);
    fill_segment(&builder, 64);
    wal_builder_filler(&builder, 400000); /* of no interest, and far beyond what is kept */
    fill_segment(&builder, 0);
    wal_builder_filler(&builder, 100);
    SCOPED(WalFacts) earlier = facts_at(&builder, base);
    SCOPED(WalFacts) later = facts_at(&builder, base + SEGMENT);
    assert_int_equal(later->head.size, WAL_FACTS_EDGE_LIMIT);
    const uint64_t count = earlier->record_count;
    assert_true(wal_facts_join(earlier, later, &joined, &err) && joined);
    assert_int_equal(earlier->record_count, count + 1);
    assert_int_equal(earlier->end_lsn, later->first_record_lsn);
    wal_builder_free(&builder);
}

static void
test_what_does_not_fit_together_is_not_joined(void **state)
{
    WalBuilder builder;
    CairnError err = {0};
    bool joined = true;
    const WalRelation gone = {1663, 5, 16390};

    (void)state;
    wal_builder_init(&builder, 16, SEGMENT, base);
    fill_segment(&builder, 64);
    add_end(&builder, COMMIT, 801, 0, &gone, 90);
    fill_segment(&builder, 0);
    wal_builder_filler(&builder, 100);
    SCOPED(WalFacts) earlier = facts_at(&builder, base);
    SCOPED(WalFacts) later = facts_at(&builder, base + SEGMENT);
    SCOPED(WalFacts) third = facts_at(&builder, base + 2 * (uint64_t)SEGMENT);

    assert_true(wal_facts_join(earlier, third, &joined, &err) && !joined); /* not the next one */
    later->head.data[200] ^= 1;
    assert_true(wal_facts_join(earlier, later, &joined, &err) && !joined); /* CRC */
    later->head.data[200] ^= 1;
    later->head.total_size--;
    assert_true(wal_facts_join(earlier, later, &joined, &err) && !joined); /* length */
    later->head.total_size++;
    later->head.size--;
    assert_true(wal_facts_join(earlier, later, &joined, &err) && !joined); /* not all is kept */
    later->head.size++;
    assert_int_equal(earlier->commits.count, 0);
    assert_true(wal_facts_join(earlier, later, &joined, &err) && joined);
    assert_int_equal(earlier->commits.count, 1);
    wal_builder_free(&builder);
}

static void
test_a_record_over_three_segments_stays_apart(void **state)
{
    WalBuilder builder;
    CairnError err = {0};
    bool joined = true;

    (void)state;
    wal_builder_init(&builder, 16, SEGMENT, base);
    const WalRelation gone = {1663, 5, 16390};
    fill_segment(&builder, 64);
    add_end(&builder, COMMIT, 801, 0, &gone, 110000);
    fill_segment(&builder, 0);
    wal_builder_filler(&builder, 100);
    SCOPED(WalFacts) earlier = facts_at(&builder, base);
    SCOPED(WalFacts) middle = facts_at(&builder, base + SEGMENT);
    SCOPED(WalFacts) last = facts_at(&builder, base + 2 * (uint64_t)SEGMENT);
    assert_int_equal(middle->record_count, 0);
    assert_int_equal(middle->first_record_lsn, 0);
    assert_int_equal(middle->flags, 0);
    assert_true(middle->head.total_size > middle->head.segment_size);
    assert_true(last->record_count > 0);
    assert_true(wal_facts_join(earlier, middle, &joined, &err) && !joined);
    assert_true(wal_facts_join(middle, last, &joined, &err) && joined); /* nothing begins in it */
    wal_builder_free(&builder);
}

static void
test_an_interrupted_record_counts_for_nothing(void **state)
{
    WalBuilder builder;
    CairnError err = {0};
    bool joined = false;

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    while (builder.next_lsn < base + SEGMENT - 8192)
        wal_builder_fill_page(&builder, 0);
    const uint64_t void_lsn = wal_builder_interrupt(&builder);
    assert_true(void_lsn < base + SEGMENT && builder.next_lsn >= base + SEGMENT);
    const uint64_t declared_lsn = wal_builder_declare_void(&builder, void_lsn);
    SCOPED(WalFacts) earlier = facts_at(&builder, base);
    SCOPED(WalFacts) later = facts_at(&builder, base + SEGMENT);
    const uint64_t count = earlier->record_count;
    assert_int_equal(earlier->tail_lsn, void_lsn);
    assert_int_equal(later->flags & WAL_FACTS_HEAD_VOID, WAL_FACTS_HEAD_VOID);
    assert_int_equal(later->events[0].kind, WAL_EVENT_OVERWRITE);
    assert_int_equal(later->events[0].lsn, declared_lsn);
    assert_int_equal(later->events[0].redo_lsn, void_lsn);
    assert_true(wal_facts_join(earlier, later, &joined, &err) && joined);
    assert_int_equal(earlier->record_count, count);
    wal_builder_free(&builder);
}

static void
test_lists_that_overflow_say_so(void **state)
{
    WalBuilder builder;

    (void)state;
    wal_builder_init(&builder, 18, SEGMENT, base);
    add_end(&builder, COMMIT, 801, 0, &table, WAL_FACTS_DESTRUCTION_LIMIT + 1);
    for (int i = 0; i <= WAL_FACTS_MARKER_LIMIT; i++)
        wal_builder_restore_point(&builder, noon_us, "again");
    for (uint32_t i = 0; i <= WAL_FACTS_CREATION_LIMIT; i++)
        add_create(&builder, 9, &table, 0);
    SCOPED(WalFacts) facts = facts_at(&builder, base);
    assert_int_equal(facts->flags & (WAL_FACTS_DESTRUCTIONS_LOST | WAL_FACTS_MARKERS_LOST |
                                     WAL_FACTS_CREATIONS_LOST | WAL_FACTS_CHANGES_LOST),
                     WAL_FACTS_DESTRUCTIONS_LOST | WAL_FACTS_MARKERS_LOST |
                         WAL_FACTS_CREATIONS_LOST | WAL_FACTS_CHANGES_LOST);
    assert_int_equal(facts->event_count, WAL_FACTS_DESTRUCTION_LIMIT + WAL_FACTS_MARKER_LIMIT +
                                             WAL_FACTS_CREATION_LIMIT);
    assert_int_equal(facts->fork_count, WAL_FACTS_FORK_LIMIT);
    wal_builder_free(&builder);
}

static void
test_the_largest_fork_gives_up_its_bitmaps_first(void **state)
{
    WalBuilder builder;
    const WalRelation small = {1663, 5, 17000};

    (void)state;
    wal_builder_init(&builder, 18, SEGMENT, base);
    for (uint32_t i = 0; i < 10; i++)
        add_blocks(&builder, &small, 0, i * WAL_CHUNK_BLOCKS);
    for (uint32_t i = 0; i < WAL_FACTS_CHUNK_LIMIT; i++)
        add_blocks(&builder, &table, 0, i * WAL_CHUNK_BLOCKS);
    add_blocks(&builder, &small, 0, 1000000);
    SCOPED(WalFacts) facts = facts_at(&builder, base);
    assert_int_equal(facts->flags & WAL_FACTS_CHANGES_LOST, 0);
    assert_true(wal_facts_fork(facts, &table, 0)->all_blocks);
    assert_int_equal(wal_facts_fork(facts, &table, 0)->chunk_count, 0);
    assert_false(wal_facts_fork(facts, &small, 0)->all_blocks);
    assert_int_equal(wal_facts_fork(facts, &small, 0)->chunk_count, 11);
    for (uint32_t i = 0; i < 10; i++)
        assert_true(is_changed(facts, &small, 0, i * WAL_CHUNK_BLOCKS + 1));
    assert_true(is_changed(facts, &small, 0, 1000001));
    assert_false(is_changed(facts, &small, 0, 2));
    wal_builder_free(&builder);
}

/* A segment that is made of cuts would keep push busy for minutes. */
static void
test_cuts_without_end_lose_the_changes(void **state)
{
    const WalRelation small = {1663, 5, 17000};
    CairnError err = {0};
    WalChanges *changes = wal_changes_new(&err);

    (void)state;
    assert_non_null(changes);
    for (uint32_t i = 0; i < WAL_FACTS_CHUNK_LIMIT - 1; i++)
        wal_changes_mark(changes, &table, 0, i * WAL_CHUNK_BLOCKS);
    wal_changes_mark(changes, &small, 0, 7);
    for (int i = 0; i < 30000; i++) {
        if (i == 1000 || i == 29999) {
            WalFacts facts = {0};
            assert_true(wal_changes_store(changes, &facts, &err));
            assert_int_equal((facts.flags & WAL_FACTS_CHANGES_LOST) != 0, i > 1000);
            free(facts.forks);
            free(facts.chunks);
        }
        wal_changes_cut(changes, &small, 0, 1000);
    }
    wal_changes_free(changes);
}

static void
test_damage_ends_the_facts_early(void **state)
{
    WalBuilder builder;

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    const uint64_t first_lsn = wal_builder_commit(&builder, 1, noon_us);
    const uint64_t second_lsn = wal_builder_commit(&builder, 2, noon_us);
    fill_segment(&builder, 0);
    wal_builder_filler(&builder, 100);
    *wal_builder_at(&builder, second_lsn + 30) ^= 1;
    SCOPED(WalFacts) facts = facts_at(&builder, base);
    assert_int_equal(facts->flags, WAL_FACTS_ENDED_EARLY);
    assert_int_equal(facts->commits.count, 1);
    assert_int_equal(facts->last_record_lsn, first_lsn);
    assert_int_equal(facts->end_lsn, second_lsn);
    assert_int_equal(facts->tail_lsn, 0);
    wal_builder_free(&builder);
}

static bool
failing_source(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    WalBuilder *builder = context;

    if (lsn >= base + 64 * 8192)
        return cairn_error(err, CAIRN_IO, "no more");
    return wal_builder_source(builder, lsn, page, present_out, err);
}

static void
test_a_source_that_fails_is_heard(void **state)
{
    WalBuilder builder;
    CairnError err = {0};

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    fill_segment(&builder, 0);
    const WalIdentity identity = identity_of(&builder, base);
    assert_null(wal_facts_collect(failing_source, &builder, &identity, &err));
    assert_int_equal(err.kind, CAIRN_IO);
    wal_builder_free(&builder);
}

/* A segment with something of everything that facts can hold. */
static WalFacts *
rich_facts(WalBuilder *builder)
{
    const WalRelation made = {1663, 5, 20000};
    const WalRelation gone = {1663, 5, 16390};

    wal_builder_init(builder, 16, SEGMENT, base);
    wal_builder_filler(builder, 9000);
    fill_segment(builder, 64);
    wal_builder_filler(builder, 500);
    for (uint32_t i = 0; i < 40; i++)
        add_blocks(builder, &table, 0, i * i * 13);
    for (uint32_t i = 0; i < 100; i++)
        add_blocks(builder, &table, 0, 5000 + i);
    add_truncate(builder, 0, &table, 6000);
    add_create(builder, 801, &made, 0);
    add_end(builder, COMMIT, 801, 802, &gone, 3);
    add_end(builder, ABORT, 803, 0, NULL, 0);
    wal_builder_restore_point(builder, noon_us, "a name");
    fill_segment(builder, 72);
    add_end(builder, COMMIT, 804, 0, &gone, 30);
    wal_builder_filler(builder, 100);
    return facts_at(builder, base + SEGMENT);
}

static void
expect_same(const WalFacts *a, const WalFacts *b)
{
    SCOPED_BYTES ByteWriter first = {0};
    SCOPED_BYTES ByteWriter second = {0};

    wal_facts_format(a, &first);
    wal_facts_format(b, &second);
    assert_false(first.failed || second.failed);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
}

static void
test_facts_come_back_from_their_bytes(void **state)
{
    WalBuilder builder;
    CairnError err = {0};
    SCOPED_BYTES ByteWriter bytes = {0};
    SCOPED(WalFacts) facts = rich_facts(&builder);
    const WalIdentity identity = identity_of(&builder, base + SEGMENT);

    (void)state;
    assert_true(facts->head.size > 0 && facts->tail.size > 0 && facts->event_count > 5);
    wal_facts_format(facts, &bytes);
    SCOPED(WalFacts) again = wal_facts_parse(bytes.data, bytes.size, &identity, &err);
    assert_non_null(again);
    expect_same(facts, again);
    assert_int_equal(again->commits.max_time_us, facts->commits.max_time_us);
    assert_int_equal(again->end_lsn, facts->end_lsn);
    assert_int_equal(again->tail_lsn, facts->tail_lsn);
    assert_memory_equal(again->head.data, facts->head.data, facts->head.size);
    assert_int_equal(again->fork_count, facts->fork_count);
    assert_int_equal(wal_facts_fork(again, &table, 0)->limit_block, 6000);
    for (uint32_t block = 0; block < 25000; block++)
        assert_int_equal(is_changed(again, &table, 0, block), is_changed(facts, &table, 0, block));
    for (size_t i = 0; i < facts->event_count; i++) {
        assert_int_equal(again->events[i].kind, facts->events[i].kind);
        assert_int_equal(again->events[i].lsn, facts->events[i].lsn);
        assert_int_equal(again->events[i].time_us, facts->events[i].time_us);
        assert_int_equal(again->events[i].committed, facts->events[i].committed);
    }
    wal_builder_free(&builder);
}

static void
test_bytes_that_are_cut_off_or_too_many_are_no_facts(void **state)
{
    WalBuilder builder;
    SCOPED_BYTES ByteWriter bytes = {0};
    SCOPED(WalFacts) facts = rich_facts(&builder);
    const WalIdentity identity = identity_of(&builder, base + SEGMENT);

    (void)state;
    wal_facts_format(facts, &bytes);
    byte_writer_u8(&bytes, 0);
    for (size_t size = 0; size <= bytes.size; size++) {
        CairnError err = {0};
        if (size == bytes.size - 1)
            continue;
        assert_null(wal_facts_parse(bytes.data, size, &identity, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
    CairnError err = {0};
    bytes.data[0] = 2; /* a layout of the future */
    assert_null(wal_facts_parse(bytes.data, bytes.size - 1, &identity, &err));
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
    wal_builder_free(&builder);
}

static void
test_counts_beyond_their_limits_are_refused_before_memory_is_taken(void **state)
{
    static const uint8_t zeros[4096];
    const WalIdentity identity = {.major = 15, .lsn = base, .segment_size = SEGMENT};

    (void)state;
    /* Which varint of the fixed part lies: flags, edges' kept bytes, events, forks, chunks. */
    for (int lie = 0; lie < 5; lie++) {
        SCOPED_BYTES ByteWriter bytes = {0};
        CairnError err = {0};
        byte_writer_u8(&bytes, 1);
        byte_writer_varint(&bytes, lie == 0 ? 1 << 20 : 0);
        for (int i = 0; i < 5; i++)
            byte_writer_varint(&bytes, 0);
        byte_writer_varint(&bytes, 1 << 20);
        byte_writer_varint(&bytes, 1 << 20);
        byte_writer_varint(&bytes, lie == 1 ? WAL_FACTS_EDGE_LIMIT + 1 : 0);
        for (int i = 0; i < 5; i++) /* tail, spans */
            byte_writer_varint(&bytes, 0);
        byte_writer_varint(&bytes, lie == 2 ? 5000000 : 0);
        byte_writer_varint(&bytes, lie == 3 ? WAL_FACTS_FORK_LIMIT + 1 : 0);
        byte_writer_varint(&bytes, lie == 4 ? WAL_FACTS_CHUNK_LIMIT + 1 : 0);
        for (int i = 0; i < 20; i++)
            byte_writer_bytes(&bytes, zeros, sizeof zeros);
        assert_null(wal_facts_parse(bytes.data, bytes.size, &identity, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spans_and_events_are_collected),
        cmocka_unit_test(test_changes_follow_the_order_of_the_wal),
        cmocka_unit_test(test_a_record_that_crosses_segments_is_joined_wherever_it_is_cut),
        cmocka_unit_test(test_a_record_cut_off_behind_its_headers_needs_no_rest),
        cmocka_unit_test(test_what_does_not_fit_together_is_not_joined),
        cmocka_unit_test(test_a_record_over_three_segments_stays_apart),
        cmocka_unit_test(test_an_interrupted_record_counts_for_nothing),
        cmocka_unit_test(test_lists_that_overflow_say_so),
        cmocka_unit_test(test_the_largest_fork_gives_up_its_bitmaps_first),
        cmocka_unit_test(test_cuts_without_end_lose_the_changes),
        cmocka_unit_test(test_damage_ends_the_facts_early),
        cmocka_unit_test(test_a_source_that_fails_is_heard),
        cmocka_unit_test(test_facts_come_back_from_their_bytes),
        cmocka_unit_test(test_bytes_that_are_cut_off_or_too_many_are_no_facts),
        cmocka_unit_test(test_counts_beyond_their_limits_are_refused_before_memory_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
