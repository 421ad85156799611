/* Who takes part in a story, and how it goes on. */
#include "tests/sim/sim.h"

#include "repository/attempts.h"
#include "repository/catalog.h"
#include "repository/collect.h"
#include "repository/mark.h"
#include "repository/pin.h"

#include <string.h>

/* One of those that the catalog shows so, newer ones rather. NOT_FOUND: there is none. */
static bool
pick_backup(Actor *actor, BackupPresence presence, BackupId *bid_out, CairnError *err)
{
    if (actor->subject != NULL) {
        *bid_out = *actor->subject;
        return true;
    }
    SCOPED(Catalog) catalog = catalog_read(actor->repository, SIM_CLUSTER, err);
    if (catalog == NULL)
        return false;
    bool found = false;
    for (size_t i = 0; i < catalog->count; i++) {
        if (catalog->backups[i].presence == presence && (!found || sim_below(actor->sim, 3) != 0)) {
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
    sim_trace(actor->sim, actor, "fails: %s", err->message);
    if (actor->crashed || actor->met_fault || err->kind == CAIRN_REFUSED ||
        err->kind == CAIRN_NOT_FOUND)
        return;
    sim_fail(actor->sim, "%s failed without a reason: %s", what, err->message);
}

static void
actor_writer(Actor *actor)
{
    CairnError err = {0};
    BackupId parent, salvage;
    const bool is_directed = actor->subject != NULL;
    const bool has_parent = (is_directed ? !actor->salvages : sim_below(actor->sim, 4) != 0) &&
                            pick_backup(actor, BACKUP_COMMITTED, &parent, &err);
    cairn_error_clear(&err);
    const bool has_salvage = (is_directed ? actor->salvages : sim_below(actor->sim, 3) != 0) &&
                             pick_backup(actor, BACKUP_REVOKED, &salvage, &err);
    cairn_error_clear(&err);
    const SimBackupOptions options = {.parent = has_parent ? &parent : NULL,
                                      .salvage = has_salvage ? &salvage : NULL,
                                      .inherits_all = is_directed};
    if (!actor->crashed && !sim_backup_write(actor, &options, &err))
        judge(actor, &err, "a backup");
}

static void
actor_reader(Actor *actor)
{
    CairnError err = {0};
    BackupId bid;
    if (!pick_backup(actor, BACKUP_COMMITTED, &bid, &err)) {
        judge(actor, &err, "the catalog");
        return;
    }
    SCOPED(Pin) pin = pin_take(actor->repository, SIM_CLUSTER, "restore", &bid, 1, &err);
    if (pin == NULL) {
        judge(actor, &err, "a pin");
        return;
    }
    sim_trace(actor->sim, actor, "reads %s", bid.text);
    /* Between the catalog and the pin a shared directory's staleness is covered by the grace alone,
       which a long sleep there uses up. */
    const bool excused = actor->sim->kind == SIM_NFS && actor->hung;
    if (sim_backup_read(actor, &bid, &err))
        actor->sim->restores++;
    else if (!actor->crashed && !actor->met_fault && !excused)
        sim_fail(actor->sim, "a pinned restore of %s failed: %s", bid.text, err.message);
}

static void
actor_expirer(Actor *actor)
{
    CairnError err = {0};
    BackupId bid;
    if (!pick_backup(actor, BACKUP_COMMITTED, &bid, &err) ||
        !mark_add(actor->repository, SIM_CLUSTER, &bid, MARK_EXPIRE, "policy", &err)) {
        judge(actor, &err, "expire");
    } else if (!actor->crashed) {
        actor->sim->expiries++;
        sim_backup(actor->sim, &bid)->expire_reported = true;
        sim_trace(actor->sim, actor, "REPORTS %s expired", bid.text);
    }
}

static void
actor_unexpirer(Actor *actor)
{
    CairnError err = {0};
    BackupId bid;
    if (!pick_backup(actor, BACKUP_EXPIRED, &bid, &err)) {
        judge(actor, &err, "the catalog");
        return;
    }
    sim_backup(actor->sim, &bid)->unexpire_begun = true;
    sim_trace(actor->sim, actor, "un-expires %s", bid.text);
    if (!collect_unexpire(actor->repository, SIM_CLUSTER, &bid, "undo", &err)) {
        judge(actor, &err, "un-expire");
    } else if (!actor->crashed) {
        actor->sim->unexpiries++;
        sim_trace(actor->sim, actor, "REPORTS %s un-expired", bid.text);
    }
}

/* Any grace is safe where listings are fresh. */
static int64_t
draw_grace_s(Sim *sim)
{
    static const int64_t graces[] = {-1, 0, 600, 3600};
    if (sim->kind == SIM_NFS)
        return -1;
    return sim->is_tight ? 0 : graces[sim_below(sim, sizeof graces / sizeof *graces)];
}

static void
collect(Actor *actor, int64_t grace_s)
{
    CairnError err = {0};
    CollectReport report;
    if (!collect_run(actor->repository,
                     &(CollectOptions){.cluster = SIM_CLUSTER, .grace_s = grace_s}, &report, &err))
        judge(actor, &err, "collect");
    else
        actor->sim->collections++;
}

static void
actor_collector(Actor *actor)
{
    collect(actor, draw_grace_s(actor->sim));
}

static void
actor_revoker(Actor *actor)
{
    CairnError err = {0};
    if (!attempts_revoke_dead(actor->repository, SIM_CLUSTER, &err))
        judge(actor, &err, "revoking dead attempts");
}

/* Takes a living writer's slot, as a person does whose writer hangs for days (R-5 row 35). */
static void
actor_forcer(Actor *actor)
{
    CairnError err = {0};
    BackupId bid;
    if (pick_backup(actor, BACKUP_UNFINISHED, &bid, &err) &&
        !fate_revoke(actor->repository, SIM_CLUSTER, &bid, "0123456789abcdef", "forced", &err) &&
        err.kind != CAIRN_CONFLICT)
        judge(actor, &err, "revoking by force");
}

static const struct {
    const char *name;
    ActorMain *main;
    unsigned chance;
} CAST[] = {
    {"writer", actor_writer, 10},  {"collector", actor_collector, 6}, {"reader", actor_reader, 3},
    {"expirer", actor_expirer, 5}, {"unexpirer", actor_unexpirer, 3}, {"revoker", actor_revoker, 1},
    {"forcer", actor_forcer, 1},
};

ActorMain *
sim_role(const char *name)
{
    size_t role = 0;
    while (strcmp(CAST[role].name, name) != 0)
        CAIRN_ASSERT(++role < sizeof CAST / sizeof *CAST);
    return CAST[role].main;
}

static void
pass_time(Sim *sim)
{
    static const int64_t most[] = {60 * SIM_SECOND, 2 * SIM_HOUR, 2 * SIM_HOUR, 30 * SIM_HOUR};
    sim->now_us +=
        (int64_t)sim_below(sim, (uint64_t)most[sim_below(sim, sizeof most / sizeof *most)]);
    sim_storage_arrivals(sim);
}

bool
sim_director(Sim *sim, bool idle)
{
    if (sim->actions_left == 0 || sim->actor_count + 16 >= SIM_ACTOR_LIMIT ||
        sim->backup_count + 8 >= SIM_BACKUP_LIMIT)
        return false;
    if (sim->live_count >= sim->most_live ||
        (!idle && sim_below(sim, sim->is_tight ? 10 : 30) != 0))
        return false;
    if (sim->is_tight ? sim_below(sim, 8) == 0 : idle || sim_below(sim, 8) == 0)
        pass_time(sim);
    unsigned total = 0;
    for (size_t i = 0; i < sizeof CAST / sizeof *CAST; i++)
        total += CAST[i].chance;
    unsigned at = (unsigned)sim_below(sim, total);
    size_t role = 0;
    while (at >= CAST[role].chance)
        at -= CAST[role++].chance;
    sim->actions_left--;
    sim_start(sim, CAST[role].name, (unsigned)sim_below(sim, sim->host_count), CAST[role].main);
    return true;
}

/* --- the end: no faults any more --- */

static void
actor_last_writer(Actor *actor)
{
    CairnError err = {0};
    if (!sim_backup_write(actor, &(SimBackupOptions){0}, &err))
        sim_fail(actor->sim, "a backup failed after all faults had stopped: %s", err.message);
}

/* All but the last. */
static void
actor_last_expirer(Actor *actor)
{
    CairnError err = {0};
    SCOPED(Catalog) catalog = catalog_read(actor->repository, SIM_CLUSTER, &err);
    const size_t count = catalog != NULL ? catalog->count : 0;
    bool good = catalog != NULL;
    for (size_t i = 0; i < count && good; i++) {
        const CatalogBackup *backup = &catalog->backups[i];
        const SimBackup *last = &actor->sim->backups[actor->sim->backup_count - 1];
        /* Those whose un-expire hangs are expired already; once more settles them. */
        if ((backup->presence == BACKUP_COMMITTED || backup->presence == BACKUP_EXPIRED) &&
            !backup_id_equal(&backup->bid, &last->bid))
            good = mark_add(actor->repository, SIM_CLUSTER, &backup->bid, MARK_EXPIRE, "", &err);
    }
    if (!good)
        sim_fail(actor->sim, "expire failed after all faults had stopped: %s", err.message);
}

static void
actor_last_collector(Actor *actor)
{
    CairnError err = {0};
    CollectReport report;
    if (!collect_run(actor->repository, &(CollectOptions){.cluster = SIM_CLUSTER, .grace_s = -1},
                     &report, &err))
        sim_fail(actor->sim, "collect failed after all faults had stopped: %s", err.message);
}

/* Each host has its dead to judge. */
static void
collect_everywhere(Sim *sim)
{
    for (unsigned host = 0; host < sim->host_count; host++)
        sim_run_alone(sim, "last collector", host, actor_last_collector);
    sim->now_us += 25 * SIM_HOUR;
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
    collect_everywhere(sim);
    collect_everywhere(sim);
    sim_check_all_readable(sim);
    sim_run_alone(sim, "last expirer", 0, actor_last_expirer);
    for (int i = 0; i < 3; i++)
        collect_everywhere(sim);
    sim_check_all_readable(sim);
    sim_check_space(sim);
}
