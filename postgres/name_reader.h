/*
 * Reads the lists of names that name_snapshot.h makes and a backup keeps (docs/format.md, "Names").
 *
 * What: push parser for COPY's text form, a row a line: fields separated by tabs, backslash
 * escapes, the last line `\.`.
 * Memory: one line, at most NAME_LINE_LIMIT. Errors: CORRUPT for what is no such list. Pieces of
 * any size give the same rows. Threads: one object, one thread.
 *
 *     name_reader_begin, name_reader_feed..., name_reader_finish
 */
#ifndef PGCAIRN_POSTGRES_NAME_READER_H
#define PGCAIRN_POSTGRES_NAME_READER_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A name has 63 bytes, a few times that in another encoding and with escapes. */
enum { NAME_LINE_LIMIT = 4096, NAME_FIELDS_LIMIT = 7 };

/* NAME_RELATIONS: a file of one database. relfilenode 0: it has none of its own (a partitioned
   table). root: of a partition, the oid of the uppermost table; else 0. */
typedef struct {
    uint32_t oid;
    uint32_t relfilenode;
    uint32_t tablespace;
    uint32_t root;
    char kind; /* as pg_class.relkind says it */
    const char *schema;
    const char *name; /* borrowed for the call */
} RelationName;

typedef struct {
    uint32_t oid;
    uint32_t tablespace;
    const char *name;
} DatabaseName;

typedef struct {
    /* One of the two. False: stop, and that is no error (err stays empty), or fail. */
    bool (*relation)(void *context, const RelationName *relation, CairnError *err);
    bool (*database)(void *context, const DatabaseName *database, CairnError *err);
    void *context;
} NameCallbacks;

typedef struct {
    NameCallbacks callbacks;
    char line[NAME_LINE_LIMIT];
    size_t length;
    bool ended;   /* the last line was seen */
    bool stopped; /* a callback had enough */
} NameReader;

void name_reader_begin(NameReader *reader, const NameCallbacks *callbacks);
/* A StoredFileSink and ConnectionSink. Once stopped, what follows is ignored. */
bool name_reader_feed(void *reader, const void *data, size_t size, CairnError *err) MUST_CHECK;
/* *whole_out: the list came whole (its last line was there), or a callback stopped it. */
bool name_reader_finish(const NameReader *reader, bool *whole_out, CairnError *err) MUST_CHECK;

#endif
