#include "common/digest.h"

#include "common/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

/* Bit by bit, straight from the definition: nothing in common with the code under test. */
static uint32_t
crc32c_bitwise(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82f63b78 & (0 - (crc & 1)));
    }
    return ~crc;
}

static void
fill_pattern(uint8_t *data, size_t size)
{
    uint32_t x = 12345;
    for (size_t i = 0; i < size; i++) {
        x = x * 1664525 + 1013904223;
        data[i] = (uint8_t)(x >> 24);
    }
}

static void
assert_hex(const void *data, size_t size, const char *expected)
{
    char text[2 * 128 + 1];
    assert_true(size <= 128);
    hex_encode(text, data, size);
    assert_string_equal(text, expected);
}

static void
test_crc32c_gives_the_published_values(void **state)
{
    (void)state;
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    /* RFC 3720, B.4 */
    uint8_t data[32] = {0};
    assert_int_equal(crc32c(0, data, sizeof data), 0x8a9136aa);
    memset(data, 0xff, sizeof data);
    assert_int_equal(crc32c(0, data, sizeof data), 0x62a8ab43);
    for (uint8_t i = 0; i < 32; i++)
        data[i] = i;
    assert_int_equal(crc32c(0, data, sizeof data), 0x46dd794e);
    assert_int_equal(crc32c(7, data, 0), 7);
}

static void
test_crc32c_agrees_with_the_definition_at_every_size_and_offset(void **state)
{
    (void)state;
    static uint8_t data[40000];
    fill_pattern(data, sizeof data);
    for (size_t size = 0; size < 700; size++)
        assert_int_equal(crc32c(0, data + size % 9, size),
                         crc32c_bitwise(0, data + size % 9, size));
    for (size_t size = 0; size < 100; size++)
        assert_int_equal(crc32c_portable(5, data + 1, size), crc32c_bitwise(5, data + 1, size));
    /* Around one and two rounds of three lanes. */
    static const size_t SIZES[] = {8159, 8160, 8161, 8168, 8184, 8192, 16319, 16320, 16600, 39990};
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++)
        assert_int_equal(crc32c(99, data + 3, SIZES[i]), crc32c_bitwise(99, data + 3, SIZES[i]));
}

static void
test_crc32c_of_pages_combines_like_any_other(void **state)
{
    enum { PAGES = 9, HEAD = 100 };
    static uint8_t data[HEAD + PAGES * CRC32C_PAGE_SIZE];
    uint32_t page_crcs[PAGES];
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * i >> 3 ^ i);
    for (size_t i = 0; i < PAGES; i++)
        page_crcs[i] = crc32c(0, data + HEAD + i * CRC32C_PAGE_SIZE, CRC32C_PAGE_SIZE);
    for (size_t count = 0; count <= PAGES; count++) {
        assert_int_equal(crc32c_combine_pages(crc32c(0, data, HEAD), page_crcs, count),
                         crc32c(0, data, HEAD + count * CRC32C_PAGE_SIZE));
    }
}

static void
test_crc32c_chains_and_combines(void **state)
{
    (void)state;
    static uint8_t data[20000];
    fill_pattern(data, sizeof data);
    const uint32_t whole = crc32c(0, data, sizeof data);
    static const size_t CUTS[] = {0, 1, 7, 192, 8192, 19999, 20000};
    for (size_t i = 0; i < sizeof CUTS / sizeof CUTS[0]; i++) {
        const size_t cut = CUTS[i];
        const uint32_t a = crc32c(0, data, cut);
        assert_int_equal(crc32c(a, data + cut, sizeof data - cut), whole);
        const uint32_t b = crc32c(0, data + cut, sizeof data - cut);
        assert_int_equal(crc32c_combine(a, b, sizeof data - cut), whole);
    }
}

static void
test_sha256_gives_the_published_values_and_starts_over(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Sha256) sha = sha256_new(&err);
    assert_non_null(sha);
    uint8_t digest[SHA256_SIZE];
    for (int round = 0; round < 2; round++) {
        assert_true(sha256_update(sha, "a", 1, &err));
        assert_true(sha256_update(sha, "bc", 2, &err));
        assert_true(sha256_finish(sha, digest, &err));
        assert_hex(digest, sizeof digest,
                   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
    assert_true(sha256_of("", 0, digest, &err));
    assert_hex(digest, sizeof digest,
               "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/* RFC 5869 by its text, over HMAC. */
static void
hkdf_by_hand(const uint8_t *key, size_t key_size, const void *salt, size_t salt_size,
             const uint8_t *info, size_t info_size, uint8_t *out, size_t out_size)
{
    static const uint8_t ZEROS[SHA256_SIZE];
    uint8_t prk[SHA256_SIZE];
    if (salt_size == 0) {
        salt = ZEROS;
        salt_size = sizeof ZEROS;
    }
    assert_non_null(HMAC(EVP_sha256(), salt, (int)salt_size, key, key_size, prk, NULL));

    uint8_t block[SHA256_SIZE + 128 + 1];
    size_t previous = 0;
    for (uint8_t i = 1; out_size > 0; i++) {
        memcpy(block + previous, info, info_size);
        block[previous + info_size] = i;
        uint8_t t[SHA256_SIZE];
        assert_non_null(
            HMAC(EVP_sha256(), prk, sizeof prk, block, previous + info_size + 1, t, NULL));
        const size_t piece = out_size < sizeof t ? out_size : sizeof t;
        memcpy(out, t, piece);
        out += piece;
        out_size -= piece;
        memcpy(block, t, sizeof t);
        previous = sizeof t;
    }
}

static void
test_hkdf_is_rfc_5869(void **state)
{
    (void)state;
    /* The RFC's keys have 22 and 80 bytes, ours 32: its test case 1 proves the composition above,
       which then judges ours. */
    uint8_t key[80];
    uint8_t salt[13];
    uint8_t info[10];
    uint8_t out[80];
    memset(key, 0x0b, 22);
    for (uint8_t i = 0; i < 13; i++)
        salt[i] = i;
    for (uint8_t i = 0; i < 10; i++)
        info[i] = (uint8_t)(0xf0 + i);
    hkdf_by_hand(key, 22, salt, sizeof salt, info, sizeof info, out, 42);
    assert_hex(
        out, 42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
    hkdf_by_hand(key, 22, NULL, 0, info, 0, out, 42); /* test case 3 */
    assert_hex(
        out, 42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");

    CairnError err = {0};
    uint8_t ours[80];
    fill_pattern(key, KEY_SIZE);
    assert_true(hkdf_sha256(key, salt, sizeof salt, "label", ours, sizeof ours, &err));
    hkdf_by_hand(key, KEY_SIZE, salt, sizeof salt, (const uint8_t *)"label", 5, out, sizeof out);
    assert_memory_equal(ours, out, sizeof out);
    assert_true(hkdf_sha256(key, NULL, 0, "", ours, 32, &err));
    hkdf_by_hand(key, KEY_SIZE, NULL, 0, info, 0, out, 32);
    assert_memory_equal(ours, out, 32);
}

static void
fill_from(uint8_t *out, size_t size, uint8_t first)
{
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(first + i);
}

static void
test_hkdf_gives_the_vectors_of_rfc_5869(void **state)
{
    (void)state;
    CairnError err = {0};
    uint8_t key[80], salt[80], info[80], out[82];
    memset(key, 0x0b, sizeof key);
    fill_from(salt, 13, 0);
    fill_from(info, 10, 0xf0);
    HkdfInput input = {
        .key = key, .key_size = 22, .salt = salt, .salt_size = 13, .info = info, .info_size = 10};
    assert_true(hkdf_sha256_of(&input, out, 42, &err));
    assert_hex(
        out, 42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
    input.salt_size = input.info_size = 0;
    assert_true(hkdf_sha256_of(&input, out, 42, &err));
    assert_hex(
        out, 42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
    fill_from(key, 80, 0);
    fill_from(salt, 80, 0x60);
    fill_from(info, 80, 0xb0);
    input.key_size = input.salt_size = input.info_size = 80;
    assert_true(hkdf_sha256_of(&input, out, 82, &err));
    assert_hex(out, 82,
               "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
               "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
               "cc30c58179ec3e87c14c01d5c1f3434f1d87");
}

static void
test_hmac_gives_the_vectors_of_rfc_4231(void **state)
{
    (void)state;
    static const char long_key_text[] = "Test Using Larger Than Block-Size Key - Hash Key First";
    CairnError err = {0};
    uint8_t key[131], data[50], mac[SHA256_SIZE];
    memset(key, 0x0b, 20);
    assert_true(hmac_sha256(key, 20, "Hi There", 8, mac, &err));
    assert_hex(mac, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    assert_true(hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, mac, &err));
    assert_hex(mac, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key);
    memset(data, 0xdd, sizeof data);
    assert_true(hmac_sha256(key, 20, data, sizeof data, mac, &err));
    assert_hex(mac, 32, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
    assert_true(hmac_sha256(key, sizeof key, long_key_text, sizeof long_key_text - 1, mac, &err));
    assert_hex(mac, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

/* x * h in GF(2^128) as GCM orders bits (SP 800-38D, algorithm 1). */
static void
ghash_multiply(uint8_t x[16], const uint8_t h[16])
{
    uint8_t z[16] = {0};
    uint8_t v[16];
    memcpy(v, h, 16);
    for (int bit = 0; bit < 128; bit++) {
        if ((x[bit / 8] >> (7 - bit % 8) & 1) != 0) {
            for (int i = 0; i < 16; i++)
                z[i] ^= v[i];
        }
        const bool carry = (v[15] & 1) != 0;
        for (int i = 15; i > 0; i--)
            v[i] = (uint8_t)(v[i] >> 1 | v[i - 1] << 7);
        v[0] = (uint8_t)(v[0] >> 1);
        if (carry)
            v[0] ^= 0xe1;
    }
    memcpy(x, z, 16);
}

static void
aes_block(const uint8_t key[32], const uint8_t in[16], uint8_t out[16])
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int size;
    assert_int_equal(EVP_EncryptInit_ex(context, EVP_aes_256_ecb(), NULL, key, NULL), 1);
    EVP_CIPHER_CTX_set_padding(context, 0);
    assert_int_equal(EVP_EncryptUpdate(context, out, &size, in, 16), 1);
    EVP_CIPHER_CTX_free(context);
}

/* The construction in digest.h, from bare AES blocks and school GHASH. */
static void
keyed_digest_by_hand(const uint8_t key[32], const char *gmac_label, const char *aes_label,
                     const uint8_t *data, size_t size, uint8_t out[16])
{
    uint8_t gmac_key[32];
    uint8_t aes_key[32];
    hkdf_by_hand(key, 32, NULL, 0, (const uint8_t *)gmac_label, strlen(gmac_label), gmac_key, 32);
    hkdf_by_hand(key, 32, NULL, 0, (const uint8_t *)aes_label, strlen(aes_label), aes_key, 32);

    static const uint8_t ZERO[16];
    uint8_t h[16];
    aes_block(gmac_key, ZERO, h);
    uint8_t y[16] = {0};
    for (size_t at = 0; at < size; at += 16) {
        for (size_t i = 0; i < 16 && at + i < size; i++)
            y[i] ^= data[at + i];
        ghash_multiply(y, h);
    }
    const uint64_t bits = __builtin_bswap64((uint64_t)size * 8); /* of AAD; the text has none */
    for (size_t i = 0; i < 8; i++)
        y[i] ^= ((const uint8_t *)&bits)[i];
    ghash_multiply(y, h);

    static const uint8_t COUNTER[16] = {[15] = 1};
    uint8_t mask[16];
    aes_block(gmac_key, COUNTER, mask);
    for (int i = 0; i < 16; i++)
        y[i] ^= mask[i];
    aes_block(aes_key, y, out);
}

static void
test_keyed_digest_is_aes_over_gmac(void **state)
{
    (void)state;
    CairnError err = {0};
    uint8_t key[KEY_SIZE];
    static uint8_t data[8192];
    fill_pattern(key, sizeof key);
    fill_pattern(data, sizeof data);
    SCOPED(KeyedDigest) digest = keyed_digest_new(key, "page", &err);
    assert_non_null(digest);
    static const size_t SIZES[] = {0, 1, 15, 16, 17, 100, 8192};
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        uint8_t ours[KEYED_DIGEST_SIZE];
        uint8_t expected[KEYED_DIGEST_SIZE];
        assert_true(keyed_digest_of(digest, data, SIZES[i], ours, &err));
        keyed_digest_by_hand(key, "page/gmac", "page/aes", data, SIZES[i], expected);
        assert_memory_equal(ours, expected, sizeof ours);
    }
}

static void
test_keyed_digest_in_pieces_is_that_of_the_whole(void **state)
{
    (void)state;
    CairnError err = {0};
    uint8_t key[KEY_SIZE] = {1};
    static uint8_t data[5000];
    fill_pattern(data, sizeof data);
    SCOPED(KeyedDigest) digest = keyed_digest_new(key, "wal", &err);
    assert_non_null(digest);
    uint8_t whole[KEYED_DIGEST_SIZE];
    uint8_t pieces[KEYED_DIGEST_SIZE];
    assert_true(keyed_digest_of(digest, data, sizeof data, whole, &err));
    assert_true(keyed_digest_begin(digest, &err));
    for (size_t at = 0, piece = 1; at < sizeof data; at += piece, piece = piece * 3 % 97 + 1) {
        if (piece > sizeof data - at)
            piece = sizeof data - at;
        assert_true(keyed_digest_update(digest, data + at, piece, &err));
    }
    assert_true(keyed_digest_finish(digest, pieces, &err));
    assert_memory_equal(whole, pieces, sizeof whole);
}

static void
test_keyed_digest_depends_on_purpose_key_and_length(void **state)
{
    (void)state;
    CairnError err = {0};
    uint8_t key[KEY_SIZE] = {1};
    const uint8_t zeros[32] = {0};
    uint8_t a[KEYED_DIGEST_SIZE];
    uint8_t b[KEYED_DIGEST_SIZE];
    SCOPED(KeyedDigest) page = keyed_digest_new(key, "page", &err);
    SCOPED(KeyedDigest) wal = keyed_digest_new(key, "wal", &err);
    assert_true(keyed_digest_of(page, zeros, 32, a, &err));
    assert_true(keyed_digest_of(wal, zeros, 32, b, &err));
    assert_memory_not_equal(a, b, sizeof a);
    assert_true(keyed_digest_of(page, zeros, 31, b, &err));
    assert_memory_not_equal(a, b, sizeof a);
    key[0] = 2;
    SCOPED(KeyedDigest) other = keyed_digest_new(key, "page", &err);
    assert_true(keyed_digest_of(other, zeros, 32, b, &err));
    assert_memory_not_equal(a, b, sizeof a);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_gives_the_published_values),
        cmocka_unit_test(test_crc32c_agrees_with_the_definition_at_every_size_and_offset),
        cmocka_unit_test(test_crc32c_chains_and_combines),
        cmocka_unit_test(test_crc32c_of_pages_combines_like_any_other),
        cmocka_unit_test(test_sha256_gives_the_published_values_and_starts_over),
        cmocka_unit_test(test_hkdf_is_rfc_5869),
        cmocka_unit_test(test_hkdf_gives_the_vectors_of_rfc_5869),
        cmocka_unit_test(test_hmac_gives_the_vectors_of_rfc_4231),
        cmocka_unit_test(test_keyed_digest_is_aes_over_gmac),
        cmocka_unit_test(test_keyed_digest_in_pieces_is_that_of_the_whole),
        cmocka_unit_test(test_keyed_digest_depends_on_purpose_key_and_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
