#include "repository/pack.h"

#include "repository/object.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { FRAMES = 40 };

/* A pack with frames of random lengths, and what it should say of each slot. */
typedef struct {
    Repository *repository;
    BackupId bid;
    uint32_t slots;
    uint32_t first_slot[FRAMES + 1];
    uint8_t fill[FRAMES]; /* byte that a frame's slots are full of */
} PackFixture;

static void
open_fixture(PackFixture *fixture, const char *compression)
{
    *fixture =
        (PackFixture){.repository = memory_repository(compression), .bid = test_backup_id(3)};
}

static void
close_fixture(PackFixture *fixture)
{
    repository_close(fixture->repository);
}

static void
append_frame(PackFixture *fixture, PackWriter *writer, CodecContext *codec, uint32_t number,
             uint8_t slot_count)
{
    CairnError err = {0};
    static uint8_t raw[FRAME_SIZE], stored[FRAME_SIZE + 4096];
    uint8_t fingerprints[FRAME_SLOTS][FINGERPRINT_SIZE];
    size_t stored_size;
    CodecId id;
    uint32_t first_slot;
    fixture->fill[number] = (uint8_t)(number + 1);
    memset(raw, fixture->fill[number], sizeof raw);
    memset(fingerprints, fixture->fill[number], sizeof fingerprints);
    assert_true(codec_compress(codec, raw, (size_t)slot_count * UNIT_SIZE, stored, sizeof stored,
                               &stored_size, &id, &err));
    const PackFrame frame = {.stored = stored,
                             .stored_size = (uint32_t)stored_size,
                             .codec = (uint8_t)id,
                             .slot_count = slot_count,
                             .fingerprints = (const uint8_t(*)[FINGERPRINT_SIZE])fingerprints};
    assert_true(pack_append(writer, &frame, &first_slot, &err));
    assert_int_equal(first_slot, fixture->slots);
    fixture->first_slot[number] = fixture->slots;
    fixture->slots += slot_count;
    fixture->first_slot[number + 1] = fixture->slots;
}

/* Two runs of one file, a file of the other class, back to the first: in each frame. */
static void
write_pack(PackFixture *fixture)
{
    CairnError err = {0};
    uint64_t random = 4711, live, stored_size;
    uint8_t digest[SHA256_SIZE];
    SCOPED_BYTES ByteWriter frame_table = {0};
    SCOPED(CodecContext) codec = repository_codec(fixture->repository, &err);
    SCOPED(PackWriter) writer = pack_create(fixture->repository, "main", &fixture->bid, 5, &err);
    assert_true(codec != NULL && writer != NULL);
    for (uint32_t i = 0; i < FRAMES; i++) {
        const uint8_t slots = (uint8_t)(3 + test_random_below(&random, FRAME_SLOTS - 2));
        append_frame(fixture, writer, codec, i, slots);
        assert_true(pack_add_run(writer, MAP_CLASS_CLUSTER, "base/5/16384", i * 100, 1, 0, &err));
        assert_true(pack_add_run(writer, MAP_CLASS_CLUSTER, "base/5/16384", i * 100 + 7, slots - 2u,
                                 0, &err));
        assert_true(pack_add_run(writer, MAP_CLASS_OURS, "backup_manifest", i, 1, 17, &err));
    }
    const uint64_t size_so_far = pack_size_so_far(writer);
    assert_true(pack_finish(writer, digest, &live, &stored_size, &frame_table, &err));
    assert_int_equal(live, fixture->slots);
    assert_true(stored_size > size_so_far);
    assert_int_equal(frame_table.data[0], FRAMES);
}

static void
test_slots_are_found_and_read_back(void **state)
{
    (void)state;
    static const char *const codecs[] = {"none", "lz4", "zstd"};
    for (size_t c = 0; c < 3; c++) {
        CairnError err = {0};
        PackFixture fixture;
        open_fixture(&fixture, codecs[c]);
        write_pack(&fixture);
        SCOPED(CodecContext) codec = codec_open(CODEC_NONE, 0, &err);
        SCOPED(PackReader) reader = pack_open(fixture.repository, "main", &fixture.bid, 5, &err);
        assert_true(codec != NULL && reader != NULL);
        assert_int_equal(pack_slot_count(reader), fixture.slots);
        assert_int_equal(pack_frame_count(reader), FRAMES);
        for (uint32_t slot = 0; slot < fixture.slots; slot++) {
            static uint8_t scratch[FRAME_SIZE + 4096], raw[FRAME_SIZE];
            uint32_t frame, first_slot, slot_count;
            assert_true(pack_find(reader, slot, &frame, &first_slot, &slot_count, &err));
            assert_true(first_slot <= slot && slot < first_slot + slot_count);
            assert_int_equal(first_slot, fixture.first_slot[frame]);
            assert_int_equal(first_slot + slot_count, fixture.first_slot[frame + 1]);
            assert_int_equal(pack_fingerprint(reader, slot)[0], fixture.fill[frame]);
            if (slot != first_slot)
                continue;
            assert_true(pack_read_frame(reader, frame, codec, scratch, raw, &err));
            for (size_t i = 0; i < (size_t)slot_count * UNIT_SIZE; i++)
                assert_true(raw[i] == fixture.fill[frame]);
        }
        uint32_t ignored;
        assert_false(pack_find(reader, fixture.slots, &ignored, &ignored, &ignored, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        close_fixture(&fixture);
    }
}

typedef struct {
    const PackFixture *fixture;
    uint32_t count;
    uint32_t next_slot;
    uint32_t stop_at; /* 0: never */
} RunCheck;

static bool
check_run(void *context, const PackRun *run, CairnError *err)
{
    RunCheck *check = context;
    const uint32_t frame = check->count / 3, kind = check->count % 3;
    assert_int_equal(run->first_slot, check->next_slot);
    assert_int_equal(run->class, kind == 2 ? MAP_CLASS_OURS : MAP_CLASS_CLUSTER);
    assert_string_equal(run->path, kind == 2 ? "backup_manifest" : "base/5/16384");
    assert_int_equal(run->first_unit, kind == 2 ? frame : frame * 100 + (kind == 1 ? 7 : 0));
    assert_int_equal(run->tail_bytes, kind == 2 ? 17 : 0);
    check->next_slot += run->units;
    check->count++;
    if (check->count == check->stop_at)
        return cairn_error(err, CAIRN_CANCELLED, "enough");
    return true;
}

static void
test_the_directory_says_whose_each_slot_is(void **state)
{
    (void)state;
    CairnError err = {0};
    PackFixture fixture;
    open_fixture(&fixture, "lz4");
    write_pack(&fixture);
    SCOPED(PackReader) reader = pack_open(fixture.repository, "main", &fixture.bid, 5, &err);
    assert_non_null(reader);
    RunCheck check = {.fixture = &fixture};
    assert_true(pack_runs(reader, check_run, &check, &err));
    assert_int_equal(check.count, 3 * FRAMES);
    assert_int_equal(check.next_slot, fixture.slots);

    check = (RunCheck){.fixture = &fixture, .stop_at = 5};
    assert_false(pack_runs(reader, check_run, &check, &err));
    assert_int_equal(err.kind, CAIRN_CANCELLED);
    assert_int_equal(check.count, 5);
    close_fixture(&fixture);
}

static void
test_a_damaged_frame_is_noticed_and_its_neighbours_are_read(void **state)
{
    (void)state;
    CairnError err = {0};
    PackFixture fixture;
    char name[STORAGE_NAME_LIMIT];
    size_t size;
    uint64_t offset;
    uint32_t stored_size, raw_size;
    static uint8_t scratch[FRAME_SIZE + 4096], raw[FRAME_SIZE];
    open_fixture(&fixture, "lz4");
    write_pack(&fixture);
    SCOPED(CodecContext) codec = codec_open(CODEC_NONE, 0, &err);
    SCOPED(PackReader) before = pack_open(fixture.repository, "main", &fixture.bid, 5, &err);
    assert_true(codec != NULL && before != NULL);
    pack_frame_extent(before, 7, &offset, &stored_size, &raw_size);

    pack_name(name, "main", &fixture.bid, 5);
    memory_storage_bytes(repository_storage(fixture.repository), name, &size)[offset + 3] ^= 0x10;
    SCOPED(PackReader) reader = pack_open(fixture.repository, "main", &fixture.bid, 5, &err);
    assert_non_null(reader);
    assert_false(pack_read_frame(reader, 7, codec, scratch, raw, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    cairn_error_clear(&err);
    assert_true(pack_read_frame(reader, 6, codec, scratch, raw, &err));
    assert_true(pack_read_frame(reader, 8, codec, scratch, raw, &err));
    assert_false(pack_scrub(reader, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    close_fixture(&fixture);
}

/* Indexes written by an enemy, who makes every checksum right. The body has two frames of 10 bytes.
 */
typedef struct {
    uint16_t layout;
    uint8_t algorithm;
    uint64_t frames, slots_of_first, stored_of_first;
    uint64_t runs, file, first_unit, units, tail;
    const char *key;
    size_t key_size;
    size_t fingerprints;
    bool rubbish_at_end;
} HostileIndex;

static const HostileIndex good_index = {.layout = 1,
                                        .algorithm = 1,
                                        .frames = 2,
                                        .slots_of_first = 3,
                                        .stored_of_first = 10,
                                        .runs = 1,
                                        .file = 0,
                                        .first_unit = 5,
                                        .units = 4,
                                        .tail = 0,
                                        .key = "\0base/1",
                                        .key_size = 7,
                                        .fingerprints = 4};

static void
write_hostile(Repository *repository, const BackupId *bid, const HostileIndex *index)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    pack_name(name, "main", bid, 0);
    SCOPED(ObjectWriter) object = object_create(repository, name, OBJECT_PACK, 1, &err);
    assert_non_null(object);
    ObjectFrame frames[2];
    for (int i = 0; i < 2; i++)
        frames[i] = test_append(object, "0123456789", 10);
    const uint32_t more = frames[0].stored_size - 10; /* a tag, where it is encrypted */
    SCOPED_BYTES ByteWriter bytes = {0};
    byte_writer_u16(&bytes, index->layout);
    byte_writer_u8(&bytes, index->algorithm);
    byte_writer_u8(&bytes, 0);
    byte_writer_varint(&bytes, index->frames);
    for (int i = 0; i < 2; i++) {
        byte_writer_u8(&bytes, 0);
        byte_writer_u8(&bytes, (uint8_t)(i == 0 ? index->slots_of_first : 1));
        byte_writer_varint(&bytes, (i == 0 ? index->stored_of_first : 10) + more);
        byte_writer_u32(&bytes, frames[i].crc);
    }
    byte_writer_varint(&bytes, index->runs);
    byte_writer_varint(&bytes, index->file);
    if (index->file == 0) {
        byte_writer_varint(&bytes, index->key_size);
        byte_writer_bytes(&bytes, index->key, index->key_size);
    }
    byte_writer_varint(&bytes, index->first_unit);
    byte_writer_varint(&bytes, index->units);
    byte_writer_varint(&bytes, index->tail);
    if (index->rubbish_at_end)
        byte_writer_u8(&bytes, 0);
    for (size_t i = 0; i < index->fingerprints; i++)
        byte_writer_u64(&bytes, i);
    assert_true(object_finish(object, bytes.data, bytes.size, NULL, &err));
}

static bool
accept_run(void *context, const PackRun *run, CairnError *err)
{
    (void)context;
    (void)run;
    (void)err;
    return true;
}

/* CAIRN_OK when everything about it can be read. */
static CairnErrorKind
read_hostile(const HostileIndex *index)
{
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    SCOPED(Repository) repository = memory_repository("lz4");
    write_hostile(repository, &bid, index);
    SCOPED(PackReader) reader = pack_open(repository, "main", &bid, 0, &err);
    if (reader == NULL || !pack_runs(reader, accept_run, NULL, &err))
        return err.kind;
    return CAIRN_OK;
}

static void
test_a_hostile_index_is_refused(void **state)
{
    (void)state;
    static const char long_key[MAP_KEY_LIMIT + 1] = {0};
    assert_int_equal(read_hostile(&good_index), CAIRN_OK);
#define REFUSED(kind, ...)                                                                         \
    do {                                                                                           \
        HostileIndex index = good_index;                                                           \
        __VA_ARGS__;                                                                               \
        assert_int_equal(read_hostile(&index), kind);                                              \
    } while (0)
    REFUSED(CAIRN_UNSUPPORTED, index.layout = 2);
    REFUSED(CAIRN_UNSUPPORTED, index.algorithm = 2);
    REFUSED(CAIRN_CORRUPT, index.frames = 1);
    REFUSED(CAIRN_CORRUPT, index.frames = 3);
    REFUSED(CAIRN_CORRUPT, index.frames = UINT64_MAX);
    REFUSED(CAIRN_CORRUPT, index.slots_of_first = 0);
    REFUSED(CAIRN_CORRUPT, index.slots_of_first = 17);
    REFUSED(CAIRN_CORRUPT, index.stored_of_first = 0);
    REFUSED(CAIRN_CORRUPT, index.stored_of_first = 11);
    REFUSED(CAIRN_CORRUPT, index.stored_of_first = UINT64_MAX);
    REFUSED(CAIRN_CORRUPT, index.runs = 0);
    REFUSED(CAIRN_CORRUPT, index.runs = 2);
    REFUSED(CAIRN_CORRUPT, index.file = 1);
    REFUSED(CAIRN_CORRUPT, index.file = UINT64_MAX);
    REFUSED(CAIRN_CORRUPT, index.key_size = 1);
    REFUSED(CAIRN_CORRUPT, (index.key = long_key, index.key_size = sizeof long_key));
    REFUSED(CAIRN_CORRUPT, index.key = "\2base/1");
    REFUSED(CAIRN_CORRUPT, index.key = "\377base/1");
    REFUSED(CAIRN_CORRUPT, index.key = "\0../../");
    REFUSED(CAIRN_CORRUPT, index.key = "\0/ase/1");
    REFUSED(CAIRN_CORRUPT, index.key = "\0bas\0/1");
    REFUSED(CAIRN_CORRUPT, index.first_unit = UINT64_MAX);
    REFUSED(CAIRN_CORRUPT, index.units = 3);
    REFUSED(CAIRN_CORRUPT, index.units = 5);
    REFUSED(CAIRN_CORRUPT, index.units = 0);
    REFUSED(CAIRN_CORRUPT, index.units = UINT64_MAX);
    REFUSED(CAIRN_CORRUPT, index.tail = UNIT_SIZE);
    REFUSED(CAIRN_CORRUPT, index.fingerprints = 3);
    REFUSED(CAIRN_CORRUPT, index.fingerprints = 5);
    REFUSED(CAIRN_CORRUPT, index.fingerprints = 0);
    REFUSED(CAIRN_CORRUPT, index.rubbish_at_end = true);
#undef REFUSED
}

/* A pack of so many frames of 16 slots, which all are one file's. */
static void
write_frames(Repository *repository, const BackupId *bid, uint32_t count)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    ObjectFrame frame;
    SCOPED_BYTES ByteWriter index = {0};
    const ObjectBlock block = {.data = "0123456789", .size = 10, .raw_size = FRAME_SIZE};
    pack_name(name, "main", bid, 0);
    SCOPED(ObjectWriter) object = object_create(repository, name, OBJECT_PACK, 1, &err);
    assert_non_null(object);
    byte_writer_u16(&index, 1);
    byte_writer_u8(&index, 1);
    byte_writer_u8(&index, 0);
    byte_writer_varint(&index, count);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(object_append(object, &block, &frame, &err));
        byte_writer_u8(&index, 0);
        byte_writer_u8(&index, FRAME_SLOTS);
        byte_writer_varint(&index, frame.stored_size);
        byte_writer_u32(&index, frame.crc);
    }
    byte_writer_varint(&index, 1);
    byte_writer_varint(&index, 0);
    byte_writer_varint(&index, 5);
    byte_writer_bytes(&index, "\0base", 5);
    byte_writer_varint(&index, 0);
    byte_writer_varint(&index, count * FRAME_SLOTS);
    byte_writer_varint(&index, 0);
    for (uint32_t i = 0; i < count * FRAME_SLOTS; i++)
        byte_writer_u64(&index, i);
    assert_true(object_finish(object, index.data, index.size, NULL, &err));
}

/* What a reader takes memory for, a slot. */
static void
test_a_pack_of_more_slots_than_any_has_is_refused(void **state)
{
    (void)state;
    enum { MOST = PACK_SLOT_LIMIT / FRAME_SLOTS };
    for (uint32_t more = 0; more < 2; more++) {
        CairnError err = {0};
        const BackupId bid = test_backup_id(1);
        SCOPED(Repository) repository = memory_repository("lz4");
        write_frames(repository, &bid, MOST + more);
        SCOPED(PackReader) reader = pack_open(repository, "main", &bid, 0, &err);
        assert_true((reader != NULL) == (more == 0));
        assert_int_equal(err.kind, more == 0 ? CAIRN_OK : CAIRN_CORRUPT);
        assert_true(reader == NULL || pack_runs(reader, accept_run, NULL, &err));
    }
}

static void
test_an_index_larger_than_any_pack_has_is_refused_before_it_is_read(void **state)
{
    (void)state;
    enum { SIZE = PACK_INDEX_LIMIT + 1 };
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    const BackupId bid = test_backup_id(1);
    SCOPED(Repository) repository = memory_repository("lz4");
    SCOPED_MEMORY uint8_t *index = calloc(1, SIZE);
    pack_name(name, "main", &bid, 0);
    SCOPED(ObjectWriter) object = object_create(repository, name, OBJECT_PACK, 1, &err);
    assert_true(index != NULL && object != NULL);
    assert_true(object_finish(object, index, SIZE, NULL, &err));
    assert_null(pack_open(repository, "main", &bid, 0, &err));
    assert_int_equal(err.kind, CAIRN_CORRUPT);
    assert_non_null(strstr(err.message, "index would have"));
}

static void
test_an_empty_pack_is_read_back(void **state)
{
    (void)state;
    CairnError err = {0};
    SCOPED(Repository) repository = memory_repository("lz4");
    const BackupId bid = test_backup_id(1);
    uint8_t digest[SHA256_SIZE];
    uint64_t live, stored_size;
    uint32_t ignored;
    SCOPED_BYTES ByteWriter frame_table = {0};
    SCOPED(PackWriter) writer = pack_create(repository, "main", &bid, 0, &err);
    assert_non_null(writer);
    assert_true(pack_finish(writer, digest, &live, &stored_size, &frame_table, &err));
    SCOPED(PackReader) reader = pack_open(repository, "main", &bid, 0, &err);
    assert_non_null(reader);
    assert_true(pack_runs(reader, accept_run, NULL, &err));
    assert_false(pack_find(reader, 0, &ignored, &ignored, &ignored, &err));
    assert_memory_equal(pack_digest(reader), digest, SHA256_SIZE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_are_found_and_read_back),
        cmocka_unit_test(test_the_directory_says_whose_each_slot_is),
        cmocka_unit_test(test_a_damaged_frame_is_noticed_and_its_neighbours_are_read),
        cmocka_unit_test(test_a_hostile_index_is_refused),
        cmocka_unit_test(test_a_pack_of_more_slots_than_any_has_is_refused),
        cmocka_unit_test(test_an_index_larger_than_any_pack_has_is_refused_before_it_is_read),
        cmocka_unit_test(test_an_empty_pack_is_read_back),
    };
    return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
