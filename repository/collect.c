/*
 * The collector's protocol, per cluster:
 *
 *   look 1    pins, intents, fates, marks, in this order: what is alive.
 *   condemn   gc/<run>/condemned.<k>, durable: packs that nothing alive names, and the
 *             dead. Writers refuse sources with such packs.
 *   wait      grace: nobody sleeps, a later run goes on. Clocks count here, only here.
 *   condemn   the later run puts down its own list of what is both unneeded now and
 *             condemned long enough ago.
 *   look 2    all again, freshly; what is alive now goes off the list: writers who came
 *             before we wrote it.
 *   doom      doomed.<run> below every dead backup that goes: the point of no return.
 *             Readers, writers and un-expire refuse it.
 *   look 3    marks of the doomed, pins, intents, fates. Who came before the doomed
 *             object keeps the backup whole: it is given back, and only our own doomed
 *             object goes.
 *   sweep     WAL, packs; then summary, intent and doomed objects of the dead; then lists
 *             that say nothing any more.
 *
 * Claim: no pack that a committed, unexpired backup names is ever deleted. Suppose that
 * run g deletes pack p and committed b names it.
 *
 * - p is b's own, or b's parent or salvage source r names it. b's intent is durable before
 *   its first pack, and is deleted only under a fate. At look 2 b is open (it and all that
 *   it claims is alive), committed (its summary is alive), or revoked, and then never a
 *   backup: the fate is a single-use slot, and is never deleted.
 * - r: b writes its intent, then reads condemn lists and r's doomed objects (claim.c). g
 *   writes list and doomed objects, then reads intents (looks 2 and 3). Of two that write
 *   first and read then, one sees the other: g finds b, or b refuses r. b's intent is read
 *   before its fate, so a commit in between is not missed.
 * - un-expire writes unexpire-pending, then reads doomed; g writes doomed, then reads
 *   marks. The same argument; and unexpire is the very next mark or the un-expire starts
 *   again (collect_unexpire.c), so that no expire hides between the two steps.
 * - a reader writes its pin, then reads doomed; g writes doomed, then reads pins.
 * - other collectors: doomed objects and lists are per run. Somebody else's doomed object
 *   is removed only where the dead have lost their summary, and can neither be claimed nor
 *   un-expired then. Somebody else's list is removed when nothing that it names is left to
 *   delete; its run, should it wake up, has look 3 before it, which needs no list.
 *
 * Why a wrong clock cannot hurt: the age of a list decides only whether a run tries at
 * all. A clock that jumps forward makes it try at once, as --grace 0s does; looks 2 and 3
 * and the doomed objects then decide as ever. What grace really buys is time for readers
 * without a pin, for people who change their mind, and for stale listings of network file
 * systems. A list dated in the future (the clock went backwards) counts for nothing: what
 * it names is condemned anew, from now.
 *
 * What a crash leaves, right after
 *
 *   condemn        a list. Writers refuse what it names until a run is done with it.
 *   doom           doomed objects: un-expire is refused; the next run dooms for itself, and
 *                  deletes. Below a backup that is alive (we died before giving it back)
 *                  the next run on this host removes ours.
 *   some deletes   the same, and packs that a dead backup's summary names but are gone: it
 *                  has a doomed object until its summary goes.
 *   the summary    a grave: fate and marks. The rest goes with the next run.
 */
#include "repository/collect.h"

#include "common/cancel.h"
#include "common/log.h"
#include "repository/attempts.h"
#include "repository/collect_intern.h"
#include "repository/fate.h"
#include "repository/pin.h"

#include <string.h>

int64_t
collect_default_grace(const Repository *repository)
{
    return storage_is_local(repository_storage(repository)) ? COLLECT_GRACE_LOCAL_S
                                                            : COLLECT_GRACE_SHARED_S;
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

/* Dead, and nothing that anybody could want back is left: a sweep did not get to its end. */
static bool
is_leftover(const CollectBackup *backup)
{
    return !collect_is_root(backup) && !collect_is_condemnable(backup) && !backup->has_packs &&
           (backup->has_intent || backup->has_refs || backup->has_doomed);
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
        if (!backup->doomed && !collect_spare(collect, backup, err))
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
    if ((works && !retry_with_reserve(collect, collect_condemn_ripe, err)) ||
        !collect_look(collect, false, err) || !collect_protect_roots(collect, err) ||
        !collect_spare_new(collect, err))
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
        if (!collect_choose_sweep(collect, err) || !round_once(collect, &freed, err))
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

/* Counts as if everything ripe were doomed; nothing is written. */
static bool
look_only(Collect *collect, CairnError *err)
{
    CollectCount count;
    if (!collect_choose_sweep(collect, err) ||
        !collect_count(collect, &collect->sweep, &count, err))
        return false;
    collect->report->packs = count.packs;
    collect->report->map_packs = count.map_packs;
    collect->report->bytes = count.bytes;
    for (size_t i = 0; i < collect->count; i++) {
        CollectBackup *backup = &collect->backups[i];
        backup->doomed = backup->ripe && !collect_is_root(backup);
        collect->report->backups_swept += backup->doomed;
    }
    return collect_wal_sweep(collect, err) && collect_report_waiting(collect, err);
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
    if (!sweep_all(collect, err) || !clear_leftovers(collect, err) ||
        !collect_remove_lists(collect, err))
        return false;
    pack_set_free(&collect->sweep);
    return retry_with_reserve(collect, collect_condemn_new, err) &&
           keep_reserve_if_possible(collect, err) && collect_report_waiting(collect, err);
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
        (options->dry_run || repository_may_let_go(repository, err)) && prepare(collect, err) &&
        (options->dry_run ? look_only(collect, err) : delete_and_condemn(collect, err));
    collect_close(collect);
    if (!done)
        return cairn_error_wrap(err, "cluster '%s'", options->cluster);
    *report_out = report;
    return true;
}
