/*
 * A store that answers whatever a test wants, for the S3 driver: a thread that reads requests,
 * keeps them, and gives the next answer of a row. Bucket "bucket", prefix "ours". Failures are
 * cmocka's.
 *
 *     static Liar liar;
 *     liar = (Liar){.answers = ANSWERS, .count = 2};
 *     liar_start(&liar), ask liar.storage, liar_end(&liar), then look at liar.requests
 */
#ifndef PGCAIRN_TESTS_S3_LIAR_H
#define PGCAIRN_TESTS_S3_LIAR_H

#include "storage/s3/s3.h"

#include <pthread.h>

enum { LIAR_REQUESTS_LIMIT = 64, LIAR_REQUEST_SIZE = 4096 };

typedef struct {
    const char *status; /* "200 OK" */
    const char *body;
} LiarAnswer;

typedef struct {
    const LiarAnswer *answers;
    size_t count; /* then they begin anew, until LIAR_REQUESTS_LIMIT; then comes `last` */
    LiarAnswer last;
    int listener;
    pthread_t thread;
    size_t asked; /* this and the next: the thread's, until liar_end */
    char requests[LIAR_REQUESTS_LIMIT][LIAR_REQUEST_SIZE]; /* whole, as far as they fit */
    char endpoint[64];
    const char *access_key_file; /* NULL: a key that stays */
    const char *lock_mode;       /* with lock_days; NULL: none */
    int lock_days;
    Storage *storage;
} Liar;

void liar_start(Liar *liar);
void liar_end(Liar *liar);

#endif
