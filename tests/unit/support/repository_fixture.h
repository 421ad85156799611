/*
 * Repositories for tests: in memory, or in a scratch directory over any World; and reproducible
 * randomness. Failures of the fixture itself abort.
 */
#ifndef PGCAIRN_TESTS_REPOSITORY_FIXTURE_H
#define PGCAIRN_TESTS_REPOSITORY_FIXTURE_H

#include "repository/backup_id.h"
#include "repository/fate.h"
#include "repository/object.h"
#include "repository/repository.h"

/* Fixed keys, epoch 1. with_private_key false: a sealed host. Returned owned. */
Keyring *test_keyring(KeyMode mode, bool with_private_key);
/* Everything that goes through a fixture's repository is encrypted when the environment variable
   PGCAIRN_TEST_ENCRYPTION says "epoch" or "sealed": the same tests once more, on other bytes. */
void test_encrypt_as_asked(Repository *repository);

/* compression: none, lz4 or zstd. repository_storage gives its memory storage. Returned owned. */
Repository *memory_repository(const char *compression);
/* root: directory that is made (borrowed). */
Repository *scratch_repository(const World *world, const char *root);

/* Appends bytes as a frame that is not compressed. */
ObjectFrame test_append(ObjectWriter *writer, const void *data, size_t size);

BackupId test_backup_id(uint64_t sequence);
/* A fate with every field filled, of a backup of cluster "main" without packs. Returned owned. */
Fate *test_fate(const BackupId *bid, const char *label);

/* xorshift; *state is not 0. */
uint64_t test_random(uint64_t *state);
/* 0 .. limit - 1 */
uint64_t test_random_below(uint64_t *state, uint64_t limit);
/* Bytes that compress somewhat, as pages do. */
void test_fill(uint64_t *state, void *data, size_t size);

#endif
