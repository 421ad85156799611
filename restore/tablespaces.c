#include "restore/tablespaces.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "OLD=NEW": NEW when OLD is the oid or the path; NULL otherwise. */
static const char *
mapping_applies(const char *mapping, uint32_t oid, const char *path)
{
    char number[16];
    const char *equals = strrchr(mapping, '=');
    if (equals == NULL)
        return NULL;
    const size_t length = (size_t)(equals - mapping);
    snprintf(number, sizeof number, "%" PRIu32, oid);
    const bool by_oid = strlen(number) == length && memcmp(number, mapping, length) == 0;
    const bool by_path = strlen(path) == length && memcmp(path, mapping, length) == 0;
    return by_oid || by_path ? equals + 1 : NULL;
}

/* The mapped place; NULL when nothing maps it. */
static const char *
mapped_place(const TablespaceOptions *options, uint32_t oid, const char *path)
{
    for (size_t i = 0; i < options->mapping_count; i++) {
        const char *place = mapping_applies(options->mappings[i], oid, path);
        if (place != NULL)
            return place;
    }
    return NULL;
}

static bool
check_mappings(const Fate *backup, const TablespaceOptions *options, CairnError *err)
{
    for (size_t i = 0; i < options->mapping_count; i++) {
        const char *place = NULL;
        for (size_t j = 0; j < backup->tablespace_count && place == NULL; j++) {
            place = mapping_applies(options->mappings[i], backup->tablespaces[j].oid,
                                    backup->tablespaces[j].path);
        }
        if (place == NULL || place[0] != '/' || strlen(place) >= TABLESPACE_PATH_LIMIT) {
            cairn_error(err, CAIRN_USAGE, "--tablespace-map=%.200s %s", options->mappings[i],
                        place == NULL ? "fits no tablespace of the backup"
                                      : "does not name an absolute path");
            return cairn_error_hint(err, "OID=DIR or OLDPATH=NEWPATH, with absolute paths");
        }
    }
    return true;
}

static bool
is_in_place(const FateTablespace *tablespace)
{
    return tablespace->path[0] != '/';
}

static bool
refuse_unmapped(const Fate *backup, const TablespaceOptions *options, CairnError *err)
{
    char text[CAIRN_ERROR_HINT_SIZE - 32];
    size_t length = 0;
    size_t count = 0;

    text[0] = '\0';
    for (size_t i = 0; i < backup->tablespace_count; i++) {
        const FateTablespace *tablespace = &backup->tablespaces[i];
        if (is_in_place(tablespace) ||
            mapped_place(options, tablespace->oid, tablespace->path) != NULL) {
            continue;
        }
        count++;
        if (length < sizeof text) {
            const int added = snprintf(text + length, sizeof text - length,
                                       "\n  --tablespace-map=%" PRIu32 "=/new/place  (was %s)",
                                       tablespace->oid, tablespace->path);
            length += added > 0 ? (size_t)added : 0;
        }
    }
    if (count == 0)
        return true;
    cairn_error(err, CAIRN_REFUSED, "a copy needs a place of its own for %zu tablespace%s", count,
                count == 1 ? "" : "s");
    return cairn_error_hint(err, "add%s", text);
}

bool
tablespaces_open(const Fate *backup, const TablespaceOptions *options, TargetDirectory *directory,
                 bool *any_moved_out, CairnError *err)
{
    bool any_moved = false;

    if (!check_mappings(backup, options, err) ||
        (!options->original && !refuse_unmapped(backup, options, err))) {
        return false;
    }
    for (size_t i = 0; i < backup->tablespace_count; i++) {
        const FateTablespace *tablespace = &backup->tablespaces[i];
        if (is_in_place(tablespace))
            continue;
        const char *place = mapped_place(options, tablespace->oid, tablespace->path);
        any_moved = any_moved || place != NULL;
        if (!target_directory_add_tablespace(
                directory, tablespace->oid, place != NULL ? place : tablespace->path, backup->major,
                options->replace && place == NULL, err)) {
            return false;
        }
    }
    *any_moved_out = any_moved;
    return true;
}

typedef struct {
    const TablespaceOptions *options;
    ByteWriter *map;
} Rewrite;

static bool
rewrite_line(void *context, const Tablespace *tablespace, CairnError *err)
{
    const Rewrite *rewrite = context;
    Tablespace moved = *tablespace;
    const char *place = mapped_place(rewrite->options, tablespace->oid, tablespace->path);
    if (place != NULL)
        snprintf(moved.path, sizeof moved.path, "%s", place);
    tablespace_map_append(rewrite->map, &moved);
    return byte_writer_check(rewrite->map, err);
}

bool
tablespaces_rewrite_map(const char *text, size_t size, const TablespaceOptions *options,
                        ByteWriter *map_out, CairnError *err)
{
    Rewrite rewrite = {.options = options, .map = map_out};
    return tablespace_map_parse(text, size, rewrite_line, &rewrite, err);
}
