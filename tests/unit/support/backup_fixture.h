/*
 * Synthetic backups: files whose content follows from their description, written through a
 * BackupWriter in random pieces, and read back through map and packs, byte for byte. Failures are
 * cmocka's.
 */
#ifndef PGCAIRN_TESTS_BACKUP_FIXTURE_H
#define PGCAIRN_TESTS_BACKUP_FIXTURE_H

#include "repository/backup_writer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    MapClass class;
    char path[MAP_KEY_LIMIT];
    bool is_directory;
    uint32_t mode;
    uint64_t size_bytes;
    uint64_t seed;         /* not 0; of the content */
    unsigned zero_percent; /* of the units */
    const uint32_t
        *versions; /* of each unit: another number, other content; NULL: all 0. Borrowed */
} TestFile;

/* A version whose unit is zeros. */
#define TEST_UNIT_ZERO UINT32_MAX

/* What a unit of the file holds: UNIT_SIZE bytes, what is beyond the file's end being zero. */
void test_file_unit(const TestFile *file, uint64_t unit, uint8_t data[UNIT_SIZE]);

/* begin; NULL and an error. scratch: directory for sort runs. */
BackupWriter *test_backup_begin(Repository *repository, const char *scratch, int jobs,
                                CairnError *err) MUST_CHECK;
/* All files in the order given, in pieces of random sizes. False as soon as the writer says so. */
bool test_backup_write(BackupWriter *writer, const TestFile *files, size_t count, uint64_t random,
                       CairnError *err) MUST_CHECK;
/* finish_data and commit; fate_out (may be NULL) is returned owned. */
bool test_backup_commit(BackupWriter *writer, Fate **fate_out, CairnError *err) MUST_CHECK;
/* The three together; bid_out (may be NULL) is filled as soon as there is one. */
bool test_backup(Repository *repository, const char *scratch, const TestFile *files, size_t count,
                 BackupId *bid_out, CairnError *err) MUST_CHECK;

/* The backup holds exactly these files, in key order. Sorts files. */
void test_backup_compare(Repository *repository, const Fate *fate, TestFile *files, size_t count);

#endif
