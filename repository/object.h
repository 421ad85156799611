/*
 * The container that every object of the repository is: header, body of frames, index, trailer
 * (docs/format.md, "Every object").
 *
 * What: writing streams frames and ends with an index; reading gives the checked header, trailer
 * and index, then frames at will. Small objects are an index alone. In an encrypted repository all
 * but descriptor and key slots are encrypted here: frames as they are appended, the index at the
 * end, and every byte that a reader believes is authenticated first.
 *
 * Errors: CORRUPT for damage (which object, which part), MISMATCH for another repository's object,
 * one under another name, one made with another key, and a plain one where all are encrypted;
 * DENIED where a key is needed that is not held here, SEALED where that is a recipient's and only
 * the body needs it; UNSUPPORTED for formats we do not know; storage errors pass through. Crash:
 * nothing is visible before object_finish returns true, then it is durable; an object that did not
 * get so far is never continued, the next try has keys of its own. Threads: one writer or reader,
 * one thread; but object_pread and object_decode may be called by several for one reader.
 */
#ifndef PGCAIRN_REPOSITORY_OBJECT_H
#define PGCAIRN_REPOSITORY_OBJECT_H

#include "codec/codec.h"
#include "common/bytes.h"
#include "repository/repository.h"

#include <stdint.h>

/* Stored: never renumber. */
typedef enum {
    OBJECT_REPOSITORY = 1,
    OBJECT_KEY = 2,
    OBJECT_INCARNATION = 3,
    OBJECT_INTENT = 4,
    OBJECT_PACK = 5,
    OBJECT_MAP = 6,
    OBJECT_REFS = 7,
    OBJECT_FATE = 8,
    OBJECT_MARK = 9,
    OBJECT_EVIDENCE = 10,
    OBJECT_DOOMED = 11,
    OBJECT_PIN = 12,
    OBJECT_CONDEMNED = 13,
    OBJECT_CATALOG = 14,
    OBJECT_WAL = 15,
    OBJECT_WAL_BUNDLE = 16,
    OBJECT_WAL_TAIL = 17,
    OBJECT_WAL_ACK = 18,
    OBJECT_STORE_PROOF = 19,
} ObjectKind;

enum {
    OBJECT_HEADER_SIZE = 192,
    OBJECT_HEADER_LIMIT = 65536,
    OBJECT_TRAILER_SIZE = 64,
    OBJECT_INDEX_LIMIT = 64 << 20,
    OBJECT_FRAME_LIMIT = (1 << 20) + 4096,
    OBJECT_SMALL_LIMIT = 16 << 20,
};

typedef struct ObjectWriter ObjectWriter;

/* creator_sequence: of the BID that makes it, 0 outside backups. name is borrowed for the call. */
ObjectWriter *object_create(Repository *repository, const char *name, ObjectKind kind,
                            uint64_t creator_sequence, CairnError *err) MUST_CHECK;
/* The same for a WAL file that every host must be able to read again, one that only seals too: a
   timeline's history. */
ObjectWriter *object_create_readable(Repository *repository, const char *name, ObjectKind kind,
                                     CairnError *err) MUST_CHECK;
/* A block as codec_compress made it. */
typedef struct {
    const void *data; /* borrowed */
    uint32_t size;
    uint32_t raw_size;
    CodecId codec;
} ObjectBlock;
/* A frame of the body: what an index must say of it. */
typedef struct {
    uint64_t offset; /* in the object */
    uint32_t stored_size;
    uint32_t crc; /* CRC-32C of the stored bytes */
    uint32_t raw_size;
    CodecId codec;
} ObjectFrame;
/* Appends blocks that lie one after another in memory, each as a frame. */
bool object_append_blocks(ObjectWriter *writer, const ObjectBlock *blocks, uint32_t count,
                          ObjectFrame *frames_out, CairnError *err) MUST_CHECK;
bool object_append(ObjectWriter *writer, const ObjectBlock *block, ObjectFrame *frame_out,
                   CairnError *err) MUST_CHECK;
uint64_t object_size_so_far(const ObjectWriter *writer);
/* Index, trailer, durable publish. CONFLICT when the name is taken. digest_out (may be NULL): the
   trailer's SHA-256. */
bool object_finish(ObjectWriter *writer, const void *index, size_t index_size, uint8_t *digest_out,
                   CairnError *err) MUST_CHECK;
void object_writer_free(ObjectWriter *writer); /* abandons what was not finished */
SCOPED_TYPE(ObjectWriter, object_writer_free);

typedef struct ObjectReader ObjectReader;

/* Opens and checks header, trailer and index (not the body). */
ObjectReader *object_open(Repository *repository, const char *name, ObjectKind kind,
                          CairnError *err) MUST_CHECK;
/* The same where an index larger than index_limit (raw, at most OBJECT_INDEX_LIMIT) is none: it is
   CORRUPT, and no memory is taken for it. */
ObjectReader *object_open_within(Repository *repository, const char *name, ObjectKind kind,
                                 uint32_t index_limit, CairnError *err) MUST_CHECK;
void object_reader_free(ObjectReader *reader);
/* Raw index, borrowed from the reader. */
ByteReader object_index(const ObjectReader *reader);
/* Frees the index, for readers that are kept long and need only the body; it is empty from then on.
 */
void object_drop_index(ObjectReader *reader);
uint32_t object_frame_count(const ObjectReader *reader);
uint64_t object_body_start(const ObjectReader *reader);
uint64_t object_body_end(const ObjectReader *reader);
uint64_t object_stored_size(const ObjectReader *reader);
int64_t object_created_us(const ObjectReader *reader);
/* The trailer's SHA-256 (32 bytes, borrowed). */
const uint8_t *object_digest(const ObjectReader *reader);
/* Stored bytes of the body, unchecked: callers compare their frame's CRC, or leave it to
   object_decode where the repository is encrypted. */
bool object_pread(const ObjectReader *reader, void *data, size_t size, uint64_t offset,
                  CairnError *err) MUST_CHECK;
/* Stored bytes of any part of it. */
bool object_pread_any(const ObjectReader *reader, void *data, size_t size, uint64_t offset,
                      CairnError *err) MUST_CHECK;
/* Whether object_decode can read frames: not on a host that only seals. */
bool object_is_readable(const ObjectReader *reader);
/* Decrypts where it is encrypted and decompresses a frame's stored bytes into frame->raw_size
   bytes. codec: the calling thread's. SEALED unless object_is_readable. The caller says in front of
   errors which frame of which object it is. */
bool object_decode(const ObjectReader *reader, const ObjectFrame *frame, CodecContext *codec,
                   const void *stored, void *raw, CairnError *err) MUST_CHECK;
/* Compares what everything before the trailer's SHA-256 hashes to (32 bytes) with it. */
bool object_check_digest(const ObjectReader *reader, const uint8_t *digest,
                         CairnError *err) MUST_CHECK;
/* Reads everything and compares SHA-256: the keyless scrub. */
bool object_scrub(ObjectReader *reader, CairnError *err) MUST_CHECK;
SCOPED_TYPE(ObjectReader, object_reader_free);

/* Whole small objects. The text or bytes are NUL-terminated, malloc'ed (returned owned), and were
   checked against the SHA-256. digest_out may be NULL. */
bool object_put_small(Repository *repository, const char *name, ObjectKind kind,
                      uint64_t creator_sequence, const void *content, size_t size,
                      uint8_t *digest_out, CairnError *err) MUST_CHECK;
char *object_get_small(Repository *repository, const char *name, ObjectKind kind, size_t *size_out,
                       uint8_t *digest_out, CairnError *err) MUST_CHECK;

/*
 * What can be told of any object from its first OBJECT_HEADER_SIZE and last OBJECT_TRAILER_SIZE
 * bytes, without keys: CORRUPT, MISMATCH when it belongs to another repository or under another
 * name. repository_id NULL: any.
 */
typedef struct {
    uint8_t repository_id[REPOSITORY_ID_SIZE];
    uint8_t sha256[SHA256_SIZE]; /* as the trailer says it, of everything before it */
} ObjectSeal;
bool object_check_seal(const uint8_t *header, const uint8_t *trailer, const char *name,
                       const uint8_t *repository_id, ObjectSeal *seal_out,
                       CairnError *err) MUST_CHECK;

/* Repository id out of an object's checked header: how the descriptor says who it is. */
bool object_read_repository_id(Repository *repository, const char *name, uint8_t *id_out,
                               CairnError *err) MUST_CHECK;

#endif
