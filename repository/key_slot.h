/*
 * One slot: the roots of a repository, wrapped under something that a person or a host has
 * (docs/format.md, "Key (2)").
 *
 * What: `keys/<name>`, created once and never changed. Everything in it is authenticated, together
 * with the repository's id and the slot's name, so that a slot counts nowhere else. A commitment
 * tells a wrong key from damage.
 *
 * Errors of opening: DENIED "wrong key", and no word more; CORRUPT for damage; UNSUPPORTED for what
 * another version made and for costs beyond the limits. Secrets are wiped. Threads: any.
 */
#ifndef PGCAIRN_REPOSITORY_KEY_SLOT_H
#define PGCAIRN_REPOSITORY_KEY_SLOT_H

#include "common/stretch.h"
#include "common/timestamp.h"
#include "repository/keyring.h"
#include "repository/repository.h"

typedef enum { SLOT_PASSPHRASE, SLOT_KEY_FILE, SLOT_RECIPIENT } KeySlotType;

enum { KEY_SLOT_NAME_LIMIT = 64, KEY_ROOTS_SIZE = 72, KEY_SLOT_WRAPPED_SIZE = KEY_ROOTS_SIZE + 16 };

/* What a slot is for. */
typedef struct {
    KeyMode mode;   /* EPOCH: both roots; SEALED: the metadata root alone */
    uint16_t epoch; /* what new objects were written under when the slot was made */
    uint8_t meta_root[KEY_SIZE];
    uint8_t data_root[KEY_SIZE]; /* zeros in sealed mode */
} KeyRoots;
void key_roots_wipe(KeyRoots *roots);

/* What opens a slot, or makes one. Borrowed. */
typedef struct {
    KeySlotType type;
    const uint8_t *data; /* passphrase; KEY_SIZE bytes of a key; or of a private key */
    size_t size;
} SlotSecret;

typedef struct {
    char name[KEY_SLOT_NAME_LIMIT + 1];
    KeySlotType type;
    KeyMode mode;
    char created[TIMESTAMP_TEXT_SIZE];
    uint8_t salt[KEYRING_SALT_SIZE];
    StretchCost cost;             /* of a passphrase */
    uint8_t public_key[KEY_SIZE]; /* of a recipient */
    uint8_t ephemeral[KEY_SIZE];  /* public */
    uint8_t commitment[KEY_SIZE];
    uint8_t wrapped[KEY_SLOT_WRAPPED_SIZE];
    bool has_mac; /* false: made before slots had one, or not by us */
    uint8_t mac[SHA256_SIZE];
} KeySlot;

/* Letters, digits, '_' and '-': a dot belongs to what stands beside the slots. */
bool key_slot_name_valid(const char *name);
const char *key_slot_type_name(KeySlotType type); /* "passphrase", "key-file", "recipient" */

/* What a new slot is made of. secret: for a recipient its public key. */
typedef struct {
    const char *name;
    SlotSecret secret;
    StretchCost cost; /* of a passphrase */
} KeySlotPlan;
/* Durable. CONFLICT when the name is taken. */
bool key_slot_create(Repository *repository, const KeySlotPlan *plan, const KeyRoots *roots,
                     CairnError *err) MUST_CHECK;
/* The same slot again, as it was read before it was removed. */
bool key_slot_put_back(Repository *repository, const KeySlot *slot, CairnError *err) MUST_CHECK;

/* Read and checked, not opened. */
bool key_slot_read(Repository *repository, const char *name, KeySlot *slot_out,
                   CairnError *err) MUST_CHECK;
/* Could this open it at all: right type, and for a recipient the right public key? */
bool key_slot_suits(const KeySlot *slot, const SlotSecret *secret);
/* Whether a holder of the repository's key made it, as far as the metadata root tells without the
   slot's own secret. Anybody who can write to the storage can make a slot that looks right and
   opens nothing. */
typedef enum {
    SLOT_GENUINE,
    SLOT_UNPROVEN, /* it says nothing to prove it by */
    SLOT_FORGED,
} SlotProof;
bool key_slot_prove(const KeySlot *slot, const uint8_t *repository_id, const uint8_t *meta_root,
                    SlotProof *proof_out, CairnError *err) MUST_CHECK;
bool key_slot_open(const KeySlot *slot, const uint8_t *repository_id, const SlotSecret *secret,
                   KeyRoots *roots_out, CairnError *err) MUST_CHECK;

#endif
