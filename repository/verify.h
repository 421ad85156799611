/*
 * Reads what is stored and says what is missing, damaged or out of reach, and what that touches.
 *
 * quick: every object of the backups is there and its header, trailer and index are right.
 * full: every byte of every object is read; every frame decoded, every page compared with its
 * fingerprint, every WAL file with its digest, every map walked. Evidence is added to each backup
 * that was read in full: verified, or damaged. Memory: one pack's directory; findings are listed up
 * to VERIFY_FINDINGS_LISTED. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_VERIFY_H
#define PGCAIRN_REPOSITORY_VERIFY_H

#include "common/arena.h"
#include "common/progress.h"
#include "repository/catalog.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VERIFY_FINDINGS_LISTED = 1000, VERIFY_FILES_LISTED = 32 };

typedef enum { VERIFY_QUICK, VERIFY_FULL } VerifyScope;
typedef enum { FINDING_MISSING, FINDING_DAMAGED, FINDING_UNREACHABLE } FindingKind;

typedef struct {
    FindingKind kind;
    const char *object;  /* name in the repository */
    const char *text;    /* what is wrong */
    const char *backups; /* labels that need the object, comma-separated; "" when none does */
    const char *files;   /* cluster files and blocks touched, "" when not known */
} VerifyFinding;

typedef struct {
    Arena *arena;
    VerifyFinding *findings;
    size_t listed;
    uint64_t finding_count;
    uint64_t object_count;
    uint64_t byte_count; /* stored bytes of the objects looked at */
    size_t backup_count;
    size_t good_backup_count;
    size_t wal_file_count;
} VerifyReport;

typedef struct {
    const char *cluster;
    const char *selector; /* one backup and its WAL; NULL: everything of the cluster */
    VerifyScope scope;
    Progress *progress; /* may be NULL */
} VerifyOptions;

/* Returned owned; NULL only when the repository as a whole cannot be read. */
VerifyReport *verify_run(Repository *repository, const VerifyOptions *options,
                         CairnError *err) MUST_CHECK;
void verify_report_free(VerifyReport *report);
SCOPED_TYPE(VerifyReport, verify_report_free);

#endif
