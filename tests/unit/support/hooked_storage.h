/*
 * A Storage around another one that counts calls and, at the n-th, fails, dies, or lets somebody
 * else act first: the moments at which processes meet.
 *
 * Counted: create, commit, open, list, exists, make_durable, remove. Not counted: reading an open
 * object, writing before commit, tidying. Ownership: the inner storage is taken. Threads: one.
 */
#ifndef PGCAIRN_TESTS_HOOKED_STORAGE_H
#define PGCAIRN_TESTS_HOOKED_STORAGE_H

#include "storage/storage.h"

typedef struct {
    Storage base; /* first */
    Storage *inner;
    unsigned calls;   /* so far */
    unsigned fail_at; /* 1: the first from now; 0: never */
    CairnErrorKind fail_kind;
    bool fail_after; /* do it, then report the failure: a lost reply */
    bool fail_on;    /* and every later one too: the process is gone */
    bool is_limited;
    uint64_t room; /* bytes that may still be stored, in blocks of 4096 */
    /* Called before each counted call, with its number; its own calls are not counted. */
    void (*hook)(void *context, unsigned call);
    void *context;
    bool hooking;
} HookedStorage;

HookedStorage *hooked_storage_new(Storage *inner);
/* Forgets calls, failures, hook and limit. */
void hooked_storage_reset(HookedStorage *storage);
/* A disk with this much room left; removing gives back. */
void hooked_storage_limit(HookedStorage *storage, uint64_t room);

#endif
