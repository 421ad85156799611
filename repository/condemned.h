/*
 * What collectors put down before they delete anything (docs/format.md, "Condemned" and "Doomed").
 *
 * A condemn list says which packs and dead backups one run found unneeded, and when. Writers refuse
 * sources whose packs any list names. `doomed.<run>` below a dead backup is that run's point of no
 * return: readers and un-expire look for it.
 *
 * Ownership: lists are freed with condemned_lists_free. Errors: what cannot be read is an error
 * that names the object, never an absent list. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_CONDEMNED_H
#define PGCAIRN_REPOSITORY_CONDEMNED_H

#include "repository/pack_set.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Most that one object holds: a reader's memory and the limit of small objects. */
enum { CONDEMNED_RANGES = 50000, CONDEMNED_DEAD = 50000 };

typedef struct {
    char run[17];
    uint32_t number;
    int64_t at_us;  /* wall clock of the run: says when to try, never whether it is safe */
    PackSet packs;  /* settled */
    BackupId *dead; /* ascending */
    size_t dead_count;
} CondemnedList;

typedef struct {
    CondemnedList *lists;
    size_t count, capacity;
} CondemnedLists;

void condemned_lists_free(CondemnedLists *lists);
#define SCOPED_CONDEMNED __attribute__((cleanup(condemned_lists_free))) CondemnedLists

/* Every list of every run of the cluster, read freshly. One removed meanwhile is absent. */
bool condemned_read_all(Repository *repository, const char *cluster, CondemnedLists *lists_out,
                        CairnError *err) MUST_CHECK;

/*
 * Writes packs and dead (both sorted) as condemned.<*next_number>... of the run, in as many objects
 * as the limits ask for; each is durable and added to lists. Nothing to say writes nothing.
 */
bool condemned_put(Repository *repository, const char *cluster, const char *run,
                   uint32_t *next_number, const PackSet *packs, const BackupId *dead,
                   size_t dead_count, CondemnedLists *lists, CairnError *err) MUST_CHECK;
bool condemned_remove(Repository *repository, const char *cluster, const CondemnedList *list,
                      CairnError *err) MUST_CHECK;

/* run's point of no return below the backup; durable. */
bool doomed_put(Repository *repository, const char *cluster, const BackupId *bid, const char *run,
                CairnError *err) MUST_CHECK;
/* Is there any, of any run? By name: one that cannot be read counts. */
bool doomed_any(Repository *repository, const char *cluster, const BackupId *bid, bool *any_out,
                CairnError *err) MUST_CHECK;
bool doomed_remove(Repository *repository, const char *cluster, const BackupId *bid,
                   const char *run, CairnError *err) MUST_CHECK;
bool doomed_remove_all(Repository *repository, const char *cluster, const BackupId *bid,
                       CairnError *err) MUST_CHECK;
/* Those whose process was one of this host and is certainly gone. */
bool doomed_remove_dead(Repository *repository, const char *cluster, const BackupId *bid,
                        bool *left_out, CairnError *err) MUST_CHECK;

#endif
