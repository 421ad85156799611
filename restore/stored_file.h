/*
 * One stored file read from front to back: for what restore looks at or changes before it lays it
 * down (settings, manifest, control file, captured configuration).
 *
 * Errors: CORRUPT when the bytes do not have the CRC that the map states. The map reader is moved.
 * Threads: one thread.
 */
#ifndef PGCAIRN_RESTORE_STORED_FILE_H
#define PGCAIRN_RESTORE_STORED_FILE_H

#include "repository/map.h"
#include "restore/frame_source.h"

typedef bool StoredFileSink(void *context, const void *data, size_t size, CairnError *err);

/* Moves to that entry. *found_out false: there is none. */
bool stored_file_find(MapReader *map, MapClass class, const char *path, MapEntry *entry_out,
                      bool *found_out, CairnError *err) MUST_CHECK;

/* The bytes of the entry that the map reader stands at. */
bool stored_file_stream(MapReader *map, FrameReader *frames, const MapEntry *entry,
                        StoredFileSink *sink, void *context, CairnError *err) MUST_CHECK;

/* Whole, NUL-terminated, malloc'ed into *text_out (owned by the caller); NULL there when there is
   no such file. UNSUPPORTED when it is larger than limit. */
bool stored_file_read(MapReader *map, FrameReader *frames, MapClass class, const char *path,
                      size_t limit, char **text_out, size_t *size_out, CairnError *err) MUST_CHECK;

#endif
