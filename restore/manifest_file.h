/*
 * The server's backup_manifest, laid down beside the files that it describes: the bytes as the
 * server sent them, with new entries only for files that restore changed, added or left out on
 * purpose.
 */
#ifndef PGCAIRN_RESTORE_MANIFEST_FILE_H
#define PGCAIRN_RESTORE_MANIFEST_FILE_H

#include "restore/stored_file.h"
#include "restore/target_directory.h"

/* One file that is not as the server sent it. */
typedef struct {
    const char *path; /* borrowed */
    bool dropped;     /* not laid down at all */
    uint64_t size_bytes;
    uint32_t crc32c;
} ManifestEdit;

enum { MANIFEST_EDIT_LIMIT = 16 };

typedef struct {
    ManifestEdit edits[MANIFEST_EDIT_LIMIT];
    size_t count;
} ManifestEdits;

void manifest_edits_drop(ManifestEdits *edits, const char *path);
void manifest_edits_set(ManifestEdits *edits, const char *path, const void *data, size_t size);

/* Nothing when the backup keeps no manifest. */
bool manifest_file_lay(MapReader *map, FrameReader *frames, const World *world,
                       TargetDirectory *directory, const ManifestEdits *edits, uint32_t mode,
                       CairnError *err) MUST_CHECK;

#endif
