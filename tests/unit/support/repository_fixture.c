#include "tests/unit/support/repository_fixture.h"

#include "tests/unit/support/memory_storage.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

Repository *
memory_repository(const char *compression)
{
    CairnError err = {0};
    const RepositoryConfig config = {
        .name = "memory", .path = "/", .encryption = "none", .compression = compression};
    Repository *repository =
        repository_open_storage(world_real(), &config, memory_storage_new(), true, &err);
    CAIRN_ASSERT(repository != NULL);
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
    return repository;
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
