/*
 * wal-dump DIR TIMELINE START_LSN SEGMENT_SIZE MAJOR SYSTEM_ID
 *
 * Prints what postgres/wal_reader makes of the segment files in DIR, along the path that leads to
 * TIMELINE, from the first record at or after START_LSN on. One line a record:
 *
 *     START_LSN END_LSN PREVIOUS_LSN RMGR_ID INFO XID TOTAL_SIZE KIND [details]
 *
 * and at the end `# end LSN reason`. Tests compare this with pg_waldump. With WAL_DUMP_QUIET set
 * only the last line is printed, to measure the reader. Exit code 0, or 1 with a message.
 */
#include "common/error.h"
#include "postgres/timeline.h"
#include "postgres/wal_name.h"
#include "postgres/wal_page.h"
#include "postgres/wal_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *directory;
    uint32_t segment_size;
    TimelineHistory history;
    uint64_t open_segment; /* UINT64_MAX when fd is -1 */
    int fd;
} SegmentFiles;

static bool
open_segment(SegmentFiles *files, uint64_t segment_number, CairnError *err)
{
    /* A segment that two timelines share is read from the newer one's file. */
    const uint64_t last_byte = (segment_number + 1) * files->segment_size - 1;
    const uint32_t timeline = timeline_history_at(&files->history, last_byte);
    char name[WAL_NAME_SIZE];
    char path[4096];

    if (files->fd >= 0)
        close(files->fd);
    wal_segment_name(name, timeline, segment_number, files->segment_size);
    snprintf(path, sizeof path, "%s/%s", files->directory, name);
    files->open_segment = segment_number;
    files->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (files->fd < 0 && errno != ENOENT)
        return cairn_error_errno(err, "unable to open '%s'", path);
    return true;
}

static bool
read_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    SegmentFiles *files = context;
    const uint64_t segment_number = wal_segment_of(lsn, files->segment_size);

    if (files->open_segment != segment_number && !open_segment(files, segment_number, err))
        return false;
    *present_out = files->fd >= 0 && pread(files->fd, page, WAL_PAGE_SIZE,
                                           (off_t)(lsn % files->segment_size)) == WAL_PAGE_SIZE;
    return true;
}

static bool
load_history(SegmentFiles *files, uint32_t timeline, CairnError *err)
{
    static char text[TIMELINE_HISTORY_FILE_LIMIT + 1];
    char path[4096];

    timeline_history_root(timeline, &files->history);
    if (timeline == 1)
        return true;
    snprintf(path, sizeof path, "%s/%08" PRIX32 ".history", files->directory, timeline);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return cairn_error_errno(err, "unable to open '%s'", path);
    const size_t size = fread(text, 1, sizeof text, file);
    fclose(file);
    return timeline_history_parse(timeline, text, size, &files->history, err);
}

static void
print_details(const WalRecord *record)
{
    static const char *const kinds[] = {
        [WAL_RECORD_OTHER] = "other",
        [WAL_RECORD_COMMIT] = "commit",
        [WAL_RECORD_ABORT] = "abort",
        [WAL_RECORD_RESTORE_POINT] = "restore-point",
        [WAL_RECORD_CHECKPOINT] = "checkpoint",
        [WAL_RECORD_BACKUP_END] = "backup-end",
        [WAL_RECORD_END_OF_RECOVERY] = "end-of-recovery",
        [WAL_RECORD_SWITCH] = "switch",
        [WAL_RECORD_PARAMETER_CHANGE] = "parameter-change",
    };
    char lsn[LSN_TEXT_SIZE];

    printf(" %s", kinds[record->kind]);
    switch (record->kind) {
    case WAL_RECORD_COMMIT:
    case WAL_RECORD_ABORT:
        printf(" %u %" PRId64, record->transaction_xid, record->time_us);
        break;
    case WAL_RECORD_RESTORE_POINT:
        printf(" %" PRId64 " %s", record->time_us, record->restore_point);
        break;
    case WAL_RECORD_CHECKPOINT:
    case WAL_RECORD_END_OF_RECOVERY:
        printf(" %u %u %" PRId64, record->timeline, record->previous_timeline, record->time_us);
        break;
    case WAL_RECORD_BACKUP_END:
        lsn_format(lsn, record->backup_start_lsn);
        printf(" %s", lsn);
        break;
    default:
        break;
    }
}

static void
print_record(const WalRecord *record)
{
    char start[LSN_TEXT_SIZE];
    char end[LSN_TEXT_SIZE];
    char previous[LSN_TEXT_SIZE];

    lsn_format(start, record->start_lsn);
    lsn_format(end, record->end_lsn);
    lsn_format(previous, record->previous_lsn);
    printf("%s %s %s %u %02X %u %u", start, end, previous, record->resource_manager, record->info,
           record->xid, record->total_size);
    print_details(record);
    putchar('\n');
}

static bool
dump(SegmentFiles *files, int major, uint64_t system_id, uint64_t start_lsn, CairnError *err)
{
    const bool quiet = getenv("WAL_DUMP_QUIET") != NULL;
    WalRecord record;
    bool found;
    char end[LSN_TEXT_SIZE];

    SCOPED(WalReader)
    reader = wal_reader_new(read_page, files, major, files->segment_size, system_id, start_lsn,
                            true, err);
    if (reader == NULL)
        return false;
    do {
        if (!wal_reader_next(reader, &record, &found, err))
            return false;
        if (found && !quiet)
            print_record(&record);
    } while (found);
    lsn_format(end, wal_reader_end_lsn(reader));
    printf("# end %s %s\n", end, wal_reader_end_reason(reader));
    return true;
}

int
main(int argc, char **argv)
{
    static SegmentFiles files = {.open_segment = UINT64_MAX, .fd = -1};
    CairnError err = {0};
    uint64_t start_lsn;

    if (argc != 7 || !lsn_parse(argv[3], &start_lsn) ||
        !wal_segment_size_valid(strtoull(argv[4], NULL, 10))) {
        fprintf(stderr, "usage: wal-dump DIR TIMELINE START_LSN SEGMENT_SIZE MAJOR SYSTEM_ID\n");
        return 2;
    }
    files.directory = argv[1];
    files.segment_size = (uint32_t)strtoul(argv[4], NULL, 10);
    if (!load_history(&files, (uint32_t)strtoul(argv[2], NULL, 10), &err) ||
        !dump(&files, atoi(argv[5]), strtoull(argv[6], NULL, 10), start_lsn, &err)) {
        fprintf(stderr, "wal-dump: %s\n", err.message);
        return 1;
    }
    return 0;
}
