/*
 * wal-dump DIR TIMELINE START_LSN SEGMENT_SIZE MAJOR SYSTEM_ID
 *
 * Prints what postgres/wal_reader makes of the segment files in DIR, along the path that leads to
 * TIMELINE, from the first record at or after START_LSN on. One line a record:
 *
 *     START_LSN END_LSN PREVIOUS_LSN RMGR_ID INFO XID TOTAL_SIZE KIND [details] LISTS BLOCKS
 *
 * and at the end `# end LSN reason`. LISTS are what a record holds beside fixed fields: relations,
 * subtransactions, OIDs; BLOCKS its block references; both with commas, or - for none. Tests
 * compare this with pg_waldump. With WAL_DUMP_QUIET set only the last line is printed, to measure
 * the reader.
 *
 * wal-dump --facts DIR TIMELINE FIRST_LSN LAST_LSN SEGMENT_SIZE MAJOR SYSTEM_ID prints the facts of
 * each segment from FIRST_LSN's to LAST_LSN's, joined with its neighbour:
 *
 *     segment START_LSN flags FLAGS records N first LSN last LSN end LSN joined 0|1 head N/N tail
 * N/N commits|aborts COUNT MIN_TIME MAX_TIME MIN_XID MAX_XID event LSN KIND XID TIME
 * committed|aborted|open|... details fork SPC/DB/REL/FORK limit N all 0|1 BLOCKS
 *
 * Exit code 0, or 1 with a message.
 */
#include "common/error.h"
#include "postgres/timeline.h"
#include "postgres/wal_facts.h"
#include "postgres/wal_name.h"
#include "postgres/wal_page.h"
#include "postgres/wal_reader.h"
#include "postgres/wal_record.h"
#include "postgres/wal_record_parts.h"

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
print_relation(const WalRelation *relation)
{
    printf(" %u/%u/%u", relation->tablespace, relation->database, relation->relfilenode);
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
        [WAL_RECORD_OVERWRITE] = "overwrite",
        [WAL_RECORD_RELATION_CREATE] = "relation-create",
        [WAL_RECORD_RELATION_TRUNCATE] = "relation-truncate",
        [WAL_RECORD_TABLE_TRUNCATE] = "table-truncate",
        [WAL_RECORD_DATABASE_CREATE] = "database-create",
        [WAL_RECORD_DATABASE_DROP] = "database-drop",
        [WAL_RECORD_RELMAP_UPDATE] = "relmap-update",
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
        lsn_format(lsn, record->redo_lsn);
        printf(" %u %u %s %d %" PRId64, record->timeline, record->previous_timeline, lsn,
               record->shutdown, record->time_us);
        break;
    case WAL_RECORD_END_OF_RECOVERY:
        printf(" %u %u %" PRId64, record->timeline, record->previous_timeline, record->time_us);
        break;
    case WAL_RECORD_PARAMETER_CHANGE:
        printf(" %u", record->wal_level);
        break;
    case WAL_RECORD_OVERWRITE:
        lsn_format(lsn, record->redo_lsn);
        printf(" %s", lsn);
        break;
    case WAL_RECORD_RELATION_CREATE:
        print_relation(&record->relation);
        printf("/%u", record->fork);
        break;
    case WAL_RECORD_RELATION_TRUNCATE:
        print_relation(&record->relation);
        printf(" %u %d %d", record->block, record->cuts_main, record->cuts_vm);
        break;
    case WAL_RECORD_DATABASE_CREATE:
    case WAL_RECORD_RELMAP_UPDATE:
        printf(" %u/%u", record->relation.tablespace, record->relation.database);
        break;
    case WAL_RECORD_TABLE_TRUNCATE:
    case WAL_RECORD_DATABASE_DROP:
        printf(" %u", record->relation.database);
        break;
    case WAL_RECORD_BACKUP_END:
        lsn_format(lsn, record->backup_start_lsn);
        printf(" %s", lsn);
        break;
    default:
        break;
    }
}

/* Numbers with commas, each list behind its letter. */
static bool
print_lists(int major, const WalRecord *record, const WalRecordParts *parts)
{
    WalTransactionParts transaction;
    WalItems oids = {0};
    bool any = false;

    if (record->kind == WAL_RECORD_COMMIT || record->kind == WAL_RECORD_ABORT) {
        if (!wal_transaction_split(major, record, parts, &transaction))
            return false;
        for (uint32_t i = 0; i < transaction.relations.count; i++, any = true) {
            const WalRelation relation = wal_items_relation(&transaction.relations, i);
            printf("%sr%u/%u/%u", any ? "," : " ", relation.tablespace, relation.database,
                   relation.relfilenode);
        }
        for (uint32_t i = 0; i < transaction.subtransactions.count; i++, any = true)
            printf("%ss%u", any ? "," : " ", wal_items_u32(&transaction.subtransactions, i));
    }
    if (record->kind == WAL_RECORD_TABLE_TRUNCATE || record->kind == WAL_RECORD_DATABASE_DROP) {
        if (!wal_oids_split(record, parts, &oids))
            return false;
        for (uint32_t i = 0; i < oids.count; i++, any = true)
            printf("%so%u", any ? "," : " ", wal_items_u32(&oids, i));
    }
    printf("%s", any ? "" : " -");
    return true;
}

static void
print_blocks(const WalRecordParts *parts)
{
    for (size_t i = 0; i < parts->block_count; i++) {
        const WalBlock *block = &parts->blocks[i];
        printf("%c%u/%u/%u/%u/%u", i == 0 ? ' ' : ',', block->relation.tablespace,
               block->relation.database, block->relation.relfilenode, block->fork, block->block);
    }
    printf("%s\n", parts->block_count == 0 ? " -" : "");
}

static bool
print_record(int major, const WalReader *reader, const WalRecord *record, CairnError *err)
{
    char start[LSN_TEXT_SIZE];
    char end[LSN_TEXT_SIZE];
    char previous[LSN_TEXT_SIZE];
    WalRecordParts parts;
    size_t size;
    const uint8_t *body = wal_reader_body(reader, &size);

    lsn_format(start, record->start_lsn);
    lsn_format(end, record->end_lsn);
    lsn_format(previous, record->previous_lsn);
    printf("%s %s %s %u %02X %u %u", start, end, previous, record->resource_manager, record->info,
           record->xid, record->total_size);
    print_details(record);
    if (!wal_record_split(body, size, record->total_size - WAL_RECORD_HEADER_SIZE, &parts) ||
        !print_lists(major, record, &parts))
        return cairn_error(err, CAIRN_CORRUPT, "record at %s cannot be taken apart", start);
    print_blocks(&parts);
    return true;
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
        if (found && !quiet && !print_record(major, reader, &record, err))
            return false;
    } while (found);
    lsn_format(end, wal_reader_end_lsn(reader));
    printf("# end %s %s\n", end, wal_reader_end_reason(reader));
    return true;
}

static void
print_span(const char *name, const WalTransactionSpan *span)
{
    printf("%s %" PRIu64 " %" PRId64 " %" PRId64 " %u %u\n", name, span->count, span->min_time_us,
           span->max_time_us, span->min_xid, span->max_xid);
}

static void
print_event(const WalEvent *event)
{
    char lsn[LSN_TEXT_SIZE];
    char redo[LSN_TEXT_SIZE];

    lsn_format(lsn, event->lsn);
    printf("event %s %d %u %" PRId64 " %s", lsn, event->kind, event->xid, event->time_us,
           event->committed ? "committed"
           : event->aborted ? "aborted"
                            : "open");
    if (event->kind == WAL_EVENT_RESTORE_POINT) {
        printf(" %s", event->name);
    } else if (event->kind < WAL_EVENT_RELATION_DROPPED) {
        lsn_format(redo, event->redo_lsn);
        printf(" %s %u %u %d %u", redo, event->timeline, event->previous_timeline, event->shutdown,
               event->wal_level);
    } else {
        print_relation(&event->relation);
        printf(" %u %u %u", event->table_oid, event->block, event->new_relfilenode);
    }
    putchar('\n');
}

static void
print_fork(const WalFacts *facts, const WalForkChange *fork)
{
    bool any = false;

    printf("fork");
    print_relation(&fork->relation);
    printf("/%u limit %" PRId64 " all %d", fork->fork, fork->limit_block, fork->all_blocks);
    for (uint32_t i = 0; i < fork->chunk_count; i++) {
        const WalChunk *chunk = &facts->chunks[fork->first_chunk + i];
        for (unsigned block = 0; block < WAL_CHUNK_BLOCKS; block++) {
            if ((chunk->bits[block / 64] >> block % 64 & 1) == 0)
                continue;
            printf("%c%u", any ? ',' : ' ', chunk->number * WAL_CHUNK_BLOCKS + block);
            any = true;
        }
    }
    printf("%s\n", any ? "" : " -");
}

static void
print_facts(const WalFacts *facts, bool joined)
{
    const uint64_t lsns[] = {facts->start_lsn, facts->first_record_lsn, facts->last_record_lsn,
                             facts->end_lsn};
    char text[4][LSN_TEXT_SIZE];

    for (int i = 0; i < 4; i++)
        lsn_format(text[i], lsns[i]);
    printf("segment %s flags %u records %" PRIu64
           " first %s last %s end %s joined %d head %u/%u tail %u/%u\n",
           text[0], facts->flags, facts->record_count, text[1], text[2], text[3], joined,
           facts->head.size, facts->head.total_size, facts->tail.size, facts->tail.total_size);
    print_span("commits", &facts->commits);
    print_span("aborts", &facts->aborts);
    for (size_t i = 0; i < facts->event_count; i++)
        print_event(&facts->events[i]);
    for (size_t i = 0; i < facts->fork_count; i++)
        print_fork(facts, &facts->forks[i]);
}

static bool
dump_facts(SegmentFiles *files, WalIdentity segment, uint64_t last_lsn, CairnError *err)
{
    SCOPED(WalFacts) facts = NULL;

    for (; segment.lsn <= last_lsn; segment.lsn += segment.segment_size) {
        SCOPED(WalFacts) next = wal_facts_collect(read_page, files, &segment, err);
        bool joined = false;

        if (next == NULL || (facts != NULL && !wal_facts_join(facts, next, &joined, err)))
            return false;
        if (facts != NULL)
            print_facts(facts, joined);
        wal_facts_free(facts);
        facts = take(&next);
    }
    if (facts != NULL)
        print_facts(facts, false);
    return true;
}

static int
usage(void)
{
    fprintf(stderr,
            "usage: wal-dump [--facts] DIR TIMELINE START_LSN [LAST_LSN] SEGMENT_SIZE MAJOR "
            "SYSTEM_ID\n");
    return 2;
}

int
main(int argc, char **argv)
{
    static SegmentFiles files = {.open_segment = UINT64_MAX, .fd = -1};
    const bool facts = argc > 1 && strcmp(argv[1], "--facts") == 0;
    char **arguments = argv + (facts ? 2 : 1);
    char **rest = arguments + (facts ? 4 : 3); /* SEGMENT_SIZE and what follows */
    CairnError err = {0};
    uint64_t start_lsn;
    uint64_t last_lsn = 0;

    if (argc != (facts ? 9 : 7) || !lsn_parse(arguments[2], &start_lsn) ||
        (facts && !lsn_parse(arguments[3], &last_lsn)) ||
        !wal_segment_size_valid(strtoull(rest[0], NULL, 10)))
        return usage();
    files.directory = arguments[0];
    files.segment_size = (uint32_t)strtoul(rest[0], NULL, 10);
    const WalIdentity segment = {
        .major = atoi(rest[1]),
        .system_id = strtoull(rest[2], NULL, 10),
        .lsn = start_lsn - start_lsn % files.segment_size,
        .segment_size = files.segment_size,
    };
    if (!load_history(&files, (uint32_t)strtoul(arguments[1], NULL, 10), &err) ||
        !(facts ? dump_facts(&files, segment, last_lsn, &err)
                : dump(&files, segment.major, segment.system_id, start_lsn, &err))) {
        fprintf(stderr, "wal-dump: %s\n", err.message);
        return 1;
    }
    return 0;
}
