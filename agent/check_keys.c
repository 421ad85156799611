/* Encryption: what state it is in, who could open the repository, and what is too open here. */
#include "agent/check_steps.h"

#include "repository/key_store.h"

#include <stdio.h>
#include <string.h>

/* Slots that are whole and open everything, and those of which something is wrong. */
typedef struct {
    KeySlotCount opening;
    size_t broken;
    char names[512]; /* of all whole ones */
    char broken_name[KEY_SLOT_NAME_LIMIT + 1];
} SlotSum;

static void
add_name(SlotSum *sum, const char *name, KeySlotType type)
{
    const size_t used = strlen(sum->names);
    snprintf(sum->names + used, sizeof sum->names - used, "%s%s (%s)", used > 0 ? ", " : "", name,
             key_slot_type_name(type));
}

static bool
sum_up(const CheckRun *run, KeyStore *store, SlotSum *sum_out, CairnError *err)
{
    const uint8_t *meta_root = keyring_meta_root(repository_keyring(run->repository));
    SlotSum sum = {0};
    for (size_t i = 0; i < store->slot_count; i++) {
        const KeyStoreSlot *entry = key_store_slot(store, i);
        if (entry->readable) {
            add_name(&sum, entry->name, entry->slot.type);
        } else if (entry->trouble != CAIRN_MISMATCH) {
            sum.broken++;
            snprintf(sum.broken_name, sizeof sum.broken_name, "%s", entry->name);
        }
    }
    if (!key_store_count(store, meta_root, repository_key_slot(run->repository), NULL, &sum.opening,
                         err))
        return false;
    *sum_out = sum;
    return true;
}

static void
report_slots(CheckRun *run, const SlotSum *sum)
{
    const bool sealed = repository_encryption(run->repository) == ENCRYPTION_SEALED;
    const KeySlotCount *opening = &sum->opening;
    if (opening->forged > 0)
        check_add(
            run, "key-slots", CHECK_FAILED,
            "slot '%s' was not made by a holder of the repository's key, or was changed: find "
            "out who can write to the storage, and take it away: pgcairn key remove %s",
            opening->forged_name, opening->forged_name);
    else if (sum->broken > 0)
        check_add(run, "key-slots", CHECK_FAILED,
                  "%zu cannot be read, '%s' among them; make another for its key: pgcairn key add",
                  sum->broken, sum->broken_name);
    else if (opening->proven < 2 && opening->whole > opening->proven)
        check_add(
            run, "key-slots", CHECK_WARNING,
            "%s: %zu slots say that they open everything, %zu of them proven with the keys at "
            "hand; '%s' may be anybody's: prove it by pgcairn key verify with its key, or make "
            "another for that key (pgcairn key add), which proves itself",
            sum->names, opening->whole, opening->proven, opening->unproven_name);
    else if (opening->proven < 2)
        check_add(
            run, "key-slots", CHECK_WARNING,
            "%s: only one %s opens everything; if it is lost, so is every backup. Add a second "
            "one that is kept elsewhere: pgcairn key add",
            sum->names, sealed ? "recipient's key" : "key");
    else
        check_add(run, "key-slots", CHECK_OK, "%s", sum->names);
}

/* Loose permissions stop every command; but a file that is not needed to open may be loose too. */
static void
check_files(CheckRun *run)
{
    const KeyConfig *keys = &run->options->repository->keys;
    const char *const files[] = {keys->key_file, keys->passphrase_file};
    CairnError err = {0};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (files[i] != NULL && !secret_file_check(run->options->world, files[i], &err)) {
            check_add_error(run, "key-files", CHECK_FAILED, &err);
            return;
        }
    }
    check_add(run, "key-files", CHECK_OK, "%s", "");
}

static void
check_speed(CheckRun *run, KeyStore *store)
{
    const KeyStoreSlot *slot = key_store_find(store, repository_key_slot(run->repository));
    if (slot == NULL || !slot->readable || slot->slot.type != SLOT_PASSPHRASE)
        return;
    check_add(run, "key-speed", CHECK_WARNING,
              "this host opens the repository with a passphrase, which costs each command half a "
              "second and 128 MiB, each archived segment too; give it a key file: pgcairn key "
              "generate FILE, pgcairn key add %s --key-file FILE, key-file = FILE beside the "
              "passphrase",
              run->options->cluster->name);
}

/* What the file says against what the repository does: a slot alone opens what was, not what comes.
 */
static void
check_recipients(CheckRun *run)
{
    const Keyring *keyring = repository_keyring(run->repository);
    const char *path = run->options->repository->keys.recipients;
    KeyRecipients wanted = {0};
    CairnError err = {0};
    size_t known = 0;
    if (path == NULL || repository_encryption(run->repository) != ENCRYPTION_SEALED)
        return;
    if (!public_keys_read(run->options->world, path, wanted.keys, &wanted.count, &err)) {
        check_add_error(run, "recipients", CHECK_WARNING, &err);
        return;
    }
    for (size_t i = 0; i < wanted.count; i++)
        known += keyring_seals_to(keyring, wanted.keys[i]) ? 1 : 0;
    if (known < wanted.count)
        check_add(run, "recipients", CHECK_WARNING,
                  "'%s' names %zu that the repository does not seal to; the file counts at init "
                  "only, later: pgcairn key add SLOT --recipient FILE",
                  path, wanted.count - known);
    else
        check_add(run, "recipients", CHECK_OK, "%zu", wanted.count);
}

void
check_encryption(CheckRun *run)
{
    CairnError err = {0};
    if (run->repository == NULL)
        return;
    const Encryption encryption = repository_encryption(run->repository);
    if (encryption == ENCRYPTION_NONE) {
        check_add(run, "encryption", CHECK_OK,
                  "none: whoever can read the repository can read the database");
        return;
    }
    const Keyring *keyring = repository_keyring(run->repository);
    check_add(run, "encryption", CHECK_OK, "%s, slot %s, epoch %u%s", encryption_name(encryption),
              repository_key_slot(run->repository), keyring_epoch(keyring),
              keyring_reads_data(keyring) ? ""
                                          : "; this host cannot read pages and WAL, as intended");
    check_files(run);
    SCOPED(KeyStore) store = key_store_read(run->repository, &err);
    if (store == NULL) {
        check_add_error(run, "key-slots", CHECK_FAILED, &err);
        return;
    }
    SlotSum sum;
    if (sum_up(run, store, &sum, &err))
        report_slots(run, &sum);
    else
        check_add_error(run, "key-slots", CHECK_FAILED, &err);
    check_recipients(run);
    check_speed(run, store);
}
