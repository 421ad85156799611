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

#include "repository/catalog.h"
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

/* A fixture of its own for a test, as its state. */
int verify_fixture_setup(void **state);
int verify_fixture_setup_far(void **state);
int verify_fixture_teardown(void **state);

/* The same test twice: on a disk, and where several small requests are made at a time. */
#define VERIFY_TEST(function) VERIFY_TEST_NEAR(function), VERIFY_TEST_FAR(function)
#define VERIFY_TEST_NEAR(function)                                                                 \
    cmocka_unit_test_setup_teardown(function, verify_fixture_setup, verify_fixture_teardown)
#define VERIFY_TEST_FAR(function)                                                                  \
    {                                                                                              \
        .name = #function "_far_away", .test_func = function,                                      \
        .setup_func = verify_fixture_setup_far, .teardown_func = verify_fixture_teardown           \
    }

int64_t verify_fixture_time(uint64_t segment);

/* Another backup like second, on the first's data pack; segment: where it starts and stops.
 * with_refs false: its summary does not name the pack. */
BackupId verify_fixture_add(VerifyFixture *fixture, const char *label, uint64_t segment,
                            bool with_refs);
/* The same, which needs the segments from first to last. */
BackupId verify_fixture_add_long(VerifyFixture *fixture, const char *label, uint64_t first,
                                 uint64_t last);
void verify_fixture_expire(VerifyFixture *fixture, const BackupId *bid);

/* "c/main/b/<BID>/<below>", in a static buffer of its own for each of the last 8 calls. */
const char *verify_fixture_name(const BackupId *bid, const char *below);
/* Name of a WAL segment's object, likewise. */
const char *verify_fixture_segment(const VerifyFixture *fixture, uint64_t segment);
/* Of the data pack that all three share. */
const char *verify_fixture_first_pack(const VerifyFixture *fixture);

/* One object of each kind. */
typedef struct {
    const char *title;
    int backup; /* -1: a WAL segment */
    const char *below;
    uint64_t segment;
    const char *labels; /* who needs it */
} VerifyVictim;

enum { VERIFY_VICTIMS = 7 };
extern const VerifyVictim verify_victims[VERIFY_VICTIMS];
const char *verify_victim_name(const VerifyFixture *fixture, const VerifyVictim *victim);

typedef void Mutilate(const VerifyFixture *fixture, const char *name, const char *other);
Mutilate mutilate_header, mutilate_body, mutilate_middle, mutilate_trailer, mutilate_digest,
    mutilate_cut, mutilate_empty, mutilate_append, mutilate_swap, mutilate_remove;

/* Objects in the repository. */
size_t verify_fixture_count(const VerifyFixture *fixture);

/* From now on the storage says that it is far away. */
void verify_fixture_move_away(VerifyFixture *fixture);
/* From now on who opens an object whose name ends so waits until `count` do: a meeting. When they
 * do not come about within half a minute, nobody waits any more. Meetings so far; -1: that. */
void verify_fixture_meet(VerifyFixture *fixture, const char *end, int count);
/* The same of who asks whether there is a WAL segment, whichever. */
void verify_fixture_meet_asking(VerifyFixture *fixture, int count);
int verify_fixture_meetings(void);
/* Called before every opening of an object, until it is set to NULL. */
typedef void VerifyOnOpen(void *context, const char *name);
void verify_fixture_on_open(VerifyFixture *fixture, VerifyOnOpen *on_open, void *context);
/* From now on this object cannot be read; NULL: no more. */
void verify_fixture_refuse(VerifyFixture *fixture, const char *name);

/* A run that must succeed. */
VerifyReport *verify_fixture_run(VerifyFixture *fixture, VerifyScope scope, uint32_t slices);
/* Only the flags of what is returned may be looked at. */
CatalogBackup verify_fixture_look_up(const VerifyFixture *fixture, const BackupId *bid);
/* Backup FIRST, SECOND or THIRD. */
bool verify_fixture_is_verified(const VerifyFixture *fixture, int backup);
bool verify_fixture_is_damaged(const VerifyFixture *fixture, int backup);
/* Does evidence against the backup name this data pack of the first's? */
bool verify_fixture_is_suspect(const VerifyFixture *fixture, const BackupId *bid, uint32_t pack);
/* NULL when there is none. */
const VerifyFinding *verify_find(const VerifyReport *report, const char *object);

#endif
