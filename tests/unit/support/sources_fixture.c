#include "tests/unit/support/sources_fixture.h"

#include "common/digest.h"
#include "tests/unit/support/map_fixture.h"
#include "tests/unit/support/repository_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
source_unit(uint64_t seed, uint8_t data[UNIT_SIZE])
{
    uint64_t state = seed * 0x9e3779b97f4a7c15u;
    memset(data, 0, UNIT_SIZE);
    if (seed != 0)
        test_fill(&state, data, UNIT_SIZE);
}

void
source_pack_begin(SourcePack *pack, Repository *repository, uint32_t source, uint32_t number,
                  uint32_t slots_per_frame)
{
    CairnError err = {0};
    const BackupId bid = test_backup_id(source);
    *pack = (SourcePack){.source = source,
                         .number = number,
                         .slots_per_frame = slots_per_frame,
                         .random = source * UINT64_C(1000) + number + 1};
    pack->writer = pack_create(repository, "main", &bid, number, &err);
    pack->codec = repository_codec(repository, &err);
    pack->raw = malloc(FRAME_SIZE);
    pack->frame_of = malloc(UINT16_MAX * sizeof *pack->frame_of);
    CAIRN_ASSERT(pack->writer != NULL && pack->codec != NULL && pack->raw != NULL &&
                 pack->frame_of != NULL);
}

static void
end_frame(SourcePack *pack)
{
    CairnError err = {0};
    static const uint8_t FINGERPRINTS[FRAME_SLOTS][FINGERPRINT_SIZE];
    uint8_t stored[FRAME_SIZE + 4096];
    size_t stored_size;
    CodecId codec;
    uint32_t first_slot;

    const bool compressed =
        codec_compress(pack->codec, pack->raw, (size_t)pack->raw_slots * UNIT_SIZE, stored,
                       sizeof stored, &stored_size, &codec, &err);
    CAIRN_ASSERT(compressed);
    const PackFrame frame = {
        .stored = stored,
        .stored_size = (uint32_t)stored_size,
        .codec = (uint8_t)codec,
        .slot_count = (uint8_t)pack->raw_slots,
        .fingerprints = FINGERPRINTS,
    };
    const bool appended = pack_append(pack->writer, &frame, &first_slot, &err);
    CAIRN_ASSERT(appended && first_slot == pack->slot_count - pack->raw_slots);
    pack->frame_count++;
    pack->raw_slots = 0;
}

uint32_t
source_pack_add(SourcePack *pack, uint64_t seed)
{
    CAIRN_ASSERT(pack->slot_count < UINT16_MAX && seed != 0);
    if (pack->raw_slots == 0) {
        pack->wanted_slots = pack->slots_per_frame != 0
                                 ? pack->slots_per_frame
                                 : 1 + (uint32_t)test_random_below(&pack->random, FRAME_SLOTS);
    }
    source_unit(seed, pack->raw + (size_t)pack->raw_slots * UNIT_SIZE);
    pack->frame_of[pack->slot_count++] = pack->frame_count;
    if (++pack->raw_slots == pack->wanted_slots)
        end_frame(pack);
    return pack->slot_count - 1;
}

void
source_pack_finish(SourcePack *pack)
{
    CairnError err = {0};
    SCOPED_BYTES ByteWriter frame_table = {0};
    uint8_t digest[SHA256_SIZE];
    uint64_t live;
    uint64_t size;

    if (pack->raw_slots > 0)
        end_frame(pack);
    const bool finished =
        pack_add_run(pack->writer, MAP_CLASS_CLUSTER, "any", 0, pack->slot_count, 0, &err) &&
        pack_finish(pack->writer, digest, &live, &size, &frame_table, &err);
    CAIRN_ASSERT(finished);
    pack_writer_free(pack->writer);
    codec_close(pack->codec);
    free(pack->raw);
}

void
source_pack_free(SourcePack *pack)
{
    free(pack->frame_of);
}

void
sources_add(SourceFile *file, uint64_t seed, const SourcePack *pack, uint32_t slot)
{
    enum { STEP = 4096 };
    if (file->unit_count % STEP == 0) {
        const size_t room = file->unit_count + STEP;
        file->seeds = realloc(file->seeds, room * sizeof *file->seeds);
        file->runs = realloc(file->runs, room * sizeof *file->runs);
        CAIRN_ASSERT(file->seeds != NULL && file->runs != NULL);
    }
    const bool at_region = file->unit_count % REGION_UNITS == 0;
    file->seeds[file->unit_count++] = seed;
    MapRun *last = file->run_count > 0 && !at_region ? &file->runs[file->run_count - 1] : NULL;
    if (last != NULL && last->is_zero == (seed == 0) &&
        (seed == 0 || (last->creator == pack->source && last->pack == pack->number &&
                       last->slot + last->units == slot))) {
        last->units++;
        return;
    }
    MapRun *run = &file->runs[file->run_count++];
    *run = (MapRun){.is_zero = seed == 0, .units = 1};
    if (seed != 0) {
        run->creator = pack->source;
        run->pack = pack->number;
        run->slot = slot;
    }
}

uint64_t
source_file_size(const SourceFile *file)
{
    return (uint64_t)file->unit_count * UNIT_SIZE - file->tail_bytes;
}

void
source_file_free(SourceFile *file)
{
    free(file->seeds);
    free(file->runs);
}

static uint32_t
crc_of_file(const SourceFile *file)
{
    uint64_t left = source_file_size(file);
    uint32_t crc = 0;
    for (uint32_t unit = 0; unit < file->unit_count; unit++) {
        uint8_t data[UNIT_SIZE];
        const size_t size = left < UNIT_SIZE ? (size_t)left : UNIT_SIZE;
        source_unit(file->seeds[unit], data);
        crc = crc32c(crc, data, size);
        left -= size;
    }
    return crc;
}

static void
append_regions(ByteWriter *leaf, const SourceFile *file)
{
    byte_writer_varint(leaf, (file->unit_count + REGION_UNITS - 1) / REGION_UNITS);
    for (uint32_t first = 0, end; first < file->run_count; first = end) {
        uint64_t units = 0;
        for (end = first; end < file->run_count && units < REGION_UNITS; end++)
            units += file->runs[end].units;
        byte_writer_u8(leaf, 0);
        node_runs_append(leaf, file->runs + first, end - first);
    }
}

static void
append_file(ByteWriter *leaf, const SourceFile *file)
{
    const size_t path_size = strlen(file->path);
    byte_writer_varint(leaf, 0);
    byte_writer_varint(leaf, path_size + 1);
    byte_writer_u8(leaf, MAP_CLASS_CLUSTER);
    byte_writer_bytes(leaf, file->path, path_size);
    byte_writer_u8(leaf, MAP_FILE);
    byte_writer_varint(leaf, 0600);
    byte_writer_varint(leaf, source_file_size(file));
    byte_writer_u8(leaf, ENTRY_HAS_CRC);
    byte_writer_u32(leaf, crc_of_file(file));
    append_regions(leaf, file);
}

MapNodeRef
sources_map(Repository *repository, uint32_t source, const SourceFile *files, size_t count)
{
    SCOPED_BYTES ByteWriter leaf = {0};
    const BackupId bid = test_backup_id(source);
    RawMap map;

    /* A run's creator is the sequence: the table lists all of them. */
    byte_writer_u8(&leaf, NODE_LEAF);
    byte_writer_u8(&leaf, NODE_VERSION);
    byte_writer_varint(&leaf, SOURCES_LIMIT);
    for (uint32_t i = 0; i < SOURCES_LIMIT; i++) {
        const BackupId creator = test_backup_id(i);
        byte_writer_bytes(&leaf, creator.text, BACKUP_ID_LENGTH);
    }
    byte_writer_varint(&leaf, count);
    for (size_t i = 0; i < count; i++)
        append_file(&leaf, &files[i]);

    raw_map_begin(&map, repository, &bid);
    const MapNodeRef top = raw_map_node(&map, leaf.data, leaf.size);
    const MapNodeRef root = raw_map_root(&map, 0, &top);
    raw_map_finish(&map);
    return root;
}
