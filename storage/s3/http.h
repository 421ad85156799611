/*
 * HTTP exchanges over libcurl: a bounded pool of connections, one exchange at a time on each.
 *
 * What: sends one request, takes one answer. Knows nothing of S3, signs nothing, repeats nothing.
 * Safety: a server's certificate is always verified, against ca_file alone where there is one;
 * plain http goes to loopback only, and only where the pool was told so; redirects are not
 * followed. Bounds: at most `limit` exchanges at once (others wait); headers, and a body that no
 * buffer was given for, are bounded. Time: connecting, a stalled transfer and the whole of it.
 * Errors: UNAVAILABLE when no answer came, CANCELLED, CORRUPT when an answer is longer than its
 * bound; any status is an answer. Threads: a pool is shared. After a fork the child makes
 * connections of its own: those of the parent are left alone.
 */
#ifndef PGCAIRN_STORAGE_S3_HTTP_H
#define PGCAIRN_STORAGE_S3_HTTP_H

#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HTTP_HEADERS_LIMIT = 16 << 10, /* of an answer, in bytes */
    HTTP_REQUEST_HEADERS_LIMIT = 48,
};

typedef struct {
    const char *ca_file; /* PEM; NULL: the system's (borrowed, for as long as the pool lives) */
    bool plain_http;     /* http:// to loopback addresses is allowed */
    int limit;           /* exchanges at once */
    const char *const *hosts; /* "host:port:address" lines for names that DNS need not know; NULL */
} HttpPoolOptions;

typedef struct HttpPool HttpPool;
HttpPool *http_pool_new(const World *world, const HttpPoolOptions *options,
                        CairnError *err) MUST_CHECK;
void http_pool_free(HttpPool *pool); /* nothing may be under way */
SCOPED_TYPE(HttpPool, http_pool_free);

typedef struct {
    const char *method; /* GET, HEAD, PUT, POST, DELETE */
    const char *url;
    const char *const *headers; /* "name: value" lines, at most HTTP_REQUEST_HEADERS_LIMIT */
    size_t header_count;
    const void *body; /* of PUT and POST */
    size_t body_size;
    void *into; /* where the body of an answer 200 or 206 goes, when not NULL ... */
    size_t into_size;
    size_t body_limit; /* ... else, and of other answers always: memory of at most so much */
    bool direct;       /* past every proxy: metadata services */
    int connect_ms;
    int stall_ms; /* no byte moves for so long */
    int total_ms;
} HttpRequest;

typedef struct {
    int status;
    size_t into_size; /* bytes that went to request.into */
    char *body;       /* malloc'ed, NUL-terminated; NULL when there was none */
    size_t body_size;
    bool may_have_run; /* of a failure: the server may have got the whole request */
    size_t headers_size;
    char headers[HTTP_HEADERS_LIMIT]; /* "name: value\n" lines, names in lower case */
} HttpAnswer;

/* True with any status; the answer is filled as far as it came, also on false. */
bool http_exchange(HttpPool *pool, const HttpRequest *request, HttpAnswer *answer_out,
                   CairnError *err) MUST_CHECK;
void http_answer_free(HttpAnswer *answer);
#define SCOPED_HTTP_ANSWER __attribute__((cleanup(http_answer_free)))

/* Copies the value of a header (name in lower case); false, and "", when there is none or it is
 * longer than the text. */
bool http_header(const HttpAnswer *answer, const char *name, char *text, size_t size);

#endif
