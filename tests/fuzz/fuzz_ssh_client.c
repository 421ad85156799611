/* A repository host that says anything, after a right welcome where the first byte is odd. What it
 * says is never taken for damage of an object. */
#include "tests/unit/support/ssh_liar.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static StorageListNext
check_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)context, (void)err;
    CAIRN_ASSERT(storage_name_valid(entry->name) && strchr(entry->name, '/') == NULL);
    return STORAGE_LIST_GO_ON;
}

static void
use(Storage *storage)
{
    CairnError err = {0};
    uint64_t size;
    uint8_t byte;
    if (!storage_exists(storage, "a", &size, &err))
        cairn_error_clear(&err);
    if (!storage_list(storage, "a", check_entry, NULL, &err))
        cairn_error_clear(&err);
    StorageReader *reader = storage_open(storage, "a", &err);
    if (reader == NULL)
        cairn_error_clear(&err);
    for (uint64_t at = 0; reader != NULL && at < reader->size_bytes && at < 4; at++) {
        if (!storage_pread(reader, &byte, 1, reader->size_bytes - 1 - at, &err))
            cairn_error_clear(&err);
    }
    storage_reader_free(reader);
    if (!storage_put(storage, "a", "x", 1, &err))
        cairn_error_clear(&err);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CairnError err = {0};
    if (size < 1)
        return 0;
    SshLiar liar = {
        .bytes = data + 1, .size = size - 1, .welcomes = (data[0] & 1) != 0, .by_real_clock = true};
    Storage *storage = ssh_liar_connect(&liar, &err);
    if (storage != NULL)
        use(storage);
    else
        CAIRN_ASSERT(err.kind != CAIRN_OK);
    storage_close(storage);
    ssh_liar_end(&liar);
    return 0;
}
