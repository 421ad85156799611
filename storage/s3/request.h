/*
 * The request engine: signed, repeated, explained.
 *
 * A call is one S3 request with all its attempts. It signs each attempt anew, repeats what may help
 * (retry.h), adopts the store's clock when ours is off, fetches credentials again when they ran
 * out, and turns what is left into an error that names the operation, the object, the store's code
 * and request id. Between attempts it waits, and a signal ends the waiting.
 *
 * Errors: NOT_FOUND only when the store itself said NoSuchKey; USAGE for a wrong bucket or region;
 * DENIED, UNAVAILABLE, NO_SPACE, UNSUPPORTED, CORRUPT, CANCELLED. Threads: a client is shared.
 *
 *     SCOPED_S3_ANSWER S3Answer answer = {0};
 *     if (!s3_call(client, &(S3Request){.method = "GET", .key = key, .expect_404 = true}, &answer,
 * err)) return false;
 */
#ifndef PGCAIRN_STORAGE_S3_REQUEST_H
#define PGCAIRN_STORAGE_S3_REQUEST_H

#include "common/config.h"
#include "common/world.h"
#include "storage/s3/address.h"
#include "storage/s3/answers.h"
#include "storage/s3/credentials.h"
#include "storage/s3/http.h"
#include "storage/s3/sign.h"

enum {
    S3_CONNECTIONS = 64, /* of one process: others wait for one */
    S3_SMALL_BODY_LIMIT = 64 << 10,
};

typedef struct S3Client S3Client;

/* config and its strings are borrowed for as long as the client lives. Asks nothing of the store.
 */
S3Client *s3_client_new(const World *world, const S3Config *config, CairnError *err) MUST_CHECK;
void s3_client_free(S3Client *client);
SCOPED_TYPE(S3Client, s3_client_free);

const S3Address *s3_client_address(const S3Client *client);
const S3Config *s3_client_config(const S3Client *client);
const World *s3_client_world(const S3Client *client);
S3SignScheme s3_client_scheme(const S3Client *client);
S3CredentialSource *s3_client_credentials(S3Client *client);
/* How long a store that has served us is waited for when it is in trouble; S3_PATIENCE_MS at first.
 */
void s3_client_set_patience(S3Client *client, int64_t patience_ms);
/* The store's time as far as it told us, microseconds since 1970. */
int64_t s3_client_now_us(const S3Client *client);

typedef struct {
    const char *method;
    const char *key; /* NULL: the bucket itself */
    /* Each ends with a pair that has no name; NULL: none. */
    const S3Pair *query;
    const S3Pair *headers; /* names in lower case; besides those of the signature */
    const void *body;
    size_t body_size;
    const uint8_t *body_digest; /* its SHA-256; NULL: computed */
    const char *operation;      /* for messages: "PutObject" */

    void *into; /* where a 200 or 206 goes; NULL: answer.body */
    size_t into_size;
    size_t body_limit; /* of answer.body; 0: S3_SMALL_BODY_LIMIT */
    int slow_ms;       /* the store may be silent for so long; 0: 30 s */
    bool one_attempt;

    /* Statuses that are no failure. 404: only the store's own NoSuchKey (or NoSuchUpload). */
    bool expect_404, expect_412, expect_416;
    const char *whole_root; /* the XML document's root, when a cut answer must be noticed; NULL */
} S3Request;

typedef struct {
    HttpAnswer http;
    S3Error error;  /* of an expected 404, 412 or 416 */
    bool ambiguous; /* an earlier attempt got no answer, or a 5xx, and may have been carried out */
} S3Answer;

/* True for 2xx and expected statuses: answer_out->http.status tells which. */
bool s3_call(S3Client *client, const S3Request *request, S3Answer *answer_out,
             CairnError *err) MUST_CHECK;
void s3_answer_free(S3Answer *answer);
#define SCOPED_S3_ANSWER __attribute__((cleanup(s3_answer_free)))

#endif
