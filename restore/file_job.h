/*
 * Files on their way from packs to the target directory, in jobs that threads do independently.
 * (Part of materialise.)
 *
 * A job holds parts of files: cells of one large file, or several small files whole. The map may
 * scatter them over the packs of hundreds of backups, so a job goes through its runs pack by pack
 * and slot by slot: each frame is fetched and decoded once, and of it is written what the map
 * points at, wherever in the files that lies. The CRC of each unit is kept till all are there, then
 * they are joined in the order of the file.
 */
#ifndef PGCAIRN_RESTORE_FILE_JOB_H
#define PGCAIRN_RESTORE_FILE_JOB_H

#include "common/progress.h"
#include "restore/file_target.h"
#include "restore/frame_source.h"

/* What is done at once is cells of one region of the map at most, or so many small files. */
enum { JOB_UNITS = REGION_UNITS, JOB_FILES = 32 };

typedef struct {
    FileTarget *file; /* so many shares of it as it has cells; NULL when ended */
    uint32_t first_cell;
    uint32_t cells;
    uint32_t first_unit; /* among the job's units, which its parts share out */
    uint32_t units;
    uint32_t data_units; /* not yet written; the rest are zeros, which stay holes */
} FilePart;

typedef struct FileJob {
    struct FileJob *next;            /* the queue's */
    const BackupId *const *creators; /* borrowed: what the runs' creator numbers mean */
    const void *place;               /* borrowed, compared only: what two threads should not write
                                        to at once, a file or a directory */
    uint32_t part_count;
    uint32_t run_count;
    FilePart *parts;
    SlotRun *runs;
} FileJob;

/* Room for so many parts and runs, which file_job_add fills. Aborts without memory: what there is
 * of jobs is bounded by their queue. */
FileJob *file_job_new(const BackupId *const *creators, size_t parts, size_t runs);
/*
 * Adds cells of a file, whose shares the job takes. runs: of data only, their units counted from
 * first_cell on.
 */
void file_job_add(FileJob *job, FileTarget *file, uint32_t first_cell, uint32_t cells,
                  const SlotRun *runs, size_t run_count);
/* Frees the job and its shares of files that were not ended. */
void file_job_free(FileJob *job);
size_t file_job_memory_bytes(const FileJob *job);

/* Pack by pack, slot by slot. */
int slot_run_compare(const SlotRun *a, const SlotRun *b);

/* CRCs of a job's units; one for each thread. */
typedef struct {
    uint32_t of_unit[JOB_UNITS];
} UnitCrcs;

/*
 * Writes everything in it, and ends each file whose last cell it was: size set, CRC compared,
 * closed. CORRUPT names pack, file and blocks.
 */
bool file_job_write(FileJob *job, FrameReader *frames, UnitCrcs *crcs, Progress *progress,
                    CairnError *err) MUST_CHECK;

#endif
