/*
 * The collector's protocol, per cluster:
 *
 *   look 1    pins, intents, fates, marks, in this order        what is alive
 *   condemn   gc/<run>/condemned.<k>: packs that nothing alive  durable; writers refuse such packs
 *             names, and the dead
 *   wait      grace: nobody sleeps, a later run goes on         clocks count here, and only here
 *   condemn   the later run puts down its own list of what is
 *             both unneeded now and condemned long enough ago
 *   look 2    all again, freshly; what is alive now goes off    writers who came before our list
 *   doom      doomed.<run> below every dead backup that goes    the point of no return: readers and
 *                                                               un-expire refuse
 *   look 3    marks of the doomed, pins, intents, fates;        who came before doom keeps it
 * whole, what is alive now is given back                   only our own doomed object goes sweep
 * WAL, packs, then summary, intent, doomed of the dead, then lists that say nothing any more
 *
 * Claim: no pack that a committed, unexpired backup names is ever deleted. Suppose that run g
 * deletes pack p and committed b names it.
 *  - p is b's own, or b's parent or salvage source r names it. b's intent is durable before its
 *    first pack, and is deleted only under a fate. At look 2 b is open (it and all that it claims
 *    is alive), committed (its summary is alive), or revoked, and then never a backup: the fate is
 * a single-use slot, and is never deleted.
 *  - r: b writes its intent, then reads condemn lists and r's doomed objects (claim.c). g writes
 * list and doomed objects, then reads intents (looks 2 and 3). Of two that write first and read
 * then, one sees the other: g finds b, or b refuses r. b's intent is read before its fate, so a
 * commit in between is not missed.
 *  - un-expire writes unexpire-pending, then reads doomed; g writes doomed, then reads marks. The
 * same argument; and unexpire is the very next mark or the un-expire starts again
 *    (collect_unexpire.c), so that no expire hides between the two steps.
 *  - a reader writes its pin, then reads doomed; g writes doomed, then reads pins. The same.
 *  - other collectors: doomed objects and lists are per run. Somebody else's doomed object is
 * removed only where the dead have lost their summary, and can neither be claimed nor un-expired
 * then. Somebody else's list is removed when nothing that it names is left to delete; its run,
 * should it wake up, has look 3 before it, which needs no list.
 *
 * Why a wrong clock cannot hurt: the age of a list decides only whether a run tries at all. A clock
 * that jumps forward makes it try at once, as --grace 0s does; looks 2 and 3 and the doomed objects
 * then decide as ever. What grace really buys is time for readers without a pin, for people who
 * change their mind, and for stale listings of network file systems. A list dated in the future
 * (the clock went backwards) counts for nothing: its packs are condemned anew, from now.
 *
 * What a crash leaves, right after
 *   condemn         a list. Writers refuse what it names until a run is done with it.
 *   doom            doomed objects: un-expire is refused; the next run dooms for itself, and
 * deletes. Below a backup that is alive (we died before giving it back) the next run on this host
 * removes ours. some deletes    the same, and packs that a dead backup's summary names but are
 * gone: it has a doomed object until its summary goes. the summary     a grave: fate and marks.
 * Doomed object, intent and lists go with the next run.
 */
#include "repository/collect.h"

#include "common/cancel.h"
#include "common/log.h"
#include "repository/attempts.h"
#include "repository/collect_intern.h"
#include "repository/fate.h"
#include "repository/pin.h"

#include <string.h>

static const int64_t CLOCK_SKEW_US = INT64_C(300) * 1000000;

int64_t
collect_default_grace(const Repository *repository)
{
    return storage_is_local(repository_storage(repository)) ? COLLECT_GRACE_LOCAL_S
                                                            : COLLECT_GRACE_SHARED_S;
}

static int64_t
now_us(const Collect *collect)
{
    const Clock *clock = repository_world(collect->repository)->clock;
    return clock->wall_us(clock);
}

void
collect_close(Collect *collect)
{
    free(collect->backups);
    condemned_lists_free(&collect->lists);
    pack_set_free(&collect->garbage);
    pack_set_free(&collect->sweep);
    for (size_t i = 0; i < collect->wal_count; i++)
        free(collect->wal[i].reach);
}

/* Dead, and something of it is left that only a sweep may take: it is condemned first. */
static bool
is_condemnable(const CollectBackup *backup)
{
    if (collect_is_root(backup))
        return backup->fate == FATE_OPEN && !backup->has_intent && !backup->claimed;
    return backup->fate == FATE_COMMITTED ? backup->has_refs : backup->has_packs;
}

/* Dead, and nothing that anybody could want back is left: a sweep did not get to its end. */
static bool
is_leftover(const CollectBackup *backup)
{
    return !collect_is_root(backup) && !is_condemnable(backup) && !backup->has_packs &&
           (backup->has_intent || backup->has_refs || backup->has_doomed);
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

/*
 * A dead backup that does not go in this round may still come back, whole: what it names stays. One
 * whose summary is damaged never comes back (collect_unexpire.c), so that it spares its own packs
 * only.
 */
static bool
spare(Collect *collect, CollectBackup *backup, CairnError *err)
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

/* `sweep` becomes what is unneeded, condemned long enough ago, and not named by the dead that are
 * not. */
static bool
choose_sweep(Collect *collect, CairnError *err)
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
        const bool condemnable = is_condemnable(backup);
        backup->ripe = condemnable && (at_once || is_listed(collect, &backup->bid, true));
        if (condemnable && !backup->ripe && backup->fate != FATE_OPEN &&
            !spare(collect, backup, err))
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
    return is_condemnable(backup) && !backup->ripe && !is_listed(collect, &backup->bid, false);
}

static bool
is_ripe(const Collect *collect, const CollectBackup *backup)
{
    (void)collect;
    return backup->ripe;
}

/* What no list names yet gets one, and its grace begins. */
static bool
condemn_new(Collect *collect, CairnError *err)
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

static bool
condemn_ripe(Collect *collect, CairnError *err)
{
    size_t count = 0;
    SCOPED_MEMORY BackupId *dead = choose_ids(collect, is_ripe, &count, err);
    return dead != NULL &&
           condemned_put(collect->repository, collect->cluster, collect->run, &collect->next_list,
                         &collect->sweep, dead, count, &collect->lists, err);
}

/* On a full disk the reserve makes room, once. */
static bool
retry_with_reserve(Collect *collect, bool (*step)(Collect *, CairnError *), CairnError *err)
{
    bool freed = false;
    if (step(collect, err))
        return true;
    if (err->kind != CAIRN_NO_SPACE)
        return false;
    CairnError full = *err;
    cairn_error_clear(err);
    if (!collect_reserve_spend(collect, &freed, err))
        return false;
    if (freed && step(collect, err))
        return true;
    if (!freed)
        *err = full;
    if (err->kind == CAIRN_NO_SPACE)
        cairn_error_hint(err, "before anything may be deleted, a few small objects must be "
                              "written: free some hundred kB beside the repository, then run "
                              "`pgcairn collect` again");
    return false;
}

/* An attempt without an intent is nobody's: no writer goes on without one. Taking its fate makes
 * that sure; its packs are a revoked attempt's from the next run on. */
static bool
revoke_ownerless(Collect *collect, CollectBackup *backup, CairnError *err)
{
    if (backup->fate != FATE_OPEN || backup->has_intent || backup->claimed)
        return true;
    if (fate_revoke(collect->repository, collect->cluster, &backup->bid, collect->run,
                    "it has no intent", err))
        return true;
    if (err->kind != CAIRN_CONFLICT && err->kind != CAIRN_NO_SPACE)
        return false;
    cairn_error_clear(err);
    return true;
}

/* What finds no room is not deleted in this round: as if it were not ripe. */
static bool
doom_one(Collect *collect, CollectBackup *backup, CairnError *err)
{
    bool freed = true;
    while (!doomed_put(collect->repository, collect->cluster, &backup->bid, collect->run, err)) {
        if (err->kind != CAIRN_NO_SPACE)
            return cairn_error_wrap(err, "unable to doom %s", backup->bid.text);
        cairn_error_clear(err);
        if (freed && !collect_reserve_spend(collect, &freed, err))
            return false;
        if (!freed) {
            collect->short_of_space = true;
            return true;
        }
    }
    backup->doomed = true;
    return true;
}

static bool
doom(Collect *collect, CairnError *err)
{
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        if (!backup->ripe)
            continue;
        if (backup->fate == FATE_OPEN) {
            if (!revoke_ownerless(collect, backup, err))
                return false;
            continue;
        }
        if (collect_is_root(backup)) {
            collect->report->given_back++;
            continue;
        }
        if (!cancel_check(err) || (!collect->short_of_space && !doom_one(collect, backup, err)))
            return false;
        if (!backup->doomed && !spare(collect, backup, err))
            return false;
    }
    return true;
}

/* Look 3 found it alive: only our own doomed object goes (one that all runs shared would free
 * another run's victim). */
static bool
give_back(Collect *collect, CairnError *err)
{
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        if (!backup->doomed || !collect_is_root(backup))
            continue;
        if (!doomed_remove(collect->repository, collect->cluster, &backup->bid, collect->run, err))
            return false;
        backup->doomed = false;
        collect->report->given_back++;
    }
    return true;
}

static bool
bury_doomed(Collect *collect, CairnError *err)
{
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        if (!backup->doomed)
            continue;
        if (!collect_bury(collect, backup, err))
            return cairn_error_wrap(err, "unable to clear away %s", backup->bid.text);
        collect->report->backups_swept += !backup->has_packs;
        backup->doomed = backup->ripe = false;
    }
    return true;
}

static bool
has_work(const Collect *collect)
{
    for (size_t i = 0; i < collect->count; i++) {
        if (collect->backups[i].ripe)
            return true;
    }
    return collect->sweep.count > 0;
}

/* From the run's own list to the sweep. *freed_out: something was deleted. */
static bool
round_once(Collect *collect, bool *freed_out, CairnError *err)
{
    const uint64_t before = collect->report->bytes;
    collect->short_of_space = false;
    const bool works = has_work(collect);
    if ((works && !retry_with_reserve(collect, condemn_ripe, err)) ||
        !collect_look(collect, false, err) || !collect_protect_roots(collect, err))
        return false;
    if (works && (!doom(collect, err) || !collect_look(collect, true, err) ||
                  !give_back(collect, err) || !collect_protect_roots(collect, err)))
        return false;
    if (!collect_wal_sweep(collect, err) || !collect_sweep(collect, err) ||
        !bury_doomed(collect, err))
        return false;
    *freed_out = collect->report->bytes > before;
    return true;
}

/* Where a full disk left room for a part of the doomed objects only, what that part freed makes
 * room for the next. */
static bool
sweep_all(Collect *collect, CairnError *err)
{
    bool freed = false;
    do {
        if (!choose_sweep(collect, err) || !round_once(collect, &freed, err))
            return false;
    } while (collect->short_of_space && freed);
    return !collect->short_of_space ||
           cairn_error(err, CAIRN_NO_SPACE,
                       "no room to write what must be written before deleting");
}

static bool
clear_leftovers(Collect *collect, CairnError *err)
{
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        bool left;
        if (is_leftover(backup)) {
            if (!collect_bury(collect, backup, err))
                return false;
        } else if (backup->has_doomed && backup->fate == FATE_COMMITTED && !backup->expired &&
                   !backup->pending) {
            if (!doomed_remove_dead(collect->repository, collect->cluster, &backup->bid, &left,
                                    err))
                return false;
            if (left)
                log_warn("backup %s is whole, but a collector on another host left a doomed object "
                         "there: no backup will build on it",
                         backup->bid.text);
        }
    }
    return true;
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
        if (backup != NULL && is_condemnable(backup))
            return false;
    }
    return true;
}

static bool
remove_lists(Collect *collect, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    for (size_t i = 0; i < collect->lists.count; i++) {
        const CondemnedList *list = &collect->lists.lists[i];
        if (!says_nothing(collect, list))
            continue;
        snprintf(prefix, sizeof prefix, "c/%s/gc/%s", collect->cluster, list->run);
        if (!condemned_remove(collect->repository, collect->cluster, list, err) ||
            !storage_prune(repository_storage(collect->repository), prefix, err))
            return cairn_error_wrap(err, "unable to remove a condemn list");
    }
    return true;
}

/* What is condemned and not deleted, and when that will be. */
static bool
report_waiting(Collect *collect, CairnError *err)
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
        report->waiting_backups += is_condemnable(backup) && !backup->ripe;
        report->pending += backup->pending;
    }
    report->waiting = report->waiting_packs > 0 || report->waiting_backups > 0;
    for (size_t i = 0; i < collect->lists.count; i++) {
        const CondemnedList *list = &collect->lists.lists[i];
        if (!is_future(collect, list) && list->at_us < oldest_us && !says_nothing(collect, list))
            oldest_us = list->at_us;
    }
    report->waiting_until_us = report->waiting ? oldest_us + collect->grace_us : 0;
    return true;
}

/* Counts as if everything ripe were doomed; nothing is written. */
static bool
look_only(Collect *collect, CairnError *err)
{
    CollectCount count;
    if (!choose_sweep(collect, err) || !collect_count(collect, &collect->sweep, &count, err))
        return false;
    collect->report->packs = count.packs;
    collect->report->map_packs = count.map_packs;
    collect->report->bytes = count.bytes;
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        backup->doomed = backup->ripe && !collect_is_root(backup);
        collect->report->backups_swept += backup->doomed;
    }
    return collect_wal_sweep(collect, err) && report_waiting(collect, err);
}

static bool
keep_reserve_if_possible(Collect *collect, CairnError *err)
{
    if (collect_reserve_keep(collect, err))
        return true;
    if (err->kind != CAIRN_NO_SPACE && err->kind != CAIRN_CONFLICT)
        return false;
    cairn_error_clear(err);
    return true;
}

static bool
delete_and_condemn(Collect *collect, CairnError *err)
{
    if (!sweep_all(collect, err) || !clear_leftovers(collect, err) || !remove_lists(collect, err))
        return false;
    pack_set_free(&collect->sweep);
    return retry_with_reserve(collect, condemn_new, err) &&
           keep_reserve_if_possible(collect, err) && report_waiting(collect, err);
}

static bool
prepare(Collect *collect, CairnError *err)
{
    if (!random_token(repository_world(collect->repository), collect->run, err))
        return false;
    if (!collect->options->dry_run &&
        (!attempts_fence_dead(collect->repository, collect->cluster, err) ||
         !pins_remove_dead(collect->repository, collect->cluster, err)))
        return false;
    if (!condemned_read_all(collect->repository, collect->cluster, &collect->lists, err) ||
        !collect_wal_reach(collect, err) || !collect_look(collect, false, err) ||
        !collect_enumerate(collect, err))
        return false;
    for (size_t i = 0; i < collect->lists.count; i++)
        collect->report->clock_jumped |= is_future(collect, &collect->lists.lists[i]);
    return true;
}

bool
collect_run(Repository *repository, const CollectOptions *options, CollectReport *report_out,
            CairnError *err)
{
    CollectReport report = {0};
    SCOPED_MEMORY Collect *memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    Collect *collect = memory;
    const int64_t grace_s =
        options->grace_s >= 0 ? options->grace_s : collect_default_grace(repository);
    *collect = (Collect){.repository = repository,
                         .cluster = options->cluster,
                         .options = options,
                         .report = &report,
                         .grace_us = grace_s * 1000000};
    const bool done =
        prepare(collect, err) &&
        (options->dry_run ? look_only(collect, err) : delete_and_condemn(collect, err));
    collect_close(collect);
    if (!done)
        return cairn_error_wrap(err, "cluster '%s'", options->cluster);
    *report_out = report;
    return true;
}
