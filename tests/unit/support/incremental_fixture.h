/*
 * Backups upon backups in repositories of their own below a scratch directory, whose reference
 * summaries are checked against their maps. Failures are cmocka's. Threads: one.
 */
#ifndef PGCAIRN_TESTS_INCREMENTAL_FIXTURE_H
#define PGCAIRN_TESTS_INCREMENTAL_FIXTURE_H

#include "repository/backup_writer.h"
#include "tests/unit/support/backup_fixture.h"

/* For the whole group, once, before anything else here. */
int incremental_set_up(void **state);
/* Returned owned. */
Repository *incremental_repository(const char *compression);

typedef struct {
    int jobs;
    unsigned refresh_percent;
    const Fate *parent;
} IncrementalRun;

/* Returned owned. */
BackupWriter *incremental_begin(Repository *repository, const IncrementalRun *run);
/* A whole backup; counts_out may be NULL. Returned owned. */
Fate *incremental_back_up(Repository *repository, const IncrementalRun *run, const TestFile *files,
                          size_t count, BackupCounts *counts_out);
/* The summary says exactly what the map says: every data pack with its live units, every map pack
 * that holds a node (and all of our own, which hold the root, lists and frame tables). */
void incremental_check_refs(Repository *repository, const Fate *fate);

/* Another content each time. */
TestFile incremental_file(const char *path, uint64_t units, const uint32_t *versions);
/* Random files with content, at least one pack. */
void incremental_some_files(TestFile *files, size_t count, uint64_t units);

/* Of an object, in a static buffer. */
char *incremental_object_path(Repository *repository, const char *name);

#endif
