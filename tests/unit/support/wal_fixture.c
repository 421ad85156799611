#include "tests/unit/support/wal_fixture.h"

#include "repository/wal_object.h"
#include "tests/unit/support/repository_fixture.h"
#include "tests/unit/support/scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAJOR = 15, RMGR_HEAP = 10, FILLER_SIZE = 6000 };

static const uint64_t SYSTEM_ID = UINT64_C(7301234567890123456); /* the WAL builder's */

static void
open_with(WalFixture *fixture, uint32_t segment_size, Keyring *keyring)
{
    CairnError err = {0};
    char file_name[300];

    memset(fixture, 0, sizeof *fixture);
    fault_disk_init(&fixture->disk);
    fixture->segment_size = segment_size;
    snprintf(fixture->root, sizeof fixture->root, "%s", scratch_path(scratch_directory(), "repo"));
    fixture->incarnation =
        (Incarnation){.system_id = SYSTEM_ID, .major = MAJOR, .wal_segment_size = segment_size};

    const RepositoryConfig config = {.name = "main", .path = fixture->root, .encryption = "none"};
    const bool made = repository_init(&fixture->disk.world, &config, &err);
    CAIRN_ASSERT(made);
    fixture->repository = repository_open(&fixture->disk.world, &config, &err);
    CAIRN_ASSERT(fixture->repository != NULL);
    if (keyring != NULL)
        repository_take_keyring(fixture->repository, keyring);
    else
        test_encrypt_as_asked(fixture->repository);
    const bool recorded =
        incarnation_record(fixture->repository, "main", &fixture->incarnation, &err);
    CAIRN_ASSERT(recorded);
    fixture->store = wal_store_open(fixture->repository, "main", &fixture->incarnation, &err);
    CAIRN_ASSERT(fixture->store != NULL);

    snprintf(file_name, sizeof file_name, "%s", scratch_path(scratch_directory(), "file"));
    fixture->file = open(file_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CAIRN_ASSERT(fixture->file >= 0);
    fault_disk_reset(&fixture->disk);
}

void
wal_fixture_open(WalFixture *fixture, uint32_t segment_size)
{
    open_with(fixture, segment_size, NULL);
}

void
wal_fixture_open_sealing(WalFixture *fixture, uint32_t segment_size)
{
    open_with(fixture, segment_size, test_keyring(KEY_MODE_SEALED, false));
}

void
wal_fixture_close(WalFixture *fixture)
{
    wal_store_close(fixture->store);
    repository_close(fixture->repository);
    close(fixture->file);
}

int
wal_fixture_setup(void **state)
{
    static WalFixture fixture;

    wal_fixture_open(&fixture, 1 << 20);
    *state = &fixture;
    return 0;
}

int
wal_fixture_teardown(void **state)
{
    wal_fixture_close(*state);
    return 0;
}

static WalBuilder
begin_segment(const WalFixture *fixture, uint32_t timeline, uint64_t number)
{
    WalBuilder builder;

    wal_builder_init(&builder, MAJOR, fixture->segment_size, number * fixture->segment_size);
    builder.timeline = timeline;
    return builder;
}

/* The builder's bytes, cut or filled with zeros to a segment. */
static uint8_t *
end_segment(const WalFixture *fixture, WalBuilder *builder)
{
    uint8_t *segment = calloc(1, fixture->segment_size);

    CAIRN_ASSERT(segment != NULL);
    memcpy(segment, builder->data,
           builder->size < fixture->segment_size ? builder->size : fixture->segment_size);
    wal_builder_free(builder);
    return segment;
}

/* Hard to compress and different in each record, so that frames are of real sizes. */
static void
add_noise(WalBuilder *builder)
{
    static uint64_t state = 88172645463325252u;
    uint64_t body[FILLER_SIZE / 8];

    for (size_t i = 0; i < FILLER_SIZE / 8; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body[i] = i % 3 == 0 ? 0 : state;
    }
    wal_builder_add(builder, RMGR_HEAP, 0, 0, body, sizeof body);
}

uint8_t *
wal_fixture_segment(const WalFixture *fixture, uint32_t timeline, uint64_t number)
{
    WalBuilder builder = begin_segment(fixture, timeline, number);

    while (builder.next_lsn - builder.base_lsn < fixture->segment_size)
        add_noise(&builder);
    return end_segment(fixture, &builder);
}

uint8_t *
wal_fixture_short_segment(const WalFixture *fixture, uint32_t timeline, uint64_t number,
                          bool with_switch, size_t *used_out)
{
    WalBuilder builder = begin_segment(fixture, timeline, number);
    uint64_t end_lsn;

    for (int i = 0; i < 5; i++)
        wal_builder_filler(&builder, 5000);
    end_lsn = builder.next_lsn;
    if (with_switch)
        end_lsn = wal_builder_switch(&builder) + 24;
    *used_out = (size_t)(end_lsn - number * fixture->segment_size);
    return end_segment(fixture, &builder);
}

PutResult
wal_fixture_put(WalFixture *fixture, const char *name, const void *data, size_t size)
{
    PutResult result = {0};
    const bool written =
        ftruncate(fixture->file, 0) == 0 && pwrite(fixture->file, data, size, 0) == (ssize_t)size;

    CAIRN_ASSERT(written);
    result.done = wal_store_put(fixture->store, name, fixture->file, &result.existed,
                                &result.tail_differs, &result.err);
    CAIRN_ASSERT(result.done == (result.err.kind == CAIRN_OK));
    return result;
}

void
wal_fixture_store(WalFixture *fixture, const char *name, const void *data, size_t size)
{
    const PutResult result = wal_fixture_put(fixture, name, data, size);

    if (!result.done)
        fprintf(stderr, "%s: %s\n", name, result.err.message);
    CAIRN_ASSERT(result.done && !result.existed);
}

void
wal_fixture_store_segment(WalFixture *fixture, uint32_t timeline, uint64_t number)
{
    char name[WAL_NAME_SIZE];
    size_t used;
    uint8_t *segment = wal_fixture_short_segment(fixture, timeline, number, true, &used);

    wal_segment_name(name, timeline, number, fixture->segment_size);
    wal_fixture_store(fixture, name, segment, fixture->segment_size);
    free(segment);
}

bool
wal_fixture_fetch(WalFixture *fixture, const char *name, CairnError *err)
{
    const int truncated = ftruncate(fixture->file, 0);

    CAIRN_ASSERT(truncated == 0);
    return wal_store_fetch(fixture->store, name, fixture->file, err);
}

bool
wal_fixture_fetched_equals(const WalFixture *fixture, const void *data, size_t size)
{
    uint8_t *fetched = malloc(size + 1);
    CAIRN_ASSERT(fetched != NULL);
    const ssize_t got = pread(fixture->file, fetched, size + 1, 0);
    const bool equal = got == (ssize_t)size && memcmp(fetched, data, size) == 0;

    free(fetched);
    return equal;
}

const char *
wal_fixture_object_path(const WalFixture *fixture, const char *below)
{
    static char path[1024];
    char incarnation[INCARNATION_NAME_SIZE];

    incarnation_name(incarnation, SYSTEM_ID, MAJOR);
    snprintf(path, sizeof path, "%s/c/main/w/%s/%s", fixture->root, incarnation, below);
    return path;
}

/* Decodes the frames of the stored object and makes the same of them in the new one; encrypted,
   they are other bytes, of which the index must have the checksums. */
static void
copy_frames(WalFixture *fixture, WalObject *object, ObjectWriter *writer, ByteWriter *index)
{
    enum { FRAMES_AT = 48 };
    CairnError err = {0};
    ByteReader bytes = byte_reader(index->data, index->size);
    byte_reader_bytes(&bytes, FRAMES_AT);
    byte_reader_varint(&bytes); /* count */
    for (size_t i = 0; i < object->index.frame_count; i++) {
        const ObjectFrame *old = &object->index.frames[i];
        ObjectBlock block;
        ObjectFrame frame;
        const bool copied = wal_object_frame(object, i, fixture->store->raw, &err) &&
                            wal_store_compress(fixture->store, old->raw_size, &block, &err) &&
                            object_append(writer, &block, &frame, &err);
        CAIRN_ASSERT(copied && frame.offset == old->offset &&
                     frame.stored_size == old->stored_size);
        byte_reader_u8(&bytes);
        byte_reader_varint(&bytes);
        byte_reader_varint(&bytes);
        CAIRN_ASSERT(byte_reader_u32(&bytes) == old->crc);
        put_u32(index->data + bytes.at - 4, frame.crc);
    }
}

void
wal_fixture_forge(WalFixture *fixture, const char *name, bool in_facts, size_t at, uint8_t bits)
{
    CairnError err = {0};
    WalFileName file;
    char object_name[STORAGE_NAME_LIMIT + 1];
    SCOPED_BYTES ByteWriter index = {0};

    const bool named = wal_file_name_parse(name, &file, &err) &&
                       wal_object_name(fixture->store, &file, name, NULL, object_name, &err);
    CAIRN_ASSERT(named);
    SCOPED(WalObject) object = wal_object_open(fixture->store, object_name, &file, &err);
    CAIRN_ASSERT(object != NULL);
    const ByteReader bytes = object_index(object->object);
    byte_writer_bytes(&index, bytes.data, bytes.size);
    if (in_facts)
        at += (size_t)(object->index.facts_data - bytes.data);
    CAIRN_ASSERT(at < index.size);
    index.data[at] ^= bits;

    const bool removed = storage_remove(repository_storage(fixture->repository), object_name, &err);
    SCOPED(ObjectWriter)
    writer = object_create(fixture->repository, object_name, OBJECT_WAL, 0, &err);
    CAIRN_ASSERT(removed && writer != NULL);
    copy_frames(fixture, object, writer, &index);
    const bool finished = object_finish(writer, index.data, index.size, NULL, &err);
    CAIRN_ASSERT(finished);
}
