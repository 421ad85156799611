/*
 * The segment that a server is still writing, in pieces: `<segment>.tail.<token>.<offset>`
 * (docs/format.md, "Pieces of an unfinished segment").
 *
 * What: a receiver stores what has come since the last piece, each once and under a name of its
 * own; small ones are replaced by a bigger one that is stored before they go. Whoever reads puts
 * them together again: the segment from its first byte on, as far as pieces lie without a hole.
 * They never stand in for a stored segment, and are superseded by it. Units: offsets and sizes in
 * bytes of the segment. Errors: NOT_FOUND when there is no piece, or all went while they were read
 * (the segment is complete then: look for that); UNAVAILABLE when others took their place time and
 * again; CORRUPT and MISMATCH name the object. Memory: one frame, and a table of the pieces.
 * Threads: as the store: one.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_PIECE_H
#define PGCAIRN_REPOSITORY_WAL_PIECE_H

#include "repository/wal_store.h"

enum { WAL_PIECE_NAME_SIZE = 56, WAL_PIECE_LIMIT = 65536 };

typedef struct {
    char name[WAL_PIECE_NAME_SIZE];
    uint32_t timeline;
    uint64_t segment;
    uint32_t offset; /* of its first byte in the segment */
} WalPieceName;

/* False unless it is exactly such a name, of a segment that can exist. */
bool wal_piece_name_parse(const char *name, uint32_t segment_size,
                          WalPieceName *name_out) MUST_CHECK;

/* Store [offset, offset + size) of the segment that fd is open on (borrowed). Durable when true.
   Goes on after a signal: what has come shall not be lost because somebody stops us. */
bool wal_piece_put(WalStore *store, uint32_t timeline, uint64_t segment, int fd, uint32_t offset,
                   uint32_t size, WalPieceName *name_out, CairnError *err) MUST_CHECK;
/* Absent already is success. */
bool wal_piece_remove(WalStore *store, const WalPieceName *name, CairnError *err) MUST_CHECK;

/* Pieces of a segment, by offset; malloc'ed (returned owned), never NULL on success. Those that
   went while the list was made are in it, as far as the storage tells: what took their place may
   not be.
 */
bool wal_piece_list(WalStore *store, uint32_t timeline, uint64_t segment, WalPieceName **names_out,
                    size_t *count_out, CairnError *err) MUST_CHECK;
/* The newest segment of a timeline of which pieces are stored. */
bool wal_piece_last(WalStore *store, uint32_t timeline, uint64_t *segment_out, bool *found_out,
                    CairnError *err) MUST_CHECK;

/* The segment as far as pieces go. */
typedef struct WalPieces WalPieces;
WalPieces *wal_pieces_open(WalStore *store, uint32_t timeline, uint64_t segment,
                           CairnError *err) MUST_CHECK;
/* The same; but where pieces are stored, and a .partial of the segment reaches further than they
   do, that instead. Not where there are several. */
WalPieces *wal_pieces_open_with_partial(WalStore *store, uint32_t timeline, uint64_t segment,
                                        CairnError *err) MUST_CHECK;
void wal_pieces_free(WalPieces *pieces);
SCOPED_TYPE(WalPieces, wal_pieces_free);
/* Bytes from the segment's start on that are there; may be 0. */
uint32_t wal_pieces_size(const WalPieces *pieces);
/* More was stored than that: a piece is damaged, or one in the middle is missing. */
bool wal_pieces_broken(const WalPieces *pieces);
/* Any bytes of the segment; zeros from wal_pieces_size on. */
bool wal_pieces_pread(WalPieces *pieces, void *data, size_t size, uint64_t offset,
                      CairnError *err) MUST_CHECK;
/* The whole segment to fd at offset 0, zeros behind what is there: all digests verified before
   true. */
bool wal_pieces_fetch(WalPieces *pieces, int fd, CairnError *err) MUST_CHECK;

/* Full verification of one stored piece. */
bool wal_piece_verify(WalStore *store, const WalPieceName *name, CairnError *err) MUST_CHECK;

#endif
