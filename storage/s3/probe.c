/*
 * What the store really does, found out by doing it.
 *
 * A conditional create is proven by a race only: one server was seen to answer 412 whenever it was
 * asked in sequence, and to let 2 to 8 of 8 racing writers win; others ignore the header. So
 * RACERS threads create the same name at once, RACES times, and the winner is whoever's bytes are
 * there afterwards: everybody else must have been told 412. The first race also opens the
 * connections; from the second on all requests leave at the same time.
 */
#include "common/bytes.h"
#include "storage/s3/s3_intern.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { RACERS = 8, RACES = 4, BODY_SIZE = 64, LOCK_SECONDS = 300 };

typedef struct {
    S3Storage *storage;
    StorageProbe *probe;
    char token[17]; /* of this probe: its names are its own */
} Probing;

/* "probe/<token>.<what>" below the prefix. */
static bool
probe_key(const Probing *probing, const char *what, char key[S3_KEY_LIMIT + 1], CairnError *err)
{
    char name[64];
    snprintf(name, sizeof name, "probe/%s.%s", probing->token, what);
    return s3_key(s3_client_address(probing->storage->client), name, key, err);
}

static void
fails(Probing *probing, StorageFeature *feature, const char *detail)
{
    *feature = STORAGE_FEATURE_FAILS;
    if (probing->probe->detail[0] == '\0')
        snprintf(probing->probe->detail, sizeof probing->probe->detail, "%.255s", detail);
}

/* A host that may only create leaves them; a collector elsewhere sweeps `probe/`. */
static void
remove_key(Probing *probing, const char *key)
{
    CairnError ignored = {0};
    s3_remove_key(probing->storage, key, &ignored);
}

/* -- the race */

typedef struct Race Race;

typedef struct {
    Race *race;
    char body[BODY_SIZE + 1];
    bool won;       /* was told so */
    bool ambiguous; /* was told 412 after an answer that was lost: may have won */
    bool failed;
    CairnError err;
    pthread_t thread;
} Racer;

struct Race {
    Probing *probing;
    char key[S3_KEY_LIMIT + 1];
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool go; /* under the mutex */
    Racer racers[RACERS];
};

static bool
create(Racer *racer, S3Answer *answer, CairnError *err)
{
    S3Storage *storage = racer->race->probing->storage;
    S3CreateHeaders headers = {0};
    uint8_t digest[SHA256_SIZE];
    s3_condition_header(storage, &headers);
    return sha256_of(racer->body, BODY_SIZE, digest, err) &&
           s3_checksum_header(storage, racer->body, BODY_SIZE, digest, false, &headers, err) &&
           s3_call(storage->client,
                   &(S3Request){.method = "PUT",
                                .operation = "PutObject",
                                .key = racer->race->key,
                                .headers = headers.pairs,
                                .body = racer->body,
                                .body_size = BODY_SIZE,
                                .body_digest = digest,
                                .expect_412 = true},
                   answer, err);
}

static void
wait_for_start(Race *race)
{
    pthread_mutex_lock(&race->mutex);
    while (!race->go)
        pthread_cond_wait(&race->changed, &race->mutex);
    pthread_mutex_unlock(&race->mutex);
}

static void
let_go(Race *race)
{
    pthread_mutex_lock(&race->mutex);
    race->go = true;
    pthread_cond_broadcast(&race->changed);
    pthread_mutex_unlock(&race->mutex);
}

static void *
run_racer(void *context)
{
    Racer *racer = context;
    SCOPED_S3_ANSWER S3Answer answer = {0};
    wait_for_start(racer->race);
    racer->failed = !create(racer, &answer, &racer->err);
    racer->won = !racer->failed && answer.http.status != 412;
    racer->ambiguous = !racer->failed && answer.http.status == 412 && answer.ambiguous;
    return NULL;
}

/* How many were told that they won, and is the one whose bytes are there among those who may have?
 */
static bool
judge(Race *race, size_t *winners_out, bool *true_winner_out, CairnError *err)
{
    char there[BODY_SIZE];
    size_t got;
    uint64_t total;
    if (!s3_get_range(race->probing->storage, race->key, there, BODY_SIZE, 0, &got, &total, err))
        return false;
    *winners_out = 0;
    *true_winner_out = false;
    for (size_t i = 0; i < RACERS; i++) {
        const Racer *racer = &race->racers[i];
        *winners_out += racer->won;
        if (got == BODY_SIZE && total == BODY_SIZE && memcmp(there, racer->body, BODY_SIZE) == 0)
            *true_winner_out = racer->won || racer->ambiguous;
    }
    return true;
}

/* False with err only when the store could not be asked. */
static bool
finish_race(Race *race, CairnError *err)
{
    Probing *probing = race->probing;
    StorageFeature *feature = &probing->probe->exclusive_create;
    for (size_t i = 0; i < RACERS; i++) {
        const Racer *racer = &race->racers[i];
        if (!racer->failed)
            continue;
        if (racer->err.kind == CAIRN_UNSUPPORTED) {
            fails(probing, feature, "the store does not know conditional creates");
            return true;
        }
        *err = racer->err;
        return false;
    }
    size_t winners;
    bool true_winner;
    char detail[128];
    if (!judge(race, &winners, &true_winner, err))
        return false;
    if (winners > 1) {
        snprintf(detail, sizeof detail, "%zu of %d racing creates of one name succeeded", winners,
                 RACERS);
        fails(probing, feature, detail);
    } else if (!true_winner) {
        fails(probing, feature, "what is there after a race is not what its winner wrote");
    }
    return true;
}

static bool
run_race(Race *race, CairnError *err)
{
    size_t started = 0;
    while (started < RACERS && pthread_create(&race->racers[started].thread, NULL, run_racer,
                                              &race->racers[started]) == 0)
        started++;
    let_go(race);
    for (size_t i = 0; i < started; i++)
        pthread_join(race->racers[i].thread, NULL);
    if (started < RACERS)
        return cairn_error(err, CAIRN_INTERNAL, "unable to start threads");
    return finish_race(race, err);
}

static bool
begin_race(Probing *probing, int number, Race *race, CairnError *err)
{
    char what[16];
    *race = (Race){.probing = probing,
                   .mutex = PTHREAD_MUTEX_INITIALIZER,
                   .changed = PTHREAD_COND_INITIALIZER};
    snprintf(what, sizeof what, "race%d", number);
    for (size_t i = 0; i < RACERS; i++) {
        Racer *racer = &race->racers[i];
        racer->race = race;
        memset(racer->body, '.', BODY_SIZE);
        snprintf(racer->body, sizeof racer->body, "%s racer %zu", probing->token, i);
        racer->body[strlen(racer->body)] = ' '; /* all have one size */
    }
    return probe_key(probing, what, race->key, err);
}

/* -- what one race leaves is good for more questions */

static bool
ask_ranged_read(Probing *probing, const char *key, CairnError *err)
{
    char whole[BODY_SIZE], part[7];
    size_t got, got_part;
    uint64_t total, total_part;
    S3Storage *storage = probing->storage;
    if (!s3_get_range(storage, key, whole, sizeof whole, 0, &got, &total, err) ||
        !s3_get_range(storage, key, part, sizeof part, 19, &got_part, &total_part, err)) {
        if (err->kind != CAIRN_CORRUPT)
            return false;
        fails(probing, &probing->probe->ranged_read, err->message);
        cairn_error_clear(err);
        return true;
    }
    if (got != BODY_SIZE || got_part != sizeof part || total_part != BODY_SIZE ||
        memcmp(part, whole + 19, sizeof part) != 0)
        fails(probing, &probing->probe->ranged_read, "another range came than was asked for");
    return true;
}

typedef struct {
    const char *name;
    bool seen;
} Wanted;

static StorageListNext
look_for(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)err;
    Wanted *wanted = context;
    wanted->seen = wanted->seen || strcmp(entry->name, wanted->name) == 0;
    return wanted->seen ? STORAGE_LIST_STOP : STORAGE_LIST_GO_ON;
}

static bool
ask_listing(Probing *probing, const char *key, CairnError *err)
{
    Wanted wanted = {.name = strrchr(key, '/') + 1};
    if (!s3_list(&probing->storage->base, "probe", look_for, &wanted, err))
        return false;
    if (!wanted.seen)
        fails(probing, &probing->probe->list_after_write,
              "what was just created is missing in a listing");
    return true;
}

static bool
ask_race(Probing *probing, int number, CairnError *err)
{
    SCOPED_MEMORY Race *race = malloc(sizeof *race);
    if (race == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!begin_race(probing, number, race, err))
        return false;
    bool asked = run_race(race, err);
    if (asked && number == RACES && probing->probe->exclusive_create != STORAGE_FEATURE_FAILS)
        asked = ask_listing(probing, race->key, err) && ask_ranged_read(probing, race->key, err);
    remove_key(probing, race->key);
    return asked;
}

static bool
ask_races(Probing *probing, CairnError *err)
{
    for (int number = 1; number <= RACES; number++) {
        if (!ask_race(probing, number, err))
            return false;
        if (probing->probe->exclusive_create == STORAGE_FEATURE_FAILS)
            break;
    }
    return true;
}

/* -- one object at a time */

/* Like a writer's, without its condition: the names are ours alone. */
static bool
put(Probing *probing, const char *key, const char *body, const uint8_t *digest,
    S3CreateHeaders *headers, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    return s3_call(probing->storage->client,
                   &(S3Request){.method = "PUT",
                                .operation = "PutObject",
                                .key = key,
                                .headers = headers->pairs,
                                .body = body,
                                .body_size = BODY_SIZE,
                                .body_digest = digest},
                   &answer, err);
}

/* Where there is no race (one writer): an object for the questions that a race answers elsewhere.
 */
static bool
ask_reading(Probing *probing, const char *body, const uint8_t *digest, CairnError *err)
{
    char key[S3_KEY_LIMIT + 1];
    S3CreateHeaders headers = {0};
    if (!probe_key(probing, "read", key, err) ||
        !s3_checksum_header(probing->storage, body, BODY_SIZE, digest, false, &headers, err) ||
        !put(probing, key, body, digest, &headers, err))
        return false;
    const bool asked = ask_listing(probing, key, err) && ask_ranged_read(probing, key, err);
    remove_key(probing, key);
    return asked;
}

/* Signed as if the body were another: what is damaged on the way must not be stored. */
static bool
ask_digest(Probing *probing, const char *body, const uint8_t *digest, CairnError *err)
{
    char key[S3_KEY_LIMIT + 1];
    uint8_t wrong[SHA256_SIZE];
    S3CreateHeaders headers = {0};
    memcpy(wrong, digest, sizeof wrong);
    wrong[0] ^= 1;
    if (!probe_key(probing, "digest", key, err))
        return false;
    if (put(probing, key, body, wrong, &headers, err)) {
        fails(probing, &probing->probe->digest_check,
              "a body that differs from its digest was stored");
        remove_key(probing, key);
        return true;
    }
    /* IO: a 400 of its own kind in every store (BadDigest, XAmzContentSHA256Mismatch). */
    if (err->kind != CAIRN_IO)
        return false;
    cairn_error_clear(err);
    return true;
}

/* -- object lock */

static bool
read_lock(Probing *probing, const char *key, char mode[32], int64_t *until_us, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    char until[64];
    *until_us = 0;
    if (!s3_call(probing->storage->client,
                 &(S3Request){.method = "GET", .operation = "GetObject", .key = key}, &answer, err))
        return false;
    http_header(&answer.http, "x-amz-object-lock-mode", mode, 32);
    if (!http_header(&answer.http, "x-amz-object-lock-retain-until-date", until, sizeof until) ||
        !s3_time_parse(until, until_us))
        *until_us = 0;
    return true;
}

/* A lock of a few minutes: it must be there when read back, since headers are also taken by stores
   that lock nothing. */
static bool
ask_lock(Probing *probing, const char *body, const uint8_t *digest, CairnError *err)
{
    S3Storage *storage = probing->storage;
    char key[S3_KEY_LIMIT + 1], mode[32], until[S3_LOCK_TIME_SIZE];
    int64_t until_us;
    const char *wanted = s3_lock_mode(storage);
    const int64_t wanted_us = s3_client_now_us(storage->client) + (int64_t)LOCK_SECONDS * 1000000;
    s3_lock_time(wanted_us, until);
    S3CreateHeaders headers = {0};
    s3_header_add(&headers, "x-amz-object-lock-mode", wanted);
    s3_header_add(&headers, "x-amz-object-lock-retain-until-date", until);
    if (!probe_key(probing, "lock", key, err) ||
        !s3_checksum_header(storage, body, BODY_SIZE, digest, false, &headers, err))
        return false;
    if (!put(probing, key, body, digest, &headers, err)) {
        /* 400 InvalidRequest: the bucket was made without it. */
        if (err->kind != CAIRN_IO && err->kind != CAIRN_UNSUPPORTED)
            return false;
        fails(probing, &probing->probe->object_lock, err->message);
        cairn_error_clear(err);
        return true;
    }
    if (!read_lock(probing, key, mode, &until_us, err))
        return false;
    if (strcasecmp(mode, wanted) != 0 || until_us / 1000000 < wanted_us / 1000000)
        fails(probing, &probing->probe->object_lock,
              "an object that was created with a lock has none when read back (or its lock may not "
              "be read: s3:GetObjectRetention)");
    remove_key(probing, key);
    return true;
}

/* -- all of it */

static bool
probe_all(Probing *probing, CairnError *err)
{
    S3Storage *storage = probing->storage;
    StorageProbe *probe = probing->probe;
    char body[BODY_SIZE + 1];
    uint8_t digest[SHA256_SIZE];
    snprintf(body, sizeof body, "%-*s", BODY_SIZE, probing->token);
    if (!sha256_of(body, BODY_SIZE, digest, err))
        return false;
    /* What is not refuted below holds. */
    probe->list_after_write = probe->ranged_read = probe->digest_check = STORAGE_FEATURE_HOLDS;
    if (!storage->one_writer) {
        probe->exclusive_create = STORAGE_FEATURE_HOLDS;
        if (!ask_races(probing, err))
            return false;
    } else if (!ask_reading(probing, body, digest, err)) {
        return false;
    }
    if (!ask_digest(probing, body, digest, err))
        return false;
    if (storage->config.s3.lock_mode == NULL)
        return true;
    probe->object_lock = STORAGE_FEATURE_HOLDS;
    return ask_lock(probing, body, digest, err);
}

bool
s3_probe(Storage *base, StorageProbe *probe_out, CairnError *err)
{
    StorageProbe probe = {0};
    uint8_t random[8];
    Probing probing = {.storage = (S3Storage *)base, .probe = &probe};
    const World *world = probing.storage->world;
    if (world->random->fill(world->random, random, sizeof random) != 0)
        return cairn_error_errno(err, "unable to get random bytes");
    hex_encode(probing.token, random, sizeof random);
    if (!probe_all(&probing, err))
        return cairn_error_wrap(err, "unable to probe the object store");
    *probe_out = probe;
    return true;
}
