/*
 * Taking an expiry back, in two steps (design, "Repository"):
 *
 *   unexpire-pending   alive for collectors, expired for everybody else
 *   look               a doomed object, of any run? is the summary still there and whole?
 *   unexpire           or, where it is too late, expire again
 *
 * A collector that dooms after our first mark finds the mark in its last look and gives way; one
 * that doomed before it is found by us. The second mark must be the very next one: had somebody
 * expired the backup in between, a collector could have doomed it and read that expire, while we
 * would go on to report success. So we start again then.
 *
 * Where a listing may be old (a network file system caches directories, for a minute by default),
 * neither would see the other: the collector's last look may be that much behind our first mark,
 * and ours behind its doomed object. So there we wait twice that time between mark and look: a
 * collector that misses the mark doomed within the first half, and in the second we see it.
 *
 * Crash: unexpire-pending stays, which keeps the data and shows the backup as expired; un-expiring
 * or expiring again settles it.
 */
#include "common/cancel.h"
#include "common/log.h"
#include "repository/collect.h"
#include "repository/condemned.h"
#include "repository/fate.h"
#include "repository/mark.h"
#include "repository/refs.h"

enum {
    ATTEMPT_LIMIT = 100,
    LISTING_AGE_MS = 60 * 1000, /* acdirmax of nfs(5) */
    SETTLE_MS = 2 * LISTING_AGE_MS + 5000,
};

static bool
too_late(const BackupId *bid, CairnError *err)
{
    return cairn_error(err, CAIRN_REFUSED,
                       "the expiry of backup %s cannot be taken back: its packs are being deleted "
                       "or gone",
                       bid->text);
}

/* *whole_out: nothing of it can have been deleted, nor will be while unexpire-pending stands. */
static bool
look(Repository *repository, const char *cluster, const Fate *fate, bool *whole_out,
     CairnError *err)
{
    bool doomed;
    *whole_out = false;
    /* Doomed objects first: a sweep removes them after the summary. */
    if (!doomed_any(repository, cluster, &fate->bid, &doomed, err))
        return false;
    if (doomed)
        return true;
    SCOPED(Refs) refs = refs_read(repository, fate, err);
    if (refs == NULL) {
        if (err->kind != CAIRN_NOT_FOUND && err->kind != CAIRN_CORRUPT &&
            err->kind != CAIRN_MISMATCH && err->kind != CAIRN_UNSUPPORTED)
            return false;
        cairn_error_clear(err);
        return true;
    }
    *whole_out = true;
    return true;
}

/*
 * *number_out: the highest mark, while unexpire-pending stands. Somebody else's does as well as
 * ours: two who each insisted on their own would keep each other from the next number.
 */
static bool
add_pending(Repository *repository, const char *cluster, const BackupId *bid, const char *reason,
            uint32_t *number_out, CairnError *err)
{
    MarkState marks;
    if (!mark_read(repository, cluster, bid, &marks, err))
        return false;
    if (!marks.expired && !marks.pending)
        return cairn_error(err, CAIRN_REFUSED, "backup %s is not expired", bid->text);
    *number_out = marks.pending ? marks.next - 1 : marks.next;
    return marks.pending ||
           mark_add_at(repository, cluster, bid, marks.next, MARK_UNEXPIRE_PENDING, reason, err);
}

static bool
let_listings_settle(Repository *repository, const BackupId *bid, CairnError *err)
{
    const Clock *clock = repository_world(repository)->clock;
    if (storage_is_local(repository_storage(repository)))
        return true;
    log_info("waiting %d s for other hosts to see that the expiry of %s is taken back",
             SETTLE_MS / 1000, bid->text);
    const int64_t end_ns = clock->monotonic_ns(clock) + SETTLE_MS * INT64_C(1000000);
    /* A signal cuts a sleep short. */
    for (int64_t left_ns; (left_ns = end_ns - clock->monotonic_ns(clock)) > 0;) {
        if (!cancel_check(err))
            return false;
        clock->sleep_ms(clock, left_ns / 1000000 + 1);
    }
    return true;
}

/* One attempt. *again_out: somebody else's mark came in between. */
static bool
try_once(Repository *repository, const Fate *fate, const char *reason, bool *again_out,
         CairnError *err)
{
    uint32_t number = 0;
    bool whole;
    *again_out = false;
    if (add_pending(repository, fate->cluster, &fate->bid, reason, &number, err) &&
        let_listings_settle(repository, &fate->bid, err) &&
        look(repository, fate->cluster, fate, &whole, err)) {
        if (mark_add_at(repository, fate->cluster, &fate->bid, number + 1,
                        whole ? MARK_UNEXPIRE : MARK_EXPIRE,
                        whole ? reason : "too late to take the expiry back", err))
            return whole || too_late(&fate->bid, err);
        if (!whole && err->kind == CAIRN_CONFLICT) {
            cairn_error_clear(
                err); /* somebody else has the last word: it is too late all the same */
            return too_late(&fate->bid, err);
        }
    }
    *again_out = err->kind == CAIRN_CONFLICT;
    return false;
}

bool
collect_unexpire(Repository *repository, const char *cluster, const BackupId *bid,
                 const char *reason, CairnError *err)
{
    SCOPED(Fate) fate = fate_read(repository, cluster, bid, NULL, err);
    if (fate == NULL)
        return cairn_error_wrap(err, "unable to take the expiry of %s back", bid->text);
    if (!fate->committed)
        return cairn_error(err, CAIRN_REFUSED, "%s is a revoked attempt, no backup", bid->text);
    for (int i = 0; i < ATTEMPT_LIMIT; i++) {
        bool again;
        if (try_once(repository, fate, reason, &again, err))
            return true;
        if (!again)
            return cairn_error_wrap(err, "un-expire");
        cairn_error_clear(err);
    }
    return cairn_error(err, CAIRN_UNAVAILABLE, "other processes keep marking backup %s", bid->text);
}
