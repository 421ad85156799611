/*
 * Invariants:
 * 1. next_lsn is where the next record begins, or the start of the page whose first record it is.
 * 2. page holds the page at page_lsn, checked, exactly when page_lsn != NO_PAGE.
 * 3. next_lsn only rises, so every pass ends.
 * 4. Nothing of a record is believed before its CRC was right, but its length, which is bounded and
 *    checked against every page it reaches.
 */
#include "postgres/wal_reader.h"

#include "common/digest.h"
#include "postgres/wal_name.h"
#include "postgres/wal_reader_intern.h"
#include "postgres/wal_record_parts.h"

#include <stdlib.h>
#include <string.h>

enum { RECORD_ALIGNMENT = 8, CRC_OFFSET = 20 };

/* Built-in resource managers of 15 to 18, and the range that extensions register in. */
enum { RMGR_BUILTIN_LAST = 21, RMGR_CUSTOM_FIRST = 128 };

/* What is kept of a record over the limit; a commit's time stands at the front. */
enum { RECORD_PREFIX = 4096 };

/* 16 and up write at most 1020 MiB; 15 states no limit, but its memory allocator sets this one. */
static const uint32_t record_size_limit = UINT32_C(1) << 30;

static uint64_t
align_record(uint64_t lsn)
{
    return (lsn + RECORD_ALIGNMENT - 1) & ~(uint64_t)(RECORD_ALIGNMENT - 1);
}

/* The first segment boundary at or after lsn. */
static uint64_t
align_segment(const WalReader *reader, uint64_t lsn)
{
    return (lsn + reader->segment_size - 1) & ~(uint64_t)(reader->segment_size - 1);
}

static ReadOutcome
check_record_header(WalReader *reader, const Assembly *assembly)
{
    const uint8_t resource_manager = assembly->header[17];
    const uint64_t previous_lsn = get_u64(assembly->header + 8);

    if (resource_manager > RMGR_BUILTIN_LAST && resource_manager < RMGR_CUSTOM_FIRST) {
        return wal_reader_end_at(reader, assembly->start_lsn, "unknown resource manager %u",
                                 resource_manager);
    }
    if (reader->has_previous ? previous_lsn != reader->previous_lsn
                             : previous_lsn >= assembly->start_lsn) {
        char link[LSN_TEXT_SIZE];
        lsn_format(link, previous_lsn);
        return wal_reader_end_at(reader, assembly->start_lsn, "record links back to %s, wrongly",
                                 link);
    }
    return READ_GOOD;
}

/* Appends to the buffer, which grows with the bytes that came, not with the length announced. */
static bool
keep_body(WalReader *reader, Assembly *assembly, const uint8_t *data, size_t size, CairnError *err)
{
    if (!assembly->wanted || assembly->total_size > reader->record_limit) {
        const size_t kept = assembly->wanted ? RECORD_PREFIX : WAL_RECORD_HEADERS_LIMIT;
        const size_t room = kept - assembly->body_size;
        if (room == 0)
            return true;
        size = size < room ? size : room;
    }

    const size_t needed = assembly->body_size + size;
    if (needed > reader->buffer_capacity) {
        size_t capacity = reader->buffer_capacity > 0 ? reader->buffer_capacity : 4 * WAL_PAGE_SIZE;
        while (capacity < needed)
            capacity *= 2;
        uint8_t *grown = realloc(reader->buffer, capacity);
        if (grown == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory for a WAL record");
        reader->buffer = grown;
        reader->buffer_capacity = capacity;
    }
    memcpy(reader->buffer + assembly->body_size, data, size);
    assembly->body = reader->buffer;
    assembly->body_size = needed;
    return true;
}

/* Takes the record's next bytes, which lie in the current page. */
static ReadOutcome
take_fragment(WalReader *reader, Assembly *assembly, const uint8_t *data, uint32_t size,
              CairnError *err)
{
    const bool whole = size == assembly->total_size;

    if (assembly->got < WAL_RECORD_HEADER_SIZE) {
        const uint32_t missing = WAL_RECORD_HEADER_SIZE - assembly->got;
        const uint32_t taken = size < missing ? size : missing;

        if (taken ==
            WAL_RECORD_HEADER_SIZE) /* nearly always, and of known size is a good deal faster */
            memcpy(assembly->header, data, WAL_RECORD_HEADER_SIZE);
        else
            memcpy(assembly->header + assembly->got, data, taken);
        assembly->got += taken;
        data += taken;
        size -= taken;
        if (assembly->got < WAL_RECORD_HEADER_SIZE)
            return READ_GOOD;
        ReadOutcome outcome = check_record_header(reader, assembly);
        if (outcome != READ_GOOD)
            return outcome;
        assembly->wanted = wal_record_may_be_wanted(assembly->header[17], assembly->header[16]) &&
                           wal_record_is_wanted(assembly->header[17], assembly->header[16]);
    }

    assembly->crc = crc32c(assembly->crc, data, size);
    assembly->got += size;
    if (size == 0)
        return READ_GOOD;
    if (whole) {
        assembly->body = data;
        assembly->body_size = size;
        return READ_GOOD;
    }
    return keep_body(reader, assembly, data, size, err) ? READ_GOOD : READ_FAILED;
}

/* What a page was found to be where a record should continue. */
typedef enum { CONTINUES, OVERWRITTEN } Continuation;

static ReadOutcome
enter_continuation(WalReader *reader, const Assembly *assembly, uint64_t page_lsn,
                   Continuation *continuation_out, CairnError *err)
{
    ReadOutcome outcome = enter_page(reader, page_lsn, err);
    if (outcome != READ_GOOD)
        return outcome;

    if (page_flags(reader) & WAL_PAGE_OVERWRITE) {
        *continuation_out = OVERWRITTEN;
        return READ_GOOD;
    }
    if ((page_flags(reader) & WAL_PAGE_CONTINUES) == 0)
        return wal_reader_end_at(reader, page_lsn,
                                 "the record before this WAL page does not continue on it");
    if (page_remaining(reader) != assembly->total_size - assembly->got) {
        return wal_reader_end_at(reader, page_lsn,
                                 "%u bytes of a record remain by its page, %u by its length",
                                 page_remaining(reader), assembly->total_size - assembly->got);
    }
    *continuation_out = CONTINUES;
    return READ_GOOD;
}

/* Makes an Assembly for the record at next_lsn, whose page becomes the current one. */
static inline ReadOutcome
begin_record(WalReader *reader, Assembly *assembly, CairnError *err)
{
    uint64_t lsn = reader->next_lsn;
    const uint32_t header_size = header_size_at(reader, lsn);

    ReadOutcome outcome = enter_page(reader, page_start(lsn), err);
    if (outcome != READ_GOOD)
        return outcome;
    if (lsn % WAL_PAGE_SIZE == 0)
        lsn += header_size;
    if (lsn % WAL_PAGE_SIZE == header_size && (page_flags(reader) & WAL_PAGE_CONTINUES))
        return wal_reader_end_at(reader, lsn, "WAL page continues a record that nobody began");

    /* Alignment keeps the length on the record's first page. */
    const uint32_t total_size = get_u32(reader->page + lsn % WAL_PAGE_SIZE);
    if (total_size == 0)
        return wal_reader_end_at(reader, lsn, "no record (its length is zero)");
    if (total_size < WAL_RECORD_HEADER_SIZE || total_size > record_size_limit)
        return wal_reader_end_at(reader, lsn, "impossible record length %u", total_size);

    *assembly = (Assembly){.start_lsn = lsn, .total_size = total_size, .body = reader->page};
    return READ_GOOD;
}

/*
 * Frames the record at next_lsn and checks its CRC. A record whose continuation was overwritten
 * after a crash is passed over: the server went on with the page that says so.
 */
static ReadOutcome
assemble_record(WalReader *reader, Assembly *assembly, CairnError *err)
{
    ReadOutcome outcome = begin_record(reader, assembly, err);
    if (outcome != READ_GOOD)
        return outcome;

    uint64_t lsn = assembly->start_lsn;
    while (outcome == READ_GOOD) {
        const uint32_t room = WAL_PAGE_SIZE - (uint32_t)(lsn % WAL_PAGE_SIZE);
        const uint32_t left = assembly->total_size - assembly->got;
        const uint32_t size = left < room ? left : room;
        Continuation continuation = CONTINUES;

        outcome = take_fragment(reader, assembly, reader->page + lsn % WAL_PAGE_SIZE, size, err);
        lsn += size;
        if (outcome != READ_GOOD || assembly->got == assembly->total_size)
            break;

        outcome = enter_continuation(reader, assembly, lsn, &continuation, err);
        if (outcome == READ_GOOD && continuation == OVERWRITTEN) {
            reader->void_lsn = assembly->start_lsn;
            reader->next_lsn = lsn;
            outcome = begin_record(reader, assembly, err);
            lsn = assembly->start_lsn;
        } else {
            lsn += header_size_at(reader, lsn);
        }
    }
    if (outcome == READ_END && assembly->got > 0 && assembly->start_lsn != reader->void_lsn)
        reader->partial = *assembly;
    if (outcome != READ_GOOD)
        return outcome;

    if (crc32c(assembly->crc, assembly->header, CRC_OFFSET) !=
        get_u32(assembly->header + CRC_OFFSET))
        return wal_reader_end_at(reader, assembly->start_lsn, "record with a wrong CRC");
    assembly->end_lsn = align_record(lsn);
    return READ_GOOD;
}

/* After an interrupted record PostgreSQL accepts nothing but the record that declares it void. */
static ReadOutcome
check_overwrite(WalReader *reader, const Assembly *assembly, const WalRecord *record)
{
    uint64_t overwritten_lsn;

    if (reader->void_lsn == 0)
        return READ_GOOD;
    if (!assembly->wanted ||
        !wal_record_overwritten(record, assembly->body, assembly->body_size, &overwritten_lsn) ||
        overwritten_lsn != reader->void_lsn) {
        return wal_reader_end_at(reader, record->start_lsn,
                                 "an interrupted record is not declared void by its successor");
    }
    reader->void_lsn = 0;
    return READ_GOOD;
}

/* The next record into reader->record. */
static ReadOutcome
read_record(WalReader *reader, CairnError *err)
{
    WalRecord *record = &reader->record;
    Assembly assembly;

    ReadOutcome outcome = assemble_record(reader, &assembly, err);
    if (outcome != READ_GOOD)
        return outcome;

    if (record->kind != WAL_RECORD_OTHER) /* else the rest is zero already */
        *record = (WalRecord){0};
    record->start_lsn = assembly.start_lsn;
    record->end_lsn = assembly.end_lsn;
    record->previous_lsn = get_u64(assembly.header + 8);
    record->total_size = assembly.total_size;
    record->xid = get_u32(assembly.header + 4);
    record->resource_manager = assembly.header[17];
    record->info = assembly.header[16];
    outcome = check_overwrite(reader, &assembly, record);
    if (outcome != READ_GOOD)
        return outcome;
    if (assembly.wanted &&
        !wal_record_decode(reader->major, assembly.body, assembly.body_size, record)) {
        return wal_reader_end_at(reader, record->start_lsn,
                                 "record of resource manager %u, info %02X, has a malformed body",
                                 record->resource_manager, record->info);
    }

    /* The server leaves the rest of a switched segment empty. */
    if (record->kind == WAL_RECORD_SWITCH)
        record->end_lsn = align_segment(reader, record->end_lsn);
    reader->next_lsn = record->end_lsn;
    reader->end_lsn = record->end_lsn;
    reader->previous_lsn = record->start_lsn;
    reader->has_previous = true;
    reader->body = assembly.body;
    reader->body_size = assembly.body_size;
    return READ_GOOD;
}

/* Sets next_lsn to the first record that begins on the page at lsn or on a later one. */
static ReadOutcome
find_record(WalReader *reader, uint64_t lsn, CairnError *err)
{
    for (;; lsn += WAL_PAGE_SIZE) {
        ReadOutcome outcome = enter_page(reader, lsn, err);
        if (outcome != READ_GOOD)
            return outcome;

        uint64_t data_lsn = lsn + header_size_at(reader, lsn);
        if (page_flags(reader) & WAL_PAGE_CONTINUES)
            data_lsn = align_record(data_lsn + page_remaining(reader));
        else
            data_lsn = lsn;
        if (data_lsn <= lsn + WAL_PAGE_SIZE) {
            reader->next_lsn = data_lsn;
            reader->end_lsn = data_lsn;
            reader->positioned = true;
            return READ_GOOD;
        }
    }
}

/* Finds where a record begins at or before seek_lsn, or soon after. */
static ReadOutcome
position(WalReader *reader, CairnError *err)
{
    const uint64_t page_lsn = page_start(reader->seek_lsn);
    const uint64_t segment_lsn = reader->seek_lsn - reader->seek_lsn % reader->segment_size;

    ReadOutcome outcome = find_record(reader, page_lsn, err);
    if (outcome == READ_END && page_lsn != segment_lsn) {
        /* In the empty rest of a switched segment; its beginning leads through the switch. */
        reader->ended = false;
        outcome = find_record(reader, segment_lsn, err);
    }
    return outcome;
}

bool
wal_reader_advance(WalReader *reader, const WalRecord **record_out, CairnError *err)
{
    ReadOutcome outcome = READ_END;

    if (!reader->ended) {
        outcome = reader->positioned ? READ_GOOD : position(reader, err);
        do {
            if (outcome == READ_GOOD)
                outcome = read_record(reader, err);
        } while (outcome == READ_GOOD && reader->record.start_lsn < reader->seek_lsn);
    }

    if (outcome == READ_FAILED)
        return false;
    *record_out = outcome == READ_GOOD ? &reader->record : NULL;
    return true;
}

bool
wal_reader_next(WalReader *reader, WalRecord *record_out, bool *found_out, CairnError *err)
{
    const WalRecord *record;

    if (!wal_reader_advance(reader, &record, err))
        return false;
    if (record != NULL)
        *record_out = *record;
    *found_out = record != NULL;
    return true;
}

/* A record can begin there: aligned, and not inside a page header. */
static bool
is_record_position(const WalReader *reader, uint64_t lsn)
{
    const uint64_t offset = lsn % WAL_PAGE_SIZE;

    return lsn % RECORD_ALIGNMENT == 0 && (offset == 0 || offset >= header_size_at(reader, lsn));
}

WalReader *
wal_reader_new(WalPageSource *source, void *context, int major, uint32_t segment_size,
               uint64_t system_id, uint64_t start_lsn, bool seek, CairnError *err)
{
    const uint16_t magic = wal_magic_of_major(major);

    CAIRN_ASSERT(wal_segment_size_valid(segment_size));
    if (magic == 0) {
        cairn_error(err, CAIRN_UNSUPPORTED, "unable to read WAL of PostgreSQL %d", major);
        return NULL;
    }

    WalReader *reader = aligned_alloc(_Alignof(WalReader), sizeof *reader);
    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory for a WAL reader");
        return NULL;
    }
    *reader = (WalReader){
        .source = source,
        .context = context,
        .major = major,
        .magic = magic,
        .segment_size = segment_size,
        .system_id = system_id,
        .seek_lsn = seek ? start_lsn : 0,
        .positioned = !seek,
        .next_lsn = start_lsn,
        .end_lsn = start_lsn,
        .record_limit = WAL_RECORD_LIMIT,
        .page_lsn = NO_PAGE,
    };
    if (!seek && !is_record_position(reader, start_lsn)) {
        char lsn[LSN_TEXT_SIZE];
        lsn_format(lsn, start_lsn);
        cairn_error(err, CAIRN_USAGE, "no WAL record can begin at %s", lsn);
        wal_reader_free(reader);
        return NULL;
    }
    return reader;
}

void
wal_reader_free(WalReader *reader)
{
    if (reader == NULL)
        return;
    free(reader->buffer);
    free(reader);
}

uint64_t
wal_reader_end_lsn(const WalReader *reader)
{
    return reader->end_lsn;
}

const char *
wal_reader_end_reason(const WalReader *reader)
{
    return reader->end_reason;
}

void
wal_reader_limit(WalReader *reader, uint32_t limit)
{
    reader->record_limit = limit;
}

const uint8_t *
wal_reader_body(const WalReader *reader, size_t *size_out)
{
    *size_out = reader->body_size;
    return reader->body;
}

bool
wal_reader_partial(const WalReader *reader, WalPartialRecord *partial_out)
{
    const Assembly *assembly = &reader->partial;

    if (!reader->ended || assembly->total_size == 0)
        return false;
    *partial_out = (WalPartialRecord){
        .start_lsn = assembly->start_lsn,
        .total_size = assembly->total_size,
        .seen_size = assembly->got,
        .body = assembly->body,
        .body_size = assembly->body_size,
    };
    memcpy(partial_out->header, assembly->header, sizeof partial_out->header);
    return true;
}
