#include "common/bytes.h"
#include "common/timestamp.h"
#include "postgres/wal_page.h"
#include "postgres/wal_reader.h"
#include "tests/unit/support/wal_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEGMENT = 1 << 20, XLOG = 0, TRANSACTION = 1 };

static const uint64_t base = UINT64_C(0x300000000);
static const int64_t noon_us = INT64_C(1700000000123456);

static WalReader *
reader_at(WalBuilder *builder, uint64_t start_lsn, bool seek)
{
    CairnError err = {0};
    WalReader *reader =
        wal_reader_new(wal_builder_source, builder, builder->major, builder->segment_size,
                       builder->system_id, start_lsn, seek, &err);

    assert_non_null(reader);
    return reader;
}

/* The next record, which must exist. */
static WalRecord
next(WalReader *reader)
{
    CairnError err = {0};
    WalRecord record;
    bool found;

    assert_true(wal_reader_next(reader, &record, &found, &err));
    if (!found)
        fail_msg("valid WAL ends %s", wal_reader_end_reason(reader));
    return record;
}

/* Reads to the end and checks where and why that is; the number of records before it. */
static int
expect_end(WalReader *reader, uint64_t end_lsn, const char *reason)
{
    CairnError err = {0};
    WalRecord record;
    bool found = true;
    int count = -1;

    while (found) {
        assert_true(wal_reader_next(reader, &record, &found, &err));
        count++;
    }
    if (strstr(wal_reader_end_reason(reader), reason) == NULL)
        fail_msg("ended %s; expected: %s", wal_reader_end_reason(reader), reason);
    assert_int_equal(wal_reader_end_lsn(reader), end_lsn);
    assert_true(wal_reader_next(reader, &record, &found, &err)); /* the end is final */
    assert_false(found);
    return count;
}

static void
test_records_are_read_across_pages_and_segments(void **state)
{
    enum { COUNT = 900 };
    static uint64_t starts[COUNT + 1];
    static uint32_t sizes[COUNT];
    WalBuilder builder;
    uint64_t previous;

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    previous = builder.previous_lsn;
    srandom(7);
    for (int i = 0; i < COUNT; i++) {
        sizes[i] = 26 + (uint32_t)random() % (random() % 4 == 0 ? 30000 : 300);
        starts[i] = wal_builder_filler(&builder, sizes[i]);
    }
    assert_true(builder.next_lsn > base + 2 * SEGMENT);

    SCOPED(WalReader) reader = reader_at(&builder, base, false);
    for (int i = 0; i < COUNT; i++) {
        WalRecord record = next(reader);
        assert_int_equal(record.start_lsn, starts[i]);
        assert_int_equal(record.total_size, sizes[i]);
        assert_int_equal(record.previous_lsn, previous);
        assert_int_equal(record.xid, 700);
        assert_int_equal(record.resource_manager, 10);
        assert_int_equal(record.kind, WAL_RECORD_OTHER);
        assert_int_equal(record.end_lsn % 8, 0);
        assert_true(record.end_lsn >= record.start_lsn + record.total_size);
        if (i > 0 && starts[i] % WAL_PAGE_SIZE > WAL_LONG_HEADER_SIZE)
            assert_true(previous < starts[i]);
        previous = starts[i];
    }
    expect_end(reader, builder.next_lsn, "length is zero");
    wal_builder_free(&builder);
}

static void
test_records_may_be_split_at_every_aligned_byte(void **state)
{
    (void)state;
    for (uint32_t left = 0; left <= 64; left += 8) {
        WalBuilder builder;
        wal_builder_init(&builder, 16, SEGMENT, base);
        wal_builder_fill_page(&builder, left);
        const uint64_t commit_lsn = wal_builder_commit(&builder, 801, noon_us);
        const uint64_t next_lsn = wal_builder_filler(&builder, 100);

        SCOPED(WalReader) reader = reader_at(&builder, base, false);
        WalRecord record = next(reader);
        while (record.start_lsn < commit_lsn)
            record = next(reader);
        assert_int_equal(record.start_lsn, commit_lsn);
        assert_int_equal(record.kind, WAL_RECORD_COMMIT);
        assert_int_equal(record.time_us, noon_us);
        assert_int_equal(record.transaction_xid, 801);
        assert_int_equal(next(reader).start_lsn, next_lsn);
        expect_end(reader, builder.next_lsn, "length is zero");
        wal_builder_free(&builder);
    }
}

static void
test_a_switch_leads_to_the_next_segment(void **state)
{
    WalBuilder builder;

    (void)state;
    wal_builder_init(&builder, 17, SEGMENT, base);
    wal_builder_commit(&builder, 1, noon_us);
    const uint64_t switch_lsn = wal_builder_switch(&builder);
    const uint64_t after_lsn = wal_builder_commit(&builder, 2, noon_us);

    SCOPED(WalReader) reader = reader_at(&builder, base, false);
    next(reader);
    WalRecord record = next(reader);
    assert_int_equal(record.start_lsn, switch_lsn);
    assert_int_equal(record.kind, WAL_RECORD_SWITCH);
    assert_int_equal(record.end_lsn, base + SEGMENT);
    record = next(reader);
    assert_int_equal(record.start_lsn, after_lsn);
    assert_int_equal(record.start_lsn, base + SEGMENT + WAL_LONG_HEADER_SIZE);
    wal_builder_free(&builder);
}

static void
test_a_switch_that_ends_the_segment_exactly_skips_nothing(void **state)
{
    WalBuilder builder;

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    while (builder.next_lsn < base + SEGMENT - WAL_PAGE_SIZE)
        wal_builder_fill_page(&builder, 0);
    assert_int_equal(builder.next_lsn, base + SEGMENT - WAL_PAGE_SIZE);
    wal_builder_fill_page(&builder, 24);
    wal_builder_switch(&builder);
    assert_int_equal(builder.next_lsn, base + SEGMENT);
    wal_builder_commit(&builder, 2, noon_us);

    SCOPED(WalReader) reader = reader_at(&builder, base, false);
    expect_end(reader, builder.next_lsn, "length is zero");
    wal_builder_free(&builder);
}

static void
test_an_overwritten_record_is_passed_over(void **state)
{
    WalBuilder builder;

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    wal_builder_filler(&builder, 100);
    const uint64_t void_lsn = wal_builder_interrupt(&builder);
    const uint64_t declared_lsn = wal_builder_declare_void(&builder, void_lsn);
    wal_builder_commit(&builder, 5, noon_us);

    SCOPED(WalReader) reader = reader_at(&builder, base, false);
    WalRecord record = next(reader);
    while (record.start_lsn < declared_lsn) {
        assert_int_not_equal(record.start_lsn, void_lsn);
        record = next(reader);
    }
    assert_int_equal(record.start_lsn, declared_lsn);
    assert_int_equal(next(reader).transaction_xid, 5);

    /* A reader that starts at the page with the flag needs no knowledge of what came before. */
    SCOPED(WalReader) later = reader_at(&builder, declared_lsn & ~UINT64_C(8191), true);
    assert_int_equal(next(later).start_lsn, declared_lsn);
    wal_builder_free(&builder);
}

static void
test_an_overwritten_record_must_be_declared_void(void **state)
{
    (void)state;
    for (int variant = 0; variant < 3; variant++) {
        WalBuilder builder;
        wal_builder_init(&builder, 15, SEGMENT, base);
        const uint64_t void_lsn = wal_builder_interrupt(&builder);
        if (variant == 0)
            wal_builder_declare_void(&builder, void_lsn - 8);
        else if (variant == 1)
            wal_builder_filler(&builder, 100);
        else
            wal_builder_commit(&builder, 5, noon_us);

        SCOPED(WalReader) reader = reader_at(&builder, base, false);
        expect_end(reader, void_lsn, "not declared void");
        wal_builder_free(&builder);
    }
}

/* The parts of a commit or abort record, with two of each where a part is a list. */
static size_t
write_prepared(uint8_t *data, int major, bool commit, uint32_t xid)
{
    ByteWriter writer = {0};
    const size_t stats_item = major >= 18 ? 16 : 12;
    static const uint8_t zeros[64];

    byte_writer_u64(&writer, (uint64_t)(noon_us - POSTGRES_EPOCH_US));
    byte_writer_u32(&writer, 0xE0000000U | (commit ? 0x1FF : 0x1F7));
    byte_writer_bytes(&writer, zeros, 8);
    const size_t items[] = {4, 12, stats_item, commit ? 16 : 0};
    for (size_t i = 0; i < 4; i++) {
        if (items[i] == 0)
            continue;
        byte_writer_u32(&writer, 2);
        byte_writer_bytes(&writer, zeros, 2 * items[i]);
    }
    byte_writer_u32(&writer, xid);
    byte_writer_bytes(&writer, "gid", 4);
    byte_writer_bytes(&writer, zeros, 16);
    assert_false(writer.failed);
    memcpy(data, writer.data, writer.size);
    const size_t size = writer.size;
    byte_writer_free(&writer);
    return size;
}

static void
test_prepared_transactions_end_under_their_own_xid(void **state)
{
    (void)state;
    for (int major = 15; major <= 18; major++) {
        WalBuilder builder;
        uint8_t data[512];

        wal_builder_init(&builder, major, SEGMENT, base);
        size_t size = write_prepared(data, major, true, 4711);
        wal_builder_add(&builder, TRANSACTION, 0x80 | 0x30, 0, data, size);
        size = write_prepared(data, major, false, 4712);
        wal_builder_add(&builder, TRANSACTION, 0x80 | 0x40, 0, data, size);
        put_u32(data + 8, 0); /* no two-phase part */
        wal_builder_add(&builder, TRANSACTION, 0x80 | 0x30, 0, data, size);

        SCOPED(WalReader) reader = reader_at(&builder, base, false);
        WalRecord record = next(reader);
        assert_int_equal(record.kind, WAL_RECORD_COMMIT);
        assert_int_equal(record.transaction_xid, 4711);
        assert_int_equal(record.time_us, noon_us);
        record = next(reader);
        assert_int_equal(record.kind, WAL_RECORD_ABORT);
        assert_int_equal(record.transaction_xid, 4712);
        expect_end(reader, record.end_lsn, "malformed body");
        wal_builder_free(&builder);
    }
}

static void
test_marker_records_are_decoded(void **state)
{
    WalBuilder builder;
    uint8_t data[88] = {0};

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    wal_builder_restore_point(&builder, noon_us, "before release");
    put_u64(data, (uint64_t)(noon_us - POSTGRES_EPOCH_US));
    put_u32(data + 8, 3);
    put_u32(data + 12, 2);
    wal_builder_add(&builder, XLOG, 0x90, 0, data, 16);
    put_u64(data + 64, 1700000000);
    wal_builder_add(&builder, XLOG, 0x10, 0, data, 88);
    put_u64(data, base + 40);
    wal_builder_add(&builder, XLOG, 0x50, 0, data, 8);
    wal_builder_add(&builder, XLOG, 0x60, 0, data, 28);
    put_u64(data, (uint64_t)(noon_us - POSTGRES_EPOCH_US));
    wal_builder_add(&builder, TRANSACTION, 0x20, 99, data, 8);

    SCOPED(WalReader) reader = reader_at(&builder, base, false);
    WalRecord record = next(reader);
    assert_int_equal(record.kind, WAL_RECORD_RESTORE_POINT);
    assert_string_equal(record.restore_point, "before release");
    assert_int_equal(record.time_us, noon_us);
    record = next(reader);
    assert_int_equal(record.kind, WAL_RECORD_END_OF_RECOVERY);
    assert_int_equal(record.timeline, 3);
    assert_int_equal(record.previous_timeline, 2);
    assert_int_equal(record.time_us, noon_us);
    record = next(reader);
    assert_int_equal(record.kind, WAL_RECORD_CHECKPOINT);
    assert_int_equal(record.timeline, 3);
    assert_int_equal(record.time_us, INT64_C(1700000000000000));
    record = next(reader);
    assert_int_equal(record.kind, WAL_RECORD_BACKUP_END);
    assert_int_equal(record.backup_start_lsn, base + 40);
    assert_int_equal(next(reader).kind, WAL_RECORD_PARAMETER_CHANGE);
    record = next(reader);
    assert_int_equal(record.kind, WAL_RECORD_ABORT);
    assert_int_equal(record.transaction_xid, 99);
    wal_builder_free(&builder);
}

static void
test_a_commit_may_name_its_origin(void **state)
{
    WalBuilder builder;
    uint8_t body[18] = {253, 1, 0, 252, 9, 0, 0, 0, 255, 8};

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    put_u64(body + 10, (uint64_t)(noon_us - POSTGRES_EPOCH_US));
    wal_builder_raw(&builder, TRANSACTION, 0, 12, body, sizeof body);

    SCOPED(WalReader) reader = reader_at(&builder, base, false);
    assert_int_equal(next(reader).time_us, noon_us);
    wal_builder_free(&builder);
}

static void
test_malformed_bodies_end_the_wal(void **state)
{
    static const struct {
        uint8_t resource_manager, info;
        uint8_t body[80];
        size_t size;
    } cases[] = {
        {TRANSACTION, 0x00, {0}, 0},                       /* no data at all */
        {TRANSACTION, 0x00, {255, 4, 1, 2, 3, 4}, 6},      /* half a time */
        {TRANSACTION, 0x00, {255, 9, 1, 2, 3, 4}, 6},      /* longer than the record */
        {TRANSACTION, 0x00, {255, 2, 1, 2, 3, 4}, 6},      /* shorter than the record */
        {TRANSACTION, 0x00, {0, 0, 0, 0}, 4},              /* a block reference */
        {TRANSACTION, 0x80, {255, 8}, 10},                 /* parts announced, not there */
        {TRANSACTION, 0x00, {255, 8, [9] = 0x7F}, 10},     /* time beyond all time: 292277 */
        {XLOG, 0x70, {255, 72, [10 ... 73] = 'x'}, 74},    /* name without end */
        {XLOG, 0x10, {255, 70}, 72},                       /* short checkpoint */
        {XLOG, 0x90, {255, 12}, 14},                       /* short end of recovery */
        {XLOG, 0x50, {255, 7}, 9},                         /* short backup end */
        {XLOG, 0x40, {255, 1, 0}, 3},                      /* switch with data */
        {XLOG, 0xD0, {254, 0xFF, 0xFF, 0xFF, 0xFF, 1}, 6}, /* length that overflows */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        WalBuilder builder;
        uint8_t body[80];

        wal_builder_init(&builder, 15, SEGMENT, base);
        memcpy(body, cases[i].body, sizeof body);
        if (i == 6)
            memset(body + 2, 0xFF, 7);
        const uint64_t lsn = wal_builder_raw(&builder, cases[i].resource_manager, cases[i].info, 7,
                                             body, cases[i].size);
        SCOPED(WalReader) reader = reader_at(&builder, lsn, false);
        assert_int_equal(expect_end(reader, lsn, "malformed body"), 0);
        wal_builder_free(&builder);
    }
}

static void
test_records_over_the_limit_are_checked_and_passed(void **state)
{
    WalBuilder builder;
    const size_t size = WAL_RECORD_LIMIT + 100000;
    uint8_t *data = calloc(1, size);

    (void)state;
    assert_non_null(data);
    wal_builder_init(&builder, 15, SEGMENT, base);
    put_u64(data, (uint64_t)(noon_us - POSTGRES_EPOCH_US));
    put_u32(data + 8, 0x18);
    put_u32(data + 12, (uint32_t)((size - 20) / 16));
    wal_builder_add(&builder, TRANSACTION, 0x80 | 0x30, 0, data, size);
    const uint64_t small_lsn = wal_builder_commit(&builder, 3, noon_us);

    {
        SCOPED(WalReader) reader = reader_at(&builder, base, false);
        WalRecord record = next(reader);
        assert_int_equal(record.kind, WAL_RECORD_COMMIT);
        assert_int_equal(record.time_us, noon_us);
        assert_int_equal(record.transaction_xid, 0);
        assert_int_equal(next(reader).start_lsn, small_lsn);
    }

    *wal_builder_at(&builder, base + WAL_RECORD_LIMIT + 100) ^= 1;
    SCOPED(WalReader) reader = reader_at(&builder, base, false);
    expect_end(reader, base, "wrong CRC");
    wal_builder_free(&builder);
    free(data);
}

/*
 * The WAL that is damaged below: a 100-byte record on page 0, and so on to page 1 where a record
 * from page 0 ends and `victim` stands alone.
 */
typedef struct {
    WalBuilder builder;
    uint64_t first_end; /* end of the last record before the one that crosses pages */
    uint64_t crossing;
    uint64_t victim;
} Patient;

static void
make_patient(Patient *patient)
{
    WalBuilder *builder = &patient->builder;

    wal_builder_init(builder, 15, SEGMENT, base);
    wal_builder_fill_page(builder, 1024);
    patient->first_end = builder->next_lsn;
    patient->crossing = wal_builder_filler(builder, 2000);
    patient->victim = wal_builder_filler(builder, 200);
    wal_builder_filler(builder, 300);
}

enum { ON_PAGE = 1 << 13 }; /* offset counts from page 1; otherwise from the victim */

static void
test_damage_ends_the_wal_with_its_reason(void **state)
{
    static const struct {
        const char *reason;
        uint32_t offset;
        uint8_t value;
        bool seal;
    } cases[] = {
        {"magic", ON_PAGE + 1, 0xD2, false},
        {"flags 1001", ON_PAGE + 3, 0x10, false},
        {"flags 0003", ON_PAGE + 2, 0x03, false},
        {"does not continue", ON_PAGE + 2, 0x00, false},
        {"timeline 0", ON_PAGE + 4, 0, false},
        {"has address", ON_PAGE + 9, 0x77, false},
        {"remain by its page", ON_PAGE + 16, 0x55, false},
        {"wrong CRC", ON_PAGE + 30, 0xEE, false},
        {"wrong CRC", 4, 0xEE, false},
        {"wrong CRC", 16, 0xEE, false},
        {"wrong CRC", 20, 0xEE, false},
        {"wrong CRC", 100, 0xEE, false},
        {"links back", 8, 0xEE, true},
        {"unknown resource manager 22", 17, 22, true},
        {"unknown resource manager 127", 17, 127, true},
        {"length is zero", 0, 0, false},
        {"record length 23", 0, 23, false},
        {"record length 4278190280", 3, 0xFF, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Patient patient;
        make_patient(&patient);
        const bool on_page = cases[i].offset >= ON_PAGE;
        const uint64_t from = on_page ? base : patient.victim;

        *wal_builder_at(&patient.builder, from + cases[i].offset) = cases[i].value;
        if (cases[i].seal)
            wal_builder_seal(&patient.builder, patient.victim);
        SCOPED(WalReader) reader = reader_at(&patient.builder, base, false);
        expect_end(reader, on_page ? patient.first_end : patient.victim, cases[i].reason);
        wal_builder_free(&patient.builder);
    }
}

static void
test_a_custom_resource_manager_is_no_damage(void **state)
{
    Patient patient;

    (void)state;
    make_patient(&patient);
    *wal_builder_at(&patient.builder, patient.victim + 17) = 128;
    wal_builder_seal(&patient.builder, patient.victim);
    SCOPED(WalReader) reader = reader_at(&patient.builder, base, false);
    expect_end(reader, patient.builder.next_lsn, "length is zero");
    wal_builder_free(&patient.builder);
}

static void
test_missing_and_empty_pages_end_the_wal(void **state)
{
    Patient patient;

    (void)state;
    make_patient(&patient);
    memset(wal_builder_at(&patient.builder, base + WAL_PAGE_SIZE), 0, WAL_PAGE_SIZE);
    {
        SCOPED(WalReader) reader = reader_at(&patient.builder, base, false);
        expect_end(reader, patient.first_end, "empty WAL page");
    }
    patient.builder.size = WAL_PAGE_SIZE;
    SCOPED(WalReader) reader = reader_at(&patient.builder, base, false);
    expect_end(reader, patient.first_end, "at 3/2000: no WAL there");
    wal_builder_free(&patient.builder);
}

static void
test_a_segment_must_be_this_clusters(void **state)
{
    static const struct {
        const char *reason;
        uint32_t offset;
    } cases[] = {{"another cluster", 24}, {"segment size", 34}, {"block size", 37}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Patient patient;
        make_patient(&patient);
        *wal_builder_at(&patient.builder, base + cases[i].offset) ^= 0x40;
        SCOPED(WalReader) reader = reader_at(&patient.builder, base, false);
        expect_end(reader, base, cases[i].reason);
        wal_builder_free(&patient.builder);
    }
}

static void
test_timelines_may_rise_but_not_fall(void **state)
{
    WalBuilder builder;

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    builder.timeline = 4;
    wal_builder_fill_page(&builder, 0);
    builder.timeline = 5;
    wal_builder_fill_page(&builder, 0);
    const uint64_t fall_lsn = builder.next_lsn;
    builder.timeline = 4;
    wal_builder_fill_page(&builder, 0);

    SCOPED(WalReader) reader = reader_at(&builder, base, false);
    expect_end(reader, fall_lsn, "timeline 4 after timeline 5");
    wal_builder_free(&builder);
}

static void
test_a_page_that_continues_nothing_ends_the_wal(void **state)
{
    WalBuilder builder;

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    wal_builder_fill_page(&builder, 0);
    const uint64_t end_lsn = builder.next_lsn;
    wal_builder_filler(&builder, 100);
    *wal_builder_at(&builder, end_lsn + 2) |= WAL_PAGE_CONTINUES;

    SCOPED(WalReader) reader = reader_at(&builder, base, false);
    expect_end(reader, end_lsn, "nobody began");
    wal_builder_free(&builder);
}

static void
test_seeking_finds_the_first_record_at_or_after_the_lsn(void **state)
{
    enum { COUNT = 40 };
    uint64_t starts[COUNT + 1];
    WalBuilder builder;
    int next_index = 0;

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    for (int i = 0; i < COUNT; i++)
        starts[i] = wal_builder_filler(&builder, i % 7 == 0 ? 20000 : 400);
    wal_builder_switch(&builder);
    starts[COUNT] = wal_builder_commit(&builder, 6, noon_us);

    for (uint64_t lsn = base; lsn <= starts[COUNT - 1]; lsn += 40) {
        while (starts[next_index] < lsn)
            next_index++;
        SCOPED(WalReader) reader = reader_at(&builder, lsn, true);
        assert_int_equal(next(reader).start_lsn, starts[next_index]);
    }

    /* The rest of a switched segment is empty; the way leads through its beginning. */
    SCOPED(WalReader) reader = reader_at(&builder, base + SEGMENT - 5 * WAL_PAGE_SIZE, true);
    assert_int_equal(next(reader).start_lsn, starts[COUNT]);
    wal_builder_free(&builder);
}

typedef struct {
    WalBuilder *builder;
    int countdown;
} FlakySource;

static bool
flaky_source(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    FlakySource *flaky = context;

    if (--flaky->countdown == 0)
        return cairn_error(err, CAIRN_UNAVAILABLE, "storage is away");
    return wal_builder_source(flaky->builder, lsn, page, present_out, err);
}

static void
test_the_sources_failure_is_an_error_that_a_retry_outlives(void **state)
{
    WalBuilder builder;

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    for (int i = 0; i < 30; i++)
        wal_builder_filler(&builder, 20000);
    const uint64_t last_lsn = builder.previous_lsn;

    for (int countdown = 1; countdown < 60; countdown++) {
        FlakySource flaky = {.builder = &builder, .countdown = countdown};
        CairnError err = {0};
        WalRecord record = {0};
        uint64_t last_seen = 0;
        bool found = true;
        int failures = 0;

        SCOPED(WalReader)
        reader = wal_reader_new(flaky_source, &flaky, builder.major, builder.segment_size,
                                builder.system_id, base, countdown % 2 == 0, &err);
        assert_non_null(reader);
        while (found) {
            if (!wal_reader_next(reader, &record, &found, &err)) {
                assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
                failures++;
            } else if (found) {
                last_seen = record.start_lsn;
            }
        }
        assert_int_equal(failures, 1);
        assert_int_equal(last_seen, last_lsn);
    }
    wal_builder_free(&builder);
}

static void
test_a_reader_refuses_impossible_starts(void **state)
{
    static const uint64_t offsets[] = {1, 8, 32, WAL_PAGE_SIZE + 16, WAL_PAGE_SIZE + 28};
    WalBuilder builder;

    (void)state;
    wal_builder_init(&builder, 15, SEGMENT, base);
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        CairnError err = {0};
        assert_null(wal_reader_new(wal_builder_source, &builder, 15, SEGMENT, 1, base + offsets[i],
                                   false, &err));
        assert_int_equal(err.kind, CAIRN_USAGE);
    }
    CairnError err = {0};
    assert_null(wal_reader_new(wal_builder_source, &builder, 14, SEGMENT, 1, base, false, &err));
    assert_int_equal(err.kind, CAIRN_UNSUPPORTED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_are_read_across_pages_and_segments),
        cmocka_unit_test(test_records_may_be_split_at_every_aligned_byte),
        cmocka_unit_test(test_a_switch_leads_to_the_next_segment),
        cmocka_unit_test(test_a_switch_that_ends_the_segment_exactly_skips_nothing),
        cmocka_unit_test(test_an_overwritten_record_is_passed_over),
        cmocka_unit_test(test_an_overwritten_record_must_be_declared_void),
        cmocka_unit_test(test_prepared_transactions_end_under_their_own_xid),
        cmocka_unit_test(test_marker_records_are_decoded),
        cmocka_unit_test(test_a_commit_may_name_its_origin),
        cmocka_unit_test(test_malformed_bodies_end_the_wal),
        cmocka_unit_test(test_records_over_the_limit_are_checked_and_passed),
        cmocka_unit_test(test_damage_ends_the_wal_with_its_reason),
        cmocka_unit_test(test_a_custom_resource_manager_is_no_damage),
        cmocka_unit_test(test_missing_and_empty_pages_end_the_wal),
        cmocka_unit_test(test_a_segment_must_be_this_clusters),
        cmocka_unit_test(test_timelines_may_rise_but_not_fall),
        cmocka_unit_test(test_a_page_that_continues_nothing_ends_the_wal),
        cmocka_unit_test(test_seeking_finds_the_first_record_at_or_after_the_lsn),
        cmocka_unit_test(test_the_sources_failure_is_an_error_that_a_retry_outlives),
        cmocka_unit_test(test_a_reader_refuses_impossible_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
