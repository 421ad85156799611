/*
 * An object's header: what it is, whose, under which name and keys (docs/format.md, "Every
 * object"). Inside repository/ only: object.c and the descriptor's reader.
 *
 * Errors: as object.h. Threads: any. Ownership: keys are plain bytes in the struct; the owner wipes
 * them with object_keys_wipe.
 */
#ifndef PGCAIRN_REPOSITORY_OBJECT_HEADER_H
#define PGCAIRN_REPOSITORY_OBJECT_HEADER_H

#include "repository/keyring.h"
#include "repository/object.h"

#include <stdint.h>

typedef struct {
    uint32_t length; /* recipients included: where the body begins */
    int64_t created_us;
    bool encrypted;
    ObjectKeys keys; /* where encrypted */
} ObjectHeader;

typedef struct {
    ObjectKind kind;
    uint64_t creator_sequence;
    bool is_meta; /* its body is metadata, whatever its kind has else */
} ObjectHeaderFields;

/* The header of a new object, with a fresh salt, appended to bytes. DENIED where the repository is
   encrypted and has no keys. */
bool object_header_make(const Repository *repository, const char *name,
                        const ObjectHeaderFields *fields, ByteWriter *bytes,
                        ObjectHeader *header_out, CairnError *err) MUST_CHECK;
/* Reads and checks it: damage, identity, keys and their commitment. */
bool object_header_read(const Repository *repository, StorageReader *storage, const char *name,
                        ObjectKind kind, ObjectHeader *header_out, CairnError *err) MUST_CHECK;
/* The part that needs neither an expectation nor a key. id_out: the repository's. */
bool object_header_repository_id(StorageReader *storage, const char *name,
                                 uint8_t id_out[REPOSITORY_ID_SIZE], CairnError *err) MUST_CHECK;
/* The same for bytes of a header that were read already, and for an object that is only carried:
   belongs it under this name? repository_id NULL: to any repository. */
bool object_header_check_place(const uint8_t header[OBJECT_HEADER_SIZE], const char *name,
                               const uint8_t *repository_id, uint8_t id_out[REPOSITORY_ID_SIZE],
                               CairnError *err) MUST_CHECK;

#endif
