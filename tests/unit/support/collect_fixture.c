#include "tests/unit/support/collect_fixture.h"

#include "common/bytes.h"
#include "repository/condemned.h"
#include "repository/fate.h"
#include "repository/json.h"
#include "repository/mark.h"
#include "repository/object.h"
#include "repository/pack.h"
#include "repository/refs.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static Lab *
lab_of(const Clock *clock)
{
    return (Lab *)(uintptr_t)clock;
}

static int64_t
lab_wall(const Clock *clock)
{
    return lab_of(clock)->wall_us;
}

static int64_t
lab_monotonic(const Clock *clock)
{
    return lab_of(clock)->monotonic_ns;
}

static void
lab_sleep(const Clock *clock, int64_t duration_ms)
{
    lab_pass(lab_of(clock), (duration_ms + 999) / 1000);
}

static int
lab_fill(const Random *random, void *data, size_t size)
{
    Lab *lab = (Lab *)((uintptr_t)random - offsetof(Lab, random));
    uint8_t *at = data;
    while (size > 0) {
        const uint64_t value = test_random(&lab->random_state);
        const size_t piece = size < sizeof value ? size : sizeof value;
        memcpy(at, &value, piece);
        at += piece;
        size -= piece;
    }
    return 0;
}

static void
lab_init(Lab *lab, const Disk *disk)
{
    *lab = (Lab){.clock = {lab_wall, lab_monotonic, lab_sleep},
                 .random = {lab_fill},
                 .random_state = 88172645463325252u,
                 .wall_us = INT64_C(1700000000000000),
                 .monotonic_ns = 1000};
    lab->world = (World){.disk = disk, .clock = &lab->clock, .random = &lab->random};
}

void
lab_open_storage(Lab *lab, Storage *storage)
{
    CairnError err = {0};
    const RepositoryConfig config = {
        .name = "memory", .path = "/", .encryption = "none", .compression = "none"};
    lab_init(lab, world_real()->disk);
    lab->repository = repository_open_storage(&lab->world, &config, storage, true, &err);
    assert_non_null(lab->repository);
    test_encrypt_as_asked(lab->repository);
}

void
lab_open(Lab *lab)
{
    lab_open_storage(lab, memory_storage_new());
}

void
lab_open_disk(Lab *lab, const Disk *disk, const char *root)
{
    lab_init(lab, disk);
    lab->repository = scratch_repository(&lab->world, root);
}

void
lab_close(Lab *lab)
{
    repository_close(lab->repository);
}

void
lab_pass(Lab *lab, int64_t seconds)
{
    lab->wall_us += seconds * 1000000;
    lab->monotonic_ns += seconds * 1000000000;
}

static void
put_packs(Lab *lab, const BackupId *bid, uint32_t packs, uint32_t map_packs)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    for (uint32_t i = 0; i < packs; i++) {
        pack_name(name, "main", bid, i);
        assert_true(storage_put(repository_storage(lab->repository), name, "pack", 4, &err));
    }
    for (uint32_t i = 0; i < map_packs; i++) {
        map_pack_name(name, "main", bid, i);
        assert_true(storage_put(repository_storage(lab->repository), name, "map", 3, &err));
    }
}

static void
add_ranges(ByteWriter *refs, const PackRange *ranges, size_t count, bool is_map)
{
    size_t wanted = 0;
    uint32_t end = 0;
    for (size_t i = 0; i < count; i++)
        wanted += ranges[i].is_map == is_map;
    byte_writer_varint(refs, wanted);
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].is_map != is_map)
            continue;
        byte_writer_varint(refs, ranges[i].first_pack - end);
        byte_writer_varint(refs, ranges[i].pack_count);
        byte_writer_varint(refs, is_map ? 0 : 1);
        end = ranges[i].first_pack + ranges[i].pack_count;
    }
}

static void
put_refs(Lab *lab, const BackupId *bid, const LabBackup *backup, uint8_t *digest_out)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    SCOPED_PACK_SET set = {0};
    SCOPED_BYTES ByteWriter refs = {0};
    assert_true(
        pack_set_add(&set, (PackRange){.creator = *bid, .pack_count = backup->packs}, &err));
    assert_true(pack_set_add(
        &set, (PackRange){.creator = *bid, .is_map = true, .pack_count = backup->map_packs}, &err));
    for (size_t i = 0; i < backup->other_count; i++)
        assert_true(pack_set_add(&set, backup->others[i], &err));
    pack_set_settle(&set);
    size_t creators = 0;
    for (size_t i = 0; i < set.count; i++)
        creators += i == 0 || !backup_id_equal(&set.ranges[i].creator, &set.ranges[i - 1].creator);
    byte_writer_u16(&refs, 1);
    byte_writer_u16(&refs, 0);
    byte_writer_varint(&refs, creators);
    for (size_t i = 0; i < set.count;) {
        size_t first;
        const size_t count = pack_set_of_creator(&set, &set.ranges[i].creator, &first);
        byte_writer_bytes(&refs, set.ranges[i].creator.text, BACKUP_ID_LENGTH);
        add_ranges(&refs, set.ranges + i, count, false);
        add_ranges(&refs, set.ranges + i, count, true);
        i += count;
    }
    snprintf(name, sizeof name, "c/main/b/%s/refs", bid->text);
    assert_true(object_put_small(lab->repository, name, OBJECT_REFS, backup_id_sequence(bid),
                                 refs.data, refs.size, digest_out, &err));
}

bool
lab_publish(Lab *lab, const BackupId *bid, const LabBackup *backup)
{
    CairnError err = {0};
    const uint64_t sequence = backup_id_sequence(bid);
    SCOPED(Fate) fate = test_fate(bid, "label");
    put_refs(lab, bid, backup, fate->refs_sha256);
    fate->system_id = backup->system_id != 0 ? backup->system_id : 1;
    fate->start_lsn = backup->start_lsn != 0 ? backup->start_lsn : sequence << 24;
    fate->stop_lsn = backup->stop_lsn != 0 ? backup->stop_lsn : fate->start_lsn + 1000;
    if (fate_commit(lab->repository, fate, &err))
        return true;
    assert_int_equal(err.kind, CAIRN_CONFLICT);
    return false;
}

BackupId
lab_backup(Lab *lab, uint64_t sequence, const LabBackup *backup)
{
    const BackupId bid = test_backup_id(sequence);
    put_packs(lab, &bid, backup->packs, backup->map_packs);
    assert_true(lab_publish(lab, &bid, backup));
    return bid;
}

BackupId
lab_attempt(Lab *lab, uint64_t sequence, const BackupId *parent, const BackupId *salvage,
            uint32_t packs)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(sequence);
    snprintf(name, sizeof name, "c/main/b/%s/intent", bid.text);
    SCOPED_JSON json_t *intent = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:s, s:o, s:s, s:s, s:i, s:s, s:o, s:o, s:o}", "token",
        "0011223344556677", "host", "elsewhere", "machine_id", "11111111111111111111111111111111",
        "boot_id", "22222222-2222-2222-2222-222222222222", "pid", 1, "process_start", "1",
        "started_at", json_time(lab->wall_us), "program", "test", "system_id", "1", "major", 17,
        "type", "full", "parent", parent != NULL ? json_string(parent->text) : json_null(),
        "salvage", salvage != NULL ? json_pack("[s]", salvage->text) : json_array(), "wal_floor",
        json_lsn(sequence << 24));
    assert_true(json_put(lab->repository, name, OBJECT_INTENT, sequence, intent, NULL, &err));
    put_packs(lab, &bid, packs, 0);
    return bid;
}

BackupId
lab_revoked(Lab *lab, uint64_t sequence, uint32_t packs)
{
    CairnError err = {0};
    const BackupId bid = lab_attempt(lab, sequence, NULL, NULL, packs);
    assert_true(fate_revoke(lab->repository, "main", &bid, "0011223344556677", "test", &err));
    return bid;
}

void
lab_expire(Lab *lab, const BackupId *bid)
{
    CairnError err = {0};
    assert_true(mark_add(lab->repository, "main", bid, MARK_EXPIRE, "", &err));
}

static bool
exists(Lab *lab, const char *name)
{
    CairnError err = {0};
    uint64_t size;
    const bool found = storage_exists(repository_storage(lab->repository), name, &size, &err);
    assert_true(found || err.kind == CAIRN_NOT_FOUND);
    return found;
}

bool
lab_has(Lab *lab, const BackupId *creator, bool is_map, uint32_t pack)
{
    char name[STORAGE_NAME_LIMIT];
    if (is_map)
        map_pack_name(name, "main", creator, pack);
    else
        pack_name(name, "main", creator, pack);
    return exists(lab, name);
}

unsigned
lab_packs(Lab *lab, const BackupId *creator, uint32_t limit)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < limit; i++)
        count +=
            (unsigned)lab_has(lab, creator, false, i) + (unsigned)lab_has(lab, creator, true, i);
    return count;
}

bool
lab_has_object(Lab *lab, const BackupId *bid, const char *last)
{
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/main/b/%s/%s", bid->text, last);
    return exists(lab, name);
}

static StorageListNext
count_name(void *context, const StorageEntry *entry, CairnError *err)
{
    (void)err;
    /* The reserve is no list. */
    *(unsigned *)context += strcmp(entry->name, "reserve") != 0;
    return STORAGE_LIST_GO_ON;
}

unsigned
lab_count(Lab *lab, const char *below)
{
    CairnError err = {0};
    char prefix[STORAGE_NAME_LIMIT];
    unsigned count = 0;
    snprintf(prefix, sizeof prefix, "c/main/%s", below);
    assert_true(
        storage_list(repository_storage(lab->repository), prefix, count_name, &count, &err));
    return count;
}

bool
lab_is_whole(Lab *lab, const BackupId *bid)
{
    CairnError err = {0};
    SCOPED(Fate) fate = fate_read(lab->repository, "main", bid, NULL, &err);
    assert_non_null(fate);
    SCOPED(Refs) refs = refs_read(lab->repository, fate, &err);
    for (size_t i = 0; refs != NULL && i < refs->count; i++) {
        const RefsRange *range = &refs->ranges[i];
        for (uint32_t k = 0; k < range->pack_count; k++) {
            if (!lab_has(lab, &range->creator, range->is_map, range->first_pack + k))
                return false;
        }
    }
    return refs != NULL;
}

void
lab_damage(Lab *lab, const char *name)
{
    memory_storage_replace(repository_storage(lab->repository), name, "rubbish", 7);
}

CollectReport
lab_collect(Lab *lab, int64_t grace_s)
{
    CairnError err = {0};
    CollectReport report;
    const CollectOptions options = {.cluster = "main", .grace_s = grace_s};
    if (!collect_run(lab->repository, &options, &report, &err))
        fail_msg("collect failed: %s", err.message);
    return report;
}

LabStage
lab_stage(Lab *lab)
{
    LabStage stage;
    stage.old = lab_backup(lab, 1, &(LabBackup){.packs = 3, .map_packs = 1});
    stage.base = lab_backup(lab, 2, &(LabBackup){.packs = 3, .map_packs = 2});
    const PackRange shared[] = {
        {.creator = stage.base, .is_map = false, .first_pack = 0, .pack_count = 1},
        {.creator = stage.base, .is_map = true, .first_pack = 0, .pack_count = 1},
    };
    stage.child = lab_backup(
        lab, 3, &(LabBackup){.packs = 1, .map_packs = 1, .others = shared, .other_count = 2});
    stage.dead = lab_revoked(lab, 4, 2);
    stage.attempt = lab_attempt(lab, 5, &stage.child, NULL, 2);
    stage.newest = lab_backup(lab, 6, &(LabBackup){.packs = 1, .map_packs = 1});
    lab_expire(lab, &stage.old);
    lab_expire(lab, &stage.base);
    return stage;
}

void
lab_check_kept(Lab *lab, const LabStage *stage)
{
    assert_true(lab_is_whole(lab, &stage->child));
    assert_true(lab_is_whole(lab, &stage->newest));
    assert_int_equal(lab_packs(lab, &stage->attempt, 2), 2);
    assert_true(lab_has_object(lab, &stage->attempt, "intent"));
    assert_true(lab_has_object(lab, &stage->old, "fate"));
    assert_true(lab_has_object(lab, &stage->base, "fate"));
    assert_true(lab_has_object(lab, &stage->dead, "fate"));
}

void
lab_check_gone(Lab *lab, const LabStage *stage)
{
    assert_int_equal(lab_packs(lab, &stage->old, 3), 0);
    assert_int_equal(lab_packs(lab, &stage->base, 3), 2);
    assert_int_equal(lab_packs(lab, &stage->dead, 2), 0);
    assert_false(lab_has_object(lab, &stage->old, "refs"));
    assert_false(lab_has_object(lab, &stage->base, "refs"));
    assert_false(lab_has_object(lab, &stage->dead, "intent"));
    CairnError err = {0};
    SCOPED_CONDEMNED lists = {0};
    assert_true(condemned_read_all(lab->repository, "main", &lists, &err));
    assert_int_equal(lists.count, 0);
}
