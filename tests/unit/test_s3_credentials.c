/*
 * Where credentials come from and how long they last. Services are played by a table of answers;
 * real HTTP is tests/system/test_s3_credentials.py.
 */
#include "storage/s3/credentials.h"

#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* 2026-11-22 23:31:40 UTC */
#define START_US INT64_C(1795390300000000)
#define SECOND_US INT64_C(1000000)

static const char *const VARIABLES[] = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
};

static const char *directory;
static _Atomic int64_t now_us;

static int64_t
wall_us(const Clock *clock)
{
    (void)clock;
    return now_us;
}

static void
sleep_ms(const Clock *clock, int64_t duration_ms)
{
    (void)clock;
    now_us += duration_ms * 1000;
}

static World
test_world(void)
{
    static Clock clock;
    clock = *world_real()->clock;
    clock.wall_us = wall_us;
    clock.sleep_ms = sleep_ms;
    World world = *world_real();
    world.clock = &clock;
    return world;
}

static int
start(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof VARIABLES / sizeof VARIABLES[0]; i++)
        unsetenv(VARIABLES[i]);
    directory = scratch_directory();
    setenv("HOME", directory, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    now_us = START_US;
    return 0;
}

static const char *
write_file(const char *name, const char *text, mode_t mode)
{
    const char *path = scratch_path(directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

/* A service: answers in turn, and what it was asked. */
typedef struct {
    const char *url;    /* expected */
    const char *asking; /* a header or a part of the body that must be there */
    int status;         /* 0: nobody answers */
    const char *body;
} Exchange;

typedef struct {
    const Exchange *exchanges;
    size_t count;
    size_t at;
} Service;

static bool
asks(const S3HttpRequest *request, const char *wanted)
{
    if (wanted == NULL || (request->body != NULL && strstr(request->body, wanted) != NULL))
        return true;
    for (size_t i = 0; request->headers != NULL && request->headers[i] != NULL; i++)
        if (strcmp(request->headers[i], wanted) == 0)
            return true;
    return false;
}

static bool
serve(void *context, const S3HttpRequest *request, S3HttpAnswer *answer_out, CairnError *err)
{
    Service *service = context;
    assert_true(service->at < service->count);
    const Exchange *exchange = &service->exchanges[service->at++];
    char asked[1024];
    snprintf(asked, sizeof asked, "%s %s", request->method, request->url);
    assert_string_equal(asked, exchange->url);
    if (!asks(request, exchange->asking))
        fail_msg("%s does not ask by %s", asked, exchange->asking);
    if (exchange->status == 0)
        return cairn_error(err, CAIRN_UNAVAILABLE, "nobody there");
    *answer_out = (S3HttpAnswer){exchange->status, strdup(exchange->body), strlen(exchange->body)};
    return true;
}

static bool
get_once(const S3Config *config, Service *service, S3Credentials *credentials,
         char from[S3_CREDENTIALS_TEXT_SIZE], CairnError *err)
{
    const World world = test_world();
    SCOPED(S3CredentialSource)
    source = s3_credential_source_new(&world, config, (S3Http){serve, service}, err);
    assert_non_null(source);
    const bool got = s3_credential_source_get(source, credentials, err);
    s3_credential_source_text(source, from);
    return got;
}

static void
assert_found(const S3Config *config, Service *service, const char *access_key,
             const char *secret_key, const char *session_token, const char *from)
{
    Service none = {0};
    CairnError err = {0};
    S3Credentials credentials;
    char text[S3_CREDENTIALS_TEXT_SIZE];
    if (!get_once(config, service != NULL ? service : &none, &credentials, text, &err))
        fail_msg("%s", err.message);
    assert_string_equal(credentials.access_key, access_key);
    assert_string_equal(credentials.secret_key, secret_key);
    assert_string_equal(credentials.session_token, session_token);
    if (strstr(text, from) == NULL)
        fail_msg("'%s' lacks '%s'", text, from);
    assert_true(service == NULL || service->at == service->count);
}

static void
assert_failed(const S3Config *config, Service *service, CairnErrorKind kind, const char *message)
{
    Service none = {0};
    CairnError err = {0};
    S3Credentials credentials;
    char text[S3_CREDENTIALS_TEXT_SIZE];
    assert_false(get_once(config, service != NULL ? service : &none, &credentials, text, &err));
    if (strstr(err.message, message) == NULL)
        fail_msg("'%s' lacks '%s'", err.message, message);
    assert_int_equal(err.kind, kind);
    assert_null(strstr(err.message, "HUSH"));
    assert_null(strstr(err.hint, "HUSH"));
    assert_true(service == NULL || service->at == service->count);
}

static void
test_configuration_comes_before_environment_and_profile(void **state)
{
    (void)state;
    setenv("AWS_ACCESS_KEY_ID", "ENVIRONMENT", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "S1", 1);
    setenv("AWS_SESSION_TOKEN", "T1", 1);
    const char *file = write_file("credentials",
                                  "[default]\naws_access_key_id=DEFAULT\n"
                                  "aws_secret_access_key=S2\n"
                                  "[ backup ]\n# comment\naws_access_key_id = PROFILE ; mine\r\n"
                                  "aws_secret_access_key = S3\n"
                                  "s3 =\n  aws_secret_access_key = nested\n",
                                  0600);
    setenv("AWS_SHARED_CREDENTIALS_FILE", file, 1);
    const S3Config by_file = {
        .access_key = "CONFIG",
        .secret_key_file = write_file("secret", "S4\n", 0600),
        .session_token_file = write_file("token", "T4", 0600),
        .profile = "backup",
    };
    assert_found(&by_file, NULL, "CONFIG", "S4", "T4", "configuration");
    const S3Config by_profile = {.profile = "backup"};
    assert_found(&by_profile, NULL, "PROFILE", "S3", "", "profile 'backup'");
    const S3Config by_path = {.credentials_file = file};
    assert_found(&by_path, NULL, "DEFAULT", "S2", "", "profile 'default'");
    const S3Config nothing = {0};
    assert_found(&nothing, NULL, "ENVIRONMENT", "S1", "T1", "environment");
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    assert_found(&nothing, NULL, "DEFAULT", "S2", "", "profile 'default'");
    setenv("AWS_PROFILE", "backup", 1);
    assert_found(&nothing, NULL, "PROFILE", "S3", "", "profile 'backup'");
    setenv("AWS_PROFILE", "other", 1);
    assert_failed(&nothing, NULL, CAIRN_USAGE, "no profile 'other'");
}

static void
test_profiles_are_found_at_home_and_in_the_configuration_file(void **state)
{
    (void)state;
    assert_int_equal(mkdir(scratch_path(directory, ".aws"), 0700), 0);
    const S3Config nothing = {0};
    assert_failed(&nothing, NULL, CAIRN_USAGE, "profile: no 'default' with keys");
    write_file(".aws/config",
               "[default]\nregion = x\n[profile  backup]\naws_access_key_id=CONFIG\n"
               "aws_secret_access_key=S1\n[backup]\naws_access_key_id=NOT\n",
               0600);
    assert_failed(&nothing, NULL, CAIRN_USAGE, "profile: no 'default' with keys");
    const S3Config backup = {.profile = "backup"};
    assert_found(&backup, NULL, "CONFIG", "S1", "", "profile 'backup'");
    write_file(".aws/credentials", "[backup]\naws_access_key_id=OVER\naws_secret_access_key=S2\n",
               0600);
    assert_found(&backup, NULL, "OVER", "S2", "", "profile 'backup'");
}

static void
test_profiles_that_cannot_be_followed_are_told(void **state)
{
    (void)state;
    const char *file =
        write_file("credentials",
                   "[process]\ncredential_process = /bin/x --HUSH\n"
                   "[chain]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n"
                   "[empty]\nregion = x\n[long]\naws_secret_access_key = HUSH\x01HUSH\n",
                   0600);
    S3Config config = {.credentials_file = file, .profile = "process"};
    assert_failed(&config, NULL, CAIRN_UNSUPPORTED, "credential_process");
    config.profile = "chain";
    assert_failed(&config, NULL, CAIRN_UNSUPPORTED, "source_profile");
    config.profile = "empty";
    assert_failed(&config, NULL, CAIRN_USAGE, "has no aws_access_key_id");
    config.profile = "long";
    assert_failed(&config, NULL, CAIRN_USAGE, "line 9: aws_secret_access_key has a blank");
}

static void
test_files_that_others_can_read_are_refused(void **state)
{
    (void)state;
    S3Config config = {.access_key = "A", .secret_key_file = write_file("s", "HUSH\n", 0644)};
    assert_failed(&config, NULL, CAIRN_DENIED, "open to others");
    config.secret_key_file = scratch_path(directory, "absent");
    assert_failed(&config, NULL, CAIRN_NOT_FOUND, "absent");
    config.secret_key_file = write_file("two", "HUSH\nlines\n", 0600);
    assert_failed(&config, NULL, CAIRN_USAGE, "not one line");
    config.secret_key_file = write_file("blank", "HUSH word\n", 0600);
    assert_failed(&config, NULL, CAIRN_USAGE, "has a blank");
    config = (S3Config){.access_key = "A"};
    assert_failed(&config, NULL, CAIRN_USAGE, "secret-key or secret-key-file is missing");
    const S3Config nothing = {0};
    setenv("AWS_SHARED_CREDENTIALS_FILE", write_file("credentials", "[default]\n", 0664), 1);
    assert_failed(&nothing, NULL, CAIRN_DENIED, "open to others");
    setenv("AWS_ACCESS_KEY_ID", "A", 1);
    assert_failed(&nothing, NULL, CAIRN_USAGE, "AWS_SECRET_ACCESS_KEY is not");
}

#define STS_BODY(key, expiration)                                                                  \
    "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"            \
    "<AccessKeyId>" key "</AccessKeyId><SecretAccessKey>S</SecretAccessKey>"                       \
    "<SessionToken>T</SessionToken><Expiration>" expiration "</Expiration>"                        \
    "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"

static void
test_a_web_identity_is_exchanged(void **state)
{
    (void)state;
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", write_file("token", "aa.bb/cc+dd==\n", 0644), 1);
    const S3Config config = {.region = "eu-central-1"};
    assert_failed(&config, NULL, CAIRN_USAGE, "AWS_ROLE_ARN is not");
    setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/x", 1);
    static const Exchange GOOD[] = {
        {"POST https://sts.eu-central-1.amazonaws.com/", NULL, 503, "busy"},
        {"POST https://sts.eu-central-1.amazonaws.com/",
         "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3A"
         "role%2Fx&RoleSessionName=pgcairn&WebIdentityToken=aa.bb%2Fcc%2Bdd%3D%3D",
         200, STS_BODY("ASIA", "2026-11-23T00:31:40Z")},
    };
    Service good = {GOOD, 2, 0};
    assert_found(&config, &good, "ASIA", "S", "T", "web identity");

    static const Exchange REFUSED[] = {
        {"POST http://127.0.0.1:1/", NULL, 400,
         "<ErrorResponse><Error><Code>ExpiredTokenException</Code><Message>late</Message></Error>"
         "</ErrorResponse>"},
        {"POST http://127.0.0.1:1/", NULL, 403,
         "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
         "</ErrorResponse>"},
    };
    setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1/", 1);
    Service refused = {REFUSED, 1, 0};
    assert_failed(&config, &refused, CAIRN_UNAVAILABLE, "ExpiredTokenException: late");
    Service denied = {REFUSED + 1, 1, 0};
    assert_failed(&config, &denied, CAIRN_DENIED, "AccessDenied: no");
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token", 1);
    assert_failed(&config, NULL, CAIRN_NOT_FOUND, "/nonexistent/token");
}

#define JSON_BODY(key, expiration)                                                                 \
    "{\"Code\":\"Success\",\"AccessKeyId\":\"" key "\",\"SecretAccessKey\":\"S\",\"Token\":\"T\"," \
    "\"Expiration\":\"" expiration "\"}"

static void
test_a_container_service_is_asked(void **state)
{
    (void)state;
    const S3Config config = {0};
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x", 1);
    static const Exchange RELATIVE[] = {
        {"GET http://169.254.170.2/v2/x", NULL, 200, JSON_BODY("ASIA", "2026-11-23T00:31:40Z")}};
    Service relative = {RELATIVE, 1, 0};
    assert_found(&config, &relative, "ASIA", "S", "T", "container");
    unsetenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");

    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:8080/x", 1);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "overridden", 1);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", write_file("t", "Basic abc\n", 0644), 1);
    static const Exchange FULL[] = {
        {"GET http://127.0.0.1:8080/x", "authorization: Basic abc", 200,
         "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Token\":\"T\"}"},
        {"GET http://127.0.0.1:8080/x", NULL, 401, "HUSH"},
        {"GET http://127.0.0.1:8080/x", NULL, 200, "{\"AccessKeyId\":\"A\"}"},
        {"GET http://127.0.0.1:8080/x", NULL, 200, "<html>HUSH"},
    };
    Service full = {FULL, 1, 0};
    assert_found(&config, &full, "A", "S", "T", "container");
    Service denied = {FULL + 1, 1, 0};
    assert_failed(&config, &denied, CAIRN_DENIED, "status 401");
    Service half = {FULL + 2, 1, 0};
    assert_failed(&config, &half, CAIRN_CORRUPT, "no SecretAccessKey");
    Service html = {FULL + 3, 1, 0};
    assert_failed(&config, &html, CAIRN_CORRUPT, "no JSON object");

    static const char *const BAD[] = {"http://10.0.0.1/x", "http://127.0.0.1.example.org/x",
                                      "http://localhost@example.org/x", "file:///etc/passwd"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", BAD[i], 1);
        assert_failed(&config, NULL, CAIRN_USAGE, "neither https nor a local address");
    }
}

#define IMDS "http://169.254.169.254/latest/"
#define ROLES IMDS "meta-data/iam/security-credentials/"

static void
test_the_instance_is_asked_with_a_token(void **state)
{
    (void)state;
    unsetenv("AWS_EC2_METADATA_DISABLED");
    const S3Config config = {0};
    static const Exchange GOOD[] = {
        {"PUT " IMDS "api/token", "x-aws-ec2-metadata-token-ttl-seconds: 21600", 200, "TOKEN=="},
        {"GET " ROLES, "x-aws-ec2-metadata-token: TOKEN==", 200, "backup-role\n"},
        {"GET " ROLES "backup-role", "x-aws-ec2-metadata-token: TOKEN==", 200,
         JSON_BODY("ASIA", "2026-11-23T00:31:40Z")},
    };
    Service good = {GOOD, 3, 0};
    assert_found(&config, &good, "ASIA", "S", "T", "role 'backup-role'");

    static const Exchange NOBODY[] = {{"PUT " IMDS "api/token", NULL, 0, NULL}};
    Service nobody = {NOBODY, 1, 0};
    assert_failed(&config, &nobody, CAIRN_UNAVAILABLE, "instance metadata: nobody there");
    static const Exchange VERSION_1[] = {{"PUT " IMDS "api/token", NULL, 405, "no"}};
    Service version_1 = {VERSION_1, 1, 0};
    assert_failed(&config, &version_1, CAIRN_USAGE, "instance metadata: no token (status 405)");
    static const Exchange NO_ROLE[] = {{"PUT " IMDS "api/token", NULL, 200, "T"},
                                       {"GET " ROLES, NULL, 404, "not found"}};
    Service no_role = {NO_ROLE, 2, 0};
    assert_failed(&config, &no_role, CAIRN_DENIED, "no role is attached");
    static const Exchange FAILED[] = {{"PUT " IMDS "api/token", NULL, 200, "T"},
                                      {"GET " ROLES, NULL, 200, "r"},
                                      {"GET " ROLES "r", NULL, 200, "{\"Code\":\"Failed\"}"}};
    Service failed = {FAILED, 3, 0};
    assert_failed(&config, &failed, CAIRN_DENIED, "says Failed instead of Success");
    static const Exchange LINE_BREAK[] = {{"PUT " IMDS "api/token", NULL, 200, "T\r\nx: y"}};
    Service line_break = {LINE_BREAK, 1, 0};
    assert_failed(&config, &line_break, CAIRN_USAGE, "no token");
}

static void
test_without_any_the_error_tells_what_was_tried(void **state)
{
    (void)state;
    const S3Config config = {0};
    assert_failed(&config, NULL, CAIRN_USAGE, "configuration: no access-key; environment: ");
    assert_failed(&config, NULL, CAIRN_USAGE, "web identity: AWS_WEB_IDENTITY_TOKEN_FILE");
    assert_failed(&config, NULL, CAIRN_USAGE, "instance metadata: disabled)");
}

/* Temporary credentials: one service of which each call makes new ones, an hour long. */
typedef struct {
    _Atomic int calls;
    _Atomic int at_once;
    _Atomic int most_at_once;
    _Atomic bool down;
    int64_t life_us;
} Mint;

static bool
mint(void *context, const S3HttpRequest *request, S3HttpAnswer *answer_out, CairnError *err)
{
    (void)request;
    Mint *service = context;
    const int at_once = ++service->at_once;
    if (at_once > service->most_at_once)
        service->most_at_once = at_once;
    const int number = ++service->calls;
    usleep(2000); /* so that threads that would ask too do */
    service->at_once--;
    if (service->down)
        return cairn_error(err, CAIRN_UNAVAILABLE, "down");
    const time_t expires_s = (time_t)((now_us + service->life_us) / SECOND_US);
    struct tm parts;
    gmtime_r(&expires_s, &parts);
    char time_text[32];
    strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    char *body = NULL;
    const int size = asprintf(&body,
                              "{\"AccessKeyId\":\"A%d\",\"SecretAccessKey\":\"S%d\",\"Token\":"
                              "\"T%d\",\"Expiration\":\"%s\"}",
                              number, number, number, time_text);
    assert_true(size > 0);
    *answer_out = (S3HttpAnswer){200, body, (size_t)size};
    return true;
}

static S3CredentialSource *
mint_source(const World *world, Mint *service)
{
    static const S3Config CONFIG;
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:8080/x", 1);
    CairnError err = {0};
    S3CredentialSource *source =
        s3_credential_source_new(world, &CONFIG, (S3Http){mint, service}, &err);
    assert_non_null(source);
    return source;
}

static void
assert_key(S3CredentialSource *source, const char *access_key)
{
    S3Credentials credentials;
    CairnError err = {0};
    if (!s3_credential_source_get(source, &credentials, &err))
        fail_msg("%s", err.message);
    assert_string_equal(credentials.access_key, access_key);
}

static void
test_temporary_ones_are_fetched_again_before_they_expire(void **state)
{
    (void)state;
    const World world = test_world();
    Mint service = {.life_us = 3600 * SECOND_US};
    SCOPED(S3CredentialSource) source = mint_source(&world, &service);
    assert_key(source, "A1");
    now_us = START_US + 3299 * SECOND_US;
    assert_key(source, "A1");
    now_us = START_US + 3300 * SECOND_US;
    assert_key(source, "A2");
}

static void
test_the_old_ones_serve_while_a_refresh_fails(void **state)
{
    (void)state;
    const World world = test_world();
    Mint service = {.life_us = 3600 * SECOND_US};
    SCOPED(S3CredentialSource) source = mint_source(&world, &service);
    assert_key(source, "A1");
    service.down = true;
    now_us = START_US + 3300 * SECOND_US;
    assert_key(source, "A1");
    const int calls = service.calls;
    assert_key(source, "A1"); /* not asked again at once */
    assert_int_equal(service.calls, calls);
    now_us += 20 * SECOND_US;
    assert_key(source, "A1");
    assert_true(service.calls > calls);

    now_us = START_US + 3541 * SECOND_US;
    S3Credentials credentials;
    CairnError err = {0};
    assert_false(s3_credential_source_get(source, &credentials, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    assert_non_null(strstr(err.message, "container service http://127.0.0.1:8080/x: down"));
    service.down = false;
    char next[16];
    snprintf(next, sizeof next, "A%d", service.calls + 1);
    assert_key(source, next);
}

static void
test_what_expired_on_arrival_is_used_and_asked_for_again(void **state)
{
    (void)state;
    const World world = test_world();
    Mint service = {.life_us = -3600 * SECOND_US};
    SCOPED(S3CredentialSource) source = mint_source(&world, &service);
    assert_key(source, "A1");
    assert_key(source, "A1");
    now_us += 61 * SECOND_US;
    assert_key(source, "A2");
}

static void
test_what_the_store_calls_expired_is_fetched_once(void **state)
{
    (void)state;
    const World world = test_world();
    Mint service = {.life_us = 3600 * SECOND_US};
    SCOPED(S3CredentialSource) source = mint_source(&world, &service);
    S3Credentials first;
    CairnError err = {0};
    assert_true(s3_credential_source_get(source, &first, &err));
    assert_true(s3_credential_source_expired(source, &first));
    assert_key(source, "A2");
    assert_true(s3_credential_source_expired(source, &first)); /* said late, by another thread */
    assert_key(source, "A2");

    const S3Config fixed = {.access_key = "A", .secret_key = "S"};
    SCOPED(S3CredentialSource)
    permanent = s3_credential_source_new(&world, &fixed, (S3Http){0}, &err);
    assert_true(s3_credential_source_get(permanent, &first, &err));
    assert_false(s3_credential_source_expired(permanent, &first));
}

typedef struct {
    S3CredentialSource *source;
    char access_key[S3_ACCESS_KEY_SIZE];
    CairnErrorKind kind;
} Asker;

static void *
ask(void *context)
{
    Asker *asker = context;
    S3Credentials credentials = {0};
    CairnError err = {0};
    if (!s3_credential_source_get(asker->source, &credentials, &err))
        asker->kind = err.kind;
    memcpy(asker->access_key, credentials.access_key, sizeof asker->access_key);
    return NULL;
}

enum { ASKERS = 16 };

static void
ask_at_once(S3CredentialSource *source, Asker askers[ASKERS])
{
    pthread_t threads[ASKERS];
    for (size_t i = 0; i < ASKERS; i++) {
        askers[i] = (Asker){.source = source};
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
    }
    for (size_t i = 0; i < ASKERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void
test_many_threads_make_one_request(void **state)
{
    (void)state;
    const World world = test_world();
    Mint service = {.life_us = 3600 * SECOND_US};
    SCOPED(S3CredentialSource) source = mint_source(&world, &service);
    Asker askers[ASKERS];
    ask_at_once(source, askers);
    for (size_t i = 0; i < ASKERS; i++)
        assert_string_equal(askers[i].access_key, "A1");
    assert_int_equal(service.calls, 1);

    /* While one refreshes, the others have what they had. */
    now_us = START_US + 3300 * SECOND_US;
    ask_at_once(source, askers);
    assert_int_equal(service.calls, 2);
    assert_int_equal(service.most_at_once, 1);
}

static void
test_a_failure_is_shared_by_those_who_waited(void **state)
{
    (void)state;
    const World world = test_world();
    Mint service = {.life_us = 3600 * SECOND_US, .down = true};
    SCOPED(S3CredentialSource) source = mint_source(&world, &service);
    Asker askers[ASKERS];
    ask_at_once(source, askers);
    for (size_t i = 0; i < ASKERS; i++)
        assert_int_equal(askers[i].kind, CAIRN_UNAVAILABLE);
    assert_int_equal(service.most_at_once, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_configuration_comes_before_environment_and_profile, start),
        cmocka_unit_test_setup(test_profiles_are_found_at_home_and_in_the_configuration_file,
                               start),
        cmocka_unit_test_setup(test_profiles_that_cannot_be_followed_are_told, start),
        cmocka_unit_test_setup(test_files_that_others_can_read_are_refused, start),
        cmocka_unit_test_setup(test_a_web_identity_is_exchanged, start),
        cmocka_unit_test_setup(test_a_container_service_is_asked, start),
        cmocka_unit_test_setup(test_the_instance_is_asked_with_a_token, start),
        cmocka_unit_test_setup(test_without_any_the_error_tells_what_was_tried, start),
        cmocka_unit_test_setup(test_temporary_ones_are_fetched_again_before_they_expire, start),
        cmocka_unit_test_setup(test_the_old_ones_serve_while_a_refresh_fails, start),
        cmocka_unit_test_setup(test_what_expired_on_arrival_is_used_and_asked_for_again, start),
        cmocka_unit_test_setup(test_what_the_store_calls_expired_is_fetched_once, start),
        cmocka_unit_test_setup(test_many_threads_make_one_request, start),
        cmocka_unit_test_setup(test_a_failure_is_shared_by_those_who_waited, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
