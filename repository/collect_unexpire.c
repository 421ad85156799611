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
 * Crash: unexpire-pending stays, which keeps the data and shows the backup as expired; un-expiring
 * or expiring again settles it.
 */
#include "repository/collect.h"
#include "repository/condemned.h"
#include "repository/fate.h"
#include "repository/mark.h"
#include "repository/refs.h"

enum { ATTEMPT_LIMIT = 100 };

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

/* The number that our pending mark took. */
static bool
add_pending(Repository *repository, const char *cluster, const BackupId *bid, const char *reason,
            uint32_t *number_out, CairnError *err)
{
    MarkState marks;
    if (!mark_read(repository, cluster, bid, &marks, err))
        return false;
    if (!marks.expired && !marks.pending)
        return cairn_error(err, CAIRN_REFUSED, "backup %s is not expired", bid->text);
    *number_out = marks.next;
    return mark_add_at(repository, cluster, bid, marks.next, MARK_UNEXPIRE_PENDING, reason, err);
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
