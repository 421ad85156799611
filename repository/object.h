/*
 * The container that every object of the repository is: header, body of frames, index, trailer
 * (docs/format.md, "Every object").
 *
 * What: writing streams frames and ends with an index; reading gives the checked header, trailer
 * and index, then frames at will. Small objects are an index alone. Errors: CORRUPT for damage
 * (which object, which part), MISMATCH for another repository's object or one under another name,
 * UNSUPPORTED for formats we do not know; storage errors pass through. Crash: nothing is visible
 * before object_finish returns true, then it is durable. Threads: one writer or reader, one thread.
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
/* Appends `frame_count` stored frames that lie one after another; *offset_out is where the first
 * begins. */
bool object_append_frames(ObjectWriter *writer, const void *stored, size_t stored_size,
                          uint32_t frame_count, uint64_t *offset_out, CairnError *err) MUST_CHECK;
/* Appends one stored frame; *offset_out is where it begins in the object. */
bool object_append(ObjectWriter *writer, const void *stored, size_t stored_size,
                   uint64_t *offset_out, CairnError *err) MUST_CHECK;
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
/* Stored bytes of the body, unchecked: callers compare their frame's CRC. */
bool object_pread(ObjectReader *reader, void *data, size_t size, uint64_t offset,
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

/* Repository id out of an object's checked header: how the descriptor says who it is. */
bool object_read_repository_id(Repository *repository, const char *name, uint8_t *id_out,
                               CairnError *err) MUST_CHECK;

#endif
