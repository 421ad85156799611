#include "repository/wal_piece.h"

#include "common/file.h"
#include "common/log.h"
#include "postgres/wal_page.h"
#include "repository/wal_object.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define INFIX ".tail."

enum { SEGMENT_DIGITS = 24, TOKEN_DIGITS = 16, OFFSET_DIGITS = 8 };

static bool
parse_offset(const char *text, uint32_t *offset_out)
{
    uint32_t value = 0;

    for (size_t i = 0; i < OFFSET_DIGITS; i++) {
        const char c = text[i];
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint32_t)(c - '0');
        else if (c >= 'A' && c <= 'F')
            value = value << 4 | (uint32_t)(c - 'A' + 10);
        else
            return false;
    }
    *offset_out = value;
    return true;
}

bool
wal_piece_name_parse(const char *name, uint32_t segment_size, WalPieceName *name_out)
{
    const char *token = name + SEGMENT_DIGITS + strlen(INFIX);
    const char *offset = token + TOKEN_DIGITS + 1;
    char segment[WAL_NAME_SIZE];
    WalPieceName parsed = {0};

    _Static_assert(SEGMENT_DIGITS + sizeof INFIX - 1 + TOKEN_DIGITS + 1 + OFFSET_DIGITS + 1 ==
                       WAL_PIECE_NAME_SIZE,
                   "the size is that of a name");
    if (strlen(name) != WAL_PIECE_NAME_SIZE - 1 ||
        strncmp(name + SEGMENT_DIGITS, INFIX, strlen(INFIX)) != 0 ||
        strspn(token, "0123456789abcdef") != TOKEN_DIGITS || token[TOKEN_DIGITS] != '.')
        return false;
    snprintf(segment, sizeof segment, "%.24s", name);
    if (!wal_segment_parse(segment, segment_size, &parsed.timeline, &parsed.segment) ||
        !parse_offset(offset, &parsed.offset) || parsed.offset >= segment_size)
        return false;
    memcpy(parsed.name, name, WAL_PIECE_NAME_SIZE);
    *name_out = parsed;
    return true;
}

static uint64_t
start_lsn_of(const WalStore *store, const WalPieceName *name)
{
    return name->segment * store->incarnation->wal_segment_size + name->offset;
}

/* "/<TLI>/<log>" */
static void
log_prefix(const WalStore *store, uint32_t timeline, uint64_t segment, char below[WAL_PREFIX_SIZE])
{
    const uint64_t per_log = (UINT64_C(1) << 32) / store->incarnation->wal_segment_size;

    snprintf(below, WAL_PREFIX_SIZE, "/%08" PRIX32 "/%08" PRIX32, timeline,
             (uint32_t)(segment / per_log));
}

static void
object_name(const WalStore *store, const WalPieceName *name, char text[STORAGE_NAME_LIMIT + 1])
{
    char below[WAL_PREFIX_SIZE];

    log_prefix(store, name->timeline, name->segment, below);
    snprintf(text, STORAGE_NAME_LIMIT + 1, "%.400s%s/%s", store->prefix, below, name->name);
}

/* -- storing -- */

typedef struct {
    WalStore *store;
    WalIndex index;
    int fd;
    uint32_t offset;
} NewPiece;

/* One frame: read, digested, compressed. */
static bool
append_frame(NewPiece *piece, ObjectWriter *object, WalFrame *frame, uint64_t at, CairnError *err)
{
    WalStore *store = piece->store;
    const uint64_t left = piece->index.size - at;
    const size_t size = left < piece->index.frame_size ? (size_t)left : piece->index.frame_size;
    size_t stored_size;

    if (!file_pread(repository_world(store->repository), piece->fd, store->raw, size,
                    piece->offset + at, "the receiver's segment", err) ||
        !keyed_digest_update(store->digest, store->raw, size, err) ||
        !codec_compress(store->codec, store->raw, size, store->stored, WAL_STORED_LIMIT,
                        &stored_size, &frame->codec, err))
        return false;
    frame->raw_size = (uint32_t)size;
    frame->stored_size = (uint32_t)stored_size;
    frame->crc = crc32c(0, store->stored, stored_size);
    return object_append(object, store->stored, stored_size, &frame->offset, err);
}

static bool
write_piece(NewPiece *piece, const char *name, CairnError *err)
{
    WalStore *store = piece->store;
    WalIndex *index = &piece->index;
    const size_t count = (size_t)((index->size + index->frame_size - 1) / index->frame_size);
    SCOPED_BYTES ByteWriter bytes = {0};
    SCOPED_MEMORY WalFrame *frames = calloc(count, sizeof *frames);

    if (frames == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    SCOPED(ObjectWriter)
    object = object_create(store->repository, name, OBJECT_WAL_TAIL, 0, err);
    if (object == NULL || !keyed_digest_begin(store->digest, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!append_frame(piece, object, &frames[i], (uint64_t)i * index->frame_size, err))
            return false;
    }
    if (!wal_digest_finish(store->digest, index->size, index->digest, err))
        return false;
    wal_index_pusher(index, repository_world(store->repository));
    index->frames = frames;
    index->frame_count = count;
    return wal_index_format(index, &bytes, err) &&
           object_finish(object, bytes.data, bytes.size, NULL, err);
}

bool
wal_piece_put(WalStore *store, uint32_t timeline, uint64_t segment, int fd, uint32_t offset,
              uint32_t size, WalPieceName *name_out, CairnError *err)
{
    const uint32_t segment_size = store->incarnation->wal_segment_size;
    WalPieceName name = {.timeline = timeline, .segment = segment, .offset = offset};
    char token[TOKEN_DIGITS + 1];
    char segment_name[WAL_NAME_SIZE];
    char text[STORAGE_NAME_LIMIT + 1];

    CAIRN_ASSERT(size > 0 && offset < segment_size && size <= segment_size - offset);
    if (!wal_store_prepare(store, err) ||
        !random_token(repository_world(store->repository), token, err))
        return false;
    wal_segment_name(segment_name, timeline, segment, segment_size);
    snprintf(name.name, sizeof name.name, "%s" INFIX "%s.%08" PRIX32, segment_name, token, offset);
    object_name(store, &name, text);

    NewPiece piece = {
        .store = store,
        .index = {.kind = WAL_FILE_PIECE,
                  .size = size,
                  .data_size = size, /* zeros compress, and the last bytes are rarely zeros */
                  .timeline = timeline,
                  .start_lsn = start_lsn_of(store, &name),
                  .frame_size = WAL_FRAME_SIZE / 2},
        .fd = fd,
        .offset = offset,
    };
    if (!write_piece(&piece, text, err))
        return cairn_error_wrap(err, "unable to store WAL of '%s'", segment_name);
    *name_out = name;
    return true;
}

bool
wal_piece_remove(WalStore *store, const WalPieceName *name, CairnError *err)
{
    char text[STORAGE_NAME_LIMIT + 1];

    object_name(store, name, text);
    return storage_remove(repository_storage(store->repository), text, err);
}

/* -- what there is -- */

typedef struct {
    const WalStore *store;
    uint32_t timeline;
    uint64_t segment;
    bool any_segment; /* looks for the newest segment instead */
    bool found;
    WalPieceName *names;
    size_t count, capacity;
} PieceList;

static bool
add_name(PieceList *list, const WalPieceName *name, CairnError *err)
{
    if (list->count == WAL_PIECE_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "more than %d pieces of one segment",
                           WAL_PIECE_LIMIT);
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        WalPieceName *names = reallocarray(list->names, capacity, sizeof *names);
        if (names == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        list->names = names;
        list->capacity = capacity;
    }
    list->names[list->count++] = *name;
    return true;
}

static StorageListNext
collect_piece(void *context, const StorageEntry *entry, CairnError *err)
{
    PieceList *list = context;
    WalPieceName name;

    if (entry->is_directory ||
        !wal_piece_name_parse(entry->name, list->store->incarnation->wal_segment_size, &name) ||
        name.timeline != list->timeline)
        return STORAGE_LIST_GO_ON;
    if (list->any_segment) {
        if (!list->found || name.segment > list->segment)
            list->segment = name.segment;
        list->found = true;
        return STORAGE_LIST_GO_ON;
    }
    if (name.segment != list->segment)
        return STORAGE_LIST_GO_ON;
    return add_name(list, &name, err) ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
}

static int
compare_names(const void *left, const void *right)
{
    const WalPieceName *a = left;
    const WalPieceName *b = right;

    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return strcmp(a->name, b->name);
}

bool
wal_piece_list(WalStore *store, uint32_t timeline, uint64_t segment, WalPieceName **names_out,
               size_t *count_out, CairnError *err)
{
    PieceList list = {.store = store, .timeline = timeline, .segment = segment};
    char below[WAL_PREFIX_SIZE];

    list.names = malloc(sizeof *list.names);
    list.capacity = 1;
    if (list.names == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    log_prefix(store, timeline, segment, below);
    if (!wal_store_list(store, below, collect_piece, &list, err)) {
        free(list.names);
        return false;
    }
    qsort(list.names, list.count, sizeof *list.names, compare_names);
    *names_out = list.names;
    *count_out = list.count;
    return true;
}

bool
wal_piece_last(WalStore *store, uint32_t timeline, uint64_t *segment_out, bool *found_out,
               CairnError *err)
{
    SCOPED_MEMORY uint32_t *logs = NULL;
    size_t count = 0;
    char below[WAL_PREFIX_SIZE];
    PieceList list = {.store = store, .timeline = timeline, .any_segment = true};

    snprintf(below, sizeof below, "/%08" PRIX32, timeline);
    if (!wal_store_groups(store, below, &logs, &count, err))
        return false;
    /* The unfinished segment lies in the newest log, or in the one before as long as nothing of the
       next is complete. */
    for (size_t tries = 0; tries < 2 && count > 0 && !list.found; tries++) {
        snprintf(below, sizeof below, "/%08" PRIX32 "/%08" PRIX32, timeline, logs[--count]);
        if (!wal_store_list(store, below, collect_piece, &list, err))
            return false;
    }
    *found_out = list.found;
    *segment_out = list.segment;
    return true;
}

/* -- reading -- */

/* A piece, and what of it is used: bytes before `from` are an earlier one's. */
typedef struct {
    WalPieceName name;
    uint32_t from;
    uint32_t end;
} Part;

struct WalPieces {
    WalStore *store;
    Part *parts; /* ascending, each beginning where the one before it ends */
    size_t count;
    WalObject *object; /* of part number open_part */
    size_t open_part;
    uint8_t *raw;        /* its frame number frame_number */
    size_t frame_number; /* SIZE_MAX: none */
};

static WalObject *
open_piece(WalStore *store, const WalPieceName *name, CairnError *err)
{
    char text[STORAGE_NAME_LIMIT + 1];

    object_name(store, name, text);
    return wal_object_open_piece(store, text, name->timeline, start_lsn_of(store, name), err);
}

/*
 * The end of a piece. One that went meanwhile, or is damaged, ends where it begins: another may
 * hold the same, and what lies before it is good. verify reports damage.
 */
static bool
find_end(WalStore *store, const WalPieceName *name, uint32_t *end_out, CairnError *err)
{
    SCOPED(WalObject) object = open_piece(store, name, err);

    *end_out = name->offset;
    if (object != NULL) {
        *end_out = name->offset + (uint32_t)object->index.size;
        return true;
    }
    if (err->kind != CAIRN_NOT_FOUND && err->kind != CAIRN_CORRUPT && err->kind != CAIRN_MISMATCH)
        return false;
    if (err->kind != CAIRN_NOT_FOUND)
        log_warn("WAL from here on is not used: %s", err->message);
    cairn_error_clear(err);
    return true;
}

/* From the start on, each time the piece that reaches furthest. */
static bool
choose_parts(WalPieces *pieces, const WalPieceName *names, size_t count, CairnError *err)
{
    uint32_t covered = 0;

    for (size_t i = 0; i < count;) {
        Part best = {.from = covered, .end = covered};
        for (; i < count && names[i].offset <= covered; i++) {
            uint32_t end;
            if (!find_end(pieces->store, &names[i], &end, err))
                return false;
            if (end > best.end)
                best = (Part){.name = names[i], .from = covered, .end = end};
        }
        if (best.end == covered)
            return true; /* a hole, or nothing more */
        pieces->parts[pieces->count++] = best;
        covered = best.end;
    }
    return true;
}

WalPieces *
wal_pieces_open(WalStore *store, uint32_t timeline, uint64_t segment, CairnError *err)
{
    SCOPED_MEMORY WalPieceName *names = NULL;
    size_t count = 0;
    SCOPED(WalPieces) pieces = calloc(1, sizeof *pieces);

    if (!wal_store_prepare(store, err) ||
        !wal_piece_list(store, timeline, segment, &names, &count, err))
        return NULL;
    if (pieces != NULL) {
        *pieces = (WalPieces){.store = store, .frame_number = SIZE_MAX};
        pieces->parts = calloc(count + 1, sizeof *pieces->parts);
        pieces->raw = malloc(WAL_FRAME_SIZE);
    }
    if (pieces == NULL || pieces->parts == NULL || pieces->raw == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    if (!choose_parts(pieces, names, count, err))
        return NULL;
    if (pieces->count == 0) {
        cairn_error(err, CAIRN_NOT_FOUND, "no piece of segment %" PRIX64 " on timeline %" PRIu32,
                    segment, timeline);
        return NULL;
    }
    return take(&pieces);
}

void
wal_pieces_free(WalPieces *pieces)
{
    if (pieces == NULL)
        return;
    wal_object_free(pieces->object);
    free(pieces->parts);
    free(pieces->raw);
    free(pieces);
}

uint32_t
wal_pieces_size(const WalPieces *pieces)
{
    return pieces->parts[pieces->count - 1].end;
}

/* The part that holds the byte at offset, opened. */
static const Part *
enter_part(WalPieces *pieces, uint64_t offset, CairnError *err)
{
    size_t low = 0;
    size_t high = pieces->count - 1;

    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (offset < pieces->parts[middle].end)
            high = middle;
        else
            low = middle + 1;
    }
    if (pieces->object == NULL || pieces->open_part != low) {
        wal_object_free(take(&pieces->object));
        pieces->frame_number = SIZE_MAX;
        pieces->object = open_piece(pieces->store, &pieces->parts[low].name, err);
        pieces->open_part = low;
    }
    return pieces->object != NULL ? &pieces->parts[low] : NULL;
}

bool
wal_pieces_pread(WalPieces *pieces, void *data, size_t size, uint64_t offset, CairnError *err)
{
    uint8_t *out = data;

    while (size > 0 && offset < wal_pieces_size(pieces)) {
        const Part *part = enter_part(pieces, offset, err);
        if (part == NULL)
            return false;
        const uint64_t within = offset - part->name.offset;
        const size_t number = (size_t)(within / pieces->object->index.frame_size);
        const size_t skip = (size_t)(within % pieces->object->index.frame_size);
        if (pieces->frame_number != number) {
            pieces->frame_number = SIZE_MAX;
            if (!wal_object_frame(pieces->object, number, pieces->raw, err))
                return false;
            pieces->frame_number = number;
        }
        size_t length = pieces->object->index.frames[number].raw_size - skip;
        length = length < size ? length : size;
        memcpy(out, pieces->raw + skip, length);
        out += length;
        offset += length;
        size -= length;
    }
    memset(out, 0, size);
    return true;
}

typedef struct {
    const WalPieces *pieces;
    const Part *part;
    int fd;
} FetchSink;

static bool
write_part(void *context, const void *data, size_t size, uint64_t offset, CairnError *err)
{
    const FetchSink *sink = context;
    const World *world = repository_world(sink->pieces->store->repository);
    const uint64_t at = sink->part->name.offset + offset;
    const size_t skip = sink->part->from > at ? (size_t)(sink->part->from - at) : 0;

    return skip >= size || file_pwrite(world, sink->fd, (const uint8_t *)data + skip, size - skip,
                                       at + skip, "the fetched WAL file", err);
}

/* As for whole segments: who trusts names alone delivers another cluster's WAL one day. */
static bool
check_first_page(WalPieces *pieces, CairnError *err)
{
    const Incarnation *incarnation = pieces->store->incarnation;
    const WalPieceName *name = &pieces->parts[0].name;
    uint8_t page[WAL_LONG_HEADER_SIZE];
    WalIdentity identity;

    if (!wal_pieces_pread(pieces, page, sizeof page, 0, err) ||
        !wal_identity_read(page, sizeof page, &identity, err))
        return cairn_error_wrap(err, "'%s'", name->name);
    if (identity.system_id == incarnation->system_id && identity.major == incarnation->major &&
        identity.segment_size == incarnation->wal_segment_size &&
        identity.lsn == start_lsn_of(pieces->store, name) && identity.timeline <= name->timeline)
        return true;
    return cairn_error(err, CAIRN_MISMATCH, "'%s' holds WAL of another place or cluster",
                       name->name);
}

static bool
write_zeros(const WalPieces *pieces, int fd, CairnError *err)
{
    static const uint8_t zeros[64 << 10];
    const World *world = repository_world(pieces->store->repository);
    const uint32_t segment_size = pieces->store->incarnation->wal_segment_size;

    for (uint64_t at = wal_pieces_size(pieces); at < segment_size;) {
        const uint64_t left = segment_size - at;
        const size_t size = left < sizeof zeros ? (size_t)left : sizeof zeros;
        if (!file_pwrite(world, fd, zeros, size, at, "the fetched WAL file", err))
            return false;
        at += size;
    }
    return true;
}

bool
wal_pieces_fetch(WalPieces *pieces, int fd, CairnError *err)
{
    if (!check_first_page(pieces, err))
        return false;
    for (size_t i = 0; i < pieces->count; i++) {
        FetchSink sink = {.pieces = pieces, .part = &pieces->parts[i], .fd = fd};
        SCOPED(WalObject) object = open_piece(pieces->store, &sink.part->name, err);
        if (object == NULL || !wal_object_stream(object, write_part, &sink, err))
            return false;
    }
    return write_zeros(pieces, fd, err);
}

static bool
ignore_bytes(void *context, const void *data, size_t size, uint64_t offset, CairnError *err)
{
    (void)context, (void)data, (void)size, (void)offset, (void)err;
    return true;
}

bool
wal_piece_verify(WalStore *store, const WalPieceName *name, CairnError *err)
{
    SCOPED(WalObject) object = open_piece(store, name, err);

    return object != NULL && object_scrub(object->object, err) &&
           wal_object_stream(object, ignore_bytes, NULL, err);
}
