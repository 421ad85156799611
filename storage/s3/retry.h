/*
 * Whether a request is sent again, and when.
 *
 * Every request of ours may be sent twice: reads; creates that say `If-None-Match: *`, whose 412
 * after a lost answer is compared with what we sent; parts and completions of an upload, which
 * have an id; deletions of names that are used once. So the only question is whether it may help.
 * Bounded in number and in time; full jitter, so that many who were refused together do not come
 * back together. Pure. Threads: any.
 */
#ifndef PGCAIRN_STORAGE_S3_RETRY_H
#define PGCAIRN_STORAGE_S3_RETRY_H

#include "storage/s3/answers.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    /* Only a backstop: at random delays of ten seconds in the mean, patience ends sooner. */
    S3_ATTEMPTS_LIMIT = 300,
    S3_DELAY_FIRST_MS = 100,   /* the bound of the first random delay; doubles ... */
    S3_DELAY_LIMIT_MS = 20000, /* ... up to this */
    S3_RETRY_AFTER_LIMIT_MS = 120000,
    /* How long a store that has served this process is waited for. One that never has (a wrong
       address, a network that is not there) gets less. */
    S3_PATIENCE_MS = 900000,
    S3_PATIENCE_UNSEEN_MS = 15000,
};

typedef enum {
    S3_RETRY_NO,
    S3_RETRY_LATER,
    S3_RETRY_CLOCK,       /* at once, with the store's time; once */
    S3_RETRY_CREDENTIALS, /* at once, with fresh credentials; once */
} S3Retry;

/* How an attempt ended: no answer (status 0), or one, and its code when the body was an S3 error.
 */
typedef struct {
    int status;
    const char *code;
    bool hopeless; /* no answer, and none to come: a certificate that is not trusted, a bad URL */
} S3Outcome;

S3Retry s3_retry_decision(const S3Outcome *outcome);

/* Milliseconds to wait before attempt number `attempt` + 1 (attempt: 1 or more so far).
   random: any 32 bits. retry_after_ms: what the store asked for, 0 when nothing. */
int64_t s3_retry_delay_ms(int attempt, uint32_t random, int64_t retry_after_ms);

/* "120" (seconds) to milliseconds, within S3_RETRY_AFTER_LIMIT_MS; 0 for anything else. */
int64_t s3_retry_after_ms(const char *text);

#endif
