#include "walarchive/wal_status.h"

#include "walarchive/data_directory.h"
#include "walarchive/spool_lock.h"

#include <stdio.h>
#include <string.h>

static void
read_spool(const World *world, const WalStatusPlace *place, int pgdata_fd, WalStatus *status)
{
    CairnError err = {0};
    SCOPED_SPOOL_LOCK lock = SPOOL_UNLOCKED;
    const SpoolPlace where = {.path = place->spool_path,
                              .repository = place->repository,
                              .cluster = place->cluster,
                              .pgdata_fd = pgdata_fd};
    SCOPED(Spool) spool = spool_open(world, &where, &err);

    status->has_spool = spool != NULL;
    if (spool == NULL) {
        snprintf(status->no_spool, sizeof status->no_spool, "%.500s", err.message);
        return;
    }
    status->spool = spool_count(spool);
    status->pushing_ahead = !spool_lock_try(spool, NULL, &lock, &err) && err.kind == CAIRN_OK;
}

static WalOverflowPlace
overflow_place(const WalStatusPlace *place, const ControlFile *control)
{
    return (WalOverflowPlace){.path = place->overflow_path,
                              .repository = place->repository,
                              .cluster = place->cluster,
                              .system_id = control->system_id,
                              .major = control->major};
}

static void
read_overflow(const World *world, const WalStatusPlace *place, const ControlFile *control,
              WalStatus *status)
{
    CairnError err = {0};

    if (place->overflow_path == NULL)
        return;
    const WalOverflowPlace where = overflow_place(place, control);
    SCOPED(WalOverflow) overflow = wal_overflow_open(world, &where, false, &err);
    if (overflow == NULL && err.kind == CAIRN_NOT_FOUND)
        cairn_error_clear(&err); /* nothing was ever put there */
    if (err.kind == CAIRN_OK &&
        (overflow == NULL || wal_overflow_list(overflow, &status->overflow, &err)) &&
        wal_overflow_others(world, &where, 1, &status->others, &err))
        return;
    snprintf(status->no_overflow, sizeof status->no_overflow, "%.500s", err.message);
}

static void
compare_with(const World *world, const WalStatusPlace *place, const RepositoryConfig *config,
             WalStatusLag *lag)
{
    CairnError err = {0};
    SCOPED(Repository) own = repository_open(world, place->repository, &err);
    SCOPED(Repository) other = own != NULL ? repository_open(world, config, &err) : NULL;

    lag->repository = config->name;
    if (other == NULL || !wal_lag_find(own, other, place->cluster, &lag->lag, &err))
        snprintf(lag->problem, sizeof lag->problem, "%.500s", err.message);
    else
        wal_lag_unread_text(&lag->lag, place->repository->name, config->name, lag->problem,
                            sizeof lag->problem);
}

static void
read_lags(const World *world, const WalStatusPlace *place, WalStatus *status)
{
    for (size_t i = 0; i < place->other_count; i++) {
        if (place->others[i] != place->repository)
            compare_with(world, place, place->others[i], &status->lags[status->lag_count++]);
    }
}

bool
wal_status_read(const World *world, const WalStatusPlace *place, WalStatus *status_out,
                CairnError *err)
{
    ControlFile control;
    SCOPED_FD pgdata_fd = data_directory_open(world, place->pgdata, "", err);

    memset(status_out, 0, sizeof *status_out);
    if (pgdata_fd < 0 || !data_directory_control(world, pgdata_fd, &control, err) ||
        !ready_list_read(world, pgdata_fd, &status_out->ready, err))
        return false;
    read_spool(world, place, pgdata_fd, status_out);
    read_overflow(world, place, &control, status_out);
    read_lags(world, place, status_out);
    return true;
}

bool
wal_status_ship(const World *world, const WalStatusPlace *place, size_t *shipped_out,
                CairnError *err)
{
    ControlFile control;
    Incarnation incarnation;
    SCOPED_FD pgdata_fd = data_directory_open(world, place->pgdata, "", err);

    *shipped_out = 0;
    if (pgdata_fd < 0 || !data_directory_control(world, pgdata_fd, &control, err))
        return false;
    if (place->overflow_path == NULL)
        return true;
    const WalOverflowPlace where = overflow_place(place, &control);
    SCOPED(WalOverflow) overflow = wal_overflow_open(world, &where, false, err);
    if (overflow == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return true;
    }
    SCOPED(Repository) repository = repository_open(world, place->repository, err);
    if (repository == NULL || !incarnation_get(repository, place->cluster, control.system_id,
                                               control.major, &incarnation, err))
        return false;
    SCOPED(WalStore) store = wal_store_open(repository, place->cluster, &incarnation, err);
    return store != NULL && wal_overflow_ship(overflow, store, SIZE_MAX, shipped_out, err);
}
