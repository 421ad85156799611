#include "repository/heal.h"

#include "common/cancel.h"
#include "common/queue.h"
#include "repository/object.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUEUE_CAPACITY = 128,
    COMPARE_SIZE = 512 << 10,
    DENIED_LIMIT = 16, /* refusals without a success: nothing may be brought back at all */
};

typedef struct {
    const HealOptions *options;
    HealReport *report;
    Queue *queue;
    pthread_t threads[HEAL_JOBS_LIMIT];
    int thread_count;
    pthread_mutex_t mutex; /* guards the rest and the report */
    uint64_t done;
    bool failed;
    CairnError failure; /* the first that ends the run */
} Heal;

/* -- one object */

/* Whole, of this repository (NULL: of any), and under its name, as far as can be told without
 * keys. */
static bool
is_whole(Storage *storage, const HealItem *item, const uint8_t *repository_id, bool *whole_out,
         CairnError *err)
{
    uint8_t digest[SHA256_SIZE];
    ObjectSeal seal;
    CairnError damage = {0};
    size_t size = 0;
    *whole_out = false;
    SCOPED_MEMORY uint8_t *data =
        storage_get(storage, item->name, OBJECT_SMALL_LIMIT, &size, &damage);
    if (data == NULL) {
        if (damage.kind == CAIRN_CORRUPT)
            return true; /* larger than any of its kind */
        *err = damage;
        return false;
    }
    if (size < OBJECT_HEADER_SIZE + OBJECT_TRAILER_SIZE ||
        !object_check_seal(data, data + size - OBJECT_TRAILER_SIZE, item->name, repository_id,
                           &seal, &damage))
        return true;
    if (!sha256_of(data, size - SHA256_SIZE, digest, err))
        return false;
    *whole_out = memcmp(digest, seal.sha256, sizeof digest) == 0;
    return true;
}

/* Whose repository the version is of; false in *known_out when it does not say. */
static bool
read_repository_id(Storage *storage, const HealItem *item, uint8_t *id_out, bool *known_out,
                   CairnError *err)
{
    uint8_t header[OBJECT_HEADER_SIZE], trailer[OBJECT_TRAILER_SIZE];
    ObjectSeal seal;
    CairnError damage = {0};
    SCOPED(StorageReader) reader = storage_open_version(storage, item->name, item->version, err);
    *known_out = false;
    if (reader == NULL)
        return false;
    if (reader->size_bytes < sizeof header + sizeof trailer)
        return true;
    if (!storage_pread(reader, header, sizeof header, 0, err) ||
        !storage_pread(reader, trailer, sizeof trailer, reader->size_bytes - sizeof trailer, err))
        return false;
    if (!object_check_seal(header, trailer, item->name, NULL, &seal, &damage))
        return true;
    memcpy(id_out, seal.repository_id, REPOSITORY_ID_SIZE);
    *known_out = true;
    return true;
}

static bool
is_newer(Storage *storage, const HealItem *item, bool *newer_out, CairnError *err)
{
    uint8_t repository_id[REPOSITORY_ID_SIZE];
    bool known;
    *newer_out = false;
    /* Rubbish from before TIME, which somebody removed and replaced: it says nothing of whose. */
    return read_repository_id(storage, item, repository_id, &known, err) &&
           is_whole(storage, item, known ? repository_id : NULL, newer_out, err);
}

static bool
is_same(Storage *storage, const HealItem *item, uint8_t *buffer, bool *same_out, CairnError *err)
{
    SCOPED(StorageReader) wanted = storage_open_version(storage, item->name, item->version, err);
    if (wanted == NULL)
        return false;
    SCOPED(StorageReader) current = storage_open_version(storage, item->name, item->current, err);
    if (current == NULL)
        return false;
    *same_out = wanted->size_bytes == current->size_bytes;
    for (uint64_t at = 0; *same_out && at < wanted->size_bytes; at += COMPARE_SIZE) {
        const uint64_t left = wanted->size_bytes - at;
        const size_t size = left < COMPARE_SIZE ? (size_t)left : COMPARE_SIZE;
        if (!cancel_check(err) || !storage_pread(wanted, buffer, size, at, err) ||
            !storage_pread(current, buffer + COMPARE_SIZE, size, at, err))
            return false;
        *same_out = memcmp(buffer, buffer + COMPARE_SIZE, size) == 0;
    }
    return true;
}

static HealResult
heal_one(const HealOptions *options, const HealItem *item, uint8_t *buffer, CairnError *err)
{
    bool same = false, newer = false;
    if (item->same_size && !is_same(options->storage, item, buffer, &same, err))
        return HEAL_FAILED;
    if (same)
        return HEAL_SAME;
    if (item->may_be_newer && !is_newer(options->storage, item, &newer, err))
        return HEAL_FAILED;
    if (newer)
        return HEAL_NEWER;
    return options->dry_run || storage_put_back(options->storage, item->name, item->version,
                                                item->size_bytes, err)
               ? HEAL_DONE
               : HEAL_FAILED;
}

/* -- what comes of each; under the mutex */

static void
count_done(HealReport *report, const HealItem *item)
{
    report->hidden += !item->overwritten;
    report->overwritten += item->overwritten;
    report->bytes += item->size_bytes;
    report->subjects[item->subject].hidden += !item->overwritten;
    report->subjects[item->subject].overwritten += item->overwritten;
    report->subjects[item->subject].bytes += item->size_bytes;
    if (report->first_us == 0 || item->changed_us < report->first_us)
        report->first_us = item->changed_us;
    if (item->changed_us > report->last_us)
        report->last_us = item->changed_us;
}

/* About this object alone, so that others may well come back. */
static bool
is_its_own(const CairnError *failure)
{
    switch (failure->kind) {
    case CAIRN_NOT_FOUND:
    case CAIRN_CORRUPT:
    case CAIRN_IO:
    case CAIRN_DENIED:
    case CAIRN_CONFLICT:
    case CAIRN_UNSUPPORTED:
        return true;
    default:
        return false;
    }
}

/* False: the run ends, err says why. */
static bool
take_result(Heal *heal, const HealItem *item, HealResult result, const CairnError *failure,
            CairnError *err)
{
    const HealOptions *options = heal->options;
    HealReport *report = heal->report;
    if (result == HEAL_DONE) {
        heal->done++;
        count_done(report, item);
        progress_add(options->progress, item->size_bytes);
    }
    report->newer += result == HEAL_NEWER;
    if (result == HEAL_FAILED) {
        if (report->failed++ == 0)
            report->failure = *failure;
        if (!is_its_own(failure) ||
            (failure->kind == CAIRN_DENIED && heal->done == 0 && report->failed >= DENIED_LIMIT)) {
            *err = *failure;
            return false;
        }
    }
    return result == HEAL_SAME || options->note(options->context, item, result, failure, err);
}

/* -- threads */

/* Under the mutex: the first failure is the one that is told. */
static void
fail(Heal *heal, const CairnError *err)
{
    if (!heal->failed)
        heal->failure = *err;
    heal->failed = true;
    queue_cancel(heal->queue);
}

/* One object by one thread. False: the run has ended, by this or by another one. What was brought
 * back is told in any case. */
static bool
work_on(Heal *heal, const HealItem *item, uint8_t *buffer)
{
    CairnError failure = {0}, err = {0};
    const HealResult result = heal_one(heal->options, item, buffer, &failure);
    pthread_mutex_lock(&heal->mutex);
    if (!take_result(heal, item, result, &failure, &err))
        fail(heal, &err);
    const bool goes_on = !heal->failed;
    pthread_mutex_unlock(&heal->mutex);
    return goes_on;
}

static void *
work(void *context)
{
    Heal *heal = context;
    SCOPED_MEMORY uint8_t *buffer = malloc(2 * COMPARE_SIZE);
    if (buffer == NULL) {
        CairnError err = {0};
        cairn_error(&err, CAIRN_INTERNAL, "out of memory");
        pthread_mutex_lock(&heal->mutex);
        fail(heal, &err);
        pthread_mutex_unlock(&heal->mutex);
        return NULL;
    }
    for (;;) {
        SCOPED_MEMORY HealItem *item = queue_pop(heal->queue);
        if (item == NULL || !work_on(heal, item, buffer))
            return NULL;
    }
}

static bool
start_threads(Heal *heal, CairnError *err)
{
    while (heal->thread_count < heal->options->jobs && heal->thread_count < HEAL_JOBS_LIMIT) {
        const int error = pthread_create(&heal->threads[heal->thread_count], NULL, work, heal);
        if (error == 0) {
            heal->thread_count++;
            continue;
        }
        if (heal->thread_count > 0)
            break; /* slower, no more */
        errno = error;
        return cairn_error_errno(err, "unable to start a thread");
    }
    return true;
}

/* Only what a thread failed at says why its queue is closed. */
static bool
add_item(void *context, const HealItem *item, CairnError *err)
{
    Heal *heal = context;
    HealItem *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    *copy = *item;
    if (queue_push(heal->queue, copy))
        return true;
    free(copy);
    pthread_mutex_lock(&heal->mutex);
    *err = heal->failure;
    pthread_mutex_unlock(&heal->mutex);
    return false;
}

typedef struct {
    Heal *heal;
    HealRules *rules;
} Walk;

static bool
add_version(void *context, const StorageVersion *version, CairnError *err)
{
    const Walk *walk = context;
    progress_draw(walk->heal->options->progress);
    return cancel_check(err) && heal_rules_add(walk->rules, version, err);
}

static void
end_threads(Heal *heal, const CairnError *err)
{
    if (err->kind != CAIRN_OK)
        queue_cancel(heal->queue);
    else
        queue_close(heal->queue);
    for (int i = 0; i < heal->thread_count; i++)
        pthread_join(heal->threads[i], NULL);
}

static bool
walk_versions(Heal *heal, HealRules *rules, CairnError *err)
{
    Walk walk = {heal, rules};
    const bool walked = start_threads(heal, err) &&
                        storage_list_versions(heal->options->storage, add_version, &walk, err) &&
                        heal_rules_finish(rules, err);
    CAIRN_ASSERT(walked == (err->kind == CAIRN_OK));
    end_threads(heal, err);
    if (heal->failed && err->kind == CAIRN_OK)
        *err = heal->failure;
    heal->report->counts = *heal_rules_counts(rules);
    return err->kind == CAIRN_OK;
}

static bool
check_kept(const HealReport *report, CairnError *err)
{
    const HealCounts *counts = &report->counts;
    if (counts->names == 0)
        return cairn_error(err, CAIRN_NOT_FOUND,
                           "no object of a repository is there, and no version of one");
    if (counts->kept_versions)
        return true;
    cairn_error(err, CAIRN_UNSUPPORTED,
                "none of the %" PRIu64 " objects has a version id: the bucket keeps no versions, "
                "or kept none yet when they were written",
                counts->names);
    return cairn_error_hint(err, "what was deleted or overwritten there is gone; a copy of the "
                                 "repository may have it, see docs/several-repositories.md");
}

bool
heal_run(const HealOptions *options, HealReport *report_out, CairnError *err)
{
    HealReport report = {0};
    Heal heal = {.options = options, .report = &report, .mutex = PTHREAD_MUTEX_INITIALIZER};
    SCOPED(HealRules) rules = heal_rules_new(options->since_us, add_item, &heal, err);
    if (rules == NULL)
        return false;
    SCOPED(Queue) queue = queue_new(QUEUE_CAPACITY, free, err);
    if (queue == NULL)
        return false;
    heal.queue = queue;
    const bool done = walk_versions(&heal, rules, err) && check_kept(&report, err);
    pthread_mutex_destroy(&heal.mutex);
    if (done)
        *report_out = report;
    return done;
}
