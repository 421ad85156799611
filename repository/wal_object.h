/*
 * One stored WAL file taken apart: its index and its frames (docs/format.md, "WAL"). Private to the
 * files that make up wal_store.h: wal_store.c (names, delivering), wal_listing.c (what is there),
 * wal_successor.c (what that proves), wal_put.c (storing), wal_object.c (reading) and
 * wal_facts_store.c (facts of what is stored).
 *
 * Errors: CORRUPT names the object and the part. Everything read from an index is bounded and
 * checked before it is believed, so that frames add up to exactly the file. Threads: as the store:
 * one.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_OBJECT_H
#define PGCAIRN_REPOSITORY_WAL_OBJECT_H

#include "common/bytes.h"
#include "common/digest.h"
#include "repository/object.h"
#include "repository/wal_piece.h"
#include "repository/wal_store.h"

enum {
    WAL_FRAME_SIZE = 128 << 10, /* at most */
    WAL_FRAME_UNIT = 8192,      /* frames are made of whole WAL pages, but for the last */
    WAL_STORED_LIMIT = WAL_FRAME_SIZE + 4096, /* most that a codec makes of a frame */
    WAL_SMALL_FILE_LIMIT = 1 << 20,           /* history files and backup history files */
    WAL_PUSHER_TEXT_SIZE = 128,
};

struct WalStore {
    Repository *repository;
    const Incarnation *incarnation;
    char prefix[STORAGE_NAME_LIMIT + 1]; /* c/<cluster>/w/<incarnation> */

    bool without_facts; /* put stores none; to measure what they cost, and to make old objects */

    /* Made by wal_store_prepare, when bytes are to move. */
    CodecContext *codec;
    KeyedDigest *digest;
    uint8_t *raw;    /* WAL_FRAME_SIZE */
    uint8_t *stored; /* WAL_STORED_LIMIT */
};

/* Where the WAL of a log lies, <store's prefix>/<TLI>/<log>, and the name of an object there, whose
   own has 64 bytes at most. */
void wal_store_log_prefix(const WalStore *store, uint32_t timeline, uint32_t log,
                          char prefix[STORAGE_NAME_LIMIT + 1]);
void wal_store_name(const WalStore *store, uint32_t timeline, uint32_t log, const char *name,
                    char text[STORAGE_NAME_LIMIT + 1]);
/* What is there. */
bool wal_store_list_log(const WalStore *store, uint32_t timeline, uint32_t log,
                        StorageListCallback *callback, void *context, CairnError *err) MUST_CHECK;
/* Logs of which anything is stored, ascending. malloc'ed (returned owned), never NULL on success.
 */
bool wal_store_logs(const WalStore *store, uint32_t timeline, uint32_t **logs_out,
                    size_t *count_out, CairnError *err) MUST_CHECK;

bool wal_store_prepare(WalStore *store, CairnError *err) MUST_CHECK;
/* The first `size` bytes of store->raw as a block, whose data is store->stored. */
bool wal_store_compress(WalStore *store, size_t size, ObjectBlock *block_out,
                        CairnError *err) MUST_CHECK;

/* Does a stored history say that a timeline left this one in `segment` or later? */
bool wal_store_forked(WalStore *store, uint32_t timeline, uint64_t segment, bool *forked_out,
                      CairnError *err) MUST_CHECK;

/* Name of an object. partial_digest: the whole keyed digest, only looked at for a .partial. USAGE
   for a segment number that the segment size does not allow. */
bool wal_object_name(const WalStore *store, const WalFileName *file, const char *file_name,
                     const uint8_t *partial_digest, char name[STORAGE_NAME_LIMIT + 1],
                     CairnError *err) MUST_CHECK;
/* LSN of the first byte of a segment or partial; 0 for history files of both kinds. */
uint64_t wal_file_start_lsn(const WalFileName *file, uint32_t segment_size);

typedef struct {
    WalFileKind kind;
    uint64_t size;      /* of the file */
    uint64_t data_size; /* without its tail of zeros */
    uint8_t digest[KEYED_DIGEST_SIZE];
    uint32_t timeline;
    uint64_t start_lsn;
    size_t frame_count;
    uint32_t frame_size; /* raw, of every frame but the last */
    ObjectFrame *frames;
    /* Section 1. Writing: borrowed, NULL to write none. Reading: its bytes, borrowed from the
       object's index and not looked at; 0 when there is none. */
    const WalFacts *facts;
    const uint8_t *facts_data;
    size_t facts_size;
    /* Section 2, "" when it is absent or unreadable: only messages use it. */
    char host[WAL_PUSHER_TEXT_SIZE];
    char at[WAL_PUSHER_TEXT_SIZE];
} WalIndex;

/* Who we are, and now. */
void wal_index_pusher(WalIndex *index, const World *world);
/* The index as bytes; sections included. */
bool wal_index_format(const WalIndex *index, ByteWriter *bytes, CairnError *err) MUST_CHECK;

typedef struct {
    WalStore *store;
    ObjectReader *object;
    char name[STORAGE_NAME_LIMIT + 1];
    WalIndex index;
} WalObject;

/* NOT_FOUND when absent. `file` is what the index must agree with. */
WalObject *wal_object_open(WalStore *store, const char *name, const WalFileName *file,
                           CairnError *err) MUST_CHECK;
/* The object's name, and the LSN of its first byte. */
void wal_piece_object_name(const WalStore *store, const WalPieceName *name,
                           char text[STORAGE_NAME_LIMIT + 1]);
uint64_t wal_piece_start_lsn(const WalStore *store, const WalPieceName *name);
/* A piece of an unfinished segment, which begins at start_lsn (wal_piece.h). */
WalObject *wal_object_open_piece(WalStore *store, const char *name, uint32_t timeline,
                                 uint64_t start_lsn, CairnError *err) MUST_CHECK;
/* By its archive name: a .partial may have its digits behind it. */
WalObject *wal_object_open_file(WalStore *store, const char *file_name, CairnError *err) MUST_CHECK;
void wal_object_free(WalObject *object);
SCOPED_TYPE(WalObject, wal_object_free);

/* Decode frame number `number` into raw (WAL_FRAME_SIZE bytes), its CRC checked. */
bool wal_object_frame(WalObject *object, size_t number, uint8_t *raw, CairnError *err) MUST_CHECK;

/* Everything but the zero tail, in order, to sink; true only when the keyed digest agreed. */
typedef bool WalSink(void *context, const void *data, size_t size, uint64_t offset,
                     CairnError *err);
bool wal_object_stream(WalObject *object, WalSink *sink, void *context, CairnError *err) MUST_CHECK;

/* Every byte, read once: frames and the keyed digest where they can be decoded here, and the
 * SHA-256. */
bool wal_object_verify(WalObject *object, CairnError *err) MUST_CHECK;

/* The digest of a WAL file is finished by its size, so that the zero tail is part of it. */
bool wal_digest_finish(KeyedDigest *digest, uint64_t size, uint8_t digest_out[KEYED_DIGEST_SIZE],
                       CairnError *err) MUST_CHECK;

#endif
