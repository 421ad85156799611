/*
 * What the files of the collector share. Inside repository/ only.
 *
 * collect.c        the run, the protocol and its proof
 * collect_roots.c  looking: pins, intents, fates, marks; what is alive
 * collect_lists.c  what is condemned, and since when
 * collect_packs.c  what is there and not alive; deleting it
 * collect_wal.c    which WAL is needed
 */
#ifndef PGCAIRN_REPOSITORY_COLLECT_INTERN_H
#define PGCAIRN_REPOSITORY_COLLECT_INTERN_H

#include "common/digest.h"
#include "repository/collect.h"
#include "repository/condemned.h"
#include "repository/intent.h"
#include "repository/wal_expire.h"

typedef enum { FATE_OPEN, FATE_COMMITTED, FATE_REVOKED } CollectFate;

/* One id below `b/`: a backup, a dead attempt or one that is still open. */
typedef struct {
    BackupId bid;
    CollectFate fate;                      /* single-use: what is not open stays what it is */
    bool expired;                          /* COMMITTED, and the highest mark is expire */
    bool pending;                          /* ... or unexpire-pending */
    bool claimed;                          /* pinned, or named by the intent of an open attempt */
    bool has_intent, has_refs, has_doomed; /* as last listed, or read */
    bool has_packs;                        /* of a dead one: there are any; as enumerated */
    bool protects;  /* its packs and what its summary names are out of `sweep` */
    bool ripe;      /* dead, and condemned long enough ago */
    bool doomed;    /* by this run */
    bool chosen;    /* it was known when `sweep` was chosen */
    bool has_floor; /* OPEN: floor_lsn is known. COMMITTED: floor_lsn is where it starts */
    uint64_t floor_lsn, stop_lsn;
    uint64_t system_id; /* of COMMITTED, and of OPEN with an intent */
    int major;
    uint8_t refs_sha256[SHA256_SIZE];
} CollectBackup;

typedef struct {
    Incarnation incarnation;
    WalReach *reach;
    size_t reach_count;
} CollectWal;

typedef struct {
    Repository *repository;
    const char *cluster;
    const CollectOptions *options;
    CollectReport *report;
    char run[17];
    int64_t grace_us;
    CollectBackup *backups; /* ascending */
    size_t count;
    CondemnedLists lists;
    uint32_t next_list;
    PackSet garbage; /* is there, and nothing alive names it */
    PackSet sweep;   /* what this round deletes */
    bool short_of_space;
    CollectWal wal[INCARNATION_LIMIT];
    size_t wal_count;
} Collect;

/* Roots: what must stay. An un-expire that is under way makes alive already. */
static inline bool
collect_is_root(const CollectBackup *backup)
{
    return backup->fate == FATE_OPEN || backup->claimed ||
           (backup->fate == FATE_COMMITTED && !backup->expired);
}

/*
 * Reads pins, then intents, then fates, then marks, all freshly, but what can never change: a fate
 * that was there. Any that cannot be read is an error. doomed_only: marks of backups that this run
 * doomed, and of no others.
 */
bool collect_look(Collect *collect, bool doomed_only, CairnError *err) MUST_CHECK;

/* Adds what a backup's summary names; nothing for one without (attempts; those whose packs are gone
 * already). CORRUPT when a backup that readers may use has none. */
bool collect_add_refs(const Collect *collect, const CollectBackup *backup, PackSet *packs,
                      CairnError *err) MUST_CHECK;
/* Takes a backup's own packs and what its summary names out of `sweep`. */
bool collect_protect(Collect *collect, CollectBackup *backup, CairnError *err) MUST_CHECK;
/* Out of `sweep` and `garbage`, for every root that was none before. */
bool collect_protect_roots(Collect *collect, CairnError *err) MUST_CHECK;

/* Dead, and something of it is left that only a sweep may take: it is condemned first. */
bool collect_is_condemnable(const CollectBackup *backup);
/* `sweep` becomes what is unneeded, condemned long enough ago, and not named by the dead that are
 * not; the latter alone are not ripe. */
bool collect_choose_sweep(Collect *collect, CairnError *err) MUST_CHECK;
/* Out of `sweep`: a dead backup that does not go in this round may still come back, whole. One
   whose summary is damaged never comes back (collect_unexpire.c): it spares its own packs only. */
bool collect_spare(Collect *collect, CollectBackup *backup, CairnError *err) MUST_CHECK;
/* The same for backups that were made and expired since `sweep` was chosen: this run does not doom
   them, so they may be un-expired, with packs of a dead attempt that they salvaged. */
bool collect_spare_new(Collect *collect, CairnError *err) MUST_CHECK;
/* What no list names yet gets one, and its grace begins. */
bool collect_condemn_new(Collect *collect, CairnError *err) MUST_CHECK;
/* This run's own list of what it is to sweep. */
bool collect_condemn_ripe(Collect *collect, CairnError *err) MUST_CHECK;
/* Those that say nothing any more, and what dead runs left beside them. */
bool collect_remove_lists(Collect *collect, CairnError *err) MUST_CHECK;
/* What is condemned and not deleted, and when that will be. */
bool collect_report_waiting(Collect *collect, CairnError *err) MUST_CHECK;

typedef struct {
    uint64_t packs, map_packs, bytes;
} CollectCount;

/* Fills garbage, and has_packs of the dead. */
bool collect_enumerate(Collect *collect, CairnError *err) MUST_CHECK;
/* Deletes `sweep`, takes it out of garbage and counts it in the report. */
bool collect_sweep(Collect *collect, CairnError *err) MUST_CHECK;
/* Those of a set that are there now. */
bool collect_count(Collect *collect, const PackSet *set, CollectCount *count_out,
                   CairnError *err) MUST_CHECK;
/* What is left of a dead backup beside its fate and marks. */
bool collect_bury(Collect *collect, CollectBackup *backup, CairnError *err) MUST_CHECK;
/* Room for the protocol's own small objects on a full disk: kept while there is space, removed when
 * there is none. *freed_out: there was something to remove. */
bool collect_reserve_keep(Collect *collect, CairnError *err) MUST_CHECK;
bool collect_reserve_spend(Collect *collect, bool *freed_out, CairnError *err) MUST_CHECK;

/* How far WAL has got, per incarnation; before the look that the deletion rests on. */
bool collect_wal_reach(Collect *collect, CairnError *err) MUST_CHECK;
bool collect_wal_sweep(Collect *collect, CairnError *err) MUST_CHECK;

void collect_close(Collect *collect);

#endif
