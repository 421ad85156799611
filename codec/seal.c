#include "codec/seal.h"

#include "common/bytes.h"
#include "common/libcrypto.h"
#include "common/openssl.h"

#include <string.h>

bool
seal_public_key(const uint8_t private_key[KEY_SIZE], uint8_t public_out[KEY_SIZE], CairnError *err)
{
    size_t size = KEY_SIZE;
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, private_key, KEY_SIZE);
    const bool found =
        key != NULL && EVP_PKEY_get_raw_public_key(key, public_out, &size) == 1 && size == KEY_SIZE;
    EVP_PKEY_free(key);
    return found ? true : openssl_error(err, "compute an X25519 public key");
}

static bool
derive(EVP_PKEY *own, EVP_PKEY *other, uint8_t shared_out[KEY_SIZE])
{
    size_t size = KEY_SIZE;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
    const bool derived = context != NULL && EVP_PKEY_derive_init(context) == 1 &&
                         EVP_PKEY_derive_set_peer(context, other) == 1 &&
                         EVP_PKEY_derive(context, shared_out, &size) == 1 && size == KEY_SIZE;
    EVP_PKEY_CTX_free(context);
    return derived;
}

bool
seal_shared_secret(const uint8_t private_key[KEY_SIZE], const uint8_t public_key[KEY_SIZE],
                   uint8_t shared_out[KEY_SIZE], CairnError *err)
{
    static const uint8_t ZEROS[KEY_SIZE] = {0};
    EVP_PKEY *own = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, private_key, KEY_SIZE);
    EVP_PKEY *other = EVP_PKEY_new_raw_public_key_ex(NULL, "X25519", NULL, public_key, KEY_SIZE);
    bool done = own != NULL && other != NULL;
    if (!done) {
        openssl_error(err, "load X25519 keys");
    } else if (!derive(own, other, shared_out) || CRYPTO_memcmp(shared_out, ZEROS, KEY_SIZE) == 0) {
        /* Both keys are right in form: what is left is a point of small order. */
        ERR_clear_error();
        done = cairn_error(err, CAIRN_CORRUPT, "an X25519 public key gives no shared secret");
    }
    EVP_PKEY_free(own);
    EVP_PKEY_free(other);
    return done;
}

static bool
wrap_key(const SealTo *to, const uint8_t private_key[KEY_SIZE], const uint8_t public_key[KEY_SIZE],
         uint8_t key_out[KEY_SIZE], CairnError *err)
{
    uint8_t shared[KEY_SIZE];
    SCOPED_BYTES ByteWriter info = {0};
    byte_writer_bytes(&info, to->context, to->context_size);
    byte_writer_bytes(&info, to->ephemeral, KEY_SIZE);
    byte_writer_bytes(&info, to->recipient, KEY_SIZE);
    const HkdfInput input = {.key = shared,
                             .key_size = sizeof shared,
                             .salt = to->salt,
                             .salt_size = to->salt_size,
                             .info = info.data,
                             .info_size = info.size};
    const bool derived = byte_writer_check(&info, err) &&
                         seal_shared_secret(private_key, public_key, shared, err) &&
                         hkdf_sha256_of(&input, key_out, KEY_SIZE, err);
    OPENSSL_cleanse(shared, sizeof shared);
    return derived;
}

bool
seal_wrap(const SealTo *to, const uint8_t ephemeral_private[KEY_SIZE], const uint8_t key[KEY_SIZE],
          uint8_t wrapped_out[SEAL_WRAPPED_SIZE], CairnError *err)
{
    uint8_t wrap[KEY_SIZE];
    SCOPED(Aead) aead = aead_new(err);
    const bool sealed = aead != NULL && wrap_key(to, ephemeral_private, to->recipient, wrap, err) &&
                        aead_seal(aead, &(AeadSeal){.key = wrap}, key, KEY_SIZE, wrapped_out, err);
    OPENSSL_cleanse(wrap, sizeof wrap);
    return sealed;
}

bool
seal_unwrap(const SealTo *to, const uint8_t recipient_private[KEY_SIZE],
            const uint8_t wrapped[SEAL_WRAPPED_SIZE], uint8_t key_out[KEY_SIZE], CairnError *err)
{
    uint8_t wrap[KEY_SIZE];
    SCOPED(Aead) aead = aead_new(err);
    const bool opened =
        aead != NULL && wrap_key(to, recipient_private, to->ephemeral, wrap, err) &&
        aead_open(aead, &(AeadSeal){.key = wrap}, wrapped, SEAL_WRAPPED_SIZE, key_out, err);
    OPENSSL_cleanse(wrap, sizeof wrap);
    return opened;
}
