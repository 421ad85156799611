/*
 * The container of all objects. The first byte says what is made right before reading: the header's
 * identity and CRC, the trailer's place and CRC of the index, the digest; so that the checks behind
 * each are reached; whether the repository is encrypted; or that the rest is recipients' stanzas.
 */
#include "common/bytes.h"
#include "common/digest.h"
#include "repository/object.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <string.h>

#define NAME "c/main/b/0000000001-0000000000000001/fate"

enum { FIX_HEADER = 1, FIX_INDEX = 2, FIX_DIGEST = 4, ENCRYPTED = 8, STANZAS = 16 };

/* Stanzas whose checksum is right. */
static void
read_stanzas(const uint8_t *data, size_t size)
{
    enum { STANZAS_ROOM = 2048 };
    static const ObjectKeyInfo info = {.kind = OBJECT_PACK, .mode = KEY_MODE_SEALED};
    uint8_t stanzas[STANZAS_ROOM];
    ObjectKeys keys = {0};
    CairnError err = {0};
    SCOPED(Keyring) keyring = test_keyring(KEY_MODE_SEALED, true);
    size = size < STANZAS_ROOM - 4 ? size : STANZAS_ROOM - 4;
    memcpy(stanzas, data, size);
    put_u32(stanzas + size, crc32c(0, stanzas, size));
    if (!keyring_unseal_object_key(keyring, &info, stanzas, size + 4, &keys, &err))
        CAIRN_ASSERT(err.kind == CAIRN_CORRUPT && !keys.has_body);
}

static void
fix(uint8_t *object, size_t size, unsigned what, const Repository *repository)
{
    CairnError err = {0};
    uint8_t digest[SHA256_SIZE];
    if (size < OBJECT_HEADER_SIZE + OBJECT_TRAILER_SIZE)
        return;
    uint8_t *trailer = object + size - OBJECT_TRAILER_SIZE;
    if ((what & FIX_HEADER) != 0) {
        bool hashed = sha256_of(NAME, strlen(NAME), digest, &err);
        CAIRN_ASSERT(hashed);
        memcpy(object, "PGCAIRN\n", 8);
        memcpy(object + 32, repository_id(repository), REPOSITORY_ID_SIZE);
        memcpy(object + 48, digest, 16);
        put_u32(object + 188, crc32c(0, object, 188));
    }
    if ((what & FIX_INDEX) != 0) {
        /* Somewhere in the object, by the input's own numbers. */
        const uint64_t end = size - OBJECT_TRAILER_SIZE;
        const uint64_t stored = get_u32(trailer + 16) % (end - OBJECT_HEADER_SIZE + 1);
        memcpy(trailer, "CRNT", 4);
        put_u64(trailer + 8, end - stored);
        put_u32(trailer + 16, (uint32_t)stored);
        put_u32(trailer + 24, crc32c(0, object + end - stored, stored));
    }
    if ((what & FIX_DIGEST) != 0) {
        const bool hashed = sha256_of(object, size - SHA256_SIZE, trailer + 32, &err);
        CAIRN_ASSERT(hashed);
    }
}

static bool
is_about_the_object(CairnErrorKind kind)
{
    return kind == CAIRN_CORRUPT || kind == CAIRN_UNSUPPORTED || kind == CAIRN_MISMATCH ||
           kind == CAIRN_DENIED || kind == CAIRN_SEALED;
}

static void
read_object(Repository *repository)
{
    CairnError err = {0}, frame = {0}, whole = {0}, small = {0};
    SCOPED(ObjectReader) reader = object_open(repository, NAME, OBJECT_FATE, &err);
    if (reader == NULL) {
        CAIRN_ASSERT(is_about_the_object(err.kind));
        return;
    }
    uint8_t data[16];
    const uint64_t start = object_body_start(reader), end = object_body_end(reader);
    CAIRN_ASSERT(start <= end && end <= object_stored_size(reader));
    CAIRN_ASSERT(object_pread(reader, data, sizeof data, start, &frame) ==
                 (end - start >= sizeof data));
    if (!object_scrub(reader, &whole))
        CAIRN_ASSERT(whole.kind == CAIRN_CORRUPT);

    size_t size;
    SCOPED_MEMORY char *text = object_get_small(repository, NAME, OBJECT_FATE, &size, NULL, &small);
    CAIRN_ASSERT(text == NULL || (whole.kind == CAIRN_OK && text[size] == '\0'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    if ((data[0] & STANZAS) != 0) {
        read_stanzas(data + 1, size - 1);
        return 0;
    }
    SCOPED(Repository) repository = memory_repository("none");
    if ((data[0] & ENCRYPTED) != 0)
        repository_take_keyring(repository, test_keyring(KEY_MODE_EPOCH, true));
    Storage *storage = repository_storage(repository);
    size_t object_size;
    memory_storage_replace(storage, NAME, data + 1, size - 1);
    fix(memory_storage_bytes(storage, NAME, &object_size), size - 1, data[0], repository);
    read_object(repository);
    return 0;
}
