/*
 * A cluster that lives, for tests of incremental backups: files whose units have versions, which
 * change, grow, shrink, come and go; and generations of it to compare with. Failures are cmocka's.
 */
#ifndef PGCAIRN_TESTS_LIVING_CLUSTER_H
#define PGCAIRN_TESTS_LIVING_CLUSTER_H

#include "repository/fate.h"
#include "tests/unit/support/backup_fixture.h"

enum { FILE_LIMIT = 400, UNIT_LIMIT = 200 };

typedef struct {
    TestFile files[FILE_LIMIT];
    size_t count;
    uint64_t random;
    uint64_t next_seed;
    unsigned next_name;
} TestCluster;

void test_cluster_add_file(TestCluster *cluster);
/* As if it had been in use since the last backup. */
void test_cluster_evolve(TestCluster *cluster);
void test_cluster_free(TestCluster *cluster);

/* A generation as it was, for later comparison. */
typedef struct {
    TestFile *files;
    size_t count;
    Fate *fate;
} Generation;

/* Copies the files; takes the fate. */
Generation generation_keep(const TestCluster *cluster, Fate *fate);
void generation_forget(Generation *generation);
/* Units that are not zeros, and not the same in the parent. */
uint64_t generation_changed_units(const TestFile *files, size_t count, const Generation *parent);

#endif
