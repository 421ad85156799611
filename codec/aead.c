#include "codec/aead.h"

#include "common/bytes.h"
#include "common/libcrypto.h"
#include "common/openssl.h"

#include <limits.h>
#include <string.h>

struct Aead {
    EVP_CIPHER *cipher;
    EVP_CIPHER_CTX *seal, *open; /* a key stays set until another one is asked for */
    uint8_t seal_key[KEY_SIZE], open_key[KEY_SIZE];
    bool has_seal_key, has_open_key;
};

static AeadObserver *observer;
static void *observer_context;

void
aead_observe(AeadObserver *new_observer, void *context)
{
    observer = new_observer;
    observer_context = context;
}

void
aead_free(Aead *aead)
{
    if (aead == NULL)
        return;
    EVP_CIPHER_CTX_free(aead->seal);
    EVP_CIPHER_CTX_free(aead->open);
    EVP_CIPHER_free(aead->cipher);
    OPENSSL_cleanse(aead, sizeof *aead);
    free(aead);
}

Aead *
aead_new(CairnError *err)
{
    SCOPED(Aead) aead = calloc(1, sizeof *aead);
    if (aead == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    aead->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    aead->seal = EVP_CIPHER_CTX_new();
    aead->open = EVP_CIPHER_CTX_new();
    if (aead->cipher == NULL || aead->seal == NULL || aead->open == NULL) {
        openssl_error(err, "start AES-256-GCM");
        return NULL;
    }
    return take(&aead);
}

static void
make_nonce(uint8_t nonce[AEAD_NONCE_SIZE], const AeadSeal *seal)
{
    put_u32(nonce, seal->section);
    put_u64(nonce + 4, seal->counter);
}

/* Sets key and nonce; the key only when it is not the last one's, since that costs more than a
   small block. */
static bool
begin_seal(Aead *aead, const AeadSeal *seal)
{
    uint8_t nonce[AEAD_NONCE_SIZE];
    make_nonce(nonce, seal);
    if (aead->has_seal_key && CRYPTO_memcmp(aead->seal_key, seal->key, KEY_SIZE) == 0)
        return EVP_EncryptInit_ex2(aead->seal, NULL, NULL, nonce, NULL) == 1;
    aead->has_seal_key = EVP_EncryptInit_ex2(aead->seal, aead->cipher, seal->key, nonce, NULL) == 1;
    memcpy(aead->seal_key, seal->key, KEY_SIZE);
    return aead->has_seal_key;
}

static bool
begin_open(Aead *aead, const AeadSeal *seal)
{
    uint8_t nonce[AEAD_NONCE_SIZE];
    make_nonce(nonce, seal);
    if (aead->has_open_key && CRYPTO_memcmp(aead->open_key, seal->key, KEY_SIZE) == 0)
        return EVP_DecryptInit_ex2(aead->open, NULL, NULL, nonce, NULL) == 1;
    aead->has_open_key = EVP_DecryptInit_ex2(aead->open, aead->cipher, seal->key, nonce, NULL) == 1;
    memcpy(aead->open_key, seal->key, KEY_SIZE);
    return aead->has_open_key;
}

bool
aead_seal(Aead *aead, const AeadSeal *seal, const void *plain, size_t size, void *sealed,
          CairnError *err)
{
    int written = 0, ignored = 0;
    CAIRN_ASSERT(size <= INT_MAX && seal->associated_size <= INT_MAX);
    if (observer != NULL)
        observer(observer_context, seal);
    if (!begin_seal(aead, seal) ||
        EVP_EncryptUpdate(aead->seal, NULL, &ignored, seal->associated,
                          (int)seal->associated_size) != 1 ||
        (size > 0 && EVP_EncryptUpdate(aead->seal, sealed, &written, plain, (int)size) != 1) ||
        EVP_EncryptFinal_ex(aead->seal, (uint8_t *)sealed + written, &ignored) != 1 ||
        (size_t)written != size || ignored != 0 ||
        EVP_CIPHER_CTX_ctrl(aead->seal, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_SIZE,
                            (uint8_t *)sealed + size) != 1) {
        aead->has_seal_key = false;
        return openssl_error(err, "encrypt");
    }
    return true;
}

bool
aead_open(Aead *aead, const AeadSeal *seal, const void *sealed, size_t sealed_size, void *plain,
          CairnError *err)
{
    if (sealed_size < AEAD_TAG_SIZE)
        return cairn_error(err, CAIRN_CORRUPT, "an encrypted block is too short");
    const size_t size = sealed_size - AEAD_TAG_SIZE;
    uint8_t tag[AEAD_TAG_SIZE];
    int written = 0, ignored = 0;
    CAIRN_ASSERT(size <= INT_MAX && seal->associated_size <= INT_MAX);
    memcpy(tag, (const uint8_t *)sealed + size, sizeof tag);
    if (!begin_open(aead, seal) ||
        EVP_DecryptUpdate(aead->open, NULL, &ignored, seal->associated,
                          (int)seal->associated_size) != 1 ||
        (size > 0 && EVP_DecryptUpdate(aead->open, plain, &written, sealed, (int)size) != 1) ||
        (size_t)written != size ||
        EVP_CIPHER_CTX_ctrl(aead->open, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) != 1) {
        aead->has_open_key = false;
        OPENSSL_cleanse(plain, size);
        return openssl_error(err, "decrypt");
    }
    uint8_t nothing[AEAD_TAG_SIZE];
    if (EVP_DecryptFinal_ex(aead->open, nothing, &ignored) != 1) {
        ERR_clear_error();
        OPENSSL_cleanse(plain, size);
        return cairn_error(err, CAIRN_CORRUPT,
                           "its authentication fails: it was changed, or made with another key");
    }
    return true;
}
