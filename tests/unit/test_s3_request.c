/* The pure parts of the S3 driver: addresses, when a request is repeated, which bytes are fetched.
 */
#include "storage/s3/address.h"
#include "storage/s3/http.h"
#include "storage/s3/read_cache.h"
#include "storage/s3/read_plan.h"
#include "storage/s3/retry.h"
#include "storage/s3_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { KIB = 1 << 10, MIB = 1 << 20 };

static void
test_endpoint_is_a_scheme_a_host_and_a_port(void **state)
{
    static const struct {
        const char *text;
        const char *host; /* NULL: refused */
        int port;
        bool tls;
    } CASES[] = {
        {"https://s3.eu-central-1.amazonaws.com", "s3.eu-central-1.amazonaws.com", 443, true},
        {"s3.example.org", "s3.example.org", 443, true},
        {"s3.example.org:9000", "s3.example.org", 9000, true},
        {"https://s3.example.org:9000/", "s3.example.org", 9000, true},
        {"http://127.0.0.1:80", "127.0.0.1", 80, false},
        {"http://[::1]:9000", "[::1]", 9000, false},
        {"https://s3.example.org/bucket", NULL, 0, false},
        {"https://user@s3.example.org", NULL, 0, false},
        {"ftp://s3.example.org", NULL, 0, false},
        {"https://", NULL, 0, false},
        {"https://host:0", NULL, 0, false},
        {"https://host:65536", NULL, 0, false},
        {"https://host:99999999999", NULL, 0, false},
        {"https://host name", NULL, 0, false},
        {"https://[::1", NULL, 0, false},
        {"https://[host]", NULL, 0, false},
        {"", NULL, 0, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        S3Endpoint endpoint;
        const bool parsed = s3_endpoint_parse(CASES[i].text, &endpoint);
        if (parsed != (CASES[i].host != NULL))
            fail_msg("'%s' is %s", CASES[i].text, parsed ? "accepted" : "refused");
        if (!parsed)
            continue;
        assert_string_equal(endpoint.host, CASES[i].host);
        assert_int_equal(endpoint.port, CASES[i].port);
        assert_int_equal(endpoint.tls, CASES[i].tls);
    }
}

static void
test_only_loopback_is_loopback(void **state)
{
    static const char *const YES[] = {"127.0.0.1", "127.8.8.8", "[::1]", "localhost",
                                      "s3.localhost"};
    static const char *const NO[] = {"128.0.0.1",          "10.0.0.1",   "0.0.0.0",
                                     "localhost.evil.org", "xlocalhost", "127.0.0.1.evil.org"};
    (void)state;
    for (size_t i = 0; i < sizeof YES / sizeof YES[0]; i++)
        assert_true(s3_host_is_loopback(YES[i]));
    for (size_t i = 0; i < sizeof NO / sizeof NO[0]; i++)
        assert_false(s3_host_is_loopback(NO[i]));
}

/* The section of a repository that is right; tests make it wrong. */
static RepositoryConfig
section(void)
{
    return (RepositoryConfig){.name = "main",
                              .type = "s3",
                              .s3 = {.endpoint = "https://s3.example.org", .bucket = "backups"}};
}

static void
refused(const RepositoryConfig *config, const char *why)
{
    CairnError err = {0};
    assert_false(s3_config_check(config, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    if (strstr(err.message, why) == NULL)
        fail_msg("'%s' does not say '%s'", err.message, why);
}

static void
test_a_section_says_what_it_lacks(void **state)
{
    (void)state;
    CairnError err = {0};
    RepositoryConfig config = section();
    assert_true(s3_config_check(&config, &err));

    config.s3.bucket = NULL;
    refused(&config, "no bucket");
    config = section();
    config.s3.endpoint = NULL;
    refused(&config, "no endpoint");
    config.s3.endpoint = "https://s3.example.org/backups";
    refused(&config, "endpoint");
    config = section();
    config.s3.bucket = "a/b";
    refused(&config, "bucket");
    config = section();
    config.s3.prefix = "/a";
    refused(&config, "prefix");
    config = section();
    config.s3.lock_mode = "governance";
    refused(&config, "lock-days");
    config.s3.lock_days = 8;
    assert_true(s3_config_check(&config, &err));
    assert_int_equal(s3_lock_refresh_days(&config.s3), 2); /* a quarter */
    config.s3.lock_days = 1;
    assert_int_equal(s3_lock_refresh_days(&config.s3), 1);
    config.s3.lock_refresh_days = 30;
    assert_int_equal(s3_lock_refresh_days(&config.s3), 30);
    config.s3.lock_mode = NULL;
    config.s3.lock_days = 0;
    refused(&config, "lock-refresh-days");
}

static void
test_plain_http_is_for_loopback_and_said(void **state)
{
    (void)state;
    CairnError err = {0};
    RepositoryConfig config = section();
    config.s3.endpoint = "http://127.0.0.1:9000";
    refused(&config, "TLS");
    config.s3.plain_http = "refused";
    refused(&config, "TLS");
    config.s3.plain_http = "allowed";
    assert_true(s3_config_check(&config, &err));
    config.s3.endpoint = "http://s3.example.org";
    refused(&config, "TLS");
}

static void
test_styles_put_the_bucket_in_path_or_host(void **state)
{
    static const struct {
        S3Config config;
        const char *host;
        const char *path;
    } CASES[] = {
        {{.endpoint = "https://s3.example.org", .bucket = "b-1", .prefix = "p/q"},
         "s3.example.org",
         "/b-1/p/q/c/x"},
        {{.endpoint = "https://s3.eu-west-1.amazonaws.com", .bucket = "b-1"},
         "b-1.s3.eu-west-1.amazonaws.com",
         "/c/x"},
        {{.endpoint = "https://s3.eu-west-1.amazonaws.com", .bucket = "b.1"},
         "s3.eu-west-1.amazonaws.com",
         "/b.1/c/x"},
        {{.endpoint = "https://s3.eu-west-1.amazonaws.com", .bucket = "b-1", .uri_style = "path"},
         "s3.eu-west-1.amazonaws.com",
         "/b-1/c/x"},
        {{.endpoint = "http://s3.localhost:9000", .bucket = "b-1", .uri_style = "virtual"},
         "b-1.s3.localhost:9000",
         "/c/x"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CairnError err = {0};
        S3Address address;
        char key[S3_KEY_LIMIT + 1], path[S3_PATH_SIZE];
        assert_true(s3_address(&CASES[i].config, &address, &err));
        assert_true(s3_key(&address, "c/x", key, &err));
        s3_path(&address, key, path);
        assert_string_equal(address.host, CASES[i].host);
        assert_string_equal(path, CASES[i].path);
    }
}

static void
test_a_key_that_is_too_long_is_refused(void **state)
{
    (void)state;
    CairnError err = {0};
    S3Address address;
    char name[S3_KEY_LIMIT + 1], key[S3_KEY_LIMIT + 1];
    assert_true(
        s3_address(&(S3Config){.endpoint = "h", .bucket = "bbb", .prefix = "p"}, &address, &err));
    memset(name, 'x', sizeof name - 1);
    name[S3_KEY_LIMIT - 2] = '\0';
    assert_true(s3_key(&address, name, key, &err));
    assert_int_equal(strlen(key), S3_KEY_LIMIT);
    name[S3_KEY_LIMIT - 2] = 'x';
    name[S3_KEY_LIMIT - 1] = '\0';
    assert_false(s3_key(&address, name, key, &err));
}

static void
test_a_host_that_is_too_long_is_refused(void **state)
{
    (void)state;
    CairnError err = {0};
    S3Address address;
    char endpoint[256], bucket[256];
    memset(endpoint, 'e', sizeof endpoint - 1);
    endpoint[sizeof endpoint - 1] = '\0';
    memset(bucket, 'b', sizeof bucket - 1);
    bucket[sizeof bucket - 1] = '\0';
    S3Config config = {.endpoint = endpoint, .bucket = bucket, .uri_style = "virtual"};
    assert_true(s3_address(&config, &address, &err));
    memcpy(endpoint + sizeof endpoint - 7, ":12345", 6);
    assert_true(s3_address(&config, &address, &err));
    char longest[256 + 6];
    memset(longest, 'e', sizeof longest);
    memcpy(longest + 255, ":12345", 7);
    config.endpoint = longest;
    assert_false(s3_address(&config, &address, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
}

static void
test_what_may_help_is_repeated_and_nothing_else(void **state)
{
    static const struct {
        S3Outcome outcome;
        S3Retry decision;
    } CASES[] = {
        {{0, "", false}, S3_RETRY_LATER},
        {{0, "", true}, S3_RETRY_NO},
        {{500, "InternalError", false}, S3_RETRY_LATER},
        {{502, "", false}, S3_RETRY_LATER},
        {{503, "SlowDown", false}, S3_RETRY_LATER},
        {{504, "", false}, S3_RETRY_LATER},
        {{429, "", false}, S3_RETRY_LATER},
        {{408, "", false}, S3_RETRY_LATER},
        {{400, "RequestTimeout", false}, S3_RETRY_LATER},
        {{409, "ConditionalRequestConflict", false}, S3_RETRY_LATER},
        {{409, "OperationAborted", false}, S3_RETRY_LATER},
        {{200, "InternalError", false}, S3_RETRY_LATER},
        {{403, "RequestTimeTooSkewed", false}, S3_RETRY_CLOCK},
        {{400, "ExpiredToken", false}, S3_RETRY_CREDENTIALS},
        {{403, "AccessDenied", false}, S3_RETRY_NO},
        {{403, "SignatureDoesNotMatch", false}, S3_RETRY_CREDENTIALS},
        {{403, "InvalidAccessKeyId", false}, S3_RETRY_CREDENTIALS},
        {{400, "InvalidToken", false}, S3_RETRY_CREDENTIALS},
        {{404, "NoSuchKey", false}, S3_RETRY_NO},
        {{404, "NoSuchBucket", false}, S3_RETRY_NO},
        {{412, "PreconditionFailed", false}, S3_RETRY_NO},
        {{501, "NotImplemented", false}, S3_RETRY_NO},
        {{507, "", false}, S3_RETRY_NO},
        {{301, "PermanentRedirect", false}, S3_RETRY_NO},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        const S3Retry decision = s3_retry_decision(&CASES[i].outcome);
        if (decision != CASES[i].decision)
            fail_msg("%d %s: %d", CASES[i].outcome.status, CASES[i].outcome.code, decision);
    }
}

static void
test_delays_double_up_to_a_limit_and_are_random(void **state)
{
    (void)state;
    assert_int_equal(s3_retry_delay_ms(1, UINT32_MAX, 0), S3_DELAY_FIRST_MS);
    assert_int_equal(s3_retry_delay_ms(2, UINT32_MAX, 0), 2 * S3_DELAY_FIRST_MS);
    assert_int_equal(s3_retry_delay_ms(4, UINT32_MAX, 0), 8 * S3_DELAY_FIRST_MS);
    assert_int_equal(s3_retry_delay_ms(1000, UINT32_MAX, 0), S3_DELAY_LIMIT_MS);
    assert_int_equal(s3_retry_delay_ms(4, 0, 0), 0);
    const int64_t half = s3_retry_delay_ms(4, UINT32_MAX / 2, 0);
    assert_true(half >= 399 && half <= 401);
    /* Not before the store wants it, whatever is drawn. */
    assert_int_equal(s3_retry_delay_ms(1, 0, 7000), 7000);
    assert_int_equal(s3_retry_after_ms("7"), 7000);
    assert_int_equal(s3_retry_after_ms("99999999999999999999"), S3_RETRY_AFTER_LIMIT_MS);
    assert_int_equal(s3_retry_after_ms("Fri, 27 Nov 2026 10:00:00 GMT"), 0);
    assert_int_equal(s3_retry_after_ms("-1"), 0);
    assert_int_equal(s3_retry_after_ms(""), 0);
}

static void
plans(S3ReadState state, uint64_t offset, size_t size, S3ReadPlan expected)
{
    const S3ReadPlan plan = s3_read_plan(&state, offset, size);
    assert_int_equal(plan.offset, expected.offset);
    assert_int_equal(plan.size, expected.size);
    assert_int_equal(plan.direct, expected.direct);
}

static void
test_reads_are_planned_by_what_comes_next(void **state)
{
    (void)state;
    const uint64_t whole = 64 * (uint64_t)MIB;
    S3ReadState fresh = {.object_size = whole};
    /* A trailer: the end, which holds the index as well. */
    plans(fresh, whole - 64, 64, (S3ReadPlan){whole - S3_TAIL_READ, S3_TAIL_READ, false});
    /* A frame somewhere: a little more than itself, which its neighbours may want. */
    plans(fresh, 10 * MIB, 100, (S3ReadPlan){10 * MIB, S3_RANDOM_READ, false});
    plans(fresh, 10 * MIB, 100 * KIB, (S3ReadPlan){10 * MIB, 100 * KIB, false});
    /* Who asks for much knows what he wants. */
    plans(fresh, 10 * MIB, S3_DIRECT_MIN, (S3ReadPlan){10 * MIB, S3_DIRECT_MIN, true});
    /* In order: further ahead each time, to a limit and to the end. */
    S3ReadState in_order = {.object_size = whole, .next_offset = 10 * MIB};
    plans(in_order, 10 * MIB, 100, (S3ReadPlan){10 * MIB, S3_AHEAD_FIRST, false});
    in_order.ahead = S3_AHEAD_FIRST;
    plans(in_order, 10 * MIB, 100, (S3ReadPlan){10 * MIB, 2 * S3_AHEAD_FIRST, false});
    in_order.ahead = S3_AHEAD_LIMIT;
    plans(in_order, 10 * MIB, 100, (S3ReadPlan){10 * MIB, S3_AHEAD_LIMIT, false});
    in_order.next_offset = whole - 200;
    plans(in_order, whole - 200, 100, (S3ReadPlan){whole - 200, 200, false});
    /* An object smaller than a tail. */
    plans((S3ReadState){.object_size = 70 * KIB}, 69 * KIB, 64, (S3ReadPlan){0, 70 * KIB, false});
}

static void
test_every_plan_covers_its_read(void **state)
{
    (void)state;
    unsigned seed = 1;
    for (int i = 0; i < 200000; i++) {
        const uint64_t whole = 1 + (uint64_t)rand_r(&seed) % (8 * MIB);
        const uint64_t offset = (uint64_t)rand_r(&seed) % whole;
        const size_t size = 1 + (size_t)rand_r(&seed) % (size_t)(whole - offset);
        const S3ReadState reading = {.object_size = whole,
                                     .next_offset = rand_r(&seed) % 2 == 0 ? offset : 0,
                                     .ahead = (size_t)rand_r(&seed) % (4 * MIB)};
        const S3ReadPlan plan = s3_read_plan(&reading, offset, size);
        assert_true(plan.offset <= offset && plan.offset + plan.size >= offset + size);
        assert_true(plan.offset + plan.size <= whole);
        assert_true(plan.direct || plan.size <= S3_AHEAD_LIMIT);
    }
}

static void
test_content_ranges_are_parsed_strictly(void **state)
{
    (void)state;
    uint64_t first, last, total;
    assert_true(s3_content_range_parse("bytes 10-19/256", &first, &last, &total));
    assert_int_equal(first, 10);
    assert_int_equal(last, 19);
    assert_int_equal(total, 256);
    static const char *const WRONG[] = {
        "",
        "bytes",
        "bytes 10-19",
        "bytes 10-19/*",
        "bytes */256",
        "10-19/256",
        "bytes 20-19/256",
        "bytes 0-256/256",
        "bytes 0-1/2 ",
        "bytes -1/2",
        "bytes 99999999999999999999-99999999999999999999/99999999999999999999"};
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++)
        assert_false(s3_content_range_parse(WRONG[i], &first, &last, &total));
}

static void
put_window(S3ReadCache *cache, const void *owner, size_t size, uint64_t offset, int fill)
{
    uint8_t *data = malloc(size);
    assert_non_null(data);
    memset(data, fill, size);
    s3_read_cache_put(cache, owner, data, size, offset);
}

static void
test_the_cache_keeps_to_its_limit_and_drops_the_oldest(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(S3ReadCache) cache = s3_read_cache_new(&err);
    assert_non_null(cache);
    int owners[8];
    uint8_t data[16];
    for (int i = 0; i < 8; i++) { /* 8 MiB into 6 */
        put_window(cache, &owners[i], MIB, 100, i);
        if (i > 0) /* the first stays in use */
            assert_true(s3_read_cache_get(cache, &owners[0], data, 16, 100));
    }
    assert_true(s3_read_cache_get(cache, &owners[0], data, 16, 100 + MIB - 16));
    assert_false(s3_read_cache_get(cache, &owners[1], data, 16, 100));
    assert_true(s3_read_cache_get(cache, &owners[7], data, 16, 200));
    assert_int_equal(data[0], 7);
    /* Beyond its ends, and after its owner is gone. */
    assert_false(s3_read_cache_get(cache, &owners[7], data, 16, 99));
    assert_false(s3_read_cache_get(cache, &owners[7], data, 16, 100 + MIB - 15));
    s3_read_cache_drop(cache, &owners[7]);
    assert_false(s3_read_cache_get(cache, &owners[7], data, 16, 200));
}

static void
test_headers_are_found_by_name(void **state)
{
    (void)state;
    HttpAnswer answer = {.headers = "etag: \"x\"\nretry-after:  7\nempty:\n"};
    char text[8];
    assert_true(http_header(&answer, "retry-after", text, sizeof text));
    assert_string_equal(text, "7");
    assert_true(http_header(&answer, "empty", text, sizeof text));
    assert_string_equal(text, "");
    assert_false(http_header(&answer, "etagx", text, sizeof text));
    assert_false(http_header(&answer, "etag", text, 3)); /* does not fit: not half of it */
    assert_string_equal(text, "");
    answer = (HttpAnswer){.headers = "a: b\nc: \0d\netag: x\n"};
    assert_false(http_header(&answer, "etag", text, sizeof text));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endpoint_is_a_scheme_a_host_and_a_port),
        cmocka_unit_test(test_only_loopback_is_loopback),
        cmocka_unit_test(test_a_section_says_what_it_lacks),
        cmocka_unit_test(test_plain_http_is_for_loopback_and_said),
        cmocka_unit_test(test_styles_put_the_bucket_in_path_or_host),
        cmocka_unit_test(test_a_key_that_is_too_long_is_refused),
        cmocka_unit_test(test_a_host_that_is_too_long_is_refused),
        cmocka_unit_test(test_what_may_help_is_repeated_and_nothing_else),
        cmocka_unit_test(test_delays_double_up_to_a_limit_and_are_random),
        cmocka_unit_test(test_reads_are_planned_by_what_comes_next),
        cmocka_unit_test(test_every_plan_covers_its_read),
        cmocka_unit_test(test_content_ranges_are_parsed_strictly),
        cmocka_unit_test(test_the_cache_keeps_to_its_limit_and_drops_the_oldest),
        cmocka_unit_test(test_headers_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
