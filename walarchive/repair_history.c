#include "walarchive/repair_history.h"

#include "common/bytes.h"
#include "common/cancel.h"
#include "common/file.h"
#include "postgres/wal_page.h"

#include <inttypes.h>
#include <stdlib.h>

static bool
read_candidate(const World *world, uint32_t timeline, int fd, TimelineHistory *history,
               CairnError *err)
{
    struct stat status;

    if (world->disk->fstat(world->disk, fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine the scratch file");
    if (status.st_size <= 0 || status.st_size > TIMELINE_HISTORY_FILE_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT, "no history file has %jd bytes",
                           (intmax_t)status.st_size);
    const size_t size = (size_t)status.st_size;
    SCOPED_MEMORY char *text = malloc(size);
    if (text == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return file_pread(world, fd, text, size, 0, "scratch", err) &&
           timeline_history_parse(timeline, text, size, history, err);
}

/* The first one that is stored, whole or in pieces; NULL with NOT_FOUND when there is none. */
static WalSegmentReader *
open_first(WalStore *store, const WalTimeline *timeline, uint64_t *segment_out, CairnError *err)
{
    uint32_t size = 0;

    if (timeline->run_count > 0) {
        *segment_out = timeline->runs[0].first_segment;
        return wal_store_read(store, timeline->timeline, *segment_out, err);
    }
    if (timeline->unfinished_size > 0) {
        *segment_out = timeline->unfinished_segment;
        return wal_store_read_pieces(store, timeline->timeline, *segment_out, &size, err);
    }
    cairn_error(err, CAIRN_NOT_FOUND, "no WAL of it is stored");
    return NULL;
}

static bool
is_ancestor(const TimelineHistory *history, uint32_t timeline)
{
    for (size_t i = 0; i + 1 < history->stretch_count; i++) {
        if (history->stretches[i].timeline == timeline)
            return true;
    }
    return false;
}

/* Whose page it is, by its header; 0 for what is no page of this place: zeros, or what a recycled
   segment had there before. */
static uint32_t
page_timeline(const uint8_t header[WAL_SHORT_HEADER_SIZE], uint64_t lsn)
{
    if (wal_major_of_magic(get_u16(header)) == 0 || get_u64(header + 8) != lsn)
        return 0;
    return get_u32(header + 4);
}

static bool
check_pages(const TimelineHistory *history, WalSegmentReader *reader, uint64_t start_lsn,
            uint64_t size, CairnError *err)
{
    const uint64_t switch_lsn = history->stretches[history->stretch_count - 1].start_lsn;
    char text[LSN_TEXT_SIZE];

    lsn_format(text, switch_lsn);
    for (uint64_t at = 0; at < size; at += WAL_PAGE_SIZE) {
        uint8_t header[WAL_SHORT_HEADER_SIZE];
        const uint64_t lsn = start_lsn + at;

        if (!cancel_check(err) || !wal_segment_reader_pread(reader, header, sizeof header, at, err))
            return false;
        const uint32_t timeline = page_timeline(header, lsn);
        if (timeline == 0 && at > 0)
            break;
        const bool fits =
            lsn < switch_lsn ? is_ancestor(history, timeline) : timeline == history->timeline;
        if (!fits) {
            char place[LSN_TEXT_SIZE];
            lsn_format(place, lsn);
            return cairn_error(err, CAIRN_MISMATCH,
                               "it says that timeline %" PRIu32
                               " begins at %s, but the stored page at %s is timeline %" PRIu32
                               "'s: this is another server's history",
                               history->timeline, text, place, timeline);
        }
    }
    return true;
}

/*
 * The timeline's first records tell where it began: that recovery has ended here, or the checkpoint
 * that says so. Before it there is room for a page's header, a change of full_page_writes and an
 * overwritten record, not for more of the older timeline: pages alone would not tell two switches
 * apart that lie on one.
 */
static bool
check_first_record(WalStore *store, const TimelineHistory *history, uint64_t segment,
                   CairnError *err)
{
    enum { ROOM = 128 };
    const TimelineStretch *last = &history->stretches[history->stretch_count - 1];
    const uint32_t parent = history->stretches[history->stretch_count - 2].timeline;
    bool stored = false;
    SCOPED(WalFacts) facts = wal_store_facts(store, history->timeline, segment, &stored, err);

    if (facts == NULL)
        return false;
    for (size_t i = 0; i < facts->event_count; i++) {
        const WalEvent *event = &facts->events[i];
        if ((event->kind != WAL_EVENT_END_OF_RECOVERY && event->kind != WAL_EVENT_CHECKPOINT) ||
            event->timeline != history->timeline)
            continue;
        if (event->previous_timeline == parent && event->lsn >= last->start_lsn &&
            event->lsn - last->start_lsn <= ROOM)
            return true;
        break;
    }
    return cairn_error(err, CAIRN_MISMATCH,
                       "the stored WAL of timeline %" PRIu32
                       " does not say that it began there: this may be another server's history",
                       history->timeline);
}

bool
repair_history_check(const World *world, WalStore *store, const WalTimeline *timeline, int fd,
                     CairnError *err)
{
    const uint64_t segment_size = wal_store_incarnation(store)->wal_segment_size;
    uint64_t segment = 0;
    SCOPED_MEMORY TimelineHistory *history = malloc(sizeof *history);

    if (history == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!read_candidate(world, timeline->timeline, fd, history, err))
        return false;
    const uint64_t switch_lsn = history->stretches[history->stretch_count - 1].start_lsn;
    SCOPED(WalSegmentReader) reader = open_first(store, timeline, &segment, err);
    if (reader == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return cairn_error(err, CAIRN_MISMATCH,
                           "no WAL of timeline %" PRIu32 " is stored that could prove it right",
                           timeline->timeline);
    }
    if (segment < switch_lsn / segment_size) {
        char text[LSN_TEXT_SIZE];
        lsn_format(text, switch_lsn);
        return cairn_error(err, CAIRN_MISMATCH,
                           "it says that timeline %" PRIu32
                           " begins at %s, but WAL of it is stored from before: this is another "
                           "server's history",
                           timeline->timeline, text);
    }
    return check_pages(history, reader, segment * segment_size, segment_size, err) &&
           (timeline->run_count == 0 || segment != switch_lsn / segment_size ||
            check_first_record(store, history, segment, err));
}
