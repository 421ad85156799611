#include "repository/keyring.h"

#include "codec/seal.h"
#include "common/libcrypto.h"

#include <inttypes.h>
#include <string.h>

#define OBJECT_INFO "pgcairn1"
#define META_EPOCH_INFO "pgcairn1 meta epoch"
#define DATA_EPOCH_INFO "pgcairn1 data epoch"

/* Stanzas (docs/format.md): type, count, ephemeral public key, recipients, CRC-32C. */
enum {
    STANZAS_X25519 = 1,
    STANZAS_HEAD_SIZE = 2 + 2 + KEY_SIZE,
    STANZA_SIZE = KEY_SIZE + SEAL_WRAPPED_SIZE,
    STANZAS_CRC_SIZE = 4,
};

struct Keyring {
    KeyMode mode;
    uint16_t epoch;
    bool has_data_root;
    bool has_private_key;
    uint8_t meta_root[KEY_SIZE];
    uint8_t data_root[KEY_SIZE];
    uint8_t private_key[KEY_SIZE];
    uint8_t public_key[KEY_SIZE]; /* of the private one */
    size_t recipient_count;
    uint8_t recipients[KEYRING_RECIPIENT_LIMIT][KEY_SIZE];
};

void
keyring_free(Keyring *keyring)
{
    if (keyring == NULL)
        return;
    OPENSSL_cleanse(keyring, sizeof *keyring);
    free(keyring);
}

void
object_keys_wipe(ObjectKeys *keys)
{
    OPENSSL_cleanse(keys, sizeof *keys);
}

static bool
check_parts(const KeyringParts *parts, CairnError *err)
{
    const bool sealed = parts->mode == KEY_MODE_SEALED;
    CAIRN_ASSERT(parts->meta_root != NULL);
    CAIRN_ASSERT(sealed || (parts->mode == KEY_MODE_EPOCH && parts->data_root != NULL));
    CAIRN_ASSERT(!sealed || parts->data_root == NULL);
    if (sealed && parts->recipient_count == 0)
        return cairn_error(err, CAIRN_USAGE, "sealed encryption needs a recipient");
    if (parts->recipient_count > KEYRING_RECIPIENT_LIMIT) {
        return cairn_error(err, CAIRN_USAGE, "%zu recipients, at most %d are possible",
                           parts->recipient_count, KEYRING_RECIPIENT_LIMIT);
    }
    return true;
}

Keyring *
keyring_new(const KeyringParts *parts, CairnError *err)
{
    if (!check_parts(parts, err))
        return NULL;
    SCOPED(Keyring) keyring = calloc(1, sizeof *keyring);
    if (keyring == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    keyring->mode = parts->mode;
    keyring->epoch = parts->epoch;
    memcpy(keyring->meta_root, parts->meta_root, KEY_SIZE);
    keyring->has_data_root = parts->data_root != NULL;
    if (keyring->has_data_root)
        memcpy(keyring->data_root, parts->data_root, KEY_SIZE);
    keyring->recipient_count = parts->recipient_count;
    for (size_t i = 0; i < parts->recipient_count; i++)
        memcpy(keyring->recipients[i], parts->recipients[i], KEY_SIZE);
    keyring->has_private_key = parts->private_key != NULL;
    if (keyring->has_private_key) {
        memcpy(keyring->private_key, parts->private_key, KEY_SIZE);
        if (!seal_public_key(keyring->private_key, keyring->public_key, err))
            return NULL;
    }
    return take(&keyring);
}

KeyMode
keyring_mode(const Keyring *keyring)
{
    return keyring->mode;
}

uint16_t
keyring_epoch(const Keyring *keyring)
{
    return keyring->epoch;
}

bool
keyring_reads_data(const Keyring *keyring)
{
    return keyring->has_data_root || keyring->has_private_key;
}

bool
keyring_seals_to(const Keyring *keyring, const uint8_t public_key[KEY_SIZE])
{
    for (size_t i = 0; i < keyring->recipient_count; i++) {
        if (memcmp(keyring->recipients[i], public_key, KEY_SIZE) == 0)
            return true;
    }
    return false;
}

const uint8_t *
keyring_meta_root(const Keyring *keyring)
{
    return keyring->meta_root;
}

/* The root's key for one epoch. */
static bool
epoch_key(const uint8_t root[KEY_SIZE], const char *label, uint16_t epoch,
          uint8_t key_out[KEY_SIZE], CairnError *err)
{
    uint8_t info[64];
    const size_t size = strlen(label);
    CAIRN_ASSERT(size + 2 <= sizeof info);
    memcpy(info, label, size);
    put_u16(info + size, epoch);
    const HkdfInput input = {
        .key = root, .key_size = KEY_SIZE, .info = info, .info_size = size + 2};
    return hkdf_sha256_of(&input, key_out, KEY_SIZE, err);
}

enum { OBJECT_INFO_LIMIT = 64 };

/* "pgcairn1", kind, repository, object, purpose: what makes a key good for one use alone. */
static size_t
object_info(uint8_t out[OBJECT_INFO_LIMIT], const ObjectKeyInfo *info, const char *purpose)
{
    size_t size = strlen(OBJECT_INFO);
    CAIRN_ASSERT(size + 2 + 2 * KEYRING_ID_SIZE + strlen(purpose) <= OBJECT_INFO_LIMIT);
    memcpy(out, OBJECT_INFO, size);
    put_u16(out + size, info->kind);
    size += 2;
    memcpy(out + size, info->repository_id, KEYRING_ID_SIZE);
    size += KEYRING_ID_SIZE;
    memcpy(out + size, info->object_id, KEYRING_ID_SIZE);
    size += KEYRING_ID_SIZE;
    memcpy(out + size, purpose, strlen(purpose));
    return size + strlen(purpose);
}

static bool
object_key(const uint8_t key[KEY_SIZE], const ObjectKeyInfo *info, const char *purpose,
           uint8_t key_out[KEY_SIZE], CairnError *err)
{
    uint8_t bytes[OBJECT_INFO_LIMIT];
    const HkdfInput input = {.key = key,
                             .key_size = KEY_SIZE,
                             .salt = info->salt,
                             .salt_size = sizeof info->salt,
                             .info = bytes,
                             .info_size = object_info(bytes, info, purpose)};
    return hkdf_sha256_of(&input, key_out, KEY_SIZE, err);
}

/* The body's key where it is derived: of the metadata epoch, or of the data epoch. */
static bool
body_key(const Keyring *keyring, const ObjectKeyInfo *info, const uint8_t meta[KEY_SIZE],
         ObjectKeys *keys, CairnError *err)
{
    uint8_t data[KEY_SIZE];
    if (info->mode == KEY_MODE_META) {
        keys->has_body = object_key(meta, info, "body", keys->body, err);
        return keys->has_body;
    }
    CAIRN_ASSERT(keyring->has_data_root);
    keys->has_body = epoch_key(keyring->data_root, DATA_EPOCH_INFO, info->epoch, data, err) &&
                     object_key(data, info, "body", keys->body, err);
    OPENSSL_cleanse(data, sizeof data);
    return keys->has_body;
}

/* Everything but a sealed body's key. */
static bool
derive_keys(const Keyring *keyring, const ObjectKeyInfo *info, ObjectKeys *keys, CairnError *err)
{
    uint8_t meta[KEY_SIZE];
    memset(keys, 0, sizeof *keys);
    const bool derived =
        epoch_key(keyring->meta_root, META_EPOCH_INFO, info->epoch, meta, err) &&
        object_key(meta, info, "commit", keys->commit, err) &&
        object_key(meta, info, "index", keys->index, err) &&
        (info->mode == KEY_MODE_SEALED || body_key(keyring, info, meta, keys, err));
    OPENSSL_cleanse(meta, sizeof meta);
    if (!derived)
        object_keys_wipe(keys);
    return derived;
}

static SealTo
seal_to(const ObjectKeyInfo *info, const uint8_t *context, size_t context_size,
        const uint8_t *ephemeral, const uint8_t *recipient)
{
    return (SealTo){.ephemeral = ephemeral,
                    .recipient = recipient,
                    .salt = info->salt,
                    .salt_size = sizeof info->salt,
                    .context = context,
                    .context_size = context_size};
}

/* One ephemeral key an object: whoever looks into this process later finds no way back. */
static bool
write_stanzas(const Keyring *keyring, const ObjectKeyInfo *info,
              const uint8_t ephemeral_private[KEY_SIZE], const uint8_t data_key[KEY_SIZE],
              ByteWriter *stanzas, CairnError *err)
{
    uint8_t ephemeral[KEY_SIZE], wrapped[SEAL_WRAPPED_SIZE], context[OBJECT_INFO_LIMIT];
    const size_t context_size = object_info(context, info, "seal");
    const size_t start = stanzas->size;
    if (!seal_public_key(ephemeral_private, ephemeral, err))
        return false;
    byte_writer_u16(stanzas, STANZAS_X25519);
    byte_writer_u16(stanzas, (uint16_t)keyring->recipient_count);
    byte_writer_bytes(stanzas, ephemeral, sizeof ephemeral);
    for (size_t i = 0; i < keyring->recipient_count; i++) {
        const uint8_t *recipient = keyring->recipients[i];
        const SealTo to = seal_to(info, context, context_size, ephemeral, recipient);
        if (!seal_wrap(&to, ephemeral_private, data_key, wrapped, err))
            return cairn_error_wrap(err, "recipient %zu", i + 1);
        byte_writer_bytes(stanzas, recipient, KEY_SIZE);
        byte_writer_bytes(stanzas, wrapped, sizeof wrapped);
    }
    if (!byte_writer_check(stanzas, err))
        return false;
    byte_writer_u32(stanzas, crc32c(0, stanzas->data + start, stanzas->size - start));
    return byte_writer_check(stanzas, err);
}

static bool
seal_body_key(const Keyring *keyring, const World *world, const ObjectKeyInfo *info,
              ByteWriter *stanzas, ObjectKeys *keys, CairnError *err)
{
    uint8_t secrets[2][KEY_SIZE]; /* ephemeral private key, data key */
    bool sealed = world->random->fill(world->random, secrets, sizeof secrets) == 0;
    if (!sealed)
        cairn_error_errno(err, "unable to draw random bytes");
    sealed = sealed && write_stanzas(keyring, info, secrets[0], secrets[1], stanzas, err) &&
             object_key(secrets[1], info, "body", keys->body, err);
    OPENSSL_cleanse(secrets, sizeof secrets);
    keys->has_body = sealed;
    return sealed;
}

bool
keyring_make_object_keys(const Keyring *keyring, const World *world, bool is_meta,
                         ObjectKeyInfo *info, ByteWriter *stanzas, ObjectKeys *keys_out,
                         CairnError *err)
{
    info->mode = is_meta ? KEY_MODE_META : keyring->mode;
    info->epoch = keyring->epoch;
    if (!derive_keys(keyring, info, keys_out, err))
        return false;
    if (info->mode != KEY_MODE_SEALED ||
        seal_body_key(keyring, world, info, stanzas, keys_out, err))
        return true;
    object_keys_wipe(keys_out);
    return false;
}

bool
keyring_find_object_keys(const Keyring *keyring, const ObjectKeyInfo *info, ObjectKeys *keys_out,
                         CairnError *err)
{
    if (info->mode != KEY_MODE_META && info->mode != keyring->mode) {
        return cairn_error(err, CAIRN_MISMATCH, "it has key mode %d where this repository has %d",
                           (int)info->mode, (int)keyring->mode);
    }
    /* A later epoch than ours is no reason to refuse: keys were rotated since this program read
       them, and what a forger says is found out by the commitment. */
    return derive_keys(keyring, info, keys_out, err);
}

bool
keyring_check_stanzas(const void *stanzas, size_t stanzas_size, CairnError *err)
{
    ByteReader reader = byte_reader(stanzas, stanzas_size);
    const uint16_t type = byte_reader_u16(&reader);
    const uint16_t count = byte_reader_u16(&reader);
    const size_t size = STANZAS_HEAD_SIZE + (size_t)count * STANZA_SIZE + (size_t)STANZAS_CRC_SIZE;
    if (reader.failed || type != STANZAS_X25519 || count < 1 || count > KEYRING_RECIPIENT_LIMIT ||
        size != stanzas_size ||
        get_u32((const uint8_t *)stanzas + size - STANZAS_CRC_SIZE) !=
            crc32c(0, stanzas, size - STANZAS_CRC_SIZE))
        return cairn_error(err, CAIRN_CORRUPT, "recipient stanzas are damaged");
    return true;
}

/* Our stanza, or NULL. */
static const uint8_t *
find_stanza(const Keyring *keyring, const uint8_t *stanzas, size_t stanzas_size)
{
    const uint8_t *end = stanzas + stanzas_size - STANZAS_CRC_SIZE;
    for (const uint8_t *at = stanzas + STANZAS_HEAD_SIZE; at < end; at += STANZA_SIZE) {
        if (memcmp(at, keyring->public_key, KEY_SIZE) == 0)
            return at;
    }
    return NULL;
}

bool
keyring_unseal_object_key(const Keyring *keyring, const ObjectKeyInfo *info, const void *stanzas,
                          size_t stanzas_size, ObjectKeys *keys, CairnError *err)
{
    if (!keyring_check_stanzas(stanzas, stanzas_size, err))
        return false;
    const uint8_t *stanza =
        keyring->has_private_key ? find_stanza(keyring, stanzas, stanzas_size) : NULL;
    if (stanza == NULL)
        return true;
    uint8_t data_key[KEY_SIZE], context[OBJECT_INFO_LIMIT];
    const size_t context_size = object_info(context, info, "seal");
    const SealTo to =
        seal_to(info, context, context_size, (const uint8_t *)stanzas + 4, keyring->public_key);
    keys->has_body = seal_unwrap(&to, keyring->private_key, stanza + KEY_SIZE, data_key, err) &&
                     object_key(data_key, info, "body", keys->body, err);
    OPENSSL_cleanse(data_key, sizeof data_key);
    return keys->has_body ? true : cairn_error_wrap(err, "recipient stanza");
}
