#include "tests/unit/support/wal_fixture.h"

#include "tests/unit/support/scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAJOR = 15, RMGR_HEAP = 10, FILLER_SIZE = 6000 };

static const uint64_t SYSTEM_ID = UINT64_C(7301234567890123456); /* the WAL builder's */

void
wal_fixture_open(WalFixture *fixture, uint32_t segment_size)
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
wal_fixture_close(WalFixture *fixture)
{
    wal_store_close(fixture->store);
    repository_close(fixture->repository);
    close(fixture->file);
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
