#include "agent/keys.h"

#include "common/log.h"

#include <stdio.h>
#include <string.h>

/* The repository, its key room, and the roots: what every change needs. */
typedef struct {
    Repository *repository;
    KeyStore *store;
    Descriptor descriptor;
    KeyRoots roots;
} KeyRoom;

static void
close_room(KeyRoom *room)
{
    key_roots_wipe(&room->roots);
    key_store_free(room->store);
    repository_close(room->repository);
}
#define SCOPED_KEY_ROOM __attribute__((cleanup(close_room))) KeyRoom

static bool
open_room(const World *world, const RepositoryConfig *config, KeyRoom *room, CairnError *err)
{
    char opened[KEY_SLOT_NAME_LIMIT + 1];
    room->repository = repository_open(world, config, err);
    if (room->repository == NULL)
        return false;
    if (!repository_is_encrypted(room->repository)) {
        cairn_error(err, CAIRN_USAGE, "repository '%s' is not encrypted: it has no keys",
                    config->name);
        return cairn_error_hint(err, "encryption is decided once, at init; see docs/keys.md");
    }
    SCOPED_KEY_SOURCE source = {.world = world, .config = &config->keys};
    room->store = key_store_read(room->repository, err);
    if (room->store == NULL || !descriptor_read(room->repository, &room->descriptor, err))
        return false;
    room->store->descriptor = &room->descriptor;
    return key_store_open(room->store, &source, repository_key_slot(room->repository), &room->roots,
                          opened, err);
}

static size_t
count_choices(const KeyChoice *choice)
{
    return (size_t)(choice->key_file != NULL) + (choice->passphrase_file != NULL) +
           (choice->passphrase_command != NULL) + (choice->recipient != NULL);
}

static bool
read_recipient(const World *world, const char *path, uint8_t key_out[KEY_SIZE], CairnError *err)
{
    KeyRecipients recipients;
    if (!public_keys_read(world, path, recipients.keys, &recipients.count, err))
        return false;
    if (recipients.count != 1)
        return cairn_error(err, CAIRN_USAGE, "'%s' names %zu public keys; a slot is for one", path,
                           recipients.count);
    memcpy(key_out, recipients.keys[0], KEY_SIZE);
    return true;
}

/* *secret_out points into source or public_key. */
static bool
read_choice(const World *world, const KeyChoice *choice, KeySource *source,
            uint8_t public_key[KEY_SIZE], SlotSecret *secret_out, CairnError *err)
{
    if (choice->recipient != NULL) {
        *secret_out = (SlotSecret){.type = SLOT_RECIPIENT, .data = public_key, .size = KEY_SIZE};
        return read_recipient(world, choice->recipient, public_key, err);
    }
    if (choice->key_file == NULL)
        return key_source_passphrase(source, secret_out, err);
    if (!key_source_key(source, secret_out, err))
        return false;
    if (secret_out->type == SLOT_KEY_FILE)
        return true;
    cairn_error(err, CAIRN_USAGE, "'%s' is a private key", choice->key_file);
    return cairn_error_hint(err,
                            "a slot for its holder needs the public one only: --recipient FILE");
}

bool
keys_add(const World *world, const RepositoryConfig *config, const char *name,
         const KeyChoice *choice, CairnError *err)
{
    uint8_t public_key[KEY_SIZE];
    const KeyConfig wanted = {.key_file = choice->key_file,
                              .passphrase_file = choice->passphrase_file,
                              .passphrase_command = choice->passphrase_command};
    SCOPED_KEY_SOURCE source = {.world = world, .config = &wanted};
    KeySlotPlan plan = {.name = name, .cost = STRETCH_COST};
    if (!key_slot_name_valid(name))
        return cairn_error(err, CAIRN_USAGE,
                           "'%.64s' is no name of a slot: letters, digits, '_' and '-'", name);
    if (count_choices(choice) != 1) {
        cairn_error(err, CAIRN_USAGE, "say what opens the new slot, by one option");
        return cairn_error_hint(err, "--key-file, --passphrase-file, --passphrase-command or "
                                     "--recipient");
    }
    SCOPED_KEY_ROOM room = {0};
    return read_choice(world, choice, &source, public_key, &plan.secret, err) &&
           open_room(world, config, &room, err) &&
           key_store_add(room.store, &plan, &room.roots, err);
}

bool
keys_remove(const World *world, const RepositoryConfig *config, const char *name, bool force,
            CairnError *err)
{
    SCOPED_KEY_ROOM room = {0};
    if (!open_room(world, config, &room, err))
        return false;
    const KeyRemoval removal = {.name = name,
                                .in_use = repository_key_slot(room.repository),
                                .force = force,
                                .roots = &room.roots};
    return key_store_may_remove(room.store, &removal, err) &&
           key_store_remove(room.store, &removal, err);
}

bool
keys_rotate(const World *world, const RepositoryConfig *config, uint16_t *epoch_out,
            CairnError *err)
{
    SCOPED_KEY_ROOM room = {0};
    return open_room(world, config, &room, err) &&
           key_store_rotate(room.store, &room.roots, epoch_out, err);
}

bool
keys_override(const RepositoryConfig *config, const KeyChoice *choice, RepositoryConfig *config_out,
              CairnError *err)
{
    if (count_choices(choice) > 1)
        return cairn_error(err, CAIRN_USAGE, "give one key, not several");
    *config_out = *config;
    if (count_choices(choice) == 0)
        return true;
    config_out->keys = (KeyConfig){.key_file = choice->key_file,
                                   .passphrase_file = choice->passphrase_file,
                                   .passphrase_command = choice->passphrase_command,
                                   .recipients = config->keys.recipients};
    if (config->encryption != NULL && strcmp(config->encryption, "none") != 0 &&
        strcmp(config->encryption, "sealed") != 0)
        config_out->encryption = choice->key_file != NULL ? "key-file" : "passphrase";
    return true;
}
