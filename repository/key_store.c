#include "repository/key_store.h"

#include "common/libcrypto.h"
#include "common/log.h"

#include <stdio.h>
#include <string.h>

#define KEYS_PREFIX "keys"

void
key_store_free(KeyStore *store)
{
    if (store == NULL)
        return;
    arena_free(store->arena);
    free(store);
}

/* "<prefix>.<n>" with n from 1 to 65535 in shortest form. */
static bool
parse_number(const char *name, const char *prefix, uint16_t *number_out)
{
    unsigned number = 0;
    char canonical[32];
    const size_t size = strlen(prefix);
    if (strncmp(name, prefix, size) != 0 || sscanf(name + size, ".%5u", &number) != 1 ||
        number < 1 || number > UINT16_MAX)
        return false;
    snprintf(canonical, sizeof canonical, "%s.%u", prefix, number);
    *number_out = (uint16_t)number;
    return strcmp(canonical, name) == 0;
}

/* Keeps the list sorted, highest first, and drops the lowest when it is full: somebody who may only
   create must not be able to fill it with rubbish that hides what counts. */
static void
insert_number(uint16_t *numbers, size_t *count, uint16_t number)
{
    size_t at = 0;
    while (at < *count && numbers[at] > number)
        at++;
    if (at == KEY_LIST_LIMIT)
        return;
    const size_t kept = *count < KEY_LIST_LIMIT ? *count : KEY_LIST_LIMIT - 1;
    memmove(numbers + at + 1, numbers + at, (kept - at) * sizeof *numbers);
    numbers[at] = number;
    *count = kept + 1;
}

static StorageListNext
list_one(void *context, const StorageEntry *entry, CairnError *err)
{
    KeyStore *store = context;
    uint16_t number;
    if (entry->is_directory)
        return STORAGE_LIST_GO_ON;
    if (parse_number(entry->name, "epoch", &number)) {
        insert_number(store->epochs, &store->epoch_count, number);
    } else if (parse_number(entry->name, "recipients", &number)) {
        insert_number(store->lists, &store->list_count, number);
    } else if (key_slot_name_valid(entry->name)) {
        if (store->slot_count == KEY_SLOT_LIMIT) {
            cairn_error(err, CAIRN_UNSUPPORTED, "there are more than %d key slots", KEY_SLOT_LIMIT);
            cairn_error_hint(err, "remove some from keys/ by hand, after a look at their dates");
            return STORAGE_LIST_FAILED;
        }
        snprintf(store->slots[store->slot_count++].name, sizeof store->slots[0].name, "%s",
                 entry->name);
    }
    return STORAGE_LIST_GO_ON;
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const KeyStoreSlot *)a)->name, ((const KeyStoreSlot *)b)->name);
}

KeyStore *
key_store_read(Repository *repository, CairnError *err)
{
    SCOPED(KeyStore) store = calloc(1, sizeof *store);
    if (store == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    store->repository = repository;
    store->arena = arena_new();
    if (!storage_list(repository_storage(repository), KEYS_PREFIX, list_one, store, err)) {
        cairn_error_wrap(err, "unable to list key slots");
        return NULL;
    }
    qsort(store->slots, store->slot_count, sizeof *store->slots, by_name);
    return take(&store);
}

const KeyStoreSlot *
key_store_slot(KeyStore *store, size_t index)
{
    KeyStoreSlot *entry = &store->slots[index];
    CairnError err = {0};
    CAIRN_ASSERT(index < store->slot_count);
    if (entry->looked_at)
        return entry;
    entry->looked_at = true;
    entry->readable = key_slot_read(store->repository, entry->name, &entry->slot, &err);
    if (!entry->readable) {
        entry->trouble = err.kind;
        entry->trouble_text = arena_strdup(store->arena, err.message);
    }
    return entry;
}

const KeyStoreSlot *
key_store_find(KeyStore *store, const char *name)
{
    for (size_t i = 0; i < store->slot_count; i++) {
        if (strcmp(store->slots[i].name, name) == 0)
            return key_store_slot(store, i);
    }
    return NULL;
}

/* -- opening */

/* What was met on the way to a slot that opens. */
typedef struct {
    CairnError unproven; /* of the first slot whose roots did not make the descriptor */
    size_t suitable;
    const char *broken;     /* a slot that might have opened, and can't be read */
    CairnErrorKind trouble; /* why */
    const char *trouble_text;
} OpenAttempt;

static void
note_trouble(OpenAttempt *attempt, const char *name, CairnErrorKind kind, const char *text)
{
    if (attempt->broken != NULL || kind == CAIRN_MISMATCH || kind == CAIRN_NOT_FOUND)
        return;
    attempt->broken = name;
    attempt->trouble = kind;
    attempt->trouble_text = text;
}

/* False with an empty error: this slot does not open with this secret. */
static bool
try_slot(KeyStore *store, size_t index, const SlotSecret *secret, OpenAttempt *attempt,
         KeyRoots *roots_out, CairnError *err)
{
    const KeyStoreSlot *entry = key_store_slot(store, index);
    if (!entry->readable) {
        note_trouble(attempt, entry->name, entry->trouble, entry->trouble_text);
        return false;
    }
    if (!key_slot_suits(&entry->slot, secret))
        return false;
    attempt->suitable++;
    if (key_slot_open(&entry->slot, repository_id(store->repository), secret, roots_out, err)) {
        if (descriptor_verify(store->descriptor, roots_out->meta_root, err))
            return true;
        /* For a public key anybody can make a slot that opens: it must not hide ours. */
        key_roots_wipe(roots_out);
        if (attempt->unproven.kind == CAIRN_OK)
            attempt->unproven = *err;
    } else if (err->kind != CAIRN_DENIED) {
        note_trouble(attempt, entry->name, err->kind, arena_strdup(store->arena, err->message));
    }
    cairn_error_clear(err);
    return false;
}

static bool
try_secret(KeyStore *store, const SlotSecret *secret, const char *first, OpenAttempt *attempt,
           KeyRoots *roots_out, char opened_out[KEY_SLOT_NAME_LIMIT + 1], CairnError *err)
{
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < store->slot_count; i++) {
            const bool is_first = first != NULL && strcmp(store->slots[i].name, first) == 0;
            if (is_first != (round == 0))
                continue;
            if (try_slot(store, i, secret, attempt, roots_out, err)) {
                snprintf(opened_out, KEY_SLOT_NAME_LIMIT + 1, "%s", store->slots[i].name);
                return true;
            }
        }
    }
    return false;
}

/* One message for whatever was wrong with the key: it tells an attacker nothing. */
static bool
explain(const KeyStore *store, const OpenAttempt *attempt, CairnError *err)
{
    if (attempt->unproven.kind != CAIRN_OK) {
        *err = attempt->unproven;
        return false;
    }
    if (attempt->suitable == 0 && attempt->broken != NULL)
        return cairn_error(err, attempt->trouble, "%s", attempt->trouble_text);
    cairn_error(err, CAIRN_DENIED, "wrong key");
    if (attempt->broken != NULL)
        return cairn_error_hint(err,
                                "no whole slot opens with it, and slot '%s' cannot be read (%s)",
                                attempt->broken, attempt->trouble_text);
    if (store->slot_count == 0)
        return cairn_error_hint(err, "the repository has no key slots any more: put its keys/ back "
                                     "from a copy");
    return cairn_error_hint(err, "none of the repository's slots opens with what the configuration "
                                 "names; pgcairn key list shows them");
}

bool
key_store_open(KeyStore *store, KeySource *source, const char *first, KeyRoots *roots_out,
               char opened_out[KEY_SLOT_NAME_LIMIT + 1], CairnError *err)
{
    OpenAttempt attempt = {0};
    SlotSecret secret;
    if (key_source_key(source, &secret, err) &&
        try_secret(store, &secret, first, &attempt, roots_out, opened_out, err))
        return true;
    if (err->kind != CAIRN_OK)
        return false;
    if (key_source_passphrase(source, &secret, err) &&
        try_secret(store, &secret, first, &attempt, roots_out, opened_out, err))
        return true;
    return err->kind != CAIRN_OK ? false : explain(store, &attempt, err);
}

/* -- adding and removing */

bool
key_slot_opens_all(const KeySlot *slot)
{
    return slot->mode == KEY_MODE_EPOCH || slot->type == SLOT_RECIPIENT;
}

static size_t
find_recipient(const KeyRecipients *recipients, const uint8_t key[KEY_SIZE])
{
    for (size_t i = 0; i < recipients->count; i++) {
        if (memcmp(recipients->keys[i], key, KEY_SIZE) == 0)
            return i;
    }
    return recipients->count;
}

static bool
add_recipient(KeyStore *store, const uint8_t key[KEY_SIZE], const KeyRoots *roots, CairnError *err)
{
    KeyRecipients recipients;
    if (!key_store_recipients(store, roots, &recipients, err))
        return false;
    if (find_recipient(&recipients, key) < recipients.count)
        return true;
    if (recipients.count == KEYRING_RECIPIENT_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "there are %d recipients already",
                           KEYRING_RECIPIENT_LIMIT);
    memcpy(recipients.keys[recipients.count++], key, KEY_SIZE);
    return key_store_set_recipients(store, roots, &recipients, err);
}

static bool
drop_recipient(KeyStore *store, const uint8_t key[KEY_SIZE], const KeyRoots *roots, CairnError *err)
{
    KeyRecipients recipients;
    if (!key_store_recipients(store, roots, &recipients, err))
        return false;
    const size_t at = find_recipient(&recipients, key);
    if (at == recipients.count)
        return true;
    if (recipients.count == 1)
        return cairn_error(err, CAIRN_REFUSED,
                           "it is the only recipient: new backups would be "
                           "readable by nobody");
    recipients.count--;
    memmove(recipients.keys[at], recipients.keys[at + 1],
            (recipients.count - at) * sizeof recipients.keys[0]);
    return key_store_set_recipients(store, roots, &recipients, err);
}

bool
key_store_add(KeyStore *store, const KeySlotPlan *plan, const KeyRoots *roots, CairnError *err)
{
    if (store->slot_count == KEY_SLOT_LIMIT)
        return cairn_error(err, CAIRN_REFUSED, "there are %d key slots already", KEY_SLOT_LIMIT);
    if (!key_slot_create(store->repository, plan, roots, err)) {
        if (err->kind == CAIRN_CONFLICT)
            cairn_error_hint(err, "slots never change: give the new one another name");
        return false;
    }
    /* Behind the slot: who is on the list can open the repository. */
    if (roots->mode != KEY_MODE_SEALED || plan->secret.type != SLOT_RECIPIENT)
        return true;
    if (add_recipient(store, plan->secret.data, roots, err))
        return true;
    cairn_error_wrap(err, "slot '%s' was made, but nothing is sealed to its key yet", plan->name);
    return cairn_error_hint(err, "pgcairn key remove %s, then add it again", plan->name);
}

bool
key_store_count(KeyStore *store, const uint8_t *meta_root, const char *in_use, const char *besides,
                KeySlotCount *count_out, CairnError *err)
{
    KeySlotCount count = {0};
    for (size_t i = 0; i < store->slot_count; i++) {
        const KeyStoreSlot *entry = key_store_slot(store, i);
        SlotProof proof;
        if (!entry->readable || !key_slot_opens_all(&entry->slot) ||
            (besides != NULL && strcmp(entry->name, besides) == 0))
            continue;
        if (!key_slot_prove(&entry->slot, repository_id(store->repository), meta_root, &proof, err))
            return false;
        const bool opened = in_use != NULL && strcmp(entry->name, in_use) == 0;
        if (proof == SLOT_FORGED && !opened) {
            count.forged++;
            memcpy(count.forged_name, entry->name, sizeof count.forged_name);
            continue;
        }
        count.whole++;
        if (opened || proof == SLOT_GENUINE)
            count.proven++;
        else
            memcpy(count.unproven_name, entry->name, sizeof count.unproven_name);
    }
    *count_out = count;
    return true;
}

static bool
count_others(KeyStore *store, const KeyRemoval *removal, KeySlotCount *count_out, CairnError *err)
{
    return key_store_count(store, removal->roots->meta_root, removal->in_use, removal->name,
                           count_out, err);
}

static bool
are_enough(const KeySlotCount *others, bool force)
{
    return others->proven > 0 || (force && others->whole > 0);
}

static bool
refuse_last(const char *name, const KeySlotCount *others, CairnError *err)
{
    if (others->whole == 0) {
        cairn_error(err, CAIRN_REFUSED,
                    "without slot '%s' nobody could read the repository any more", name);
        return cairn_error_hint(err, "add another one first: pgcairn key add; no option overrides "
                                     "this");
    }
    cairn_error(err, CAIRN_REFUSED,
                "without slot '%s' none is left that is proven to open everything: of %zu more, "
                "'%s' among them, that is not known without their keys",
                name, others->whole, others->unproven_name);
    return cairn_error_hint(err, "anybody who can write to the storage could have put them there. "
                                 "Add another one first (pgcairn key add); or --force, after "
                                 "pgcairn key verify with the key of one that stays");
}

bool
key_store_may_remove(KeyStore *store, const KeyRemoval *removal, CairnError *err)
{
    const char *name = removal->name;
    const KeyStoreSlot *entry = key_store_find(store, name);
    KeySlotCount others;
    if (entry == NULL) {
        cairn_error(err, CAIRN_NOT_FOUND, "there is no key slot '%.64s'", name);
        return cairn_error_hint(err, "pgcairn key list shows them");
    }
    if (!count_others(store, removal, &others, err))
        return false;
    /* What opens not everything, as a sealed host's own slot, takes no proven way in with it. */
    const bool opens_all = entry->readable && key_slot_opens_all(&entry->slot);
    if (!are_enough(&others, removal->force || !opens_all))
        return refuse_last(name, &others, err);
    if (!removal->force && removal->in_use != NULL && strcmp(removal->in_use, name) == 0) {
        cairn_error(err, CAIRN_REFUSED,
                    "slot '%s' is the one that this host opens the repository "
                    "with",
                    name);
        return cairn_error_hint(err, "set up another key here first, or --force if this host is to "
                                     "lose it");
    }
    return true;
}

/* Two who remove the last two slots at once both saw the other's when they asked. So whoever finds
   none left afterwards puts its own back: the later one of two does, or both. */
static bool
put_back_if_last(KeyStore *store, const KeyRemoval *removal, const KeySlot *slot, CairnError *err)
{
    KeySlotCount others;
    SCOPED(KeyStore) now = key_store_read(store->repository, err);
    if (now == NULL || !count_others(now, removal, &others, err))
        return cairn_error_wrap(err, "slot '%s' was removed, but what is left is not known",
                                slot->name);
    if (are_enough(&others, removal->force))
        return true;
    if (!key_slot_put_back(store->repository, slot, err))
        return cairn_error_wrap(err, "slot '%s' was the last one and could not be put back",
                                slot->name);
    cairn_error(err, CAIRN_REFUSED,
                "the other slots went at the same moment: slot '%s' was put back, without it "
                "nobody could read the repository any more",
                slot->name);
    return cairn_error_hint(err, "pgcairn key list shows what is there now");
}

bool
key_store_remove(KeyStore *store, const KeyRemoval *removal, CairnError *err)
{
    char object[STORAGE_NAME_LIMIT];
    const KeyStoreSlot *entry = key_store_find(store, removal->name);
    CAIRN_ASSERT(entry != NULL);
    /* Before the slot: who is off the list can no longer be sealed to. */
    if (removal->roots->mode == KEY_MODE_SEALED && entry->readable &&
        entry->slot.type == SLOT_RECIPIENT &&
        !drop_recipient(store, entry->slot.public_key, removal->roots, err))
        return false;
    snprintf(object, sizeof object, KEYS_PREFIX "/%s", removal->name);
    if (!storage_remove(repository_storage(store->repository), object, err))
        return false;
    return !entry->readable || !key_slot_opens_all(&entry->slot) ||
           put_back_if_last(store, removal, &entry->slot, err);
}
