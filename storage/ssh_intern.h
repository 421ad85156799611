/*
 * Shared by ssh.c (the storage), ssh_writer.c and ssh_reader.c. Nobody else includes this.
 */
#ifndef PGCAIRN_STORAGE_SSH_INTERN_H
#define PGCAIRN_STORAGE_SSH_INTERN_H

#include "common/digest.h"
#include "storage/ssh.h"
#include "storage/ssh_link.h"

#include <stdatomic.h>

/* How often a request is asked again on a new connection. */
enum { SSH_ATTEMPTS = 3 };

typedef struct {
    Storage base; /* first */
    const World *world;
    SshLink *link;
    char *host;
    char **argv;                  /* NULL-terminated; NULL in tests */
    char *words;                  /* what argv's words lie in */
    atomic_size_t ahead;          /* bytes that readers hold ahead */
    uint8_t digest_key[KEY_SIZE]; /* for comparing what we wrote with what is there; never leaves */
} SshStorage;

/* A request that may be asked twice; repeats it on new connections. payload and limit as in
 * SshRequest.
 */
typedef struct {
    SshFrameType type;
    const void *body;
    size_t body_size;
    ByteWriter *payload; /* NULL: none is expected */
    size_t payload_limit;
    bool listing;
} SshCall;

bool ssh_call(SshStorage *storage, const SshCall *call, CairnError *err) MUST_CHECK;
/* DURABLE, EXISTS and the like: its body is a name, its answer a number or nothing (value_out
 * NULL). */
bool ssh_call_named(SshStorage *storage, SshFrameType type, const char *name, uint64_t *value_out,
                    CairnError *err) MUST_CHECK;

/* A name as a request's body. */
typedef struct {
    uint8_t bytes[2 + STORAGE_NAME_LIMIT];
    size_t size;
} SshName;
SshName ssh_name(const char *name);

StorageWriter *ssh_create(Storage *base, const char *name, CairnError *err);
StorageReader *ssh_open(Storage *base, const char *name, CairnError *err);

#endif
