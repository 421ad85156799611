/*
 * One object from one storage to another, its stored bytes as they are; no keys are needed.
 *
 * Checked on the way: header (magic, CRC, the repository's id, that the content belongs under this
 * name), trailer, and the SHA-256 of everything before it. Nothing that does not agree is
 * published. What is there already counts when size and the SHA-256 that it ends with are the same,
 * and is made durable again; its body is read only where that is asked for.
 *
 * Errors: NOT_FOUND, CORRUPT, MISMATCH of the source's object (at_source); CONFLICT: other content
 * is there; CORRUPT, IO of what is there (at_target); what the storages say.
 * Memory: COPY_BUFFER_SIZE. Threads: any number, each with a CopyObject of its own.
 */
#ifndef PGCAIRN_REPOSITORY_COPY_OBJECT_H
#define PGCAIRN_REPOSITORY_COPY_OBJECT_H

#include "storage/storage.h"

#include <stdbool.h>
#include <stdint.h>

enum { COPY_BUFFER_SIZE = 1 << 20 };

typedef struct {
    Storage *from, *to;
    const char *from_name, *to_name;
    const char *name; /* that the object is bound to; the same two but for descriptors */
    const uint8_t *repository_id; /* NULL: any */
    uint8_t *buffer;              /* COPY_BUFFER_SIZE bytes; NULL: one of its own */
    bool reads_present;           /* what is there already, too */
    /* Results. */
    bool existed;        /* the same was there */
    bool at_source;      /* the failure is of the source's object, not of the storage it goes to */
    bool at_target;      /* what was there is damaged, and was left alone */
    uint64_t size_bytes; /* of the object */
} CopyObject;

bool copy_object(CopyObject *copy, CairnError *err) MUST_CHECK;

#endif
