/* One object's lock: what is asked of the store, and which answers are believed. */
#include "tests/unit/support/s3_liar.h"

#include "common/timestamp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define DAY_US (INT64_C(24) * 3600 * 1000000)

#define LOCKED(mode, until)                                                                        \
    {                                                                                              \
        "200 OK", "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>" mode       \
                  "</Mode><RetainUntilDate>" until "</RetainUntilDate></Retention>"                \
    }
#define LONG "2190-01-02T03:04:05.000000000Z"
#define LONG_FRACTION "2190-01-02T03:04:05.999999999Z"
#define LONGER "2190-01-02T03:04:06Z"
#define SHORT "2026-01-02T03:04:05Z"
#define ERROR(code) "<Error><Code>" code "</Code></Error>"
#define DENIED                                                                                     \
    {                                                                                              \
        "403 Forbidden", ERROR("AccessDenied")                                                     \
    }
#define TAKEN                                                                                      \
    {                                                                                              \
        "200 OK", ""                                                                               \
    }

enum { LOCK_DAYS = 44, HORIZON_DAYS = 55 };

/* storage_ensure_lock of "c/x" before a store that gives these answers. */
static bool
ensure(Liar *liar, const LiarAnswer *answers, size_t count, const char *mode, int64_t left_us,
       StorageLock *lock, CairnError *err)
{
    *liar = (Liar){.answers = answers, .count = count, .lock_mode = mode, .lock_days = LOCK_DAYS};
    *lock = (StorageLock){0};
    liar_start(liar);
    const bool done = storage_ensure_lock(liar->storage, "c/x", left_us, lock, err);
    liar_end(liar);
    return done;
}

static Liar liar; /* too large for a stack */

static void
test_the_terms_are_those_of_the_configuration(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {TAKEN};
    liar = (Liar){.answers = ANSWERS, .count = 1, .lock_mode = "compliance", .lock_days = 7};
    liar_start(&liar);
    StorageLockTerms terms = storage_lock_terms(liar.storage);
    assert_string_equal(terms.mode, "compliance");
    assert_int_equal(terms.days, 7);
    assert_int_equal(terms.refresh_days, 1);
    liar_end(&liar);
    liar = (Liar){.answers = ANSWERS, .count = 1};
    liar_start(&liar);
    assert_null(storage_lock_terms(liar.storage).mode);
    liar_end(&liar);
}

static void
test_a_lock_that_lasts_is_asked_for_and_left_alone(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {LOCKED("GOVERNANCE", LONG)};
    StorageLock lock;
    CairnError err = {0};
    int64_t until_us = 0;
    assert_true(ensure(&liar, ANSWERS, 1, "governance", LOCK_DAYS * DAY_US, &lock, &err));
    assert_int_equal(liar.asked, 1);
    assert_memory_equal(liar.requests[0], "GET /bucket/ours/c/x?retention", 30);
    assert_false(lock.renewed);
    Timestamp until;
    assert_true(timestamp_parse("2190-01-02 03:04:05+00", &until, &err));
    until_us = until.time_us;
    assert_true(lock.until_us == until_us);
}

/* Asking alone: whatever it is. */
static void
test_a_lock_is_only_asked_for(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[][1] = {
        {LOCKED("GOVERNANCE", SHORT)},
        {{"404 Not Found", ERROR("NoSuchObjectLockConfiguration")}},
    };
    StorageLock lock;
    CairnError err = {0};
    for (size_t i = 0; i < 2; i++) {
        assert_true(ensure(&liar, ANSWERS[i], 1, "governance", 0, &lock, &err));
        assert_int_equal(liar.asked, 1);
        assert_false(lock.renewed);
        assert_true((lock.until_us == 0) == (i == 1));
    }
}

/* The moment that the store was asked to lock until. */
static int64_t
wanted_until(const char *request)
{
    static const char BEGIN[] = "<RetainUntilDate>";
    char text[64] = "";
    Timestamp until;
    CairnError err = {0};
    const char *at = strstr(request, BEGIN);
    assert_non_null(at);
    at += strlen(BEGIN);
    snprintf(text, sizeof text, "%.*s", (int)strcspn(at, "<"), at);
    assert_true(timestamp_parse(text, &until, &err));
    return until.time_us;
}

static void
check_extension(const char *request, const char *mode)
{
    const Clock *clock = world_real()->clock;
    const int64_t days_us = wanted_until(request) - clock->wall_us(clock);
    assert_memory_equal(request, "PUT /bucket/ours/c/x?retention", 30);
    assert_non_null(strstr(request, mode));
    assert_non_null(strcasestr(request, "content-md5: "));
    assert_null(strcasestr(request, "bypass")); /* or it could shorten one */
    assert_true(days_us > HORIZON_DAYS * DAY_US - 60 * INT64_C(1000000) &&
                days_us <= HORIZON_DAYS * DAY_US);
}

static void
test_a_short_lock_is_extended_and_keeps_its_mode(void **state)
{
    (void)state;
    static const struct {
        LiarAnswer answers[3];
        const char *configured, *mode;
    } CASES[] = {
        {{{"404 Not Found", ERROR("NoSuchObjectLockConfiguration")},
          TAKEN,
          LOCKED("GOVERNANCE", LONG)},
         "governance",
         "<Mode>GOVERNANCE</Mode>"},
        {{{"404 Not Found", ERROR("ObjectLockConfigurationNotFoundError")},
          TAKEN,
          LOCKED("COMPLIANCE", LONG)},
         "compliance",
         "<Mode>COMPLIANCE</Mode>"},
        /* It ran out: nothing is left to be kept. */
        {{LOCKED("GOVERNANCE", SHORT), TAKEN, LOCKED("COMPLIANCE", LONG)},
         "compliance",
         "<Mode>COMPLIANCE</Mode>"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        StorageLock lock;
        CairnError err = {0};
        assert_true(ensure(&liar, CASES[i].answers, 3, CASES[i].configured, LOCK_DAYS * DAY_US,
                           &lock, &err));
        assert_int_equal(liar.asked, 3);
        check_extension(liar.requests[1], CASES[i].mode);
        assert_true(lock.renewed);
        assert_true(lock.until_us > lock.now_us + HORIZON_DAYS * DAY_US);
    }
}

/* A lock that holds for a day. */
static void
locked_soon(const char *mode, char *body, size_t size)
{
    const Clock *clock = world_real()->clock;
    char day[TIMESTAMP_TEXT_SIZE];
    timestamp_format(day, (clock->wall_us(clock) + DAY_US) / 1000000 * 1000000);
    snprintf(body, size,
             "<Retention><Mode>%s</Mode><RetainUntilDate>%.10sT%.8sZ</RetainUntilDate></Retention>",
             mode, day, day + 11);
}

/* A stronger lock than configured, which holds and ends too early, gets longer as what it is. */
static void
test_a_compliance_lock_stays_one(void **state)
{
    (void)state;
    char soon[256];
    locked_soon("COMPLIANCE", soon, sizeof soon);
    const LiarAnswer answers[] = {{"200 OK", soon}, TAKEN, LOCKED("COMPLIANCE", LONG)};
    StorageLock lock;
    CairnError err = {0};
    assert_true(ensure(&liar, answers, 3, "governance", LOCK_DAYS * DAY_US, &lock, &err));
    check_extension(liar.requests[1], "<Mode>COMPLIANCE</Mode>");
    assert_true(lock.renewed);
}

/* The other way round only who may bypass a lock changes it, and to nothing shorter. */
static void
test_a_weaker_lock_than_configured_becomes_what_is_configured(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {LOCKED("GOVERNANCE", LONG_FRACTION), TAKEN,
                                         LOCKED("COMPLIANCE", LONGER)};
    Timestamp there;
    StorageLock lock;
    CairnError err = {0};
    assert_true(ensure(&liar, ANSWERS, 3, "compliance", LOCK_DAYS * DAY_US, &lock, &err));
    assert_int_equal(liar.asked, 3);
    assert_true(lock.renewed);
    assert_non_null(strstr(liar.requests[1], "<Mode>COMPLIANCE</Mode>"));
    assert_non_null(strcasestr(liar.requests[1], "x-amz-bypass-governance-retention: true"));
    assert_true(wanted_until(liar.requests[1]) == lock.until_us);
    assert_true(timestamp_parse("2190-01-02 03:04:05.999999+00", &there, &err));
    assert_true(lock.until_us > there.time_us);
}

static void
test_a_lock_that_stays_weaker_is_told(void **state)
{
    (void)state;
    char soon[256];
    locked_soon("GOVERNANCE", soon, sizeof soon);
    const struct {
        LiarAnswer answers[4];
        size_t asked;
        int64_t left_us;
    } cases[] = {
        {{LOCKED("GOVERNANCE", LONG), DENIED}, 2, LOCK_DAYS * DAY_US},
        {{LOCKED("GOVERNANCE", LONG)}, 1, 0}, /* only asked */
        /* At least it gets longer. */
        {{{"200 OK", soon}, DENIED, TAKEN, LOCKED("GOVERNANCE", LONG)}, 4, LOCK_DAYS * DAY_US},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        StorageLock lock;
        CairnError err = {0};
        assert_false(ensure(&liar, cases[i].answers, cases[i].asked, "compliance", cases[i].left_us,
                            &lock, &err));
        assert_int_equal(err.kind, CAIRN_MISMATCH);
        assert_non_null(strstr(err.hint, "s3:BypassGovernanceRetention"));
        assert_int_equal(liar.asked, cases[i].asked);
    }
    check_extension(liar.requests[2], "<Mode>GOVERNANCE</Mode>");
}

/* Whatever it answers to the extension: what is read back counts. */
static void
test_an_extension_is_believed_when_read_back(void **state)
{
    (void)state;
    static const struct {
        LiarAnswer answers[3];
        CairnErrorKind kind;
        const char *hint;
    } CASES[] = {
        {{LOCKED("GOVERNANCE", SHORT), TAKEN, LOCKED("GOVERNANCE", SHORT)}, CAIRN_UNSUPPORTED, ""},
        {{LOCKED("GOVERNANCE", SHORT),
          TAKEN,
          {"404 Not Found", ERROR("NoSuchObjectLockConfiguration")}},
         CAIRN_UNSUPPORTED,
         ""},
        {{LOCKED("GOVERNANCE", SHORT), DENIED, LOCKED("GOVERNANCE", SHORT)},
         CAIRN_DENIED,
         "s3:PutObjectRetention"},
        /* Somebody else was faster, and went further. */
        {{LOCKED("GOVERNANCE", SHORT), DENIED, LOCKED("GOVERNANCE", LONG)}, CAIRN_OK, ""},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        StorageLock lock;
        CairnError err = {0};
        const bool done =
            ensure(&liar, CASES[i].answers, 3, "governance", LOCK_DAYS * DAY_US, &lock, &err);
        assert_int_equal(done, CASES[i].kind == CAIRN_OK);
        assert_int_equal(err.kind, CASES[i].kind);
        assert_non_null(strstr(err.hint, CASES[i].hint));
        assert_false(lock.renewed);
        assert_int_equal(liar.asked, 3);
    }
}

static void
test_answers_to_the_question(void **state)
{
    (void)state;
    static const struct {
        LiarAnswer answers[2];
        CairnErrorKind kind;
        const char *hint;
    } CASES[] = {
        {{DENIED, DENIED}, CAIRN_DENIED, "s3:GetObjectRetention"},
        {{{"404 Not Found", ERROR("NoSuchKey")}, TAKEN}, CAIRN_NOT_FOUND, ""},
        {{{"404 Not Found", ""}, {"404 Not Found", ""}},
         CAIRN_UNAVAILABLE,
         ""}, /* no word of the store */
        {{{"404 Not Found", ERROR("NoSuchBucket")}, TAKEN}, CAIRN_USAGE, ""},
        /* Of a delete marker: then the name is looked up. */
        {{{"405 Method Not Allowed", ERROR("MethodNotAllowed")},
          {"404 Not Found", ERROR("NoSuchKey")}},
         CAIRN_NOT_FOUND,
         ""},
        {{{"405 Method Not Allowed", ERROR("MethodNotAllowed")}, {"200 OK", "x"}},
         CAIRN_UNSUPPORTED,
         ""},
        /* Who does not know the question gives the object. */
        {{{"200 OK", "PGCAIRN\n and so on"}, TAKEN}, CAIRN_CORRUPT, ""},
        {{LOCKED("FOREVER", LONG), TAKEN}, CAIRN_CORRUPT, ""},
        {{LOCKED("GOVERNANCE", "tomorrow"), TAKEN}, CAIRN_CORRUPT, ""},
        {{{"200 OK", "<Retention><Mode>GOVERNANCE</Mode></Retention>"}, TAKEN}, CAIRN_CORRUPT, ""},
        {{{"200 OK", "<Retention/>"}, TAKEN}, CAIRN_CORRUPT, ""},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        StorageLock lock;
        CairnError err = {0};
        assert_false(
            ensure(&liar, CASES[i].answers, 2, "governance", LOCK_DAYS * DAY_US, &lock, &err));
        assert_int_equal(err.kind, CASES[i].kind);
        assert_non_null(strstr(err.hint, CASES[i].hint));
        assert_null(strstr(liar.requests[1], "PUT /"));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_terms_are_those_of_the_configuration),
        cmocka_unit_test(test_a_lock_that_lasts_is_asked_for_and_left_alone),
        cmocka_unit_test(test_a_lock_is_only_asked_for),
        cmocka_unit_test(test_a_short_lock_is_extended_and_keeps_its_mode),
        cmocka_unit_test(test_a_compliance_lock_stays_one),
        cmocka_unit_test(test_a_weaker_lock_than_configured_becomes_what_is_configured),
        cmocka_unit_test(test_a_lock_that_stays_weaker_is_told),
        cmocka_unit_test(test_an_extension_is_believed_when_read_back),
        cmocka_unit_test(test_answers_to_the_question),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
