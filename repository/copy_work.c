/* Threads that copy what is queued, and what comes of each object. */
#include "common/cancel.h"
#include "repository/copy_intern.h"
#include "repository/copy_object.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_CAPACITY = 256, UNUSABLE_LIMIT = 4096 };

void
copy_note(Copy *copy, const char *object, const char *text)
{
    CopyReport *report = copy->report;

    if (report->problem_count == COPY_PROBLEMS_LISTED)
        return;
    report->problems[report->problem_count++] =
        (CopyTrouble){arena_strdup(report->arena, object), arena_strdup(report->arena, text)};
}

static void
note_unusable(Copy *copy, const char *object)
{
    Arena *arena = copy->report->arena;

    if (copy->unusable == NULL)
        copy->unusable = arena_alloc(arena, UNUSABLE_LIMIT * sizeof *copy->unusable);
    if (copy->unusable_count < UNUSABLE_LIMIT)
        copy->unusable[copy->unusable_count++] = arena_strdup(arena, object);
    else
        copy->unusable_more = true;
}

bool
copy_is_unusable(const Copy *copy, const char *object)
{
    for (size_t i = 0; i < copy->unusable_count; i++) {
        if (strcmp(copy->unusable[i], object) == 0)
            return true;
    }
    return false;
}

/* About this object alone, so that the others may well be copied. */
static bool
is_its_own(const CopyObject *object, const CairnError *err)
{
    if (err->kind == CAIRN_CONFLICT || object->at_target)
        return true;
    if (!object->at_source)
        return false;
    switch (err->kind) {
    case CAIRN_NOT_FOUND:
    case CAIRN_CORRUPT:
    case CAIRN_MISMATCH:
    case CAIRN_UNSUPPORTED:
    case CAIRN_IO:
    case CAIRN_DENIED:
        return true;
    default:
        return false;
    }
}

/* Under the mutex. False: the run ends. */
static bool
take_note(Copy *copy, const CopyObject *object, bool done, const CairnError *err)
{
    CopyReport *report = copy->report;

    if (done) {
        report->present += object->existed ? 1 : 0;
        report->copied += object->existed ? 0 : 1;
        report->copied_bytes += object->existed ? 0 : object->size_bytes;
        progress_add(copy->options->progress, object->size_bytes);
        return true;
    }
    if (!is_its_own(object, err))
        return false;
    /* What the source's collector deleted since it was listed is nobody's loss. */
    if (err->kind == CAIRN_NOT_FOUND)
        return true;
    report->conflicts += err->kind == CAIRN_CONFLICT ? 1 : 0;
    report->damaged += err->kind == CAIRN_CONFLICT ? 0 : 1;
    copy_note(copy, object->name, err->message);
    if (err->kind == CAIRN_CONFLICT || object->at_target)
        note_unusable(copy, object->name);
    return true;
}

static CopyObject
object_of(const Copy *copy, const char *name, uint8_t *buffer)
{
    return (CopyObject){.from = copy->from,
                        .to = copy->to,
                        .from_name = name,
                        .to_name = name,
                        .name = name,
                        .repository_id = copy->repository_id,
                        .buffer = buffer,
                        .reads_present = copy->options->reads_present};
}

bool
copy_one(Copy *copy, const char *name, bool *there_out, CairnError *err)
{
    CairnError failure = {0};
    CopyObject object = object_of(copy, name, NULL);

    *there_out = copy_object(&object, &failure);
    pthread_mutex_lock(&copy->mutex);
    const bool goes_on = take_note(copy, &object, *there_out, &failure);
    pthread_mutex_unlock(&copy->mutex);
    if (!goes_on)
        *err = failure;
    return goes_on;
}

static void
fail(Copy *copy, const CairnError *err)
{
    pthread_mutex_lock(&copy->mutex);
    if (!copy->failed)
        copy->failure = *err;
    copy->failed = true;
    pthread_mutex_unlock(&copy->mutex);
    queue_cancel(copy->queue);
}

static void *
work(void *context)
{
    Copy *copy = context;
    SCOPED_MEMORY uint8_t *buffer = malloc(COPY_BUFFER_SIZE);
    CairnError err = {0};

    if (buffer == NULL) {
        cairn_error(&err, CAIRN_INTERNAL, "out of memory");
        fail(copy, &err);
        return NULL;
    }
    for (;;) {
        SCOPED_MEMORY char *name = queue_pop(copy->queue);
        if (name == NULL)
            return NULL;
        CopyObject object = object_of(copy, name, buffer);
        const bool done = copy_object(&object, &err);
        pthread_mutex_lock(&copy->mutex);
        const bool goes_on = take_note(copy, &object, done, &err);
        pthread_mutex_unlock(&copy->mutex);
        if (!goes_on) {
            fail(copy, &err);
            return NULL;
        }
        cairn_error_clear(&err);
    }
}

bool
copy_begin(Copy *copy, CairnError *err)
{
    const int jobs = copy->options->jobs;

    copy->thread_count = 0;
    copy->queue = queue_new(QUEUE_CAPACITY, free, err);
    if (copy->queue == NULL)
        return false;
    while (copy->thread_count < jobs && copy->thread_count < COPY_JOBS_LIMIT) {
        const int error = pthread_create(&copy->threads[copy->thread_count], NULL, work, copy);
        if (error == 0) {
            copy->thread_count++;
            continue;
        }
        if (copy->thread_count > 0)
            break; /* slower, no more */
        queue_free(take(&copy->queue));
        errno = error;
        return cairn_error_errno(err, "unable to start a thread");
    }
    return true;
}

bool
copy_end(Copy *copy, CairnError *err)
{
    if (err->kind != CAIRN_OK)
        queue_cancel(copy->queue); /* the caller's own failure */
    else
        queue_close(copy->queue);
    for (int i = 0; i < copy->thread_count; i++)
        pthread_join(copy->threads[i], NULL);
    queue_free(take(&copy->queue));
    progress_draw(copy->options->progress);
    if (copy->failed && err->kind == CAIRN_OK)
        *err = copy->failure;
    return err->kind == CAIRN_OK;
}

bool
copy_add(Copy *copy, const char *name)
{
    char *item = strdup(name);

    progress_draw(copy->options->progress);
    if (item != NULL && !cancel_requested() && queue_push(copy->queue, item))
        return true;
    CairnError err = {0};
    if (item == NULL)
        cairn_error(&err, CAIRN_INTERNAL, "out of memory");
    if (!cancel_check(&err) || item == NULL)
        fail(copy, &err);
    free(item);
    return false;
}

/* -- whole trees */

typedef struct {
    Copy *copy;
    const char *prefix;
    CopyWanted *wanted;
    void *context;
} Tree;

static StorageListNext
add_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    const Tree *tree = context;
    char name[STORAGE_NAME_LIMIT];
    const int size = snprintf(name, sizeof name, "%s/%s", tree->prefix, entry->name);

    if (size < 0 || (size_t)size >= sizeof name)
        return STORAGE_LIST_GO_ON; /* no name of ours is so long */
    if (entry->is_directory)
        return copy_add_tree(tree->copy, name, tree->wanted, tree->context, err)
                   ? STORAGE_LIST_GO_ON
                   : STORAGE_LIST_FAILED;
    if (tree->wanted != NULL && !tree->wanted(tree->context, entry->name, name))
        return STORAGE_LIST_GO_ON;
    if (copy_add(tree->copy, name))
        return STORAGE_LIST_GO_ON;
    pthread_mutex_lock(&tree->copy->mutex);
    *err = tree->copy->failure;
    pthread_mutex_unlock(&tree->copy->mutex);
    return STORAGE_LIST_FAILED;
}

bool
copy_add_tree(Copy *copy, const char *prefix, CopyWanted *wanted, void *context, CairnError *err)
{
    Tree tree = {.copy = copy, .prefix = prefix, .wanted = wanted, .context = context};

    return storage_list(copy->from, prefix, add_entry, &tree, err);
}
