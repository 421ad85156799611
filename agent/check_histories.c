/* check: does the repository still tell where this system's timelines came from? */
#include "agent/check_steps.h"
#include "repository/wal_history.h"

#include <inttypes.h>

void
check_histories(CheckRun *run)
{
    CairnError err = {0};
    WalHistoryTrouble trouble;
    if (run->repository == NULL || !run->incarnation_known)
        return;
    SCOPED(WalStore)
    store = wal_store_open(run->repository, run->options->cluster->name, &run->incarnation, &err);
    if (store == NULL || !wal_history_find_trouble(store, &trouble, &err))
        check_add_error(run, "histories", CHECK_FAILED, &err);
    else if (trouble.count > 0)
        check_add(run, "histories", CHECK_FAILED,
                  "%08" PRIX32 ".history is damaged%s, and nothing of that timeline can be "
                  "restored: %s; bring '%s' back from a copy, or remove it on the repository host "
                  "and push the server's own file again",
                  trouble.timeline, trouble.count > 1 ? ", and others are" : "",
                  trouble.problem.message, trouble.object);
    else
        check_add(run, "histories", CHECK_OK, "%s", "");
}
