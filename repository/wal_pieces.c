/* Pieces put together again: what there is of a segment that is not finished. */
#include "repository/wal_piece.h"

#include "common/file.h"
#include "common/log.h"
#include "postgres/wal_page.h"
#include "repository/wal_object.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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

    wal_piece_object_name(store, name, text);
    return wal_object_open_piece(store, text, name->timeline, wal_piece_start_lsn(store, name),
                                 err);
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
        identity.lsn == wal_piece_start_lsn(pieces->store, name) &&
        identity.timeline <= name->timeline)
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
