#include "repository/pack_pipeline_intern.h"

#include <stdlib.h>

/* Keeps the first error and makes everybody stop. */
static void
fail(PackPipeline *pipeline, const CairnError *err)
{
    pthread_mutex_lock(&pipeline->mutex);
    if (!pipeline->failed) {
        pipeline->failed = true;
        pipeline->error = *err;
    }
    pthread_mutex_unlock(&pipeline->mutex);
    job_ring_cancel(pipeline->ring);
    pack_finisher_cancel(pipeline->finisher);
}

static void
finisher_failed(void *pipeline, const CairnError *err)
{
    fail(pipeline, err);
}

bool
pack_pipeline_report(PackPipeline *pipeline, CairnError *err)
{
    pthread_mutex_lock(&pipeline->mutex);
    *err = pipeline->error;
    pthread_mutex_unlock(&pipeline->mutex);
    if (err->kind == CAIRN_OK)
        cairn_error(err, CAIRN_INTERNAL, "pipeline stopped without an error");
    return false;
}

typedef struct {
    PackPipeline *pipeline;
    FrameTools *tools;
} WorkerStart;

/* Writes every job whose turn has come. False: this worker shall end. */
static bool
write_done_jobs(PackPipeline *pipeline, CodecContext *codec, CairnError *err)
{
    for (FrameJob *job; (job = job_ring_next(pipeline->ring)) != NULL;) {
        if (!pack_pipeline_write(pipeline, job, codec, err))
            return false;
        job_ring_release(pipeline->ring);
    }
    return true;
}

static void *
worker_main(void *argument)
{
    WorkerStart start = *(WorkerStart *)argument;
    free(argument);
    PackPipeline *pipeline = start.pipeline;
    for (FrameJob *job; (job = job_ring_take(pipeline->ring)) != NULL;) {
        CairnError err = {0};
        bool processed = frame_job_process(job, start.tools, &err);
        if (processed)
            job_ring_done(pipeline->ring, job);
        if (!processed || !write_done_jobs(pipeline, start.tools->codec, &err)) {
            fail(pipeline, &err);
            return NULL;
        }
    }
    return NULL;
}

/*
 * lz4 works with 16-bit positions up to 64 KiB: a fifth faster than on 128 KiB, for a hundredth of
 * ratio. zstd gains from every KiB of context.
 */
static uint32_t
slots_per_frame_of(const CodecContext *codec)
{
    return codec_id(codec) == CODEC_LZ4 ? FRAME_SLOTS / 2 : FRAME_SLOTS;
}

static bool
make_ring(PackPipeline *pipeline, CairnError *err)
{
    SCOPED(CodecContext) codec = repository_codec(pipeline->options.repository, err);
    if (codec == NULL)
        return false;
    const uint32_t slots_per_frame = slots_per_frame_of(codec);
    const size_t stored_capacity = (JOB_SLOTS + slots_per_frame - 1) / slots_per_frame *
                                   codec_bound(codec, (size_t)slots_per_frame * UNIT_SIZE);
    const bool compares = pipeline->options.source != NULL;
    if (compares) {
        pipeline->gather = frame_gather_new(slots_per_frame, codec, err);
        if (pipeline->gather == NULL)
            return false;
    }
    pipeline->ring = job_ring_new(pipeline->options.jobs_in_flight, stored_capacity, compares, err);
    return pipeline->ring != NULL;
}

static bool
make_tools(PackPipeline *pipeline, FrameTools *tools, CairnError *err)
{
    tools->check = pipeline->options.check;
    tools->check_context = pipeline->options.check_context;
    tools->codec = repository_codec(pipeline->options.repository, err);
    if (tools->codec == NULL)
        return false;
    tools->slots_per_frame = slots_per_frame_of(tools->codec);
    tools->digest = repository_digest(pipeline->options.repository, DIGEST_FINGERPRINT, err);
    return tools->digest != NULL;
}

static bool
start_threads(PackPipeline *pipeline, CairnError *err)
{
    int jobs = pipeline->options.jobs;
    pipeline->tools = calloc((size_t)jobs, sizeof *pipeline->tools);
    pipeline->workers = calloc((size_t)jobs, sizeof *pipeline->workers);
    if (pipeline->tools == NULL || pipeline->workers == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (int i = 0; i < jobs; i++) {
        if (!make_tools(pipeline, &pipeline->tools[i], err))
            return false;
    }
    for (; pipeline->worker_count < jobs; pipeline->worker_count++) {
        WorkerStart *start = malloc(sizeof *start);
        if (start == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        *start = (WorkerStart){pipeline, &pipeline->tools[pipeline->worker_count]};
        if (pthread_create(&pipeline->workers[pipeline->worker_count], NULL, worker_main, start) !=
            0) {
            free(start);
            return cairn_error(err, CAIRN_INTERNAL, "unable to start a thread");
        }
    }
    return true;
}

PackPipeline *
pack_pipeline_start(const PackPipelineOptions *options, CairnError *err)
{
    SCOPED(PackPipeline) pipeline = calloc(1, sizeof *pipeline);
    if (pipeline == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    CAIRN_ASSERT(options->jobs >= 1 && options->jobs_in_flight > (size_t)options->jobs);
    pipeline->options = *options;
    pthread_mutex_init(&pipeline->mutex, NULL);
    pthread_mutex_init(&pipeline->map_mutex, NULL);
    pipeline->finisher =
        pack_finisher_start(&(PackFinisherOptions){.threads = options->packs.finishers,
                                                   .map = options->map,
                                                   .map_mutex = &pipeline->map_mutex,
                                                   .on_failure = finisher_failed,
                                                   .context = pipeline},
                            err);
    if (pipeline->finisher == NULL || !make_ring(pipeline, err) || !start_threads(pipeline, err))
        return NULL;
    return take(&pipeline);
}

static void
join_threads(PackPipeline *pipeline)
{
    for (int i = 0; i < pipeline->worker_count; i++)
        pthread_join(pipeline->workers[i], NULL);
    pipeline->worker_count = 0;
}

void
pack_pipeline_free(PackPipeline *pipeline)
{
    if (pipeline == NULL)
        return;
    if (pipeline->worker_count > 0) {
        CairnError stopped = {0};
        cairn_error(&stopped, CAIRN_CANCELLED, "backup abandoned");
        fail(pipeline, &stopped);
        join_threads(pipeline);
    }
    pack_finisher_free(pipeline->finisher); /* before the ring, which its failure would cancel */
    pack_writer_free(pipeline->pack);
    pipeline_file_free(pipeline->file);
    job_ring_free(pipeline->ring);
    frame_gather_free(pipeline->gather);
    for (int i = 0; pipeline->tools != NULL && i < pipeline->options.jobs; i++) {
        if (pipeline->tools[i].codec != NULL)
            codec_close(pipeline->tools[i].codec);
        keyed_digest_free(pipeline->tools[i].digest);
    }
    pthread_mutex_destroy(&pipeline->mutex);
    pthread_mutex_destroy(&pipeline->map_mutex);
    free(pipeline->tools);
    free(pipeline->workers);
    free(pipeline);
}

bool
pack_pipeline_finish(PackPipeline *pipeline, Sha256 *digests, PackPipelineResult *result_out,
                     CairnError *err)
{
    CAIRN_ASSERT(pipeline->file == NULL);
    pack_pipeline_dispatch(pipeline);
    job_ring_close(pipeline->ring);
    join_threads(pipeline);
    if (pipeline->failed)
        return pack_pipeline_report(pipeline, err);
    if (!pack_pipeline_write_rest(pipeline, pipeline->tools[0].codec, err))
        return false;
    const PackFinisherResult *packs = pack_finisher_join(pipeline->finisher);
    if (pipeline->failed)
        return pack_pipeline_report(pipeline, err);
    CAIRN_ASSERT(packs->pack_count == pipeline->pack_count);
    for (uint32_t i = 0; i < packs->pack_count; i++) {
        if (!sha256_update(digests, packs->digests[i], SHA256_SIZE, err))
            return false;
    }
    *result_out = pipeline->counts;
    result_out->pack_count = packs->pack_count;
    result_out->stored_bytes = packs->stored_bytes;
    return true;
}
