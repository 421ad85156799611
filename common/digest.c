#include "common/digest.h"

#include "common/libcrypto.h"
#include "common/openssl.h"

#include <stdio.h>
#include <string.h>

enum { GMAC_IV_SIZE = 12 };

/* EVP takes int lengths; a power of two keeps every piece but the last whole blocks. */
static const size_t EVP_PIECE_LIMIT = (size_t)1 << 30;

uint64_t
fnv1a(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint64_t hash = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
    return hash;
}

struct Sha256 {
    EVP_MD *algorithm;
    EVP_MD_CTX *context;
};

void
sha256_free(Sha256 *sha)
{
    if (sha == NULL)
        return;
    EVP_MD_CTX_free(sha->context);
    EVP_MD_free(sha->algorithm);
    free(sha);
}

Sha256 *
sha256_new(CairnError *err)
{
    SCOPED(Sha256) sha = calloc(1, sizeof *sha);
    if (sha == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    sha->algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
    sha->context = EVP_MD_CTX_new();
    if (sha->algorithm == NULL || sha->context == NULL ||
        EVP_DigestInit_ex2(sha->context, sha->algorithm, NULL) != 1) {
        openssl_error(err, "start SHA-256");
        return NULL;
    }
    return take(&sha);
}

bool
sha256_update(Sha256 *sha, const void *data, size_t size, CairnError *err)
{
    if (EVP_DigestUpdate(sha->context, data, size) != 1)
        return openssl_error(err, "compute SHA-256");
    return true;
}

bool
sha256_finish(Sha256 *sha, uint8_t digest_out[SHA256_SIZE], CairnError *err)
{
    unsigned size = 0;
    if (EVP_DigestFinal_ex(sha->context, digest_out, &size) != 1 || size != SHA256_SIZE ||
        EVP_DigestInit_ex2(sha->context, sha->algorithm, NULL) != 1) {
        return openssl_error(err, "finish SHA-256");
    }
    return true;
}

bool
sha256_of(const void *data, size_t size, uint8_t digest_out[SHA256_SIZE], CairnError *err)
{
    SCOPED(Sha256) sha = sha256_new(err);
    return sha != NULL && sha256_update(sha, data, size, err) &&
           sha256_finish(sha, digest_out, err);
}

struct KeyedDigest {
    EVP_CIPHER *gcm_cipher;
    EVP_CIPHER *aes_cipher;
    EVP_CIPHER_CTX *gcm; /* key set once; every message only sets the IV again */
    EVP_CIPHER_CTX *aes;
};

void
keyed_digest_free(KeyedDigest *digest)
{
    if (digest == NULL)
        return;
    EVP_CIPHER_CTX_free(digest->gcm);
    EVP_CIPHER_CTX_free(digest->aes);
    EVP_CIPHER_free(digest->gcm_cipher);
    EVP_CIPHER_free(digest->aes_cipher);
    free(digest);
}

static bool
derive(const uint8_t key[KEY_SIZE], const char *purpose, const char *part, uint8_t out[KEY_SIZE],
       CairnError *err)
{
    char label[128];
    const int length = snprintf(label, sizeof label, "%s/%s", purpose, part);
    CAIRN_ASSERT(length > 0 && (size_t)length < sizeof label);
    return hkdf_sha256(key, NULL, 0, label, out, KEY_SIZE, err);
}

static bool
set_keys(KeyedDigest *digest, const uint8_t gmac_key[KEY_SIZE], const uint8_t aes_key[KEY_SIZE],
         CairnError *err)
{
    digest->gcm_cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    digest->aes_cipher = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
    digest->gcm = EVP_CIPHER_CTX_new();
    digest->aes = EVP_CIPHER_CTX_new();
    if (digest->gcm_cipher == NULL || digest->aes_cipher == NULL || digest->gcm == NULL ||
        digest->aes == NULL ||
        EVP_EncryptInit_ex2(digest->gcm, digest->gcm_cipher, gmac_key, NULL, NULL) != 1 ||
        EVP_EncryptInit_ex2(digest->aes, digest->aes_cipher, aes_key, NULL, NULL) != 1 ||
        EVP_CIPHER_CTX_set_padding(digest->aes, 0) != 1) {
        return openssl_error(err, "start the keyed digest");
    }
    return true;
}

KeyedDigest *
keyed_digest_new(const uint8_t key[KEY_SIZE], const char *purpose, CairnError *err)
{
    SCOPED(KeyedDigest) digest = calloc(1, sizeof *digest);
    if (digest == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    uint8_t gmac_key[KEY_SIZE];
    uint8_t aes_key[KEY_SIZE];
    const bool ready = derive(key, purpose, "gmac", gmac_key, err) &&
                       derive(key, purpose, "aes", aes_key, err) &&
                       set_keys(digest, gmac_key, aes_key, err);
    OPENSSL_cleanse(gmac_key, sizeof gmac_key);
    OPENSSL_cleanse(aes_key, sizeof aes_key);
    return ready ? take(&digest) : NULL;
}

bool
keyed_digest_begin(KeyedDigest *digest, CairnError *err)
{
    static const uint8_t ZERO_IV[GMAC_IV_SIZE] = {0};
    if (EVP_EncryptInit_ex2(digest->gcm, NULL, NULL, ZERO_IV, NULL) != 1)
        return openssl_error(err, "begin a keyed digest");
    return true;
}

bool
keyed_digest_update(KeyedDigest *digest, const void *data, size_t size, CairnError *err)
{
    const uint8_t *at = data;
    while (size > 0) {
        const size_t piece = size < EVP_PIECE_LIMIT ? size : EVP_PIECE_LIMIT;
        int ignored_size;
        /* No output buffer: the bytes are associated data, authenticated and not encrypted. */
        if (EVP_EncryptUpdate(digest->gcm, NULL, &ignored_size, at, (int)piece) != 1)
            return openssl_error(err, "compute a keyed digest");
        at += piece;
        size -= piece;
    }
    return true;
}

bool
keyed_digest_finish(KeyedDigest *digest, uint8_t digest_out[KEYED_DIGEST_SIZE], CairnError *err)
{
    uint8_t tag[KEYED_DIGEST_SIZE];
    int size = 0;
    if (EVP_EncryptFinal_ex(digest->gcm, tag, &size) != 1 || size != 0 ||
        EVP_CIPHER_CTX_ctrl(digest->gcm, EVP_CTRL_AEAD_GET_TAG, sizeof tag, tag) != 1 ||
        EVP_EncryptUpdate(digest->aes, digest_out, &size, tag, sizeof tag) != 1 ||
        size != KEYED_DIGEST_SIZE) {
        return openssl_error(err, "finish a keyed digest");
    }
    return true;
}

bool
keyed_digest_of(KeyedDigest *digest, const void *data, size_t size,
                uint8_t digest_out[KEYED_DIGEST_SIZE], CairnError *err)
{
    return keyed_digest_begin(digest, err) && keyed_digest_update(digest, data, size, err) &&
           keyed_digest_finish(digest, digest_out, err);
}

/* OSSL_PARAM is not const-correct; nothing is written through these. */
static OSSL_PARAM
octets(const char *name, const void *data, size_t size)
{
    return OSSL_PARAM_construct_octet_string(name, (void *)(uintptr_t)data, size);
}

bool
hkdf_sha256_of(const HkdfInput *input, uint8_t *out, size_t out_size, CairnError *err)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;

    OSSL_PARAM params[5];
    size_t count = 0;
    params[count++] =
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)(uintptr_t) "SHA256", 0);
    params[count++] = octets(OSSL_KDF_PARAM_KEY, input->key, input->key_size);
    params[count++] = octets(OSSL_KDF_PARAM_INFO, input->info, input->info_size);
    /* RFC 5869: no salt is HashLen zero bytes, which is what leaving it out gives. */
    if (input->salt_size > 0)
        params[count++] = octets(OSSL_KDF_PARAM_SALT, input->salt, input->salt_size);
    params[count] = OSSL_PARAM_construct_end();

    const bool derived = context != NULL && EVP_KDF_derive(context, out, out_size, params) == 1;
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    return derived ? true : openssl_error(err, "derive a key");
}

bool
hkdf_sha256(const uint8_t key[KEY_SIZE], const void *salt, size_t salt_size, const char *info,
            uint8_t *out, size_t out_size, CairnError *err)
{
    const HkdfInput input = {.key = key,
                             .key_size = KEY_SIZE,
                             .salt = salt,
                             .salt_size = salt_size,
                             .info = info,
                             .info_size = strlen(info)};
    return hkdf_sha256_of(&input, out, out_size, err);
}

bool
hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
            uint8_t mac_out[SHA256_SIZE], CairnError *err)
{
    size_t mac_size = 0;
    if (EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, key_size, data, size, mac_out,
                  SHA256_SIZE, &mac_size) == NULL ||
        mac_size != SHA256_SIZE)
        return openssl_error(err, "compute HMAC-SHA-256");
    return true;
}
