/* Which holes somebody decided to live with. */
#include "agent/info.h"

#include "common/timestamp.h"
#include "repository/wal_ack.h"

static const char *
describe(Arena *arena, const WalAck *ack)
{
    char when[TIMESTAMP_TEXT_SIZE];

    timestamp_format(when, ack->at_us - ack->at_us % 1000000);
    return arena_printf(arena, "%s by %s at %s on %s: %s", wal_ack_decision_name(ack->decision),
                        ack->user, ack->host, when, ack->reason);
}

static bool
fill_timeline(Arena *arena, WalArchive *archive, InfoTimeline *timeline, CairnError *err)
{
    for (size_t i = 0; i < timeline->window_count; i++) {
        InfoWindow *window = &timeline->windows[i];
        SCOPED_MEMORY WalAck *acks = NULL;
        size_t count = 0;

        if (!window->is_hole)
            continue;
        if (!wal_ack_find(wal_archive_store(archive), timeline->timeline, window->start_lsn,
                          window->end_lsn, &acks, &count, err))
            return false;
        const WalAck *ack = wal_ack_covering(acks, count, window->start_lsn, window->end_lsn);
        if (ack == NULL)
            continue;
        window->acknowledged = describe(arena, ack);
        timeline->acknowledged_count++;
    }
    return true;
}

bool
info_fill_acks(Arena *arena, WalArchive *archive, InfoIncarnation *incarnation, CairnError *err)
{
    for (size_t i = 0; i < incarnation->timeline_count; i++) {
        if (!fill_timeline(arena, archive, &incarnation->timelines[i], err))
            return false;
    }
    return true;
}
