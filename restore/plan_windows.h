/*
 * What can be reached, as text for people: one line a window, per timeline from the end of the
 * oldest backup that serves to the end of the unbroken WAL. (Part of plan.)
 */
#ifndef PGCAIRN_RESTORE_PLAN_WINDOWS_H
#define PGCAIRN_RESTORE_PLAN_WINDOWS_H

#include "repository/catalog.h"
#include "repository/wal_archive.h"

#include <stdbool.h>
#include <stddef.h>

/* Newest first; all of one incarnation. */
typedef struct {
    const CatalogBackup **backups;
    size_t count;
} PlanCandidates;

enum { PLAN_WINDOWS_SIZE = 900 };

/* Never longer than the hint of an error; what does not fit is counted. */
bool plan_windows_describe(WalArchive *archive, const PlanCandidates *candidates,
                           char text[PLAN_WINDOWS_SIZE], CairnError *err) MUST_CHECK;

#endif
