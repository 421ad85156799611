/*
 * A file on its way from packs to the target directory, in one or more regions that threads write
 * independently. (Part of materialise.)
 *
 * A FileTarget is counted: the last region to be written ends the file. Regions are made in order
 * by one thread; written by any.
 */
#ifndef PGCAIRN_RESTORE_FILE_JOB_H
#define PGCAIRN_RESTORE_FILE_JOB_H

#include "common/progress.h"
#include "repository/map.h"
#include "restore/frame_source.h"
#include "restore/target_directory.h"

#include <stdatomic.h>

/* Units of one region: 8 MiB. And the largest file that is taken: 1 TiB. */
enum { JOB_UNITS = 1024 };
#define FILE_SIZE_LIMIT (UINT64_C(1) << 40)

typedef struct {
    const World *world;
    DirectoryHandle *parent; /* released with the file */
    int fd;                  /* -1 until the first region opens it (single-region files) */
    uint32_t mode;
    uint64_t size_bytes;
    bool has_crc32c;
    uint32_t crc32c;
    uint32_t region_count;
    _Atomic uint32_t regions_left;
    uint32_t *region_crcs;
    uint32_t single_crc; /* what region_crcs points to when there is one region */
    char *name;          /* last component of path, inside it */
    char path[];
} FileTarget;

/* Takes the parent. Files of several regions are created at once, so that any region may come
 * first. */
FileTarget *file_target_new(const World *world, DirectoryHandle *parent, const MapEntry *entry,
                            CairnError *err) MUST_CHECK;
/* For one that was not ended: drops one region's share. */
void file_target_abandon(FileTarget *file);

typedef struct {
    const BackupId *creator; /* borrowed from the map reader; NULL: zeros */
    uint32_t pack;
    uint32_t slot;
    uint32_t units;
} JobRun;

typedef struct {
    FileTarget *file; /* one share of it */
    uint32_t region;
    uint32_t run_count;
    JobRun runs[];
} FileJob;

FileJob *file_job_new(FileTarget *file, uint32_t region, size_t run_count);
/* Frees the job and, unless file_job_write took it, its share of the file. */
void file_job_free(FileJob *job);
/* Writes the region, and ends the file when it was the last one: size set, CRC compared, closed. */
bool file_job_write(FileJob *job, FrameReader *frames, Progress *progress,
                    CairnError *err) MUST_CHECK;

#endif
