/*
 * Bringing back what was deleted or overwritten in a storage that keeps versions (R-5 row 58).
 *
 * One walk over all versions; what the rules (heal_rules.h) want is compared where only that tells,
 * and copied on top of its own name by the store. Needs no keys: names and bytes only. Nothing is
 * removed, no version and no object; a run that was interrupted is run again, and does the rest.
 *
 * What it cannot know: that the oldest version is genuine (somebody may have taken the name before
 * us; `verify` tells), what was created since TIME and should not be there (marks that expire
 * backups), and collectors that run at the same time, which may delete again what comes back. So
 * cron jobs that expire and collect are ended first.
 *
 * Errors: UNSUPPORTED where the storage keeps no versions; DENIED when all is refused; what one
 * object alone fails at is noted and the others go on. Memory: the queue, some 400 kB, and 1 MB a
 * job. Threads: its own; `note` is called by one at a time.
 */
#ifndef PGCAIRN_REPOSITORY_HEAL_H
#define PGCAIRN_REPOSITORY_HEAL_H

#include "common/progress.h"
#include "repository/heal_rules.h"

enum { HEAL_JOBS_DEFAULT = 4, HEAL_JOBS_LIMIT = 32 };

typedef enum {
    HEAL_DONE,   /* brought back; in a dry run: would be */
    HEAL_SAME,   /* what is there has the same content */
    HEAL_NEWER,  /* what is there was put down later, and is whole: it stays */
    HEAL_FAILED, /* err says why */
} HealResult;

/* Of each item but HEAL_SAME. err: of HEAL_FAILED. False: no more of them can be taken. */
typedef bool HealNote(void *context, const HealItem *item, HealResult result,
                      const CairnError *failure, CairnError *err);

typedef struct {
    Storage *storage;
    int64_t since_us;
    bool dry_run; /* reads, and changes nothing */
    int jobs;
    HealNote *note;
    void *context;
    Progress *progress; /* may be NULL */
} HealOptions;

typedef struct {
    HealCounts counts;
    struct {
        uint64_t hidden, overwritten, bytes; /* brought back, or would be */
    } subjects[HEAL_SUBJECTS];
    uint64_t hidden, overwritten, bytes;
    uint64_t newer, failed;
    int64_t first_us, last_us; /* changes of what was brought back; 0: none */
    CairnError failure;        /* the first */
} HealReport;

bool heal_run(const HealOptions *options, HealReport *report_out, CairnError *err) MUST_CHECK;

#endif
