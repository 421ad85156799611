/* WAL: each file is read once, and what is wrong with it is said of the backups that need it
 * between their start and stop, and of the moments that recovery cannot reach without it. */
#include "repository/verify_intern.h"

#include "common/cancel.h"
#include "repository/wal_ack.h"
#include "repository/wal_history.h"
#include "repository/wal_object.h"
#include "repository/wal_piece.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool
is_of(const Fate *fate, const Incarnation *incarnation)
{
    return fate->system_id == incarnation->system_id && fate->major == incarnation->major;
}

/* Wanted backups of an incarnation; whose history file is damaged, those that end on its timeline
 * (0: any). */
static BackupSet
backups_of(const Verify *verify, uint64_t system_id, int major, uint32_t stop_timeline,
           uint32_t *indexes)
{
    size_t count = 0;
    for (uint32_t i = 0; i < verify->catalog->count; i++) {
        const Fate *fate = verify->catalog->backups[i].fate;
        if (verify->checks[i].wanted && fate->system_id == system_id && fate->major == major &&
            (stop_timeline == 0 || fate->stop_timeline == stop_timeline))
            indexes[count++] = i;
    }
    return (BackupSet){indexes, count};
}

BackupSet
verify_needed_by(const WalCheck *check, uint32_t timeline, uint64_t segment)
{
    size_t count = 0;
    for (size_t i = 0; i < check->need_count; i++) {
        const WalNeed *need = &check->needs[i];
        if (need->timeline == timeline && segment >= need->first && segment <= need->last)
            check->indexes[count++] = need->backup;
    }
    return (BackupSet){check->indexes, count};
}

static bool
add_need(WalCheck *check, const WalNeed *need, CairnError *err)
{
    WalNeed *last = check->need_count > 0 ? &check->needs[check->need_count - 1] : NULL;
    if (last != NULL && last->backup == need->backup && last->timeline == need->timeline &&
        last->last + 1 == need->first) {
        last->last = need->last;
        return true;
    }
    if (check->need_count == check->need_capacity) {
        const size_t capacity = check->need_capacity == 0 ? 16 : 2 * check->need_capacity;
        WalNeed *needs = reallocarray(check->needs, capacity, sizeof *needs);
        if (needs == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        check->needs = needs;
        check->need_capacity = capacity;
    }
    check->needs[check->need_count++] = *need;
    return true;
}

/* The path on which the backup's segments lie: a standby's may begin on one timeline and end on the
 * next. */
static bool
find_path(WalStore *store, const Fate *fate, TimelineHistory *path, CairnError *err)
{
    timeline_history_root(fate->stop_timeline, path);
    if (fate->start_timeline == fate->stop_timeline)
        return true;
    SCOPED_MEMORY TimelineHistory *stored = wal_history_read(store, fate->stop_timeline, err);
    if (stored == NULL)
        return false;
    *path = *stored;
    return true;
}

static bool
add_needs_of(WalCheck *check, uint32_t backup, TimelineHistory *path, CairnError *err)
{
    const Fate *fate = check->verify->catalog->backups[backup].fate;
    const uint32_t segment_size = check->incarnation->wal_segment_size;
    if (!find_path(check->store, fate, path, err)) {
        char file[WAL_FILE_NAME_LIMIT];
        snprintf(file, sizeof file, "%08" PRIX32 ".history", fate->stop_timeline);
        return verify_note(
            check->verify,
            &(VerifySubject){.object = file, .needed_by = {&backup, 1}, .is_wal = true}, err);
    }
    const uint64_t last = wal_segment_before(fate->stop_lsn, segment_size);
    for (uint64_t segment = wal_segment_of(fate->start_lsn, segment_size); segment <= last;
         segment++) {
        const uint64_t end = (segment + 1) * segment_size;
        const uint64_t last_lsn = (end < fate->stop_lsn ? end : fate->stop_lsn) - 1;
        const WalNeed need = {timeline_history_at(path, last_lsn), segment, segment, backup};
        if (!add_need(check, &need, err))
            return false;
    }
    return true;
}

static bool
gather_needs(WalCheck *check, CairnError *err)
{
    SCOPED_MEMORY TimelineHistory *path = malloc(sizeof *path);
    if (path == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (uint32_t i = 0; i < check->verify->catalog->count; i++) {
        if (check->verify->checks[i].wanted &&
            is_of(check->verify->catalog->backups[i].fate, check->incarnation) &&
            !add_needs_of(check, i, path, err))
            return false;
    }
    return true;
}

static bool
is_history(const char *file, WalFileName *name_out)
{
    CairnError ignored = {0}; /* a file that is none of PostgreSQL's is needed by nobody */
    return wal_file_name_parse(file, name_out, &ignored) && name_out->kind == WAL_FILE_HISTORY;
}

/* Who needs the file. */
static BackupSet
place_file(const WalCheck *check, const char *file, WalPlace *place_out)
{
    const Incarnation *incarnation = check->incarnation;
    WalFileName name;
    *place_out = (WalPlace){0};
    place_out->is_segment = wal_segment_parse(file, incarnation->wal_segment_size,
                                              &place_out->timeline, &place_out->segment);
    if (place_out->is_segment)
        return verify_needed_by(check, place_out->timeline, place_out->segment);
    if (is_history(file, &name))
        return backups_of(check->verify, incarnation->system_id, incarnation->major, name.timeline,
                          check->indexes);
    return (BackupSet){0};
}

bool
verify_note_wal(WalCheck *check, VerifySubject *subject, const WalPlace *place, CairnError *err)
{
    const uint64_t size = check->incarnation->wal_segment_size;
    const TimelineHistory *path =
        place->is_segment ? verify_path_of(check, place->timeline, place->segment) : NULL;
    if (path != NULL && err->kind != CAIRN_CANCELLED && err->kind != CAIRN_INTERNAL) {
        CairnError look = {0};
        subject->moments =
            verify_moments(check, path, place->segment * size, (place->segment + 1) * size, &look);
        if (look.kind != CAIRN_OK) {
            *err = look;
            return false;
        }
    }
    return verify_note_now(check->verify, subject, err);
}

static bool
open_file(const Verify *verify, const char *object, bool is_piece, CairnError *err)
{
    SCOPED(ObjectReader)
    reader = object_open(verify->repository, object, is_piece ? OBJECT_WAL_TAIL : OBJECT_WAL, err);
    return reader != NULL;
}

/* The thread's own, since a WalStore has one. */
static WalStore *
store_of(VerifyWorker *worker, const Incarnation *incarnation, CairnError *err)
{
    const Verify *verify = worker->verify;
    if (worker->wal != NULL && worker->incarnation.system_id == incarnation->system_id &&
        worker->incarnation.major == incarnation->major)
        return worker->wal;
    wal_store_close(worker->wal);
    worker->incarnation = *incarnation;
    worker->wal =
        wal_store_open(verify->repository, verify->options->cluster, &worker->incarnation, err);
    return worker->wal;
}

static bool
read_file(VerifyWorker *worker, VerifyJob *job, CairnError *err)
{
    const Incarnation *incarnation = &job->incarnation;
    WalPieceName piece;
    if (job->reads_all) {
        WalStore *store = store_of(worker, incarnation, err);
        return store != NULL && wal_store_verify(store, job->file, err);
    }
    const bool is_piece = wal_piece_name_parse(job->file, incarnation->wal_segment_size, &piece);
    return open_file(worker->verify, job->object, is_piece, err);
}

/* A question in a thread: not of its place on a path, but of the backups that need it. */
static bool
look_for_segment(VerifyWorker *worker, VerifyJob *job, CairnError *err)
{
    WalStore *store = store_of(worker, &job->incarnation, err);
    bool present;
    if (store == NULL || !wal_store_has(store, job->file, &present, err))
        return false;
    return present || cairn_error(err, CAIRN_NOT_FOUND,
                                  "WAL segment '%s' is missing; without it the backup is of no use",
                                  job->file);
}

/* Where it may be missing. */
static bool
read_needed_file(VerifyWorker *worker, VerifyJob *job, CairnError *err)
{
    if (look_for_segment(worker, job, err))
        return read_file(worker, job, err);
    job->unseen = true;
    snprintf(job->object, sizeof job->object, "%s", job->file);
    return false;
}

/* Reads or opens one file; what is wrong is noted with all that hangs on it. listed: it is there.
 */
static bool
check_file(WalCheck *check, const char *object, const char *file, bool listed, CairnError *err)
{
    Verify *verify = check->verify;
    WalFileName name;
    VerifyJob job = {.read = listed ? read_file : read_needed_file,
                     .wal = check,
                     .is_wal = true,
                     .incarnation = *check->incarnation,
                     .may_vanish = listed};
    job.needed_by = place_file(check, file, &job.place);
    snprintf(job.object, sizeof job.object, "%s", object);
    snprintf(job.file, sizeof job.file, "%s", file);
    verify->report->wal_file_count++;
    if (!verify_reads(verify, object, &job.reads_all, err))
        return false;
    /* Small, and the whole timeline hangs on it: read in every run. */
    job.reads_all = job.reads_all || is_history(file, &name);
    return verify_add(verify, &job, err);
}

/* Everything that is stored of one incarnation, walked by name, whatever it is. */
typedef struct {
    WalCheck *check;
    char prefix[STORAGE_NAME_LIMIT];
    uint32_t timeline;
} WalWalk;

/* No recovery rests on an acknowledgement; that it can be read is checked all the same. */
static bool
check_ack(WalCheck *check, const char *object, CairnError *err)
{
    const VerifySubject subject = {.object = object, .may_vanish = true};
    return verify_object(check->verify, object, OBJECT_WAL_ACK, &subject, err);
}

static StorageListNext
walk_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    WalWalk *walk = context;
    Verify *verify = walk->check->verify;
    char name[STORAGE_NAME_LIMIT];
    if (!cancel_check(err))
        return STORAGE_LIST_FAILED;
    int size = snprintf(name, sizeof name, "%s/%s", walk->prefix, entry->name);
    if (size < 0 || (size_t)size >= sizeof name)
        return STORAGE_LIST_GO_ON;
    if (entry->is_directory) {
        WalWalk below = {.check = walk->check, .timeline = walk->timeline};
        snprintf(below.prefix, sizeof below.prefix, "%s", name);
        unsigned timeline;
        if (walk->timeline == 0 && sscanf(entry->name, "%8X", &timeline) == 1)
            below.timeline = timeline;
        return storage_list(repository_storage(verify->repository), below.prefix, walk_entry,
                            &below, err)
                   ? STORAGE_LIST_GO_ON
                   : STORAGE_LIST_FAILED;
    }
    char file[STORAGE_NAME_LIMIT];
    uint64_t ack_start, ack_end;
    if (wal_ack_name_parse(entry->name, &ack_start, &ack_end))
        return check_ack(walk->check, name, err) ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
    if (strcmp(entry->name, "history") == 0)
        snprintf(file, sizeof file, "%08" PRIX32 ".history", walk->timeline);
    else
        snprintf(file, sizeof file, "%s", entry->name);
    verify->report->byte_count += entry->size_bytes;
    progress_add(verify->options->progress, entry->size_bytes);
    progress_draw(verify->options->progress);
    return check_file(walk->check, name, file, true, err) ? STORAGE_LIST_GO_ON
                                                          : STORAGE_LIST_FAILED;
}

/* Without its history file nobody knows where a timeline comes from; only the oldest one has none.
 */
static bool
verify_histories(WalCheck *check, CairnError *err)
{
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t count;
    if (!wal_store_timelines(check->store, &timelines, &count, err))
        return false;
    for (size_t i = 1; i < count; i++) {
        char file[WAL_NAME_SIZE];
        bool present;
        WalPlace place;
        snprintf(file, sizeof file, "%08" PRIX32 ".history", timelines[i]);
        if (!wal_store_has(check->store, file, &present, err))
            return false;
        if (present)
            continue;
        cairn_error(err, CAIRN_NOT_FOUND, "'%s' is missing; nothing on timeline %u can be restored",
                    file, timelines[i]);
        const VerifySubject subject = {
            .object = file, .needed_by = place_file(check, file, &place), .is_wal = true};
        if (!verify_note(check->verify, &subject, err))
            return false;
    }
    return true;
}

static bool
is_in_hole(const WalCheck *check, uint32_t timeline, uint64_t segment)
{
    for (size_t i = 0; i < check->hole_count; i++) {
        const WalHole *hole = &check->holes[i];
        if (hole->timeline == timeline && segment >= hole->first && segment <= hole->last)
            return true;
    }
    return false;
}

/* The walk over everything reads it, where it is. */
static bool
ask_for_segment(WalCheck *check, const char *file, const BackupSet *needed_by, CairnError *err)
{
    VerifyJob job = {.read = look_for_segment,
                     .uncounted = true,
                     .is_wal = true,
                     .incarnation = *check->incarnation,
                     .needed_by = *needed_by};
    snprintf(job.object, sizeof job.object, "%s", file);
    snprintf(job.file, sizeof job.file, "%s", file);
    return verify_add(check->verify, &job, err);
}

/* Where there is no such walk. */
static bool
read_needed_segment(WalCheck *check, const char *file, CairnError *err)
{
    char object[STORAGE_NAME_LIMIT + 1];
    WalFileName name;
    return wal_file_name_parse(file, &name, err) &&
           wal_object_name(check->store, &name, file, NULL, object, err) &&
           check_file(check, object, file, false, err);
}

static bool
verify_needed_segment(WalCheck *check, uint32_t timeline, uint64_t segment, uint32_t backup,
                      CairnError *err)
{
    const BackupSet needed_by = verify_needed_by(check, timeline, segment);
    char file[WAL_NAME_SIZE];
    if (needed_by.indexes[0] != backup || is_in_hole(check, timeline, segment))
        return true; /* said already, of all of them */
    wal_segment_name(file, timeline, segment, check->incarnation->wal_segment_size);
    return check->verify->options->selector == NULL ? ask_for_segment(check, file, &needed_by, err)
                                                    : read_needed_segment(check, file, err);
}

static bool
verify_needs(WalCheck *check, CairnError *err)
{
    for (size_t i = 0; i < check->need_count; i++) {
        const WalNeed need = check->needs[i];
        for (uint64_t segment = need.first; segment <= need.last; segment++) {
            if (!cancel_check(err) ||
                !verify_needed_segment(check, need.timeline, segment, need.backup, err))
                return false;
        }
    }
    return true;
}

/* Where a history file is damaged, paths are not known; the walk reports the file itself. */
static bool
load_archive(WalCheck *check, CairnError *err)
{
    check->archive = wal_archive_load(check->verify->repository, check->verify->options->cluster,
                                      check->incarnation, err);
    if (check->archive != NULL)
        return true;
    if (err->kind != CAIRN_CORRUPT && err->kind != CAIRN_MISMATCH && err->kind != CAIRN_UNSUPPORTED)
        return false;
    cairn_error_clear(err);
    return true;
}

static void
close_check(WalCheck *check)
{
    wal_archive_free(check->archive);
    wal_store_close(check->store);
    free(check->needs);
    free(check->holes);
    free(check->indexes);
}

static bool
verify_incarnation_wal(Verify *verify, const Incarnation *incarnation, CairnError *err)
{
    __attribute__((cleanup(close_check)))
    WalCheck check = {.verify = verify, .incarnation = incarnation};
    check.indexes = calloc(verify->catalog->count + 1, sizeof *check.indexes);
    if (check.indexes == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    check.store = wal_store_open(verify->repository, verify->options->cluster, incarnation, err);
    if (check.store == NULL || !load_archive(&check, err) || !gather_needs(&check, err))
        return false;
    if (verify->options->selector != NULL)
        return verify_needs(&check, err) && verify_settle(verify, err);
    WalWalk walk = {.check = &check};
    char name[INCARNATION_NAME_SIZE];
    incarnation_name(name, incarnation->system_id, incarnation->major);
    snprintf(walk.prefix, sizeof walk.prefix, "c/%s/w/%s", verify->options->cluster, name);
    return storage_list(repository_storage(verify->repository), walk.prefix, walk_entry, &walk,
                        err) &&
           verify_settle(verify, err) && verify_histories(&check, err) &&
           verify_holes(&check, err) && verify_needs(&check, err) && verify_settle(verify, err);
}

/* The record of an incarnation, and its WAL unless what is needed to read it is damaged. */
static bool
verify_incarnation(Verify *verify, uint64_t system_id, int major, CairnError *err)
{
    Incarnation incarnation;
    verify->report->object_count++;
    if (incarnation_get(verify->repository, verify->options->cluster, system_id, major,
                        &incarnation, err))
        return verify_incarnation_wal(verify, &incarnation, err);

    char name[INCARNATION_NAME_SIZE], object[STORAGE_NAME_LIMIT];
    SCOPED_MEMORY uint32_t *indexes = calloc(verify->catalog->count + 1, sizeof *indexes);
    CAIRN_ASSERT(indexes != NULL);
    incarnation_name(name, system_id, major);
    snprintf(object, sizeof object, "c/%s/i/%s", verify->options->cluster, name);
    const VerifySubject subject = {.object = object,
                                   .needed_by = backups_of(verify, system_id, major, 0, indexes),
                                   .is_wal = true};
    return verify_note(verify, &subject, err);
}

typedef struct {
    uint64_t system_id;
    int major;
} SystemId;

typedef struct {
    Verify *verify;
    SystemId systems[INCARNATION_LIMIT];
    size_t count;
} SystemList;

/* UNSUPPORTED when there are too many. */
static bool
add_system(SystemList *list, uint64_t system_id, int major, CairnError *err)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->systems[i].system_id == system_id && list->systems[i].major == major)
            return true;
    }
    if (list->count == INCARNATION_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "the cluster has been too many systems");
    list->systems[list->count++] = (SystemId){system_id, major};
    return true;
}

/* Whoever may create can make any number of records: that must not end the run. */
static bool
note_surplus(Verify *verify, const char *name, CairnError *err)
{
    char object[STORAGE_NAME_LIMIT];
    snprintf(object, sizeof object, "c/%s/i/%s", verify->options->cluster, name);
    cairn_error_wrap(err, "its WAL is not looked at");
    return verify_note(verify, &(VerifySubject){.object = object, .is_wal = true}, err);
}

static StorageListNext
collect_incarnation(void *context, const StorageEntry *entry, CairnError *err)
{
    SystemList *list = context;
    uint64_t system_id;
    int major;
    char expected[INCARNATION_NAME_SIZE];
    if (sscanf(entry->name, "%16" SCNx64 "-%d", &system_id, &major) != 2)
        return STORAGE_LIST_GO_ON;
    incarnation_name(expected, system_id, major);
    if (strcmp(expected, entry->name) != 0)
        return STORAGE_LIST_GO_ON;
    return add_system(list, system_id, major, err) || note_surplus(list->verify, expected, err)
               ? STORAGE_LIST_GO_ON
               : STORAGE_LIST_FAILED;
}

bool
verify_wal(Verify *verify, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    SystemList list = {.verify = verify};
    /* Those that backups name, too: a record that is gone would hide all their WAL. First, since
       there is room for so many only. */
    for (size_t i = 0; i < verify->catalog->count; i++) {
        const Fate *fate = verify->catalog->backups[i].fate;
        if (verify->checks[i].wanted && !add_system(&list, fate->system_id, fate->major, err))
            return false;
    }
    snprintf(prefix, sizeof prefix, "c/%s/i", verify->options->cluster);
    if (verify->options->selector == NULL && !storage_list(repository_storage(verify->repository),
                                                           prefix, collect_incarnation, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        if (!verify_incarnation(verify, list.systems[i].system_id, list.systems[i].major, err))
            return false;
    }
    return true;
}
