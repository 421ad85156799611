#include "storage/s3/credentials.h"

#include "storage/s3/answers.h"
#include "storage/s3/credentials_intern.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_US INT64_C(1000000)

/* Fetched again when this much, or a fifth, of their life is left; a request with them may last. */
#define REFRESH_BEFORE_US (300 * SECOND_US)
/* Not used at all when this much, or a twentieth, is left. */
#define USE_BEFORE_US (60 * SECOND_US)
/* A service that hands out what has expired by our clock is asked again after this long. */
#define EXPIRED_ON_ARRIVAL_US (60 * SECOND_US)
/* While the old ones last, a failed refresh is repeated after this long. */
#define REPEAT_AFTER_US (15 * SECOND_US)

struct S3CredentialSource {
    const World *world;
    const S3Config *config;
    S3Http http;
    pthread_mutex_t mutex;
    pthread_cond_t fetched;
    /* Under the mutex: */
    bool fetching;
    uint64_t fetches; /* that ended */
    bool have;
    bool rotates;
    S3Credentials credentials;
    char from[S3_CREDENTIALS_TEXT_SIZE];
    int64_t refresh_us;  /* by the wall clock: worth fetching again; INT64_MAX: never */
    int64_t unusable_us; /* must be fetched again */
    CairnError last;     /* of the last fetch, when it failed */
};

void
s3_credentials_wipe(S3Credentials *credentials)
{
    OPENSSL_cleanse(credentials, sizeof *credentials);
}

const char *
credentials_environment(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

ProviderResult
credentials_absent(CredentialSearch *search, const char *format, ...)
{
    const size_t at = strlen(search->tried);
    va_list arguments;
    va_start(arguments, format);
    int length = snprintf(search->tried + at, sizeof search->tried - at, "%s", at > 0 ? "; " : "");
    if (length >= 0 && at + (size_t)length < sizeof search->tried)
        vsnprintf(search->tried + at + length, sizeof search->tried - at - (size_t)length, format,
                  arguments);
    va_end(arguments);
    return PROVIDER_ABSENT;
}

bool
credentials_take(char *field, size_t field_size, const char *text, const char *what,
                 CairnError *err)
{
    const size_t length = strlen(text);
    if (length == 0 || length >= field_size)
        return cairn_error(err, CAIRN_USAGE, "%s is empty or has more than %zu characters", what,
                           field_size - 1);
    for (const char *at = text; *at != '\0'; at++)
        if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f)
            return cairn_error(err, CAIRN_USAGE, "%s has a blank or a character that is not ASCII",
                               what);
    memcpy(field, text, length + 1);
    return true;
}

bool
credentials_call(CredentialSearch *search, const S3HttpRequest *request, int attempts,
                 S3HttpAnswer *answer_out, CairnError *err)
{
    for (int attempt = 1;; attempt++) {
        const bool answered = search->http.call(search->http.context, request, answer_out, err);
        const bool again = answered ? s3_error_is_transient(answer_out->status, "")
                                    : err->kind == CAIRN_UNAVAILABLE;
        if (!again || attempt >= attempts)
            return answered;
        if (answered)
            credentials_answer_free(answer_out);
        else
            cairn_error_clear(err);
        search->world->clock->sleep_ms(search->world->clock, 100L << attempt);
    }
}

void
credentials_answer_free(S3HttpAnswer *answer)
{
    if (answer->body != NULL)
        OPENSSL_cleanse(answer->body, answer->body_size);
    free(answer->body);
    *answer = (S3HttpAnswer){0};
}

/* All providers in their order. */
static bool
search_all(CredentialSearch *search, CairnError *err)
{
    static CredentialProvider *const PROVIDERS[] = {
        provider_config,       provider_chosen_profile, provider_environment, provider_profile,
        provider_web_identity, provider_container,      provider_instance,
    };
    for (size_t i = 0; i < sizeof PROVIDERS / sizeof PROVIDERS[0]; i++) {
        const ProviderResult result = PROVIDERS[i](search, err);
        if (result == PROVIDER_FOUND)
            return true;
        if (result == PROVIDER_FAILED)
            return cairn_error_wrap(err, "credentials for the object store");
    }
    cairn_error(err, search->unreachable ? CAIRN_UNAVAILABLE : CAIRN_USAGE,
                "no credentials for the object store (%s)", search->tried);
    return cairn_error_hint(err, "set access-key-file and secret-key-file in its [repository] "
                                 "section, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
}

static int64_t
smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* With the mutex held. */
static void
keep(S3CredentialSource *source, const CredentialSearch *search)
{
    const int64_t now_us = source->world->clock->wall_us(source->world->clock);
    source->credentials = *search->found;
    memcpy(source->from, search->from, sizeof source->from);
    source->rotates = search->rotates;
    source->have = true;
    source->refresh_us = source->unusable_us = INT64_MAX;
    const int64_t expires_us = source->credentials.expires_us;
    if (expires_us == 0)
        return;
    const int64_t life_us = expires_us - now_us;
    if (life_us <= 0) {
        /* The store decides whether they are good: our clock may be wrong, or the service in
           trouble, for which case its owner honours old ones. */
        source->refresh_us = source->unusable_us = now_us + EXPIRED_ON_ARRIVAL_US;
        return;
    }
    source->refresh_us = expires_us - smaller(REFRESH_BEFORE_US, life_us / 5);
    source->unusable_us = expires_us - smaller(USE_BEFORE_US, life_us / 20);
}

/* With the mutex held, which is let go while the search goes on. */
static void
fetch(S3CredentialSource *source)
{
    SCOPED_S3_CREDENTIALS S3Credentials found = {0};
    CairnError err = {0};
    CredentialSearch search = {
        .world = source->world, .config = source->config, .http = source->http, .found = &found};
    source->fetching = true;
    pthread_mutex_unlock(&source->mutex);
    const bool done = search_all(&search, &err);
    pthread_mutex_lock(&source->mutex);
    source->fetching = false;
    source->fetches++;
    source->last = err;
    if (done)
        keep(source, &search);
    else if (source->have)
        source->refresh_us = source->world->clock->wall_us(source->world->clock) + REPEAT_AFTER_US;
    pthread_cond_broadcast(&source->fetched);
}

/* With the mutex held. */
static bool
usable(const S3CredentialSource *source, int64_t now_us)
{
    return source->have && now_us < source->unusable_us;
}

static bool
get_locked(S3CredentialSource *source, CairnError *err)
{
    const Clock *clock = source->world->clock;
    const int64_t now_us = clock->wall_us(clock);
    if (usable(source, now_us) && (now_us < source->refresh_us || source->fetching))
        return true;
    if (!source->fetching) {
        fetch(source);
    } else {
        const uint64_t before = source->fetches;
        while (source->fetches == before)
            pthread_cond_wait(&source->fetched, &source->mutex);
    }
    if (usable(source, clock->wall_us(clock)))
        return true;
    *err = source->last;
    if (err->kind == CAIRN_OK) /* fetched, and used up while we waited */
        return cairn_error(err, CAIRN_UNAVAILABLE, "credentials expired as soon as they came");
    return false;
}

S3CredentialSource *
s3_credential_source_new(const World *world, const S3Config *config, S3Http http, CairnError *err)
{
    S3CredentialSource *source = calloc(1, sizeof *source);
    if (source == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    source->world = world;
    source->config = config;
    source->http = http;
    pthread_mutex_init(&source->mutex, NULL);
    pthread_cond_init(&source->fetched, NULL);
    return source;
}

void
s3_credential_source_free(S3CredentialSource *source)
{
    if (source == NULL)
        return;
    CAIRN_ASSERT(!source->fetching);
    pthread_cond_destroy(&source->fetched);
    pthread_mutex_destroy(&source->mutex);
    OPENSSL_cleanse(source, sizeof *source);
    free(source);
}

bool
s3_credential_source_get(S3CredentialSource *source, S3Credentials *credentials_out,
                         CairnError *err)
{
    pthread_mutex_lock(&source->mutex);
    const bool got = get_locked(source, err);
    if (got)
        *credentials_out = source->credentials;
    pthread_mutex_unlock(&source->mutex);
    return got;
}

bool
s3_credential_source_expired(S3CredentialSource *source, const S3Credentials *credentials)
{
    pthread_mutex_lock(&source->mutex);
    const bool current = source->have &&
                         strcmp(source->credentials.access_key, credentials->access_key) == 0 &&
                         strcmp(source->credentials.session_token, credentials->session_token) == 0;
    const bool others_may_come = !current || source->rotates;
    if (current && source->rotates)
        source->unusable_us = INT64_MIN;
    pthread_mutex_unlock(&source->mutex);
    return others_may_come;
}

void
s3_credential_source_text(S3CredentialSource *source, char text[S3_CREDENTIALS_TEXT_SIZE])
{
    pthread_mutex_lock(&source->mutex);
    snprintf(text, S3_CREDENTIALS_TEXT_SIZE, "%s", source->have ? source->from : "not fetched");
    pthread_mutex_unlock(&source->mutex);
}
