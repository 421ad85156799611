/*
 * Keys sealed to the holder of an X25519 private key: what a host can make and not open again.
 *
 * Wrapping: shared = X25519(ephemeral private, recipient), wrap key = HKDF-SHA-256(shared, salt,
 * context ‖ ephemeral public ‖ recipient public); the key is one block of AES-256-GCM under it
 * (section and counter 0: a wrap key is used once, since ephemeral key and salt are).
 *
 * Errors: CORRUPT for a wrapped key that does not open (another recipient's, or changed) and for
 * public keys whose shared secret is zero, which only an enemy sends; INTERNAL for OpenSSL's.
 * Secrets are wiped. Threads: any.
 *
 * Source: RFC 7748, RFC 5869.
 */
#ifndef PGCAIRN_CODEC_SEAL_H
#define PGCAIRN_CODEC_SEAL_H

#include "codec/aead.h"
#include "common/digest.h"
#include "common/error.h"

#include <stdint.h>

enum { SEAL_WRAPPED_SIZE = KEY_SIZE + AEAD_TAG_SIZE };

/* The public key of a private one. */
bool seal_public_key(const uint8_t private_key[KEY_SIZE], uint8_t public_out[KEY_SIZE],
                     CairnError *err) MUST_CHECK;
/* X25519; CORRUPT when it is zero. */
bool seal_shared_secret(const uint8_t private_key[KEY_SIZE], const uint8_t public_key[KEY_SIZE],
                        uint8_t shared_out[KEY_SIZE], CairnError *err) MUST_CHECK;

/* Whose wrapping it is; all borrowed for the call. */
typedef struct {
    const uint8_t *ephemeral; /* public, KEY_SIZE bytes */
    const uint8_t *recipient; /* public, KEY_SIZE bytes */
    const void *salt;
    size_t salt_size;
    const void *context;
    size_t context_size;
} SealTo;

/* ephemeral_private: of to->ephemeral. */
bool seal_wrap(const SealTo *to, const uint8_t ephemeral_private[KEY_SIZE],
               const uint8_t key[KEY_SIZE], uint8_t wrapped_out[SEAL_WRAPPED_SIZE],
               CairnError *err) MUST_CHECK;
/* recipient_private: of to->recipient. */
bool seal_unwrap(const SealTo *to, const uint8_t recipient_private[KEY_SIZE],
                 const uint8_t wrapped[SEAL_WRAPPED_SIZE], uint8_t key_out[KEY_SIZE],
                 CairnError *err) MUST_CHECK;

#endif
