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
    bool is_partial; /* it is the segment's .partial: all of it */
} Part;

enum { OPEN_TRIES = 10 };

struct WalPieces {
    WalStore *store;
    uint32_t timeline;
    uint64_t segment;
    Part *parts; /* ascending, each beginning where the one before it ends */
    size_t count;
    bool broken;
    bool with_partial;
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

static WalObject *
open_object(const WalPieces *pieces, const Part *part, CairnError *err)
{
    return part->is_partial ? wal_object_open_file(pieces->store, part->name.name, err)
                            : open_piece(pieces->store, &part->name, err);
}

/* What is known of a listed piece. */
typedef enum { PIECE_GOOD, PIECE_DAMAGED, PIECE_GONE } PieceState;

static bool
find_end(WalStore *store, const WalPieceName *name, uint32_t *end_out, PieceState *state_out,
         CairnError *err)
{
    SCOPED(WalObject) object = open_piece(store, name, err);

    *end_out = name->offset;
    *state_out = PIECE_GOOD;
    if (object != NULL) {
        *end_out = name->offset + (uint32_t)object->index.size;
        return true;
    }
    if (err->kind != CAIRN_NOT_FOUND && err->kind != CAIRN_CORRUPT && err->kind != CAIRN_MISMATCH)
        return false;
    *state_out = err->kind == CAIRN_NOT_FOUND ? PIECE_GONE : PIECE_DAMAGED;
    if (*state_out == PIECE_DAMAGED)
        log_warn("WAL from here on is not used: %s", err->message);
    cairn_error_clear(err);
    return true;
}

/* From the start on, each time the piece that reaches furthest. One that is damaged ends where it
   begins: another may hold the same, and what lies before it is good. */
static bool
choose_parts(WalPieces *pieces, const WalPieceName *names, size_t count, bool *gone_out,
             CairnError *err)
{
    uint32_t covered = 0;
    size_t i = 0;

    *gone_out = false;
    while (i < count) {
        Part best = {.from = covered, .end = covered};
        for (; i < count && names[i].offset <= covered; i++) {
            PieceState state;
            uint32_t end;
            if (!find_end(pieces->store, &names[i], &end, &state, err))
                return false;
            if (state == PIECE_GONE) {
                *gone_out = true;
                return true;
            }
            pieces->broken = pieces->broken || state == PIECE_DAMAGED;
            if (end > best.end)
                best = (Part){.name = names[i], .from = covered, .end = end};
        }
        if (best.end == covered)
            break;
        pieces->parts[pieces->count++] = best;
        covered = best.end;
    }
    pieces->broken = pieces->broken || i < count; /* more lies behind a hole */
    return true;
}

/* Does a later list name what an earlier one did not, within what that one covered? Both ascend. */
static bool
tells_more(const WalPieceName *later, size_t later_count, const WalPieceName *earlier,
           size_t earlier_count, uint32_t covered)
{
    size_t k = 0;

    for (size_t i = 0; i < later_count && later[i].offset <= covered; i++) {
        while (k < earlier_count && (earlier[k].offset < later[i].offset ||
                                     (earlier[k].offset == later[i].offset &&
                                      strcmp(earlier[k].name, later[i].name) < 0)))
            k++;
        if (k == earlier_count || strcmp(earlier[k].name, later[i].name) != 0)
            return true;
    }
    return false;
}

/* *changed_out: the list was overtaken while it was read, and may lack what is there. */
static bool
load_parts_once(WalPieces *pieces, bool *gone_out, bool *changed_out, CairnError *err)
{
    SCOPED_MEMORY WalPieceName *names = NULL;
    SCOPED_MEMORY WalPieceName *later = NULL;
    size_t count = 0, later_count = 0;

    if (!wal_piece_list(pieces->store, pieces->timeline, pieces->segment, &names, &count, err))
        return false;
    free(pieces->parts);
    pieces->count = 0;
    pieces->broken = false;
    pieces->parts = calloc(count + 1, sizeof *pieces->parts);
    if (pieces->parts == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!choose_parts(pieces, names, count, gone_out, err) ||
        !wal_piece_list(pieces->store, pieces->timeline, pieces->segment, &later, &later_count,
                        err))
        return false;
    *changed_out = tells_more(later, later_count, names, count, wal_pieces_size(pieces));
    return *gone_out || *changed_out || count > 0 ||
           cairn_error(err, CAIRN_NOT_FOUND, "no piece of segment %" PRIX64 " on timeline %" PRIu32,
                       pieces->segment, pieces->timeline);
}

/*
 * What a dead server left in pg_wal, and a rescue stored, often has more than the pieces; of its
 * own it serves nobody (PostgreSQL leaves such files where timelines fork). Never a mixture of the
 * two. Where there are several, nobody knows which is right.
 */
static bool
prefer_partial(WalPieces *pieces, CairnError *err)
{
    const uint32_t segment_size = pieces->store->incarnation->wal_segment_size;
    Part part = {.is_partial = true,
                 .name = {.timeline = pieces->timeline, .segment = pieces->segment}};
    char name[WAL_NAME_SIZE];

    wal_segment_name(name, pieces->timeline, pieces->segment, segment_size);
    snprintf(part.name.name, sizeof part.name.name, "%s.partial", name);
    SCOPED(WalObject) object = open_object(pieces, &part, err);
    if (object == NULL) {
        if (err->kind == CAIRN_CORRUPT || err->kind == CAIRN_MISMATCH)
            log_warn("not used: %s", err->message);
        else if (err->kind != CAIRN_NOT_FOUND && err->kind != CAIRN_CONFLICT)
            return false;
        cairn_error_clear(err);
        return true;
    }
    if (object->index.data_size <= wal_pieces_size(pieces))
        return true;
    snprintf(part.name.name, sizeof part.name.name, "%.55s", strrchr(object->name, '/') + 1);
    part.end = (uint32_t)object->index.data_size;
    pieces->parts[0] = part; /* there is room for one even where no piece is good */
    pieces->count = 1;
    return true;
}

/*
 * A listed piece that is gone was merged into a bigger one, which was there before it went, but
 * perhaps not in this list; and a list that is made meanwhile may lack both. To take that for the
 * end of what is there would lose what lies behind it. A list that merely grows will do at last.
 */
static bool
load_parts(WalPieces *pieces, CairnError *err)
{
    bool gone = true, changed = true;

    for (int tries = 0; tries < OPEN_TRIES && (gone || changed); tries++) {
        if (!load_parts_once(pieces, &gone, &changed, err))
            return false;
    }
    if (!gone && pieces->parts != NULL)
        return !pieces->with_partial || prefer_partial(pieces, err);
    return cairn_error(err, CAIRN_UNAVAILABLE,
                       "pieces of segment %" PRIX64 " on timeline %" PRIu32
                       " go while they are read",
                       pieces->segment, pieces->timeline);
}

static WalPieces *
open_pieces(WalStore *store, uint32_t timeline, uint64_t segment, bool with_partial,
            CairnError *err)
{
    SCOPED(WalPieces) pieces = calloc(1, sizeof *pieces);

    if (!wal_store_prepare(store, err))
        return NULL;
    if (pieces != NULL) {
        *pieces = (WalPieces){.store = store,
                              .timeline = timeline,
                              .segment = segment,
                              .with_partial = with_partial,
                              .frame_number = SIZE_MAX};
        pieces->raw = malloc(WAL_FRAME_SIZE);
    }
    if (pieces == NULL || pieces->raw == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    return load_parts(pieces, err) ? take(&pieces) : NULL;
}

WalPieces *
wal_pieces_open(WalStore *store, uint32_t timeline, uint64_t segment, CairnError *err)
{
    return open_pieces(store, timeline, segment, false, err);
}

WalPieces *
wal_pieces_open_with_partial(WalStore *store, uint32_t timeline, uint64_t segment, CairnError *err)
{
    return open_pieces(store, timeline, segment, true, err);
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
    return pieces->count > 0 ? pieces->parts[pieces->count - 1].end : 0;
}

bool
wal_pieces_broken(const WalPieces *pieces)
{
    return pieces->broken;
}

/* What was merged since is there in other pieces; less than there was: they are being removed. */
static bool
reload_parts(WalPieces *pieces, CairnError *err)
{
    const uint32_t size = wal_pieces_size(pieces);

    cairn_error_clear(err);
    return load_parts(pieces, err) &&
           (wal_pieces_size(pieces) >= size ||
            cairn_error(err, CAIRN_NOT_FOUND,
                        "pieces of segment %" PRIX64 " on timeline %" PRIu32 " are not there "
                        "any more",
                        pieces->segment, pieces->timeline));
}

static void
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
        pieces->object = open_object(pieces, &pieces->parts[low], err);
        pieces->open_part = low;
    }
}

/* The part that holds the byte at offset, opened; NULL on failure. */
static const Part *
open_part(WalPieces *pieces, uint64_t offset, CairnError *err)
{
    enter_part(pieces, offset, err);
    for (int tries = 0; tries < OPEN_TRIES && err->kind == CAIRN_NOT_FOUND; tries++) {
        if (!reload_parts(pieces, err))
            return NULL;
        enter_part(pieces, offset, err);
    }
    return pieces->object != NULL ? &pieces->parts[pieces->open_part] : NULL;
}

bool
wal_pieces_pread(WalPieces *pieces, void *data, size_t size, uint64_t offset, CairnError *err)
{
    uint8_t *out = data;

    while (size > 0 && offset < wal_pieces_size(pieces)) {
        const Part *part = open_part(pieces, offset, err);
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
    const WalPieceName name = pieces->parts[0].name; /* reading may load the parts anew */
    uint8_t page[WAL_LONG_HEADER_SIZE];
    WalIdentity identity;

    if (!wal_pieces_pread(pieces, page, sizeof page, 0, err) ||
        !wal_identity_read(page, sizeof page, &identity, err))
        return cairn_error_wrap(err, "'%s'", name.name);
    if (identity.system_id == incarnation->system_id && identity.major == incarnation->major &&
        identity.segment_size == incarnation->wal_segment_size &&
        identity.lsn == wal_piece_start_lsn(pieces->store, &name) &&
        identity.timeline <= name.timeline)
        return true;
    return cairn_error(err, CAIRN_MISMATCH, "'%s' holds WAL of another place or cluster",
                       name.name);
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

static bool
fetch_parts(WalPieces *pieces, int fd, CairnError *err)
{
    for (size_t i = 0; i < pieces->count; i++) {
        FetchSink sink = {.pieces = pieces, .part = &pieces->parts[i], .fd = fd};
        SCOPED(WalObject) object = open_object(pieces, sink.part, err);
        if (object == NULL || !wal_object_stream(object, write_part, &sink, err))
            return false;
    }
    return true;
}

bool
wal_pieces_fetch(WalPieces *pieces, int fd, CairnError *err)
{
    if (pieces->count == 0)
        return cairn_error(err, CAIRN_CORRUPT,
                           "no piece of segment %" PRIX64 " on timeline %" PRIu32
                           " can be read from its start on",
                           pieces->segment, pieces->timeline);
    if (!check_first_page(pieces, err))
        return false;
    bool done = fetch_parts(pieces, fd, err);
    for (int tries = 0; tries < OPEN_TRIES && err->kind == CAIRN_NOT_FOUND; tries++)
        done = reload_parts(pieces, err) && fetch_parts(pieces, fd, err);
    return done && write_zeros(pieces, fd, err);
}

bool
wal_piece_verify(WalStore *store, const WalPieceName *name, CairnError *err)
{
    SCOPED(WalObject) object = open_piece(store, name, err);

    return object != NULL && wal_object_verify(object, err);
}
