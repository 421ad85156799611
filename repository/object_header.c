#include "repository/object_header.h"

#include "common/libcrypto.h"

#include <string.h>

#define HEADER_MAGIC "PGCAIRN\n"

enum {
    FORMAT_MAJOR = 1,
    FORMAT_MINOR = 0,
    OBJECT_ID_SIZE = 16,
    SALT_SIZE = 32,

    /* Offsets (docs/format.md). */
    AT_KIND = 8,
    AT_MAJOR = 10,
    AT_MINOR = 12,
    AT_HEADER_LENGTH = 16,
    AT_INCOMPATIBLE = 20,
    AT_AEAD = 28,
    AT_KEY_MODE = 29,
    AT_KEY_EPOCH = 30,
    AT_REPOSITORY_ID = 32,
    AT_OBJECT_ID = 48,
    AT_CREATOR = 64,
    AT_CREATED = 72,
    AT_SALT = 80,
    AT_COMMITMENT = 112,
    AT_REST = 144,
    AT_HEADER_CRC = 188,
};

enum { AEAD_NONE = 0, AEAD_AES_256_GCM = 1 };

/* What is read at once: stanzas of three recipients come along. */
enum { FIRST_READ_SIZE = 512 };

_Static_assert((int)OBJECT_ID_SIZE == (int)KEYRING_ID_SIZE &&
                   (int)REPOSITORY_ID_SIZE == (int)KEYRING_ID_SIZE &&
                   (int)SALT_SIZE == (int)KEYRING_SALT_SIZE,
               "the fields that keys are derived from");

static bool
object_id_of(const char *name, uint8_t id[OBJECT_ID_SIZE], CairnError *err)
{
    uint8_t digest[SHA256_SIZE];
    if (!sha256_of(name, strlen(name), digest, err))
        return false;
    memcpy(id, digest, OBJECT_ID_SIZE);
    return true;
}

/* The first objects of a repository: they are read to learn what the keys are. */
static bool
is_always_plain(ObjectKind kind)
{
    return kind == OBJECT_REPOSITORY || kind == OBJECT_KEY;
}

/* Bodies that only a restore needs; all else a database host must be able to read again. */
static bool
holds_data(ObjectKind kind)
{
    return kind == OBJECT_PACK || kind == OBJECT_WAL || kind == OBJECT_WAL_BUNDLE ||
           kind == OBJECT_WAL_TAIL;
}

/* HMAC over all of the header but itself and the CRC, recipients included. */
static bool
commitment(const uint8_t *header, size_t length, const ObjectKeys *keys,
           uint8_t mac_out[SHA256_SIZE], CairnError *err)
{
    SCOPED_BYTES ByteWriter bytes = {0};
    byte_writer_bytes(&bytes, header, AT_COMMITMENT);
    byte_writer_bytes(&bytes, header + AT_REST, AT_HEADER_CRC - AT_REST);
    byte_writer_bytes(&bytes, header + OBJECT_HEADER_SIZE, length - OBJECT_HEADER_SIZE);
    return byte_writer_check(&bytes, err) &&
           hmac_sha256(keys->commit, sizeof keys->commit, bytes.data, bytes.size, mac_out, err);
}

static void
read_key_info(const uint8_t *header, ObjectKeyInfo *info)
{
    info->kind = get_u16(header + AT_KIND);
    info->mode = (KeyMode)header[AT_KEY_MODE];
    info->epoch = get_u16(header + AT_KEY_EPOCH);
    memcpy(info->repository_id, header + AT_REPOSITORY_ID, sizeof info->repository_id);
    memcpy(info->object_id, header + AT_OBJECT_ID, sizeof info->object_id);
    memcpy(info->salt, header + AT_SALT, sizeof info->salt);
}

/* -- making -- */

static bool
fill_plain(uint8_t header[OBJECT_HEADER_SIZE], const Repository *repository, const char *name,
           const ObjectHeaderFields *fields, CairnError *err)
{
    const World *world = repository_world(repository);
    memset(header, 0, OBJECT_HEADER_SIZE);
    memcpy(header, HEADER_MAGIC, 8);
    put_u16(header + AT_KIND, (uint16_t)fields->kind);
    put_u16(header + AT_MAJOR, FORMAT_MAJOR);
    put_u16(header + AT_MINOR, FORMAT_MINOR);
    put_u32(header + AT_HEADER_LENGTH, OBJECT_HEADER_SIZE);
    memcpy(header + AT_REPOSITORY_ID, repository_id(repository), REPOSITORY_ID_SIZE);
    put_u64(header + AT_CREATOR, fields->creator_sequence);
    put_u64(header + AT_CREATED, (uint64_t)world->clock->wall_us(world->clock));
    if (world->random->fill(world->random, header + AT_SALT, SALT_SIZE) != 0)
        return cairn_error_errno(err, "unable to draw random bytes");
    return object_id_of(name, header + AT_OBJECT_ID, err);
}

/* Draws the object's keys, appends what its recipients need and commits to it all. */
static bool
encrypt_header(const Repository *repository, bool is_meta, ByteWriter *bytes, size_t start,
               ObjectKeys *keys, CairnError *err)
{
    ObjectKeyInfo info;
    read_key_info(bytes->data + start, &info);
    if (!keyring_make_object_keys(repository_keyring(repository), repository_world(repository),
                                  is_meta, &info, bytes, keys, err))
        return false;
    uint8_t *header = bytes->data + start;
    const size_t length = bytes->size - start;
    CAIRN_ASSERT(length <= OBJECT_HEADER_LIMIT);
    header[AT_AEAD] = AEAD_AES_256_GCM;
    header[AT_KEY_MODE] = (uint8_t)info.mode;
    put_u16(header + AT_KEY_EPOCH, info.epoch);
    put_u32(header + AT_HEADER_LENGTH, (uint32_t)length);
    return commitment(header, length, keys, header + AT_COMMITMENT, err);
}

bool
object_header_make(const Repository *repository, const char *name, const ObjectHeaderFields *fields,
                   ByteWriter *bytes, ObjectHeader *header_out, CairnError *err)
{
    const bool is_meta = fields->is_meta || !holds_data(fields->kind);
    uint8_t plain[OBJECT_HEADER_SIZE];
    const size_t start = bytes->size;
    *header_out = (ObjectHeader){0};
    if (!fill_plain(plain, repository, name, fields, err))
        return false;
    byte_writer_bytes(bytes, plain, sizeof plain);
    if (!byte_writer_check(bytes, err))
        return false;
    header_out->encrypted = repository_is_encrypted(repository) && !is_always_plain(fields->kind);
    if (header_out->encrypted && repository_keyring(repository) == NULL)
        return cairn_error(err, CAIRN_DENIED,
                           "object '%s' cannot be written without the repository's key", name);
    if (header_out->encrypted &&
        !encrypt_header(repository, is_meta, bytes, start, &header_out->keys, err)) {
        object_keys_wipe(&header_out->keys);
        return cairn_error_wrap(err, "object '%s'", name);
    }
    uint8_t *header = bytes->data + start;
    put_u32(header + AT_HEADER_CRC, crc32c(0, header, AT_HEADER_CRC));
    header_out->length = (uint32_t)(bytes->size - start);
    return true;
}

/* -- reading -- */

/* The part that needs no expectation. */
static bool
check_plain(const uint8_t header[OBJECT_HEADER_SIZE], const char *name, CairnError *err)
{
    if (memcmp(header, HEADER_MAGIC, 8) != 0 ||
        get_u32(header + AT_HEADER_CRC) != crc32c(0, header, AT_HEADER_CRC))
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': header is damaged", name);
    if (get_u16(header + AT_MAJOR) != FORMAT_MAJOR || get_u32(header + AT_INCOMPATIBLE) != 0) {
        cairn_error(err, CAIRN_UNSUPPORTED,
                    "object '%s' has format %u with flags 0x%x, this version knows format %d", name,
                    get_u16(header + AT_MAJOR), get_u32(header + AT_INCOMPATIBLE), FORMAT_MAJOR);
        return cairn_error_hint(err, "use the pgcairn that made it, or a newer one");
    }
    const uint8_t aead = header[AT_AEAD], mode = header[AT_KEY_MODE];
    if (aead > AEAD_AES_256_GCM || mode > KEY_MODE_META ||
        (aead == AEAD_NONE) != (mode == KEY_MODE_NONE)) {
        return cairn_error(err, CAIRN_UNSUPPORTED,
                           "object '%s' is encrypted in a way that this version cannot read "
                           "(%u, %u)",
                           name, aead, mode);
    }
    const uint32_t length = get_u32(header + AT_HEADER_LENGTH);
    if (length < OBJECT_HEADER_SIZE || length > OBJECT_HEADER_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': header length %u", name, length);
    return true;
}

static bool
check_identity(const uint8_t header[OBJECT_HEADER_SIZE], const Repository *repository,
               const char *name, ObjectKind kind, CairnError *err)
{
    if (memcmp(header + AT_REPOSITORY_ID, repository_id(repository), REPOSITORY_ID_SIZE) != 0)
        return cairn_error(err, CAIRN_MISMATCH, "object '%s' belongs to another repository", name);
    uint8_t id[OBJECT_ID_SIZE];
    if (!object_id_of(name, id, err))
        return false;
    if (memcmp(header + AT_OBJECT_ID, id, sizeof id) != 0 || get_u16(header + AT_KIND) != kind)
        return cairn_error(err, CAIRN_MISMATCH, "object '%s' holds another object's content", name);
    return true;
}

/* Is it encrypted where it must be? Who can write to the storage must not be able to slip us
   something of his own by leaving encryption out. */
static bool
check_encryption(const uint8_t header[OBJECT_HEADER_SIZE], const Repository *repository,
                 const char *name, ObjectKind kind, CairnError *err)
{
    const bool encrypted = header[AT_AEAD] != AEAD_NONE;
    if (is_always_plain(kind) && encrypted)
        return cairn_error(err, CAIRN_MISMATCH, "object '%s' is encrypted, which its kind never is",
                           name);
    if (is_always_plain(kind))
        return true;
    if (!encrypted && repository_is_encrypted(repository)) {
        cairn_error(err, CAIRN_MISMATCH,
                    "object '%s' is not encrypted, though the repository is: refused", name);
        return cairn_error_hint(err, "pgcairn never wrote it here; who did has access to the "
                                     "storage");
    }
    if (encrypted && !repository_is_encrypted(repository)) {
        cairn_error(err, CAIRN_MISMATCH, "object '%s' is encrypted, though the repository is not",
                    name);
        return cairn_error_hint(err, "pgcairn never wrote it here; who did has access to the "
                                     "storage");
    }
    if (encrypted && repository_keyring(repository) == NULL) {
        cairn_error(err, CAIRN_DENIED, "object '%s' is encrypted and needs the repository's key",
                    name);
        return cairn_error_hint(err, "the repository's section of the configuration says where its "
                                     "key is");
    }
    return true;
}

/* All of the header, first_size bytes of which are in bytes already. */
static bool
read_rest(StorageReader *storage, const char *name, ByteWriter *bytes, uint32_t length,
          CairnError *err)
{
    if (length > storage->size_bytes)
        return cairn_error(err, CAIRN_CORRUPT, "object '%s' ends within its header", name);
    if (length <= bytes->size)
        return true;
    SCOPED_MEMORY uint8_t *rest = malloc(length - bytes->size);
    if (rest == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    const size_t missing = length - bytes->size;
    if (!storage_pread(storage, rest, missing, bytes->size, err))
        return false;
    byte_writer_bytes(bytes, rest, missing);
    return byte_writer_check(bytes, err);
}

/* What may be under which key. Of WAL, histories are metadata. */
static bool
check_mode(const ObjectKeyInfo *info, ObjectKind kind, CairnError *err)
{
    const bool is_meta = info->mode == KEY_MODE_META;
    if (holds_data(kind) ? !is_meta || kind == OBJECT_WAL : is_meta)
        return true;
    return cairn_error(err, CAIRN_MISMATCH, "it has key mode %d, which its kind never has",
                       (int)info->mode);
}

/* Keys, and the proof that the header was made by who had them. */
static bool
find_keys(const Repository *repository, const uint8_t *header, uint32_t length, ObjectKind kind,
          ObjectKeys *keys, CairnError *err)
{
    const Keyring *keyring = repository_keyring(repository);
    const uint8_t *stanzas = header + OBJECT_HEADER_SIZE;
    const size_t stanzas_size = length - OBJECT_HEADER_SIZE;
    uint8_t expected[SHA256_SIZE];
    ObjectKeyInfo info;
    read_key_info(header, &info);
    if ((info.mode == KEY_MODE_SEALED && !keyring_check_stanzas(stanzas, stanzas_size, err)) ||
        !check_mode(&info, kind, err) || !keyring_find_object_keys(keyring, &info, keys, err) ||
        !commitment(header, length, keys, expected, err))
        return false;
    if (CRYPTO_memcmp(expected, header + AT_COMMITMENT, sizeof expected) != 0) {
        return cairn_error(err, CAIRN_MISMATCH,
                           "wrong key, or a forged header: it does not prove that it was made with "
                           "this repository's key");
    }
    return info.mode != KEY_MODE_SEALED ||
           keyring_unseal_object_key(keyring, &info, stanzas, stanzas_size, keys, err);
}

bool
object_header_read(const Repository *repository, StorageReader *storage, const char *name,
                   ObjectKind kind, ObjectHeader *header_out, CairnError *err)
{
    uint8_t first[FIRST_READ_SIZE];
    const size_t wanted =
        repository_is_encrypted(repository) ? FIRST_READ_SIZE : OBJECT_HEADER_SIZE;
    const size_t size = storage->size_bytes < wanted ? (size_t)storage->size_bytes : wanted;
    CAIRN_ASSERT(size >= OBJECT_HEADER_SIZE);
    *header_out = (ObjectHeader){0};
    if (!storage_pread(storage, first, size, 0, err) || !check_plain(first, name, err) ||
        !check_identity(first, repository, name, kind, err) ||
        !check_encryption(first, repository, name, kind, err))
        return false;
    header_out->length = get_u32(first + AT_HEADER_LENGTH);
    header_out->created_us = (int64_t)get_u64(first + AT_CREATED);
    header_out->encrypted = first[AT_AEAD] != AEAD_NONE;
    if (!header_out->encrypted)
        return true;
    SCOPED_BYTES ByteWriter bytes = {0};
    byte_writer_bytes(&bytes, first, size);
    if (!byte_writer_check(&bytes, err) ||
        !read_rest(storage, name, &bytes, header_out->length, err))
        return false;
    if (find_keys(repository, bytes.data, header_out->length, kind, &header_out->keys, err))
        return true;
    object_keys_wipe(&header_out->keys);
    return cairn_error_wrap(err, "object '%s'", name);
}

bool
object_header_repository_id(StorageReader *storage, const char *name,
                            uint8_t id_out[REPOSITORY_ID_SIZE], CairnError *err)
{
    uint8_t header[OBJECT_HEADER_SIZE];
    if (!storage_pread(storage, header, sizeof header, 0, err) || !check_plain(header, name, err))
        return false;
    memcpy(id_out, header + AT_REPOSITORY_ID, REPOSITORY_ID_SIZE);
    return true;
}

bool
object_header_check_place(const uint8_t header[OBJECT_HEADER_SIZE], const char *name,
                          const uint8_t *repository_id, uint8_t id_out[REPOSITORY_ID_SIZE],
                          CairnError *err)
{
    uint8_t id[OBJECT_ID_SIZE];
    if (memcmp(header, HEADER_MAGIC, 8) != 0 ||
        get_u32(header + AT_HEADER_CRC) != crc32c(0, header, AT_HEADER_CRC))
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': header is damaged", name);
    if (repository_id != NULL &&
        memcmp(header + AT_REPOSITORY_ID, repository_id, REPOSITORY_ID_SIZE) != 0)
        return cairn_error(err, CAIRN_MISMATCH, "object '%s' belongs to another repository", name);
    if (!object_id_of(name, id, err))
        return false;
    if (memcmp(header + AT_OBJECT_ID, id, sizeof id) != 0)
        return cairn_error(err, CAIRN_MISMATCH, "object '%s' holds another object's content", name);
    memcpy(id_out, header + AT_REPOSITORY_ID, REPOSITORY_ID_SIZE);
    return true;
}

bool
object_read_repository_id(Repository *repository, const char *name, uint8_t *id_out,
                          CairnError *err)
{
    SCOPED(StorageReader) reader = storage_open(repository_storage(repository), name, err);
    if (reader == NULL)
        return false;
    return object_header_repository_id(reader, name, id_out, err);
}
