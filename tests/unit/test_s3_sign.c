/*
 * Signatures. The first four are the examples of the S3 API reference ("Signature Calculations for
 * the Authorization Header"); the others were computed by other implementations of the scheme.
 */
#include "storage/s3/sign.h"
#include "storage/s3/uri.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static const S3Credentials EXAMPLE = {
    .access_key = "AKIAIOSFODNN7EXAMPLE",
    .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
};
static const S3Credentials OTHER = {
    .access_key = "AKIDEXAMPLE",
    .secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
};
enum { EXAMPLE_S = 1369353600 }; /* 20130524T000000Z */
enum { OTHER_S = 1795390300 };   /* 20261122T233140Z */

static const char *
header_of(const S3Signature *signature, const char *name)
{
    for (size_t i = 0; i < signature->header_count; i++) {
        const size_t length = strlen(name);
        if (strncmp(signature->headers[i], name, length) == 0 &&
            signature->headers[i][length] == ':')
            return signature->headers[i] + length + 2;
    }
    return NULL;
}

static void
sign_at(const S3SignRequest *request, const S3Credentials *credentials, const char *region,
        int64_t now_s, S3Signature *signature)
{
    CairnError err = {0};
    if (!s3_sign(request, credentials, region, now_s * 1000000, signature, &err))
        fail_msg("%s", err.message);
}

static void
assert_signed(const S3SignRequest *request, const S3Credentials *credentials, const char *region,
              int64_t now_s, const char *expected)
{
    SCOPED_S3_SIGNATURE S3Signature signature = {0};
    sign_at(request, credentials, region, now_s, &signature);
    const char *authorization = header_of(&signature, "authorization");
    assert_non_null(authorization);
    const char *found = strstr(authorization, "Signature=");
    assert_non_null(found);
    assert_string_equal(found + strlen("Signature="), expected);
}

static void
test_the_examples_of_the_reference_come_out(void **state)
{
    (void)state;
    CairnError err = {0};
    uint8_t digest[SHA256_SIZE];
    const char body[] = "Welcome to Amazon S3.";
    assert_true(sha256_of(body, strlen(body), digest, &err));

    const S3Pair range[] = {{"range", "bytes=0-9"}};
    const S3SignRequest get = {.method = "GET",
                               .host = "examplebucket.s3.amazonaws.com",
                               .path = "/test.txt",
                               .headers = range,
                               .header_count = 1};
    assert_signed(&get, &EXAMPLE, "us-east-1", EXAMPLE_S,
                  "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");

    const S3Pair headers[] = {{"x-amz-storage-class", "REDUCED_REDUNDANCY"},
                              {"date", "Fri, 24 May 2013 00:00:00 GMT"}};
    const S3SignRequest put = {.method = "PUT",
                               .host = "examplebucket.s3.amazonaws.com",
                               .path = "/test$file.text",
                               .headers = headers,
                               .header_count = 2,
                               .payload_digest = digest};
    assert_signed(&put, &EXAMPLE, "us-east-1", EXAMPLE_S,
                  "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");

    const S3Pair lifecycle[] = {{"lifecycle", NULL}};
    const S3SignRequest get_lifecycle = {.method = "GET",
                                         .host = "examplebucket.s3.amazonaws.com",
                                         .path = "/",
                                         .query = lifecycle,
                                         .query_count = 1};
    assert_signed(&get_lifecycle, &EXAMPLE, NULL, EXAMPLE_S,
                  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");

    const S3Pair list[] = {{"prefix", "J"}, {"max-keys", "2"}};
    const S3SignRequest get_list = {.method = "GET",
                                    .host = "examplebucket.s3.amazonaws.com",
                                    .path = "/",
                                    .query = list,
                                    .query_count = 2};
    assert_signed(&get_list, &EXAMPLE, NULL, EXAMPLE_S,
                  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void
test_the_whole_header_is_as_the_reference_shows_it(void **state)
{
    (void)state;
    const S3Pair range[] = {{"range", "bytes=0-9"}};
    const S3SignRequest get = {.method = "GET",
                               .host = "examplebucket.s3.amazonaws.com",
                               .path = "/test.txt",
                               .headers = range,
                               .header_count = 1};
    SCOPED_S3_SIGNATURE S3Signature signature = {0};
    sign_at(&get, &EXAMPLE, "us-east-1", EXAMPLE_S, &signature);
    assert_string_equal(
        header_of(&signature, "authorization"),
        "AWS4-HMAC-SHA256 "
        "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    assert_string_equal(header_of(&signature, "x-amz-date"), "20130524T000000Z");
    assert_string_equal(header_of(&signature, "x-amz-content-sha256"),
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_null(header_of(&signature, "x-amz-security-token"));
    assert_string_equal(signature.path, "/test.txt");
    assert_string_equal(signature.query, "");
}

static void
test_odd_keys_are_encoded_once(void **state)
{
    (void)state;
    const S3SignRequest get = {.method = "GET",
                               .host = "s3.example.com:9000",
                               .path = "/bucket/a b%c+d/ü//~x$&=@:,;!*'()?#[]"};
    assert_signed(&get, &OTHER, "eu-central-1", OTHER_S,
                  "c074496b6b99fa6b8c94f25df9afdac8aba2c33c046b479da3a86c7f2ca28775");
    SCOPED_S3_SIGNATURE S3Signature signature = {0};
    sign_at(&get, &OTHER, "eu-central-1", OTHER_S, &signature);
    assert_string_equal(signature.path, "/bucket/a%20b%25c%2Bd/%C3%BC//"
                                        "~x%24%26%3D%40%3A%2C%3B%21%2A%27%28%29%3F%23%5B%5D");
}

static void
test_a_query_without_a_value_gets_its_equals_sign(void **state)
{
    (void)state;
    const S3Pair uploads[] = {{"uploads", ""}};
    const S3SignRequest post = {.method = "POST",
                                .host = "bucket.s3.example.com",
                                .path = "/key",
                                .query = uploads,
                                .query_count = 1};
    assert_signed(&post, &OTHER, "eu-central-1", OTHER_S,
                  "f3f9cc6ecd8d18d778864e53d6f81a63ae7e21a3d88ce93c1ff996c168cbba68");
    SCOPED_S3_SIGNATURE S3Signature signature = {0};
    sign_at(&post, &OTHER, "eu-central-1", OTHER_S, &signature);
    assert_string_equal(signature.query, "uploads=");
}

static void
test_a_query_is_sorted_by_name_then_value(void **state)
{
    (void)state;
    const S3Pair query[] = {
        {"list-type", "2"}, {"prefix", "a-b/"}, {"delimiter", "/"}, {"encoding-type", "url"},
        {"a", "1"},         {"a-b", "2"},       {"a", "0"},         {"continuation-token", "x y"},
    };
    const S3SignRequest list = {.method = "GET",
                                .host = "bucket.s3.example.com",
                                .path = "/",
                                .query = query,
                                .query_count = sizeof query / sizeof query[0]};
    assert_signed(&list, &OTHER, "eu-central-1", OTHER_S,
                  "27091c416d7fd3c650ca81f9793bd21f3515fb53aabab831d29ee31905f01ec7");
    SCOPED_S3_SIGNATURE S3Signature signature = {0};
    sign_at(&list, &OTHER, "eu-central-1", OTHER_S, &signature);
    assert_string_equal(signature.query, "a=0&a=1&a-b=2&continuation-token=x%20y&delimiter=%2F&"
                                         "encoding-type=url&list-type=2&prefix=a-b%2F");
}

static void
test_headers_are_folded_and_a_session_token_is_signed(void **state)
{
    (void)state;
    CairnError err = {0};
    uint8_t digest[SHA256_SIZE];
    assert_true(sha256_of("hello", 5, digest, &err));
    S3Credentials temporary = OTHER;
    strcpy(temporary.session_token, "TOKEN/with+odd==");
    const S3Pair query[] = {{"uploadId", "a/b+c"}, {"partNumber", "2"}};
    const S3Pair headers[] = {{"x-amz-meta-note", "  two   blanks\t here  "},
                              {"content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="},
                              {"if-none-match", "*"}};
    const S3SignRequest put = {.method = "PUT",
                               .host = "bucket.s3.example.com",
                               .path = "/c/main/w",
                               .query = query,
                               .query_count = 2,
                               .headers = headers,
                               .header_count = 3,
                               .payload_digest = digest};
    assert_signed(&put, &temporary, "eu-central-1", OTHER_S,
                  "d25d3f7fbdad776b284b761d02dd524ee19bc50990c53a07b4dace384de8a5f8");
    SCOPED_S3_SIGNATURE S3Signature signature = {0};
    sign_at(&put, &temporary, "eu-central-1", OTHER_S, &signature);
    assert_string_equal(header_of(&signature, "x-amz-security-token"), "TOKEN/with+odd==");
}

static void
test_google_has_names_of_its_own(void **state)
{
    (void)state;
    assert_int_equal(s3_sign_scheme("storage.googleapis.com"), S3_SIGN_GOOG4);
    assert_int_equal(s3_sign_scheme("bucket.Storage.Googleapis.com:443"), S3_SIGN_GOOG4);
    assert_int_equal(s3_sign_scheme("xstorage.googleapis.com"), S3_SIGN_AWS4);
    assert_int_equal(s3_sign_scheme("storage.googleapis.com.example.org"), S3_SIGN_AWS4);
    assert_int_equal(s3_sign_scheme("s3.eu-central-1.amazonaws.com"), S3_SIGN_AWS4);

    CairnError err = {0};
    uint8_t digest[SHA256_SIZE];
    assert_true(sha256_of("fate", 4, digest, &err));
    const S3Pair headers[] = {{"x-goog-if-generation-match", "0"}};
    const S3SignRequest put = {.scheme = S3_SIGN_GOOG4,
                               .method = "PUT",
                               .host = "storage.googleapis.com",
                               .path = "/bucket/c/main/fate",
                               .headers = headers,
                               .header_count = 1,
                               .payload_digest = digest};
    assert_signed(&put, &OTHER, NULL, OTHER_S,
                  "0918dabcf9c11ceb65ba289c249872e559cd6d5f163bea3937435004bf1b2793");
    SCOPED_S3_SIGNATURE S3Signature signature = {0};
    sign_at(&put, &OTHER, NULL, OTHER_S, &signature);
    assert_non_null(strstr(header_of(&signature, "authorization"), "/auto/s3/goog4_request,"));
    assert_string_equal(header_of(&signature, "x-goog-date"), "20261122T233140Z");
}

static void
test_a_header_that_smuggles_a_line_is_refused(void **state)
{
    (void)state;
    static const S3Pair BAD[][2] = {
        {{"range", "bytes=0-9\r\nx-evil: 1"}, {"x", ""}},
        {{"Range", "bytes=0-9"}, {"x", ""}},
        {{"", "x"}, {"x", ""}},
        {{"range", "a"}, {"range", "b"}},
        {{"x-amz-date", "mine"}, {"x", ""}},
    };
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        const S3SignRequest get = {
            .method = "GET", .host = "h", .path = "/", .headers = BAD[i], .header_count = 2};
        SCOPED_S3_SIGNATURE S3Signature signature = {0};
        CairnError err = {0};
        assert_false(s3_sign(&get, &EXAMPLE, NULL, 0, &signature, &err));
        assert_int_equal(err.kind, CAIRN_USAGE);
        assert_int_equal(signature.header_count, 0);
    }
}

static void
test_decoding_undoes_encoding(void **state)
{
    (void)state;
    char all[256];
    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    all[255] = '\0';
    SCOPED_BYTES ByteWriter writer = {0};
    uri_encode_value(&writer, all);
    byte_writer_u8(&writer, '\0');
    assert_true(uri_decode((char *)writer.data, false));
    assert_string_equal((char *)writer.data, all);

    char plus[] = "a+b%2Bc%2bd";
    assert_true(uri_decode(plus, true));
    assert_string_equal(plus, "a b+c+d");
    char lone[] = "a%4";
    assert_false(uri_decode(lone, false));
    char nul[] = "a%00b";
    assert_false(uri_decode(nul, false));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_examples_of_the_reference_come_out),
        cmocka_unit_test(test_the_whole_header_is_as_the_reference_shows_it),
        cmocka_unit_test(test_odd_keys_are_encoded_once),
        cmocka_unit_test(test_a_query_without_a_value_gets_its_equals_sign),
        cmocka_unit_test(test_a_query_is_sorted_by_name_then_value),
        cmocka_unit_test(test_headers_are_folded_and_a_session_token_is_signed),
        cmocka_unit_test(test_google_has_names_of_its_own),
        cmocka_unit_test(test_a_header_that_smuggles_a_line_is_refused),
        cmocka_unit_test(test_decoding_undoes_encoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
