#include "walarchive/prefetch.h"

#include "common/cancel.h"
#include "common/file.h"
#include "common/log.h"
#include "postgres/timeline.h"
#include "walarchive/get_places.h"
#include "walarchive/prefetch_fork.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    STEP_MS = 5,
    IDLE_MS = 10000,
    EMPTY_MS = 1000, /* with nothing ready and nothing more to fetch */
    GONE_STEP_MS = 500,
    FORKS_LIMIT = 1024,
    SPACE_FACTOR = 4,
};

static const uint64_t WINDOW_BYTES_LIMIT = UINT64_C(1) << 30;
static const uint64_t NOBODY = UINT64_MAX;

typedef struct {
    const World *world;
    const Prefetch *prefetch;
    const GetSpool *spool;
    GetPlaces *places; /* the controlling thread's */
    uint64_t window;

    /* What the controlling thread alone knows. */
    bool had_postmaster, had_signal;
    uint64_t forks[FORKS_LIMIT]; /* segments in which a timeline leaves this one */
    size_t fork_count;
    uint32_t forks_of;

    pthread_mutex_t mutex;
    pthread_cond_t work;
    /* Under the mutex. Segments [next, limit) of the timeline are to be there. */
    bool ended;
    uint32_t timeline;
    uint64_t next, limit;
    /* The first that was never claimed. One that was there and is gone was taken, and recovery is
       about to say so, or it was damaged, and get fetches it itself. */
    uint64_t fresh;
    GetSpoolState state;
    uint64_t claimed[PREFETCH_JOBS_MAX];
} Run;

typedef struct {
    Run *run;
    int index;
    GetPlaces places;
} Worker;

static void
end_run(Run *run)
{
    pthread_mutex_lock(&run->mutex);
    run->ended = true;
    pthread_cond_broadcast(&run->work);
    pthread_mutex_unlock(&run->mutex);
}

static bool
is_taken_care_of(const Run *run, uint64_t segment)
{
    for (int i = 0; i < run->prefetch->jobs; i++) {
        if (run->claimed[i] == segment)
            return true;
    }
    for (size_t i = 0; i < run->state.file_count; i++) {
        if (run->state.files[i].timeline == run->timeline && run->state.files[i].segment == segment)
            return true;
    }
    return false;
}

/* False when the run has ended. */
static bool
claim(Worker *worker, uint32_t *timeline_out, uint64_t *segment_out)
{
    Run *run = worker->run;
    bool found = false;

    pthread_mutex_lock(&run->mutex);
    while (!run->ended && !found) {
        for (uint64_t segment = run->fresh; segment < run->limit && !found; segment++) {
            if (is_taken_care_of(run, segment))
                continue;
            run->fresh = segment + 1;
            run->claimed[worker->index] = segment;
            *timeline_out = run->timeline;
            *segment_out = segment;
            found = true;
        }
        if (!found)
            pthread_cond_wait(&run->work, &run->mutex);
    }
    pthread_mutex_unlock(&run->mutex);
    return found;
}

/* Under its final name only if it is still wanted. */
static void
publish(Worker *worker, const char *temporary, const GetSpoolFile *file)
{
    Run *run = worker->run;
    const Disk *disk = run->world->disk;
    char name[GET_SPOOL_NAME_SIZE];

    get_spool_file_name(run->spool, file, name);
    pthread_mutex_lock(&run->mutex);
    if (file->timeline != run->timeline || file->segment < run->next ||
        run->state.file_count == GET_SPOOL_FILES_LIMIT)
        disk->unlinkat(disk, run->spool->fd, temporary, 0);
    else if (disk->renameat(disk, run->spool->fd, temporary, run->spool->fd, name) == 0)
        run->state.files[run->state.file_count++] = *file;
    pthread_mutex_unlock(&run->mutex);
}

static bool
fetch(Worker *worker, GetSpoolFile *file, CairnError *err)
{
    Run *run = worker->run;
    const Disk *disk = run->world->disk;
    char segment[WAL_NAME_SIZE], token[17], temporary[GET_SPOOL_NAME_SIZE];

    wal_segment_name(segment, file->timeline, file->segment, run->spool->segment_size);
    if (!random_token(run->world, token, err))
        return false;
    snprintf(temporary, sizeof temporary, "%s.%s.tmp", segment, token);
    const int fd =
        disk->openat(disk, run->spool->fd, temporary,
                     O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, run->spool->file_mode);
    if (fd < 0)
        return cairn_error_errno(err, "unable to create '%s'", temporary);
    bool done = get_places_fetch(&worker->places, segment, fd, err) &&
                (get_spool_look(run->spool, fd, file) ||
                 cairn_error(err, CAIRN_IO, "'%s' cannot be read back", temporary));
    if (disk->close(disk, fd) != 0 && done)
        done = cairn_error_errno(err, "unable to close '%s'", temporary);
    if (done)
        publish(worker, temporary, file);
    else
        disk->unlinkat(disk, run->spool->fd, temporary, 0);
    return done;
}

/* Absence is the end for now, until recovery has taken another step; trouble is the end of all. */
static void
settle(Worker *worker, const GetSpoolFile *file, bool done, const CairnError *err)
{
    Run *run = worker->run;

    pthread_mutex_lock(&run->mutex);
    run->claimed[worker->index] = NOBODY;
    if (!done && err->kind != CAIRN_NOT_FOUND)
        run->ended = true;
    else if (!done && file->timeline == run->timeline && file->segment < run->limit)
        run->limit = run->fresh = file->segment;
    pthread_cond_broadcast(&run->work);
    pthread_mutex_unlock(&run->mutex);
}

static void *
work(void *context)
{
    Worker *worker = context;
    GetSpoolFile file = {0};

    while (claim(worker, &file.timeline, &file.segment)) {
        CairnError err = {0};
        const bool done = fetch(worker, &file, &err);
        settle(worker, &file, done, &err);
    }
    return NULL;
}

/* The segment in which `history` leaves the timeline, if it does. */
static void
note_fork(Run *run, uint32_t timeline, const TimelineHistory *history)
{
    for (size_t i = 0; i + 1 < history->stretch_count; i++) {
        if (history->stretches[i].timeline == timeline && run->fork_count < FORKS_LIMIT)
            run->forks[run->fork_count++] =
                wal_segment_of(history->stretches[i].end_lsn, run->spool->segment_size);
    }
}

static bool
read_fork(Run *run, WalStore *store, uint32_t timeline, uint32_t other, CairnError *err)
{
    size_t size;
    SCOPED_MEMORY char *text = wal_store_history(store, other, &size, err);
    SCOPED_MEMORY TimelineHistory *history = malloc(sizeof *history);

    if (text == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return true;
    }
    if (history == NULL || !timeline_history_parse(other, text, size, history, err))
        return false;
    note_fork(run, timeline, history);
    return true;
}

static bool
read_forks_of(Run *run, WalStore *store, uint32_t timeline, CairnError *err)
{
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t count = 0;

    if (!wal_store_timelines(store, &timelines, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (timelines[i] > timeline && !read_fork(run, store, timeline, timelines[i], err))
            return false;
    }
    return true;
}

/* As each of the repositories knows them; one that is out of reach keeps nobody from fetching what
   the others have. */
static bool
read_forks(Run *run, uint32_t timeline)
{
    bool any = false;

    run->fork_count = 0;
    run->forks_of = timeline;
    for (size_t i = 0; i < run->places->count; i++) {
        CairnError ignored = {0};
        WalStore *store = get_places_store(run->places, i, &ignored);

        any |= store != NULL && read_forks_of(run, store, timeline, &ignored);
    }
    return any;
}

static uint64_t
limit_of(const Run *run, uint64_t next)
{
    uint64_t limit = next + run->window;

    for (size_t i = 0; i < run->fork_count; i++) {
        if (run->forks[i] >= next && run->forks[i] < limit)
            limit = run->forks[i];
    }
    return limit;
}

/* What lies outside of the window was meant for another turn of recovery. */
static void
sweep_outside(const GetSpool *spool, const GetSpoolState *state, uint64_t window)
{
    for (size_t i = 0; i < state->file_count; i++) {
        const GetSpoolFile *file = &state->files[i];
        if (file->timeline != state->want_timeline || file->segment < state->want_segment ||
            file->segment >= state->want_segment + window)
            get_spool_remove_file(spool, file);
    }
}

/* Brings the workers up to date; *moved_out: recovery took a step. False: the end. */
static bool
look(Run *run, bool *moved_out)
{
    GetSpoolState state;

    if (!get_spool_read(run->spool, &state) || !state.wants)
        return false;
    if (state.want_timeline != run->forks_of && !read_forks(run, state.want_timeline))
        return false;
    pthread_mutex_lock(&run->mutex);
    *moved_out = state.want_timeline != run->timeline || state.want_segment != run->next;
    if (*moved_out) {
        if (state.want_timeline != run->timeline || state.want_segment < run->next ||
            state.want_segment > run->fresh)
            run->fresh = state.want_segment;
        run->timeline = state.want_timeline;
        run->next = state.want_segment;
        run->limit = limit_of(run, run->next);
        sweep_outside(run->spool, &state, run->window);
    }
    /* Again: a worker may have published since, and what was outside is gone. */
    if (get_spool_read(run->spool, &state))
        run->state = state;
    pthread_cond_broadcast(&run->work);
    pthread_mutex_unlock(&run->mutex);
    return true;
}

static bool
exists(const Run *run, const char *name)
{
    struct stat status;

    return run->world->disk->fstatat(run->world->disk, run->prefetch->where.pgdata_fd, name,
                                     &status, 0) == 0;
}

static bool
has_signal(const Run *run)
{
    return exists(run, "recovery.signal") || exists(run, "standby.signal");
}

/* Recovery is over, its server ended or its directory went; what was never there cannot tell. */
static bool
is_over(const Run *run)
{
    return !exists(run, "PG_VERSION") || (run->had_postmaster && !exists(run, "postmaster.pid")) ||
           (run->had_signal && !has_signal(run));
}

static int64_t
now_ms(const Run *run)
{
    return run->world->clock->monotonic_ns(run->world->clock) / 1000000;
}

/* At the end of what is stored, or before a fork: the next get starts a new one. */
static int64_t
patience_ms(Run *run)
{
    pthread_mutex_lock(&run->mutex);
    bool working = run->state.file_count > 0 || run->fresh < run->limit;
    for (int i = 0; i < run->prefetch->jobs; i++)
        working |= run->claimed[i] != NOBODY;
    pthread_mutex_unlock(&run->mutex);
    return working ? IDLE_MS : EMPTY_MS;
}

/* True: the spool is of no more use. */
static bool
control(Run *run)
{
    int64_t moved_ms = now_ms(run), looked_ms = moved_ms;

    run->had_postmaster = exists(run, "postmaster.pid");
    run->had_signal = has_signal(run);
    for (;;) {
        const int64_t now = now_ms(run);
        bool moved = false;

        if (cancel_requested() || run->ended || !look(run, &moved))
            return false;
        if (moved)
            moved_ms = now;
        if (now - moved_ms >= patience_ms(run))
            return false;
        if (now - looked_ms >= GONE_STEP_MS) {
            if (is_over(run))
                return true;
            looked_ms = now;
        }
        run->world->clock->sleep_ms(run->world->clock, STEP_MS);
    }
}

/* Signals are the controlling thread's. */
static int
start_workers(Worker *workers, pthread_t *threads, int count)
{
    sigset_t all, before;
    int started = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (started < count && pthread_create(&threads[started], NULL, work, &workers[started]) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static bool
run_workers(Run *run)
{
    static Worker workers[PREFETCH_JOBS_MAX];
    pthread_t threads[PREFETCH_JOBS_MAX];
    const int jobs = run->prefetch->jobs;
    bool over = false;

    for (int i = 0; i < jobs; i++) {
        workers[i] = (Worker){.run = run, .index = i};
        run->claimed[i] = NOBODY;
        get_places_share(run->places, &workers[i].places);
    }
    const int started = start_workers(workers, threads, jobs);
    if (started > 0)
        over = control(run);
    end_run(run);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < jobs; i++)
        get_places_close(&workers[i].places);
    return over;
}

/* The disk is the server's: it must never fill because somebody was in a hurry. */
static bool
has_space(const Run *run)
{
    struct statvfs space;

    return run->world->disk->fstatvfs(run->world->disk, run->spool->fd, &space) == 0 &&
           (uint64_t)space.f_bavail * space.f_frsize / SPACE_FACTOR >=
               run->window * run->spool->segment_size;
}

static uint64_t
window_of(const Prefetch *prefetch, uint32_t segment_size)
{
    const uint64_t most = WINDOW_BYTES_LIMIT / segment_size;

    return (uint64_t)prefetch->window < most ? (uint64_t)prefetch->window : most;
}

static void
serve(const World *world, const Prefetch *prefetch, const GetSpool *spool)
{
    static Run run; /* too big for a stack; there is one a process */
    CairnError err = {0};
    bool opened = false;
    const GetSpoolOptions *where = &prefetch->where;

    run = (Run){.world = world,
                .prefetch = prefetch,
                .spool = spool,
                .window = window_of(prefetch, spool->segment_size),
                .mutex = PTHREAD_MUTEX_INITIALIZER,
                .work = PTHREAD_COND_INITIALIZER};
    if (!has_space(&run))
        return;
    SCOPED_GET_PLACES places;
    get_places_init(&places, world, where->repositories, where->repository_count, where->cluster,
                    where->control);
    run.places = &places;
    for (size_t i = 0; i < places.count; i++)
        opened |= get_places_store(&places, i, &err) != NULL;
    if (opened && run_workers(&run)) {
        GetSpool mine = *spool;
        get_spool_remove(&mine);
    }
    run.places = NULL;
}

void
prefetch_start(const World *world, const Prefetch *prefetch, const GetSpool *spool)
{
    if (prefetch->window == 0 || spool->fd < 0)
        return;
    const int lock_fd = get_spool_lock(spool);
    if (lock_fd < 0)
        return;
    if (prefetch_may_fork(world, prefetch->where.pgdata_fd) &&
        prefetch_fork((const int[]){lock_fd, spool->fd, spool->base_fd, prefetch->where.pgdata_fd},
                      4)) {
        serve(world, prefetch, spool);
        _exit(0);
    }
    world->disk->close(world->disk, lock_fd);
}
