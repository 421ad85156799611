/*
 * One line of a backup_manifest, parsed on its own: what reader and rewriter share.
 *
 * A parser for exactly the objects that PostgreSQL writes, not for JSON: keys of a line may come in
 * any order, but none twice, none unknown, none missing; values have the one type they must have;
 * nothing nests. Units: sizes in bytes, LSNs. Ownership: spans point into the line's own bytes,
 * path into the ManifestLine. Errors: CORRUPT, saying what is wrong; the reader adds the line's
 * number.
 */
#ifndef PGCAIRN_POSTGRES_MANIFEST_LINE_H
#define PGCAIRN_POSTGRES_MANIFEST_LINE_H

#include "common/error.h"
#include "postgres/manifest.h"
#include "postgres/tar.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    MANIFEST_LINE_VERSION,    /* { "PostgreSQL-Backup-Manifest-Version": 2, */
    MANIFEST_LINE_SYSTEM_ID,  /* "System-Identifier": 7512345678901234567, */
    MANIFEST_LINE_FILES,      /* "Files": [ */
    MANIFEST_LINE_FILE,       /* { "Path": ... }, */
    MANIFEST_LINE_FILES_END,  /* ], */
    MANIFEST_LINE_RANGES,     /* "WAL-Ranges": [ */
    MANIFEST_LINE_RANGE,      /* { "Timeline": ... } */
    MANIFEST_LINE_RANGES_END, /* ], */
    MANIFEST_LINE_CHECKSUM,   /* "Manifest-Checksum": "..."} */
} ManifestLineKind;

typedef struct {
    const char *data;
    size_t size;
} ManifestSpan;

typedef struct {
    ManifestLineKind kind;
    bool more;            /* FILE, RANGE: a comma stands behind it */
    uint64_t number;      /* VERSION, SYSTEM_ID */
    uint8_t checksum[32]; /* CHECKSUM */
    ManifestWalRange range;
    ManifestFile file;
    ManifestSpan object;   /* FILE: from brace to brace, as it was written */
    ManifestSpan path;     /* FILE: `"Path": "..."` or `"Encoded-Path": "..."`, as written */
    ManifestSpan modified; /* FILE: `"Last-Modified": "..."`, as written */
    char path_bytes[TAR_PATH_LIMIT + 1];
} ManifestLine;

/* kind: what has to stand here; FILE also accepts the list's end, RANGE likewise. */
bool manifest_line_parse(ManifestLineKind kind, const char *text, size_t size,
                         ManifestLine *line_out, CairnError *err) MUST_CHECK;

/* Valid UTF-8 as PostgreSQL sees it (no surrogates, no over-long forms, up to U+10FFFF). */
bool utf8_is_valid(const void *data, size_t size);

/* The reader, showing every line once all checks on it are done (for the rewriter). */
typedef bool ManifestLineCallback(void *context, const ManifestLine *line, const char *text,
                                  size_t size, CairnError *err);
ManifestReader *manifest_reader_new_for_lines(ManifestLineCallback *callback, void *context,
                                              CairnError *err) MUST_CHECK;

#endif
