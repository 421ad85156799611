/*
 * Condemn lists as the collector uses them: what is on one, since when, what goes on the next, and
 * which say nothing any more. Their objects are in condemned.c.
 */
#include "repository/collect_intern.h"

#include <stdio.h>
#include <string.h>

static const int64_t CLOCK_SKEW_US = INT64_C(300) * 1000000;
static const int64_t LEFTOVER_AGE_US = INT64_C(86400) * 1000000;

static int64_t
now_us(const Collect *collect)
{
    const Clock *clock = repository_world(collect->repository)->clock;
    return clock->wall_us(clock);
}

bool
collect_is_condemnable(const CollectBackup *backup)
{
    if (collect_is_root(backup))
        return backup->fate == FATE_OPEN && !backup->has_intent && !backup->claimed;
    return backup->fate == FATE_COMMITTED ? backup->has_refs : backup->has_packs;
}

static bool
is_future(const Collect *collect, const CondemnedList *list)
{
    return list->at_us > now_us(collect) + CLOCK_SKEW_US;
}

static bool
is_old_enough(const Collect *collect, const CondemnedList *list)
{
    const int64_t now = now_us(collect);
    return !is_future(collect, list) && list->at_us <= now - collect->grace_us;
}

static int
compare_ids(const void *a, const void *b)
{
    return memcmp(((const BackupId *)a)->text, ((const BackupId *)b)->text, BACKUP_ID_LENGTH);
}

static bool
lists_dead(const CondemnedList *list, const BackupId *bid)
{
    return list->dead_count > 0 &&
           bsearch(bid, list->dead, list->dead_count, sizeof *list->dead, compare_ids) != NULL;
}

/* Is it on a list: on any that counts, or on one that is old enough? */
static bool
is_listed(const Collect *collect, const BackupId *bid, bool old_enough)
{
    for (size_t i = 0; i < collect->lists.count; i++) {
        const CondemnedList *list = &collect->lists.lists[i];
        const bool counts = old_enough ? is_old_enough(collect, list) : !is_future(collect, list);
        if (counts && lists_dead(list, bid))
            return true;
    }
    return false;
}

/* Packs of all lists that count, or of those that are old enough. */
static bool
listed_packs(const Collect *collect, bool old_enough, PackSet *packs, CairnError *err)
{
    for (size_t i = 0; i < collect->lists.count; i++) {
        const CondemnedList *list = &collect->lists.lists[i];
        const bool counts = old_enough ? is_old_enough(collect, list) : !is_future(collect, list);
        if (counts && !pack_set_add_all(packs, &list->packs, err))
            return false;
    }
    pack_set_settle(packs);
    return true;
}

bool
collect_spare(Collect *collect, CollectBackup *backup, CairnError *err)
{
    if (collect->sweep.count == 0)
        return true;
    if (!collect_protect(collect, backup, err)) {
        if (err->kind != CAIRN_CORRUPT && err->kind != CAIRN_MISMATCH &&
            err->kind != CAIRN_UNSUPPORTED)
            return false;
        cairn_error_clear(err);
        pack_set_remove_creator(&collect->sweep, &backup->bid);
    }
    return true;
}

bool
collect_choose_sweep(Collect *collect, CairnError *err)
{
    SCOPED_PACK_SET old = {0};
    const bool at_once = collect->grace_us == 0;
    pack_set_free(&collect->sweep);
    if (!at_once && !listed_packs(collect, true, &old, err))
        return false;
    if (!pack_set_intersect(&collect->garbage, at_once ? &collect->garbage : &old, &collect->sweep,
                            err))
        return false;
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        const bool condemnable = collect_is_condemnable(backup);
        backup->chosen = true;
        backup->ripe = condemnable && (at_once || is_listed(collect, &backup->bid, true));
        if (condemnable && !backup->ripe && backup->fate != FATE_OPEN &&
            !collect_spare(collect, backup, err))
            return false;
    }
    return true;
}

bool
collect_spare_new(Collect *collect, CairnError *err)
{
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        if (!backup->chosen && backup->fate == FATE_COMMITTED && !collect_is_root(backup) &&
            !collect_spare(collect, backup, err))
            return false;
    }
    return true;
}

/* Ids that `wanted` is true for, ascending; malloc'ed (returned owned). */
static BackupId *
choose_ids(const Collect *collect, bool (*wanted)(const Collect *, const CollectBackup *),
           size_t *count_out, CairnError *err)
{
    size_t count = 0;
    BackupId *ids = calloc(collect->count + 1, sizeof *ids);
    if (ids == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < collect->count; i++) {
        if (wanted(collect, &collect->backups[i]))
            ids[count++] = collect->backups[i].bid;
    }
    *count_out = count;
    return ids;
}

static bool
is_newly_dead(const Collect *collect, const CollectBackup *backup)
{
    return collect_is_condemnable(backup) && !backup->ripe &&
           !is_listed(collect, &backup->bid, false);
}

static bool
is_ripe(const Collect *collect, const CollectBackup *backup)
{
    (void)collect;
    return backup->ripe;
}

bool
collect_condemn_new(Collect *collect, CairnError *err)
{
    SCOPED_PACK_SET listed = {0};
    SCOPED_PACK_SET unlisted = {0};
    SCOPED_PACK_SET packs = {0};
    size_t count = 0;
    if (!listed_packs(collect, false, &listed, err) ||
        !pack_set_subtract(&collect->garbage, &listed, &unlisted, err) ||
        !pack_set_subtract(&unlisted, &collect->sweep, &packs, err))
        return false;
    SCOPED_MEMORY BackupId *dead = choose_ids(collect, is_newly_dead, &count, err);
    return dead != NULL &&
           condemned_put(collect->repository, collect->cluster, collect->run, &collect->next_list,
                         &packs, dead, count, &collect->lists, err);
}

bool
collect_condemn_ripe(Collect *collect, CairnError *err)
{
    size_t count = 0;
    SCOPED_MEMORY BackupId *dead = choose_ids(collect, is_ripe, &count, err);
    return dead != NULL &&
           condemned_put(collect->repository, collect->cluster, collect->run, &collect->next_list,
                         &collect->sweep, dead, count, &collect->lists, err);
}

static const CollectBackup *
find_backup(const Collect *collect, const BackupId *bid)
{
    size_t low = 0, high = collect->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = memcmp(collect->backups[middle].bid.text, bid->text, BACKUP_ID_LENGTH);
        if (order == 0)
            return &collect->backups[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* Nothing that it names is left to be deleted: swept, or alive. */
static bool
says_nothing(const Collect *collect, const CondemnedList *list)
{
    for (size_t i = 0; i < list->packs.count; i++) {
        if (pack_set_overlaps(&collect->garbage, &list->packs.ranges[i]))
            return false;
    }
    for (size_t i = 0; i < list->dead_count; i++) {
        const CollectBackup *backup = find_backup(collect, &list->dead[i]);
        if (backup != NULL && collect_is_condemnable(backup))
            return false;
    }
    return true;
}

/* Where a run died before its list was there, or left a temporary file. */
static StorageListNext
tidy_run(void *context, const StorageEntry *entry, CairnError *err)
{
    const Collect *collect = context;
    Storage *storage = repository_storage(collect->repository);
    char prefix[STORAGE_NAME_LIMIT + 256];
    if (!entry->is_directory)
        return STORAGE_LIST_GO_ON;
    const int size = snprintf(prefix, sizeof prefix, "c/%s/gc/%s", collect->cluster, entry->name);
    if (size < 0 || size >= STORAGE_NAME_LIMIT)
        return STORAGE_LIST_GO_ON; /* no name of ours is so long */
    return storage_sweep(storage, prefix, now_us(collect) - LEFTOVER_AGE_US, err) &&
                   storage_prune(storage, prefix, err)
               ? STORAGE_LIST_GO_ON
               : STORAGE_LIST_FAILED;
}

/* Leftovers of others are a day old before they go: their writer may be alive, and would fail. */
static bool
tidy_runs(Collect *collect, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    Storage *storage = repository_storage(collect->repository);
    const int64_t before_us = now_us(collect) - LEFTOVER_AGE_US;
    snprintf(prefix, sizeof prefix, "c/%s/pin", collect->cluster);
    if (!storage_sweep(storage, prefix, before_us, err))
        return false;
    snprintf(prefix, sizeof prefix, "c/%s/gc", collect->cluster);
    return storage_sweep(storage, prefix, before_us, err) &&
           storage_list(storage, prefix, tidy_run, collect, err);
}

bool
collect_remove_lists(Collect *collect, CairnError *err)
{
    for (size_t i = 0; i < collect->lists.count; i++) {
        const CondemnedList *list = &collect->lists.lists[i];
        if (says_nothing(collect, list) &&
            !condemned_remove(collect->repository, collect->cluster, list, err))
            return cairn_error_wrap(err, "unable to remove a condemn list");
    }
    return tidy_runs(collect, err);
}

bool
collect_report_waiting(Collect *collect, CairnError *err)
{
    CollectReport *report = collect->report;
    SCOPED_PACK_SET waiting = {0};
    CollectCount count;
    int64_t oldest_us = now_us(collect);
    if (!pack_set_subtract(&collect->garbage, &collect->sweep, &waiting, err) ||
        !collect_count(collect, &waiting, &count, err))
        return false;
    report->waiting_packs = count.packs + count.map_packs;
    report->waiting_bytes = count.bytes;
    for (size_t i = 0; i < collect->count; i++) {
        const CollectBackup *backup = &collect->backups[i];
        report->waiting_backups += collect_is_condemnable(backup) && !backup->ripe;
        report->pending += backup->pending;
    }
    for (size_t i = 0; i < collect->lists.count; i++)
        report->clock_jumped |= is_future(collect, &collect->lists.lists[i]);
    report->waiting = report->waiting_packs > 0 || report->waiting_backups > 0;
    for (size_t i = 0; i < collect->lists.count; i++) {
        const CondemnedList *list = &collect->lists.lists[i];
        if (!is_future(collect, list) && list->at_us < oldest_us && !says_nothing(collect, list))
            oldest_us = list->at_us;
    }
    report->waiting_until_us = report->waiting ? oldest_us + collect->grace_us : 0;
    return true;
}
