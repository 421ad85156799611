#include "storage/s3/sign.h"

#include "common/bytes.h"
#include "storage/s3/uri.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* The names in which the two schemes differ. */
typedef struct {
    const char *algorithm;
    const char *key_prefix;
    const char *terminator;
    const char *date;
    const char *digest;
    const char *token;
    const char *region;
} Scheme;

static const Scheme SCHEMES[] = {
    [S3_SIGN_AWS4] = {"AWS4-HMAC-SHA256", "AWS4", "aws4_request", "x-amz-date",
                      "x-amz-content-sha256", "x-amz-security-token", "us-east-1"},
    [S3_SIGN_GOOG4] = {"GOOG4-HMAC-SHA256", "GOOG4", "goog4_request", "x-goog-date",
                       "x-goog-content-sha256", "x-goog-security-token", "auto"},
};

/* "20261122T233140Z"; the scope takes its first eight characters. */
enum { DATE_TIME_SIZE = 17, DATE_LENGTH = 8 };

/* Host, date, digest and token come on top of the caller's own. */
enum { SIGNED_LIMIT = S3_SIGN_PAIR_LIMIT + 4 };

enum { HEX_DIGEST_SIZE = 2 * SHA256_SIZE + 1 };

S3SignScheme
s3_sign_scheme(const char *host)
{
    static const char GOOGLE[] = "storage.googleapis.com";
    const size_t length = strcspn(host, ":");
    const size_t google = sizeof GOOGLE - 1;
    if (length < google || strncasecmp(host + length - google, GOOGLE, google) != 0)
        return S3_SIGN_AWS4;
    return length == google || host[length - google - 1] == '.' ? S3_SIGN_GOOG4 : S3_SIGN_AWS4;
}

static bool
hmac(const void *key, size_t key_size, const char *text, uint8_t out[SHA256_SIZE], CairnError *err)
{
    unsigned size = 0;
    if (HMAC(EVP_sha256(), key, (int)key_size, (const unsigned char *)text, strlen(text), out,
             &size) == NULL ||
        size != SHA256_SIZE)
        return cairn_error(err, CAIRN_INTERNAL, "unable to compute HMAC-SHA-256");
    return true;
}

static bool
hex_digest(const void *data, size_t size, char hex[HEX_DIGEST_SIZE], CairnError *err)
{
    uint8_t digest[SHA256_SIZE];
    if (!sha256_of(data, size, digest, err))
        return false;
    hex_encode(hex, digest, sizeof digest);
    return true;
}

static void
append(ByteWriter *writer, const char *text)
{
    byte_writer_bytes(writer, text, strlen(text));
}

/* The writer's bytes as a text of its own. NULL: out of memory. */
static char *
finish_text(ByteWriter *writer)
{
    byte_writer_u8(writer, '\0');
    if (writer->failed)
        return NULL;
    char *text = (char *)writer->data;
    *writer = (ByteWriter){0};
    return text;
}

static bool
out_of_memory(CairnError *err)
{
    return cairn_error(err, CAIRN_INTERNAL, "out of memory");
}

/* Query. */

typedef struct {
    char *name;
    char *value;
} EncodedPair;

static char *
encoded(const char *text)
{
    SCOPED_BYTES ByteWriter writer = {0};
    uri_encode_value(&writer, text != NULL ? text : "");
    return finish_text(&writer);
}

/* By name, then value, as they are encoded; "a-b" comes after "a", though "a-b=" is before "a=". */
static int
compare_encoded(const void *a, const void *b)
{
    const EncodedPair *left = a;
    const EncodedPair *right = b;
    const int order = strcmp(left->name, right->name);
    return order != 0 ? order : strcmp(left->value, right->value);
}

static char *
join_query(EncodedPair *pairs, size_t count)
{
    qsort(pairs, count, sizeof *pairs, compare_encoded);
    SCOPED_BYTES ByteWriter writer = {0};
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            byte_writer_u8(&writer, '&');
        append(&writer, pairs[i].name);
        byte_writer_u8(&writer, '=');
        append(&writer, pairs[i].value);
    }
    return finish_text(&writer);
}

static char *
canonical_query(const S3SignRequest *request, CairnError *err)
{
    EncodedPair pairs[S3_SIGN_PAIR_LIMIT];
    bool complete = true;
    for (size_t i = 0; i < request->query_count; i++) {
        pairs[i] = (EncodedPair){encoded(request->query[i].name), encoded(request->query[i].value)};
        complete = complete && pairs[i].name != NULL && pairs[i].value != NULL;
    }
    char *query = complete ? join_query(pairs, request->query_count) : NULL;
    for (size_t i = 0; i < request->query_count; i++) {
        free(pairs[i].name);
        free(pairs[i].value);
    }
    if (query == NULL)
        out_of_memory(err);
    return query;
}

/* Headers. */

static int
compare_names(const void *a, const void *b)
{
    return strcmp(((const S3Pair *)a)->name, ((const S3Pair *)b)->name);
}

/* A token in lower case, and a value that can't smuggle in another line. */
static bool
check_header(const S3Pair *header, CairnError *err)
{
    const size_t length = strlen(header->name);
    if (length == 0 || strspn(header->name, "abcdefghijklmnopqrstuvwxyz0123456789-") != length)
        return cairn_error(err, CAIRN_USAGE, "header '%.100s' cannot be signed", header->name);
    for (const char *at = header->value != NULL ? header->value : ""; *at != '\0'; at++)
        if (((unsigned char)*at < ' ' && *at != '\t') || *at == '\x7f')
            return cairn_error(err, CAIRN_USAGE, "header '%s' has a control character in its value",
                               header->name);
    return true;
}

typedef struct {
    S3Pair pairs[SIGNED_LIMIT];
    size_t count;
} SignedHeaders;

static void
add_header(SignedHeaders *headers, const char *name, const char *value)
{
    CAIRN_ASSERT(headers->count < SIGNED_LIMIT);
    headers->pairs[headers->count++] = (S3Pair){name, value};
}

static bool
sort_headers(SignedHeaders *headers, CairnError *err)
{
    for (size_t i = 0; i < headers->count; i++)
        if (!check_header(&headers->pairs[i], err))
            return false;
    qsort(headers->pairs, headers->count, sizeof headers->pairs[0], compare_names);
    for (size_t i = 1; i < headers->count; i++)
        if (strcmp(headers->pairs[i - 1].name, headers->pairs[i].name) == 0)
            return cairn_error(err, CAIRN_USAGE, "header '%s' is given twice",
                               headers->pairs[i].name);
    return true;
}

/* "host;range;x-amz-date", malloc'ed. */
static char *
join_names(const SignedHeaders *headers, CairnError *err)
{
    SCOPED_BYTES ByteWriter writer = {0};
    for (size_t i = 0; i < headers->count; i++) {
        if (i > 0)
            byte_writer_u8(&writer, ';');
        append(&writer, headers->pairs[i].name);
    }
    char *names = finish_text(&writer);
    if (names == NULL)
        out_of_memory(err);
    return names;
}

/* A digest that is fed texts: the session token passes through without a copy. */
typedef struct {
    Sha256 *sha;
    bool failed; /* err is filled */
    CairnError *err;
} Feed;

static void
feed_bytes(Feed *feed, const char *text, size_t size)
{
    if (!feed->failed)
        feed->failed = !sha256_update(feed->sha, text, size, feed->err);
}

static void
feed_text(Feed *feed, const char *text)
{
    feed_bytes(feed, text, strlen(text));
}

/* Without blanks at the ends, runs of them folded into one. */
static void
feed_folded(Feed *feed, const char *value)
{
    value += strspn(value, " \t");
    while (*value != '\0') {
        const size_t word = strcspn(value, " \t");
        feed_bytes(feed, value, word);
        value += word;
        value += strspn(value, " \t");
        if (*value != '\0')
            feed_text(feed, " ");
    }
}

static void
feed_headers(Feed *feed, const SignedHeaders *headers)
{
    for (size_t i = 0; i < headers->count; i++) {
        feed_text(feed, headers->pairs[i].name);
        feed_text(feed, ":");
        feed_folded(feed, headers->pairs[i].value != NULL ? headers->pairs[i].value : "");
        feed_text(feed, "\n");
    }
}

static bool
digest_canonical_request(const S3SignRequest *request, const S3Signature *signature,
                         const SignedHeaders *headers, const char *signed_names,
                         const char *payload_hex, char hex[HEX_DIGEST_SIZE], CairnError *err)
{
    SCOPED(Sha256) sha = sha256_new(err);
    if (sha == NULL)
        return false;
    Feed feed = {.sha = sha, .err = err};
    const char *const lines[] = {request->method, signature->path, signature->query};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        feed_text(&feed, lines[i]);
        feed_text(&feed, "\n");
    }
    feed_headers(&feed, headers);
    feed_text(&feed, "\n");
    feed_text(&feed, signed_names);
    feed_text(&feed, "\n");
    feed_text(&feed, payload_hex);

    uint8_t digest[SHA256_SIZE];
    if (feed.failed || !sha256_finish(sha, digest, err))
        return false;
    hex_encode(hex, digest, sizeof digest);
    return true;
}

/* kSigning = HMAC(HMAC(HMAC(HMAC(prefix + secret, date), region), service), terminator) */
static bool
derive_key(const Scheme *scheme, const char *secret, const char *date, const char *region,
           uint8_t key[SHA256_SIZE], CairnError *err)
{
    char first[8 + S3_SECRET_KEY_SIZE];
    snprintf(first, sizeof first, "%s%s", scheme->key_prefix, secret);
    const bool done = hmac(first, strlen(first), date, key, err) &&
                      hmac(key, SHA256_SIZE, region, key, err) &&
                      hmac(key, SHA256_SIZE, "s3", key, err) &&
                      hmac(key, SHA256_SIZE, scheme->terminator, key, err);
    OPENSSL_cleanse(first, sizeof first);
    return done;
}

typedef struct {
    char date_time[DATE_TIME_SIZE];
    char date[DATE_LENGTH + 1];
    char text[256]; /* "20261122/us-east-1/s3/aws4_request" */
} Scope;

static bool
make_scope(const Scheme *scheme, const char *region, int64_t now_us, Scope *scope, CairnError *err)
{
    const time_t now_s = (time_t)(now_us / 1000000);
    struct tm parts;
    if (gmtime_r(&now_s, &parts) == NULL ||
        strftime(scope->date_time, sizeof scope->date_time, "%Y%m%dT%H%M%SZ", &parts) == 0)
        return cairn_error(err, CAIRN_USAGE, "the clock of this host shows no usable time");
    memcpy(scope->date, scope->date_time, DATE_LENGTH);
    scope->date[DATE_LENGTH] = '\0';
    const int length = snprintf(scope->text, sizeof scope->text, "%s/%s/s3/%s", scope->date, region,
                                scheme->terminator);
    if (length < 0 || (size_t)length >= sizeof scope->text)
        return cairn_error(err, CAIRN_USAGE, "region '%.60s...' is too long", region);
    return true;
}

static bool
sign_text(const Scheme *scheme, const Scope *scope, const char *secret, const char *region,
          const char *request_hex, char signature_hex[HEX_DIGEST_SIZE], CairnError *err)
{
    char text[512];
    uint8_t key[SHA256_SIZE];
    uint8_t mac[SHA256_SIZE];
    snprintf(text, sizeof text, "%s\n%s\n%s\n%s", scheme->algorithm, scope->date_time, scope->text,
             request_hex);
    const bool done = derive_key(scheme, secret, scope->date, region, key, err) &&
                      hmac(key, sizeof key, text, mac, err);
    OPENSSL_cleanse(key, sizeof key);
    if (done)
        hex_encode(signature_hex, mac, sizeof mac);
    return done;
}

static bool
add_line(S3Signature *signature, const char *name, const char *value, CairnError *err)
{
    CAIRN_ASSERT(signature->header_count < S3_SIGNATURE_HEADER_LIMIT);
    char *line = NULL;
    if (asprintf(&line, "%s: %s", name, value) < 0)
        return out_of_memory(err);
    signature->headers[signature->header_count++] = line;
    return true;
}

static bool
add_authorization(S3Signature *signature, const Scheme *scheme, const Scope *scope,
                  const char *access_key, const char *signed_names, const char *signature_hex,
                  CairnError *err)
{
    SCOPED_MEMORY char *value = NULL;
    if (asprintf(&value, "%s Credential=%s/%s,SignedHeaders=%s,Signature=%s", scheme->algorithm,
                 access_key, scope->text, signed_names, signature_hex) < 0) {
        value = NULL;
        return out_of_memory(err);
    }
    return add_line(signature, "authorization", value, err);
}

static bool
encode_target(const S3SignRequest *request, S3Signature *signature, CairnError *err)
{
    SCOPED_BYTES ByteWriter path = {0};
    uri_encode_path(&path, request->path);
    signature->path = finish_text(&path);
    if (signature->path == NULL)
        return out_of_memory(err);
    signature->query = canonical_query(request, err);
    return signature->query != NULL;
}

static bool
sign(const S3SignRequest *request, const S3Credentials *credentials, const char *region,
     int64_t now_us, S3Signature *signature, CairnError *err)
{
    const Scheme *scheme = &SCHEMES[request->scheme];
    Scope scope;
    char payload_hex[HEX_DIGEST_SIZE];
    if (!make_scope(scheme, region, now_us, &scope, err) ||
        !encode_target(request, signature, err) || !hex_digest("", 0, payload_hex, err))
        return false;
    if (request->payload_digest != NULL)
        hex_encode(payload_hex, request->payload_digest, SHA256_SIZE);

    SignedHeaders headers = {0};
    for (size_t i = 0; i < request->header_count; i++)
        add_header(&headers, request->headers[i].name, request->headers[i].value);
    add_header(&headers, "host", request->host);
    add_header(&headers, scheme->date, scope.date_time);
    add_header(&headers, scheme->digest, payload_hex);
    const bool temporary = credentials->session_token[0] != '\0';
    if (temporary)
        add_header(&headers, scheme->token, credentials->session_token);

    if (!sort_headers(&headers, err))
        return false;
    SCOPED_MEMORY char *names = join_names(&headers, err);
    char request_hex[HEX_DIGEST_SIZE];
    char signature_hex[HEX_DIGEST_SIZE];
    return names != NULL &&
           digest_canonical_request(request, signature, &headers, names, payload_hex, request_hex,
                                    err) &&
           sign_text(scheme, &scope, credentials->secret_key, region, request_hex, signature_hex,
                     err) &&
           add_authorization(signature, scheme, &scope, credentials->access_key, names,
                             signature_hex, err) &&
           add_line(signature, scheme->date, scope.date_time, err) &&
           add_line(signature, scheme->digest, payload_hex, err) &&
           (!temporary || add_line(signature, scheme->token, credentials->session_token, err));
}

bool
s3_sign(const S3SignRequest *request, const S3Credentials *credentials, const char *region,
        int64_t now_us, S3Signature *signature_out, CairnError *err)
{
    CAIRN_ASSERT(request->path[0] == '/');
    if (request->query_count > S3_SIGN_PAIR_LIMIT || request->header_count > S3_SIGN_PAIR_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "more headers or query parameters than can be signed");
    SCOPED_S3_SIGNATURE S3Signature signature = {0};
    if (region == NULL || region[0] == '\0')
        region = SCHEMES[request->scheme].region;
    if (!sign(request, credentials, region, now_us, &signature, err))
        return false;
    *signature_out = signature;
    signature = (S3Signature){0};
    return true;
}

static void
free_secret(char **text)
{
    if (*text != NULL)
        OPENSSL_cleanse(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

void
s3_signature_free(S3Signature *signature)
{
    for (size_t i = 0; i < signature->header_count; i++)
        free_secret(&signature->headers[i]);
    free(signature->path);
    free(signature->query);
    *signature = (S3Signature){0};
}
