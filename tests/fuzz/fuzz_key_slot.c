/* Key slots, epochs and lists of recipients: any bytes as their content, in a container that is
   right. The first byte chooses which. */
#include "repository/key_store.h"

#include "common/log.h"
#include "repository/object.h"
#include "tests/unit/support/repository_fixture.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"keys/slot", "keys/epoch.7", "keys/recipients.7"};

/* A slot that opens with a key that nobody has would be a forgery. A passphrase is left out: its
   cost is the input's to choose, up to a gigabyte. */
static void
try_slot(KeyStore *store, const uint8_t *repository_id)
{
    const uint8_t key[KEY_SIZE] = {1};
    const KeyStoreSlot *entry = key_store_find(store, "slot");
    if (entry == NULL || !entry->readable || entry->slot.type == SLOT_PASSPHRASE)
        return;
    CairnError err = {0};
    KeyRoots roots;
    const SlotSecret secret = {entry->slot.type, key, sizeof key};
    const bool opened = key_slot_open(&entry->slot, repository_id, &secret, &roots, &err);
    CAIRN_ASSERT(!opened);
    CAIRN_ASSERT(err.kind == CAIRN_DENIED || err.kind == CAIRN_CORRUPT);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    log_set_level(LOG_LEVEL_ERROR);
    SCOPED(Repository) repository = memory_repository("none");
    CairnError err = {0};
    const bool put = object_put_small(repository, names[data[0] % 3], OBJECT_KEY, 0, data + 1,
                                      size - 1, NULL, &err);
    CAIRN_ASSERT(put);
    SCOPED(KeyStore) store = key_store_read(repository, &err);
    CAIRN_ASSERT(store != NULL);
    try_slot(store, repository_id(repository));

    const KeyRoots roots = {.mode = KEY_MODE_SEALED, .epoch = 1, .meta_root = {2}};
    uint16_t epoch = 0;
    const bool found = key_store_epoch(store, &roots, &epoch, &err);
    CAIRN_ASSERT(found ? epoch == 1 : err.kind != CAIRN_OK);
    KeyRecipients recipients;
    CairnError list_err = {0};
    const bool listed = key_store_recipients(store, &roots, &recipients, &list_err);
    CAIRN_ASSERT(!listed && list_err.kind != CAIRN_OK);
    return 0;
}
