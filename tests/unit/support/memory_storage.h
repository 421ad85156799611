/*
 * A Storage in memory, for tests, fuzzers and simulators: objects are created once, whole, as on
 * disk, and a test may reach behind the interface to read, damage, replace or drop what lies there.
 *
 * Ownership: storage_close frees everything. Threads: one, or several that never overlap.
 */
#ifndef PGCAIRN_TESTS_MEMORY_STORAGE_H
#define PGCAIRN_TESTS_MEMORY_STORAGE_H

#include "storage/storage.h"

#include <stddef.h>

Storage *memory_storage_new(void);

/* The object's own bytes, which may be changed in place; NULL when there is none. */
uint8_t *memory_storage_bytes(Storage *storage, const char *name, size_t *size_out);
/* Puts an object in place of what may be there. */
void memory_storage_replace(Storage *storage, const char *name, const void *data, size_t size);
size_t memory_storage_count(const Storage *storage);

#endif
