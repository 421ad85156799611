#include "restore/materialise.h"

#include "common/cancel.h"
#include "common/queue.h"
#include "restore/file_job.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Files up to a frame's worth are gathered, so many or over so many directories, then sorted. */
enum {
    SMALL_UNITS = FRAME_SLOTS,
    BATCH_FILES = 16384,
    BATCH_DIRECTORIES = 256,
    CHUNK_FILES = 32,
    QUEUE_CHUNKS = 16,
};

/* What threads take from the queue: neighbours in a pack, or one region of a large file. */
typedef struct {
    size_t count;
    FileJob *jobs[CHUNK_FILES];
} Chunk;

typedef struct {
    const MaterialiseOptions *options;
    Queue *queue;
    pthread_mutex_t lock;
    CairnError error; /* the first one of any worker */
    FileJob *batch[BATCH_FILES];
    size_t batch_count;
    size_t batch_directories;
    DirectoryHandle *batch_last; /* borrowed, for comparison only */
    JobRun pending[JOB_UNITS];   /* runs of the region that is being put together */
    BackupId **creators;         /* copies that do not move when the map reader's table grows */
    size_t creator_count;
} Materialiser;

static void
chunk_free(void *item)
{
    Chunk *chunk = item;
    for (size_t i = 0; i < chunk->count; i++)
        file_job_free(chunk->jobs[i]);
    free(chunk);
}

static void
note_failure(Materialiser *materialiser, const CairnError *error)
{
    pthread_mutex_lock(&materialiser->lock);
    if (materialiser->error.kind == CAIRN_OK)
        materialiser->error = *error;
    pthread_mutex_unlock(&materialiser->lock);
    queue_cancel(materialiser->queue);
}

static void *
work(void *argument)
{
    Materialiser *materialiser = argument;
    CairnError error = {0};
    SCOPED(FrameReader) frames = frame_reader_new(materialiser->options->frames, &error);

    Chunk *chunk;
    while (error.kind == CAIRN_OK && (chunk = queue_pop(materialiser->queue)) != NULL) {
        for (size_t i = 0; i < chunk->count; i++) {
            if (!file_job_write(chunk->jobs[i], frames, materialiser->options->progress, &error))
                break;
        }
        chunk_free(chunk);
    }
    if (error.kind != CAIRN_OK)
        note_failure(materialiser, &error);
    return NULL;
}

/* Takes the chunk. False when a worker has failed: its error tells. */
static bool
send_chunk(Materialiser *materialiser, Chunk *chunk, CairnError *err)
{
    if (queue_push(materialiser->queue, chunk))
        return true;
    chunk_free(chunk);
    return cairn_error(err, CAIRN_CANCELLED, "a worker has failed");
}

static Chunk *
chunk_new(void)
{
    Chunk *chunk = calloc(1, sizeof *chunk);
    CAIRN_ASSERT(chunk != NULL);
    return chunk;
}

static int
compare_jobs(const void *left, const void *right)
{
    const FileJob *a = *(FileJob *const *)left;
    const FileJob *b = *(FileJob *const *)right;
    static const JobRun NOTHING;
    const JobRun *run_a = a->run_count > 0 ? &a->runs[0] : &NOTHING;
    const JobRun *run_b = b->run_count > 0 ? &b->runs[0] : &NOTHING;

    if (run_a->creator != run_b->creator)
        return (uintptr_t)run_a->creator < (uintptr_t)run_b->creator ? -1 : 1;
    if (run_a->pack != run_b->pack)
        return run_a->pack < run_b->pack ? -1 : 1;
    return (run_a->slot > run_b->slot) - (run_a->slot < run_b->slot);
}

static bool
flush_batch(Materialiser *materialiser, CairnError *err)
{
    const size_t count = materialiser->batch_count;
    materialiser->batch_count = 0;
    materialiser->batch_directories = 0;
    materialiser->batch_last = NULL;
    qsort(materialiser->batch, count, sizeof materialiser->batch[0], compare_jobs);

    bool good = true;
    for (size_t i = 0; i < count;) {
        Chunk *chunk = chunk_new();
        while (i < count && chunk->count < CHUNK_FILES)
            chunk->jobs[chunk->count++] = materialiser->batch[i++];
        if (good)
            good = send_chunk(materialiser, chunk, err);
        else
            chunk_free(chunk);
    }
    return good;
}

static bool
add_to_batch(Materialiser *materialiser, FileJob *job, CairnError *err)
{
    /* Each directory of the batch is an open descriptor. */
    if (job->file->parent != materialiser->batch_last) {
        materialiser->batch_last = job->file->parent;
        materialiser->batch_directories++;
    }
    materialiser->batch[materialiser->batch_count++] = job;
    return (materialiser->batch_count < BATCH_FILES &&
            materialiser->batch_directories < BATCH_DIRECTORIES) ||
           flush_batch(materialiser, err);
}

static bool
send_job(Materialiser *materialiser, FileJob *job, CairnError *err)
{
    if (units_of_size(job->file->size_bytes) <= SMALL_UNITS)
        return add_to_batch(materialiser, job, err);
    Chunk *chunk = chunk_new();
    chunk->jobs[chunk->count++] = job;
    return send_chunk(materialiser, chunk, err);
}

/* The runs that the map gives, cut into regions. */
typedef struct {
    FileTarget *file;
    uint32_t region; /* next one to be sent */
    size_t run_count;
    uint32_t units;
} Cutter;

static bool
send_region(Materialiser *materialiser, Cutter *cutter, CairnError *err)
{
    FileJob *job = file_job_new(cutter->file, cutter->region, cutter->run_count);
    memcpy(job->runs, materialiser->pending, cutter->run_count * sizeof job->runs[0]);
    cutter->region++;
    cutter->run_count = 0;
    cutter->units = 0;
    return send_job(materialiser, job, err);
}

/* The same pointer for the same creator, valid to the end. */
static const BackupId *
keep_creator(Materialiser *materialiser, uint32_t index)
{
    while (materialiser->creator_count <= index) {
        const size_t count = materialiser->creator_count + 1;
        BackupId **grown = realloc(materialiser->creators, count * sizeof *grown);
        CAIRN_ASSERT(grown != NULL); /* some hundred pointers */
        grown[count - 1] = NULL;
        materialiser->creators = grown;
        materialiser->creator_count = count;
    }
    BackupId **kept = &materialiser->creators[index];
    if (*kept == NULL) {
        *kept = malloc(sizeof **kept);
        CAIRN_ASSERT(*kept != NULL);
        **kept = *map_reader_creator(materialiser->options->map, index);
    }
    return *kept;
}

static bool
cut_run(Materialiser *materialiser, Cutter *cutter, const MapRun *run, CairnError *err)
{
    const BackupId *creator = run->is_zero ? NULL : keep_creator(materialiser, run->creator);

    for (uint64_t done = 0; done < run->units;) {
        const uint64_t left = run->units - done;
        const uint32_t room = JOB_UNITS - cutter->units;
        const uint32_t units = left < room ? (uint32_t)left : room;
        materialiser->pending[cutter->run_count++] = (JobRun){
            .creator = creator,
            .pack = run->pack,
            .slot = creator == NULL ? 0 : run->slot + (uint32_t)done,
            .units = units,
        };
        cutter->units += units;
        done += units;
        if (cutter->units == JOB_UNITS && !send_region(materialiser, cutter, err))
            return false;
    }
    return true;
}

/* Sends every region of the file that the map reader stands at. */
static bool
cut_file(Materialiser *materialiser, Cutter *cutter, CairnError *err)
{
    const FileTarget *file = cutter->file;
    const uint64_t file_units = units_of_size(file->size_bytes);
    const uint32_t region_count = file->region_count;
    uint64_t units = 0;

    /* With its last region sent, the file may be gone: only what was copied above is used then. */
    for (;;) {
        const MapRun *runs;
        size_t count;
        uint64_t first_unit;
        if (!map_reader_region(materialiser->options->map, &runs, &count, &first_unit, err))
            return false;
        if (count == 0)
            break;
        for (size_t i = 0; i < count; i++) {
            units += runs[i].units;
            if (units > file_units)
                return cairn_error(err, CAIRN_CORRUPT, "the map has more than a file's size");
            if (!cut_run(materialiser, cutter, &runs[i], err))
                return false;
        }
    }
    if (units != file_units)
        return cairn_error(err, CAIRN_CORRUPT, "the map has less than a file's size");
    return cutter->region == region_count || send_region(materialiser, cutter, err);
}

static bool
send_file(Materialiser *materialiser, const MapEntry *entry, CairnError *err)
{
    const char *name;
    DirectoryHandle *parent =
        target_directory_parent(materialiser->options->directory, entry->path, &name, err);
    if (parent == NULL)
        return false;
    Cutter cutter = {
        .file = file_target_new(materialiser->options->world, parent, entry, err),
    };
    if (cutter.file == NULL)
        return false;

    const uint32_t region_count = cutter.file->region_count;
    if (cut_file(materialiser, &cutter, err))
        return true;
    /* Shares of the regions that were never sent. A sent one has its own, even where sending
     * failed. */
    for (uint32_t region = cutter.region; region < region_count; region++)
        file_target_abandon(cutter.file);
    return false;
}

static bool
walk_map(Materialiser *materialiser, CairnError *err)
{
    const MaterialiseOptions *options = materialiser->options;
    MapEntry entry;
    bool found;

    if (!map_reader_seek(options->map, MAP_CLASS_CLUSTER, "", err))
        return false;
    for (;;) {
        if (!map_reader_next(options->map, &entry, &found, err) || !cancel_check(err))
            return false;
        if (!found || entry.class != MAP_CLASS_CLUSTER)
            return flush_batch(materialiser, err);
        if (entry.type == MAP_DIRECTORY) {
            if (!target_directory_make(options->directory, entry.path, entry.mode, err))
                return false;
        } else if (options->wanted(options->context, entry.path) &&
                   !send_file(materialiser, &entry, err)) {
            return false;
        }
        progress_draw(options->progress);
    }
}

static bool
run(Materialiser *materialiser, CairnError *err)
{
    pthread_t threads[MATERIALISE_JOBS_LIMIT];
    int started = 0;

    for (; started < materialiser->options->jobs; started++) {
        const int failure = pthread_create(&threads[started], NULL, work, materialiser);
        if (failure != 0) {
            cairn_error(err, CAIRN_INTERNAL, "unable to start a thread: %s", strerror(failure));
            break;
        }
    }
    if (err->kind == CAIRN_OK && walk_map(materialiser, err))
        queue_close(materialiser->queue);
    else
        queue_cancel(materialiser->queue);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);

    /* What a worker says is the cause; the walk only noticed that the queue was shut. */
    if (materialiser->error.kind != CAIRN_OK)
        *err = materialiser->error;
    for (size_t i = 0; i < materialiser->batch_count; i++)
        file_job_free(materialiser->batch[i]);
    return err->kind == CAIRN_OK;
}

bool
materialise(const MaterialiseOptions *options, CairnError *err)
{
    CAIRN_ASSERT(options->jobs >= 1 && options->jobs <= MATERIALISE_JOBS_LIMIT);
    SCOPED_MEMORY Materialiser *materialiser = calloc(1, sizeof *materialiser);
    if (materialiser == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    materialiser->options = options;
    SCOPED(Queue) queue = queue_new(QUEUE_CHUNKS, chunk_free, err);
    if (queue == NULL)
        return false;
    materialiser->queue = queue;
    CAIRN_ASSERT(pthread_mutex_init(&materialiser->lock, NULL) == 0);
    const bool good = run(materialiser, err);
    pthread_mutex_destroy(&materialiser->lock);
    for (size_t i = 0; i < materialiser->creator_count; i++)
        free(materialiser->creators[i]);
    free(materialiser->creators);
    return good;
}
