#include "cli/wal_settings.h"

#include "common/log.h"
#include "walarchive/push.h"

#include <inttypes.h>

enum { SECONDS_LIMIT = 24 * 3600 };

static bool
set_log_level(const char *name, CairnError *err)
{
    LogLevel level;

    if (name == NULL)
        return true;
    if (!log_level_parse(name, &level))
        return cairn_error(err, CAIRN_USAGE, "'%s' is no log level", name);
    log_set_level(level);
    return true;
}

bool
wal_settings_load(const World *world, const CommonOptions *common, WalSettings *settings,
                  CairnError *err)
{
    settings->config = config_load(world, common->config, err);
    if (settings->config == NULL)
        return false;
    settings->global = config_global(settings->config);
    const char *configured = settings->global->log_level;
    if (!set_log_level(common->log_level != NULL ? common->log_level : configured, err))
        return false;
    if (!config_assume_cluster(settings->config, common->cluster, err))
        return false;
    settings->cluster = config_cluster(settings->config, common->cluster, err);
    if (settings->cluster == NULL)
        return false;
    const char *names =
        common->repository != NULL ? common->repository : settings->cluster->repositories;
    if (!config_repositories(settings->config, names, settings->repositories,
                             &settings->repository_count, err))
        return false;
    settings->repository = settings->repositories[0];
    return true;
}

void
wal_settings_free(WalSettings *settings)
{
    config_free(settings->config);
    settings->config = NULL;
}

int
wal_settings_push_jobs(const WalSettings *settings)
{
    const int jobs = settings->global->jobs;

    if (jobs == 0)
        return PUSH_JOBS_DEFAULT;
    return jobs < PUSH_JOBS_LIMIT ? jobs : PUSH_JOBS_LIMIT;
}

bool
wal_check_seconds(const char *option, int64_t seconds, int64_t minimum, CairnError *err)
{
    if (seconds >= minimum && seconds <= SECONDS_LIMIT)
        return true;
    return cairn_error(err, CAIRN_USAGE, "--%s takes %" PRId64 " to %d seconds", option, minimum,
                       SECONDS_LIMIT);
}
