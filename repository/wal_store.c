#include "repository/wal_store.h"

#include "common/file.h"
#include "postgres/wal_page.h"
#include "repository/wal_history.h"
#include "repository/wal_object.h"
#include "repository/wal_piece.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SEGMENT_DIGITS = 24, PARTIAL_DIGEST_BYTES = 4 };
enum { ZEROS_SIZE = 128 << 10 };

WalStore *
wal_store_open(Repository *repository, const char *cluster, const Incarnation *incarnation,
               CairnError *err)
{
    char incarnation_text[INCARNATION_NAME_SIZE];

    if (!cluster_name_valid(cluster)) {
        cairn_error(err, CAIRN_USAGE, "'%s' is not the name of a cluster", cluster);
        return NULL;
    }
    CAIRN_ASSERT(wal_segment_size_valid(incarnation->wal_segment_size));
    WalStore *store = calloc(1, sizeof *store);
    if (store == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    store->repository = repository;
    store->incarnation = incarnation;
    incarnation_name(incarnation_text, incarnation->system_id, incarnation->major);
    snprintf(store->prefix, sizeof store->prefix, "c/%s/w/%s", cluster, incarnation_text);
    return store;
}

void
wal_store_close(WalStore *store)
{
    if (store == NULL)
        return;
    if (store->codec != NULL)
        codec_close(store->codec);
    if (store->digest != NULL)
        keyed_digest_free(store->digest);
    free(store->raw);
    free(store->stored);
    free(store);
}

const Incarnation *
wal_store_incarnation(const WalStore *store)
{
    return store->incarnation;
}

bool
wal_store_prepare(WalStore *store, CairnError *err)
{
    if (store->codec == NULL && (store->codec = repository_codec(store->repository, err)) == NULL)
        return false;
    CAIRN_ASSERT(codec_bound(store->codec, WAL_FRAME_SIZE) <= WAL_STORED_LIMIT);
    if (store->digest == NULL &&
        (store->digest = repository_digest(store->repository, DIGEST_WAL, err)) == NULL)
        return false;
    if (store->raw == NULL)
        store->raw = malloc(WAL_FRAME_SIZE);
    if (store->stored == NULL)
        store->stored = malloc(WAL_STORED_LIMIT);
    if (store->raw == NULL || store->stored == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return true;
}

bool
wal_store_compress(WalStore *store, size_t size, ObjectBlock *block_out, CairnError *err)
{
    ObjectBlock block = {.data = store->stored, .raw_size = (uint32_t)size};
    size_t stored_size;

    if (!codec_compress(store->codec, store->raw, size, store->stored, WAL_STORED_LIMIT,
                        &stored_size, &block.codec, err))
        return false;
    block.size = (uint32_t)stored_size;
    *block_out = block;
    return true;
}

uint64_t
wal_file_start_lsn(const WalFileName *file, uint32_t segment_size)
{
    if (file->kind == WAL_FILE_HISTORY || file->kind == WAL_FILE_BACKUP_HISTORY)
        return 0;
    return ((uint64_t)file->log << 32) + (uint64_t)file->low * segment_size;
}

bool
wal_object_name(const WalStore *store, const WalFileName *file, const char *file_name,
                const uint8_t *partial_digest, char name[STORAGE_NAME_LIMIT + 1], CairnError *err)
{
    const size_t size = STORAGE_NAME_LIMIT + 1;

    if (file->kind == WAL_FILE_HISTORY) {
        snprintf(name, size, "%.400s/%08" PRIX32 "/history", store->prefix, file->timeline);
        return true;
    }
    if (file->low >= wal_segments_per_log(store->incarnation->wal_segment_size)) {
        return cairn_error(err, CAIRN_MISMATCH,
                           "no segment '%.24s' can exist where segments have %" PRIu32 " bytes",
                           file_name, store->incarnation->wal_segment_size);
    }
    wal_store_name(store, file->timeline, file->log, file_name, name);
    if (file->kind == WAL_FILE_PARTIAL) {
        char hex[2 * PARTIAL_DIGEST_BYTES + 1];
        hex_encode(hex, partial_digest, PARTIAL_DIGEST_BYTES);
        const size_t length = strlen(name);
        snprintf(name + length, size - length, ".%s", hex);
    }
    return true;
}

/* Looks for the stored versions of a .partial. */
typedef struct {
    const char *file_name;
    size_t count;
    char found[WAL_FILE_NAME_LIMIT];
} PartialSearch;

static StorageListNext
match_partial(void *context, const StorageEntry *entry, CairnError *err)
{
    PartialSearch *search = context;
    const size_t size = strlen(search->file_name);

    (void)err;
    if (!entry->is_directory && strncmp(entry->name, search->file_name, size) == 0 &&
        entry->name[size] == '.' &&
        strlen(entry->name + size + 1) == 2 * (size_t)PARTIAL_DIGEST_BYTES) {
        search->count++;
        snprintf(search->found, sizeof search->found, "%s", entry->name);
    }
    return STORAGE_LIST_GO_ON;
}

static bool
search_partial(const WalStore *store, const WalFileName *file, const char *file_name,
               PartialSearch *search, CairnError *err)
{
    *search = (PartialSearch){.file_name = file_name};
    return wal_store_list_log(store, file->timeline, file->log, match_partial, search, err);
}

/*
 * The object of an archive name. A partial file may be stored in several versions: it is named by
 * its prefix when there is one, with its eight digits (`<segment>.partial.<8 hex>`) when there are
 * more.
 */
static bool
find_object(const WalStore *store, const char *file_name, WalFileName *file_out,
            char name[STORAGE_NAME_LIMIT + 1], CairnError *err)
{
    char plain[WAL_FILE_NAME_LIMIT];
    const size_t partial_size = SEGMENT_DIGITS + strlen(".partial");
    uint8_t digest[PARTIAL_DIGEST_BYTES];
    PartialSearch search;

    snprintf(plain, sizeof plain, "%s", file_name);
    const bool has_digest = strlen(plain) == partial_size + 1 + 2 * PARTIAL_DIGEST_BYTES &&
                            plain[partial_size] == '.' &&
                            hex_decode(digest, sizeof digest, plain + partial_size + 1);
    if (has_digest)
        plain[partial_size] = '\0';
    if (!wal_file_name_parse(plain, file_out, err))
        return false;
    if (file_out->kind != WAL_FILE_PARTIAL || has_digest)
        return wal_object_name(store, file_out, plain, digest, name, err);

    if (!search_partial(store, file_out, plain, &search, err))
        return false;
    if (search.count > 1) {
        cairn_error(err, CAIRN_CONFLICT, "%zu versions of '%s' are stored", search.count, plain);
        return cairn_error_hint(err, "name one of them, such as %s", search.found);
    }
    if (search.count == 0)
        return cairn_error(err, CAIRN_NOT_FOUND, "'%s' is not stored", plain);
    const uint8_t *start =
        hex_decode(digest, sizeof digest, search.found + partial_size + 1) ? digest : NULL;
    if (start == NULL)
        return cairn_error(err, CAIRN_CORRUPT, "'%s' is no name of a partial segment",
                           search.found);
    return wal_object_name(store, file_out, plain, start, name, err);
}

bool
wal_store_object_size(WalStore *store, const char *file_name, uint64_t *size_out, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT + 1];
    WalFileName file;

    return find_object(store, file_name, &file, name, err) &&
           storage_exists(repository_storage(store->repository), name, size_out, err);
}

bool
wal_store_segment_size(Storage *storage, const char *cluster, uint64_t system_id, int major,
                       const char *segment, uint64_t *size_out, CairnError *err)
{
    char incarnation[INCARNATION_NAME_SIZE];
    char name[STORAGE_NAME_LIMIT + 1];
    WalFileName file;

    if (!wal_file_name_parse(segment, &file, err))
        return false;
    if (file.kind != WAL_FILE_SEGMENT || !cluster_name_valid(cluster))
        return cairn_error(err, CAIRN_USAGE, "'%s' is no segment of a cluster", segment);
    incarnation_name(incarnation, system_id, major);
    snprintf(name, sizeof name, "c/%s/w/%s/%08" PRIX32 "/%08" PRIX32 "/%s", cluster, incarnation,
             file.timeline, file.log, segment);
    return storage_exists(storage, name, size_out, err);
}

bool
wal_store_has(WalStore *store, const char *file_name, bool *present_out, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT + 1];
    WalFileName file;
    uint64_t size;

    if (find_object(store, file_name, &file, name, err) &&
        storage_exists(repository_storage(store->repository), name, &size, err)) {
        *present_out = true;
        return true;
    }
    if (err->kind == CAIRN_CONFLICT) {
        cairn_error_clear(err);
        *present_out = true;
        return true;
    }
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    *present_out = false;
    return true;
}

static WalObject *
open_file(WalStore *store, const char *file_name, WalFileName *file_out, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT + 1];

    if (!find_object(store, file_name, file_out, name, err))
        return NULL;
    return wal_object_open(store, name, file_out, err);
}

WalObject *
wal_object_open_file(WalStore *store, const char *file_name, CairnError *err)
{
    WalFileName file;

    return open_file(store, file_name, &file, err);
}

typedef struct {
    const WalStore *store;
    const WalObject *object;
    int fd;
} FetchSink;

/* Who trusts names alone delivers another cluster's WAL one day. */
static bool
check_first_page(const FetchSink *sink, const void *page, size_t size, CairnError *err)
{
    const WalIndex *index = &sink->object->index;
    const Incarnation *incarnation = sink->store->incarnation;
    WalIdentity identity;

    if (!wal_identity_read(page, size, &identity, err))
        return cairn_error_wrap(err, "object '%s'", sink->object->name);
    if (identity.system_id != incarnation->system_id || identity.major != incarnation->major ||
        identity.segment_size != incarnation->wal_segment_size ||
        identity.lsn != index->start_lsn || identity.timeline > index->timeline) {
        return cairn_error(err, CAIRN_MISMATCH, "object '%s' holds WAL of another place or cluster",
                           sink->object->name);
    }
    return true;
}

static bool
write_fetched(void *context, const void *data, size_t size, uint64_t offset, CairnError *err)
{
    const FetchSink *sink = context;
    const WalFileKind kind = sink->object->index.kind;

    if (offset == 0 && (kind == WAL_FILE_SEGMENT || kind == WAL_FILE_PARTIAL) &&
        !check_first_page(sink, data, size, err))
        return false;
    return file_pwrite(repository_world(sink->store->repository), sink->fd, data, size, offset,
                       "the fetched WAL file", err);
}

/* Real zeros: PostgreSQL may recycle the file and counts on its blocks being there. */
static bool
write_zero_tail(const WalObject *object, int fd, CairnError *err)
{
    static const uint8_t zeros[ZEROS_SIZE];
    const World *world = repository_world(object->store->repository);

    for (uint64_t at = object->index.data_size; at < object->index.size;) {
        const uint64_t left = object->index.size - at;
        const size_t size = left < sizeof zeros ? (size_t)left : sizeof zeros;
        if (!file_pwrite(world, fd, zeros, size, at, "the fetched WAL file", err))
            return false;
        at += size;
    }
    return true;
}

bool
wal_store_fetch(WalStore *store, const char *file_name, int fd, CairnError *err)
{
    WalFileName file;
    SCOPED(WalObject) object = open_file(store, file_name, &file, err);

    if (object == NULL)
        return false;
    FetchSink sink = {.store = store, .object = object, .fd = fd};
    return wal_object_stream(object, write_fetched, &sink, err) && write_zero_tail(object, fd, err);
}

bool
wal_store_verify(WalStore *store, const char *file_name, CairnError *err)
{
    WalFileName file;
    WalPieceName piece;

    if (wal_piece_name_parse(file_name, store->incarnation->wal_segment_size, &piece))
        return wal_piece_verify(store, &piece, err);
    SCOPED(WalObject) object = open_file(store, file_name, &file, err);
    if (object == NULL || !wal_object_verify(object, err))
        return false;
    if (file.kind != WAL_FILE_HISTORY)
        return true;
    /* Its bytes may be what somebody stored, and tell nothing all the same. */
    SCOPED_MEMORY TimelineHistory *history = wal_history_read(store, file.timeline, err);
    return history != NULL;
}

static bool
copy_bytes(void *context, const void *data, size_t size, uint64_t offset, CairnError *err)
{
    (void)err;
    memcpy((char *)context + offset, data, size);
    return true;
}

char *
wal_store_history(WalStore *store, uint32_t timeline, size_t *size_out, CairnError *err)
{
    char name[WAL_FILE_NAME_LIMIT];
    WalFileName file;

    snprintf(name, sizeof name, "%08" PRIX32 ".history", timeline);
    SCOPED(WalObject) object = open_file(store, name, &file, err);
    if (object == NULL)
        return NULL;
    /* At most WAL_SMALL_FILE_LIMIT: the index was checked. */
    SCOPED_MEMORY char *text = calloc(1, (size_t)object->index.size + 1);
    if (text == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    if (!wal_object_stream(object, copy_bytes, text, err))
        return NULL;
    *size_out = (size_t)object->index.size;
    return take(&text);
}

bool
wal_store_unfinished(WalStore *store, uint32_t timeline, uint64_t first_segment,
                     WalUnfinished *unfinished_out, CairnError *err)
{
    WalUnfinished unfinished = {0};
    uint64_t segment;
    bool found, forked;

    *unfinished_out = unfinished;
    if (!wal_piece_last(store, timeline, &segment, &found, err))
        return false;
    if (!found || (first_segment != UINT64_MAX && segment < first_segment))
        return true;
    unfinished.found = true;
    unfinished.segment = segment;
    if (first_segment == UINT64_MAX || segment == first_segment) {
        if (!wal_store_forked(store, timeline, segment, &forked, err)) {
            if (!wal_history_is_unreadable(err->kind))
                return false;
            /* A timeline may have left it here, and then the server never read on. */
            cairn_error_clear(err);
            unfinished.broken = true;
            *unfinished_out = unfinished;
            return true;
        }
        *unfinished_out = unfinished;
        if (forked)
            return true;
        SCOPED(WalPieces) pieces = wal_pieces_open_with_partial(store, timeline, segment, err);
        if (pieces == NULL && err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err); /* it was finished meanwhile */
        unfinished.found = pieces != NULL;
        unfinished.size = pieces != NULL ? wal_pieces_size(pieces) : 0;
        unfinished.broken = pieces != NULL && wal_pieces_broken(pieces);
    }
    *unfinished_out = unfinished;
    return true;
}

/* It may have been finished meanwhile, and its pieces are being removed: NOT_FOUND then. */
static bool
judge_pieces(WalStore *store, const char *file_name, CairnError *err)
{
    CairnError problem = *err;
    bool whole;

    cairn_error_clear(err);
    if (!wal_store_has(store, file_name, &whole, err))
        return false;
    if (whole)
        return cairn_error(err, CAIRN_NOT_FOUND, "pieces of '%s' are not there any more",
                           file_name);
    *err = problem;
    if (problem.kind == CAIRN_NOT_FOUND)
        err->kind = CAIRN_UNAVAILABLE;
    return false;
}

bool
wal_store_fetch_unfinished(WalStore *store, const char *file_name, bool shortened, int fd,
                           CairnError *err)
{
    const uint32_t segment_size = store->incarnation->wal_segment_size;
    WalSuccessor later;
    uint32_t timeline;
    uint64_t number;
    bool forked;

    if (!wal_segment_parse(file_name, segment_size, &timeline, &number))
        return cairn_error(err, CAIRN_NOT_FOUND, "'%s' is no segment", file_name);
    SCOPED(WalPieces) pieces = wal_pieces_open_with_partial(store, timeline, number, err);
    if (pieces == NULL || !wal_store_forked(store, timeline, number, &forked, err) ||
        !wal_store_successor(store, file_name, &later, err))
        return false;
    if (forked || later.found)
        return cairn_error(err, CAIRN_NOT_FOUND, "'%s' is not stored", file_name);
    if (wal_pieces_broken(pieces) && !shortened) {
        cairn_error(err, CAIRN_CORRUPT,
                    "'%s' was never finished, and what was received of it is damaged from byte "
                    "%" PRIu32 " on: later commits were received and cannot be read",
                    file_name, wal_pieces_size(pieces));
        cairn_error_hint(err, "`pgcairn verify` names the damaged pieces; to end recovery before "
                              "them on purpose, restore to a target before them");
        return judge_pieces(store, file_name, err);
    }
    return wal_pieces_fetch(pieces, fd, err) || judge_pieces(store, file_name, err);
}

struct WalSegmentReader {
    WalObject *object;
    WalPieces *pieces;   /* instead of object */
    uint8_t *raw;        /* the decoded frame number frame_number */
    size_t frame_number; /* SIZE_MAX: none */
};

WalSegmentReader *
wal_store_read(WalStore *store, uint32_t timeline, uint64_t segment_number, CairnError *err)
{
    char name[WAL_NAME_SIZE];
    WalFileName file;

    wal_segment_name(name, timeline, segment_number, store->incarnation->wal_segment_size);
    SCOPED(WalSegmentReader) reader = calloc(1, sizeof *reader);
    if (reader != NULL)
        reader->raw = malloc(WAL_FRAME_SIZE);
    if (reader == NULL || reader->raw == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->frame_number = SIZE_MAX;
    reader->object = open_file(store, name, &file, err);
    return reader->object != NULL ? take(&reader) : NULL;
}

WalSegmentReader *
wal_store_read_pieces(WalStore *store, uint32_t timeline, uint64_t segment_number,
                      uint32_t *size_out, CairnError *err)
{
    SCOPED(WalSegmentReader) reader = calloc(1, sizeof *reader);

    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->pieces = wal_pieces_open_with_partial(store, timeline, segment_number, err);
    if (reader->pieces == NULL)
        return NULL;
    *size_out = wal_pieces_size(reader->pieces);
    return take(&reader);
}

void
wal_segment_reader_free(WalSegmentReader *reader)
{
    if (reader == NULL)
        return;
    wal_pieces_free(reader->pieces);
    wal_object_free(reader->object);
    free(reader->raw);
    free(reader);
}

bool
wal_segment_reader_pread(WalSegmentReader *reader, void *data, size_t size, uint64_t offset,
                         CairnError *err)
{
    uint8_t *out = data;

    if (reader->pieces != NULL)
        return wal_pieces_pread(reader->pieces, data, size, offset, err);
    const WalIndex *index = &reader->object->index;
    CAIRN_ASSERT(offset <= index->size && size <= index->size - offset);
    while (size > 0 && offset < index->data_size) {
        const size_t number = (size_t)(offset / index->frame_size);
        const size_t skip = (size_t)(offset % index->frame_size);

        if (reader->frame_number != number) {
            reader->frame_number = SIZE_MAX;
            if (!wal_object_frame(reader->object, number, reader->raw, err))
                return false;
            reader->frame_number = number;
        }
        size_t part = index->frames[number].raw_size - skip;
        part = part < size ? part : size;
        memcpy(out, reader->raw + skip, part);
        out += part;
        offset += part;
        size -= part;
    }
    memset(out, 0, size);
    return true;
}
