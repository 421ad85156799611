/*
 * Web identity: a token that somebody vouches for is exchanged for temporary credentials, by an
 * unsigned AssumeRoleWithWebIdentity of STS (its API reference, version 2011-06-15).
 */
#include "storage/s3/answers.h"
#include "storage/s3/credentials_intern.h"
#include "storage/s3/uri.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STS_TIMEOUT_MS = 10000, STS_ATTEMPTS = 3, STS_URL_SIZE = 1024 };

static void
wipe_writer(ByteWriter *writer)
{
    if (writer->data != NULL)
        OPENSSL_cleanse(writer->data, writer->capacity);
    byte_writer_free(writer);
}

/* The region's own service, which works when another region does not; China has its own domain. */
static void
choose_url(const CredentialSearch *search, char url[STS_URL_SIZE])
{
    const char *given = credentials_environment("AWS_ENDPOINT_URL_STS");
    const char *region = credentials_environment("AWS_REGION");
    if (region == NULL)
        region = credentials_environment("AWS_DEFAULT_REGION");
    if (region == NULL)
        region = search->config->region;
    if (given != NULL)
        snprintf(url, STS_URL_SIZE, "%s", given);
    else if (region != NULL &&
             strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(region))
        snprintf(url, STS_URL_SIZE, "https://sts.%s.amazonaws.com%s/", region,
                 strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    else
        snprintf(url, STS_URL_SIZE, "https://sts.amazonaws.com/");
}

static void
append_field(ByteWriter *writer, const char *name, const char *value)
{
    byte_writer_bytes(writer, name, strlen(name));
    byte_writer_u8(writer, '=');
    uri_encode_value(writer, value);
}

/* The refusal in STS's own words. */
static bool
refused(const S3HttpAnswer *answer, const char *url, CairnError *err)
{
    S3Error error;
    if (!s3_error_parse(answer->body, answer->body_size, &error))
        return cairn_error(err, s3_error_kind(answer->status, ""), "%s answered with status %d",
                           url, answer->status);
    CairnErrorKind kind = s3_error_kind(answer->status, error.code);
    if (answer->status == 400 && kind == CAIRN_IO)
        kind = CAIRN_DENIED; /* InvalidIdentityToken, and what else STS says by 400 */
    return cairn_error(err, kind, "%s refuses the web identity: %s: %s", url, error.code,
                       error.message);
}

static bool
ask(CredentialSearch *search, const ByteWriter *form, CairnError *err)
{
    char url[STS_URL_SIZE];
    choose_url(search, url);
    static const char *const HEADERS[] = {
        "content-type: application/x-www-form-urlencoded; charset=utf-8", "accept: text/xml", NULL};
    const S3HttpRequest request = {.method = "POST",
                                   .url = url,
                                   .headers = HEADERS,
                                   .body = form->data,
                                   .body_size = form->size,
                                   .timeout_ms = STS_TIMEOUT_MS};
    SCOPED_S3_HTTP_ANSWER S3HttpAnswer answer = {0};
    if (!credentials_call(search, &request, STS_ATTEMPTS, &answer, err))
        return cairn_error_wrap(err, "token service %s", url);
    if (answer.status != 200)
        return refused(&answer, url, err);
    if (!sts_credentials_parse(answer.body, answer.body_size, search->found, err))
        return cairn_error_wrap(err, "token service %s", url);
    return true;
}

bool
credentials_assume_role(CredentialSearch *search, const char *role, const char *token_file,
                        const char *session_name, CairnError *err)
{
    SCOPED(Secret) token = credentials_read_token(search->world, token_file, err);
    if (token == NULL)
        return cairn_error_wrap(err, "web identity token");
    __attribute__((cleanup(wipe_writer))) ByteWriter form = {0};
    append_field(&form, "Action", "AssumeRoleWithWebIdentity");
    append_field(&form, "&Version", "2011-06-15");
    append_field(&form, "&RoleArn", role);
    append_field(&form, "&RoleSessionName", session_name != NULL ? session_name : "pgcairn");
    append_field(&form, "&WebIdentityToken", (const char *)token->data);
    return byte_writer_check(&form, err) && ask(search, &form, err);
}

ProviderResult
provider_web_identity(CredentialSearch *search, CairnError *err)
{
    const char *role = credentials_environment("AWS_ROLE_ARN");
    const char *token_file = credentials_environment("AWS_WEB_IDENTITY_TOKEN_FILE");
    if (token_file == NULL)
        return credentials_absent(search, "web identity: AWS_WEB_IDENTITY_TOKEN_FILE is not set");
    if (role == NULL) {
        cairn_error(err, CAIRN_USAGE, "AWS_WEB_IDENTITY_TOKEN_FILE is set, AWS_ROLE_ARN is not");
        return PROVIDER_FAILED;
    }
    snprintf(search->from, sizeof search->from, "web identity '%s'", token_file);
    search->rotates = true;
    return credentials_assume_role(search, role, token_file,
                                   credentials_environment("AWS_ROLE_SESSION_NAME"), err)
               ? PROVIDER_FOUND
               : PROVIDER_FAILED;
}
