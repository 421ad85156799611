#include "repository/key_init.h"

#include <stdio.h>
#include <string.h>

enum { NAME_TRIES = 9 };

typedef struct {
    Repository *repository;
    const KeyConfig *config;
    KeyRoots roots;
    KeyRecipients recipients; /* of the configuration; none: count 0 */
    KeyInit *made;
} Init;

static void
note(KeyInit *made, const char *object)
{
    CAIRN_ASSERT(made->count < KEY_INIT_NAMES);
    snprintf(made->names[made->count++], STORAGE_NAME_LIMIT, "%s", object);
}

/* Under this name or, where an earlier init left one of that name, the next free one. */
static bool
make_slot(Init *init, const char *name, const SlotSecret *secret, CairnError *err)
{
    char tried[KEY_SLOT_NAME_LIMIT + 1];
    for (int i = 1; i <= NAME_TRIES; i++) {
        char object[STORAGE_NAME_LIMIT];
        snprintf(tried, sizeof tried, i == 1 ? "%s" : "%s-%d", name, i);
        const KeySlotPlan plan = {.name = tried, .secret = *secret, .cost = STRETCH_COST};
        if (key_slot_create(init->repository, &plan, &init->roots, err)) {
            snprintf(object, sizeof object, "keys/%s", tried);
            note(init->made, object);
            return true;
        }
        if (err->kind != CAIRN_CONFLICT || i == NAME_TRIES)
            return false;
        cairn_error_clear(err);
    }
    return false;
}

static bool
make_recipient_slots(Init *init, CairnError *err)
{
    for (size_t i = 0; i < init->recipients.count; i++) {
        char name[KEY_SLOT_NAME_LIMIT + 1], hex[9];
        const SlotSecret secret = {
            .type = SLOT_RECIPIENT, .data = init->recipients.keys[i], .size = KEY_SIZE};
        hex_encode(hex, init->recipients.keys[i], 4);
        snprintf(name, sizeof name, "recipient-%s", hex);
        if (!make_slot(init, name, &secret, err))
            return false;
    }
    return true;
}

/* A private key opens its own recipient's slot; a slot of its own would not be needed. */
static bool
make_own_slots(Init *init, KeySource *source, CairnError *err)
{
    SlotSecret secret;
    const bool sealed = init->roots.mode == KEY_MODE_SEALED;
    if (key_source_key(source, &secret, err)) {
        if (secret.type == SLOT_KEY_FILE &&
            !make_slot(init, sealed ? "host" : "key-file", &secret, err))
            return false;
        if (secret.type == SLOT_RECIPIENT && init->recipients.count == 0) {
            cairn_error(err, CAIRN_USAGE, "key-file is a private key, and no recipients are named");
            return cairn_error_hint(err, "add recipients = FILE with its public key");
        }
    }
    if (err->kind != CAIRN_OK)
        return false;
    if (key_source_passphrase(source, &secret, err))
        return make_slot(init, "passphrase", &secret, err);
    return err->kind == CAIRN_OK;
}

static bool
make_list(Init *init, CairnError *err)
{
    char object[STORAGE_NAME_LIMIT];
    if (init->roots.mode != KEY_MODE_SEALED)
        return true;
    SCOPED(KeyStore) store = key_store_read(init->repository, err);
    if (store == NULL || !key_store_set_recipients(store, &init->roots, &init->recipients, err))
        return false;
    snprintf(object, sizeof object, "keys/recipients.%u",
             store->list_count > 0 ? store->lists[0] + 1u : 1u);
    note(init->made, object);
    return true;
}

static bool
read_recipients(Init *init, CairnError *err)
{
    const RepositoryConfig *config = repository_config(init->repository);
    const World *world = repository_world(init->repository);
    if (init->config->recipients != NULL)
        return public_keys_read(world, init->config->recipients, init->recipients.keys,
                                &init->recipients.count, err);
    if (init->roots.mode != KEY_MODE_SEALED)
        return true;
    cairn_error(err, CAIRN_USAGE, "[repository %s]: encryption = sealed needs recipients = FILE",
                config->name);
    return cairn_error_hint(err, "on the machine that is to restore: pgcairn key generate "
                                 "--recipient FILE; its FILE.pub comes here");
}

static bool
draw_roots(Init *init, CairnError *err)
{
    const Random *random = repository_world(init->repository)->random;
    if (random->fill(random, init->roots.meta_root, KEY_SIZE) != 0 ||
        (init->roots.mode == KEY_MODE_EPOCH &&
         random->fill(random, init->roots.data_root, KEY_SIZE) != 0))
        return cairn_error_errno(err, "unable to draw random bytes");
    return true;
}

bool
key_init(Repository *repository, Descriptor *descriptor, KeyInit *made, CairnError *err)
{
    Init init = {
        .repository = repository,
        .config = &repository_config(repository)->keys,
        .roots.mode =
            descriptor->encryption == ENCRYPTION_SEALED ? KEY_MODE_SEALED : KEY_MODE_EPOCH,
        .roots.epoch = 1,
        .made = made,
    };
    SCOPED_KEY_SOURCE source = {.world = repository_world(repository), .config = init.config};
    secret_protect_process();
    const bool done = read_recipients(&init, err) && draw_roots(&init, err) &&
                      make_own_slots(&init, &source, err) && make_recipient_slots(&init, err) &&
                      make_list(&init, err) &&
                      descriptor_sign(descriptor, init.roots.meta_root, err);
    key_roots_wipe(&init.roots);
    return done;
}

void
key_init_undo(Repository *repository, const KeyInit *made)
{
    for (size_t i = 0; i < made->count; i++) {
        CairnError ignored = {0}; /* it lies there under another id and opens nothing */
        if (!storage_remove(repository_storage(repository), made->names[i], &ignored))
            continue;
    }
}
