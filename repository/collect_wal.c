/*
 * Which WAL is needed, per incarnation, across all its timelines: everything from the
 * lowest start of anything that may be restored or is being made. A branch at lower LSNs keeps its
 * WAL because a backup there lowers the floor.
 *
 * Never deleted: timeline history files; anything of an incarnation without a usable backup (a
 * wrong server's WAL, or the new major version's before its first backup), or whose record cannot
 * be read (nothing else rests on that record: packs are alive by reference); anything at or after
 * the start of the newest backup; anything while an open attempt does not say where it starts.
 *
 * No condemn list is needed for WAL. An expired backup keeps its WAL until it is doomed, so that an
 * un-expire never finds half of what it needs. A new attempt starts at or after what was archived
 * when it wrote its intent; segments that came after our first listing are not touched (reach), and
 * intents are read after that listing, so its WAL is either not in our reach or above our floor.
 * One from a standby that lags behind every backup here may start lower: should its WAL be gone,
 * its backup is never called wal-complete, and `backup` says so.
 */
#include "repository/collect_intern.h"

#include <string.h>

bool
collect_wal_reach(Collect *collect, CairnError *err)
{
    Incarnation incarnations[INCARNATION_LIMIT];
    size_t count;
    if (!incarnation_list(collect->repository, collect->cluster, incarnations, &count,
                          &collect->report->unread_incarnations, err))
        return cairn_error_wrap(err, "unable to tell which WAL is needed");
    for (size_t i = 0; i < count; i++) {
        CollectWal *wal = &collect->wal[i];
        wal->incarnation = incarnations[i];
        collect->wal_count = i + 1;
        SCOPED(WalStore)
        store = wal_store_open(collect->repository, collect->cluster, &wal->incarnation, err);
        if (store == NULL || !wal_expire_reach(store, &wal->reach, &wal->reach_count, err))
            return false;
    }
    return true;
}

/* Fully needed, or as far as somebody may still want it back. */
static bool
needs_wal(const CollectBackup *backup)
{
    return collect_is_root(backup) ||
           (backup->fate == FATE_COMMITTED && backup->has_refs && !backup->doomed);
}

static bool
is_of(const CollectBackup *backup, const Incarnation *incarnation)
{
    return backup->system_id == incarnation->system_id && backup->major == incarnation->major;
}

/* Start to stop is enough, and nobody is reading it just now. */
static bool
is_without_pitr(const Collect *collect, const CollectBackup *backup)
{
    if (backup->fate != FATE_COMMITTED || backup->claimed)
        return false;
    for (size_t i = 0; i < collect->options->without_pitr_count; i++) {
        if (backup_id_equal(&collect->options->without_pitr[i], &backup->bid))
            return true;
    }
    return false;
}

/* An open attempt whose WAL nobody can tell stops everything: without an intent of every
 * incarnation. A revoked or swept one that somebody claims needs none. */
static bool
is_unclear(const CollectBackup *backup, const Incarnation *incarnation)
{
    return backup->fate == FATE_OPEN &&
           (!backup->has_intent || (is_of(backup, incarnation) && !backup->has_floor));
}

typedef struct {
    bool unclear;
    const CollectBackup *newest; /* COMMITTED and not expired: the highest sequence */
    uint64_t floor_lsn;
    LsnRange *kept;
    size_t kept_count;
} Need;

/* kept is malloc'ed (returned owned). */
static bool
find_need(const Collect *collect, const Incarnation *incarnation, Need *need_out, CairnError *err)
{
    Need need = {.floor_lsn = UINT64_MAX};
    need.kept = calloc(collect->options->without_pitr_count + 1, sizeof *need.kept);
    if (need.kept == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < collect->count; i++) {
        const CollectBackup *backup = &collect->backups[i];
        need.unclear |= is_unclear(backup, incarnation);
        if (!is_of(backup, incarnation) || !needs_wal(backup) || !backup->has_floor)
            continue;
        if (backup->fate == FATE_COMMITTED && !backup->expired && !backup->pending)
            need.newest = backup;
        if (is_without_pitr(collect, backup) &&
            need.kept_count < collect->options->without_pitr_count)
            need.kept[need.kept_count++] =
                (LsnRange){.start_lsn = backup->floor_lsn, .end_lsn = backup->stop_lsn};
        else if (backup->floor_lsn < need.floor_lsn)
            need.floor_lsn = backup->floor_lsn;
    }
    if (need.newest != NULL && need.newest->floor_lsn < need.floor_lsn)
        need.floor_lsn = need.newest->floor_lsn;
    *need_out = need;
    return true;
}

static bool
sweep_incarnation(Collect *collect, const CollectWal *wal, CairnError *err)
{
    Need need = {0};
    CollectReport *report = collect->report;
    if (!find_need(collect, &wal->incarnation, &need, err))
        return false;
    const WalExpiry expiry = {.removals = &report->removals,
                              .floor_lsn = need.floor_lsn,
                              .kept = need.kept,
                              .kept_count = need.kept_count,
                              .reach = wal->reach,
                              .reach_count = wal->reach_count,
                              .dry_run = collect->options->dry_run};
    bool done = true;
    if (need.newest != NULL && !need.unclear) {
        SCOPED(WalStore)
        store = wal_store_open(collect->repository, collect->cluster, &wal->incarnation, err);
        done = store != NULL && wal_expire(store, &expiry, &report->wal_files, &report->bytes, err);
    }
    free(need.kept);
    return done;
}

bool
collect_wal_sweep(Collect *collect, CairnError *err)
{
    for (size_t i = 0; i < collect->wal_count && !collect->options->keep_wal; i++) {
        if (!sweep_incarnation(collect, &collect->wal[i], err))
            return false;
    }
    return true;
}
