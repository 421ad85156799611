/*
 * What waits to be archived, in the order in which a server asks for it: history files first, then
 * by name (ready_file_comparator of its pgarch.c). The first names of any number; the server looks
 * as far ahead itself.
 *
 * Ownership: the caller's struct, all zero to begin with. Threads: one.
 */
#ifndef PGCAIRN_POSTGRES_ARCHIVE_QUEUE_H
#define PGCAIRN_POSTGRES_ARCHIVE_QUEUE_H

#include "postgres/wal_name.h"

#include <stddef.h>

enum { ARCHIVE_QUEUE_LIMIT = 64 };

typedef struct {
    char names[ARCHIVE_QUEUE_LIMIT][WAL_FILE_NAME_LIMIT];
    size_t count;
    size_t total; /* also those beyond the limit */
} ArchiveQueue;

/* name: as wal_file_name_parse takes it, each once. */
void archive_queue_add(ArchiveQueue *queue, const char *name);

#endif
