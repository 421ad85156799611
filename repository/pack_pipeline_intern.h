/*
 * What the files of the pipeline share. Inside repository/ only.
 *
 * pack_pipeline.c        threads: started, joined, and the first failure of any
 * pack_pipeline_feed.c   the feeding thread: files become units, units become jobs
 * pack_pipeline_write.c  done jobs, in order: frames into packs, files into the map
 */
#ifndef PGCAIRN_REPOSITORY_PACK_PIPELINE_INTERN_H
#define PGCAIRN_REPOSITORY_PACK_PIPELINE_INTERN_H

#include "repository/frame_gather.h"
#include "repository/frame_job.h"
#include "repository/job_ring.h"
#include "repository/pack.h"
#include "repository/pack_finisher.h"
#include "repository/pack_pipeline.h"

#include <pthread.h>

struct PackPipeline {
    PackPipelineOptions options;

    /* The feeding thread's. */
    FrameJob *job;      /* being filled */
    PipelineFile *file; /* open file */
    uint64_t file_size;
    uint32_t file_crc;
    uint8_t unit[UNIT_SIZE]; /* a unit that came in pieces */
    size_t unit_used;

    JobRing *ring;
    pthread_mutex_t mutex; /* of the failure */
    bool failed;
    CairnError error; /* the first failure */

    FrameTools *tools; /* one a worker */
    pthread_t *workers;
    int worker_count;

    /* The writer's: whichever worker writes just now, and the feeder's once all are joined. */
    PackWriter *pack;
    uint32_t pack_slots;
    uint32_t pack_count;
    FrameGather *gather; /* with a source only */
    PackPipelineResult counts;
    PackFinisher *finisher;
    pthread_mutex_t map_mutex; /* the writer adds files to the map, the finisher frame tables */
};

/* Gives the pipeline's failure to who ran into it. Always false. */
bool pack_pipeline_report(PackPipeline *pipeline, CairnError *err);

/* The job being filled is handed to the workers, unless it is empty. */
void pack_pipeline_dispatch(PackPipeline *pipeline);

/* A job whose turn has come. codec: the writing worker's. */
bool pack_pipeline_write(PackPipeline *pipeline, FrameJob *job, CodecContext *codec,
                         CairnError *err) MUST_CHECK;
/* After the last job: what was gathered, and the open pack handed over to be made durable. */
bool pack_pipeline_write_rest(PackPipeline *pipeline, CodecContext *codec,
                              CairnError *err) MUST_CHECK;

#endif
