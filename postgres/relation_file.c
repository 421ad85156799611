/*
 * Which relation, fork and segment a file of the data directory belongs to.
 */
#include "postgres/page.h"

#include <string.h>

enum { TABLESPACE_DEFAULT_OID = 1663, TABLESPACE_GLOBAL_OID = 1664 };

/* Block numbers have 32 bits: a segment beyond this cannot exist. */
enum { SEGMENT_MAX = (int)(UINT32_MAX / PAGE_SEGMENT_BLOCKS) };

/* A positive decimal number as PostgreSQL prints it (no leading zero); moves *text behind it. */
static bool
take_number(const char **text, uint32_t *number_out)
{
    const char *at = *text;
    if (*at < '1' || *at > '9')
        return false;

    uint64_t number = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        number = number * 10 + (uint64_t)(*at - '0');
        if (number > UINT32_MAX)
            return false;
    }
    *text = at;
    *number_out = (uint32_t)number;
    return true;
}

static bool
take_text(const char **text, const char *expected)
{
    const size_t size = strlen(expected);
    if (strncmp(*text, expected, size) != 0)
        return false;
    *text += size;
    return true;
}

/* "<relfilenode>[_fork][.segment]" to the end of the path. */
static bool
parse_file_name(const char *name, RelationFile *file)
{
    if (!take_number(&name, &file->relfilenode))
        return false;

    static const char *const suffixes[] = {NULL, "_fsm", "_vm", "_init"};
    for (int fork = 1; fork <= 3; fork++) {
        if (take_text(&name, suffixes[fork])) {
            file->fork = fork;
            break;
        }
    }

    if (take_text(&name, ".") &&
        (!take_number(&name, &file->segment) || file->segment > SEGMENT_MAX))
        return false;
    return *name == '\0';
}

/* "PG_<major>_<catalog version>/" */
static bool
take_version_directory(const char **text)
{
    uint32_t ignored;
    return take_text(text, "PG_") && take_number(text, &ignored) && take_text(text, "_") &&
           take_number(text, &ignored) && take_text(text, "/");
}

bool
relation_file_parse(const char *path, RelationFile *file_out)
{
    RelationFile file = {0};

    if (take_text(&path, "global/")) {
        file.tablespace = TABLESPACE_GLOBAL_OID;
    } else if (take_text(&path, "base/")) {
        file.tablespace = TABLESPACE_DEFAULT_OID;
        if (!take_number(&path, &file.database) || !take_text(&path, "/"))
            return false;
    } else if (take_text(&path, "pg_tblspc/")) {
        if (!take_number(&path, &file.tablespace) || !take_text(&path, "/") ||
            !take_version_directory(&path) || !take_number(&path, &file.database) ||
            !take_text(&path, "/")) {
            return false;
        }
    } else {
        return false;
    }

    if (!parse_file_name(path, &file))
        return false;
    *file_out = file;
    return true;
}
