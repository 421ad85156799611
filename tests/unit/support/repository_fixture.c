#include "tests/unit/support/repository_fixture.h"

#include "tests/unit/support/memory_storage.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Roots of the tests' keyrings; the recipient's private key is that of RFC 7748, section 6.1 (Bob).
 */
static const uint8_t meta_root[KEY_SIZE] = "metadata root of the unit tests";
static const uint8_t data_root[KEY_SIZE] = "data root of the unit tests....";
static const uint8_t private_key[KEY_SIZE] = {
    0x5d, 0xab, 0x08, 0x7e, 0x62, 0x4a, 0x8a, 0x4b, 0x79, 0xe1, 0x7f, 0x8b, 0x83, 0x80, 0x0e, 0xe6,
    0x6f, 0x3b, 0xb1, 0x29, 0x26, 0x18, 0xb6, 0xfd, 0x1c, 0x2f, 0x8b, 0x27, 0xff, 0x88, 0xe0, 0xeb};
static const uint8_t recipient[1][KEY_SIZE] = {{0xde, 0x9e, 0xdb, 0x7d, 0x7b, 0x7d, 0xc1, 0xb4,
                                                0xd3, 0x5b, 0x61, 0xc2, 0xec, 0xe4, 0x35, 0x37,
                                                0x3f, 0x83, 0x43, 0xc8, 0x5b, 0x78, 0x67, 0x4d,
                                                0xad, 0xfc, 0x7e, 0x14, 0x6f, 0x88, 0x2b, 0x4f}};

Keyring *
test_keyring(KeyMode mode, bool with_private_key)
{
    CairnError err = {0};
    const bool sealed = mode == KEY_MODE_SEALED;
    const KeyringParts parts = {.mode = mode,
                                .epoch = 1,
                                .meta_root = meta_root,
                                .data_root = sealed ? NULL : data_root,
                                .recipients = recipient,
                                .recipient_count = sealed ? 1 : 0,
                                .private_key = sealed && with_private_key ? private_key : NULL};
    Keyring *keyring = keyring_new(&parts, &err);
    CAIRN_ASSERT(keyring != NULL);
    return keyring;
}

void
test_encrypt_as_asked(Repository *repository)
{
    const char *asked = getenv("PGCAIRN_TEST_ENCRYPTION");
    if (asked == NULL || asked[0] == '\0' || repository_is_encrypted(repository))
        return;
    repository_take_keyring(
        repository,
        test_keyring(strcmp(asked, "sealed") == 0 ? KEY_MODE_SEALED : KEY_MODE_EPOCH, true));
}

Repository *
memory_repository(const char *compression)
{
    CairnError err = {0};
    const RepositoryConfig config = {
        .name = "memory", .path = "/", .encryption = "none", .compression = compression};
    Repository *repository =
        repository_open_storage(world_real(), &config, memory_storage_new(), true, &err);
    CAIRN_ASSERT(repository != NULL);
    test_encrypt_as_asked(repository);
    return repository;
}

Repository *
scratch_repository(const World *world, const char *root)
{
    CairnError err = {0};
    const RepositoryConfig config = {.name = "main", .path = root, .encryption = "none"};
    const bool made = repository_init(world, &config, &err);
    CAIRN_ASSERT(made);
    Repository *repository = repository_open(world, &config, &err);
    CAIRN_ASSERT(repository != NULL);
    test_encrypt_as_asked(repository);
    return repository;
}

ObjectFrame
test_append(ObjectWriter *writer, const void *data, size_t size)
{
    CairnError err = {0};
    const ObjectBlock block = {.data = data, .size = (uint32_t)size, .raw_size = (uint32_t)size};
    ObjectFrame frame;
    const bool appended = object_append(writer, &block, &frame, &err);
    CAIRN_ASSERT(appended);
    return frame;
}

BackupId
test_backup_id(uint64_t sequence)
{
    char text[64];
    BackupId bid;
    snprintf(text, sizeof text, "%010" PRIu64 "-%016" PRIx64, sequence,
             sequence * 0x9e3779b97f4a7c15u);
    const bool parsed = backup_id_parse(text, &bid);
    CAIRN_ASSERT(parsed);
    return bid;
}

Fate *
test_fate(const BackupId *bid, const char *label)
{
    Fate *fate = fate_new();
    fate->committed = true;
    fate->bid = *bid;
    snprintf(fate->token, sizeof fate->token, "0123456789abcdef");
    fate->label = arena_strdup(fate->arena, label);
    fate->name = "before the upgrade";
    fate->type = "full";
    fate->cluster = "main";
    fate->system_id = UINT64_C(18446744073709551615);
    fate->major = 17;
    fate->server_version = "17.2";
    fate->from_standby = true;
    fate->start_lsn = UINT64_C(0x123456789abcdef0);
    fate->start_timeline = 3;
    fate->stop_lsn = UINT64_C(0x123456789abcdff0);
    fate->stop_timeline = UINT32_MAX;
    fate->wal_segment_size = 1 << 30;
    fate->started_us = 1700000000123456;
    fate->stopped_us = 1700000100654321;
    fate->backup_label = "START WAL LOCATION: 0/2000028\nLABEL: \"quoted\" \\ text\n";
    fate->tablespaces = arena_alloc(fate->arena, 2 * sizeof *fate->tablespaces);
    fate->tablespaces[0] = (FateTablespace){.oid = UINT32_MAX, .path = "/srv/a space/\xc3\xa4"};
    fate->tablespaces[1] = (FateTablespace){.oid = 16385, .path = "pg_tblspc/16385"};
    fate->tablespace_count = 2;
    fate->data_checksums = true;
    fate->damaged = false;
    fate->checksum_failures = arena_alloc(fate->arena, sizeof *fate->checksum_failures);
    fate->checksum_failures[0] = (FateChecksumFailure){.path = "base/5/16384", .block = 131071};
    fate->checksum_failures_listed = 1;
    fate->checksum_failure_count = 7;
    fate->warnings = arena_alloc(fate->arena, sizeof *fate->warnings);
    fate->warnings[0] = "a warning";
    fate->warning_count = 1;
    fate->map_root = (MapNodeRef){.creator = *bid,
                                  .pack = 2,
                                  .offset = 192,
                                  .stored_size = 100,
                                  .raw_size = 300,
                                  .codec = 1,
                                  .digest = {1, 2, 3}};
    memset(fate->refs_sha256, 0xa1, SHA256_SIZE);
    memset(fate->packs_sha256, 0xb2, SHA256_SIZE);
    memset(fate->manifest_sha256, 0xc3, SHA256_SIZE);
    fate->pack_count = 5;
    fate->map_pack_count = 3;
    fate->file_count = 1000;
    fate->size_bytes = UINT64_C(1) << 50;
    fate->stored_bytes = UINT64_C(1) << 48;
    fate->map_bytes = 4711;
    return fate;
}

uint64_t
test_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

uint64_t
test_random_below(uint64_t *state, uint64_t limit)
{
    return test_random(state) % limit;
}

void
test_fill(uint64_t *state, void *data, size_t size)
{
    uint8_t *at = data;
    for (size_t i = 0; i < size; i++)
        at[i] = i % 4 == 0 ? (uint8_t)test_random(state) : (uint8_t)(i / 64 + 1);
}
