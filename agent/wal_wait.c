#include "agent/wal_wait.h"

#include "common/cancel.h"
#include "common/log.h"
#include "repository/wal_store.h"

#include <stdio.h>

enum { POLL_FIRST_MS = 2, POLL_LAST_MS = 200 };

/* Name of the k-th file needed: the timeline's history first (timeline 1 has none), then the segments. */
static bool
needed_name(const Fate *fate, uint64_t k, char name[64])
{
    bool has_history = fate->stop_timeline > 1;
    if (has_history && k == 0) {
        snprintf(name, 64, "%08X.history", fate->stop_timeline);
        return true;
    }
    uint64_t segment = wal_segment_of(fate->start_lsn, fate->wal_segment_size) + k - (has_history ? 1 : 0);
    if (segment > wal_segment_before(fate->stop_lsn, fate->wal_segment_size))
        return false;
    char segment_name[WAL_NAME_SIZE];
    wal_segment_name(segment_name, fate->stop_timeline, segment, fate->wal_segment_size);
    snprintf(name, 64, "%s", segment_name);
    return true;
}

/* Everything from *first on; what is there at the front is not asked for again. */
static bool
look(WalStore *store, const Fate *fate, uint64_t *first, BackupReport *report, CairnError *err)
{
    char name[64];
    report->missing_wal_count = 0;
    for (uint64_t k = *first; needed_name(fate, k, name); k++) {
        bool present;
        if (!wal_store_has(store, name, &present, err))
            return false;
        if (present && report->missing_wal_count == 0)
            *first = k + 1;
        if (present)
            continue;
        if (report->missing_wal_count < BACKUP_MISSING_WAL_LISTED)
            snprintf(report->missing_wal[report->missing_wal_count], sizeof report->missing_wal[0], "%s",
                     name);
        report->missing_wal_count++;
    }
    return true;
}

bool
wal_wait(Repository *repository, const char *cluster, const Incarnation *incarnation, const Fate *fate,
         int timeout_s, BackupReport *report, CairnError *err)
{
    SCOPED(WalStore) store = wal_store_open(repository, cluster, incarnation, err);
    if (store == NULL)
        return false;
    const Clock *clock = repository_world(repository)->clock;
    int64_t deadline_ns = clock->monotonic_ns(clock) + (int64_t)timeout_s * 1000000000;
    int64_t pause_ms = POLL_FIRST_MS;
    bool told = false;
    for (uint64_t first = 0;;) {
        if (!look(store, fate, &first, report, err))
            return cairn_error_wrap(err, "backup %s is committed, but its WAL could not be looked up",
                                    fate->label);
        if (report->missing_wal_count == 0 || clock->monotonic_ns(clock) >= deadline_ns || cancel_requested())
            return true;
        if (!told && pause_ms == POLL_LAST_MS) {
            log_info("waiting for WAL %s to be archived", report->missing_wal[0]);
            told = true;
        }
        clock->sleep_ms(clock, pause_ms);
        pause_ms = pause_ms * 2 < POLL_LAST_MS ? pause_ms * 2 : POLL_LAST_MS;
    }
}
