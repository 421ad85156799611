/*
 * The deterministic simulator: real protocol code, run by actors over a model of storage.
 *
 * What: actors (writers, collectors, expirers, readers, ...) are threads of which exactly one runs
 * at any time. Each call of the storage is a step: there a seeded generator says who goes on, what
 * fails, who crashes, when the power goes. The same seed is the same run, to the byte.
 * Time: virtual microseconds; steps take a few milliseconds of it, actors may sleep or hang for
 * days of it.
 * Crash: a crashed actor's calls fail from then on without any effect, so that its code unwinds and
 * frees what it holds; whatever it concludes is ignored.
 * Failures: the first broken invariant is kept in sim->failure and ends the run.
 * Threads: all state belongs to whoever holds the baton (sim_step hands it on).
 */
#ifndef PGCAIRN_TESTS_SIM_H
#define PGCAIRN_TESTS_SIM_H

#include "repository/backup_id.h"
#include "repository/host.h"
#include "repository/repository.h"

#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the storage is like. */
typedef enum {
    SIM_LOCAL, /* a local file system: volatile until synced, the power may go, one host */
    SIM_NFS,   /* hosts share it: listings may be stale for a while, replies get lost */
    SIM_S3,    /* one atomic step an object; replies get lost, requests arrive late */
} SimStorageKind;

enum {
    SIM_ACTOR_LIMIT = 128,
    SIM_HOST_LIMIT = 3,
    SIM_BACKUP_LIMIT = 64,
    SIM_NEED_LIMIT = 96,
    SIM_LATE_LIMIT = 64,
};

#define SIM_CLUSTER "main"
#define SIM_SECOND INT64_C(1000000)
#define SIM_HOUR (3600 * SIM_SECOND)
#define SIM_DAY (24 * SIM_HOUR)

/* Chances in a million of each step, drawn anew for each seed. */
typedef struct {
    uint32_t crash;
    uint32_t power_cut;
    uint32_t hang;       /* the actor sleeps, for up to three days */
    uint32_t linger;     /* ... before it creates or removes something, for a while */
    uint32_t lost;       /* the request never arrives, or its reply does not */
    uint32_t late;       /* the request arrives after its sender gave it up */
    uint32_t no_space;   /* a period of a full disk begins */
    uint32_t sync_error; /* visible, and perhaps never durable */
    int64_t stale_us;    /* listings are up to this old */
} SimFaults;

typedef struct Sim Sim;
typedef struct Actor Actor;
typedef void ActorMain(Actor *actor);

typedef struct {
    Clock clock; /* first */
    Actor *actor;
} ActorClock;

typedef struct {
    Random random; /* first */
    Actor *actor;
} ActorRandom;

/* One process of one host. */
struct Actor {
    Sim *sim;
    const char *name;
    ActorMain *main;
    unsigned serial;
    unsigned host;
    Host identity;
    ActorClock clock;
    ActorRandom random;
    World world;
    Repository *repository;
    pthread_t thread;
    sem_t wake;
    int64_t wake_at_us;
    uint32_t weight; /* how eager it is to be the next */
    bool is_oracle;  /* sees the storage as it is, takes no step, meets no fault */
    bool no_faults;  /* for the end of a run: everything works */
    bool crashed, done;
    bool met_fault; /* an error was injected into a call of it */
    bool hung;      /* it slept for long in between */
    unsigned calls_after_crash;
    int64_t dead_sleep_us; /* what it slept after its crash */
    int64_t stale_us;      /* of its own listings; 0 none */

    const BackupId *subject; /* in a scene: the backup that it acts on; NULL: one that it draws */
    bool salvages;           /* ... which a writer takes for a dead attempt, not for its parent */
    bool held;               /* in a scene: it waits for the script */
    const char *stop_call, *stop_part; /* ... before this call of a name that holds the part */
    unsigned calls_left;               /* ... or this many calls later; 0 never */
};

typedef struct {
    char *name;
    uint8_t *data;
    size_t size;
    bool seen;    /* by whoever looks */
    bool durable; /* survives a power cut for sure */
    int64_t created_us, removed_us;
    unsigned creator; /* actor serial */
} SimObject;

typedef struct {
    char *path;
    bool durable;
    int64_t created_us;
    unsigned creator;
} SimDirectory;

/* A request that is still on its way. */
typedef struct {
    char *name;
    uint8_t *data; /* NULL: a removal */
    size_t size;
    int64_t due_us;
    unsigned creator;
} SimLate;

/* What the simulator knows of an attempt, whatever the storage says. */
typedef struct {
    BackupId bid;
    char *needs[SIM_NEED_LIMIT]; /* packs and map packs, its own and others' */
    uint8_t digests[SIM_NEED_LIMIT][SHA256_SIZE];
    size_t need_count;
    unsigned host;
    bool reported;        /* commit_publish said true to a living actor */
    bool expire_reported; /* mark_add said true, and no un-expire was begun since */
    bool unexpire_begun;
    bool committed; /* by the fate that is seen */
    bool expired;   /* by the marks that are seen: readers leave it alone */
} SimBackup;

struct Sim {
    uint64_t seed, random;
    SimStorageKind kind;
    SimFaults faults;
    int64_t now_us;
    uint64_t steps;
    bool faults_on;
    bool disk_full;
    int64_t disk_full_until_us;
    unsigned host_count, boot[SIM_HOST_LIMIT];

    Actor *actors[SIM_ACTOR_LIMIT]; /* all that ever were; threads of those not done yet */
    size_t actor_count;
    size_t live_count;
    sem_t all_done;
    bool (*director)(Sim *sim, bool idle); /* may start actors; false: no more will come */

    SimObject *objects; /* sorted by name; gone ones stay, for stale listings */
    size_t object_count, object_capacity;
    SimDirectory *directories;
    size_t directory_count, directory_capacity;
    struct SimWriter *writers; /* open ones */
    SimLate late[SIM_LATE_LIMIT];
    size_t late_count;

    Actor *oracle;
    SimBackup backups[SIM_BACKUP_LIMIT];
    size_t backup_count;
    unsigned actions_left, most_live;
    bool is_tight; /* much at once, and no grace */
    const char *phase;

    bool trace;
    bool failed;
    char failure[1024];

    /* For people: what the run was about. */
    unsigned crashes, power_cuts, commits, revocations, packs_removed, restores, expiries,
        unexpiries, collections;
};

/* --- sim.c: time, chance, actors --- */

/* A world with nobody in it, and an empty repository. The kind of storage, hosts and faults are set
 * already. */
void sim_make_repository(Sim *sim);
/* Gives the baton to whoever is next, NULL: from outside. Returns when it comes back; from outside,
 * at once. */
void sim_hand_over(Sim *sim, Actor *from);
/* Until nobody can go on: all are done, or held. */
void sim_wait(Sim *sim);
void sim_join(Sim *sim);
/* Runs the seed's whole story; false when an invariant broke (failure says which). */
bool sim_run(Sim *sim, uint64_t seed, bool trace);
void sim_free(Sim *sim);

uint64_t sim_random(Sim *sim);
uint64_t sim_below(Sim *sim, uint64_t limit);
bool sim_chance(Sim *sim, uint32_t in_a_million);

Actor *sim_start(Sim *sim, const char *name, unsigned host, ActorMain *main);
/* Runs one actor without faults and without others, to its end. */
void sim_run_alone(Sim *sim, const char *name, unsigned host, ActorMain *main);
/* Before something is created or removed: time for others to do much. */
void sim_linger(Actor *actor);
/* One step passes: others may run, the actor may crash. False: it has crashed. */
bool sim_step(Actor *actor);
void sim_power_cut(Sim *sim);
bool sim_is_alive(const Sim *sim, const Host *host);

void sim_fail(Sim *sim, const char *format, ...) PRINTF_LIKE(2, 3);
void sim_trace(const Sim *sim, const Actor *actor, const char *format, ...) PRINTF_LIKE(3, 4);

/* --- sim_scene.c: actors by a script, each running alone to where the script wants it --- */

/* An empty repository, no faults but stale listings on SIM_NFS, no grace but there. */
void sim_scene_begin(Sim *sim, SimStorageKind kind, uint64_t seed);
/* One of the cast, on a backup of its own choice or this one (borrowed); it does nothing yet. A
 * writer's backup is a child of it that inherits everything; should it fail, its packs go. */
Actor *sim_scene_enter(Sim *sim, const char *role, unsigned host, const BackupId *subject);
/* It goes on until it is about to make this call ("create", "remove", "open", "exists", "list",
 * ...) of a name that holds the part; "" and "": any call. False: it came to its end before that.
 */
bool sim_scene_until(Actor *actor, const char *call, const char *part);
/* So many calls of an actor that waits before one. False: it came to its end. */
bool sim_scene_calls(Actor *actor, unsigned calls);
void sim_scene_finish(Actor *actor);
/* Whoever is left crashes; then the end of every story. False when an invariant broke. */
bool sim_scene_end(Sim *sim);
/* Before each named call: here a scene holds an actor. */
void sim_scene_stop(Actor *actor, const char *call, const char *name);

/* --- sim_storage.c, sim_disk.c: the model --- */

/* A handle of the actor (NULL on no account); what lies in it belongs to the simulation. */
Storage *sim_storage_open(Actor *actor);
SimObject *sim_object(const Sim *sim, const char *name);
bool sim_object_is_seen(const Sim *sim, const char *name);
/* Object and every directory above it would survive a power cut now. */
bool sim_object_is_durable(const Sim *sim, const char *name);
/* What is volatile is kept or lost, each by chance. */
void sim_storage_power_cut(Sim *sim);
void sim_storage_arrivals(Sim *sim);
void sim_storage_free(Sim *sim);

/* --- sim_check.c: the invariants --- */

SimBackup *sim_backup(Sim *sim, const BackupId *bid);
/* The storage changed under this name. */
void sim_check_created(Sim *sim, const char *name);
void sim_check_removed(Sim *sim, const char *name);
void sim_check_after_power_cut(Sim *sim);
/* commit_publish said true. */
void sim_check_reported(Sim *sim, SimBackup *backup);
/* Reads everything of every live backup, and compares. */
void sim_check_all_readable(Sim *sim);
/* Nothing but what the live backups need is left. */
void sim_check_space(Sim *sim);

/* --- sim_actors.c: what actors do --- */

/* One of the cast by its name. */
ActorMain *sim_role(const char *name);
/* What may happen next in a story. */
bool sim_director(Sim *sim, bool idle);
/* The end of it: faults have stopped. */
void sim_epilogue(Sim *sim);

/* --- sim_backup.c: a backup of tiny packs, by the real commit --- */

typedef struct {
    const BackupId *parent;  /* NULL: full */
    const BackupId *salvage; /* NULL: none */
    bool inherits_all;       /* else some of the parent's packs, by chance */
} SimBackupOptions;

bool sim_backup_write(Actor *actor, const SimBackupOptions *options, CairnError *err) MUST_CHECK;
/* Reads it as a restore does: fate, refs, map, every pack and every unit. */
bool sim_backup_read(Actor *actor, const BackupId *bid, CairnError *err) MUST_CHECK;

#endif
