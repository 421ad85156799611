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
#include "repository/unit_source.h"

/* A file or directory from its begin to the moment the map has it. All but entry is the writer
 * thread's. */
typedef struct {
    MapEntry entry;
    char *path; /* owned; entry.path points here */
    /* The region that is being written. */
    MapRun *runs;
    size_t run_count, run_capacity;
    uint64_t region_units;
    MapNodeRef *parent_node; /* the parent's node of it, owned; NULL: none */
    MapDraft draft;          /* regions before it */
    uint32_t waiting;        /* units that wait for a frame (frame_gather.h) */
    bool ended;              /* and then it is complete */
} PipelineFile;

typedef enum { EVENT_DATA, EVENT_ZERO, EVENT_REGION, EVENT_END } FrameEventType;

/* What happened in the stream, in order. DATA takes the next `units` slots of the frame; units of
 * one event lie in one region. */
typedef struct {
    FrameEventType type;
    PipelineFile *file; /* END hands it over to the writer */
    MapNodeRef *node;   /* REGION: the parent's node of the region that begins; owned */
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

/* Where a unit is to be found: in this job, or already stored where one of its places says. */
enum { UNIT_STORED = 0, UNIT_IN_PARENT = 1, UNIT_IN_SALVAGE = 2 };

typedef struct {
    uint8_t *raw; /* JOB_SLOTS units */
    uint32_t slot_count;
    UnitPlace (*places)[UNIT_SOURCES]; /* of each slot; NULL: nothing to compare with */
    FrameEvent *events;
    size_t event_count, event_capacity;
    /* Filled by a worker: */
    uint8_t *stored;
    JobFrame frames[JOB_SLOTS];
    uint32_t frame_count;
    uint8_t fingerprints[JOB_SLOTS][FINGERPRINT_SIZE];
    /* Where there is something to compare with: the outcome of each slot. Units that are stored
       have moved to the front of raw and fingerprints, in order; the first `framed` of them are in
       frames, the rest, less than a frame, is for the writer to gather. */
    uint8_t outcomes[JOB_SLOTS];
    uint32_t stored_count, framed_count;
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

FrameJob *frame_job_new(size_t stored_capacity, bool compares, CairnError *err) MUST_CHECK;
void frame_job_free(void *pointer); /* and every file that it still owns */
void frame_job_reset(FrameJob *job);
bool frame_job_event(FrameJob *job, const FrameEvent *event, CairnError *err) MUST_CHECK;
/* Checks, fingerprints, compares and compresses. */
bool frame_job_process(FrameJob *job, const FrameTools *tools, CairnError *err) MUST_CHECK;

PipelineFile *pipeline_file_new(MapClass class, const char *path, MapEntryType type, uint32_t mode,
                                CairnError *err) MUST_CHECK;
void pipeline_file_free(PipelineFile *file);
/* Appends a run, merging it with its neighbour where they continue each other. */
bool pipeline_file_run(PipelineFile *file, const MapRun *run, CairnError *err) MUST_CHECK;
/* Appends a run of one unit that has no place yet; *index_out finds it until the region ends. */
bool pipeline_file_wait(PipelineFile *file, size_t *index_out, CairnError *err) MUST_CHECK;
/* Merges neighbours of the region that came to continue each other since. */
void pipeline_file_merge(PipelineFile *file);

#endif
