/*
 * Who we are to an object store: an access key, its secret, and a session token when they are
 * temporary.
 *
 * Where they come from; the first that is configured decides, and when that one fails, the search
 * ends with its failure (falling through to somebody else's rights would hide a mistake):
 *
 *     configuration    access-key[-file], secret-key[-file], session-token-file
 *     profile          when `profile` or `credentials-file` is configured
 *     environment      AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 *     profile          AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE, ~/.aws
 *     web identity     AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN, AWS_ROLE_SESSION_NAME
 *     container        AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI, with
 *                      AWS_CONTAINER_AUTHORIZATION_TOKEN[_FILE]
 *     instance         metadata service version 2, unless AWS_EC2_METADATA_DISABLED=true
 *
 * Temporary ones are fetched again before they expire, by one thread, while the others go on with
 * what they have. Files are read again when fetched: tokens rotate. Secrets' files must be closed
 * to others (common/secret.h); tokens that a platform puts there and rotates need not be, since
 * Kubernetes mounts them 0644 into a container of one user.
 *
 * Errors: USAGE for what is configured wrongly, UNSUPPORTED for profiles that we cannot follow,
 * DENIED for a file that others can read and when a service refuses us, UNAVAILABLE when one is out
 * of reach. The text says what was tried and why each failed, and never a secret.
 * Threads: any, of one source; nobody calls setenv meanwhile.
 */
#ifndef PGCAIRN_STORAGE_S3_CREDENTIALS_H
#define PGCAIRN_STORAGE_S3_CREDENTIALS_H

#include "common/config.h"
#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Terminating NUL included. Session tokens have no stated limit; those seen stay below 4 KiB. */
enum { S3_ACCESS_KEY_SIZE = 256, S3_SECRET_KEY_SIZE = 256, S3_SESSION_TOKEN_SIZE = 8192 };

/* No pointers: copied by value, wiped by s3_credentials_wipe. */
typedef struct {
    char access_key[S3_ACCESS_KEY_SIZE];
    char secret_key[S3_SECRET_KEY_SIZE];
    char session_token[S3_SESSION_TOKEN_SIZE]; /* "": permanent credentials */
    int64_t expires_us;                        /* wall clock; 0: never, or not known */
} S3Credentials;

void s3_credentials_wipe(S3Credentials *credentials);
/* Release by scope: `SCOPED_S3_CREDENTIALS S3Credentials credentials = {0};` */
#define SCOPED_S3_CREDENTIALS __attribute__((cleanup(s3_credentials_wipe)))

/* One unsigned request of those that fetch credentials. */
typedef struct {
    const char *method;         /* GET, PUT, POST */
    const char *url;            /* http only for loopback and link-local services */
    const char *const *headers; /* "Name: value" lines, NULL-terminated; may be NULL */
    const void *body;
    size_t body_size;
    int timeout_ms; /* for all of it; connecting included */
} S3HttpRequest;

typedef struct {
    int status;
    char *body; /* malloc'ed, NUL-terminated, at most S3_HTTP_BODY_LIMIT; the callee fills, the
                   caller wipes and frees */
    size_t body_size;
} S3HttpAnswer;

enum { S3_HTTP_BODY_LIMIT = 64 * 1024 };

/*
 * How requests get out: supplied by the request engine. True with any status that was answered;
 * false (UNAVAILABLE and the like) when none was. No retries (we do them), no redirects, no proxy
 * for link-local and loopback addresses.
 */
typedef struct {
    bool (*call)(void *context, const S3HttpRequest *request, S3HttpAnswer *answer_out,
                 CairnError *err);
    void *context;
} S3Http;

typedef struct S3CredentialSource S3CredentialSource;

/* Fetches nothing yet. config and what it points to is borrowed for as long as the source lives.
   Returned owned. */
S3CredentialSource *s3_credential_source_new(const World *world, const S3Config *config,
                                             S3Http http, CairnError *err) MUST_CHECK;
void s3_credential_source_free(S3CredentialSource *source);
SCOPED_TYPE(S3CredentialSource, s3_credential_source_free);

/* Valid for a while: fetched when there are none yet or these expire soon. */
bool s3_credential_source_get(S3CredentialSource *source, S3Credentials *credentials_out,
                              CairnError *err) MUST_CHECK;

/* The store said ExpiredToken (or the like) of these: the next get fetches anew, unless another
   thread has done so since. False when they are not of a kind that can change: no use retrying. */
bool s3_credential_source_expired(S3CredentialSource *source, const S3Credentials *credentials);

/* Where they came from, for people: "environment", "profile 'backup' of /root/.aws/credentials". */
enum { S3_CREDENTIALS_TEXT_SIZE = 512 };
void s3_credential_source_text(S3CredentialSource *source, char text[S3_CREDENTIALS_TEXT_SIZE]);

#endif
