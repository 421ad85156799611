/* Facts of segments that are stored: those that came with them, or collected from their bytes. */
#include "postgres/wal_page.h"
#include "repository/wal_facts_format.h"
#include "repository/wal_object.h"

static WalIdentity
segment_identity(const WalStore *store, uint32_t timeline, uint64_t segment_number)
{
    const Incarnation *incarnation = store->incarnation;

    return (WalIdentity){
        .major = incarnation->major,
        .system_id = incarnation->system_id,
        .timeline = timeline,
        .lsn = segment_number * incarnation->wal_segment_size,
        .segment_size = incarnation->wal_segment_size,
    };
}

/* NULL with no error when there are none that can be read: facts are only advice. */
static WalFacts *
read_stored(WalStore *store, const WalIdentity *segment, uint64_t segment_number, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT + 1];
    char file_name[WAL_NAME_SIZE];
    WalFileName file;

    wal_segment_name(file_name, segment->timeline, segment_number, segment->segment_size);
    if (!wal_file_name_parse(file_name, &file, err) ||
        !wal_object_name(store, &file, file_name, NULL, name, err))
        return NULL;
    SCOPED(WalObject) object = wal_object_open(store, name, &file, err);
    if (object == NULL || object->index.facts_size == 0)
        return NULL;
    WalFacts *facts =
        wal_facts_parse(object->index.facts_data, object->index.facts_size, segment, err);
    if (facts == NULL && err->kind != CAIRN_INTERNAL)
        cairn_error_clear(err);
    return facts;
}

typedef struct {
    WalSegmentReader *reader;
    uint64_t start_lsn;
} StoredPages;

static bool
stored_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    StoredPages *pages = context;

    *present_out = true;
    return wal_segment_reader_pread(pages->reader, page, WAL_PAGE_SIZE, lsn - pages->start_lsn,
                                    err);
}

WalFacts *
wal_store_facts(WalStore *store, uint32_t timeline, uint64_t segment_number, bool *stored_out,
                CairnError *err)
{
    const WalIdentity segment = segment_identity(store, timeline, segment_number);
    WalFacts *facts = read_stored(store, &segment, segment_number, err);

    if (facts != NULL) {
        *stored_out = true;
        return facts;
    }
    if (err->kind != CAIRN_OK)
        return NULL;
    SCOPED(WalSegmentReader) reader = wal_store_read(store, timeline, segment_number, err);
    if (reader == NULL)
        return NULL;
    StoredPages pages = {.reader = reader, .start_lsn = segment.lsn};
    facts = wal_facts_collect(stored_page, &pages, &segment, err);
    *stored_out = false;
    return facts;
}

WalFacts *
wal_store_facts_unfinished(WalStore *store, uint32_t timeline, uint64_t segment_number,
                           CairnError *err)
{
    const WalIdentity segment = segment_identity(store, timeline, segment_number);
    uint32_t size;
    SCOPED(WalSegmentReader)
    reader = wal_store_read_pieces(store, timeline, segment_number, &size, err);

    if (reader == NULL)
        return NULL;
    StoredPages pages = {.reader = reader, .start_lsn = segment.lsn};
    return wal_facts_collect(stored_page, &pages, &segment, err);
}
