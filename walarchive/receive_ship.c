/* Shipping the segment that is being received, piece by piece. */
#include "walarchive/receive_intern.h"

enum { MERGE_COUNT = 32 }; /* pieces of one level that become one of the next */

/* A piece that something whole replaces. Where nothing may be removed it stays, until the
   repository host expires its segment. */
static bool
remove_piece(Worker *worker, const WalPieceName *name, CairnError *err)
{
    return storage_is_create_only(repository_storage(worker->repository)) ||
           wal_piece_remove(worker->store, name, err);
}

bool
receive_remove_pieces(Worker *worker, uint32_t timeline, uint64_t segment, CairnError *err)
{
    SCOPED_MEMORY WalPieceName *names = NULL;
    size_t count = 0;

    if (!wal_piece_list(worker->store, timeline, segment, &names, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!remove_piece(worker, &names[i], err))
            return false;
    }
    if (worker->timeline == timeline && worker->segment == segment) {
        worker->timeline = 0;
        worker->piece_count = 0;
    }
    return true;
}

/* The segment that pieces are shipped of from now on; what a former run stored of it counts. */
static bool
enter_segment(Worker *worker, uint32_t timeline, uint64_t segment, CairnError *err)
{
    SCOPED_MEMORY WalPieceName *names = NULL;
    size_t count = 0;

    if (worker->timeline == timeline && worker->segment == segment)
        return true;
    if (!wal_piece_list(worker->store, timeline, segment, &names, &count, err))
        return false;
    worker->timeline = timeline;
    worker->segment = segment;
    worker->shipped = 0;
    worker->piece_count = 0;
    if (count == 0)
        return true;
    SCOPED(WalPieces) pieces = wal_pieces_open(worker->store, timeline, segment, err);
    if (pieces != NULL)
        worker->shipped = wal_pieces_size(pieces);
    else if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    /* Ours are in the order of their offsets and without a hole, which merging counts on: one that
       lies behind a hole is superseded by the segment like all the others. */
    for (size_t i = 0; i < count && i < OWN_PIECES_LIMIT / 2; i++) {
        if (names[i].offset < worker->shipped)
            worker->pieces[worker->piece_count++] = (OwnPiece){.name = names[i]};
    }
    return true;
}

/* The last MERGE_COUNT pieces of a level become one of the next, so that few are ever there however
   slowly a segment fills, and no byte is stored more often than there are levels. */
static bool
merge_pieces(Worker *worker, int fd, CairnError *err)
{
    for (;;) {
        size_t first = worker->piece_count;
        const uint32_t level = first > 0 ? worker->pieces[first - 1].level : 0;

        while (first > 0 && worker->pieces[first - 1].level == level)
            first--;
        if (worker->piece_count - first < MERGE_COUNT)
            return true;
        OwnPiece merged = {.level = level + 1};
        const uint32_t offset = worker->pieces[first].name.offset;
        if (!wal_piece_put(worker->store, worker->timeline, worker->segment, fd, offset,
                           worker->shipped - offset, &merged.name, err))
            return false;
        const size_t count = worker->piece_count;
        OwnPiece *pieces = worker->pieces;
        worker->piece_count = first;
        for (size_t i = first; i < count; i++) {
            if (!remove_piece(worker, &pieces[i].name, err))
                return false;
        }
        worker->pieces[worker->piece_count++] = merged;
    }
}

/* Everything of the part up to `size` that is not there yet. */
bool
receive_ship(Worker *worker, uint32_t timeline, uint64_t segment, uint32_t size, CairnError *err)
{
    Receive *receive = worker->receive;
    const uint64_t start_lsn = segment * receive->incarnation.wal_segment_size;
    char name[WAL_FILE_NAME_LIMIT];

    if (!enter_segment(worker, timeline, segment, err))
        return false;
    if (size > worker->shipped) {
        CAIRN_ASSERT(worker->piece_count < OWN_PIECES_LIMIT); /* merging keeps them few */
        receive_spool_part_name(&receive->spool, timeline, segment, name);
        SCOPED_FD fd = receive_spool_open_file(&receive->spool, name, err);
        if (fd < 0 && err->kind == CAIRN_NOT_FOUND) {
            cairn_error_clear(err); /* finished meanwhile: the whole segment comes next */
            return true;
        }
        OwnPiece piece = {0};
        if (fd < 0 || !wal_piece_put(worker->store, timeline, segment, fd, worker->shipped,
                                     size - worker->shipped, &piece.name, err))
            return false;
        CAIRN_ASSERT(worker->piece_count == 0 ||
                     worker->pieces[worker->piece_count - 1].name.offset < worker->shipped);
        worker->pieces[worker->piece_count++] = piece;
        worker->shipped = size;
        receive_set_archived(worker, timeline, start_lsn + worker->shipped);
        if (!merge_pieces(worker, fd, err))
            return false;
    }
    receive_set_archived(worker, timeline,
                         start_lsn + (size < worker->shipped ? size : worker->shipped));
    return true;
}
