/* Scenes: interleavings that chance would not hit upon in thousands of stories. */
#include "tests/sim/sim.h"

#include <string.h>

void
sim_scene_begin(Sim *sim, SimStorageKind kind, uint64_t seed)
{
    *sim = (Sim){
        .seed = seed,
        .random = seed,
        .kind = kind,
        .host_count = kind == SIM_LOCAL ? 1 : SIM_HOST_LIMIT,
        .faults = {.stale_us = kind == SIM_NFS ? 60 * SIM_SECOND : 0},
        .faults_on = true,
        .now_us = INT64_C(1800000000) * SIM_SECOND,
        .is_tight = true,
        .phase = "scene",
    };
    sim_make_repository(sim);
}

Actor *
sim_scene_enter(Sim *sim, const char *role, unsigned host, const BackupId *subject)
{
    Actor *actor = sim_start(sim, role, host, sim_role(role));
    actor->subject = subject;
    actor->held = true;
    actor->stale_us = sim->faults.stale_us;
    return actor;
}

static bool
go_on(Actor *actor)
{
    if (actor->done || actor->sim->failed)
        return false;
    actor->held = false;
    sim_wait(actor->sim);
    return !actor->done;
}

bool
sim_scene_until(Actor *actor, const char *call, const char *part)
{
    actor->stop_call = call;
    actor->stop_part = part;
    return go_on(actor);
}

bool
sim_scene_calls(Actor *actor, unsigned calls)
{
    actor->calls_left = calls;
    return calls == 0 ? !actor->done : go_on(actor);
}

void
sim_scene_finish(Actor *actor)
{
    go_on(actor);
}

void
sim_scene_stop(Actor *actor, const char *call, const char *name)
{
    const bool is_there = actor->stop_call != NULL && strstr(call, actor->stop_call) != NULL &&
                          strstr(name, actor->stop_part) != NULL;
    const bool is_over = actor->calls_left > 0 && --actor->calls_left == 0;
    if (!is_there && !is_over)
        return;
    actor->stop_call = NULL;
    actor->calls_left = 0;
    actor->held = true;
    sim_trace(actor->sim, actor, "waits before %s %s", call, name);
    sim_hand_over(actor->sim, actor);
}

bool
sim_scene_end(Sim *sim)
{
    for (size_t i = 0; i < sim->actor_count; i++)
        sim->actors[i]->crashed |= !sim->actors[i]->done;
    sim_wait(sim);
    sim_join(sim);
    sim->faults_on = false;
    if (!sim->failed)
        sim_epilogue(sim);
    return !sim->failed;
}
