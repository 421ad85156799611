/*
 * A repository, or some of its backups, into a replica under the same repository id (replica.h).
 *
 * What is copied are stored bytes, each object checked on the way (copy_object.h). A copy of
 * everything needs no keys. A copy of chosen backups reads which packs they need, and so does the
 * proof below, where the source can be opened.
 *
 * The replica is valid at any moment, and so after any crash: first the replica's descriptor, then
 * keys and incarnations, packs, WAL; then, from a fresh listing, what stands beside each backup
 * (summary, marks, evidence, doomed objects); last its fate, and only when every pack that its
 * summary names is there. Whatever the source deletes meanwhile was marked as expired before, so it
 * is marked as expired in the replica, too. Attempts without a fate are not copied (but packs that
 * a copy of chosen backups has below an id without intent and fate), nor is anything of collectors
 * and readers. Nothing in a replica is ever removed.
 *
 * Running it again goes on where it ended, and brings what is new: what is there with the same
 * size and SHA-256 is passed over. CONFLICT, by name: other content is there.
 *
 * Errors: of the storages, of which the first ends the run. Damage of single objects, and
 * conflicts, are counted and listed, and the rest is copied. Memory: 1 MiB a job; names in a
 * bounded queue; the ids of one cluster's backups; packs as ranges. Threads: one caller; `jobs`
 * inside. Two runs into one replica do no harm.
 */
#ifndef PGCAIRN_REPOSITORY_COPY_H
#define PGCAIRN_REPOSITORY_COPY_H

#include "common/arena.h"
#include "common/config.h"
#include "common/progress.h"
#include "common/scoped.h"
#include "common/world.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { COPY_JOBS_DEFAULT = 4, COPY_JOBS_LIMIT = 64, COPY_PROBLEMS_LISTED = 1000 };

typedef struct {
    const World *world;
    const RepositoryConfig *from, *to;
    const char *cluster; /* NULL: all of them; a choice of backups needs one */
    /* Chosen backups: their labels, ids, or "latest"; and all that began at or after since_us. Of
       the first kind comes the WAL that they need to be consistent, of the second all WAL from the
       oldest one on. Nothing chosen: everything. */
    const char *const *sets;
    size_t set_count;
    bool has_since;
    int64_t since_us;
    int jobs;
    bool reads_present; /* what is in the copy already is read too, not only its ends */
    Progress *progress; /* NULL: none */
} CopyOptions;

typedef struct {
    const char *object;
    const char *text;
} CopyTrouble;

typedef struct {
    Arena *arena;
    uint64_t copied, copied_bytes; /* objects that are new */
    uint64_t present;              /* objects that were there */
    uint64_t damaged, conflicts;   /* objects that were not copied, or are damaged in the copy */
    uint64_t backups_copied;       /* whose fate is new */
    uint64_t backups_present;
    uint64_t backups_withheld; /* something that they need is not in the copy, or not whole */
    CopyTrouble *problems;     /* the first COPY_PROBLEMS_LISTED */
    size_t problem_count;
} CopyReport;

CopyReport *copy_run(const CopyOptions *options, CairnError *err) MUST_CHECK;
void copy_report_free(CopyReport *report);
SCOPED_TYPE(CopyReport, copy_report_free);

#endif
