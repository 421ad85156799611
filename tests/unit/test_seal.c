/* X25519 by the vectors of RFC 7748, and keys wrapped with it. */
#include "codec/seal.h"

#include "common/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define ALICE_PRIVATE "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
#define ALICE_PUBLIC "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
#define BOB_PRIVATE "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
#define BOB_PUBLIC "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
#define SHARED "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"

static const uint8_t *
key_of(uint8_t key[KEY_SIZE], const char *hex)
{
    assert_true(hex_decode(key, KEY_SIZE, hex));
    return key;
}

static void
test_the_vectors_of_rfc_7748(void **state)
{
    (void)state;
    CairnError err = {0};
    uint8_t a[KEY_SIZE], b[KEY_SIZE], out[KEY_SIZE], expected[KEY_SIZE];

    /* Section 6.1 */
    assert_true(seal_public_key(key_of(a, ALICE_PRIVATE), out, &err));
    assert_memory_equal(out, key_of(expected, ALICE_PUBLIC), KEY_SIZE);
    assert_true(seal_public_key(key_of(a, BOB_PRIVATE), out, &err));
    assert_memory_equal(out, key_of(expected, BOB_PUBLIC), KEY_SIZE);
    assert_true(seal_shared_secret(key_of(a, ALICE_PRIVATE), key_of(b, BOB_PUBLIC), out, &err));
    assert_memory_equal(out, key_of(expected, SHARED), KEY_SIZE);
    assert_true(seal_shared_secret(key_of(a, BOB_PRIVATE), key_of(b, ALICE_PUBLIC), out, &err));
    assert_memory_equal(out, key_of(expected, SHARED), KEY_SIZE);

    /* Section 5.2 */
    key_of(a, "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
    key_of(b, "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
    key_of(expected, "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
    assert_true(seal_shared_secret(a, b, out, &err));
    assert_memory_equal(out, expected, KEY_SIZE);
}

/* Points of small order, with which every shared secret is zero. */
static const char *const small_order[] = {
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
};

static void
test_no_secret_of_zeros_is_used(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof small_order / sizeof *small_order; i++) {
        CairnError err = {0};
        uint8_t a[KEY_SIZE], b[KEY_SIZE], out[KEY_SIZE];
        assert_false(
            seal_shared_secret(key_of(a, ALICE_PRIVATE), key_of(b, small_order[i]), out, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
}

static void
test_a_wrapped_key_opens_for_its_recipient_alone(void **state)
{
    (void)state;
    CairnError err = {0};
    uint8_t alice[KEY_SIZE], alice_public[KEY_SIZE], bob[KEY_SIZE], bob_public[KEY_SIZE];
    uint8_t wrapped[SEAL_WRAPPED_SIZE], opened[KEY_SIZE];
    static const uint8_t key[KEY_SIZE] = "the key that is wrapped for Bob";
    key_of(alice, ALICE_PRIVATE);
    key_of(alice_public, ALICE_PUBLIC);
    key_of(bob, BOB_PRIVATE);
    key_of(bob_public, BOB_PUBLIC);
    const SealTo to = {.ephemeral = alice_public,
                       .recipient = bob_public,
                       .salt = "salt",
                       .salt_size = 4,
                       .context = "context",
                       .context_size = 7};
    assert_true(seal_wrap(&to, alice, key, wrapped, &err));
    assert_true(seal_unwrap(&to, bob, wrapped, opened, &err));
    assert_memory_equal(opened, key, KEY_SIZE);

    SealTo changed[4] = {to, to, to, to};
    changed[0].salt = "tlas";
    changed[1].context = "another";
    changed[2].recipient = alice_public;
    changed[3].ephemeral = bob_public;
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) {
        assert_false(seal_unwrap(&changed[i], bob, wrapped, opened, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        cairn_error_clear(&err);
    }
    bob[5] ^= 1;
    assert_false(seal_unwrap(&to, bob, wrapped, opened, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    bob[5] ^= 1;
    for (size_t bit = 0; bit < 8 * sizeof wrapped; bit++) {
        cairn_error_clear(&err);
        wrapped[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(seal_unwrap(&to, bob, wrapped, opened, &err));
        wrapped[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_vectors_of_rfc_7748),
        cmocka_unit_test(test_no_secret_of_zeros_is_used),
        cmocka_unit_test(test_a_wrapped_key_opens_for_its_recipient_alone),
    };
    return cmocka_run_group_tests_name("seal", tests, NULL, NULL);
}
