/*
 * Credentials that the platform hands to whatever runs on it: the container service's endpoint, and
 * version 2 of the instance metadata service (a token first, so that a confused proxy can't be made
 * to fetch them). Version 1 is never asked. Sources: "Container credential provider" and "IMDS
 * credential provider" of the SDKs' reference guide.
 */
#include "storage/s3/answers.h"
#include "storage/s3/credentials_intern.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* They are one hop away, or not there at all. */
enum { INSTANCE_TIMEOUT_MS = 1000, CONTAINER_TIMEOUT_MS = 2000, METADATA_ATTEMPTS = 3 };
enum { METADATA_URL_SIZE = 1024, METADATA_LINE_SIZE = 4096 };

#define INSTANCE_ENDPOINT "http://169.254.169.254"
#define INSTANCE_ENDPOINT_IPV6 "http://[fd00:ec2::254]"
#define CONTAINER_ENDPOINT "http://169.254.170.2"

/* The JSON both speak. */

static bool
take_member(json_t *json, const char *name, char *field, size_t field_size, CairnError *err)
{
    const char *text = json_string_value(json_object_get(json, name));
    if (text == NULL)
        return cairn_error(err, CAIRN_CORRUPT, "the answer has no %s", name);
    return credentials_take(field, field_size, text, name, err);
}

/* jansson can't; its strings are ours for as long as the object lives. */
static void
wipe_json(json_t *json)
{
    const char *name;
    json_t *value;
    json_object_foreach(json, name, value)
    {
        if (json_is_string(value))
            OPENSSL_cleanse((void *)(uintptr_t)json_string_value(value), json_string_length(value));
    }
    json_decref(json);
}

static bool
take_json(json_t *json, S3Credentials *found, CairnError *err)
{
    const char *code = json_string_value(json_object_get(json, "Code"));
    if (code != NULL && strcmp(code, "Success") != 0)
        return cairn_error(err, CAIRN_DENIED, "the answer says %.60s instead of Success", code);
    if (!take_member(json, "AccessKeyId", found->access_key, sizeof found->access_key, err) ||
        !take_member(json, "SecretAccessKey", found->secret_key, sizeof found->secret_key, err) ||
        !take_member(json, "Token", found->session_token, sizeof found->session_token, err))
        return false;
    const char *expiration = json_string_value(json_object_get(json, "Expiration"));
    if (expiration != NULL && !s3_time_parse(expiration, &found->expires_us))
        return cairn_error(err, CAIRN_CORRUPT, "the answer's Expiration is no time");
    return true;
}

static bool
read_json(const S3HttpAnswer *answer, S3Credentials *found, CairnError *err)
{
    json_error_t ignored;
    json_t *json = json_loadb(answer->body, answer->body_size, JSON_REJECT_DUPLICATES, &ignored);
    if (!json_is_object(json)) {
        json_decref(json);
        return cairn_error(err, CAIRN_CORRUPT, "the answer is no JSON object");
    }
    const bool taken = take_json(json, found, err);
    wipe_json(json);
    return taken;
}

static CairnErrorKind
kind_of_status(int status)
{
    const CairnErrorKind kind = s3_error_kind(status, "");
    return kind == CAIRN_NOT_FOUND || kind == CAIRN_IO ? CAIRN_DENIED : kind;
}

/* A GET that must be answered by 200. */
static bool
get(CredentialSearch *search, const char *url, const char *header, int timeout_ms,
    S3HttpAnswer *answer_out, CairnError *err)
{
    const char *const headers[] = {header, NULL};
    const S3HttpRequest request = {.method = "GET",
                                   .url = url,
                                   .headers = header != NULL ? headers : NULL,
                                   .timeout_ms = timeout_ms};
    if (!credentials_call(search, &request, METADATA_ATTEMPTS, answer_out, err))
        return false;
    if (answer_out->status == 200)
        return true;
    return cairn_error(err, kind_of_status(answer_out->status), "status %d", answer_out->status);
}

/* Container. */

static bool
starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Plain http only where nobody else can listen: SDKs have the same list. */
static bool
check_full_uri(const char *uri, CairnError *err)
{
    static const char *const PLAIN[] = {"127.0.0.1",     "localhost",      "[::1]",
                                        "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};
    if (starts_with(uri, "https://"))
        return true;
    for (size_t i = 0; starts_with(uri, "http://") && i < sizeof PLAIN / sizeof PLAIN[0]; i++) {
        const char *host = uri + strlen("http://");
        const size_t length = strlen(PLAIN[i]);
        if (strncmp(host, PLAIN[i], length) == 0 && strchr(":/", host[length]) != NULL)
            return true;
    }
    return cairn_error(err, CAIRN_USAGE,
                       "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor a local address");
}

static bool
container_url(const char *relative, const char *full, char url[METADATA_URL_SIZE], CairnError *err)
{
    if (relative == NULL && !check_full_uri(full, err))
        return false;
    const int length = relative != NULL
                           ? snprintf(url, METADATA_URL_SIZE, CONTAINER_ENDPOINT "%s", relative)
                           : snprintf(url, METADATA_URL_SIZE, "%s", full);
    if (length >= METADATA_URL_SIZE || (relative != NULL && relative[0] != '/'))
        return cairn_error(err, CAIRN_USAGE, "AWS_CONTAINER_CREDENTIALS_%s_URI cannot be used",
                           relative != NULL ? "RELATIVE" : "FULL");
    return true;
}

/* NULL with an empty error: none is asked for. */
static Secret *
container_authorization(CredentialSearch *search, CairnError *err)
{
    static const char NAME[] = "authorization: ";
    const char *path = credentials_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *text = credentials_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    SCOPED(Secret) token = path != NULL ? credentials_read_token(search->world, path, err) : NULL;
    if (path != NULL && token == NULL)
        return NULL;
    if (token != NULL)
        text = (const char *)token->data;
    if (text == NULL)
        return NULL;
    if (strpbrk(text, "\r\n") != NULL) {
        cairn_error(err, CAIRN_USAGE, "the container's authorization token has a line break");
        return NULL;
    }
    Secret *line = secret_new(sizeof NAME - 1 + strlen(text), err);
    if (line != NULL)
        snprintf((char *)line->data, line->size + 1, "%s%s", NAME, text);
    return line;
}

static bool
ask_container(CredentialSearch *search, const char *url, CairnError *err)
{
    SCOPED(Secret) line = container_authorization(search, err);
    if (err->kind != CAIRN_OK)
        return false;
    SCOPED_S3_HTTP_ANSWER S3HttpAnswer answer = {0};
    return get(search, url, line != NULL ? (const char *)line->data : NULL, CONTAINER_TIMEOUT_MS,
               &answer, err) &&
           read_json(&answer, search->found, err);
}

ProviderResult
provider_container(CredentialSearch *search, CairnError *err)
{
    const char *relative = credentials_environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = credentials_environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if (relative == NULL && full == NULL)
        return credentials_absent(search,
                                  "container: AWS_CONTAINER_CREDENTIALS_FULL_URI is not set");
    char url[METADATA_URL_SIZE];
    if (!container_url(relative, full, url, err))
        return PROVIDER_FAILED;
    if (!ask_container(search, url, err)) {
        cairn_error_wrap(err, "container service %s", url);
        return PROVIDER_FAILED;
    }
    snprintf(search->from, sizeof search->from, "container service %.400s", url);
    search->rotates = true;
    return PROVIDER_FOUND;
}

/* Instance. */

static const char *
instance_endpoint(void)
{
    const char *given = credentials_environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    const char *mode = credentials_environment("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    if (given != NULL)
        return given;
    return mode != NULL && strcasecmp(mode, "IPv6") == 0 ? INSTANCE_ENDPOINT_IPV6
                                                         : INSTANCE_ENDPOINT;
}

static bool
make_url(char url[METADATA_URL_SIZE], const char *path, const char *name, CairnError *err)
{
    const char *endpoint = instance_endpoint();
    size_t length = strlen(endpoint);
    while (length > 0 && endpoint[length - 1] == '/')
        length--;
    if (snprintf(url, METADATA_URL_SIZE, "%.*s%s%s", (int)length, endpoint, path, name) >=
        METADATA_URL_SIZE)
        return cairn_error(err, CAIRN_USAGE, "AWS_EC2_METADATA_SERVICE_ENDPOINT is too long");
    return true;
}

/* The header that every later request carries. One attempt: most hosts have no such service. */
static Secret *
instance_token(CredentialSearch *search, CairnError *err)
{
    static const char NAME[] = "x-aws-ec2-metadata-token: ";
    static const char *const HEADERS[] = {"x-aws-ec2-metadata-token-ttl-seconds: 21600", NULL};
    char url[METADATA_URL_SIZE];
    if (!make_url(url, "/latest/api/token", "", err))
        return NULL;
    const S3HttpRequest request = {
        .method = "PUT", .url = url, .headers = HEADERS, .timeout_ms = INSTANCE_TIMEOUT_MS};
    SCOPED_S3_HTTP_ANSWER S3HttpAnswer answer = {0};
    if (!credentials_call(search, &request, 1, &answer, err))
        return NULL;
    if (answer.status != 200 || answer.body == NULL || answer.body_size == 0 ||
        strspn(answer.body,
               "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-") !=
            answer.body_size) {
        cairn_error(err, kind_of_status(answer.status), "no token (status %d)", answer.status);
        return NULL;
    }
    Secret *line = secret_new(sizeof NAME - 1 + answer.body_size, err);
    if (line != NULL)
        snprintf((char *)line->data, line->size + 1, "%s%s", NAME, answer.body);
    return line;
}

/* The first line of the list of roles; an instance has one at most. */
static bool
instance_role(CredentialSearch *search, const char *token, char role[METADATA_LINE_SIZE],
              CairnError *err)
{
    char url[METADATA_URL_SIZE];
    SCOPED_S3_HTTP_ANSWER S3HttpAnswer answer = {0};
    if (!make_url(url, "/latest/meta-data/iam/security-credentials/", "", err))
        return false;
    if (!get(search, url, token, INSTANCE_TIMEOUT_MS, &answer, err))
        return answer.status == 404
                   ? (cairn_error_clear(err), cairn_error(err, CAIRN_DENIED, "no role is attached"))
                   : false;
    const char *body = answer.body != NULL ? answer.body : "";
    const size_t length = strcspn(body, "\r\n");
    if (length == 0 || length >= METADATA_LINE_SIZE || memchr(body, '/', length) != NULL)
        return cairn_error(err, CAIRN_DENIED, "no role is attached");
    memcpy(role, body, length);
    role[length] = '\0';
    return true;
}

static bool
ask_instance(CredentialSearch *search, const char *token, CairnError *err)
{
    char role[METADATA_LINE_SIZE];
    char url[METADATA_URL_SIZE];
    SCOPED_S3_HTTP_ANSWER S3HttpAnswer answer = {0};
    if (!instance_role(search, token, role, err) ||
        !make_url(url, "/latest/meta-data/iam/security-credentials/", role, err) ||
        !get(search, url, token, INSTANCE_TIMEOUT_MS, &answer, err) ||
        !read_json(&answer, search->found, err))
        return false;
    snprintf(search->from, sizeof search->from, "instance metadata, role '%.100s'", role);
    search->rotates = true;
    return true;
}

ProviderResult
provider_instance(CredentialSearch *search, CairnError *err)
{
    const char *disabled = credentials_environment("AWS_EC2_METADATA_DISABLED");
    if (disabled != NULL && strcasecmp(disabled, "true") == 0)
        return credentials_absent(search, "instance metadata: disabled");
    SCOPED(Secret) token = instance_token(search, err);
    if (token == NULL) {
        /* Whether this host has the service at all is not to be known, so it is not failed. */
        search->unreachable = err->kind == CAIRN_UNAVAILABLE;
        credentials_absent(search, "instance metadata: %.300s", err->message);
        cairn_error_clear(err);
        return PROVIDER_ABSENT;
    }
    if (ask_instance(search, (const char *)token->data, err))
        return PROVIDER_FOUND;
    cairn_error_wrap(err, "instance metadata");
    return PROVIDER_FAILED;
}
