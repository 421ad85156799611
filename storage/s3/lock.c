/*
 * Object lock: reading one object's and extending it.
 *
 * Asked for with GetObjectRetention, not with the headers of a HEAD: those are left out, without a
 * word, for who may not see them, and a HEAD's 404 does not tell a missing object from a missing
 * bucket. Neither request names a version, so both are about the current one: what is read by name.
 * No extension asks to bypass anything, so no lock gets shorter, whoever extended it meanwhile. One
 * request does: that which makes a compliance lock of a governance one, where the configuration
 * wants it, since stores call that a bypass. It is as long as the longer of what is there and what
 * is new.
 */
#include "storage/s3/s3_intern.h"
#include "storage/s3_config.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define SECOND_US INT64_C(1000000)
#define DAY_US (INT64_C(24) * 3600 * SECOND_US)

static const S3Pair RETENTION[] = {{"retention", NULL}, {0}};

void
s3_lock_time(int64_t time_us, char text[S3_LOCK_TIME_SIZE])
{
    const time_t seconds = (time_t)(time_us / 1000000);
    struct tm utc;
    CAIRN_ASSERT(gmtime_r(&seconds, &utc) != NULL);
    strftime(text, S3_LOCK_TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static const char *
mode_name(bool is_compliance)
{
    return is_compliance ? "COMPLIANCE" : "GOVERNANCE";
}

static bool
wants_compliance(const S3Storage *storage)
{
    return strcmp(storage->config.s3.lock_mode, "compliance") == 0;
}

const char *
s3_lock_mode(const S3Storage *storage)
{
    return mode_name(wants_compliance(storage));
}

int64_t
s3_lock_horizon_us(const S3Storage *storage)
{
    const S3Config *config = &storage->config.s3;
    return s3_client_now_us(storage->client) +
           ((int64_t)config->lock_days + s3_lock_refresh_days(config)) * DAY_US;
}

StorageLockTerms
s3_lock_terms(Storage *base)
{
    const S3Config *config = &((S3Storage *)base)->config.s3;
    if (config->lock_mode == NULL)
        return (StorageLockTerms){0};
    return (StorageLockTerms){.mode = config->lock_mode,
                              .days = config->lock_days,
                              .refresh_days = s3_lock_refresh_days(config)};
}

/* -- reading */

typedef struct {
    S3Storage *storage;
    const char *name;
    char key[S3_KEY_LIMIT + 1];
} Locked;

/* The name's current version is a delete marker: some say 405 of it, not 404. */
static bool
is_hidden(const Locked *locked, CairnError *err)
{
    uint64_t size;
    CairnError why = {0};
    if (s3_exists(&locked->storage->base, locked->name, &size, &why) || why.kind != CAIRN_NOT_FOUND)
        return false;
    *err = why;
    return true;
}

/* Why there is no lock to be read, when that is an answer. */
static bool
is_unlocked(const S3Answer *answer)
{
    return answer->http.status == 404 &&
           (strcmp(answer->error.code, "NoSuchObjectLockConfiguration") == 0 ||
            strcmp(answer->error.code, "ObjectLockConfigurationNotFoundError") == 0);
}

/* No lock: a zeroed retention. */
static bool
read_lock(const Locked *locked, S3Retention *retention_out, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    CairnError failure = {0};
    *retention_out = (S3Retention){0};
    if (s3_call(locked->storage->client,
                &(S3Request){.method = "GET",
                             .operation = "GetObjectRetention",
                             .key = locked->key,
                             .query = RETENTION,
                             .expect_404 = true},
                &answer, &failure)) {
        if (answer.http.status == 404)
            return cairn_error(err, CAIRN_NOT_FOUND, "object '%s' does not exist", locked->key);
        return s3_retention_parse(answer.http.body, answer.http.body_size, retention_out, err) ||
               cairn_error_wrap(err, "unable to read the lock of '%s'", locked->key);
    }
    if (is_unlocked(&answer))
        return true;
    if (answer.http.status == 405 && is_hidden(locked, err))
        return false;
    *err = failure;
    if (err->kind == CAIRN_DENIED)
        cairn_error_hint(err, "the right to read locks is s3:GetObjectRetention; see "
                              "docs/object-stores.md");
    return false;
}

/* -- extending */

/* Stores keep seconds or milliseconds. */
static bool
lasts_until(const S3Retention *retention, int64_t until_us)
{
    return retention->until_us / 1000000 >= until_us / 1000000;
}

static bool
put_lock(const Locked *locked, bool is_compliance, bool bypass, int64_t until_us, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    S3CreateHeaders headers = {0};
    char until[S3_LOCK_TIME_SIZE], body[256];
    s3_lock_time(until_us, until);
    const int size = snprintf(body, sizeof body,
                              "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>"
                              "%s</Mode><RetainUntilDate>%s</RetainUntilDate></Retention>",
                              mode_name(is_compliance), until);
    if (bypass)
        s3_header_add(&headers, "x-amz-bypass-governance-retention", "true");
    return s3_md5_header(body, (size_t)size, &headers, err) &&
           s3_call(locked->storage->client,
                   &(S3Request){.method = "PUT",
                                .operation = "PutObjectRetention",
                                .key = locked->key,
                                .query = RETENTION,
                                .headers = headers.pairs,
                                .body = body,
                                .body_size = (size_t)size},
                   &answer, err);
}

/* Refused: then somebody else may just have extended it further than we wanted to. */
static bool
settle_refusal(const Locked *locked, int64_t until_us, const CairnError *refused,
               S3Retention *retention, CairnError *err)
{
    CairnError ignored = {0};
    if (refused->kind == CAIRN_DENIED && read_lock(locked, retention, &ignored) &&
        lasts_until(retention, until_us))
        return true;
    *err = *refused;
    if (err->kind == CAIRN_DENIED)
        cairn_error_hint(err, "the right to extend locks is s3:PutObjectRetention; see "
                              "docs/object-stores.md");
    return false;
}

/* Only what is read back counts. */
static bool
read_back(const Locked *locked, int64_t until_us, bool is_compliance, S3Retention *retention,
          CairnError *err)
{
    char until[S3_LOCK_TIME_SIZE];
    if (!read_lock(locked, retention, err))
        return false;
    if (lasts_until(retention, until_us) && retention->is_compliance >= is_compliance)
        return true;
    s3_lock_time(until_us, until);
    return cairn_error(err, CAIRN_UNSUPPORTED,
                       "the store took a lock of '%s' until %s, and shows another when read back",
                       locked->key, until);
}

/* A lock that still holds keeps its mode. */
static bool
extend(const Locked *locked, int64_t until_us, S3Retention *retention, bool *renewed_out,
       CairnError *err)
{
    CairnError refused = {0};
    const int64_t horizon_us = s3_lock_horizon_us(locked->storage);
    const int64_t longer_us = horizon_us < until_us ? until_us : horizon_us;
    const bool holds = retention->until_us > s3_client_now_us(locked->storage->client);
    const bool compliance = holds ? retention->is_compliance : wants_compliance(locked->storage);
    if (!put_lock(locked, compliance, false, longer_us, &refused))
        return settle_refusal(locked, until_us, &refused, retention, err);
    *renewed_out = read_back(locked, until_us, compliance, retention, err);
    return *renewed_out;
}

/* -- governance where compliance is configured */

static bool
is_weak(const Locked *locked, const S3Retention *retention)
{
    return retention->until_us > s3_client_now_us(locked->storage->client) &&
           !retention->is_compliance && wants_compliance(locked->storage);
}

/* Without the right it stays as it is: true, and still weak. A second more than what is there: it
   was read in whole seconds, and a bypass could take the fraction away. */
static bool
strengthen(const Locked *locked, S3Retention *retention, bool *renewed_out, CairnError *err)
{
    CairnError refused = {0};
    const int64_t horizon_us = s3_lock_horizon_us(locked->storage);
    const int64_t there_us = retention->until_us + SECOND_US;
    const int64_t until_us = there_us > horizon_us ? there_us : horizon_us;
    if (!put_lock(locked, true, true, until_us, &refused)) {
        if (refused.kind == CAIRN_DENIED)
            return true;
        *err = refused;
        return false;
    }
    *renewed_out = read_back(locked, until_us, true, retention, err);
    return *renewed_out;
}

static bool
refuse_weak(const Locked *locked, CairnError *err)
{
    cairn_error(err, CAIRN_MISMATCH,
                "'%s' is locked in governance mode, and lock-mode is compliance", locked->key);
    return cairn_error_hint(err,
                            "`pgcairn repo renew` on the host that collects changes that, with "
                            "the right s3:BypassGovernanceRetention");
}

bool
s3_ensure_lock(Storage *base, const char *name, int64_t left_us, StorageLock *lock_out,
               CairnError *err)
{
    Locked locked = {.storage = (S3Storage *)base, .name = name};
    S3Retention retention;
    StorageLock lock = {.now_us = s3_client_now_us(locked.storage->client)};
    if (!s3_key(s3_client_address(locked.storage->client), name, locked.key, err) ||
        !read_lock(&locked, &retention, err))
        return false;
    if (left_us > 0 && is_weak(&locked, &retention) &&
        !strengthen(&locked, &retention, &lock.renewed, err))
        return false;
    if (left_us > 0 && !lasts_until(&retention, lock.now_us + left_us) &&
        !extend(&locked, lock.now_us + left_us, &retention, &lock.renewed, err))
        return false;
    if (is_weak(&locked, &retention))
        return refuse_weak(&locked, err);
    lock.until_us = retention.until_us;
    *lock_out = lock;
    return true;
}
