/*
 * A repository in a scratch directory with one cluster, "main", and its WAL store; and files to put
 * into it. Failures of the fixture itself abort. Threads: one.
 */
#ifndef PGCAIRN_TESTS_WAL_FIXTURE_H
#define PGCAIRN_TESTS_WAL_FIXTURE_H

#include "repository/wal_store.h"
#include "tests/unit/support/fault_disk.h"
#include "tests/unit/support/wal_builder.h"

typedef struct {
    FaultDisk disk;
    char root[256];
    uint32_t segment_size;
    Incarnation incarnation;
    Repository *repository;
    WalStore *store;
    int file; /* scratch file, for put and fetch */
} WalFixture;

void wal_fixture_open(WalFixture *fixture, uint32_t segment_size);
/* On a host that seals what it stores and cannot read it. */
void wal_fixture_open_sealing(WalFixture *fixture, uint32_t segment_size);
void wal_fixture_close(WalFixture *fixture);

/* A fixture for a test, as its state; segments of 1 MiB. */
int wal_fixture_setup(void **state);
int wal_fixture_teardown(void **state);

#define WAL_FIXTURE_TEST(function)                                                                 \
    cmocka_unit_test_setup_teardown(function, wal_fixture_setup, wal_fixture_teardown)

/* A whole segment full of records (random content), ending in one that goes on in the next.
 * malloc'ed. */
uint8_t *wal_fixture_segment(const WalFixture *fixture, uint32_t timeline, uint64_t number);
/* A segment with a few records, then a switch record when wanted, then zeros. malloc'ed. *used_out:
   bytes up to the end of the last record. */
uint8_t *wal_fixture_short_segment(const WalFixture *fixture, uint32_t timeline, uint64_t number,
                                   bool with_switch, size_t *used_out);

typedef struct {
    bool done;
    bool existed;
    bool tail_differs;
    CairnError err;
} PutResult;

PutResult wal_fixture_put(WalFixture *fixture, const char *name, const void *data, size_t size);
/* Put that must succeed. */
void wal_fixture_store(WalFixture *fixture, const char *name, const void *data, size_t size);
/* A whole segment under its own name, that must succeed. */
void wal_fixture_store_segment(WalFixture *fixture, uint32_t timeline, uint64_t number);
/* Fetches into the scratch file and compares; err is filled when it fails. */
bool wal_fixture_fetch(WalFixture *fixture, const char *name, CairnError *err);
bool wal_fixture_fetched_equals(const WalFixture *fixture, const void *data, size_t size);

/* The stored file again, every checksum right, but for these bits of byte `at` of its index; at is
   from the start of the facts when in_facts. */
void wal_fixture_forge(WalFixture *fixture, const char *name, bool in_facts, size_t at,
                       uint8_t bits);

/* Path of a stored object, given its name below the store's prefix; in a static buffer. */
const char *wal_fixture_object_path(const WalFixture *fixture, const char *below);

#endif
