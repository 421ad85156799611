/*
 * Shared by serve.c (frames in, threads) and serve_request.c (what each request does). Nobody else
 * includes this.
 */
#ifndef PGCAIRN_STORAGE_SERVE_INTERN_H
#define PGCAIRN_STORAGE_SERVE_INTERN_H

#include "storage/serve.h"
#include "storage/ssh_protocol.h"

#include <pthread.h>
#include <stdatomic.h>

typedef enum { SLOT_FREE, SLOT_BUSY, SLOT_OPEN } SlotState;

/* BUSY: a request of it is under way, and whoever carries that out owns the slot. */
typedef struct {
    SlotState state;
    StorageWriter *writer;
    char *name;
    CairnError failed; /* sticky */
} WriterSlot;

typedef struct {
    SlotState state;
    unsigned reads; /* under way */
    StorageReader *reader;
    pthread_mutex_t lock; /* around its use: a reader is one thread's at a time */
} ReaderSlot;

typedef struct {
    const ServeOptions *options;
    Storage *storage;
    pthread_mutex_t slots_lock; /* around states and counts */
    WriterSlot writers[SSH_WRITER_LIMIT];
    ReaderSlot readers[SSH_READER_LIMIT];
    pthread_mutex_t output_lock;
    atomic_bool output_failed; /* nobody listens any more */
    atomic_uint under_way;     /* requests that have no answer yet */
    int64_t hello_until_ns;    /* 0: it was said */
} Serve;

/* A request out of a frame that is whole. */
typedef struct {
    SshFrame frame;
    uint8_t payload[SSH_REQUEST_LIMIT];
} ServeRequest;

/* serve_identity.c: of the repository that lies in the storage (SshWelcome). */
void serve_identity(Storage *storage, char identity_out[SSH_IDENTITY_SIZE + 1]);

/* Answers; where nobody listens any more nothing is done. payload NULL: empty. */
void serve_answer(Serve *serve, SshFrameType type, uint32_t request, uint32_t handle,
                  const void *payload, size_t size);
void serve_fail(Serve *serve, SshFrameType type, uint32_t request, uint32_t handle,
                const CairnError *err);

/* In the thread that reads frames, before the request is carried out: takes its slot. False when
 * the client broke the protocol. */
bool serve_request_admit(Serve *serve, const ServeRequest *request);
/* Carries out and answers. */
void serve_request_run(Serve *serve, const ServeRequest *request);

/* The frames that have no answer. False: the client broke the protocol. */
bool serve_write(Serve *serve, const SshFrame *frame, const uint8_t *payload);
bool serve_abandon(Serve *serve, const SshFrame *frame);
bool serve_close(Serve *serve, const SshFrame *frame);

#endif
