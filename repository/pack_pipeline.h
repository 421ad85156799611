/*
 * From a stream of files to packs: one thread feeds, N workers check, fingerprint and compress
 * frames, and one of them at a time appends them to packs in order and tells the map
 * (ARCHITECTURE.md, "The way of a page"). Where there is a UnitSource, workers compare, and only
 * units that it does not hold are stored.
 *
 * Memory: jobs_in_flight * 0.5 MiB, the directories of the packs at hand (`finishers` + 2 of them,
 * each directory_limit and one frame's events; where the storage holds objects in memory, whole
 * packs), and the runs of one region of each file in flight. Errors: the first failure of any
 * thread; sticky. Threads: the feeding functions from one thread.
 */
#ifndef PGCAIRN_REPOSITORY_PACK_PIPELINE_H
#define PGCAIRN_REPOSITORY_PACK_PIPELINE_H

#include "repository/backup_writer.h"
#include "repository/map.h"
#include "repository/unit_source.h"

/* A pack ends early when its directory grows past these: small files with long names, or bad
 * intent. */
enum { PACK_DIRECTORY_LIMIT = 2 << 20 };

/* How large packs get, and how many are made durable at once. */
typedef struct {
    uint64_t pack_size; /* a pack that has reached it is full */
    size_t directory_limit;
    int finishers;
} PackPlan;

typedef struct {
    Repository *repository;
    const char *cluster;
    const BackupId *bid;
    MapBuilder *map;
    UnitSource *source; /* what may be referred to; the feeder's. NULL: every unit is stored */
    int jobs;
    size_t jobs_in_flight;
    PackPlan packs;
    UnitCheck *check;
    void *check_context;
} PackPipelineOptions;

typedef struct {
    uint32_t pack_count;
    uint64_t stored_bytes;
    uint64_t stored_units;
    uint64_t parent_units;  /* that the parent's packs hold */
    uint64_t salvage_units; /* that packs of salvaged attempts hold */
} PackPipelineResult;

typedef struct PackPipeline PackPipeline;
PackPipeline *pack_pipeline_start(const PackPipelineOptions *options, CairnError *err) MUST_CHECK;
void pack_pipeline_free(PackPipeline *pipeline); /* stops the threads, abandons the open pack */
bool pack_pipeline_directory(PackPipeline *pipeline, MapClass class, const char *path,
                             uint32_t mode, CairnError *err) MUST_CHECK;
bool pack_pipeline_file_begin(PackPipeline *pipeline, MapClass class, const char *path,
                              uint32_t mode, CairnError *err) MUST_CHECK;
bool pack_pipeline_data(PackPipeline *pipeline, const uint8_t *data, size_t size,
                        CairnError *err) MUST_CHECK;
bool pack_pipeline_file_end(PackPipeline *pipeline, uint64_t *size_out, uint32_t *crc32c_out,
                            CairnError *err) MUST_CHECK;
/* Everything durable, threads joined. digests: fed each pack's trailer digest in order. */
bool pack_pipeline_finish(PackPipeline *pipeline, Sha256 *digests, PackPipelineResult *result_out,
                          CairnError *err) MUST_CHECK;
SCOPED_TYPE(PackPipeline, pack_pipeline_free);

#endif
