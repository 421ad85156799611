#include "common/stretch.h"

#include "common/libcrypto.h"

enum { OVERHEAD = 1 << 20 };

bool
stretch_check(const StretchCost *cost, CairnError *err)
{
    const bool power_of_two = cost->n >= 2 && (cost->n & (cost->n - 1)) == 0;
    if (power_of_two && cost->r >= 1 && cost->r <= STRETCH_R_LIMIT && cost->p >= 1 &&
        cost->p <= STRETCH_P_LIMIT && cost->n <= STRETCH_MEMORY_LIMIT / 128 / cost->r)
        return true;
    cairn_error(err, CAIRN_UNSUPPORTED,
                "scrypt with N = %llu, r = %u, p = %u is beyond the limits of this program",
                (unsigned long long)cost->n, cost->r, cost->p);
    return cairn_error_hint(err, "pgcairn writes N = 131072, r = 8, p = 1: somebody else made it");
}

static bool
derive(EVP_KDF_CTX *context, const void *passphrase, size_t passphrase_size, const void *salt,
       size_t salt_size, const StretchCost *cost, uint8_t key_out[KEY_SIZE])
{
    uint64_t n = cost->n;
    uint32_t r = cost->r, p = cost->p;
    uint64_t memory = 128 * n * r + UINT64_C(128) * r * p + OVERHEAD;
    /* OSSL_PARAM is not const-correct; nothing is written through these. Without maxmem OpenSSL
       refuses more than 32 MiB. */
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, (void *)(uintptr_t)passphrase,
                                          passphrase_size),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt, salt_size),
        OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
        OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
        OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
        OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &memory),
        OSSL_PARAM_construct_end(),
    };
    return EVP_KDF_derive(context, key_out, KEY_SIZE, params) == 1;
}

bool
stretch_passphrase(const void *passphrase, size_t passphrase_size, const void *salt,
                   size_t salt_size, const StretchCost *cost, uint8_t key_out[KEY_SIZE],
                   CairnError *err)
{
    if (!stretch_check(cost, err))
        return false;
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "SCRYPT", NULL);
    EVP_KDF_CTX *context = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    const bool derived = context != NULL && derive(context, passphrase, passphrase_size, salt,
                                                   salt_size, cost, key_out);
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    if (derived)
        return true;
    ERR_clear_error();
    return cairn_error(err, CAIRN_INTERNAL,
                       "unable to derive a key from the passphrase, which takes %llu MiB of memory",
                       (unsigned long long)(128 * cost->n * cost->r >> 20));
}
