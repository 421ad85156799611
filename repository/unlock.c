#include "repository/unlock.h"

#include "codec/seal.h"
#include "common/libcrypto.h"
#include "common/log.h"
#include "repository/key_pin.h"
#include "repository/key_store.h"

#include <string.h>

bool
unlock_check_stated(const RepositoryConfig *config, Encryption found, CairnError *err)
{
    Encryption stated;
    if (!key_source_encryption(config, &stated, err))
        return false;
    if (stated == found)
        return true;
    if (found == ENCRYPTION_NONE) {
        cairn_error(err, CAIRN_MISMATCH,
                    "[repository %s] says encryption = %s, but the repository is not encrypted",
                    config->name, config->encryption);
        return cairn_error_hint(
            err, "somebody may have put a plain one in its place. Encryption is decided once, at "
                 "init: for an encrypted one make a new repository; to go on without, say "
                 "encryption = none");
    }
    cairn_error(err, CAIRN_MISMATCH,
                "[repository %s] says encryption = %s, but the repository is %s", config->name,
                config->encryption, found == ENCRYPTION_SEALED ? "sealed" : "encrypted with keys");
    return cairn_error_hint(err, "%s",
                            found == ENCRYPTION_SEALED
                                ? "say encryption = sealed and key-file = FILE"
                                : "say encryption = key-file and key-file = FILE, or encryption = "
                                  "passphrase and where it comes from");
}

bool
unlock_check_locked(const Repository *repository, CairnError *err)
{
    const RepositoryConfig *config = repository_config(repository);
    const Encryption found = repository_encryption(repository);
    KeyPin pin;
    if (!unlock_check_stated(config, found, err))
        return false;
    if (found == ENCRYPTION_NONE)
        return true;
    key_pin_read(repository_world(repository), config, &pin);
    return key_pin_check(config, &pin, repository_id(repository), found, err);
}

/* In sealed mode. A restore must not fail because the list is damaged: then it is sealed to
   ourselves what this process writes, which are small things at most. */
static bool
find_recipients(KeyStore *store, const KeyRoots *roots, const uint8_t *private_key,
                KeyRecipients *recipients, CairnError *err)
{
    if (key_store_recipients(store, roots, recipients, err))
        return true;
    if (private_key == NULL)
        return false;
    log_warn("%s", err->message);
    cairn_error_clear(err);
    recipients->count = 1;
    return seal_public_key(private_key, recipients->keys[0], err);
}

static Keyring *
make_keyring(KeyStore *store, const KeySource *source, const KeyRoots *roots, CairnError *err)
{
    const bool sealed = roots->mode == KEY_MODE_SEALED;
    const bool has_private = sealed && source->key != NULL && source->key_type == KEY_FILE_PRIVATE;
    KeyRecipients recipients = {0};
    KeyringParts parts = {
        .mode = roots->mode,
        .meta_root = roots->meta_root,
        .data_root = sealed ? NULL : roots->data_root,
        .private_key = has_private ? source->key->data : NULL,
        .recipients = recipients.keys,
    };
    if (!key_store_epoch(store, roots, &parts.epoch, err) ||
        (sealed && !find_recipients(store, roots, parts.private_key, &recipients, err)))
        return NULL;
    parts.recipient_count = recipients.count;
    return keyring_new(&parts, err);
}

static bool
check_mode(const Descriptor *descriptor, const KeyRoots *roots, CairnError *err)
{
    const bool sealed = descriptor->encryption == ENCRYPTION_SEALED;
    if (sealed == (roots->mode == KEY_MODE_SEALED))
        return true;
    return cairn_error(err, CAIRN_CORRUPT, "descriptor and key slot contradict each other");
}

static void
keep_pin(Repository *repository, const Descriptor *descriptor, const KeyPin *before,
         const char *opened)
{
    KeyPin pin = {.encryption = descriptor->encryption};
    if (before->found && before->has_mac && strcmp(before->slot, opened) == 0)
        return;
    memcpy(pin.id, descriptor->id, sizeof pin.id);
    memcpy(pin.mac, descriptor->mac, sizeof pin.mac);
    memcpy(pin.slot, opened, strlen(opened) + 1);
    key_pin_keep(repository_world(repository), repository_config(repository), &pin);
}

Keyring *
repository_unlock(Repository *repository, const Descriptor *descriptor,
                  char opened_out[KEY_SLOT_NAME_LIMIT + 1], CairnError *err)
{
    const World *world = repository_world(repository);
    const RepositoryConfig *config = repository_config(repository);
    KeyPin pin;
    KeyRoots roots = {0};
    SCOPED_KEY_SOURCE source = {.world = world, .config = &config->keys};
    secret_protect_process();
    key_pin_read(world, config, &pin);
    if (!key_pin_check(config, &pin, descriptor->id, descriptor->encryption, err))
        return NULL;
    SCOPED(KeyStore) store = key_store_read(repository, err);
    if (store == NULL)
        return NULL;
    Keyring *keyring = NULL;
    store->descriptor = descriptor;
    if (key_store_open(store, &source, pin.slot, &roots, opened_out, err) &&
        key_pin_check_mac(config, &pin, descriptor->mac, err) &&
        check_mode(descriptor, &roots, err))
        keyring = make_keyring(store, &source, &roots, err);
    key_roots_wipe(&roots);
    if (keyring != NULL)
        keep_pin(repository, descriptor, &pin, opened_out);
    return keyring;
}
