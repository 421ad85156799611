/*
 * Signature version 4 of requests to S3: what goes into the Authorization header.
 *
 * Source: "Authenticating Requests (AWS Signature Version 4)" of the S3 API reference, and for
 * S3_SIGN_GOOG4 "V4 signing process" of Cloud Storage: the same with other names (x-goog-date,
 * GOOG4-HMAC-SHA256, goog4_request), needed for x-goog-* headers such as its precondition.
 * The path is encoded once (S3 differs from other services here). The body's digest is always
 * signed: what was stored is what we sent. Every header given is signed.
 *
 * Ownership: a request borrows everything; a signature owns its texts until s3_signature_free,
 * which wipes them (a session token is a secret). Errors: USAGE for a header or query that cannot
 * be signed, INTERNAL. Threads: any.
 *
 *     SCOPED_S3_SIGNATURE S3Signature signature = {0};
 *     if (!s3_sign(&request, &credentials, region, now_us, &signature, err)) ...
 *     url: scheme://host + signature.path + (signature.query[0] ? "?" : "") + signature.query
 *     headers: request's own, Host, then signature.headers[0 .. header_count - 1]
 */
#ifndef PGCAIRN_STORAGE_S3_SIGN_H
#define PGCAIRN_STORAGE_S3_SIGN_H

#include "common/digest.h"
#include "common/error.h"
#include "storage/s3/credentials.h"

#include <stddef.h>
#include <stdint.h>

typedef enum { S3_SIGN_AWS4, S3_SIGN_GOOG4 } S3SignScheme;

/* GOOG4 for storage.googleapis.com and names below it, AWS4 for all others. A port is ignored. */
S3SignScheme s3_sign_scheme(const char *host);

typedef struct {
    const char *name;  /* header: lower case; query: as it stands, not encoded */
    const char *value; /* NULL as "" */
} S3Pair;

enum { S3_SIGN_PAIR_LIMIT = 32 };

typedef struct {
    S3SignScheme scheme;
    const char *method;
    const char *host;    /* of the Host header: with the port when it is not the scheme's own */
    const char *path;    /* not encoded, starts with '/': "/bucket/prefix/name" or "/prefix/name" */
    const S3Pair *query; /* any order; at most S3_SIGN_PAIR_LIMIT */
    size_t query_count;
    const S3Pair *headers; /* what will be sent besides host and what signing adds; likewise */
    size_t header_count;
    const uint8_t *payload_digest; /* SHA-256 of the body; NULL: there is none */
} S3SignRequest;

/* authorization, x-amz-date, x-amz-content-sha256, x-amz-security-token. */
enum { S3_SIGNATURE_HEADER_LIMIT = 4 };

typedef struct {
    char *path;  /* encoded */
    char *query; /* encoded, sorted, without '?'; "" when there is none */
    char *headers[S3_SIGNATURE_HEADER_LIMIT]; /* "name: value" */
    size_t header_count;
} S3Signature;

/* region NULL: us-east-1 (GOOG4: auto). now_us: wall clock, corrected by what the store said. */
bool s3_sign(const S3SignRequest *request, const S3Credentials *credentials, const char *region,
             int64_t now_us, S3Signature *signature_out, CairnError *err) MUST_CHECK;
void s3_signature_free(S3Signature *signature);
#define SCOPED_S3_SIGNATURE __attribute__((cleanup(s3_signature_free)))

#endif
