#include "storage/s3/answers.h"
#include "storage/s3/xml.h"

#include "common/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XML "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define NS " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""

typedef struct {
    char text[4096]; /* "key size time;" of each entry */
    size_t count;
} Seen;

static void
note(Seen *seen, const char *text)
{
    const size_t at = strlen(seen->text);
    seen->count++;
    snprintf(seen->text + at, sizeof seen->text - at, "%s", text);
}

static bool
note_entry(void *context, const S3ListEntry *entry, CairnError *err)
{
    (void)err;
    char line[2048];
    snprintf(line, sizeof line, "%s%s %llu %lld;", entry->is_prefix ? "prefix " : "", entry->key,
             (unsigned long long)entry->size_bytes, (long long)entry->modified_us);
    note(context, line);
    return true;
}

static void
test_a_listing_is_read_whatever_the_order_of_its_elements(void **state)
{
    (void)state;
    static const char *const BODIES[] = {
        XML
        "<ListBucketResult" NS "><Name>b</Name><EncodingType>url</EncodingType>"
        "<IsTruncated>true</IsTruncated>"
        "<Contents><Key>p/a+b%2B%C3%BC</Key><LastModified>2026-11-22T23:31:40.123Z</LastModified>"
        "<ETag>&quot;x&quot;</ETag><Size>18446744073709551615</Size><Owner><ID>1</ID></Owner>"
        "</Contents><CommonPrefixes><Prefix>p/c%20d/</Prefix></CommonPrefixes>"
        "<NextContinuationToken>1/&amp;x</NextContinuationToken></ListBucketResult>",
        XML "<ListBucketResult" NS ">\n  <NextContinuationToken>1/&#38;x</NextContinuationToken>\n"
            "  <Contents>\n    <Size>18446744073709551615</Size>\n"
            "    <LastModified>2026-11-22T23:31:40Z</LastModified>\n"
            "    <Key>p/a%20b%2B%C3%BC</Key>\n  </Contents>\n"
            "  <CommonPrefixes><Prefix>p/c+d/</Prefix></CommonPrefixes>\n"
            "  <IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>\n"
            "</ListBucketResult>\n",
    };
    for (size_t i = 0; i < sizeof BODIES / sizeof BODIES[0]; i++) {
        Seen seen = {0};
        S3ListPage page;
        CairnError err = {0};
        if (!s3_list_parse(BODIES[i], strlen(BODIES[i]), note_entry, &seen, &page, &err))
            fail_msg("%s", err.message);
        assert_string_equal(seen.text, "p/a b+ü 18446744073709551615 1795390300000000;"
                                       "prefix p/c d/ 0 0;");
        assert_true(page.truncated);
        assert_string_equal(page.next_token, "1/&x");
        free(page.next_token);
    }
}

static void
test_a_key_that_is_not_encoded_stays_as_it_is(void **state)
{
    (void)state;
    const char body[] = "<ListBucketResult><Contents><Key>a+b%2B</Key><Size>0</Size></Contents>"
                        "<IsTruncated>false</IsTruncated></ListBucketResult>";
    Seen seen = {0};
    S3ListPage page;
    CairnError err = {0};
    assert_true(s3_list_parse(body, strlen(body), note_entry, &seen, &page, &err));
    assert_string_equal(seen.text, "a+b%2B 0 0;");
    assert_false(page.truncated);
    assert_null(page.next_token);
}

/* What is damaged or hostile; none of it may hand out an entry or be taken for a short listing. */
static void
test_a_damaged_listing_hands_out_nothing(void **state)
{
    (void)state;
#define ENTRY "<Contents><Key>a</Key><Size>1</Size></Contents>"
    static const struct {
        const char *body;
        CairnErrorKind kind;
    } CASES[] = {
        {"", CAIRN_CORRUPT},
        {"<html><body>502</body></html>", CAIRN_CORRUPT},
        {"<ListBucketResult>" ENTRY, CAIRN_CORRUPT},
        {"<ListBucketResult>" ENTRY "</ListBucketResult>x", CAIRN_CORRUPT},
        {"<ListBucketResult><IsTruncated>true</IsTruncated>" ENTRY "</ListBucketResult>",
         CAIRN_CORRUPT},
        {"<Error><Code>SlowDown</Code><Message>later</Message></Error>", CAIRN_UNAVAILABLE},
        {"<!DOCTYPE x [<!ENTITY a \"b\">]><ListBucketResult>" ENTRY "</ListBucketResult>",
         CAIRN_CORRUPT},
        {"<ListBucketResult>&b;" ENTRY "</ListBucketResult>", CAIRN_CORRUPT},
        {"<a><b><c><d><e><f><g><h><i>" ENTRY "</i></h></g></f></e></d></c></b></a>", CAIRN_CORRUPT},
        {"<ListMultipartUploadsResult>" ENTRY "</ListMultipartUploadsResult>", CAIRN_CORRUPT},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        Seen seen = {0};
        S3ListPage page;
        CairnError err = {0};
        assert_false(
            s3_list_parse(CASES[i].body, strlen(CASES[i].body), note_entry, &seen, &page, &err));
        if (err.kind != CASES[i].kind || seen.count != 0)
            fail_msg("case %zu: %s, %zu entries: %s", i, cairn_error_kind_name(err.kind),
                     seen.count, err.message);
    }
}

static void
test_an_entry_without_key_or_size_is_refused(void **state)
{
    (void)state;
    static const char *const ENTRIES[] = {
        "<Contents><Key>a</Key></Contents>",
        "<Contents><Size>1</Size></Contents>",
        "<Contents><Key></Key><Size>1</Size></Contents>",
        "<Contents><Key>a</Key><Size>-1</Size></Contents>",
        "<Contents><Key>a</Key><Size>18446744073709551616</Size></Contents>",
        "<Contents><Key>a</Key><Size>1</Size><LastModified>now</LastModified></Contents>",
        "<CommonPrefixes></CommonPrefixes>",
        "<EncodingType>url</EncodingType><Contents><Key>a%0</Key><Size>1</Size></Contents>",
        "<EncodingType>url</EncodingType><Contents><Key>a%00b</Key><Size>1</Size></Contents>",
    };
    for (size_t i = 0; i < sizeof ENTRIES / sizeof ENTRIES[0]; i++) {
        char body[512];
        snprintf(body, sizeof body, "<ListBucketResult>%s</ListBucketResult>", ENTRIES[i]);
        Seen seen = {0};
        S3ListPage page;
        CairnError err = {0};
        assert_false(s3_list_parse(body, strlen(body), note_entry, &seen, &page, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        assert_int_equal(seen.count, 0);
    }
}

static void
test_a_text_or_key_over_its_limit_is_refused(void **state)
{
    (void)state;
    static const size_t LENGTHS[] = {S3_KEY_LIMIT, S3_KEY_LIMIT + 1, S3_XML_TEXT_LIMIT + 1};
    for (size_t i = 0; i < sizeof LENGTHS / sizeof LENGTHS[0]; i++) {
        SCOPED_BYTES ByteWriter body = {0};
        const char head[] = "<ListBucketResult><Contents><Size>1</Size><Key>";
        const char tail[] = "</Key></Contents></ListBucketResult>";
        byte_writer_bytes(&body, head, strlen(head));
        for (size_t n = 0; n < LENGTHS[i]; n++)
            byte_writer_u8(&body, 'k');
        byte_writer_bytes(&body, tail, strlen(tail));
        Seen seen = {0};
        S3ListPage page;
        CairnError err = {0};
        const bool read = s3_list_parse(body.data, body.size, note_entry, &seen, &page, &err);
        assert_int_equal(read, LENGTHS[i] <= S3_KEY_LIMIT);
        assert_true(read || err.kind == CAIRN_CORRUPT);
    }
}

static void
test_what_a_store_says_is_plain_and_cut_at_a_character(void **state)
{
    (void)state;
    S3Error error;
    char letters[sizeof error.message + 1] = "";
    /* a-umlaut: two bytes, so that one falls on the field's end */
    for (size_t at = 0; at + 2 < sizeof letters; at += 2)
        memcpy(letters + at, "\xc3\xa4", 3);
    char body[2048];
    snprintf(body, sizeof body, XML "<Error><Code>A\xc2\x9bm</Code><Message>\x7f\xc2\x9b%s%s", "2J",
             letters);
    const size_t size = strlen(body);
    snprintf(body + size, sizeof body - size, "</Message></Error>");
    assert_true(s3_error_parse(body, strlen(body), &error));
    assert_string_equal(error.code, "A  m");
    assert_memory_equal(error.message, "   2J\xc3\xa4", 7);
    assert_memory_equal(error.message + strlen(error.message) - 2, "\xc3\xa4", 2);
    assert_true(strlen(error.message) >= sizeof error.message - 3);
}

static void
test_errors_are_read_and_sorted_by_what_to_do(void **state)
{
    (void)state;
    const char body[] = XML "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region "
                            "'us-east-1' is wrong;\x09 expecting 'eu-x'</Message>"
                            "<Region>eu-x</Region><RequestId>R1</RequestId></Error>";
    S3Error error;
    assert_true(s3_error_parse(body, strlen(body), &error));
    assert_string_equal(error.code, "AuthorizationHeaderMalformed");
    assert_string_equal(error.message, "the region 'us-east-1' is wrong;  expecting 'eu-x'");
    assert_string_equal(error.region, "eu-x");
    assert_string_equal(error.request_id, "R1");
    assert_false(s3_error_parse("<html>", 6, &error));
    assert_string_equal(error.code, "");
    assert_false(s3_error_parse("", 0, &error));

    static const struct {
        int status;
        const char *code;
        CairnErrorKind kind;
        bool transient;
    } CASES[] = {
        {404, "NoSuchKey", CAIRN_NOT_FOUND, false},
        {404, "", CAIRN_NOT_FOUND, false}, /* HEAD has no body */
        {404, "NoSuchBucket", CAIRN_USAGE, false},
        {404, "NoSuchUpload", CAIRN_IO, false},
        {403, "AccessDenied", CAIRN_DENIED, false},
        {403, "RequestTimeTooSkewed", CAIRN_UNAVAILABLE, false},
        {400, "ExpiredToken", CAIRN_UNAVAILABLE, false},
        {412, "PreconditionFailed", CAIRN_CONFLICT, false},
        {409, "ConditionalRequestConflict", CAIRN_UNAVAILABLE, true},
        {503, "SlowDown", CAIRN_UNAVAILABLE, true},
        {200, "InternalError", CAIRN_UNAVAILABLE, true},
        {501, "NotImplemented", CAIRN_UNSUPPORTED, false},
        {400, "BadDigest", CAIRN_IO, false},
        {507, "", CAIRN_NO_SPACE, false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        assert_int_equal(s3_error_kind(CASES[i].status, CASES[i].code), CASES[i].kind);
        assert_int_equal(s3_error_is_transient(CASES[i].status, CASES[i].code), CASES[i].transient);
    }
    assert_true(s3_error_is_expired("ExpiredToken"));
    assert_true(s3_error_is_clock("RequestTimeTooSkewed"));
}

static bool
note_kept(void *context, const char *key, const S3Error *error, CairnError *err)
{
    (void)err;
    note(context, key);
    note(context, " ");
    note(context, error->code);
    note(context, ";");
    return true;
}

static void
test_what_was_not_deleted_is_told(void **state)
{
    (void)state;
    const char body[] = XML "<DeleteResult" NS "><Deleted><Key>a</Key></Deleted>"
                            "<Error><Key>b</Key><Code>AccessDenied</Code><Message>locked</Message>"
                            "</Error><Error><Key>c</Key><Code>InternalError</Code></Error>"
                            "</DeleteResult>";
    Seen seen = {0};
    CairnError err = {0};
    assert_true(s3_delete_parse(body, strlen(body), note_kept, &seen, &err));
    assert_string_equal(seen.text, "b AccessDenied;c InternalError;");
    const char malformed[] = "<Error><Code>MalformedXML</Code></Error>";
    assert_false(s3_delete_parse(malformed, strlen(malformed), note_kept, &seen, &err));
    assert_int_equal(err.kind, CAIRN_IO);
}

static void
test_a_200_may_carry_an_error(void **state)
{
    (void)state;
    char etag[S3_ETAG_SIZE];
    CairnError err = {0};
    const char good[] = XML "<CompleteMultipartUploadResult" NS "><Location>x</Location>"
                            "<ETag>\"abc-2\"</ETag></CompleteMultipartUploadResult>";
    assert_true(s3_complete_parse(good, strlen(good), etag, &err));
    assert_string_equal(etag, "\"abc-2\"");
    const char bad[] = XML "<Error><Code>InternalError</Code><Message>try again</Message></Error>";
    assert_false(s3_complete_parse(bad, strlen(bad), etag, &err));
    assert_int_equal(err.kind, CAIRN_UNAVAILABLE);
    assert_non_null(strstr(err.message, "InternalError: try again"));

    char upload_id[S3_UPLOAD_ID_SIZE];
    const char begun[] = "<InitiateMultipartUploadResult><UploadId>2~x</UploadId>"
                         "</InitiateMultipartUploadResult>";
    cairn_error_clear(&err);
    assert_true(s3_upload_parse(begun, strlen(begun), upload_id, &err));
    assert_string_equal(upload_id, "2~x");
    const char nothing[] = "<InitiateMultipartUploadResult></InitiateMultipartUploadResult>";
    assert_false(s3_upload_parse(nothing, strlen(nothing), upload_id, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static bool
note_upload(void *context, const S3UploadEntry *entry, CairnError *err)
{
    (void)err;
    char line[4096];
    snprintf(line, sizeof line, "%s %s %lld;", entry->key, entry->upload_id,
             (long long)entry->initiated_us);
    note(context, line);
    return true;
}

static void
test_stale_uploads_are_listed(void **state)
{
    (void)state;
    const char body[] =
        XML "<ListMultipartUploadsResult" NS "><IsTruncated>true</IsTruncated>"
            "<NextKeyMarker>k2</NextKeyMarker><NextUploadIdMarker>u2</NextUploadIdMarker>"
            "<Upload><Key>k1</Key><UploadId>u1</UploadId>"
            "<Initiated>2026-11-22T23:31:40.000Z</Initiated></Upload>"
            "<Upload><Key>k2</Key><UploadId>u2</UploadId></Upload></ListMultipartUploadsResult>";
    Seen seen = {0};
    S3UploadPage page;
    CairnError err = {0};
    assert_true(s3_uploads_parse(body, strlen(body), note_upload, &seen, &page, &err));
    assert_string_equal(seen.text, "k1 u1 1795390300000000;k2 u2 0;");
    assert_true(page.truncated);
    assert_string_equal(page.next_key, "k2");
    assert_string_equal(page.next_upload_id, "u2");
}

static void
test_the_token_service_is_read(void **state)
{
    (void)state;
    const char body[] =
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
        "<AssumeRoleWithWebIdentityResult><Credentials><SessionToken>T/+=</SessionToken>"
        "<SecretAccessKey>S</SecretAccessKey><Expiration>2026-11-22T23:31:40Z</Expiration>"
        "<AccessKeyId>ASIA</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>"
        "<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>"
        "</AssumeRoleWithWebIdentityResponse>";
    SCOPED_S3_CREDENTIALS S3Credentials credentials = {0};
    CairnError err = {0};
    assert_true(sts_credentials_parse(body, strlen(body), &credentials, &err));
    assert_string_equal(credentials.access_key, "ASIA");
    assert_string_equal(credentials.secret_key, "S");
    assert_string_equal(credentials.session_token, "T/+=");
    assert_int_equal(credentials.expires_us, INT64_C(1795390300000000));

    const char refused[] =
        "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>"
        "<Message>no</Message></Error></ErrorResponse>";
    assert_false(sts_credentials_parse(refused, strlen(refused), &credentials, &err));
    assert_non_null(strstr(err.message, "InvalidIdentityToken: no"));
    const char half[] = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>"
                        "<Credentials><AccessKeyId>A</AccessKeyId></Credentials>"
                        "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    cairn_error_clear(&err);
    assert_false(sts_credentials_parse(half, strlen(half), &credentials, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_times_are_read_with_any_fraction(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {"2026-11-22T23:31:40Z", "2026-11-22T23:31:40.000Z",
                                        "2026-11-22T23:31:40.123456789Z",
                                        "2026-11-23T00:31:40+01:00"};
    for (size_t i = 0; i < sizeof TEXTS / sizeof TEXTS[0]; i++) {
        int64_t time_us = 0;
        assert_true(s3_time_parse(TEXTS[i], &time_us));
        assert_int_equal(time_us, INT64_C(1795390300000000));
    }
    int64_t time_us;
    assert_false(s3_time_parse("2026-11-22T23:31:40", &time_us));
    assert_false(s3_time_parse("", &time_us));
    assert_false(s3_time_parse("2026-11-22T23:31:40.Z garbage that is much longer than a time is",
                               &time_us));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_listing_is_read_whatever_the_order_of_its_elements),
        cmocka_unit_test(test_a_key_that_is_not_encoded_stays_as_it_is),
        cmocka_unit_test(test_a_damaged_listing_hands_out_nothing),
        cmocka_unit_test(test_an_entry_without_key_or_size_is_refused),
        cmocka_unit_test(test_a_text_or_key_over_its_limit_is_refused),
        cmocka_unit_test(test_what_a_store_says_is_plain_and_cut_at_a_character),
        cmocka_unit_test(test_errors_are_read_and_sorted_by_what_to_do),
        cmocka_unit_test(test_what_was_not_deleted_is_told),
        cmocka_unit_test(test_a_200_may_carry_an_error),
        cmocka_unit_test(test_stale_uploads_are_listed),
        cmocka_unit_test(test_the_token_service_is_read),
        cmocka_unit_test(test_times_are_read_with_any_fraction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
