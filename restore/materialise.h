/*
 * Writes the files of a backup into a target directory with several threads.
 *
 * What: one walk over the map; directories are made, small files are gathered and written in the
 * order in which they are stored (their frames are shared), large ones by regions. Zero runs stay
 * holes. Each file's CRC-32C is put together from its regions and compared with the map's. Memory:
 * the reader windows of each thread, a bounded queue and one gathered batch, whatever the number of
 * files. Errors: the first one of any thread; CORRUPT names file and pack. What was written stays,
 * without pg_control. Durability: writeback is started early; target_directory_commit makes all
 * durable.
 */
#ifndef PGCAIRN_RESTORE_MATERIALISE_H
#define PGCAIRN_RESTORE_MATERIALISE_H

#include "common/progress.h"
#include "repository/map.h"
#include "restore/frame_source.h"
#include "restore/target_directory.h"

enum { MATERIALISE_JOBS_LIMIT = READERS_LIMIT - 1 };

/* False for files of the cluster that somebody else lays down. */
typedef bool MaterialiseFilter(void *context, const char *path);

typedef struct {
    const World *world;
    MapReader *map;
    FrameSource *frames;
    TargetDirectory *directory;
    int jobs;
    MaterialiseFilter *wanted;
    void *context;
    Progress *progress; /* may be NULL */
} MaterialiseOptions;

bool materialise(const MaterialiseOptions *options, CairnError *err) MUST_CHECK;

#endif
