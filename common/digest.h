/*
 * Digests.
 *
 * crc32c          CRC-32C (Castagnoli) as PostgreSQL uses it; init and final xor are ours, so
 *                 crc32c(0, ...) chains: crc32c(crc32c(0, a), b) == crc32c(0, ab). SSE4.2 in three
 *                 interleaved lanes where the CPU has it, a table elsewhere.
 * crc32c_combine  CRC of ab from the CRCs of a and b and the length of b.
 * crc32c_combine_pages  the same, cheaply, for a row of pages (CRC32C_PAGE_SIZE bytes) behind it.
 * fnv1a           64-bit FNV-1a, to tell names apart where nobody gains by making them meet: costs
 *                 nothing to start.
 * Sha256          streaming SHA-256 (OpenSSL).
 * KeyedDigest     16-byte pseudo-random digest of a message: AES-256 under key 2 over the GMAC
 * under key 1 with an all-zero nonce (tags never leave in the clear, so the fixed nonce is sound;
 * GHASH binds the length). The page fingerprint is its first 8 bytes, WAL digests and map node
 * hashes take all 16. Algorithm id 1 in the format.
 * Keys            hkdf_sha256: RFC 5869, for every key we derive; hmac_sha256: RFC 2104.
 *
 * Errors: OpenSSL's failures are INTERNAL, its error queue is emptied into the message.
 * Threads: one object, one thread; crc32c and hkdf from any.
 */
#ifndef PGCAIRN_COMMON_DIGEST_H
#define PGCAIRN_COMMON_DIGEST_H

#include "common/error.h"
#include "common/scoped.h"

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *data, size_t size);
/* By table on any machine: what crc32c does without SSE4.2, for tests. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);
uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b);
enum { CRC32C_PAGE_SIZE = 8192 };
uint32_t crc32c_combine_pages(uint32_t crc, const uint32_t *page_crcs, size_t count);

uint64_t fnv1a(const void *data, size_t size);

enum { SHA256_SIZE = 32, KEYED_DIGEST_SIZE = 16, FINGERPRINT_SIZE = 8, KEY_SIZE = 32 };
enum { FINGERPRINT_ALGORITHM_GMAC_AES = 1 };

typedef struct Sha256 Sha256;
Sha256 *sha256_new(CairnError *err) MUST_CHECK;
void sha256_free(Sha256 *sha);
bool sha256_update(Sha256 *sha, const void *data, size_t size, CairnError *err) MUST_CHECK;
/* Writes the digest and starts over. */
bool sha256_finish(Sha256 *sha, uint8_t digest_out[SHA256_SIZE], CairnError *err) MUST_CHECK;
SCOPED_TYPE(Sha256, sha256_free);

bool sha256_of(const void *data, size_t size, uint8_t digest_out[SHA256_SIZE],
               CairnError *err) MUST_CHECK;

typedef struct KeyedDigest KeyedDigest;
/* Both AES keys are derived from key by HKDF with labels "<purpose>/gmac" and "<purpose>/aes". */
KeyedDigest *keyed_digest_new(const uint8_t key[KEY_SIZE], const char *purpose,
                              CairnError *err) MUST_CHECK;
void keyed_digest_free(KeyedDigest *digest);
/* One whole message. */
bool keyed_digest_of(KeyedDigest *digest, const void *data, size_t size,
                     uint8_t digest_out[KEYED_DIGEST_SIZE], CairnError *err) MUST_CHECK;
/* The same in pieces: begin, update..., finish. */
bool keyed_digest_begin(KeyedDigest *digest, CairnError *err) MUST_CHECK;
bool keyed_digest_update(KeyedDigest *digest, const void *data, size_t size,
                         CairnError *err) MUST_CHECK;
bool keyed_digest_finish(KeyedDigest *digest, uint8_t digest_out[KEYED_DIGEST_SIZE],
                         CairnError *err) MUST_CHECK;
SCOPED_TYPE(KeyedDigest, keyed_digest_free);

bool hkdf_sha256(const uint8_t key[KEY_SIZE], const void *salt, size_t salt_size, const char *info,
                 uint8_t *out, size_t out_size, CairnError *err) MUST_CHECK;
/* The same with key and info of any bytes. */
typedef struct {
    const void *key;
    size_t key_size;
    const void *salt;
    size_t salt_size;
    const void *info;
    size_t info_size;
} HkdfInput;
bool hkdf_sha256_of(const HkdfInput *input, uint8_t *out, size_t out_size,
                    CairnError *err) MUST_CHECK;

bool hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
                 uint8_t mac_out[SHA256_SIZE], CairnError *err) MUST_CHECK;

#endif
