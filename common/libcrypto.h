/*
 * libcrypto, loaded when it is first used.
 *
 * A call of pgcairn-wal whose file lies ready needs none of it, and mapping and relocating it is
 * half of such a call. So the programs are not linked with it: who calls OpenSSL includes this
 * instead of OpenSSL's own headers, and the calls below go through a table of its functions.
 * A function that is missing here does not link: add it to both lists.
 *
 * Errors: those of lazy_library.h. Threads: any.
 */
#ifndef PGCAIRN_COMMON_LIBCRYPTO_H
#define PGCAIRN_COMMON_LIBCRYPTO_H

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

/* For programs that must start in a few milliseconds and speak no TLS (pgcairn-wal): call it first
   in main. Elsewhere the system's policy is to be read. */
void libcrypto_skip_config(void);

/* clang-format off */
#define LIBCRYPTO_FUNCTIONS(FUNCTION) \
    FUNCTION(CRYPTO_memcmp) \
    FUNCTION(ERR_clear_error) \
    FUNCTION(ERR_error_string_n) \
    FUNCTION(ERR_get_error) \
    FUNCTION(EVP_CIPHER_CTX_ctrl) \
    FUNCTION(EVP_CIPHER_CTX_free) \
    FUNCTION(EVP_CIPHER_CTX_new) \
    FUNCTION(EVP_CIPHER_CTX_set_padding) \
    FUNCTION(EVP_CIPHER_fetch) \
    FUNCTION(EVP_CIPHER_free) \
    FUNCTION(EVP_DecodeBlock) \
    FUNCTION(EVP_DecryptFinal_ex) \
    FUNCTION(EVP_DecryptInit_ex2) \
    FUNCTION(EVP_DecryptUpdate) \
    FUNCTION(EVP_DigestFinal_ex) \
    FUNCTION(EVP_DigestInit_ex2) \
    FUNCTION(EVP_DigestUpdate) \
    FUNCTION(EVP_EncryptFinal_ex) \
    FUNCTION(EVP_EncryptInit_ex2) \
    FUNCTION(EVP_EncryptUpdate) \
    FUNCTION(EVP_KDF_CTX_free) \
    FUNCTION(EVP_KDF_CTX_new) \
    FUNCTION(EVP_KDF_derive) \
    FUNCTION(EVP_KDF_fetch) \
    FUNCTION(EVP_KDF_free) \
    FUNCTION(EVP_MD_CTX_free) \
    FUNCTION(EVP_MD_CTX_new) \
    FUNCTION(EVP_MD_fetch) \
    FUNCTION(EVP_MD_free) \
    FUNCTION(EVP_PKEY_CTX_free) \
    FUNCTION(EVP_PKEY_CTX_new_from_pkey) \
    FUNCTION(EVP_PKEY_derive) \
    FUNCTION(EVP_PKEY_derive_init) \
    FUNCTION(EVP_PKEY_derive_set_peer) \
    FUNCTION(EVP_PKEY_free) \
    FUNCTION(EVP_PKEY_get_raw_public_key) \
    FUNCTION(EVP_PKEY_new_raw_private_key_ex) \
    FUNCTION(EVP_PKEY_new_raw_public_key_ex) \
    FUNCTION(EVP_Q_mac) \
    FUNCTION(OPENSSL_cleanse) \
    FUNCTION(OPENSSL_init_crypto) \
    FUNCTION(OSSL_PARAM_construct_end) \
    FUNCTION(OSSL_PARAM_construct_octet_string) \
    FUNCTION(OSSL_PARAM_construct_uint32) \
    FUNCTION(OSSL_PARAM_construct_uint64) \
    FUNCTION(OSSL_PARAM_construct_utf8_string)
/* clang-format on */

typedef struct {
#define LIBCRYPTO_MEMBER(name) __typeof__(name) *name;
    LIBCRYPTO_FUNCTIONS(LIBCRYPTO_MEMBER)
#undef LIBCRYPTO_MEMBER
} Libcrypto;

const Libcrypto *libcrypto(void);

#define CRYPTO_memcmp(...) libcrypto()->CRYPTO_memcmp(__VA_ARGS__)
#define ERR_clear_error(...) libcrypto()->ERR_clear_error(__VA_ARGS__)
#define ERR_error_string_n(...) libcrypto()->ERR_error_string_n(__VA_ARGS__)
#define ERR_get_error(...) libcrypto()->ERR_get_error(__VA_ARGS__)
#define EVP_CIPHER_CTX_ctrl(...) libcrypto()->EVP_CIPHER_CTX_ctrl(__VA_ARGS__)
#define EVP_CIPHER_CTX_free(...) libcrypto()->EVP_CIPHER_CTX_free(__VA_ARGS__)
#define EVP_CIPHER_CTX_new(...) libcrypto()->EVP_CIPHER_CTX_new(__VA_ARGS__)
#define EVP_CIPHER_CTX_set_padding(...) libcrypto()->EVP_CIPHER_CTX_set_padding(__VA_ARGS__)
#define EVP_CIPHER_fetch(...) libcrypto()->EVP_CIPHER_fetch(__VA_ARGS__)
#define EVP_CIPHER_free(...) libcrypto()->EVP_CIPHER_free(__VA_ARGS__)
#define EVP_DecodeBlock(...) libcrypto()->EVP_DecodeBlock(__VA_ARGS__)
#define EVP_DecryptFinal_ex(...) libcrypto()->EVP_DecryptFinal_ex(__VA_ARGS__)
#define EVP_DecryptInit_ex2(...) libcrypto()->EVP_DecryptInit_ex2(__VA_ARGS__)
#define EVP_DecryptUpdate(...) libcrypto()->EVP_DecryptUpdate(__VA_ARGS__)
#define EVP_DigestFinal_ex(...) libcrypto()->EVP_DigestFinal_ex(__VA_ARGS__)
#define EVP_DigestInit_ex2(...) libcrypto()->EVP_DigestInit_ex2(__VA_ARGS__)
#define EVP_DigestUpdate(...) libcrypto()->EVP_DigestUpdate(__VA_ARGS__)
#define EVP_EncryptFinal_ex(...) libcrypto()->EVP_EncryptFinal_ex(__VA_ARGS__)
#define EVP_EncryptInit_ex2(...) libcrypto()->EVP_EncryptInit_ex2(__VA_ARGS__)
#define EVP_EncryptUpdate(...) libcrypto()->EVP_EncryptUpdate(__VA_ARGS__)
#define EVP_KDF_CTX_free(...) libcrypto()->EVP_KDF_CTX_free(__VA_ARGS__)
#define EVP_KDF_CTX_new(...) libcrypto()->EVP_KDF_CTX_new(__VA_ARGS__)
#define EVP_KDF_derive(...) libcrypto()->EVP_KDF_derive(__VA_ARGS__)
#define EVP_KDF_fetch(...) libcrypto()->EVP_KDF_fetch(__VA_ARGS__)
#define EVP_KDF_free(...) libcrypto()->EVP_KDF_free(__VA_ARGS__)
#define EVP_MD_CTX_free(...) libcrypto()->EVP_MD_CTX_free(__VA_ARGS__)
#define EVP_MD_CTX_new(...) libcrypto()->EVP_MD_CTX_new(__VA_ARGS__)
#define EVP_MD_fetch(...) libcrypto()->EVP_MD_fetch(__VA_ARGS__)
#define EVP_MD_free(...) libcrypto()->EVP_MD_free(__VA_ARGS__)
#define EVP_PKEY_CTX_free(...) libcrypto()->EVP_PKEY_CTX_free(__VA_ARGS__)
#define EVP_PKEY_CTX_new_from_pkey(...) libcrypto()->EVP_PKEY_CTX_new_from_pkey(__VA_ARGS__)
#define EVP_PKEY_derive(...) libcrypto()->EVP_PKEY_derive(__VA_ARGS__)
#define EVP_PKEY_derive_init(...) libcrypto()->EVP_PKEY_derive_init(__VA_ARGS__)
#define EVP_PKEY_derive_set_peer(...) libcrypto()->EVP_PKEY_derive_set_peer(__VA_ARGS__)
#define EVP_PKEY_free(...) libcrypto()->EVP_PKEY_free(__VA_ARGS__)
#define EVP_PKEY_get_raw_public_key(...) libcrypto()->EVP_PKEY_get_raw_public_key(__VA_ARGS__)
#define EVP_PKEY_new_raw_private_key_ex(...)                                                       \
    libcrypto()->EVP_PKEY_new_raw_private_key_ex(__VA_ARGS__)
#define EVP_PKEY_new_raw_public_key_ex(...) libcrypto()->EVP_PKEY_new_raw_public_key_ex(__VA_ARGS__)
#define EVP_Q_mac(...) libcrypto()->EVP_Q_mac(__VA_ARGS__)
#define OPENSSL_cleanse(...) libcrypto()->OPENSSL_cleanse(__VA_ARGS__)
#define OPENSSL_init_crypto(...) libcrypto()->OPENSSL_init_crypto(__VA_ARGS__)
#define OSSL_PARAM_construct_end(...) libcrypto()->OSSL_PARAM_construct_end(__VA_ARGS__)
#define OSSL_PARAM_construct_octet_string(...)                                                     \
    libcrypto()->OSSL_PARAM_construct_octet_string(__VA_ARGS__)
#define OSSL_PARAM_construct_uint32(...) libcrypto()->OSSL_PARAM_construct_uint32(__VA_ARGS__)
#define OSSL_PARAM_construct_uint64(...) libcrypto()->OSSL_PARAM_construct_uint64(__VA_ARGS__)
#define OSSL_PARAM_construct_utf8_string(...)                                                      \
    libcrypto()->OSSL_PARAM_construct_utf8_string(__VA_ARGS__)

#endif
