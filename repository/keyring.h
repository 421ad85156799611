/*
 * The keys of one open repository, as far as this host holds them (docs/format.md, "Keys").
 *
 * Two roots of 32 random bytes. The metadata root gives the keys of everything that a database host
 * must read again: indexes, maps, small objects, digests. The data root gives the keys of pages and
 * WAL; in sealed mode there is none: each object's data key is random and wrapped to the X25519
 * public keys of its recipients, in stanzas behind the object's header.
 *
 * Every object has keys of its own (HKDF over its salt, kind, repository id and object id), so a
 * place in it is a nonce that is used once.
 *
 * Errors: DENIED where a key is not held here; CORRUPT for stanzas that are none; MISMATCH for a
 * key mode that the repository does not use; INTERNAL for OpenSSL's. Threads: read-only once made.
 * Ownership: keys are copied in and wiped by free.
 */
#ifndef PGCAIRN_REPOSITORY_KEYRING_H
#define PGCAIRN_REPOSITORY_KEYRING_H

#include "common/bytes.h"
#include "common/digest.h"
#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"

#include <stdint.h>

/* Stored in headers: never renumber. */
typedef enum {
    KEY_MODE_NONE = 0,
    KEY_MODE_EPOCH = 1,  /* the body is under the data root's key of an epoch */
    KEY_MODE_SEALED = 2, /* under a key that only recipients can open */
    KEY_MODE_META = 3,   /* under the metadata root's, as indexes always are; no keyring's mode */
} KeyMode;

enum { KEYRING_RECIPIENT_LIMIT = 16, KEYRING_SALT_SIZE = 32, KEYRING_ID_SIZE = 16 };

typedef struct {
    KeyMode mode;                          /* what data is written under: EPOCH or SEALED */
    uint16_t epoch;                        /* what new objects are written under; all can be read */
    const uint8_t *meta_root;              /* KEY_SIZE bytes */
    const uint8_t *data_root;              /* KEY_SIZE bytes; NULL in sealed mode */
    const uint8_t (*recipients)[KEY_SIZE]; /* sealed: X25519 public keys */
    size_t recipient_count;
    const uint8_t *private_key; /* sealed: X25519, of one recipient; NULL: pages cannot be read */
} KeyringParts;

typedef struct Keyring Keyring;
Keyring *keyring_new(const KeyringParts *parts, CairnError *err) MUST_CHECK;
void keyring_free(Keyring *keyring);
SCOPED_TYPE(Keyring, keyring_free);

KeyMode keyring_mode(const Keyring *keyring);
uint16_t keyring_epoch(const Keyring *keyring);
/* False on a sealed host without a private key. */
bool keyring_reads_data(const Keyring *keyring);
/* Whether what this keyring's holder writes can be read with the private key of this public one. */
bool keyring_seals_to(const Keyring *keyring, const uint8_t public_key[KEY_SIZE]);
/* The root that digests and fingerprints are derived from (KEY_SIZE bytes, borrowed). */
const uint8_t *keyring_meta_root(const Keyring *keyring);

/* What makes an object's keys its own: fields of its header. */
typedef struct {
    uint16_t kind;
    KeyMode mode;
    uint16_t epoch;
    uint8_t repository_id[KEYRING_ID_SIZE];
    uint8_t object_id[KEYRING_ID_SIZE];
    uint8_t salt[KEYRING_SALT_SIZE];
} ObjectKeyInfo;

typedef struct {
    uint8_t commit[KEY_SIZE]; /* HMAC key of the header's commitment */
    uint8_t index[KEY_SIZE];
    uint8_t body[KEY_SIZE];
    bool has_body; /* false: only a recipient can have it */
} ObjectKeys;

/* Keys for an object that is about to be written. The caller fills kind, ids and a fresh salt; mode
   and epoch are set from the ring. is_meta: every host must be able to read its body again.
   stanzas: appended to where the mode becomes KEY_MODE_SEALED. */
bool keyring_make_object_keys(const Keyring *keyring, const World *world, bool is_meta,
                              ObjectKeyInfo *info, ByteWriter *stanzas, ObjectKeys *keys_out,
                              CairnError *err) MUST_CHECK;
/* Keys of a stored object, a sealed body's excepted. MISMATCH for a mode that this repository does
   not write. */
bool keyring_find_object_keys(const Keyring *keyring, const ObjectKeyInfo *info,
                              ObjectKeys *keys_out, CairnError *err) MUST_CHECK;
/* Adds the body's key out of the stanzas, which the commitment proved to be as they were written.
   has_body stays false, and no error, where no stanza is for a private key in the ring. */
bool keyring_unseal_object_key(const Keyring *keyring, const ObjectKeyInfo *info,
                               const void *stanzas, size_t stanzas_size, ObjectKeys *keys,
                               CairnError *err) MUST_CHECK;
/* CORRUPT unless these bytes are stanzas, by their own checksum; needs no key. */
bool keyring_check_stanzas(const void *stanzas, size_t stanzas_size, CairnError *err) MUST_CHECK;
void object_keys_wipe(ObjectKeys *keys);

#endif
