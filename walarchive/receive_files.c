/* What an archiving thread does with the files of the spool, and who has which of them. */
#include "walarchive/receive_intern.h"

#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SHARED_LIMIT = 4096 };

void
receive_notify(Receive *receive)
{
    const uint64_t one = 1;

    /* An eventfd whose counter is full is readable all the same. */
    if (write(receive->archiver.notify_fd, &one, sizeof one) < 0)
        log_debug("unable to wake the receiver: %s", strerror(errno));
}

/* -- who has what -- */

static bool
is_same(const ReceiveFile *a, const ReceiveFile *b)
{
    return a->kind == b->kind && a->timeline == b->timeline && a->segment == b->segment &&
           a->size == b->size && strcmp(a->name, b->name) == 0;
}

static SharedFile *
find_shared(Archiver *archiver, const ReceiveFile *file)
{
    for (size_t i = 0; i < archiver->shared_count; i++) {
        if (is_same(&archiver->shared[i].file, file))
            return &archiver->shared[i];
    }
    return NULL;
}

static void
drop_shared(Archiver *archiver, SharedFile *shared)
{
    *shared = archiver->shared[--archiver->shared_count];
}

void
receive_forget_shared_part(Receive *receive, uint32_t timeline, uint64_t segment)
{
    Archiver *archiver = &receive->archiver;

    for (size_t i = archiver->shared_count; i-- > 0;) {
        const ReceiveFile *file = &archiver->shared[i].file;
        if (file->kind == RECEIVE_PART && file->timeline == timeline && file->segment == segment)
            drop_shared(archiver, &archiver->shared[i]);
    }
}

/* Forgotten, where there is no room: then it is stored once more, which finds it there. */
static void
note_stored(Archiver *archiver, const ReceiveFile *file, size_t index)
{
    SharedFile *shared = find_shared(archiver, file);

    if (shared == NULL) {
        if (archiver->shared_count >= SHARED_LIMIT)
            archiver->shared_count = 0;
        SharedFile *grown =
            reallocarray(archiver->shared, archiver->shared_count + 1, sizeof *grown);
        if (grown == NULL)
            return;
        archiver->shared = grown;
        shared = &archiver->shared[archiver->shared_count++];
        *shared = (SharedFile){.file = *file};
    }
    shared->stored |= UINT32_C(1) << index;
}

static bool
has_it(const SharedFile *shared, size_t index)
{
    return shared != NULL && (shared->stored & UINT32_C(1) << index) != 0;
}

/* One that is not required is waited for while it answers and there is room. */
static bool
may_go(const Receive *receive, const SharedFile *shared)
{
    const Archiver *archiver = &receive->archiver;
    const bool roomy = archiver->spool_bytes < receive->options->spool_limit_bytes / 2;

    for (size_t i = 0; i < archiver->target_count; i++) {
        const ArchiverTarget *target = &archiver->targets[i];
        const bool waited_for = target->required || (roomy && !target->down);
        if (waited_for && !has_it(shared, i))
            return false;
    }
    return true;
}

/* -- files -- */

static bool
is_open_locked(const Receive *receive, const ReceiveFile *file)
{
    const Position *open = &receive->archiver.open;

    return open->timeline == file->timeline &&
           open->lsn == file->segment * receive->incarnation.wal_segment_size;
}

/* Below the lock, so that only one removes it, and not while it is begun anew (invariant 4 of
   receive_archiver.c). */
static bool
let_go(Worker *worker, const ReceiveFile *file, CairnError *err)
{
    Receive *receive = worker->receive;
    Archiver *archiver = &receive->archiver;
    bool removed = true;

    pthread_mutex_lock(&archiver->lock);
    const bool open = file->kind == RECEIVE_PART && is_open_locked(receive, file);
    if (!open)
        note_stored(archiver, file, worker->index);
    SharedFile *shared = find_shared(archiver, file);
    if (!open && has_it(shared, worker->index) && may_go(receive, shared)) {
        removed = receive_spool_remove(&receive->spool, file->name, err);
        if (removed && file->kind == RECEIVE_SEGMENT)
            archiver->spool_bytes -=
                file->size < archiver->spool_bytes ? file->size : archiver->spool_bytes;
        if (removed)
            drop_shared(archiver, shared);
    }
    pthread_mutex_unlock(&archiver->lock);
    if (file->kind == RECEIVE_SEGMENT)
        receive_notify(receive);
    return removed;
}

static bool
is_stored_here(Worker *worker, const ReceiveFile *file)
{
    Archiver *archiver = &worker->receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    const bool stored = has_it(find_shared(archiver, file), worker->index);
    pthread_mutex_unlock(&archiver->lock);
    return stored;
}

static bool
archive_file(Worker *worker, const ReceiveFile *file, CairnError *err)
{
    Receive *receive = worker->receive;
    const uint32_t segment_size = receive->incarnation.wal_segment_size;
    bool existed = false, tail_differs = false;

    if (!is_stored_here(worker, file)) {
        SCOPED_FD fd = receive_spool_open_file(&receive->spool, file->name, err);
        if (fd < 0 && err->kind == CAIRN_NOT_FOUND) {
            cairn_error_clear(err); /* all who are waited for have it: another thread removed it */
            return true;
        }
        if (fd < 0 || !wal_store_put(worker->store, file->name, fd, &existed, &tail_differs, err))
            return false;
        log_debug("'%s' is %s", file->name, existed ? "stored already" : "stored");
    }
    if (file->kind == RECEIVE_SEGMENT) {
        receive_set_archived(worker, file->timeline, (file->segment + 1) * segment_size);
        if (!receive_remove_pieces(worker, file->timeline, file->segment, err))
            return false;
    }
    return let_go(worker, file, err);
}

static bool
is_open(Receive *receive, const ReceiveFile *file)
{
    pthread_mutex_lock(&receive->archiver.lock);
    const bool open = is_open_locked(receive, file);
    pthread_mutex_unlock(&receive->archiver.lock);
    return open;
}

/* A part that nobody writes any more, of a timeline that ended or of a former run: all of it
   becomes pieces, unless the whole segment is there. */
static bool
archive_left_part(Worker *worker, const ReceiveFile *file, CairnError *err)
{
    Receive *receive = worker->receive;
    char name[WAL_NAME_SIZE];
    bool present = false;

    if (is_open(receive, file))
        return true;

    wal_segment_name(name, file->timeline, file->segment, receive->incarnation.wal_segment_size);
    if (!wal_store_has(worker->store, name, &present, err))
        return false;
    if (!present && file->size > 0 && file->size <= receive->incarnation.wal_segment_size &&
        !receive_ship(worker, file->timeline, file->segment, (uint32_t)file->size, err)) {
        if (!is_open(receive, file))
            return false;
        cairn_error_clear(err); /* begun anew while we read it: the stream brings it once more */
        return true;
    }
    return let_go(worker, file, err);
}

bool
receive_archive_files(Worker *worker, const Position *part, CairnError *err)
{
    const Receive *receive = worker->receive;
    const uint32_t segment_size = receive->incarnation.wal_segment_size;
    SCOPED_MEMORY ReceiveFile *files = NULL;
    size_t count = 0;

    if (!receive_spool_list(&receive->spool, &files, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        const ReceiveFile *file = &files[i];
        if (file->kind != RECEIVE_PART) {
            if (!archive_file(worker, file, err))
                return false;
            continue;
        }
        /* Ahead of what we were told it is the new one of the thread of control. */
        const bool left =
            part->timeline != 0 &&
            (file->timeline < part->timeline ||
             (file->timeline == part->timeline && file->segment < part->lsn / segment_size));
        if (left && !archive_left_part(worker, file, err))
            return false;
    }
    return true;
}
