#include "storage/s3/request.h"

#include "common/bytes.h"
#include "common/cancel.h"
#include "common/log.h"
#include "storage/s3/retry.h"
#include "storage/s3_config.h"

#include <curl/curl.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    CONNECT_MS = 10000,
    STALL_MS = 30000,
    STALL_LEAST_MS = 5000,
    TOTAL_BASE_MS = 60000,
    BYTES_PER_MS_MIN = 32, /* slower than 32 kB/s is too slow for the whole of a body */
    WAIT_SLICE_MS = 100,
    WORDLESS_ATTEMPTS = 4,
    LONG_ANSWERS_LIMIT = 3,
    CREDENTIAL_CONNECTIONS = 2,
    URL_SIZE = 3 * S3_PATH_SIZE + 8192,
};

struct S3Client {
    const World *world;
    const S3Config *config;
    S3Address address;
    S3SignScheme scheme;
    HttpPool *pool;
    HttpPool *credentials_pool; /* those services have certificates of other authorities */
    S3CredentialSource *credentials;
    _Atomic int64_t clock_offset_us;
    _Atomic int64_t patience_ms;
    atomic_bool served; /* it did what we asked, once */
};

/* One call with its attempts. */
typedef struct {
    S3Client *client;
    const S3Request *request;
    S3Answer *answer;
    uint8_t digest[SHA256_SIZE];
    char path[S3_PATH_SIZE];
    int attempts;
    bool clock_adopted;
    bool credentials_renewed;
    int64_t begin_ns;
} Call;

/* -- the client */

/* Credentials come from this machine, from the link (metadata services), or over TLS. */
static bool
may_be_plain(const char *url)
{
    S3Endpoint endpoint;
    char base[512];
    const size_t size = 7 + strcspn(url + 7, "/?");
    if (size >= sizeof base)
        return false;
    memcpy(base, url, size);
    base[size] = '\0';
    return s3_endpoint_parse(base, &endpoint) &&
           (s3_host_is_loopback(endpoint.host) || strncmp(endpoint.host, "169.254.", 8) == 0 ||
            strcasecmp(endpoint.host, "[fd00:ec2::254]") == 0 ||
            strcasecmp(endpoint.host, "[fd00:ec2::23]") == 0);
}

/* S3Http.call: how requests for credentials get out. */
static bool
fetch_credentials(void *context, const S3HttpRequest *request, S3HttpAnswer *answer_out,
                  CairnError *err)
{
    S3Client *client = context;
    const bool plain = strncmp(request->url, "http://", 7) == 0;
    size_t count = 0;
    while (request->headers != NULL && request->headers[count] != NULL)
        count++;
    if (plain && !may_be_plain(request->url))
        return cairn_error(err, CAIRN_REFUSED, "credentials are not fetched over plain http");
    SCOPED_HTTP_ANSWER HttpAnswer answer = {0};
    if (!http_exchange(client->credentials_pool,
                       &(HttpRequest){.method = request->method,
                                      .url = request->url,
                                      .headers = request->headers,
                                      .header_count = count,
                                      .body = request->body,
                                      .body_size = request->body_size,
                                      .body_limit = S3_HTTP_BODY_LIMIT,
                                      .direct = plain,
                                      .connect_ms = request->timeout_ms,
                                      .stall_ms = request->timeout_ms,
                                      .total_ms = request->timeout_ms},
                       &answer, err))
        return false;
    *answer_out =
        (S3HttpAnswer){.status = answer.status, .body = answer.body, .body_size = answer.body_size};
    answer.body = NULL; /* taken */
    answer.body_size = 0;
    if (answer_out->body == NULL)
        answer_out->body = calloc(1, 1);
    return answer_out->body != NULL || cairn_error(err, CAIRN_INTERNAL, "out of memory");
}

S3Client *
s3_client_new(const World *world, const S3Config *config, CairnError *err)
{
    SCOPED(S3Client) client = calloc(1, sizeof *client);
    if (client == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    client->world = world;
    client->config = config;
    client->patience_ms = S3_PATIENCE_MS;
    if (!s3_address(config, &client->address, err))
        return NULL;
    client->scheme = s3_sign_scheme(client->address.host);
    client->pool =
        http_pool_new(world,
                      &(HttpPoolOptions){.ca_file = config->ca_file,
                                         .plain_http = config->plain_http != NULL &&
                                                       strcmp(config->plain_http, "allowed") == 0,
                                         .limit = S3_CONNECTIONS},
                      err);
    if (client->pool == NULL)
        return NULL;
    client->credentials_pool =
        http_pool_new(world, &(HttpPoolOptions){.limit = CREDENTIAL_CONNECTIONS}, err);
    if (client->credentials_pool == NULL)
        return NULL;
    client->credentials =
        s3_credential_source_new(world, config, (S3Http){fetch_credentials, client}, err);
    return client->credentials == NULL ? NULL : take(&client);
}

void
s3_client_free(S3Client *client)
{
    if (client == NULL)
        return;
    s3_credential_source_free(client->credentials);
    http_pool_free(client->credentials_pool);
    http_pool_free(client->pool);
    free(client);
}

const S3Address *
s3_client_address(const S3Client *client)
{
    return &client->address;
}

const S3Config *
s3_client_config(const S3Client *client)
{
    return client->config;
}

const World *
s3_client_world(const S3Client *client)
{
    return client->world;
}

S3SignScheme
s3_client_scheme(const S3Client *client)
{
    return client->scheme;
}

S3CredentialSource *
s3_client_credentials(S3Client *client)
{
    return client->credentials;
}

void
s3_client_set_patience(S3Client *client, int64_t patience_ms)
{
    atomic_store(&client->patience_ms, patience_ms);
}

int64_t
s3_client_now_us(const S3Client *client)
{
    return client->world->clock->wall_us(client->world->clock) +
           atomic_load(&client->clock_offset_us);
}

/* -- one attempt */

static bool
make_url(const Call *call, const S3Signature *signature, char url[URL_SIZE], CairnError *err)
{
    const int size =
        snprintf(url, URL_SIZE, "%s%s%s%s", call->client->address.base, signature->path,
                 signature->query[0] != '\0' ? "?" : "", signature->query);
    return size < URL_SIZE || cairn_error(err, CAIRN_INTERNAL, "the request's address is too long");
}

static int
total_ms(const S3Request *request)
{
    const size_t bytes = request->body_size + request->into_size + request->body_limit;
    return TOTAL_BASE_MS + request->slow_ms + (int)(bytes / BYTES_PER_MS_MIN);
}

/* Who is in a hurry asks again sooner. */
static int
stall_ms(S3Client *client)
{
    const int64_t part = atomic_load(&client->patience_ms) / 3;
    if (part >= STALL_MS)
        return STALL_MS;
    return part < STALL_LEAST_MS ? STALL_LEAST_MS : (int)part;
}

static size_t
pair_count(const S3Pair *pairs)
{
    size_t count = 0;
    while (pairs != NULL && pairs[count].name != NULL)
        count++;
    return count;
}

/* Sends the request with what signing adds. */
static bool
exchange(Call *call, const S3Signature *signature, CairnError *err)
{
    const S3Request *request = call->request;
    const char *lines[HTTP_REQUEST_HEADERS_LIMIT];
    char host[S3_HOST_SIZE + 8], url[URL_SIZE];
    SCOPED_BYTES ByteWriter texts = {0};
    size_t starts[HTTP_REQUEST_HEADERS_LIMIT];
    const size_t own_count = pair_count(request->headers);
    size_t count = 0;

    CAIRN_ASSERT(own_count + signature->header_count + 1 <= HTTP_REQUEST_HEADERS_LIMIT);
    for (size_t i = 0; i < own_count; i++) {
        starts[i] = texts.size;
        byte_writer_bytes(&texts, request->headers[i].name, strlen(request->headers[i].name));
        byte_writer_bytes(&texts, ": ", 2);
        byte_writer_bytes(&texts, request->headers[i].value, strlen(request->headers[i].value) + 1);
    }
    if (!byte_writer_check(&texts, err) || !make_url(call, signature, url, err))
        return false;
    for (size_t i = 0; i < own_count; i++)
        lines[count++] = (const char *)texts.data + starts[i];
    snprintf(host, sizeof host, "host: %s", call->client->address.host);
    lines[count++] = host;
    for (size_t i = 0; i < signature->header_count; i++)
        lines[count++] = signature->headers[i];
    return http_exchange(
        call->client->pool,
        &(HttpRequest){.method = request->method,
                       .url = url,
                       .headers = lines,
                       .header_count = count,
                       .body = request->body,
                       .body_size = request->body_size,
                       .into = request->into,
                       .into_size = request->into_size,
                       .body_limit =
                           request->body_limit > 0 ? request->body_limit : S3_SMALL_BODY_LIMIT,
                       .connect_ms = CONNECT_MS,
                       .stall_ms = request->slow_ms > 0 ? request->slow_ms : stall_ms(call->client),
                       .total_ms = total_ms(request)},
        &call->answer->http, err);
}

static bool
is_good_status(int status)
{
    return status >= 200 && status < 300;
}

/* A store that has begun to answer 200 and then fails says so in the body; completing an upload is
   the known case, a proxy may do it to any. What goes into the caller's buffer is data. */
static bool
may_hold_error(const HttpAnswer *http)
{
    enum { ROOT_WITHIN = 256 };
    const size_t size = http->body_size < ROOT_WITHIN ? http->body_size : ROOT_WITHIN;
    return http->body != NULL && memmem(http->body, size, "<Error", 6) != NULL;
}

/* A document that was cut, and a length that says it was not: asked for again, not believed. */
static bool
check_whole(const Call *call, CairnError *err)
{
    const HttpAnswer *http = &call->answer->http;
    const char *root = call->request->whole_root;
    if (root == NULL || !is_good_status(http->status))
        return true;
    const size_t root_size = strlen(root);
    size_t size = http->body_size;
    while (size > 0 && strchr("\r\n\t ", http->body[size - 1]) != NULL)
        size--;
    if (size > root_size && http->body[size - 1] == '>' &&
        memcmp(http->body + size - 1 - root_size, root, root_size) == 0)
        return true;
    return may_hold_error(http) ||
           cairn_error(err, CAIRN_UNAVAILABLE, "the answer ends in the middle");
}

static bool
attempt(Call *call, S3Credentials *credentials, CairnError *err)
{
    const S3Request *request = call->request;
    SCOPED_S3_SIGNATURE S3Signature signature = {0};
    call->attempts++;
    return s3_credential_source_get(call->client->credentials, credentials, err) &&
           s3_sign(&(S3SignRequest){.scheme = call->client->scheme,
                                    .method = request->method,
                                    .host = call->client->address.host,
                                    .path = call->path,
                                    .query = request->query,
                                    .query_count = pair_count(request->query),
                                    .headers = request->headers,
                                    .header_count = pair_count(request->headers),
                                    .payload_digest = request->body_size > 0 ? call->digest : NULL},
                   credentials, call->client->config->region, s3_client_now_us(call->client),
                   &signature, err) &&
           exchange(call, &signature, err) && check_whole(call, err);
}

/* -- what an attempt came to */

static bool
is_success(const Call *call)
{
    const S3Request *request = call->request;
    const int status = call->answer->http.status;
    const char *code = call->answer->error.code;
    if (status >= 200 && status < 300)
        return code[0] == '\0';
    switch (status) {
    case 404:
        /* From a proxy or a wrong address, 404 says nothing of the object. */
        return request->expect_404 &&
               (strcmp(code, "NoSuchKey") == 0 || strcmp(code, "NoSuchUpload") == 0);
    case 412:
        return request->expect_412;
    case 416:
        return request->expect_416;
    default:
        return false;
    }
}

static void
read_error(Call *call)
{
    HttpAnswer *http = &call->answer->http;
    const bool is_good = is_good_status(http->status);
    S3Error *error = &call->answer->error;
    *error = (S3Error){0};
    if (is_good && !may_hold_error(http))
        return;
    const bool parsed = http->body != NULL && s3_error_parse(http->body, http->body_size, error);
    if (is_good && parsed && error->code[0] == '\0')
        snprintf(error->code, sizeof error->code, "Error");
    if (error->request_id[0] == '\0')
        http_header(http, "x-amz-request-id", error->request_id, sizeof error->request_id);
    if (error->region[0] == '\0')
        http_header(http, "x-amz-bucket-region", error->region, sizeof error->region);
}

static bool
is_hopeless(const Call *call, const CairnError *err)
{
    /* A body longer than asked for is a transfer gone wrong, or a store that passes over ranges,
       which no patience will teach them; without an answer nothing else is. */
    if (err->kind == CAIRN_CORRUPT)
        return call->attempts >= LONG_ANSWERS_LIMIT;
    return err->kind != CAIRN_UNAVAILABLE || err->hint[0] != '\0';
}

static const char *
operation_of(const S3Request *request)
{
    return request->operation != NULL ? request->operation : request->method;
}

/* "PutObject of 'key' in bucket 'b' at https://host". */
static void
describe(const Call *call, char *text, size_t size)
{
    const S3Address *address = &call->client->address;
    if (call->request->key != NULL)
        snprintf(text, size, "%s of '%s' in bucket '%s' at %s", operation_of(call->request),
                 call->request->key, address->bucket, address->base);
    else
        snprintf(text, size, "%s of bucket '%s' at %s", operation_of(call->request),
                 address->bucket, address->base);
}

static void
add_hint(const Call *call, CairnError *err)
{
    const S3Error *error = &call->answer->error;
    const int status = call->answer->http.status;
    const char *code = error->code;

    if (error->region[0] != '\0' &&
        (status == 301 || status == 307 || strcmp(code, "AuthorizationHeaderMalformed") == 0))
        cairn_error_hint(err, "set region = %s", error->region);
    else if (status == 301 || status == 307 || strcmp(code, "AuthorizationHeaderMalformed") == 0)
        cairn_error_hint(err, "set endpoint and region to those of the bucket");
    else if (strcmp(code, "NoSuchBucket") == 0)
        cairn_error_hint(err, "make the bucket first, or correct `bucket`; with another uri-style "
                              "the store may find it");
    else if (strcmp(code, "SignatureDoesNotMatch") == 0)
        cairn_error_hint(err, "the secret key is not that of the access key");
    else if (strcmp(code, "InvalidAccessKeyId") == 0)
        cairn_error_hint(err, "the store does not know the access key");
    else if (s3_error_is_clock(code))
        cairn_error_hint(err, "set this host's clock");
    else if (status == 401 || status == 403)
        cairn_error_hint(err, "the credentials lack a right, or a policy or lock of the bucket "
                              "forbids it; see docs/object-stores.md");
    else if (status == 501)
        cairn_error_hint(err, "the store lacks a feature that the request asks for; see "
                              "docs/object-stores.md");
}

static bool
explain_answer(const Call *call, CairnError *err)
{
    const S3Error *error = &call->answer->error;
    const int status = call->answer->http.status;
    char what[S3_KEY_LIMIT + 1200], id[160] = "", again[48] = "";

    CairnErrorKind kind = s3_error_kind(status, error->code);
    if (kind == CAIRN_NOT_FOUND && strcmp(error->code, "NoSuchKey") != 0 &&
        strcmp(error->code, "NoSuchVersion") != 0)
        kind = CAIRN_UNAVAILABLE; /* not the store's word: no proof of absence */
    if (status == 301 || status == 307 || status == 308)
        kind = CAIRN_USAGE;
    describe(call, what, sizeof what);
    if (error->request_id[0] != '\0')
        snprintf(id, sizeof id, " (request %s)", error->request_id);
    if (call->attempts > 1)
        snprintf(again, sizeof again, ", after %d attempts", call->attempts);
    cairn_error(err, kind, "unable to do %s: %d%s%s%s%s%s%s", what, status,
                error->code[0] != '\0' ? " " : "", error->code,
                error->message[0] != '\0' ? ": " : "", error->message, id, again);
    add_hint(call, err);
    return false;
}

static bool
explain_silence(const Call *call, CairnError *err)
{
    char what[S3_KEY_LIMIT + 1200];
    describe(call, what, sizeof what);
    if (call->attempts > 1)
        return cairn_error_wrap(err, "unable to do %s, after %d attempts", what, call->attempts);
    return cairn_error_wrap(err, "unable to do %s", what);
}

/* -- again? */

static int64_t
elapsed_ms(const Call *call)
{
    const Clock *clock = call->client->world->clock;
    return (clock->monotonic_ns(clock) - call->begin_ns) / 1000000;
}

/* The answer's Date is the store's time, to a second. */
static bool
adopt_clock(Call *call)
{
    char date[64];
    if (call->clock_adopted || !http_header(&call->answer->http, "date", date, sizeof date))
        return false;
    const time_t theirs = curl_getdate(date, NULL);
    if (theirs <= 0)
        return false;
    const Clock *clock = call->client->world->clock;
    const int64_t offset_us = (int64_t)theirs * 1000000 - clock->wall_us(clock);
    atomic_store(&call->client->clock_offset_us, offset_us);
    log_info("this host's clock is %lld s off the object store's, whose time is used for signing",
             (long long)(offset_us / 1000000));
    call->clock_adopted = true;
    return true;
}

static bool
renew_credentials(Call *call, const S3Credentials *credentials)
{
    if (call->credentials_renewed ||
        !s3_credential_source_expired(call->client->credentials, credentials))
        return false;
    call->credentials_renewed = true;
    return true;
}

/* False when the patience is over, or a signal came (then with its error). */
static bool
wait_before_next(const Call *call, CairnError *err)
{
    const S3Client *client = call->client;
    int64_t patience = atomic_load(&client->patience_ms);
    if (!atomic_load(&client->served) && patience > S3_PATIENCE_UNSEEN_MS)
        patience = S3_PATIENCE_UNSEEN_MS;
    uint32_t random = 0;
    char after[32];
    http_header(&call->answer->http, "retry-after", after, sizeof after);
    if (client->world->random->fill(client->world->random, &random, sizeof random) != 0)
        random = UINT32_MAX / 2;
    int64_t left = s3_retry_delay_ms(call->attempts, random, s3_retry_after_ms(after));
    if (call->request->one_attempt || call->attempts >= S3_ATTEMPTS_LIMIT ||
        elapsed_ms(call) + left > patience)
        return false;
    while (left > 0) {
        if (!cancel_check(err))
            return false;
        const int64_t slice = left < WAIT_SLICE_MS ? left : WAIT_SLICE_MS;
        client->world->clock->sleep_ms(client->world->clock, slice);
        left -= slice;
    }
    return cancel_check(err);
}

/* A 404 that does not say in the store's words what is absent: the words may have been lost on the
   way. A server that never says them is no object store, so it is not asked for long. */
static bool
is_wordless_absence(const Call *call, const S3Outcome *outcome)
{
    return outcome->status == 404 && outcome->code[0] == '\0' &&
           strcmp(call->request->method, "HEAD") != 0 && call->attempts < WORDLESS_ATTEMPTS;
}

static bool
go_on(Call *call, const S3Credentials *credentials, const S3Outcome *outcome, CairnError *err)
{
    if (is_wordless_absence(call, outcome))
        return wait_before_next(call, err);
    switch (s3_retry_decision(outcome)) {
    case S3_RETRY_NO:
        return false;
    case S3_RETRY_CLOCK:
        return adopt_clock(call);
    case S3_RETRY_CREDENTIALS:
        return renew_credentials(call, credentials);
    case S3_RETRY_LATER:
        break;
    }
    return wait_before_next(call, err);
}

/* For --log-level=debug. */
static void
note_attempt(const Call *call, const CairnError *failure)
{
    char what[S3_KEY_LIMIT + 1200];
    if (log_level() < LOG_LEVEL_DEBUG)
        return;
    describe(call, what, sizeof what);
    log_debug("%s: attempt %d, %d%s%s%s%s, %lld ms", what, call->attempts,
              call->answer->http.status, call->answer->error.code[0] != '\0' ? " " : "",
              call->answer->error.code, failure->message[0] != '\0' ? ": " : "", failure->message,
              (long long)elapsed_ms(call));
}

bool
s3_call(S3Client *client, const S3Request *request, S3Answer *answer_out, CairnError *err)
{
    const Clock *clock = client->world->clock;
    Call call = {.client = client,
                 .request = request,
                 .answer = answer_out,
                 .begin_ns = clock->monotonic_ns(clock)};
    SCOPED_S3_CREDENTIALS S3Credentials credentials = {0};

    s3_answer_free(answer_out);
    s3_path(&client->address, request->key, call.path);
    if (request->body_digest != NULL)
        memcpy(call.digest, request->body_digest, sizeof call.digest);
    else if (request->body_size > 0 &&
             !sha256_of(request->body, request->body_size, call.digest, err))
        return false;

    for (;;) {
        CairnError failure = {0};
        const bool answered = attempt(&call, &credentials, &failure);
        read_error(&call);
        note_attempt(&call, &failure);
        if (answered && is_success(&call)) {
            atomic_store(&client->served, true);
            return true;
        }
        const HttpAnswer *http = &answer_out->http;
        const S3Outcome outcome = {.status = answered ? http->status : 0,
                                   .code = answered ? answer_out->error.code : "",
                                   .hopeless = !answered && is_hopeless(&call, &failure)};
        if (answered ? http->status >= 500 || is_good_status(http->status) : http->may_have_run)
            answer_out->ambiguous = true;
        CairnError cancelled = {0};
        if (go_on(&call, &credentials, &outcome, &cancelled))
            continue;
        if (cancelled.kind != CAIRN_OK) {
            *err = cancelled;
            return false;
        }
        if (answered)
            return explain_answer(&call, err);
        *err = failure;
        return explain_silence(&call, err);
    }
}

void
s3_answer_free(S3Answer *answer)
{
    http_answer_free(&answer->http);
    answer->error = (S3Error){0};
    answer->ambiguous = false;
}
