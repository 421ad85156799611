#include "tests/sim/sim.h"

#include "tests/unit/support/repository_fixture.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    ACTOR_STACK = 512 << 10,
    STEP_US = 40000,
    STEP_LIMIT = 400000,       /* a run that takes more goes in circles */
    CALLS_AFTER_CRASH = 20000, /* the same of a crashed actor */
};

/* --- chance --- */

/* splitmix64: any seed is good, neighbours too. */
uint64_t
sim_random(Sim *sim)
{
    uint64_t value = sim->random += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

uint64_t
sim_below(Sim *sim, uint64_t limit)
{
    return sim_random(sim) % limit;
}

bool
sim_chance(Sim *sim, uint32_t in_a_million)
{
    return in_a_million > 0 && sim_below(sim, 1000000) < in_a_million;
}

/* --- reports --- */

void
sim_fail(Sim *sim, const char *format, ...)
{
    if (sim->failed)
        return;
    sim->failed = true;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sim->failure, sizeof sim->failure, format, arguments);
    va_end(arguments);
    sim_trace(sim, NULL, "FAILED: %s", sim->failure);
    for (size_t i = 0; i < sim->actor_count; i++)
        sim->actors[i]->crashed = true; /* so that the run ends */
}

void
sim_trace(const Sim *sim, const Actor *actor, const char *format, ...)
{
    if (!sim->trace)
        return;
    fprintf(stderr, "%12.3f %s.%u: ", (double)(sim->now_us % (1000 * SIM_DAY)) / 1e6,
            actor != NULL ? actor->name : "sim", actor != NULL ? actor->serial : 0);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

/* --- the actor's world --- */

static int64_t
actor_wall_us(const Clock *clock)
{
    return ((const ActorClock *)clock)->actor->sim->now_us;
}

static int64_t
actor_monotonic_ns(const Clock *clock)
{
    const Actor *actor = ((const ActorClock *)clock)->actor;
    return (actor->sim->now_us + actor->dead_sleep_us) * 1000;
}

static void
actor_sleep_ms(const Clock *clock, int64_t duration_ms)
{
    Actor *actor = ((const ActorClock *)clock)->actor;
    if (actor->crashed)
        actor->dead_sleep_us += duration_ms * 1000; /* time goes on for the others only */
    else
        actor->wake_at_us = actor->sim->now_us + duration_ms * 1000;
    sim_step(actor);
}

static int
actor_fill(const Random *random, void *data, size_t size)
{
    Sim *sim = ((const ActorRandom *)random)->actor->sim;
    uint8_t *at = data;
    for (size_t i = 0; i < size; i++)
        at[i] = (uint8_t)sim_random(sim);
    return 0;
}

static void
draw_identity(Actor *actor)
{
    const Sim *sim = actor->sim;
    Host *host = &actor->identity;
    snprintf(host->host, sizeof host->host, "host-%u", actor->host);
    snprintf(host->machine_id, sizeof host->machine_id, "machine-%u", actor->host);
    snprintf(host->boot_id, sizeof host->boot_id, "boot-%u-%u", actor->host,
             sim->boot[actor->host]);
    host->pid = 100 + (int)actor->serial;
    host->process_start = 1000 + actor->serial;
}

bool
sim_is_alive(const Sim *sim, const Host *host)
{
    for (size_t i = 0; i < sim->actor_count; i++) {
        const Actor *actor = sim->actors[i];
        if (!actor->done && !actor->crashed && actor->identity.pid == host->pid &&
            actor->identity.process_start == host->process_start)
            return true;
    }
    return false;
}

static Actor *
actor_new(Sim *sim, const char *name, unsigned host)
{
    CAIRN_ASSERT(sim->actor_count < SIM_ACTOR_LIMIT);
    Actor *actor = calloc(1, sizeof *actor);
    CAIRN_ASSERT(actor != NULL);
    *actor = (Actor){
        .sim = sim,
        .name = name,
        .serial = (unsigned)sim->actor_count + 1,
        .host = host,
        .clock = {{actor_wall_us, actor_monotonic_ns, actor_sleep_ms}, actor},
        .random = {{actor_fill}, actor},
        .weight = 1,
    };
    actor->world = (World){world_real()->disk, &actor->clock.clock, &actor->random.random};
    draw_identity(actor);
    sem_init(&actor->wake, 0, 0);
    sim->actors[sim->actor_count++] = actor;
    return actor;
}

/* --- the baton --- */

static _Thread_local Actor *current_actor;

static bool
is_runnable(const Sim *sim, const Actor *actor)
{
    return !actor->done && (actor->crashed || (!actor->held && actor->wake_at_us <= sim->now_us));
}

/* By weight among those that are awake; when all sleep, time jumps to the first that wakes. */
static Actor *
next_actor(Sim *sim)
{
    for (;;) {
        uint64_t total = 0;
        int64_t first_us = INT64_MAX;
        for (size_t i = 0; i < sim->actor_count; i++) {
            const Actor *actor = sim->actors[i];
            if (is_runnable(sim, actor))
                total += actor->weight;
            else if (!actor->done && !actor->held && actor->wake_at_us < first_us)
                first_us = actor->wake_at_us;
        }
        if (total > 0) {
            uint64_t at = sim_below(sim, total);
            for (size_t i = 0; i < sim->actor_count; i++) {
                Actor *actor = sim->actors[i];
                if (!is_runnable(sim, actor))
                    continue;
                if (at < actor->weight)
                    return actor;
                at -= actor->weight;
            }
        }
        if (first_us == INT64_MAX)
            return NULL;
        /* While all sleep, somebody else may come. */
        if (sim->director == NULL || sim->failed || sim_below(sim, 4) == 0 ||
            !sim->director(sim, true))
            sim->now_us = first_us > sim->now_us ? first_us : sim->now_us;
    }
}

void
sim_hand_over(Sim *sim, Actor *from)
{
    Actor *next = next_actor(sim);
    if (next == from && from != NULL)
        return;
    sem_post(next != NULL ? &next->wake : &sim->all_done);
    if (from != NULL && !from->done) {
        while (sem_wait(&from->wake) != 0)
            continue;
    }
}

static void *
actor_thread(void *argument)
{
    Actor *actor = argument;
    Sim *sim = actor->sim;
    current_actor = actor;
    while (sem_wait(&actor->wake) != 0)
        continue;
    if (!actor->crashed) {
        const RepositoryConfig config = {
            .name = "sim", .path = "/", .encryption = "none", .compression = "none"};
        CairnError err = {0};
        actor->repository =
            repository_open_storage(&actor->world, &config, sim_storage_open(actor), false, &err);
        if (actor->repository != NULL) {
            test_encrypt_as_asked(actor->repository);
            actor->main(actor);
        } else if (!actor->crashed && !actor->met_fault)
            sim_fail(sim, "%s: %s", actor->name, err.message);
        repository_close(actor->repository);
    }
    actor->done = true;
    sim->live_count--;
    /* Somebody must go on, and the story may not be over with the last one's end. */
    while (sim->live_count == 0 && !sim->failed && sim->director != NULL &&
           sim->director(sim, true))
        continue;
    sim_hand_over(sim, actor);
    return NULL;
}

Actor *
sim_start(Sim *sim, const char *name, unsigned host, ActorMain *main)
{
    Actor *actor = actor_new(sim, name, host);
    actor->main = main;
    actor->weight = (uint32_t)(1u << sim_below(sim, 6));
    if (sim->faults_on && sim->faults.stale_us > 0)
        actor->stale_us = (int64_t)sim_below(sim, (uint64_t)sim->faults.stale_us);
    sim_trace(sim, actor, "starts on host %u", host);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, ACTOR_STACK);
    sim->live_count++;
    const int started = pthread_create(&actor->thread, &attributes, actor_thread, actor);
    CAIRN_ASSERT(started == 0);
    pthread_attr_destroy(&attributes);
    return actor;
}

static void
crash(Sim *sim, Actor *actor)
{
    sim_trace(sim, actor, "crashes");
    sim->crashes++;
    actor->crashed = true;
    actor->met_fault = true;
}

void
sim_power_cut(Sim *sim)
{
    sim_trace(sim, NULL, "the power goes");
    sim->power_cuts++;
    for (size_t i = 0; i < sim->actor_count; i++) {
        Actor *actor = sim->actors[i];
        if (!actor->done)
            actor->crashed = actor->met_fault = true;
    }
    for (unsigned i = 0; i < sim->host_count; i++)
        sim->boot[i]++;
    sim_storage_power_cut(sim);
    sim_check_after_power_cut(sim);
}

static void
draw_misfortune(Sim *sim, Actor *actor)
{
    if (!sim->faults_on || actor->no_faults)
        return;
    if (sim->disk_full && sim->now_us >= sim->disk_full_until_us)
        sim->disk_full = false;
    if (sim_chance(sim, sim->faults.no_space)) {
        sim->disk_full = true;
        sim->disk_full_until_us = sim->now_us + (int64_t)sim_below(sim, 120 * SIM_SECOND);
        sim_trace(sim, NULL, "the disk is full for a while");
    }
    if (sim_chance(sim, sim->faults.power_cut))
        sim_power_cut(sim);
    else if (sim_chance(sim, sim->faults.crash))
        crash(sim, actor);
    else if (sim_chance(sim, sim->faults.hang)) {
        const int64_t most = sim_below(sim, 2) == 0 ? 2 * SIM_HOUR : 3 * SIM_DAY;
        actor->wake_at_us = sim->now_us + (int64_t)sim_below(sim, (uint64_t)most);
        actor->hung = true;
        sim_trace(sim, actor, "hangs until %.0f", (double)actor->wake_at_us / 1e6);
    }
}

void
sim_linger(Actor *actor)
{
    Sim *sim = actor->sim;
    if (actor->crashed || actor->no_faults || !sim->faults_on ||
        !sim_chance(sim, sim->faults.linger))
        return;
    const int64_t most = sim->kind == SIM_NFS ? 26 * SIM_HOUR : SIM_HOUR;
    actor->wake_at_us = sim->now_us + (int64_t)sim_below(sim, (uint64_t)most);
    actor->hung = true;
    sim_trace(sim, actor, "lingers until %.0f", (double)actor->wake_at_us / 1e6);
}

bool
sim_step(Actor *actor)
{
    Sim *sim = actor->sim;
    if (actor->is_oracle)
        return true;
    if (!actor->crashed) {
        sim->now_us += 1 + (int64_t)sim_below(sim, STEP_US);
        if (++sim->steps > STEP_LIMIT)
            sim_fail(sim, "no end after %u steps in phase %s", STEP_LIMIT, sim->phase);
        sim_storage_arrivals(sim);
        draw_misfortune(sim, actor);
        if (sim->director != NULL && !sim->failed)
            sim->director(sim, false);
        if (!actor->crashed)
            sim_hand_over(sim, actor);
    }
    if (actor->crashed)
        CAIRN_ASSERT(++actor->calls_after_crash < CALLS_AFTER_CRASH);
    return !actor->crashed;
}

void
sim_wait(Sim *sim)
{
    sim_hand_over(sim, NULL);
    while (sem_wait(&sim->all_done) != 0)
        continue;
}

void
sim_join(Sim *sim)
{
    for (size_t i = 0; i < sim->actor_count; i++) {
        Actor *actor = sim->actors[i];
        if (actor->thread != 0) {
            pthread_join(actor->thread, NULL);
            actor->thread = 0;
        }
    }
}

void
sim_run_alone(Sim *sim, const char *name, unsigned host, ActorMain *main)
{
    if (sim->failed)
        return;
    Actor *actor = sim_start(sim, name, host, main);
    actor->no_faults = true;
    actor->stale_us = 0;
    sim_wait(sim);
    sim_join(sim);
}

/* --- who we are: the linker puts these in place of repository/host.c's (see the Makefile) --- */

void __wrap_host_self(Host *host_out);
bool __wrap_host_is_dead(const Host *host);
bool __wrap_host_put(json_t *object);

void
__wrap_host_self(Host *host_out)
{
    CAIRN_ASSERT(current_actor != NULL);
    *host_out = current_actor->identity;
}

bool
__wrap_host_is_dead(const Host *host)
{
    CAIRN_ASSERT(current_actor != NULL);
    const Host *self = &current_actor->identity;
    if (strcmp(host->host, self->host) != 0)
        return false;
    if (strcmp(host->boot_id, self->boot_id) != 0)
        return true;
    return !sim_is_alive(current_actor->sim, host);
}

/* host.c's own calls of host_self are not the linker's business. */
bool
__wrap_host_put(json_t *object)
{
    const Host *self = &current_actor->identity;
    json_t *fields = json_pack("{s:s, s:s, s:s, s:i, s:o}", "host", self->host, "machine_id",
                               self->machine_id, "boot_id", self->boot_id, "pid", self->pid,
                               "process_start", json_u64_text(self->process_start));
    const bool put = fields != NULL && json_object_update(object, fields) == 0;
    json_decref(fields);
    return put;
}

/* --- a run --- */

static uint32_t
some(Sim *sim, uint32_t most)
{
    /* Half the seeds leave a fault out altogether: what remains is seen the clearer. */
    return sim_below(sim, 2) == 0 ? 0 : (uint32_t)sim_below(sim, most);
}

static void
draw_story(Sim *sim)
{
    sim->kind = (SimStorageKind)sim_below(sim, 3);
    sim->host_count = sim->kind == SIM_LOCAL ? 1 : 1 + (unsigned)sim_below(sim, SIM_HOST_LIMIT);
    sim->faults = (SimFaults){
        .crash = some(sim, 12000),
        .power_cut = sim->kind == SIM_LOCAL ? some(sim, 6000) : 0,
        .hang = some(sim, 10000),
        .linger = some(sim, 150000),
        .lost = sim->kind == SIM_LOCAL ? 0 : some(sim, 20000),
        .late = sim->kind == SIM_S3 ? some(sim, 10000) : 0,
        .no_space = some(sim, 3000),
        .sync_error = sim->kind == SIM_S3 ? 0 : some(sim, 10000),
        .stale_us = sim->kind == SIM_NFS ? 60 * SIM_SECOND : 0,
    };
    sim->actions_left = 8 + (unsigned)sim_below(sim, 24);
    sim->is_tight = sim_below(sim, 2) == 0;
    sim->most_live =
        sim->is_tight ? 3 + (unsigned)sim_below(sim, 4) : 1 + (unsigned)sim_below(sim, 5);
}

void
sim_make_repository(Sim *sim)
{
    CairnError err = {0};
    const RepositoryConfig config = {
        .name = "sim", .path = "/", .encryption = "none", .compression = "none"};
    sem_init(&sim->all_done, 0, 0);
    sim->oracle = actor_new(sim, "oracle", 0);
    sim->oracle->is_oracle = true;
    sim->oracle->done = true;
    current_actor = sim->oracle;
    sim->oracle->repository = repository_open_storage(&sim->oracle->world, &config,
                                                      sim_storage_open(sim->oracle), true, &err);
    CAIRN_ASSERT(sim->oracle->repository != NULL);
    test_encrypt_as_asked(sim->oracle->repository);
}

bool
sim_run(Sim *sim, uint64_t seed, bool trace)
{
    *sim = (Sim){
        .seed = seed,
        .random = seed * UINT64_C(0xd1342543de82ef95) + 1,
        .now_us = INT64_C(1800000000) * SIM_SECOND,
        .trace = trace,
        .phase = "story",
    };
    draw_story(sim);
    sim_make_repository(sim);
    sim->faults_on = true;
    sim->director = sim_director;
    while (sim->live_count == 0 && sim->director(sim, true))
        continue;
    sim_wait(sim);
    sim_join(sim);
    sim->faults_on = false;
    sim->disk_full = false;
    sim->director = NULL;
    if (!sim->failed)
        sim_epilogue(sim);
    return !sim->failed;
}

void
sim_free(Sim *sim)
{
    repository_close(sim->oracle->repository);
    for (size_t i = 0; i < sim->actor_count; i++) {
        sem_destroy(&sim->actors[i]->wake);
        free(sim->actors[i]);
    }
    for (size_t i = 0; i < sim->backup_count; i++) {
        for (size_t k = 0; k < sim->backups[i].need_count; k++)
            free(sim->backups[i].needs[k]);
    }
    sim_storage_free(sim);
    sem_destroy(&sim->all_done);
}
