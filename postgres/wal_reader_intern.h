/*
 * The reader's state, for the two files that make it up: wal_reader_page.c enters pages and checks
 * them, wal_reader.c makes records of what they hold. Private to them.
 */
#ifndef PGCAIRN_POSTGRES_WAL_READER_INTERN_H
#define PGCAIRN_POSTGRES_WAL_READER_INTERN_H

#include "common/bytes.h"
#include "postgres/wal_page.h"
#include "postgres/wal_reader.h"
#include "postgres/wal_record.h"

#define NO_PAGE UINT64_MAX

/* END: valid WAL ends here and end_reason says why. FAILED: err is filled. */
typedef enum { READ_GOOD, READ_END, READ_FAILED } ReadOutcome;

/* A record on its way through one or more pages. */
typedef struct {
    uint64_t start_lsn;
    uint32_t total_size;
    uint32_t got;
    uint32_t crc; /* of the body so far */
    bool wanted;
    uint8_t header[WAL_RECORD_HEADER_SIZE];
    const uint8_t *body; /* in the page, or as much as is kept in the reader's buffer */
    size_t body_size;
    uint64_t end_lsn;
} Assembly;

struct WalReader {
    WalPageSource *source;
    void *context;
    int major;
    uint16_t magic;
    uint32_t segment_size;
    uint64_t system_id;

    uint64_t seek_lsn; /* records before it are read, but not handed out */
    bool positioned;   /* false until a seek has found where a record begins */
    uint64_t next_lsn;
    uint64_t previous_lsn; /* start of the record read last */
    bool has_previous;
    uint64_t
        void_lsn; /* start of an interrupted record that the next one must declare void; or 0 */

    uint64_t page_lsn;
    uint64_t highest_page_lsn; /* timelines may not fall from page to page */
    uint32_t highest_timeline;

    uint32_t record_limit; /* longer ones are not kept whole */
    uint8_t *buffer;       /* body of a record that crosses pages */
    size_t buffer_capacity;
    WalRecord record; /* the one handed out last, and its body */
    const uint8_t *body;
    size_t body_size;
    Assembly partial; /* the record that the end of valid WAL cut off; total_size 0: none */

    bool ended;
    uint64_t end_lsn;
    char end_reason[200];

    _Alignas(64) uint8_t page[WAL_PAGE_SIZE];
};

/* Notes that valid WAL ends, because of what stands at lsn. */
ReadOutcome wal_reader_end_at(WalReader *reader, uint64_t lsn, const char *format, ...)
    PRINTF_LIKE(3, 4);

/* Reads the page at lsn, checks it, and makes it the current one. */
ReadOutcome wal_reader_fetch_page(WalReader *reader, uint64_t lsn, CairnError *err) MUST_CHECK;

static inline uint64_t
page_start(uint64_t lsn)
{
    return lsn & ~(uint64_t)(WAL_PAGE_SIZE - 1);
}

/* Size of the header of the page that holds lsn. */
static inline uint32_t
header_size_at(const WalReader *reader, uint64_t lsn)
{
    /* Segment sizes are powers of two, and a division for each record would be felt. */
    return (page_start(lsn) & (reader->segment_size - 1)) == 0 ? WAL_LONG_HEADER_SIZE
                                                               : WAL_SHORT_HEADER_SIZE;
}

static inline uint16_t
page_flags(const WalReader *reader)
{
    return get_u16(reader->page + 2);
}

/* Bytes of the continued record from this page's data on. */
static inline uint32_t
page_remaining(const WalReader *reader)
{
    return get_u32(reader->page + 16);
}

/* Makes the page at lsn the current one. */
static inline ReadOutcome
enter_page(WalReader *reader, uint64_t lsn, CairnError *err)
{
    return reader->page_lsn == lsn ? READ_GOOD : wal_reader_fetch_page(reader, lsn, err);
}

#endif
