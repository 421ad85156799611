/* Who takes part in a story, and how it goes on. */
#include "tests/sim/sim.h"

#include "repository/attempts.h"
#include "repository/catalog.h"

#include <string.h>

/* A backup that may be somebody's parent, or victim: committed and not expired; newer ones rather.
 */
static bool
pick_backup(Actor *actor, BackupPresence presence, BackupId *bid_out, CairnError *err)
{
    SCOPED(Catalog) catalog = catalog_read(actor->repository, SIM_CLUSTER, err);
    if (catalog == NULL)
        return false;
    bool found = false;
    for (size_t i = 0; i < catalog->count; i++) {
        if (catalog->backups[i].presence == presence &&
            (!found || sim_below(actor->sim, 3) != 0)) {
            *bid_out = catalog->backups[i].bid;
            found = true;
        }
    }
    return found || cairn_error(err, CAIRN_NOT_FOUND, "there is no such backup");
}

/* A failure is the storage's fault, or the protocol's way of giving in; else it is a bug. */
static void
judge(Actor *actor, const CairnError *err, const char *what)
{
    if (actor->crashed || actor->met_fault || err->kind == CAIRN_REFUSED ||
        err->kind == CAIRN_NOT_FOUND)
        return;
    sim_fail(actor->sim, "%s failed without a reason: %s", what, err->message);
}

void
actor_writer(Actor *actor)
{
    CairnError err = {0};
    BackupId parent;
    const bool wants_parent = sim_below(actor->sim, 4) != 0;
    const bool has_parent =
        wants_parent && pick_backup(actor, BACKUP_COMMITTED, &parent, &err);
    if (actor->crashed)
        return;
    cairn_error_clear(&err);
    if (!sim_backup_write(actor, &(SimBackupOptions){.parent = has_parent ? &parent : NULL},
                          &err)) {
        sim_trace(actor->sim, actor, "fails: %s", err.message);
        judge(actor, &err, "a backup");
    }
}

void
actor_revoker(Actor *actor)
{
    CairnError err = {0};
    if (!attempts_revoke_dead(actor->repository, SIM_CLUSTER, &err))
        judge(actor, &err, "revoking dead attempts");
}

bool
sim_director(Sim *sim, bool idle)
{
    if (sim->actions_left == 0 || sim->actor_count + 8 >= SIM_ACTOR_LIMIT ||
        sim->backup_count + 4 >= SIM_BACKUP_LIMIT)
        return false;
    if (idle) {
        sim->now_us += (int64_t)sim_below(sim, 4 * SIM_HOUR);
        sim_storage_arrivals(sim);
    } else if (sim->live_count >= sim->most_live || sim_below(sim, 30) != 0) {
        return false;
    }
    static const struct {
        const char *name;
        ActorMain *main;
        unsigned chance;
    } cast[] = {
        {"writer", actor_writer, 4},
        {"revoker", actor_revoker, 1},
    };
    unsigned total = 0;
    for (size_t i = 0; i < sizeof cast / sizeof *cast; i++)
        total += cast[i].chance;
    unsigned at = (unsigned)sim_below(sim, total);
    size_t role = 0;
    while (at >= cast[role].chance)
        at -= cast[role++].chance;
    sim->actions_left--;
    sim_start(sim, cast[role].name, (unsigned)sim_below(sim, sim->host_count), cast[role].main);
    return true;
}

static void
actor_last_writer(Actor *actor)
{
    CairnError err = {0};
    if (!sim_backup_write(actor, &(SimBackupOptions){0}, &err))
        sim_fail(actor->sim, "a backup failed after all faults had stopped: %s", err.message);
}

void
sim_epilogue(Sim *sim)
{
    sim->phase = "epilogue";
    sim->now_us += 4 * SIM_DAY;
    sim_storage_arrivals(sim);
    if (sim->kind == SIM_LOCAL && sim_below(sim, 2) == 0)
        sim_power_cut(sim);
    sim_check_all_readable(sim);
    sim_run_alone(sim, "last writer", 0, actor_last_writer);
    sim_check_all_readable(sim);
}
