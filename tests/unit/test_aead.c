/* AES-256-GCM by published vectors, and that nothing changed is ever opened. */
#include "codec/aead.h"

#include "common/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { TEXT_LIMIT = 64 };

/* Test cases 13 to 16 of the GCM specification (McGrew and Viega), as NIST has them. */
typedef struct {
    const char *key, *nonce, *plain, *associated, *sealed;
} Vector;

#define KEY_16 "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
#define ZERO_KEY "0000000000000000000000000000000000000000000000000000000000000000"
#define TEXT_15                                                                                    \
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"                             \
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
#define TEXT_16                                                                                    \
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"                             \
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"

static const Vector vectors[] = {
    {ZERO_KEY, "000000000000000000000000", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
    {ZERO_KEY, "000000000000000000000000", "00000000000000000000000000000000", "",
     "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
    {KEY_16, "cafebabefacedbaddecaf888", TEXT_15, "",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
     "b094dac5d93471bdec1a502270e3cc6c"},
    {KEY_16, "cafebabefacedbaddecaf888", TEXT_16, "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static size_t
bytes_of(uint8_t *out, const char *hex)
{
    const size_t size = strlen(hex) / 2;
    assert_true(hex_decode(out, size, hex));
    return size;
}

static AeadSeal
seal_of(const uint8_t key[KEY_SIZE], const uint8_t nonce[AEAD_NONCE_SIZE])
{
    return (AeadSeal){.key = key, .section = get_u32(nonce), .counter = get_u64(nonce + 4)};
}

static void
test_published_vectors(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Aead) aead = aead_new(&err);
    assert_non_null(aead);
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint8_t key[KEY_SIZE], nonce[AEAD_NONCE_SIZE], associated[32], plain[TEXT_LIMIT];
        uint8_t expected[TEXT_LIMIT + AEAD_TAG_SIZE], sealed[TEXT_LIMIT + AEAD_TAG_SIZE];
        bytes_of(key, vectors[i].key);
        bytes_of(nonce, vectors[i].nonce);
        AeadSeal seal = seal_of(key, nonce);
        seal.associated = associated;
        seal.associated_size = bytes_of(associated, vectors[i].associated);
        const size_t size = bytes_of(plain, vectors[i].plain);
        const size_t sealed_size = bytes_of(expected, vectors[i].sealed);
        assert_int_equal(sealed_size, size + AEAD_TAG_SIZE);
        assert_true(aead_seal(aead, &seal, plain, size, sealed, &err));
        assert_memory_equal(sealed, expected, sealed_size);
        /* In place, both ways. */
        memcpy(sealed, plain, size);
        assert_true(aead_seal(aead, &seal, sealed, size, sealed, &err));
        assert_memory_equal(sealed, expected, sealed_size);
        assert_true(aead_open(aead, &seal, sealed, sealed_size, sealed, &err));
        assert_memory_equal(sealed, plain, size);
    }
}

static const uint8_t test_key[KEY_SIZE] = "0123456789abcdef0123456789abcde";
static const char text[] = "what is sealed";

static void
expect_refused(Aead *aead, const AeadSeal *seal, const uint8_t *sealed, size_t size)
{
    static const uint8_t zeros[TEXT_LIMIT];
    CairnError err = {0};
    uint8_t plain[TEXT_LIMIT];
    memset(plain, 'x', sizeof plain);
    assert_false(aead_open(aead, seal, sealed, size, plain, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    if (size >= AEAD_TAG_SIZE)
        assert_memory_equal(plain, zeros, size - AEAD_TAG_SIZE);
}

static void
test_each_changed_bit_is_noticed_and_nothing_is_given_out(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Aead) aead = aead_new(&err);
    uint8_t sealed[sizeof text + AEAD_TAG_SIZE], plain[sizeof text];
    const AeadSeal seal = {
        .key = test_key, .section = 1, .counter = 2, .associated = "a", .associated_size = 1};
    assert_true(aead_seal(aead, &seal, text, sizeof text, sealed, &err));
    for (size_t bit = 0; bit < 8 * sizeof sealed; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        expect_refused(aead, &seal, sealed, sizeof sealed);
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t size = 0; size < sizeof sealed; size++)
        expect_refused(aead, &seal, sealed, size);
    assert_true(aead_open(aead, &seal, sealed, sizeof sealed, plain, &err));
    assert_memory_equal(plain, text, sizeof text);
}

static void
test_key_place_and_associated_bytes_are_part_of_it(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Aead) aead = aead_new(&err);
    uint8_t sealed[sizeof text + AEAD_TAG_SIZE], other_key[KEY_SIZE];
    const AeadSeal seal = {
        .key = test_key, .section = 1, .counter = 2, .associated = "ab", .associated_size = 2};
    assert_true(aead_seal(aead, &seal, text, sizeof text, sealed, &err));
    memcpy(other_key, test_key, sizeof other_key);
    other_key[KEY_SIZE - 1] ^= 1;

    AeadSeal changed[5] = {seal, seal, seal, seal, seal};
    changed[0].key = other_key;
    changed[1].section = 3;
    changed[2].counter = UINT64_C(2) | UINT64_C(1) << 63;
    changed[3].associated = "ac";
    changed[4].associated_size = 1;
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++)
        expect_refused(aead, &changed[i], sealed, sizeof sealed);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors),
        cmocka_unit_test(test_each_changed_bit_is_noticed_and_nothing_is_given_out),
        cmocka_unit_test(test_key_place_and_associated_bytes_are_part_of_it),
    };
    return cmocka_run_group_tests_name("aead", tests, NULL, NULL);
}
