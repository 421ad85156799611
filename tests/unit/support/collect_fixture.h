/*
 * A small world for the collector's tests: a repository whose clock the test sets, backups that are
 * names of packs with a summary and a fate, attempts with an intent. Cluster "main". Failures are
 * cmocka's.
 */
#ifndef PGCAIRN_TESTS_COLLECT_FIXTURE_H
#define PGCAIRN_TESTS_COLLECT_FIXTURE_H

#include "common/world.h"
#include "repository/backup_id.h"
#include "repository/collect.h"
#include "repository/pack_set.h"
#include "repository/repository.h"

typedef struct {
    Clock clock;   /* first */
    Random random; /* quick, and the same every time */
    uint64_t random_state;
    World world;
    int64_t wall_us;
    int64_t monotonic_ns;
    Repository *repository;
} Lab;

/* In memory; or over a storage (taken), or below a root with a disk. lab_close frees. */
void lab_open(Lab *lab);
void lab_open_storage(Lab *lab, Storage *storage);
void lab_open_disk(Lab *lab, const Disk *disk, const char *root);
void lab_close(Lab *lab);
void lab_pass(Lab *lab, int64_t seconds);

/* One in memory, closed by scope. */
#define OPEN_LAB(name)                                                                             \
    __attribute__((cleanup(lab_close))) Lab name;                                                  \
    lab_open(&name)

typedef struct {
    uint32_t packs, map_packs; /* of its own: 0 .. n - 1 */
    const PackRange *others;   /* what it names besides; ascending by creator, data before map */
    size_t other_count;
    uint64_t start_lsn, stop_lsn; /* 0: sequence * 16 MiB */
    uint64_t system_id;           /* 0: 1 */
} LabBackup;

/* Packs, summary and a COMMITTED fate. */
BackupId lab_backup(Lab *lab, uint64_t sequence, const LabBackup *backup);
/* The same for an open attempt, when it is still open; packs that are there stay. */
bool lab_publish(Lab *lab, const BackupId *bid, const LabBackup *backup);
/* An intent of a foreign host, and packs data packs. has_floor false: no wal_floor. */
BackupId lab_attempt(Lab *lab, uint64_t sequence, const BackupId *parent, const BackupId *salvage,
                     uint32_t packs);
/* The same, revoked. */
BackupId lab_revoked(Lab *lab, uint64_t sequence, uint32_t packs);
void lab_expire(Lab *lab, const BackupId *bid);

/* Is the pack there? */
bool lab_has(Lab *lab, const BackupId *creator, bool is_map, uint32_t pack);
/* Packs of both kinds that are there, of the first `limit` numbers. */
unsigned lab_packs(Lab *lab, const BackupId *creator, uint32_t limit);
bool lab_has_object(Lab *lab, const BackupId *bid, const char *last);
/* Names directly below c/main/<below>. */
unsigned lab_count(Lab *lab, const char *below);
/* Everything that the backup's summary names is there. */
bool lab_is_whole(Lab *lab, const BackupId *bid);
/* c/main/b/<BID>/<last> becomes rubbish; posix and memory. */
void lab_damage(Lab *lab, const char *name);

/* A run with this grace; fails the test when it fails. */
CollectReport lab_collect(Lab *lab, int64_t grace_s);

/* One of everything: what stays, what goes, and why. */
typedef struct {
    BackupId old;     /* expired, nobody needs it */
    BackupId base;    /* expired, but child needs data pack 0 and map pack 0 */
    BackupId child;   /* a backup */
    BackupId dead;    /* a revoked attempt */
    BackupId attempt; /* open, of another host; parent is child */
    BackupId newest;  /* a backup */
} LabStage;

LabStage lab_stage(Lab *lab);
/* What is needed is all there; what is needed by nobody is all gone, and no list left. */
void lab_check_kept(Lab *lab, const LabStage *stage);
void lab_check_gone(Lab *lab, const LabStage *stage);

#endif
