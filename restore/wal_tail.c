#include "restore/wal_tail.h"

#include "common/file.h"
#include "common/log.h"
#include "postgres/wal_page.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COPY_SIZE = 256 << 10 };

static void
partial_name(const WalTail *tail, char name[WAL_NAME_SIZE + 8])
{
    snprintf(name, WAL_NAME_SIZE + 8, "%s.partial", tail->name);
}

bool
wal_tail_find(WalStore *store, const RestorePlan *plan, WalTail *tail_out, CairnError *err)
{
    const uint32_t segment_size = plan->backup->fate->wal_segment_size;
    const TimelineHistory *path = plan->path;
    const uint64_t start_lsn = plan->unbroken_end_lsn;
    WalTail tail = {.start_lsn = start_lsn};
    char partial[WAL_NAME_SIZE + 8];
    WalSuccessor later;

    *tail_out = (WalTail){0};
    /* On a path that forks later the server would not end its recovery here. */
    if (plan->target.type != TARGET_DEFAULT || !plan->stop.has_record ||
        start_lsn % segment_size != 0 ||
        path->stretches[path->stretch_count - 1].start_lsn >= start_lsn + segment_size) {
        return true;
    }
    wal_segment_name(tail.name, path->timeline, wal_segment_of(start_lsn, segment_size),
                     segment_size);
    partial_name(&tail, partial);
    if (!wal_store_has(store, partial, &tail.stored, err) ||
        (tail.stored && !wal_store_successor(store, tail.name, &later, err)))
        return false;
    /* Then `pgcairn-wal get` calls its absence a hole, and recovery stops. */
    if (tail.stored && later.found)
        snprintf(tail.obstacle, sizeof tail.obstacle, "'%s' is stored, which lies behind it",
                 later.name);
    *tail_out = tail;
    return true;
}

static bool
copy_segment(const World *world, int from, int to, uint32_t segment_size, const char *name,
             CairnError *err)
{
    SCOPED_MEMORY uint8_t *buffer = malloc(COPY_SIZE);
    if (buffer == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (uint64_t at = 0; at < segment_size; at += COPY_SIZE) {
        if (!file_pread(world, from, buffer, COPY_SIZE, at, name, err) ||
            !file_pwrite(world, to, buffer, COPY_SIZE, at, name, err))
            return false;
    }
    return true;
}

/* The archive's segments, and behind them the one that was laid. */
typedef struct {
    WalStore *store;
    const RestorePlan *plan;
    const World *world;
    const WalTail *tail;
    int fd;
    WalSegmentReader *segment;
    uint64_t segment_number;
} TailSource;

static bool
tail_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    TailSource *source = context;
    const uint32_t segment_size = source->plan->backup->fate->wal_segment_size;
    const uint64_t number = wal_segment_of(lsn, segment_size);
    const uint64_t tail_number = wal_segment_of(source->tail->start_lsn, segment_size);

    *present_out = number <= tail_number;
    if (number > tail_number)
        return true;
    if (number == tail_number)
        return file_pread(source->world, source->fd, page, WAL_PAGE_SIZE, lsn % segment_size,
                          source->tail->name, err);
    if (source->segment == NULL || source->segment_number != number) {
        wal_segment_reader_free(take(&source->segment));
        const uint32_t timeline =
            timeline_history_at(source->plan->path, (number + 1) * segment_size - 1);
        source->segment = wal_store_read(source->store, timeline, number, err);
        source->segment_number = number;
    }
    return source->segment != NULL &&
           wal_segment_reader_pread(source->segment, page, WAL_PAGE_SIZE, lsn % segment_size, err);
}

static bool
read_records(WalReader *reader, StopPoint *stop, CairnError *err)
{
    for (;;) {
        WalRecord record;
        bool found;
        if (!wal_reader_next(reader, &record, &found, err))
            return false;
        if (!found)
            return true;
        if (record.end_lsn <= stop->end_lsn)
            continue;
        stop->record = record;
        stop->end_lsn = record.end_lsn;
        if ((record.kind == WAL_RECORD_COMMIT || record.kind == WAL_RECORD_ABORT) &&
            record.time_us > stop->last_commit_us)
            stop->last_commit_us = record.time_us;
    }
}

/* From the archive's last record on, so that what follows is seen to follow. */
static bool
prove(TailSource *source, WalTail *tail, CairnError *err)
{
    const RestorePlan *plan = source->plan;
    StopPoint stop = plan->stop;

    SCOPED(WalReader)
    reader = wal_reader_new(tail_page, source, plan->incarnation.major,
                            plan->incarnation.wal_segment_size, plan->incarnation.system_id,
                            plan->stop.record.start_lsn, false, err);
    const bool good = reader != NULL && read_records(reader, &stop, err);
    wal_segment_reader_free(take(&source->segment));
    if (!good)
        return false;
    tail->laid = stop.end_lsn > plan->stop.end_lsn;
    if (tail->laid)
        tail->stop = stop;
    else
        snprintf(tail->obstacle, sizeof tail->obstacle,
                 "no record in it follows the archive's last one");
    return true;
}

static bool
fill(WalStore *store, const RestorePlan *plan, const World *world, int old_fd, int fd,
     WalTail *tail, CairnError *err)
{
    char partial[WAL_NAME_SIZE + 8];

    partial_name(tail, partial);
    if (old_fd >= 0)
        return copy_segment(world, old_fd, fd, plan->incarnation.wal_segment_size, tail->name, err);
    if (wal_store_fetch(store, partial, fd, err))
        return true;
    /* Several versions, or it cannot be read: the archive ends before it, and that is told. */
    if (err->kind != CAIRN_CONFLICT && err->kind != CAIRN_CORRUPT && err->kind != CAIRN_MISMATCH)
        return false;
    snprintf(tail->obstacle, sizeof tail->obstacle, "%.150s", err->message);
    cairn_error_clear(err);
    return true;
}

bool
wal_tail_lay(WalStore *store, const RestorePlan *plan, const World *world,
             TargetDirectory *directory, int old_fd, WalTail *tail, CairnError *err)
{
    const Disk *disk = world->disk;

    DirectoryHandle *parent = target_directory_enter(directory, "pg_wal", err);
    if (parent == NULL)
        return false;
    int fd = disk->openat(disk, directory_handle_fd(parent), tail->name,
                          O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    bool good = fd >= 0 || cairn_error_errno(err, "unable to create 'pg_wal/%s'", tail->name);
    TailSource source = {.store = store, .plan = plan, .world = world, .tail = tail, .fd = fd};
    good = good && fill(store, plan, world, old_fd, fd, tail, err) &&
           (tail->obstacle[0] != '\0' || prove(&source, tail, err));
    if (fd >= 0 && good)
        good = file_sync_close(world, fd, tail->name, err);
    else if (fd >= 0)
        disk->close(disk, fd);
    if (good && !tail->laid &&
        disk->unlinkat(disk, directory_handle_fd(parent), tail->name, 0) != 0)
        good = cairn_error_errno(err, "unable to remove 'pg_wal/%s'", tail->name);
    good = good && file_sync_directory(world, directory_handle_fd(parent), ".", err);
    directory_handle_release(parent);
    return good || cairn_error_wrap(err, "unfinished segment %s", tail->name);
}
