/* A plan that cannot be made, told with what can be reached instead. */
#include "restore/plan_intern.h"

#include <stdio.h>

bool
plan_refuse(Planner *planner, CairnErrorKind kind, const char *why, CairnError *err)
{
    char target[TARGET_TEXT_SIZE];
    char windows[PLAN_WINDOWS_SIZE];
    char earlier[96] = "";

    target_describe(target, planner->target);
    CairnError problem = {0};
    if (!plan_windows_describe(planner->archive, &planner->candidates, windows, &problem))
        snprintf(windows, sizeof windows, "  unknown: %.200s", problem.message);
    if (planner->target->type == TARGET_DEFAULT)
        cairn_error(err, kind, "%s", why);
    else
        cairn_error(err, kind, "target %s cannot be reached: %s", target, why);
    if (planner->earlier_count > 0)
        snprintf(earlier, sizeof earlier,
                 "\n  from %zu backup%s of an earlier system: by --set=LABEL",
                 planner->earlier_count, planner->earlier_count == 1 ? "" : "s");
    return cairn_error_hint(err, "what can be reached:\n%s%s", windows, earlier);
}

bool
plan_refuse_damaged_history(Planner *planner, const WalTimeline *timeline, const char *more,
                            CairnError *err)
{
    char windows[CAIRN_ERROR_HINT_SIZE];
    char why[512];

    snprintf(why, sizeof why, "%08X.history, which says where timeline %u began, is damaged%s: %s",
             timeline->timeline, timeline->timeline, more, timeline->history_problem);
    plan_refuse(planner, CAIRN_CORRUPT, why, err);
    snprintf(windows, sizeof windows, "%s", err->hint);
    return cairn_error_hint(
        err,
        "bring it back from a copy of the repository; or remove it on the repository host, then "
        "`pgcairn-wal push pg_wal/%08X.history` where it still is; or name another timeline and a "
        "target to pause at: --target-timeline=N; %.*s",
        timeline->timeline, CAIRN_ERROR_HINT_SIZE - 288, windows);
}

bool
plan_refuse_without_history(Planner *planner, uint32_t timeline, CairnErrorKind kind,
                            const char *more, CairnError *err)
{
    char windows[CAIRN_ERROR_HINT_SIZE];
    char why[256];

    const WalTimeline *stored = wal_archive_find(planner->archive, timeline);
    if (stored != NULL && stored->history_problem != NULL)
        return plan_refuse_damaged_history(planner, stored, more, err);
    snprintf(why, sizeof why,
             "WAL of timeline %u is stored, but not %08X.history, which says where it began%s",
             timeline, timeline, more);
    plan_refuse(planner, kind, why, err);
    snprintf(windows, sizeof windows, "%s", err->hint);
    return cairn_error_hint(
        err,
        "store it, in the data directory that has it: `pgcairn-wal push "
        "pg_wal/%08X.history`; or look at another timeline, paused at a target: "
        "--target-timeline=N; %.*s",
        timeline, CAIRN_ERROR_HINT_SIZE - 208, windows);
}
