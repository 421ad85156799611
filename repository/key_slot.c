#include "repository/key_slot.h"

#include "codec/aead.h"
#include "codec/seal.h"
#include "common/libcrypto.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    ROOTS_LAYOUT = 1,
    ABOUT_SIZE = 768,
    PROVEN_SIZE = ABOUT_SIZE + 2 * KEY_SIZE + 2 * KEY_SLOT_WRAPPED_SIZE + 3,

    /* Wrapped roots (docs/format.md). */
    AT_LAYOUT = 0,
    AT_MODE = 1,
    AT_EPOCH = 2,
    AT_META_ROOT = 8,
    AT_DATA_ROOT = 40,
};

#define MAC_KEY_INFO "pgcairn1 key slots"

static const char *const type_names[] = {
    [SLOT_PASSPHRASE] = "passphrase", [SLOT_KEY_FILE] = "key-file", [SLOT_RECIPIENT] = "recipient"};
enum { TYPE_COUNT = sizeof type_names / sizeof type_names[0] };

static const char *const mode_names[] = {[KEY_MODE_EPOCH] = "keys", [KEY_MODE_SEALED] = "sealed"};

/* Keys of one slot: what its secret becomes. */
typedef struct {
    uint8_t wrap[KEY_SIZE];
    uint8_t commit[KEY_SIZE];
} SlotKeys;

void
key_roots_wipe(KeyRoots *roots)
{
    OPENSSL_cleanse(roots, sizeof *roots);
}

bool
key_slot_name_valid(const char *name)
{
    return cluster_name_valid(name);
}

const char *
key_slot_type_name(KeySlotType type)
{
    return type_names[type];
}

static void
object_name(char name_out[STORAGE_NAME_LIMIT], const char *slot)
{
    snprintf(name_out, STORAGE_NAME_LIMIT, "keys/%s", slot);
}

/* -- cryptography */

/* All that a slot says, as it is authenticated. */
static size_t
describe(const KeySlot *slot, const uint8_t *repository_id, char about[ABOUT_SIZE])
{
    char id[2 * REPOSITORY_ID_SIZE + 1], salt[2 * KEYRING_SALT_SIZE + 1];
    char public_key[2 * KEY_SIZE + 1], ephemeral[2 * KEY_SIZE + 1];
    hex_encode(id, repository_id, REPOSITORY_ID_SIZE);
    hex_encode(salt, slot->salt, sizeof slot->salt);
    hex_encode(public_key, slot->public_key, KEY_SIZE);
    hex_encode(ephemeral, slot->ephemeral, KEY_SIZE);
    const int size = snprintf(
        about, ABOUT_SIZE,
        "pgcairn1 slot\n%s\n%s\n%s\n%s\n%s\n%s\n%" PRIu64 " %" PRIu32 " %" PRIu32 "\n%s\n%s\n", id,
        slot->name, type_names[slot->type], mode_names[slot->mode], slot->created, salt,
        slot->cost.n, slot->cost.r, slot->cost.p, public_key, ephemeral);
    CAIRN_ASSERT(size > 0 && size < ABOUT_SIZE);
    return (size_t)size;
}

/* From 32 good bytes to the slot's keys. For a recipient both public keys go in as well. */
static bool
expand(const KeySlot *slot, const uint8_t input[KEY_SIZE], SlotKeys *keys_out, CairnError *err)
{
    uint8_t salt[KEYRING_SALT_SIZE + KEY_SIZE + KEY_SIZE];
    size_t salt_size = KEYRING_SALT_SIZE;
    memcpy(salt, slot->salt, KEYRING_SALT_SIZE);
    if (slot->type == SLOT_RECIPIENT) {
        memcpy(salt + salt_size, slot->ephemeral, KEY_SIZE);
        memcpy(salt + salt_size + KEY_SIZE, slot->public_key, KEY_SIZE);
        salt_size = sizeof salt;
    }
    return hkdf_sha256(input, salt, salt_size, "pgcairn1 slot", (uint8_t *)keys_out,
                       sizeof *keys_out, err);
}

/* For a recipient, private_key is one of the two and public_key that of the other side. */
static bool
derive(const KeySlot *slot, const SlotSecret *secret, const uint8_t *private_key,
       const uint8_t *public_key, SlotKeys *keys_out, CairnError *err)
{
    uint8_t input[KEY_SIZE] = {0};
    bool derived = true;
    switch (slot->type) {
    case SLOT_PASSPHRASE:
        derived = stretch_passphrase(secret->data, secret->size, slot->salt, sizeof slot->salt,
                                     &slot->cost, input, err);
        break;
    case SLOT_KEY_FILE:
        CAIRN_ASSERT(secret->size == KEY_SIZE);
        memcpy(input, secret->data, KEY_SIZE);
        break;
    case SLOT_RECIPIENT:
        derived = seal_shared_secret(private_key, public_key, input, err);
        break;
    }
    derived = derived && expand(slot, input, keys_out, err);
    OPENSSL_cleanse(input, sizeof input);
    return derived;
}

static void
pack_roots(const KeyRoots *roots, uint8_t packed[KEY_ROOTS_SIZE])
{
    memset(packed, 0, KEY_ROOTS_SIZE);
    packed[AT_LAYOUT] = ROOTS_LAYOUT;
    packed[AT_MODE] = (uint8_t)roots->mode;
    put_u16(packed + AT_EPOCH, roots->epoch);
    memcpy(packed + AT_META_ROOT, roots->meta_root, KEY_SIZE);
    if (roots->mode == KEY_MODE_EPOCH)
        memcpy(packed + AT_DATA_ROOT, roots->data_root, KEY_SIZE);
}

static bool
unpack_roots(const KeySlot *slot, const uint8_t packed[KEY_ROOTS_SIZE], KeyRoots *roots_out,
             CairnError *err)
{
    if (packed[AT_LAYOUT] != ROOTS_LAYOUT || packed[AT_MODE] != (uint8_t)slot->mode) {
        cairn_error(err, CAIRN_UNSUPPORTED, "key slot '%s' was made by another version",
                    slot->name);
        return cairn_error_hint(err, "use the pgcairn that made it, or a newer one");
    }
    roots_out->mode = slot->mode;
    roots_out->epoch = get_u16(packed + AT_EPOCH);
    memcpy(roots_out->meta_root, packed + AT_META_ROOT, KEY_SIZE);
    memcpy(roots_out->data_root, packed + AT_DATA_ROOT, KEY_SIZE);
    return true;
}

static bool
wrap(KeySlot *slot, const uint8_t *repository_id, const SlotKeys *keys, const KeyRoots *roots,
     CairnError *err)
{
    char about[ABOUT_SIZE];
    uint8_t packed[KEY_ROOTS_SIZE];
    const size_t about_size = describe(slot, repository_id, about);
    const AeadSeal seal = {.key = keys->wrap, .associated = about, .associated_size = about_size};
    SCOPED(Aead) aead = aead_new(err);
    if (aead == NULL)
        return false;
    pack_roots(roots, packed);
    const bool wrapped =
        hmac_sha256(keys->commit, KEY_SIZE, about, about_size, slot->commitment, err) &&
        aead_seal(aead, &seal, packed, sizeof packed, slot->wrapped, err);
    OPENSSL_cleanse(packed, sizeof packed);
    return wrapped;
}

static bool
unwrap(const KeySlot *slot, const uint8_t *repository_id, const SlotKeys *keys, KeyRoots *roots_out,
       CairnError *err)
{
    char about[ABOUT_SIZE];
    uint8_t commitment[SHA256_SIZE], packed[KEY_ROOTS_SIZE];
    const size_t about_size = describe(slot, repository_id, about);
    if (!hmac_sha256(keys->commit, KEY_SIZE, about, about_size, commitment, err))
        return false;
    if (CRYPTO_memcmp(commitment, slot->commitment, sizeof commitment) != 0)
        return cairn_error(err, CAIRN_DENIED, "wrong key");
    const AeadSeal seal = {.key = keys->wrap, .associated = about, .associated_size = about_size};
    SCOPED(Aead) aead = aead_new(err);
    if (aead == NULL)
        return false;
    const bool opened = aead_open(aead, &seal, slot->wrapped, sizeof slot->wrapped, packed, err) &&
                        unpack_roots(slot, packed, roots_out, err);
    OPENSSL_cleanse(packed, sizeof packed);
    if (!opened && err->kind == CAIRN_CORRUPT)
        return cairn_error_wrap(err, "key slot '%s' is damaged", slot->name);
    return opened;
}

/* All of the slot, under the metadata root: so that whoever holds one key can tell the others'
   slots from those that somebody else put there. */
static bool
mac_of(const KeySlot *slot, const uint8_t *repository_id, const uint8_t *meta_root,
       uint8_t mac_out[SHA256_SIZE], CairnError *err)
{
    char proven[PROVEN_SIZE];
    char commitment[2 * KEY_SIZE + 1], wrapped[2 * KEY_SLOT_WRAPPED_SIZE + 1];
    uint8_t key[KEY_SIZE];
    size_t size = describe(slot, repository_id, proven);
    hex_encode(commitment, slot->commitment, sizeof slot->commitment);
    hex_encode(wrapped, slot->wrapped, sizeof slot->wrapped);
    size += (size_t)snprintf(proven + size, sizeof proven - size, "%s\n%s\n", commitment, wrapped);
    CAIRN_ASSERT(size < sizeof proven);
    const bool done = hkdf_sha256(meta_root, repository_id, REPOSITORY_ID_SIZE, MAC_KEY_INFO, key,
                                  sizeof key, err) &&
                      hmac_sha256(key, sizeof key, proven, size, mac_out, err);
    OPENSSL_cleanse(key, sizeof key);
    return done;
}

bool
key_slot_prove(const KeySlot *slot, const uint8_t *repository_id, const uint8_t *meta_root,
               SlotProof *proof_out, CairnError *err)
{
    uint8_t mac[SHA256_SIZE];
    *proof_out = SLOT_UNPROVEN;
    if (!slot->has_mac)
        return true;
    if (!mac_of(slot, repository_id, meta_root, mac, err))
        return false;
    *proof_out = CRYPTO_memcmp(mac, slot->mac, sizeof mac) == 0 ? SLOT_GENUINE : SLOT_FORGED;
    return true;
}

/* -- the object */

static bool
put(Repository *repository, const KeySlot *slot, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    object_name(name, slot->name);
    SCOPED_JSON json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "slot", slot->name, "type",
                  type_names[slot->type], "mode", mode_names[slot->mode], "created_at",
                  slot->created, "salt", json_hex(slot->salt, sizeof slot->salt), "commitment",
                  json_hex(slot->commitment, sizeof slot->commitment), "wrapped",
                  json_hex(slot->wrapped, sizeof slot->wrapped));
    if (json != NULL && slot->type == SLOT_PASSPHRASE)
        json_object_set_new(json, "scrypt",
                            json_pack("{s:I, s:I, s:I}", "n", (json_int_t)slot->cost.n, "r",
                                      (json_int_t)slot->cost.r, "p", (json_int_t)slot->cost.p));
    if (json != NULL && slot->has_mac)
        json_object_set_new(json, "mac", json_hex(slot->mac, sizeof slot->mac));
    if (json != NULL && slot->type == SLOT_RECIPIENT) {
        json_object_set_new(json, "public_key", json_hex(slot->public_key, KEY_SIZE));
        json_object_set_new(json, "ephemeral", json_hex(slot->ephemeral, KEY_SIZE));
    }
    return json_put(repository, name, OBJECT_KEY, 0, json, NULL, err);
}

static bool
draw(const World *world, uint8_t *bytes, size_t size, CairnError *err)
{
    if (world->random->fill(world->random, bytes, size) != 0)
        return cairn_error_errno(err, "unable to draw random bytes");
    return true;
}

/* Salt, and for a recipient a key pair that is forgotten when the slot is made. */
static bool
make_keys(const World *world, KeySlot *slot, const SlotSecret *secret, SlotKeys *keys_out,
          CairnError *err)
{
    uint8_t ephemeral_private[KEY_SIZE] = {0};
    bool made = draw(world, slot->salt, sizeof slot->salt, err);
    if (made && slot->type == SLOT_RECIPIENT)
        made = draw(world, ephemeral_private, sizeof ephemeral_private, err) &&
               seal_public_key(ephemeral_private, slot->ephemeral, err);
    made = made && derive(slot, secret, ephemeral_private, slot->public_key, keys_out, err);
    OPENSSL_cleanse(ephemeral_private, sizeof ephemeral_private);
    return made;
}

bool
key_slot_create(Repository *repository, const KeySlotPlan *plan, const KeyRoots *roots,
                CairnError *err)
{
    const World *world = repository_world(repository);
    KeySlot slot = {.type = plan->secret.type, .mode = roots->mode};
    SlotKeys keys;
    CAIRN_ASSERT(key_slot_name_valid(plan->name));
    snprintf(slot.name, sizeof slot.name, "%s", plan->name);
    timestamp_format(slot.created, world->clock->wall_us(world->clock));
    if (slot.type == SLOT_PASSPHRASE)
        slot.cost = plan->cost;
    if (slot.type == SLOT_RECIPIENT)
        memcpy(slot.public_key, plan->secret.data, KEY_SIZE);

    slot.has_mac = true;
    const uint8_t *id = repository_id(repository);
    const bool made =
        make_keys(world, &slot, &plan->secret, &keys, err) && wrap(&slot, id, &keys, roots, err) &&
        mac_of(&slot, id, roots->meta_root, slot.mac, err) && put(repository, &slot, err);
    OPENSSL_cleanse(&keys, sizeof keys);
    return made ? true : cairn_error_wrap(err, "unable to make key slot '%s'", plan->name);
}

bool
key_slot_put_back(Repository *repository, const KeySlot *slot, CairnError *err)
{
    return put(repository, slot, err);
}

static size_t
read_choice(JsonReader *fields, const char *field, const char *const *names, size_t count)
{
    const char *text = json_read_text(fields, field);
    for (size_t i = 0; i < count && !fields->failed; i++) {
        if (names[i] != NULL && strcmp(names[i], text) == 0)
            return i;
    }
    json_reader_fail(fields, field);
    return 0;
}

static void
read_cost(JsonReader *fields, StretchCost *cost_out)
{
    JsonReader cost = json_read_object(fields, "scrypt");
    cost_out->n = (uint64_t)json_read_integer(&cost, "n", 2, INT64_MAX);
    cost_out->r = (uint32_t)json_read_integer(&cost, "r", 1, INT32_MAX);
    cost_out->p = (uint32_t)json_read_integer(&cost, "p", 1, INT32_MAX);
    json_reader_join(fields, &cost);
}

bool
key_slot_read(Repository *repository, const char *name, KeySlot *slot_out, CairnError *err)
{
    char object[STORAGE_NAME_LIMIT];
    object_name(object, name);
    SCOPED_JSON json_t *json = json_get(repository, object, OBJECT_KEY, NULL, err);
    if (json == NULL)
        return false;

    KeySlot slot = {0};
    JsonReader fields = json_reader(json, object, err);
    const char *said = json_read_text(&fields, "slot");
    const char *created = json_read_text(&fields, "created_at");
    json_read_time(&fields, "created_at");
    if (!fields.failed && (strcmp(said, name) != 0 || !key_slot_name_valid(said)))
        json_reader_fail(&fields, "slot");
    if (!fields.failed && strlen(created) >= sizeof slot.created)
        json_reader_fail(&fields, "created_at");
    snprintf(slot.name, sizeof slot.name, "%s", name);
    snprintf(slot.created, sizeof slot.created, "%s", created);
    slot.type = (KeySlotType)read_choice(&fields, "type", type_names, TYPE_COUNT);
    slot.mode =
        (KeyMode)read_choice(&fields, "mode", mode_names, sizeof mode_names / sizeof mode_names[0]);
    json_read_hex(&fields, "salt", slot.salt, sizeof slot.salt);
    json_read_hex(&fields, "commitment", slot.commitment, sizeof slot.commitment);
    json_read_hex(&fields, "wrapped", slot.wrapped, sizeof slot.wrapped);
    if (slot.type == SLOT_PASSPHRASE)
        read_cost(&fields, &slot.cost);
    if (slot.type == SLOT_RECIPIENT) {
        json_read_hex(&fields, "public_key", slot.public_key, KEY_SIZE);
        json_read_hex(&fields, "ephemeral", slot.ephemeral, KEY_SIZE);
    }
    slot.has_mac = json_read_text_or_null(&fields, "mac") != NULL;
    if (slot.has_mac)
        json_read_hex(&fields, "mac", slot.mac, sizeof slot.mac);
    if (fields.failed)
        return false;
    *slot_out = slot;
    return true;
}

bool
key_slot_suits(const KeySlot *slot, const SlotSecret *secret)
{
    uint8_t public_key[KEY_SIZE];
    CairnError ignored = {0}; /* a key that has no public one suits no slot */
    if (slot->type != secret->type)
        return false;
    return slot->type != SLOT_RECIPIENT || (seal_public_key(secret->data, public_key, &ignored) &&
                                            memcmp(public_key, slot->public_key, KEY_SIZE) == 0);
}

bool
key_slot_open(const KeySlot *slot, const uint8_t *repository_id, const SlotSecret *secret,
              KeyRoots *roots_out, CairnError *err)
{
    SlotKeys keys;
    KeyRoots roots = {0};
    CAIRN_ASSERT(slot->type == secret->type);
    const bool opened = derive(slot, secret, secret->data, slot->ephemeral, &keys, err) &&
                        unwrap(slot, repository_id, &keys, &roots, err);
    OPENSSL_cleanse(&keys, sizeof keys);
    if (opened)
        *roots_out = roots;
    key_roots_wipe(&roots);
    return opened;
}
