/*
 * A few frames on their way through the pipeline together: raw slots, what they belong to, and what
 * a worker made of them. Several a job, because a hand-over between threads costs as much as
 * compressing a few pages. Inside repository/ only.
 */
#ifndef PGCAIRN_REPOSITORY_FRAME_JOB_H
#define PGCAIRN_REPOSITORY_FRAME_JOB_H

#include "repository/backup_writer.h"
#include "repository/map.h"
#include "repository/pack.h"

/* A file or directory from its begin to the moment the map has it. Runs are the writer thread's. */
typedef struct {
    MapEntry entry;
    char *path; /* owned; entry.path points here */
    MapRun *runs;
    size_t run_count, run_capacity;
} PipelineFile;

typedef enum { EVENT_DATA, EVENT_ZERO, EVENT_END } FrameEventType;

/* What happened in the stream, in order. DATA takes the next `units` slots of the frame. */
typedef struct {
    FrameEventType type;
    PipelineFile *file; /* END hands it over to the writer */
    uint64_t first_unit;
    uint32_t units;
    uint32_t tail_bytes; /* bytes in the last unit when it is short, else 0 */
} FrameEvent;

enum { JOB_SLOTS = 32 };

/* A compressed frame inside a job's stored bytes. */
typedef struct {
    uint32_t stored_offset;
    uint32_t stored_size;
    CodecId codec;
    uint32_t slot_count;
} JobFrame;

typedef struct {
    uint8_t *raw; /* JOB_SLOTS units */
    uint32_t slot_count;
    FrameEvent *events;
    size_t event_count, event_capacity;
    /* Filled by a worker: */
    uint8_t *stored;
    JobFrame frames[JOB_SLOTS];
    uint32_t frame_count;
    uint8_t fingerprints[JOB_SLOTS][FINGERPRINT_SIZE];
    bool done; /* guarded by the ring's mutex */
} FrameJob;

/* What a worker needs; one each. */
typedef struct {
    uint32_t slots_per_frame;
    CodecContext *codec;
    KeyedDigest *digest;
    UnitCheck *check;
    void *check_context;
} FrameTools;

FrameJob *frame_job_new(size_t stored_capacity, CairnError *err) MUST_CHECK;
void frame_job_free(void *job); /* and every file that it still owns */
void frame_job_reset(FrameJob *job);
bool frame_job_event(FrameJob *job, const FrameEvent *event, CairnError *err) MUST_CHECK;
/* Checks, fingerprints and compresses. */
bool frame_job_process(FrameJob *job, const FrameTools *tools, CairnError *err) MUST_CHECK;

PipelineFile *pipeline_file_new(MapClass class, const char *path, MapEntryType type, uint32_t mode,
                                CairnError *err) MUST_CHECK;
void pipeline_file_free(PipelineFile *file);
/* Appends a run, merging it with its neighbour where they continue each other. */
bool pipeline_file_run(PipelineFile *file, const MapRun *run, CairnError *err) MUST_CHECK;

#endif
