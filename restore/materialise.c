#include "restore/materialise.h"

#include "common/cancel.h"
#include "restore/job_queue.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/*
 * Files up to a frame's worth are gathered, so many, so many runs or over so many directories, then
 * sorted. JOBS_OPEN bounds the small files that all threads have open at one time.
 */
enum {
    SMALL_UNITS = FRAME_SLOTS,
    BATCH_FILES = 16384,
    BATCH_RUNS = 4 * BATCH_FILES,
    BATCH_DIRECTORIES = 256,
    FILES_OPEN = 256,
    CREATORS = 65536, /* what a map reader tells apart */
};

_Static_assert((int)SMALL_UNITS <= (int)CELL_UNITS && JOB_FILES * SMALL_UNITS <= (int)JOB_UNITS,
               "small files fit into a job");

typedef struct {
    FileTarget *file;
    uint32_t first_run; /* in batch_runs */
    uint32_t run_count;
    SlotRun first; /* where it begins; zeros when it is empty */
} SmallFile;

typedef struct {
    const MaterialiseOptions *options;
    JobQueue *queue;
    pthread_mutex_t lock;
    CairnError error; /* the first one of any worker */
    int threads;      /* that have started */
    SmallFile batch[BATCH_FILES];
    size_t batch_count;
    SlotRun batch_runs[BATCH_RUNS];
    size_t batch_run_count;
    size_t batch_directories;
    DirectoryHandle *batch_last; /* borrowed, for comparison only */
    SlotRun pending[JOB_UNITS];  /* runs of the job that is being put together */
    /* Copies that do not move when the map reader's table grows; set before a job speaks of them.
     * The region in which each was last seen, counted through all files. */
    const BackupId *creators[CREATORS];
    uint32_t seen_in[CREATORS];
    uint32_t region_number;
} Materialiser;

static void
note_failure(Materialiser *materialiser, const CairnError *error)
{
    pthread_mutex_lock(&materialiser->lock);
    if (materialiser->error.kind == CAIRN_OK)
        materialiser->error = *error;
    pthread_mutex_unlock(&materialiser->lock);
    job_queue_cancel(materialiser->queue);
}

static int
thread_number(Materialiser *materialiser)
{
    pthread_mutex_lock(&materialiser->lock);
    const int number = materialiser->threads++;
    pthread_mutex_unlock(&materialiser->lock);
    return number;
}

static void *
work(void *argument)
{
    Materialiser *materialiser = argument;
    const int thread = thread_number(materialiser);
    CairnError error = {0};
    SCOPED(FrameReader) frames = frame_reader_new(materialiser->options->frames, &error);
    SCOPED_MEMORY UnitCrcs *crcs = malloc(sizeof *crcs);
    if (crcs == NULL && error.kind == CAIRN_OK)
        cairn_error(&error, CAIRN_INTERNAL, "out of memory");

    FileJob *job;
    while (error.kind == CAIRN_OK && (job = job_queue_pop(materialiser->queue, thread)) != NULL) {
        const bool written =
            file_job_write(job, frames, crcs, materialiser->options->progress, &error);
        file_job_free(job);
        if (!written)
            break;
    }
    if (error.kind != CAIRN_OK)
        note_failure(materialiser, &error);
    return NULL;
}

/* Takes the job. False when a worker has failed: its error tells. */
static bool
send_job(Materialiser *materialiser, FileJob *job, CairnError *err)
{
    if (job_queue_push(materialiser->queue, job))
        return true;
    file_job_free(job);
    return cairn_error(err, CAIRN_CANCELLED, "a worker has failed");
}

static int
compare_small(const void *left, const void *right)
{
    return slot_run_compare(&((const SmallFile *)left)->first, &((const SmallFile *)right)->first);
}

/* Of the files that all threads may have open, this is one's share. */
static size_t
files_in_job(const Materialiser *materialiser)
{
    const size_t share = FILES_OPEN / (size_t)materialiser->options->jobs;
    return share < JOB_FILES ? share : JOB_FILES;
}

/* Small files that begin near each other in a pack go into one job: they share frames. */
static FileJob *
job_of_small(Materialiser *materialiser, const SmallFile *files, size_t count)
{
    size_t runs = 0;
    for (size_t i = 0; i < count; i++)
        runs += files[i].run_count;
    FileJob *job = file_job_new(materialiser->creators, count, runs);
    job->place = files[0].file->parent;
    for (size_t i = 0; i < count; i++) {
        file_job_add(job, files[i].file, 0, 1, &materialiser->batch_runs[files[i].first_run],
                     files[i].run_count);
    }
    return job;
}

static bool
flush_batch(Materialiser *materialiser, CairnError *err)
{
    const size_t count = materialiser->batch_count;
    const size_t limit = files_in_job(materialiser);
    bool good = true;

    qsort(materialiser->batch, count, sizeof materialiser->batch[0], compare_small);
    for (size_t i = 0; i < count;) {
        const size_t files = count - i < limit ? count - i : limit;
        FileJob *job = job_of_small(materialiser, &materialiser->batch[i], files);
        if (good)
            good = send_job(materialiser, job, err);
        else
            file_job_free(job);
        i += files;
    }
    materialiser->batch_count = 0;
    materialiser->batch_run_count = 0;
    materialiser->batch_directories = 0;
    materialiser->batch_last = NULL;
    return good;
}

/* Takes the file. */
static bool
add_to_batch(Materialiser *materialiser, FileTarget *file, const SlotRun *runs, size_t count,
             CairnError *err)
{
    SmallFile *small = &materialiser->batch[materialiser->batch_count++];
    *small = (SmallFile){
        .file = file,
        .first_run = (uint32_t)materialiser->batch_run_count,
        .run_count = (uint32_t)count,
    };
    if (count > 0)
        small->first = runs[0];
    memcpy(&materialiser->batch_runs[small->first_run], runs, count * sizeof *runs);
    materialiser->batch_run_count += count;

    /* Each directory of the batch is an open descriptor. */
    if (file->parent != materialiser->batch_last) {
        materialiser->batch_last = file->parent;
        materialiser->batch_directories++;
    }
    return (materialiser->batch_count < BATCH_FILES &&
            materialiser->batch_run_count + SMALL_UNITS <= BATCH_RUNS &&
            materialiser->batch_directories < BATCH_DIRECTORIES) ||
           flush_batch(materialiser, err);
}

/* A file whose runs the map gives region by region, being cut into jobs. */
typedef struct {
    FileTarget *file;
    uint32_t cell_count;
    uint32_t cell; /* the next one to be sent */
    uint32_t cells_per_job;
    uint32_t units; /* gathered for it, of which runs hold data */
    size_t run_count;
} Cutter;

/* Sends what was gathered: whole cells, or the end of the file. */
static bool
send_cells(Materialiser *materialiser, Cutter *cutter, CairnError *err)
{
    const uint32_t gathered = (cutter->units + CELL_UNITS - 1) / CELL_UNITS;
    const uint32_t cells = gathered == 0 ? 1 : gathered; /* an empty file has one too */
    const uint32_t first_cell = cutter->cell;
    const size_t run_count = cutter->run_count;

    cutter->cell += cells;
    cutter->units = 0;
    cutter->run_count = 0;
    if (units_of_size(cutter->file->size_bytes) <= SMALL_UNITS)
        return add_to_batch(materialiser, cutter->file, materialiser->pending, run_count, err);
    FileJob *job = file_job_new(materialiser->creators, 1, run_count);
    job->place = cutter->file;
    file_job_add(job, cutter->file, first_cell, cells, materialiser->pending, run_count);
    return send_job(materialiser, job, err);
}

static void
keep_creator(Materialiser *materialiser, uint32_t index)
{
    CAIRN_ASSERT(index < CREATORS);
    if (materialiser->creators[index] != NULL)
        return;
    BackupId *kept = malloc(sizeof *kept);
    CAIRN_ASSERT(kept != NULL); /* some hundred */
    *kept = *map_reader_creator(materialiser->options->map, index);
    materialiser->creators[index] = kept;
}

/*
 * Cells of the region that go into one job. Small jobs keep all threads busy with one file. But a
 * frame of a backup that changed little holds units from all over the region, and each job that
 * wants some has to decode it: with S sources, each cut costs S frames more. A sixteenth of the
 * region's own frames is what cutting may cost.
 */
static uint32_t
cells_per_job(Materialiser *materialiser, const MapRun *runs, size_t count)
{
    uint32_t sources = 0;
    uint64_t units = 0;

    materialiser->region_number++;
    for (size_t i = 0; i < count; i++) {
        units += runs[i].units;
        if (runs[i].is_zero)
            continue;
        keep_creator(materialiser, runs[i].creator);
        if (materialiser->seen_in[runs[i].creator] != materialiser->region_number) {
            materialiser->seen_in[runs[i].creator] = materialiser->region_number;
            sources++;
        }
    }
    const uint64_t cells = (units + CELL_UNITS - 1) / CELL_UNITS;
    const uint64_t jobs = 1 + units / FRAME_SLOTS / 16 / (sources > 0 ? sources : 1);
    return jobs >= cells ? 1 : (uint32_t)((cells + jobs - 1) / jobs);
}

static bool
cut_run(Materialiser *materialiser, Cutter *cutter, const MapRun *run, CairnError *err)
{
    for (uint64_t done = 0; done < run->units;) {
        const uint64_t left = run->units - done;
        const uint32_t room = cutter->cells_per_job * CELL_UNITS - cutter->units;
        const uint32_t units = left < room ? (uint32_t)left : room;
        if (!run->is_zero) {
            materialiser->pending[cutter->run_count++] = (SlotRun){
                .creator = run->creator,
                .pack = run->pack,
                .slot = run->slot + (uint32_t)done,
                .units = (uint16_t)units,
                .unit = (uint16_t)cutter->units,
            };
        }
        cutter->units += units;
        done += units;
        if (cutter->units == cutter->cells_per_job * CELL_UNITS &&
            !send_cells(materialiser, cutter, err))
            return false;
    }
    return true;
}

static bool
cut_region(Materialiser *materialiser, Cutter *cutter, const MapRun *runs, size_t count,
           CairnError *err)
{
    cutter->cells_per_job = cells_per_job(materialiser, runs, count);
    for (size_t i = 0; i < count; i++) {
        if (!cut_run(materialiser, cutter, &runs[i], err))
            return false;
    }
    return cutter->units == 0 || send_cells(materialiser, cutter, err);
}

/* Sends every cell of the file that the map reader stands at. */
static bool
cut_file(Materialiser *materialiser, Cutter *cutter, CairnError *err)
{
    const uint64_t file_units = units_of_size(cutter->file->size_bytes);
    uint64_t units = 0;

    /* With its last cell sent, the file may be gone: only what was copied above is used then. */
    for (;;) {
        const MapRun *runs;
        size_t count;
        uint64_t first_unit;
        uint64_t region_units = 0;
        if (!map_reader_region(materialiser->options->map, &runs, &count, &first_unit, err))
            return false;
        if (count == 0)
            break;
        for (size_t i = 0; i < count; i++)
            region_units += runs[i].units;
        units += region_units;
        if (units > file_units || region_units > REGION_UNITS)
            return cairn_error(err, CAIRN_CORRUPT, "the map has more than a file's size");
        if (units < file_units && region_units < REGION_UNITS)
            return cairn_error(err, CAIRN_CORRUPT, "the map has less than a file's size");
        if (!cut_region(materialiser, cutter, runs, count, err))
            return false;
    }
    if (units != file_units)
        return cairn_error(err, CAIRN_CORRUPT, "the map has less than a file's size");
    return cutter->cell == cutter->cell_count || send_cells(materialiser, cutter, err);
}

static bool
send_file(Materialiser *materialiser, const MapEntry *entry, CairnError *err)
{
    const char *name;
    DirectoryHandle *parent =
        target_directory_parent(materialiser->options->directory, entry->path, &name, err);
    if (parent == NULL)
        return false;
    FileTarget *file = file_target_new(materialiser->options->world, parent, entry, err);
    if (file == NULL)
        return false;

    Cutter cutter = {.file = file, .cell_count = file->cell_count};
    if (cut_file(materialiser, &cutter, err))
        return true;
    /* Shares of the cells that were never sent. A sent one has its own, even where sending
     * failed. */
    file_target_abandon(file, cutter.cell_count - cutter.cell);
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
        job_queue_close(materialiser->queue);
    else
        job_queue_cancel(materialiser->queue);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);

    /* What a worker says is the cause; the walk only noticed that the queue was shut. */
    if (materialiser->error.kind != CAIRN_OK)
        *err = materialiser->error;
    for (size_t i = 0; i < materialiser->batch_count; i++)
        file_target_abandon(materialiser->batch[i].file, 1);
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
    SCOPED(JobQueue) queue = job_queue_new(err);
    if (queue == NULL)
        return false;
    materialiser->queue = queue;
    CAIRN_ASSERT(pthread_mutex_init(&materialiser->lock, NULL) == 0);
    const bool good = run(materialiser, err);
    pthread_mutex_destroy(&materialiser->lock);
    for (size_t i = 0; i < CREATORS; i++)
        free((BackupId *)materialiser->creators[i]);
    return good;
}
