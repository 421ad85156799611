#include "cli/restore_choice.h"

#include "common/log.h"
#include "restore/sources.h"

typedef struct {
    Repository *repository; /* owned */
    bool can;
    bool goes_to_the_end; /* of WAL: then further is better */
    uint32_t timeline;
    uint64_t end_lsn;
} Candidate;

static bool
make_plan(Candidate *candidate, const RestoreOptions *options, CairnError *err)
{
    const PlanOptions plan_options = {.cluster = options->cluster,
                                      .set = options->set,
                                      .force = options->force,
                                      .without_wal = options->no_wal};
    SCOPED(Catalog) catalog = catalog_read(candidate->repository, options->cluster, err);
    if (catalog == NULL)
        return false;
    SCOPED(RestorePlan)
    plan = plan_make(candidate->repository, catalog, &options->target, &plan_options, err);
    if (plan == NULL || !sources_check(candidate->repository, plan->backup->fate, err))
        return false;
    candidate->goes_to_the_end =
        plan->target.type == TARGET_DEFAULT || plan->target.type == TARGET_STANDBY;
    candidate->timeline = plan->path != NULL ? plan->path->timeline : plan->timeline;
    candidate->end_lsn =
        plan->stop.end_lsn > plan->unbroken_end_lsn ? plan->stop.end_lsn : plan->unbroken_end_lsn;
    return true;
}

static void
examine(const World *world, const RepositoryConfig *config, const RestoreOptions *options,
        Candidate *candidate)
{
    CairnError err = {0};
    candidate->repository = repository_open(world, config, &err);
    candidate->can = candidate->repository != NULL && make_plan(candidate, options, &err);
    if (!candidate->can)
        log_warn("repository '%s' is passed over: %s", config->name, err.message);
}

static bool
goes_further(const Candidate *a, const Candidate *b)
{
    return a->timeline != b->timeline ? a->timeline > b->timeline : a->end_lsn > b->end_lsn;
}

static size_t
examine_all(const World *world, const CliSession *session, const RestoreOptions *options,
            Candidate *candidates)
{
    size_t best = session->repository_count;
    for (size_t i = 0; i < session->repository_count; i++) {
        Candidate *candidate = &candidates[i];
        examine(world, session->repositories[i], options, candidate);
        if (!candidate->can)
            continue;
        if (best == session->repository_count || goes_further(candidate, &candidates[best]))
            best = i;
        if (!candidate->goes_to_the_end)
            break;
    }
    return best;
}

static size_t
first_open(const Candidate *candidates, size_t count)
{
    size_t i = 0;
    while (i < count && candidates[i].repository == NULL)
        i++;
    return i;
}

Repository *
restore_choose(const World *world, const CliSession *session, const RestoreOptions *options,
               CairnError *err)
{
    Candidate candidates[CONFIG_REPOSITORIES_LIMIT] = {0};
    const size_t count = session->repository_count;
    Repository *chosen = NULL;

    if (count == 1)
        return repository_open(world, session->repository, err);
    size_t best = examine_all(world, session, options, candidates);
    if (best < count)
        log_info("restoring from repository '%s'", session->repositories[best]->name);
    else
        best = first_open(candidates, count);
    if (best < count)
        chosen = take(&candidates[best].repository);
    else
        cairn_error(err, CAIRN_UNAVAILABLE, "none of the %zu repositories can be opened", count);
    for (size_t i = 0; i < count; i++)
        repository_close(candidates[i].repository);
    return chosen;
}
