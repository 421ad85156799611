#include "common/bytes.h"
#include "storage/s3/version_answers.h"
#include "storage/s3/xml.h"

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
#define WHEN "<LastModified>2026-11-22T23:31:40.123Z</LastModified>"
#define VERSION(key, id, size)                                                                     \
    "<Version><Key>" key "</Key><VersionId>" id "</VersionId><IsLatest>true</IsLatest>" WHEN       \
    "<ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><Size>" size                         \
    "</Size><Owner><ID>1</ID></Owner></Version>"
#define MARKER(key, id)                                                                            \
    "<DeleteMarker><Key>" key "</Key><VersionId>" id "</VersionId><IsLatest>false</IsLatest>" WHEN \
    "</DeleteMarker>"
#define LIST(content) "<ListVersionsResult>" content "</ListVersionsResult>"

typedef struct {
    char text[4096];
    size_t count;
} Seen;

static bool
note(void *context, const S3VersionEntry *entry, CairnError *err)
{
    (void)err;
    Seen *seen = context;
    const size_t used = strlen(seen->text);
    seen->count++;
    snprintf(seen->text + used, sizeof seen->text - used, "%s%s %s %s %llu %lld%s;",
             entry->is_marker ? "marker " : "", entry->key, entry->version, entry->etag,
             (unsigned long long)entry->size_bytes, (long long)entry->modified_us,
             entry->is_latest ? " latest" : "");
    return true;
}

static bool
parse(const char *body, Seen *seen, S3VersionPage *page, CairnError *err)
{
    *seen = (Seen){0};
    *err = (CairnError){0};
    return s3_versions_parse(body, strlen(body), note, seen, page, err);
}

static void
test_versions_and_markers_come_in_the_order_of_the_document(void **state)
{
    (void)state;
    static const char BODY[] = XML
        "<ListVersionsResult" NS
        "><Name>b</Name><IsTruncated>true</IsTruncated>" MARKER("p/a+b%2B%C3%BC", "m.1")
            VERSION("p/a%20b%2B%C3%BC", "v-1", "18446744073709551615")
                VERSION("p/z", "null", "0") "<NextKeyMarker>p/z%2B</NextKeyMarker>"
                                            "<NextVersionIdMarker>null</NextVersionIdMarker>"
                                            "<EncodingType>url</EncodingType></ListVersionsResult>";
    static S3VersionPage page;
    static Seen seen;
    CairnError err;
    if (!parse(BODY, &seen, &page, &err))
        fail_msg("%s", err.message);
    assert_string_equal(
        seen.text,
        "marker p/a b+ü m.1  0 1795390300000000;"
        "p/a b+ü v-1 0123456789abcdef0123456789abcdef 18446744073709551615 1795390300000000 latest;"
        "p/z null 0123456789abcdef0123456789abcdef 0 1795390300000000 latest;");
    assert_true(page.truncated);
    assert_string_equal(page.next_key, "p/z+");
    assert_string_equal(page.next_version, "null");
}

/* None of it may hand out an entry, or be taken for a short list. */
static void
test_a_damaged_list_hands_out_nothing(void **state)
{
    (void)state;
#define ENTRY VERSION("a", "1", "1")
    static const struct {
        const char *body;
        CairnErrorKind kind;
    } CASES[] = {
        {"", CAIRN_CORRUPT},
        {"<html><body>502</body></html>", CAIRN_CORRUPT},
        {"<ListVersionsResult>" ENTRY, CAIRN_CORRUPT},
        {LIST(ENTRY) "x", CAIRN_CORRUPT},
        {"<ListBucketResult>" ENTRY "</ListBucketResult>", CAIRN_CORRUPT},
        {LIST("<IsTruncated>true</IsTruncated>" ENTRY), CAIRN_CORRUPT},
        {LIST("<IsTruncated>true</IsTruncated><NextKeyMarker></NextKeyMarker>" ENTRY),
         CAIRN_CORRUPT},
        {LIST("<IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>"
              "<NextKeyMarker>a%0</NextKeyMarker>" ENTRY),
         CAIRN_CORRUPT},
        {"<Error><Code>SlowDown</Code><Message>later</Message></Error>", CAIRN_UNAVAILABLE},
        {"<Error><Code>AccessDenied</Code></Error>", CAIRN_IO},
        {"<!DOCTYPE x [<!ENTITY a \"b\">]>" LIST(ENTRY), CAIRN_CORRUPT},
        {LIST("&b;" ENTRY), CAIRN_CORRUPT},
        {"<a><b><c><d><e><f><g><h><i>" ENTRY "</i></h></g></f></e></d></c></b></a>", CAIRN_CORRUPT},
    };
    static S3VersionPage page;
    static Seen seen;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CairnError err;
        assert_false(parse(CASES[i].body, &seen, &page, &err));
        if (err.kind != CASES[i].kind || seen.count != 0)
            fail_msg("case %zu: %s, %zu entries: %s", i, cairn_error_kind_name(err.kind),
                     seen.count, err.message);
    }
}

static void
test_an_entry_that_lacks_something_is_refused(void **state)
{
    (void)state;
    static const char *const ENTRIES[] = {
        "<Version><VersionId>1</VersionId>" WHEN "<Size>1</Size></Version>",
        "<Version><Key>a</Key>" WHEN "<Size>1</Size></Version>",
        "<Version><Key>a</Key><VersionId></VersionId>" WHEN "<Size>1</Size></Version>",
        "<Version><Key>a</Key><VersionId>1</VersionId><Size>1</Size></Version>",
        "<Version><Key>a</Key><VersionId>1</VersionId>" WHEN "</Version>",
        "<Version><Key>a</Key><VersionId>1</VersionId><LastModified>now</LastModified>"
        "<Size>1</Size></Version>",
        "<DeleteMarker><VersionId>1</VersionId>" WHEN "</DeleteMarker>",
        "<DeleteMarker><Key>a</Key><VersionId>1</VersionId></DeleteMarker>",
        VERSION("", "1", "1"),
        VERSION("a", "1", "-1"),
        VERSION("a", "1", "18446744073709551616"),
        "<EncodingType>url</EncodingType>" VERSION("a%0", "1", "1"),
        "<EncodingType>url</EncodingType>" VERSION("a%00b", "1", "1"),
        /* What one entry says is not the next one's. */
        VERSION("a", "1", "1") "<Version><Key>b</Key></Version>",
    };
    static S3VersionPage page;
    static Seen seen;
    for (size_t i = 0; i < sizeof ENTRIES / sizeof ENTRIES[0]; i++) {
        char body[1024];
        CairnError err;
        snprintf(body, sizeof body, LIST("%s"), ENTRIES[i]);
        if (parse(body, &seen, &page, &err))
            fail_msg("entry %zu was taken", i);
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
}

static void
test_what_is_too_long_is_refused_whole(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after;
        size_t size;
        bool taken;
    } CASES[] = {
        {"<Version><Key>", "</Key><VersionId>1</VersionId>" WHEN "<Size>1</Size></Version>", 1024,
         true},
        {"<Version><Key>", "</Key><VersionId>1</VersionId>" WHEN "<Size>1</Size></Version>", 1025,
         false},
        {"<Version><Key>a</Key><VersionId>", "</VersionId>" WHEN "<Size>1</Size></Version>", 1024,
         true},
        {"<Version><Key>a</Key><VersionId>", "</VersionId>" WHEN "<Size>1</Size></Version>", 1025,
         false},
        {"<IsTruncated>true</IsTruncated><NextKeyMarker>", "</NextKeyMarker>", 1025, false},
        {"<IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker><NextVersionIdMarker>",
         "</NextVersionIdMarker>", 1025, false},
        /* One that is cut would be equal to others: it is none. */
        {"<Version><Key>a</Key><VersionId>1</VersionId>" WHEN "<Size>1</Size><ETag>",
         "</ETag></Version>", 300, true},
        {"<Name>", "</Name>", S3_XML_TEXT_LIMIT + 1, false},
    };
    static S3VersionPage page;
    static Seen seen;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        SCOPED_BYTES ByteWriter body = {0};
        CairnError err;
        byte_writer_format(&body, "<ListVersionsResult>%s", CASES[i].before);
        for (size_t k = 0; k < CASES[i].size; k++)
            byte_writer_u8(&body, 'a');
        byte_writer_format(&body, "%s</ListVersionsResult>", CASES[i].after);
        byte_writer_u8(&body, '\0');
        if (parse((const char *)body.data, &seen, &page, &err) != CASES[i].taken)
            fail_msg("case %zu: %s", i, err.message);
        if (strstr(CASES[i].before, "ETag") != NULL)
            assert_string_equal(seen.text, "a 1  1 1795390300000000;");
    }
}

/* A whole page of a store that answers more than was asked for ends at the limit, not before. */
static void
test_a_long_list_is_bounded_by_its_size_alone(void **state)
{
    (void)state;
    static S3VersionPage page;
    static Seen seen;
    SCOPED_BYTES ByteWriter body = {0};
    CairnError err;
    byte_writer_format(&body, "<ListVersionsResult>");
    for (int i = 0; i < 5000; i++)
        byte_writer_format(&body, MARKER("a", "%d"), i);
    byte_writer_format(&body, "</ListVersionsResult>%c", '\0');
    assert_true(parse((const char *)body.data, &seen, &page, &err));
    assert_int_equal(seen.count, 5000);

    SCOPED_MEMORY char *huge = malloc(S3_XML_SIZE_LIMIT + 1);
    assert_non_null(huge);
    memset(huge, ' ', S3_XML_SIZE_LIMIT + 1);
    assert_false(s3_versions_parse(huge, S3_XML_SIZE_LIMIT + 1, note, &seen, &page, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
}

static void
test_a_copy_that_failed_after_its_200_is_a_failure(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        CairnErrorKind kind;
    } CASES[] = {
        {"<CopyObjectResult><ETag>&quot;x&quot;</ETag></CopyObjectResult>", CAIRN_OK},
        {"<CopyObjectResult></CopyObjectResult>", CAIRN_CORRUPT},
        {"<CopyObjectResult><ETag>x</ETag>", CAIRN_CORRUPT},
        {"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
         CAIRN_CORRUPT},
        {"<Error><Code>InternalError</Code></Error>", CAIRN_UNAVAILABLE},
        {"", CAIRN_CORRUPT},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CairnError err = {0};
        char etag[S3_ETAG_SIZE];
        const bool taken = s3_copy_parse(CASES[i].body, strlen(CASES[i].body), etag, &err);
        assert_int_equal(err.kind, CASES[i].kind);
        assert_int_equal(taken, CASES[i].kind == CAIRN_OK);
        if (taken)
            assert_string_equal(etag, "x");
    }
}

static void
test_only_digests_prove_equal_content(void **state)
{
    (void)state;
    assert_true(s3_etag_is_digest("0123456789abcdef0123456789abcdef"));
    assert_true(s3_etag_is_digest("0123456789ABCDEF0123456789abcdef-12"));
    static const char *const NOT[] = {"",
                                      "0123456789abcdef0123456789abcde",
                                      "0123456789abcdef0123456789abcdef0",
                                      "0123456789abcdef0123456789abcdef-",
                                      "0123456789abcdef0123456789abcdef-N",
                                      "0123456789abcdef0123456789abcdef-1x",
                                      "g123456789abcdef0123456789abcdef"};
    for (size_t i = 0; i < sizeof NOT / sizeof NOT[0]; i++)
        assert_false(s3_etag_is_digest(NOT[i]));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_and_markers_come_in_the_order_of_the_document),
        cmocka_unit_test(test_a_damaged_list_hands_out_nothing),
        cmocka_unit_test(test_an_entry_that_lacks_something_is_refused),
        cmocka_unit_test(test_what_is_too_long_is_refused_whole),
        cmocka_unit_test(test_a_long_list_is_bounded_by_its_size_alone),
        cmocka_unit_test(test_a_copy_that_failed_after_its_200_is_a_failure),
        cmocka_unit_test(test_only_digests_prove_equal_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
