/*
 * backup_label and tablespace_map (facts 3.13, 3.7): parsed, and the map rewritten for new places.
 */
#ifndef PGCAIRN_POSTGRES_BACKUP_LABEL_H
#define PGCAIRN_POSTGRES_BACKUP_LABEL_H

#include "common/bytes.h"
#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t start_lsn;
    uint32_t start_timeline;
    uint64_t checkpoint_lsn;
    bool from_standby;
} BackupLabel;

/* CORRUPT when it is not exactly what PostgreSQL's own parser takes; UNSUPPORTED for an
 * incremental. */
bool backup_label_parse(const char *text, size_t size, BackupLabel *label_out,
                        CairnError *err) MUST_CHECK;

enum { TABLESPACE_LIMIT = 4096, TABLESPACE_PATH_LIMIT = 1024 };

typedef struct {
    uint32_t oid;
    char path[TABLESPACE_PATH_LIMIT]; /* absolute; "pg_tblspc/<oid>" for an in-place one */
} Tablespace;

/* Calls back for each line, unescaped. */
typedef bool TablespaceCallback(void *context, const Tablespace *tablespace, CairnError *err);
bool tablespace_map_parse(const char *text, size_t size, TablespaceCallback *callback,
                          void *context, CairnError *err) MUST_CHECK;
/* Appends one escaped line. */
void tablespace_map_append(ByteWriter *map, const Tablespace *tablespace);

#endif
