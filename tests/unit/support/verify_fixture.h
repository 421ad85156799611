/*
 * A repository on disk with three backups that share what they can, and the WAL that they need, for
 * tests of verify; and hands to damage it with.
 *
 *     first   a full one: data pack 0, map pack 0
 *     second  first's data pack; its map pack 0 holds root and leaf
 *     third   first's data pack; its map pack 0 holds a root, whose leaf is second's
 *
 * Each is within one segment of timeline 1: first in 1, second in 3, third in 5; 1 to 6 are stored,
 * and each segment holds one commit at verify_fixture_time(segment). Failures abort. Threads: one.
 */
#ifndef PGCAIRN_TESTS_VERIFY_FIXTURE_H
#define PGCAIRN_TESTS_VERIFY_FIXTURE_H

#include "repository/damage.h"
#include "repository/verify.h"
#include "tests/unit/support/map_fixture.h"
#include "tests/unit/support/wal_fixture.h"

enum { FIRST, SECOND, THIRD, VERIFY_BACKUPS };
enum { VERIFY_SEGMENT = 1 << 20, VERIFY_SEGMENTS = 6 };

typedef struct {
    WalFixture wal;
    Repository *repository; /* wal.repository */
    BackupId bids[VERIFY_BACKUPS];
    uint64_t next_sequence;
} VerifyFixture;

void verify_fixture_open(VerifyFixture *fixture);
void verify_fixture_close(VerifyFixture *fixture);

int64_t verify_fixture_time(uint64_t segment);

/* Another backup like second, on the first's data pack; segment: where it starts and stops.
 * with_refs false: its summary does not name the pack. */
BackupId verify_fixture_add(VerifyFixture *fixture, const char *label, uint64_t segment,
                            bool with_refs);
void verify_fixture_expire(VerifyFixture *fixture, const BackupId *bid);

/* "c/main/b/<BID>/<below>", in a static buffer of its own for each of the last 8 calls. */
const char *verify_fixture_name(const BackupId *bid, const char *below);
/* Name of a WAL segment's object, likewise. */
const char *verify_fixture_segment(const VerifyFixture *fixture, uint64_t segment);

typedef void Mutilate(const VerifyFixture *fixture, const char *name, const char *other);
Mutilate mutilate_header, mutilate_body, mutilate_middle, mutilate_trailer, mutilate_digest,
    mutilate_cut, mutilate_empty, mutilate_append, mutilate_swap, mutilate_remove;

/* Objects in the repository. */
size_t verify_fixture_count(const VerifyFixture *fixture);

/* Called before every opening of an object, until it is set to NULL. */
typedef void VerifyOnOpen(void *context, const char *name);
void verify_fixture_on_open(VerifyFixture *fixture, VerifyOnOpen *on_open, void *context);
/* From now on this object cannot be read; NULL: no more. */
void verify_fixture_refuse(VerifyFixture *fixture, const char *name);

/* A run that must succeed. */
VerifyReport *verify_fixture_run(VerifyFixture *fixture, VerifyScope scope, uint32_t slices);
/* NULL when there is none. */
const VerifyFinding *verify_find(const VerifyReport *report, const char *object);

#endif
