/* Key files and lists of public keys: any text. */
#include "repository/key_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CairnError err = {0}, list_err = {0};
    KeyFileType type;
    uint8_t key[KEY_SIZE], keys[KEYRING_RECIPIENT_LIMIT][KEY_SIZE];
    size_t count = 0;
    const bool parsed = key_file_parse((const char *)data, size, "input", &type, key, &err);
    CAIRN_ASSERT(parsed || err.kind == CAIRN_USAGE);

    char *text = malloc(size + 1);
    CAIRN_ASSERT(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    const bool listed = public_keys_parse(text, "input", keys, &count, &list_err);
    CAIRN_ASSERT(listed ? count >= 1 && count <= KEYRING_RECIPIENT_LIMIT
                        : list_err.kind == CAIRN_USAGE);
    free(text);
    return 0;
}
