/*
 * Reads what is stored and says what is missing, damaged or out of reach, and what that touches.
 *
 * quick: every object that backups need is there and its header, trailer and index are right.
 * full: every byte of every object is read; every frame decoded, every page compared with its
 * fingerprint, every WAL file with its digest, every map walked.
 * sample: what quick does, and full for one slice of the objects; the slices rotate, so that
 * `slices` runs read everything. Which slice is next follows from the evidence of earlier runs,
 * wherever those ran.
 *
 * Each object is read once, however many backups refer to it, and what is wrong with it is said of
 * all of them. What only expired backups need is promised to nobody and not looked at; what
 * disappears because its backups expire meanwhile is no finding.
 *
 * A host that only seals cannot decode what holds pages and WAL; there `full` compares checksums of
 * all that is stored and decodes maps.
 *
 * Evidence is added to each backup (evidence.h): verified (scrubbed, by a host that only seals), or
 * damaged with the packs that are not to be relied on (damage.h). Memory: ranges of packs
 * (refs_sweep.h), and what verify_memory.h says; findings are listed up
 * to VERIFY_FINDINGS_LISTED. Threads: one caller; `jobs` workers inside, which read different
 * objects. What is found, and in which order, does not depend on their number.
 */
#ifndef PGCAIRN_REPOSITORY_VERIFY_H
#define PGCAIRN_REPOSITORY_VERIFY_H

#include "common/arena.h"
#include "common/progress.h"
#include "repository/catalog.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VERIFY_FINDINGS_LISTED = 1000,
    VERIFY_FILES_LISTED = 32,
    VERIFY_LABELS_LISTED = 256,
    VERIFY_JOBS_DEFAULT = 2, /* as restore's */
    VERIFY_JOBS_LIMIT = 64,
};

typedef enum { VERIFY_QUICK, VERIFY_FULL, VERIFY_SAMPLE } VerifyScope;
typedef enum { FINDING_MISSING, FINDING_DAMAGED, FINDING_UNREACHABLE } FindingKind;
enum { FINDING_KINDS = 3 };

/* What recovery cannot reach since a WAL object is missing or damaged. Times are 0 when not known.
 */
typedef struct {
    uint32_t timeline;
    uint64_t from_lsn; /* replay ends here */
    int64_t from_us;   /* newest moment before */
    bool reachable_again;
    uint64_t to_lsn;     /* if so: the end of the next backup after the hole */
    int64_t to_us;       /* its time */
    const char *next;    /* its label */
    const char *backups; /* labels of those from which recovery gets no further */
} VerifyMoments;

typedef struct {
    FindingKind kind;
    const char *object;  /* name in the repository, or of a WAL file that is not there */
    const char *text;    /* what is wrong */
    const char *backups; /* labels that need the object, comma-separated; "" when none does */
    const char *files;   /* cluster files and blocks touched, "" when not known */
    const VerifyMoments *moments; /* NULL: it cuts no recovery window */
} VerifyFinding;

typedef struct {
    Arena *arena;
    char scope[32];  /* "quick", "full", "sample 3/7" */
    bool scrub_only; /* pages and WAL are sealed and cannot be read here: checksums alone */
    VerifyFinding *findings;
    size_t listed;
    uint64_t finding_count;
    uint64_t counts[FINDING_KINDS];
    uint64_t object_count;
    uint64_t byte_count; /* stored bytes of the objects looked at */
    size_t backup_count;
    size_t good_backup_count;
    size_t wal_file_count;
    const char **damaged_backups; /* labels */
    size_t damaged_backup_count;
} VerifyReport;

typedef struct {
    const char *cluster;
    const char *selector; /* one backup and its WAL; NULL: everything of the cluster */
    VerifyScope scope;
    uint32_t slices;           /* of VERIFY_SAMPLE: EVIDENCE_SLICES_MIN to EVIDENCE_SLICES_MAX */
    Progress *progress;        /* may be NULL */
    int jobs;                  /* 0: VERIFY_JOBS_DEFAULT */
    uint64_t max_memory_bytes; /* 0: what is usual, and what jobs need (verify_memory.h) */
} VerifyOptions;

/* Returned owned; NULL only when the repository as a whole cannot be read. USAGE: a sample of one
 * backup, or in an impossible number of slices. */
VerifyReport *verify_run(Repository *repository, const VerifyOptions *options,
                         CairnError *err) MUST_CHECK;
void verify_report_free(VerifyReport *report);
SCOPED_TYPE(VerifyReport, verify_report_free);

/* Slice, counted from 1, that an object of this name belongs to; the same for ever
 * (docs/format.md, "Evidence"). */
bool verify_slice_of(const char *name, uint32_t slices, uint32_t *slice_out,
                     CairnError *err) MUST_CHECK;

#endif
