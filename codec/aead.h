/*
 * AES-256-GCM: blocks that only the holder of a key can read, and nobody else can change.
 *
 * Units: a sealed block is its plain bytes' size and AEAD_TAG_SIZE more, the tag last. The nonce is
 * the section (4 bytes, little-endian) and the counter (8 bytes); it is the caller's promise that
 * no two blocks under one key have the same. Ownership: keys are copied in and wiped. Errors:
 * CORRUPT for a block that was changed, moved or made under another key (nothing of it is given
 * out); INTERNAL for OpenSSL's. Threads: one Aead, one thread.
 *
 * Source of the format: NIST SP 800-38D; docs/format.md, "Encryption".
 */
#ifndef PGCAIRN_CODEC_AEAD_H
#define PGCAIRN_CODEC_AEAD_H

#include "common/digest.h"
#include "common/error.h"
#include "common/scoped.h"

#include <stdint.h>

enum { AEAD_TAG_SIZE = 16, AEAD_NONCE_SIZE = 12 };

/* What a block is sealed under; all borrowed for the call. */
typedef struct {
    const uint8_t *key; /* KEY_SIZE bytes */
    uint32_t section;
    uint64_t counter;
    const void *associated; /* authenticated with the block, not stored in it */
    size_t associated_size;
} AeadSeal;

typedef struct Aead Aead;
Aead *aead_new(CairnError *err) MUST_CHECK;
void aead_free(Aead *aead);
SCOPED_TYPE(Aead, aead_free);

/* sealed: size + AEAD_TAG_SIZE bytes; it may begin where plain does. */
bool aead_seal(Aead *aead, const AeadSeal *seal, const void *plain, size_t size, void *sealed,
               CairnError *err) MUST_CHECK;
/* plain: sealed_size - AEAD_TAG_SIZE bytes, zeros after a failure; it may begin where sealed does.
 */
bool aead_open(Aead *aead, const AeadSeal *seal, const void *sealed, size_t sealed_size,
               void *plain, CairnError *err) MUST_CHECK;

/* For tests: sees every block that any thread seals, until it is set to NULL again. */
typedef void AeadObserver(void *context, const AeadSeal *seal);
void aead_observe(AeadObserver *observer, void *context);

#endif
