/*
 * A Disk for tests: passes every call to the real one, but fails the n-th call of a kind, transfers
 * less than asked for, and writes down what was called, in order.
 *
 * Ownership: the caller's struct; fault_disk_init fills it, nothing is allocated.
 * Threads: any may call; interrupt is for one. What is set or read by the test, while none calls.
 *
 *     FaultDisk disk;
 *     fault_disk_init(&disk);
 *     disk.fail[FAULT_FSYNC] = (Fault){.at_call = 1, .error = EIO};
 *     ... code under test with &disk.world ...
 *     assert_true(fault_disk_order(&disk, FAULT_FSYNC, FAULT_LINK));
 */
#ifndef PGCAIRN_TESTS_FAULT_DISK_H
#define PGCAIRN_TESTS_FAULT_DISK_H

#include "common/world.h"

#include <stdbool.h>

typedef enum {
    FAULT_OPEN, /* both openat and openat_beneath */
    FAULT_CLOSE,
    FAULT_READ,  /* and pread */
    FAULT_WRITE, /* and pwrite */
    FAULT_FSYNC, /* of a file */
    FAULT_FSYNC_DIRECTORY,
    FAULT_WRITEBACK,
    FAULT_FSTAT, /* and fstatat */
    FAULT_FCHMOD,
    FAULT_MKDIR,
    FAULT_LINK,
    FAULT_UNLINK,
    FAULT_RENAME,
    FAULT_READDIR,
    FAULT_KINDS,
} FaultKind;

typedef struct {
    unsigned at_call; /* 1: the first one from now; 0: never */
    int error;        /* errno of the failure */
    bool after;       /* do it, then report the failure: a reply that was lost */
    bool for_good;    /* every later call fails, too */
} Fault;

enum { FAULT_LOG_LIMIT = 1024 };

typedef struct {
    Disk disk; /* first */
    World world;
    Fault fail[FAULT_KINDS];
    unsigned calls[FAULT_KINDS];
    size_t transfer_limit; /* most bytes a read or write moves; 0: all */
    bool interrupt;        /* every second read and write answers EINTR first */
    bool interrupted;
    bool pretend_sync; /* fsync is counted and may fail, but waits for no disk */
    FaultKind log[FAULT_LOG_LIMIT];
    size_t log_size;
} FaultDisk;

void fault_disk_init(FaultDisk *fault);
/* Forgets calls and faults, keeps nothing armed. */
void fault_disk_reset(FaultDisk *fault);
/* The last `first` was called before the first `then`, and both were called. */
bool fault_disk_order(const FaultDisk *disk, FaultKind first, FaultKind then);

#endif
