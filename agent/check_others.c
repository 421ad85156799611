/* check: has another repository of the cluster WAL that this one lacks? */
#include "agent/check_steps.h"
#include "repository/wal_lag.h"

#include <inttypes.h>
#include <string.h>

static void
compare_with(CheckRun *run, const RepositoryConfig *config)
{
    CairnError err = {0};
    WalLag lag;
    SCOPED(Repository) other = repository_open(run->options->world, config, &err);
    if (other == NULL) {
        /* Its own lines say so. */
        check_add(run, "other-repositories", CHECK_WARNING, "'%s' cannot be compared with: %s",
                  config->name, err.message);
        return;
    }
    if (!wal_lag_find(run->repository, other, run->options->cluster->name, &lag, &err)) {
        check_add_error(run, "other-repositories", CHECK_WARNING, &err);
        return;
    }
    char unread[CAIRN_ERROR_MESSAGE_SIZE];
    wal_lag_unread_text(&lag, run->options->repository->name, config->name, unread, sizeof unread);
    if (unread[0] != '\0')
        check_add(run, "other-repositories", CHECK_WARNING, "%s", unread);
    if (lag.segments > 0)
        check_add(run, "other-repositories", CHECK_WARNING,
                  "'%s' has %" PRIu64 " WAL segments that this one lacks, from %s to %s; bring "
                  "them: pgcairn wal repair --repository %s",
                  config->name, lag.segments, lag.first, lag.last, run->options->repository->name);
    else if (unread[0] == '\0')
        check_add(run, "other-repositories", CHECK_OK, "nothing that '%s' has is missing",
                  config->name);
}

void
check_other_repositories(CheckRun *run)
{
    if (run->repository == NULL)
        return;
    for (size_t i = 0; i < run->options->other_count; i++) {
        if (run->options->others[i] != run->options->repository)
            compare_with(run, run->options->others[i]);
    }
}
