#include "repository/claim.h"

#include "repository/condemned.h"
#include "repository/fate.h"
#include "repository/mark.h"
#include "repository/refs.h"

static bool
refuse(const BackupId *bid, const char *what, CairnError *err)
{
    cairn_error(err, CAIRN_REFUSED, "%s %s", bid->text, what);
    return cairn_error_hint(err, "take another source, or none");
}

static bool
check_not_doomed(Repository *repository, const char *cluster, const BackupId *bid, CairnError *err)
{
    bool doomed;
    if (!doomed_any(repository, cluster, bid, &doomed, err))
        return false;
    return !doomed || refuse(bid, "is being deleted by a collector", err);
}

/* What the fate says of the source; *refs_out: its summary, NULL for a revoked one. */
static bool
check_parent(Repository *repository, const char *cluster, const BackupId *bid, Refs **refs_out,
             CairnError *err)
{
    MarkState marks;
    SCOPED(Fate) fate = fate_read(repository, cluster, bid, NULL, err);
    if (fate == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return refuse(bid, "is no backup", err);
    }
    if (!fate->committed)
        return refuse(bid, "was revoked", err);
    /* unexpire-pending is not alive yet: the un-expire may still find a doomed object and give up.
     */
    if (!mark_read(repository, cluster, bid, &marks, err))
        return false;
    if (marks.expired || marks.pending)
        return refuse(bid, "is expired", err);
    if (!check_not_doomed(repository, cluster, bid, err))
        return false;
    *refs_out = refs_read(repository, fate, err);
    if (*refs_out == NULL && err->kind == CAIRN_NOT_FOUND) {
        cairn_error_clear(err);
        return refuse(bid, "has no reference summary", err);
    }
    return *refs_out != NULL;
}

static bool
check_salvage(Repository *repository, const char *cluster, const BackupId *bid, CairnError *err)
{
    SCOPED(Fate) fate = fate_read(repository, cluster, bid, NULL, err);
    if (fate == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return refuse(bid, "is not revoked: its writer may still add and remove packs", err);
    }
    if (fate->committed)
        return refuse(bid, "is a backup, not a dead attempt", err);
    if (fate->packs_go)
        return refuse(bid, "was given up by its own writer, which removes its packs", err);
    return check_not_doomed(repository, cluster, bid, err);
}

static bool
check_lists(Repository *repository, const char *cluster, const ClaimSources *sources,
            const Refs *refs, CairnError *err)
{
    SCOPED_CONDEMNED lists = {0};
    if (!condemned_read_all(repository, cluster, &lists, err))
        return false;
    for (size_t i = 0; i < lists.count; i++) {
        const PackSet *packs = &lists.lists[i].packs;
        size_t first;
        for (size_t k = 0; refs != NULL && k < refs->count; k++) {
            const PackRange range = {.creator = refs->ranges[k].creator,
                                     .is_map = refs->ranges[k].is_map,
                                     .first_pack = refs->ranges[k].first_pack,
                                     .pack_count = refs->ranges[k].pack_count};
            if (pack_set_overlaps(packs, &range))
                return refuse(sources->parent, "needs packs that a collector condemned", err);
        }
        for (size_t k = 0; k < sources->salvage_count; k++) {
            if (pack_set_of_creator(packs, &sources->salvage[k], &first) > 0)
                return refuse(&sources->salvage[k], "has packs that a collector condemned", err);
        }
    }
    return true;
}

bool
claim_check(Repository *repository, const char *cluster, const ClaimSources *sources,
            CairnError *err)
{
    SCOPED(Refs) refs = NULL;
    if (sources->parent == NULL && sources->salvage_count == 0)
        return true;
    if (sources->parent != NULL && !check_parent(repository, cluster, sources->parent, &refs, err))
        return cairn_error_wrap(err, "parent");
    for (size_t i = 0; i < sources->salvage_count; i++) {
        if (!check_salvage(repository, cluster, &sources->salvage[i], err))
            return cairn_error_wrap(err, "salvage source");
    }
    return check_lists(repository, cluster, sources, refs, err);
}
