/*
 * The index of a pack: the first byte says how many frames the body has (0 to 7), as many follow
 * with their lengths (times 16), the rest is the index. Every checksum of the container is right.
 */
#include "postgres/tar.h"
#include "repository/object.h"
#include "repository/pack.h"
#include "tests/unit/support/repository_fixture.h"

#include <string.h>

static bool
check_run(void *context, const PackRun *run, CairnError *err)
{
    (void)err;
    uint64_t *next_slot = context;
    CAIRN_ASSERT(run->first_slot == *next_slot && run->units > 0);
    CAIRN_ASSERT(run->class == MAP_CLASS_CLUSTER || run->class == MAP_CLASS_OURS);
    CAIRN_ASSERT(path_is_clean(run->path, strlen(run->path)));
    CAIRN_ASSERT(run->tail_bytes < UNIT_SIZE);
    *next_slot += run->units;
    return true;
}

static void
read_frames(const PackReader *reader)
{
    static uint8_t scratch[FRAME_SIZE + 4096], raw[FRAME_SIZE];
    CairnError err = {0};
    SCOPED(CodecContext) codec = codec_open(CODEC_NONE, 0, &err);
    CAIRN_ASSERT(codec != NULL);
    for (uint32_t slot = 0; slot < pack_slot_count(reader);) {
        uint32_t frame, first_slot, slot_count;
        CairnError failure = {0};
        const bool found = pack_find(reader, slot, &frame, &first_slot, &slot_count, &failure);
        CAIRN_ASSERT(found && first_slot == slot && slot_count > 0);
        CAIRN_ASSERT(pack_fingerprint(reader, slot) != NULL);
        if (!pack_read_frame(reader, frame, codec, scratch, raw, &failure))
            CAIRN_ASSERT(failure.kind == CAIRN_CORRUPT || failure.kind == CAIRN_UNSUPPORTED);
        slot += slot_count;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t body[256 * 16];
    SCOPED(Repository) repository = memory_repository("none");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    char name[STORAGE_NAME_LIMIT];
    ByteReader input = byte_reader(data, size);
    {
        pack_name(name, "main", &bid, 0);
        SCOPED(ObjectWriter) object = object_create(repository, name, OBJECT_PACK, 1, &err);
        const unsigned frames = byte_reader_u8(&input) % 8;
        for (unsigned i = 0; i < frames; i++) {
            const ObjectBlock block = {.data = body, .size = (uint32_t)byte_reader_u8(&input) * 16};
            ObjectFrame frame;
            const bool appended = object_append(object, &block, &frame, &err);
            CAIRN_ASSERT(appended);
        }
        const size_t left = byte_reader_left(&input);
        const bool finished =
            object_finish(object, byte_reader_bytes(&input, left), left, NULL, &err);
        CAIRN_ASSERT(finished);
    }
    SCOPED(PackReader) reader = pack_open(repository, "main", &bid, 0, &err);
    if (reader == NULL) {
        CAIRN_ASSERT(err.kind == CAIRN_CORRUPT || err.kind == CAIRN_UNSUPPORTED);
        return 0;
    }
    read_frames(reader);
    uint64_t next_slot = 0;
    if (pack_runs(reader, check_run, &next_slot, &err))
        CAIRN_ASSERT(next_slot == pack_slot_count(reader));
    return 0;
}
