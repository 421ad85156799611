/* Records along a path: the segments of its timelines, one open at a time. */
#include "repository/wal_archive_intern.h"

#include "repository/wal_object.h"

#include <stdlib.h>

struct WalArchiveReader {
    WalArchive *archive;
    const TimelineHistory *path;
    WalReader *records;
    WalSegmentReader *segment;
    uint64_t segment_number; /* of segment; meaningless when it is NULL */
    uint64_t end_lsn;        /* nothing from here on is looked at */
};

uint32_t
wal_archive_reader_timeline(const WalArchiveReader *reader, uint64_t lsn)
{
    const uint32_t segment_size = wal_archive_segment_size(reader->archive);
    const TimelineStretch *stretch =
        wal_archive_stretch(reader->path, wal_segment_of(lsn, segment_size), segment_size);

    return stretch != NULL ? stretch->timeline : 0;
}

/*
 * The whole segment, or what there is of an unfinished one. While its pieces are read it may have
 * become whole, and they went.
 */
static WalSegmentReader *
open_segment(WalArchiveReader *reader, uint32_t timeline, uint64_t number, CairnError *err)
{
    WalStore *store = reader->archive->store;
    uint32_t size;

    WalSegmentReader *segment = wal_store_read(store, timeline, number, err);
    const WalTimeline *known = wal_archive_find(reader->archive, timeline);
    if (segment != NULL || err->kind != CAIRN_NOT_FOUND || known == NULL ||
        known->unfinished_size == 0 || known->unfinished_segment != number)
        return segment;
    cairn_error_clear(err);
    segment = wal_store_read_pieces(store, timeline, number, &size, err);
    if (segment != NULL || err->kind != CAIRN_NOT_FOUND)
        return segment;
    cairn_error_clear(err);
    return wal_store_read(store, timeline, number, err);
}

/* WalPageSource over the segments of a path. */
static bool
archive_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    WalArchiveReader *reader = context;
    const uint32_t segment_size = wal_archive_segment_size(reader->archive);
    const uint64_t number = wal_segment_of(lsn, segment_size);

    if (lsn >= reader->end_lsn) {
        *present_out = false;
        return true;
    }
    if (reader->segment == NULL || reader->segment_number != number) {
        const uint32_t timeline = wal_archive_reader_timeline(reader, lsn);
        wal_segment_reader_free(take(&reader->segment));
        reader->segment = timeline != 0 ? open_segment(reader, timeline, number, err) : NULL;
        reader->segment_number = number;
    }
    if (reader->segment == NULL) {
        if (err->kind != CAIRN_OK && err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        *present_out = false;
        return true;
    }
    *present_out = true;
    if (wal_segment_reader_pread(reader->segment, page, 8192, lsn % segment_size, err))
        return true;
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    /* A piece went while we read: the segment is whole now, and says the same. */
    cairn_error_clear(err);
    wal_segment_reader_free(take(&reader->segment));
    reader->segment = open_segment(reader, wal_archive_reader_timeline(reader, lsn), number, err);
    return reader->segment != NULL &&
           wal_segment_reader_pread(reader->segment, page, 8192, lsn % segment_size, err);
}

WalArchiveReader *
wal_archive_read(WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn, bool seek,
                 CairnError *err)
{
    const Incarnation *incarnation = wal_store_incarnation(archive->store);
    SCOPED(WalArchiveReader) reader = calloc(1, sizeof *reader);

    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->archive = archive;
    reader->path = path;
    reader->end_lsn = UINT64_MAX;
    reader->records =
        wal_reader_new(archive_page, reader, incarnation->major, incarnation->wal_segment_size,
                       incarnation->system_id, start_lsn, seek, err);
    return reader->records != NULL ? take(&reader) : NULL;
}

void
wal_archive_reader_free(WalArchiveReader *reader)
{
    if (reader == NULL)
        return;
    wal_reader_free(reader->records);
    wal_segment_reader_free(reader->segment);
    free(reader);
}

WalReader *
wal_archive_reader_records(WalArchiveReader *reader)
{
    return reader->records;
}

void
wal_archive_reader_end_at(WalArchiveReader *reader, uint64_t end_lsn)
{
    reader->end_lsn = end_lsn;
}
