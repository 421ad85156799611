/* What waits in overflow-path, and whether anything later than a segment does. */
#include "repository/wal_overflow_intern.h"

#include "common/directory.h"
#include "common/file.h"
#include "postgres/timeline.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

typedef void EntryVisitor(void *context, const char *name, const struct stat *status);

/* Every WAL file; what else lies there is passed over. */
static bool
visit(WalOverflow *overflow, EntryVisitor *visitor, void *context, CairnError *err)
{
    const Disk *disk = overflow->world->disk;
    SCOPED(Directory) directory = directory_open(overflow->world, overflow->fd, ".", 0);
    const char *name;
    struct stat status;
    WalFileName file;

    if (directory == NULL)
        return cairn_error_errno(err, "unable to list overflow-path");
    while ((name = directory_next(directory)) != NULL) {
        CairnError ignored = {0};
        if (strlen(name) >= WAL_FILE_NAME_LIMIT || !wal_file_name_parse(name, &file, &ignored))
            continue;
        if (disk->fstatat(disk, overflow->fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            visitor(context, name, &status);
        else if (errno != ENOENT) /* shipped meanwhile; what else fails must not read as absence */
            return cairn_error_errno(err, "unable to examine '%s' in overflow-path", name);
    }
    return directory_complete(directory) || cairn_error_errno(err, "unable to list overflow-path");
}

static void
list_entry(void *context, const char *name, const struct stat *status)
{
    WalOverflowList *list = context;
    const int64_t at_us =
        (int64_t)status->st_ctim.tv_sec * 1000000 + status->st_ctim.tv_nsec / 1000;

    list->bytes += (uint64_t)status->st_size;
    if (list->oldest_us == 0 || at_us < list->oldest_us)
        list->oldest_us = at_us;
    archive_queue_add(&list->queue, name);
}

bool
wal_overflow_list(WalOverflow *overflow, WalOverflowList *list_out, CairnError *err)
{
    memset(list_out, 0, sizeof *list_out);
    return visit(overflow, list_entry, list_out, err);
}

typedef struct {
    WalOverflow *overflow;
    const char *file_name;
    uint32_t timeline;
    uint64_t segment;
    uint32_t segment_size;
    bool found;
    CairnError *err; /* of a history that waits and cannot be read */
} LaterSearch;

/* Does the history say that its timeline left the segment's one in a later segment? */
static bool
forks_later(LaterSearch *search, const char *name, uint32_t timeline, CairnError *err)
{
    size_t size = 0;
    SCOPED_FD fd = wal_overflow_open_file(search->overflow, name, err);
    SCOPED_MEMORY TimelineHistory *history = malloc(sizeof *history);

    if (fd < 0 || !wal_overflow_copy_verified(search->overflow, fd, -1, name, err))
        return false;
    SCOPED_MEMORY char *text = file_read_all(search->overflow->world, search->overflow->fd, name,
                                             TIMELINE_HISTORY_FILE_LIMIT, &size, err);
    if (history == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (text == NULL || !timeline_history_parse(timeline, text, size, history, err))
        return false;
    for (size_t i = 0; i + 1 < history->stretch_count; i++) {
        const TimelineStretch *stretch = &history->stretches[i];
        if (stretch->timeline == search->timeline &&
            wal_segment_of(stretch->end_lsn, search->segment_size) > search->segment)
            return true;
    }
    return false;
}

static void
look_for_later(void *context, const char *name, const struct stat *status)
{
    enum { TIMELINE_DIGITS = 8, SEGMENT_DIGITS = 24 };
    LaterSearch *search = context;
    CairnError err = {0};
    WalFileName file;

    (void)status;
    if (search->found)
        return;
    if (strlen(name) >= SEGMENT_DIGITS) {
        search->found = strncmp(name, search->file_name, TIMELINE_DIGITS) == 0 &&
                        strncmp(name, search->file_name, SEGMENT_DIGITS) > 0;
        return;
    }
    if (!wal_file_name_parse(name, &file, &err) || file.kind != WAL_FILE_HISTORY ||
        file.timeline <= search->timeline)
        return;
    search->found = forks_later(search, name, file.timeline, &err);
    /* One that was shipped meanwhile is the repository's to tell of. */
    if (err.kind != CAIRN_OK && err.kind != CAIRN_NOT_FOUND && search->err->kind == CAIRN_OK)
        *search->err = err;
}

bool
wal_overflow_has_later(WalOverflow *overflow, uint32_t segment_size, const char *file_name,
                       bool *found_out, CairnError *err)
{
    CairnError trouble = {0};
    LaterSearch search = {.overflow = overflow,
                          .file_name = file_name,
                          .segment_size = segment_size,
                          .err = &trouble};

    *found_out = false;
    if (!wal_segment_parse(file_name, segment_size, &search.timeline, &search.segment))
        return true;
    if (!visit(overflow, look_for_later, &search, err))
        return false;
    *found_out = search.found;
    if (!search.found && trouble.kind != CAIRN_OK) {
        *err = trouble;
        return false;
    }
    return true;
}
