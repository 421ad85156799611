/*
 * Where the tablespaces of a restored cluster lie. (Part of restore.)
 *
 * Their original absolute places are taken only by the original cluster itself; a copy needs a
 * mapping for each, and what is missing is spelled out.
 */
#ifndef PGCAIRN_RESTORE_TABLESPACES_H
#define PGCAIRN_RESTORE_TABLESPACES_H

#include "common/bytes.h"
#include "repository/fate.h"
#include "restore/target_directory.h"

typedef struct {
    const char *const *mappings; /* "OID=DIR" or "OLDPATH=NEWPATH" */
    size_t mapping_count;
    bool original;
    bool replace; /* what the old cluster left there is removed */
} TablespaceOptions;

/* Opens all their places. any_moved_out: tablespace_map has to be written anew. USAGE for a mapping
   that fits no tablespace. */
bool tablespaces_open(const Fate *backup, const TablespaceOptions *options,
                      TargetDirectory *directory, bool *any_moved_out, CairnError *err) MUST_CHECK;

/* tablespace_map for the new places; text is the backup's own. */
bool tablespaces_rewrite_map(const char *text, size_t size, const TablespaceOptions *options,
                             ByteWriter *map_out, CairnError *err) MUST_CHECK;

#endif
