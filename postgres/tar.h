/*
 * The tar stream of BASE_BACKUP (facts 3.3), parsed as if an enemy wrote it.
 *
 * A push parser: tar_parser_feed takes bytes in any pieces and calls back: a member begins (checked
 * header), its data in pieces, it ends. Data callbacks get the caller's own memory where possible.
 * Accepts: files, directories, symbolic links only as pg_tblspc/<oid>; clean relative names (no
 * `..`, no empty or dot component but a leading "./", no absolute path, no backslash-NUL tricks, at
 * most TAR_PATH_LIMIT bytes); ustar without prefix, pax or GNU extensions; octal or base-256
 * numbers. Refuses everything else with CORRUPT and the member's name in escaped form. Memory:
 * constant.
 */
#ifndef PGCAIRN_POSTGRES_TAR_H
#define PGCAIRN_POSTGRES_TAR_H

#include "common/error.h"
#include "common/scoped.h"

#include <stddef.h>
#include <stdint.h>

enum { TAR_BLOCK_SIZE = 512, TAR_PATH_LIMIT = 1024 };

typedef enum { TAR_FILE, TAR_DIRECTORY, TAR_SYMLINK } TarMemberType;

typedef struct {
    const char *path;   /* normalised: no leading "./", no trailing slash; "." is never passed on */
    const char *target; /* TAR_SYMLINK */
    TarMemberType type;
    uint32_t mode; /* permission bits as sent */
    uint64_t size_bytes;
} TarMember;

typedef struct {
    bool (*begin)(void *context, const TarMember *member, CairnError *err);
    bool (*data)(void *context, const uint8_t *data, size_t size, CairnError *err);
    bool (*end)(void *context, CairnError *err);
} TarCallbacks;

typedef struct TarParser TarParser;
TarParser *tar_parser_new(const TarCallbacks *callbacks, void *context, CairnError *err) MUST_CHECK;
void tar_parser_free(TarParser *parser);
bool tar_parser_feed(TarParser *parser, const uint8_t *data, size_t size,
                     CairnError *err) MUST_CHECK;
/* The archive is over: CORRUPT unless its two zero blocks came. The parser is then ready for the
 * next. */
bool tar_parser_finish(TarParser *parser, CairnError *err) MUST_CHECK;
SCOPED_TYPE(TarParser, tar_parser_free);

/* A path that may be stored and later written below a target: relative, clean. */
bool path_is_clean(const char *path, size_t size);

#endif
