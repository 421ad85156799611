/*
 * One file that is being written into the target directory. (Part of materialise.)
 *
 * A FileTarget is counted: each cell is a share, and the last cell to be written ends the file.
 * Cells are given out in order by one thread; written by any, each by one. Errors: CORRUPT when the
 * joined CRC is not the backup's. Durability: none; target_directory_commit makes all durable.
 */
#ifndef PGCAIRN_RESTORE_FILE_TARGET_H
#define PGCAIRN_RESTORE_FILE_TARGET_H

#include "repository/map.h"
#include "restore/target_directory.h"

#include <stdatomic.h>

/* A cell is 8 MiB of a file. The largest file that is taken: 1 TiB. */
enum { CELL_UNITS = 1024 };
#define FILE_SIZE_LIMIT (UINT64_C(1) << 40)

typedef struct {
    const World *world;
    DirectoryHandle *parent; /* released with the file */
    int fd;                  /* -1 until the only cell opens it (small files) */
    uint32_t mode;
    uint64_t size_bytes;
    bool has_crc32c;
    uint32_t crc32c;
    uint32_t cell_count;
    _Atomic uint32_t cells_left;
    uint32_t *cell_crcs;
    uint32_t single_crc; /* what cell_crcs points to when there is one cell */
    char *name;          /* last component of path, inside it */
    char path[];
} FileTarget;

/* Takes the parent. Files of several cells are created at once, so that any cell may come first. */
FileTarget *file_target_new(const World *world, DirectoryHandle *parent, const MapEntry *entry,
                            CairnError *err) MUST_CHECK;
/* Creates it in its directory; fails where something has that name. By who has its only cell. */
bool file_target_create(FileTarget *file, CairnError *err) MUST_CHECK;
/* Bytes of so many units from `unit` on: fewer at the end of the file. */
uint64_t file_target_bytes(const FileTarget *file, uint64_t unit, uint64_t units);
/* So many cells are written, their CRCs set. With the last one the file ends: CRC compared, size
 * set, closed, freed. */
bool file_target_done(FileTarget *file, uint32_t cells, CairnError *err) MUST_CHECK;
/* For one that will not be ended: drops the shares of so many cells. */
void file_target_abandon(FileTarget *file, uint32_t cells);

#endif
