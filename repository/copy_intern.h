/*
 * What the copy's files share: copy.c (the order), copy_work.c (threads that copy what is queued),
 * copy_wal.c (which WAL), copy_fates.c (which backups may exist in the copy). Nobody else includes
 * this.
 */
#ifndef PGCAIRN_REPOSITORY_COPY_INTERN_H
#define PGCAIRN_REPOSITORY_COPY_INTERN_H

#include "common/queue.h"
#include "repository/catalog.h"
#include "repository/copy.h"
#include "repository/pack_set.h"
#include "repository/repository.h"
#include "storage/storage.h"

#include <pthread.h>

typedef struct {
    const CopyOptions *options;
    CopyReport *report;
    Storage *from;          /* borrowed from the repository, or owned where there is none */
    Storage *to;            /* owned */
    Repository *repository; /* the source; NULL: it cannot be opened, for want of keys */
    bool owns_from;
    uint8_t repository_id[REPOSITORY_ID_SIZE];

    /* The phase under way. */
    Queue *queue;
    pthread_t threads[COPY_JOBS_LIMIT];
    int thread_count;
    pthread_mutex_t mutex; /* guards the rest and the report */
    bool failed;
    CairnError failure; /* the first that ends the run */
    /* Objects that are in the copy, and are not the source's: so many are remembered. In the
       report's arena. */
    const char **unusable;
    size_t unusable_count;
    bool unusable_more;
} Copy;

/* -- copy_work.c -- */
/* Between them objects are copied by copy_add, in any order. end: all of them are done, or the
   first failure. */
bool copy_begin(Copy *copy, CairnError *err) MUST_CHECK;
bool copy_end(Copy *copy, CairnError *err) MUST_CHECK;
/* False when the phase has failed: copy_end tells why. */
bool copy_add(Copy *copy, const char *name) MUST_CHECK;
/* Everything below a prefix, except names that `wanted` refuses (NULL: none; the last component,
   and the whole name). */
typedef bool CopyWanted(void *context, const char *last, const char *name);
bool copy_add_tree(Copy *copy, const char *prefix, CopyWanted *wanted, void *context,
                   CairnError *err) MUST_CHECK;
/* One object, by the caller's thread. *there_out: it is in the copy now. False: the run ends. */
bool copy_one(Copy *copy, const char *name, bool *there_out, CairnError *err) MUST_CHECK;
/* Under the mutex or with no phase under way. */
void copy_note(Copy *copy, const char *object, const char *text);

/* It is in the copy, but other content or damaged, as this run has seen. With no phase under way.
 */
bool copy_is_unusable(const Copy *copy, const char *object);

/* -- copy_wal.c -- */
/* The WAL of one cluster that the chosen backups need. */
bool copy_chosen_wal(Copy *copy, const char *cluster, const CatalogBackup *const *chosen,
                     size_t count, CairnError *err) MUST_CHECK;

/* -- copy_fates.c -- */
/* What stands beside the backups, then their fates. */
bool copy_backups(Copy *copy, const char *cluster, const BackupId *ids, size_t count,
                  CairnError *err) MUST_CHECK;

#endif
