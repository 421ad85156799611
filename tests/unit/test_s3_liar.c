/* The S3 driver before a store that answers what no real one would: it must end, and touch nothing
   of others. */
#include "common/cancel.h"
#include "tests/unit/support/s3_liar.h"
#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static StorageListNext
count_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)entry, (void)err;
    ++*(size_t *)context;
    return STORAGE_LIST_GO_ON;
}

#define PAGE(more, token, key)                                                                     \
    "<ListBucketResult><IsTruncated>" more "</IsTruncated><NextContinuationToken>" token           \
    "</NextContinuationToken><Contents><Key>" key                                                  \
    "</Key><Size>1</Size><LastModified>2026-11-27T10:00:00.000Z</LastModified></Contents>"         \
    "</ListBucketResult>"

static void
test_a_list_that_leads_in_a_circle_ends(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {{"200 OK", PAGE("true", "one", "ours/c/a")},
                                         {"200 OK", PAGE("true", "two", "ours/c/b")},
                                         {"200 OK", PAGE("true", "three", "ours/c/c")}};
    static Liar liar;
    liar =
        (Liar){.answers = ANSWERS, .count = 3, .last = {"200 OK", PAGE("false", "", "ours/c/d")}};
    CairnError err = {0};
    size_t entries = 0;
    liar_start(&liar);
    assert_false(storage_list(liar.storage, "c", count_entry, &entries, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    liar_end(&liar);
    assert_true(liar.asked < 12);
}

#define PREFIXES(more, token, first, second)                                                       \
    "<ListBucketResult><IsTruncated>" more "</IsTruncated><NextContinuationToken>" token           \
    "</NextContinuationToken><CommonPrefixes><Prefix>" first                                       \
    "</Prefix></CommonPrefixes><CommonPrefixes><Prefix>" second                                    \
    "</Prefix></CommonPrefixes></ListBucketResult>"

/* A backup that is listed twice would be two to who keeps the newest so many. */
static void
test_what_two_pages_list_is_there_once(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {
        {"200 OK", PREFIXES("true", "one", "ours/c/a/", "ours/c/b/")},
        {"200 OK", PREFIXES("false", "", "ours/c/b/", "ours/c/c/")}};
    static Liar liar;
    liar = (Liar){.answers = ANSWERS, .count = 2};
    CairnError err = {0};
    size_t entries = 0;
    liar_start(&liar);
    assert_true(storage_list(liar.storage, "c", count_entry, &entries, &err));
    assert_int_equal(entries, 3);
    liar_end(&liar);
}

static void
test_a_list_of_something_else_is_no_answer(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {
        {"200 OK", PAGE("false", "", "theirs/x/y")}, /* without the prefix */
        {"200 OK", PAGE("false", "", "ours/c/x/y")}, /* without the delimiter */
    };
    for (size_t i = 0; i < sizeof ANSWERS / sizeof ANSWERS[0]; i++) {
        static Liar liar;
        liar = (Liar){.answers = &ANSWERS[i], .count = 1};
        CairnError err = {0};
        size_t entries = 0;
        liar_start(&liar);
        assert_false(storage_list(liar.storage, "c", count_entry, &entries, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        assert_int_equal(entries, 0);
        liar_end(&liar);
    }
}

#define UPLOADS(more, key, next)                                                                   \
    "<ListMultipartUploadsResult><IsTruncated>" more "</IsTruncated><NextKeyMarker>" next          \
    "</NextKeyMarker><NextUploadIdMarker>id</NextUploadIdMarker><Upload><Key>" key                 \
    "</Key><UploadId>id</UploadId><Initiated>2026-11-27T10:00:00.000Z</Initiated></Upload>"        \
    "</ListMultipartUploadsResult>"

static void
test_a_sweep_goes_on_from_page_to_page(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {{"200 OK", UPLOADS("true", "ours/c/a", "ours/c/a")},
                                         {"200 OK", UPLOADS("false", "ours/c/b", "")}};
    static Liar liar;
    liar = (Liar){
        .answers = ANSWERS, .count = 2, .last = {"200 OK", UPLOADS("false", "ours/c/a", "")}};
    CairnError err = {0};
    liar_start(&liar);
    assert_true(storage_sweep(liar.storage, "c", 0, &err)); /* none is old */
    liar_end(&liar);
    assert_int_equal(liar.asked, 2);
    assert_null(strstr(liar.requests[0], "key-marker"));
    assert_non_null(strstr(liar.requests[1], "key-marker=ours%2Fc%2Fa&"));
    assert_non_null(strstr(liar.requests[1], "upload-id-marker=id&"));
}

static void
test_a_sweep_aborts_nobody_elses_upload(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {{"200 OK", UPLOADS("false", "theirs/large", "")},
                                         {"204 No Content", ""}};
    static Liar liar;
    liar = (Liar){.answers = ANSWERS, .count = 2};
    CairnError err = {0};
    liar_start(&liar);
    assert_true(storage_sweep(liar.storage, "c", INT64_MAX, &err));
    liar_end(&liar);
    assert_int_equal(liar.asked, 1);
}

static void
test_an_empty_object_that_is_there_already_is_not_ours(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {
        {"412 Precondition Failed", "<Error><Code>PreconditionFailed</Code></Error>"}};
    static Liar liar;
    liar = (Liar){.answers = ANSWERS, .count = 1};
    CairnError err = {0};
    liar_start(&liar);
    assert_false(storage_put(liar.storage, "c/empty", "", 0, &err));
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    liar_end(&liar);
}

/* PostgreSQL would end its recovery on NOT_FOUND. */
static void
test_absence_is_only_what_the_store_says_of_the_object(void **state)
{
    (void)state;
    static const struct {
        LiarAnswer answer;
        CairnErrorKind kind;
    } CASES[] = {
        {{"404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"}, CAIRN_NOT_FOUND},
        {{"404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>"}, CAIRN_USAGE},
        {{"404 Not Found", ""}, CAIRN_UNAVAILABLE},
        {{"404 Not Found", "<html>no such page</html>"}, CAIRN_UNAVAILABLE},
        {{"403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"}, CAIRN_DENIED},
        {{"301 Moved Permanently", "<Error><Code>PermanentRedirect</Code></Error>"}, CAIRN_USAGE},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        static Liar liar;
        liar = (Liar){.answers = &CASES[i].answer, .count = 1};
        CairnError err = {0};
        uint64_t size;
        size_t entries = 0;
        liar_start(&liar);
        assert_false(storage_exists(liar.storage, "c/x", &size, &err));
        assert_int_equal(err.kind, CASES[i].kind);
        err = (CairnError){0};
        assert_false(storage_list(liar.storage, "c", count_entry, &entries, &err));
        liar_end(&liar);
    }
}

/* What it says may be cut on the way: then it is asked once more. */
static void
test_an_absence_without_its_words_is_asked_again(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {
        {"404 Not Found", "<Error><Code>NoSu"},
        {"404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"},
    };
    static Liar liar;
    liar = (Liar){.answers = ANSWERS, .count = 2};
    CairnError err = {0};
    uint64_t size;
    liar_start(&liar);
    assert_false(storage_exists(liar.storage, "c/x", &size, &err));
    liar_end(&liar);
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
    assert_int_equal(liar.asked, 2);
}

/* Nor does it take a quarter of an hour, which a store in trouble is given. */
static void
test_a_store_that_passes_over_ranges_is_given_up(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {{"200 OK", "more than the byte that was asked for"}};
    static Liar liar;
    liar = (Liar){.answers = ANSWERS, .count = 1, .last = {"403 Forbidden", ""}};
    CairnError err = {0};
    uint64_t size;
    liar_start(&liar);
    assert_false(storage_exists(liar.storage, "c/x", &size, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    liar_end(&liar);
    assert_true(liar.asked <= 15);
}

static void
write_key(const char *path, const char *key)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fchmod(fileno(file), 0600), 0);
    fprintf(file, "%s\n", key);
    assert_int_equal(fclose(file), 0);
}

/* Of a process that lives long, like a receiver. Keys that stay are not tried twice. */
static void
test_rotated_keys_are_read_again(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {
        {"200 OK", "x"},
        {"403 Forbidden", "<Error><Code>InvalidAccessKeyId</Code></Error>"},
        {"200 OK", "x"},
        {"403 Forbidden", "<Error><Code>InvalidAccessKeyId</Code></Error>"},
        {"403 Forbidden", "<Error><Code>InvalidAccessKeyId</Code></Error>"}};
    char path[512];
    snprintf(path, sizeof path, "%s/access-key", scratch_directory());
    static Liar liar;
    liar = (Liar){.answers = ANSWERS, .count = 5, .access_key_file = path};
    CairnError err = {0};
    uint64_t size;
    write_key(path, "old");
    liar_start(&liar);
    assert_true(storage_exists(liar.storage, "c/x", &size, &err));
    write_key(path, "new");
    assert_true(storage_exists(liar.storage, "c/x", &size, &err));
    assert_false(storage_exists(liar.storage, "c/x", &size, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    liar_end(&liar);
    assert_non_null(strstr(liar.requests[1], "Credential=old/"));
    assert_non_null(strstr(liar.requests[2], "Credential=new/"));
    assert_int_equal(liar.asked, 5);
}

/* -- versions */

#define VERSIONS(more, key, version, entries)                                                      \
    "<ListVersionsResult><IsTruncated>" more "</IsTruncated><NextKeyMarker>" key                   \
    "</NextKeyMarker><NextVersionIdMarker>" version "</NextVersionIdMarker>" entries               \
    "</ListVersionsResult>"
#define VERSION(key, version, latest)                                                              \
    "<Version><Key>" key "</Key><VersionId>" version "</VersionId><IsLatest>" latest               \
    "</IsLatest><LastModified>2026-11-27T10:00:00.000Z</LastModified><Size>1</Size></Version>"

static bool
count_version(void *context, const StorageVersion *version, CairnError *err)
{
    (void)err;
    assert_true(storage_name_valid(version->name));
    ++*(size_t *)context;
    return true;
}

static void
test_versions_go_on_from_page_to_page(void **state)
{
    (void)state;
    /* The second page begins with what the first ended with; the first says `null` for that, and
       the third has another latest, as Swift does. Foreign names are passed over. */
    static const LiarAnswer ANSWERS[] = {
        {"200 OK", VERSIONS("true", "ours/c/a", "null",
                            VERSION("ours/.x", "9", "true") VERSION("ours/c/a", "3", "true"))},
        {"200 OK", VERSIONS("true", "ours/c/a", "2",
                            VERSION("ours/c/a", "3", "true") VERSION("ours/c/a", "2", "false"))},
        {"200 OK", VERSIONS("false", "", "",
                            VERSION("ours/c/a", "1", "true") VERSION("ours/c/b", "1", "true"))}};
    static Liar liar;
    liar = (Liar){.answers = ANSWERS, .count = 3};
    CairnError err = {0};
    size_t entries = 0;
    liar_start(&liar);
    if (!storage_list_versions(liar.storage, count_version, &entries, &err))
        fail_msg("%s", err.message);
    liar_end(&liar);
    assert_int_equal(entries, 4);
    assert_int_equal(liar.asked, 3);
    assert_non_null(strstr(liar.requests[0], "prefix=ours%2F&versions="));
    assert_null(strstr(liar.requests[0], "marker"));
    assert_non_null(strstr(liar.requests[1], "key-marker=ours%2Fc%2Fa&"));
    assert_non_null(strstr(liar.requests[1], "version-id-marker=3&"));
    assert_non_null(strstr(liar.requests[2], "version-id-marker=2&"));
}

static void
test_a_list_of_versions_that_cannot_be_trusted_is_refused(void **state)
{
    (void)state;
    static const LiarAnswer CASES[][2] = {
        /* Markers that make no progress, go back, or lead in a circle. */
        {{"200 OK", VERSIONS("true", "ours/c/b", "1", "")},
         {"200 OK", VERSIONS("true", "ours/c/b", "1", "")}},
        {{"200 OK", VERSIONS("true", "ours/c/b", "1", "")},
         {"200 OK", VERSIONS("true", "ours/c/a", "1", "")}},
        {{"200 OK", VERSIONS("true", "ours/c/b", "1", "")},
         {"200 OK", VERSIONS("true", "ours/c/b", "2", "")}},
        /* Out of order: the newest would not be known. */
        {{"200 OK", VERSIONS("false", "", "",
                             VERSION("ours/c/b", "1", "true") VERSION("ours/c/a", "1", "true"))},
         {"200 OK", ""}},
        {{"200 OK", VERSIONS("false", "", "",
                             VERSION("ours/c/a", "1", "false") VERSION("ours/c/a", "2", "true"))},
         {"200 OK", ""}},
        /* Of something else. */
        {{"200 OK", VERSIONS("false", "", "", VERSION("theirs/c/a", "1", "true"))}, {"200 OK", ""}},
        {{"200 OK", PAGE("false", "", "ours/c/a")}, {"200 OK", PAGE("false", "", "ours/c/a")}},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        static Liar liar;
        liar = (Liar){.answers = CASES[i], .count = 2, .last = {"403 Forbidden", ""}};
        CairnError err = {0};
        size_t entries = 0;
        liar_start(&liar);
        storage_set_patience(liar.storage, 1);
        if (storage_list_versions(liar.storage, count_version, &entries, &err))
            fail_msg("case %zu was believed", i);
        liar_end(&liar);
        if (err.kind != CAIRN_CORRUPT && i != 6)
            fail_msg("case %zu: %s", i, err.message);
        assert_true(liar.asked < 12);
    }
}

static void
test_who_may_not_is_told_which_rights_it_takes(void **state)
{
    (void)state;
    static const LiarAnswer DENIED = {"403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"};
    static Liar liar;
    liar = (Liar){.answers = &DENIED, .count = 1};
    CairnError err = {0};
    size_t entries = 0;
    liar_start(&liar);
    assert_false(storage_list_versions(liar.storage, count_version, &entries, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    assert_non_null(strstr(err.hint, "s3:ListBucketVersions"));
    err = (CairnError){0};
    assert_false(storage_put_back(liar.storage, "c/a", "1", 1, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    assert_non_null(strstr(err.hint, "s3:GetObjectVersion and s3:PutObject"));
    liar_end(&liar);

    /* No right helps against an archive. */
    static const LiarAnswer ARCHIVED = {"403 Forbidden",
                                        "<Error><Code>InvalidObjectState</Code></Error>"};
    liar = (Liar){.answers = &ARCHIVED, .count = 1};
    err = (CairnError){0};
    liar_start(&liar);
    assert_false(storage_put_back(liar.storage, "c/a", "1", 1, &err));
    assert_int_equal(err.kind, CAIRN_DENIED);
    assert_non_null(strstr(err.hint, "archive class"));
    liar_end(&liar);
}

#define COPIED "<CopyObjectResult><ETag>x</ETag></CopyObjectResult>"

static void
test_a_copy_is_believed_when_it_is_there(void **state)
{
    (void)state;
    static const LiarAnswer GOOD[] = {{"200 OK", COPIED}, {"200 OK", "x"}};
    static Liar liar;
    liar = (Liar){.answers = GOOD, .count = 2};
    CairnError err = {0};
    liar_start(&liar);
    if (!storage_put_back(liar.storage, "c/a", "a/b c+%\r\n", 1, &err))
        fail_msg("%s", err.message);
    liar_end(&liar);
    assert_non_null(strcasestr(liar.requests[0], "PUT /bucket/ours/c/a HTTP"));
    /* Whatever a store calls a version: it neither ends the header nor becomes another query. */
    assert_non_null(strcasestr(liar.requests[0], "x-amz-copy-source: /bucket/ours/c/a?versionId="
                                                 "a%2Fb%20c%2B%25%0D%0A\r\n"));
    assert_non_null(strcasestr(liar.requests[0], "x-amz-checksum-algorithm: SHA256\r\n"));

    static const struct {
        LiarAnswer answers[2];
        CairnErrorKind kind;
    } CASES[] = {
        {{{"200 OK", COPIED}, {"200 OK", ""}}, CAIRN_CORRUPT}, /* another size */
        {{{"200 OK", "<CopyObjectResult></CopyObjectResult>"}, {"200 OK", "x"}}, CAIRN_CORRUPT},
        {{{"200 OK", COPIED}, {"404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"}},
         CAIRN_NOT_FOUND},
        {{{"200 OK", "<Error><Code>AccessDenied</Code></Error>"}, {"200 OK", "x"}}, CAIRN_IO},
        {{{"404 Not Found", "<Error><Code>NoSuchVersion</Code></Error>"}, {"200 OK", "x"}},
         CAIRN_NOT_FOUND},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        liar = (Liar){.answers = CASES[i].answers, .count = 2};
        err = (CairnError){0};
        liar_start(&liar);
        assert_false(storage_put_back(liar.storage, "c/a", "1", 1, &err));
        liar_end(&liar);
        if (err.kind != CASES[i].kind)
            fail_msg("case %zu: %s: %s", i, cairn_error_kind_name(err.kind), err.message);
    }
}

/* The last test: a signal that came does not go. */
static void
test_a_signal_ends_a_list_of_what_is_not_ours(void **state)
{
    (void)state;
    static const LiarAnswer ANSWERS[] = {
        {"200 OK", VERSIONS("true", "ours/.x", "1", VERSION("ours/.x", "1", "true"))},
        {"200 OK", VERSIONS("false", "", "", VERSION("ours/.y", "1", "true"))}};
    static Liar liar;
    liar = (Liar){.answers = ANSWERS, .count = 2};
    CairnError err = {0};
    size_t entries = 0;
    liar_start(&liar);
    cancel_install();
    assert_int_equal(raise(SIGTERM), 0);
    assert_false(storage_list_versions(liar.storage, count_version, &entries, &err));
    assert_int_equal(err.kind, CAIRN_CANCELLED);
    liar_end(&liar);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_that_leads_in_a_circle_ends),
        cmocka_unit_test(test_what_two_pages_list_is_there_once),
        cmocka_unit_test(test_a_list_of_something_else_is_no_answer),
        cmocka_unit_test(test_a_sweep_goes_on_from_page_to_page),
        cmocka_unit_test(test_a_sweep_aborts_nobody_elses_upload),
        cmocka_unit_test(test_an_empty_object_that_is_there_already_is_not_ours),
        cmocka_unit_test(test_absence_is_only_what_the_store_says_of_the_object),
        cmocka_unit_test(test_an_absence_without_its_words_is_asked_again),
        cmocka_unit_test(test_rotated_keys_are_read_again),
        cmocka_unit_test(test_a_store_that_passes_over_ranges_is_given_up),
        cmocka_unit_test(test_versions_go_on_from_page_to_page),
        cmocka_unit_test(test_a_list_of_versions_that_cannot_be_trusted_is_refused),
        cmocka_unit_test(test_who_may_not_is_told_which_rights_it_takes),
        cmocka_unit_test(test_a_copy_is_believed_when_it_is_there),
        cmocka_unit_test(test_a_signal_ends_a_list_of_what_is_not_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
