/*
 * Files whose units lie scattered over packs of several backups, as incrementals leave them: packs
 * written unit by unit, and a map over any of them. Failures abort.
 *
 *     source_pack_begin(&pack, repository, 3, 0, 16);
 *     slot = source_pack_add(&pack, seed);                 a unit whose content follows from seed
 *     source_pack_finish(&pack);
 *     sources_add(&file, seed, &pack, slot);               the next unit of a file
 *     root = sources_map(repository, 9, files, count);     the map of the 9th backup
 */
#ifndef PGCAIRN_TESTS_SOURCES_FIXTURE_H
#define PGCAIRN_TESTS_SOURCES_FIXTURE_H

#include "repository/map.h"
#include "repository/pack.h"

enum { SOURCES_LIMIT = 256 };

typedef struct {
    uint32_t source; /* sequence of the backup: test_backup_id */
    uint32_t number;
    uint32_t slots_per_frame; /* 0: any */
    PackWriter *writer;
    CodecContext *codec;
    uint8_t *raw;
    uint32_t raw_slots;
    uint32_t wanted_slots; /* in the frame at hand */
    uint64_t random;
    uint32_t slot_count;
    uint32_t frame_count;
    uint32_t *frame_of; /* by slot */
} SourcePack;

void source_pack_begin(SourcePack *pack, Repository *repository, uint32_t source, uint32_t number,
                       uint32_t slots_per_frame);
uint32_t source_pack_add(SourcePack *pack, uint64_t seed);
void source_pack_finish(SourcePack *pack);
void source_pack_free(SourcePack *pack);

/* What a unit holds: zeros for seed 0. */
void source_unit(uint64_t seed, uint8_t data[UNIT_SIZE]);

typedef struct {
    char path[64];
    uint64_t tail_bytes; /* of the last unit that are missing */
    uint32_t unit_count;
    uint64_t *seeds; /* by unit */
    MapRun *runs;    /* creator: sequence of the backup */
    uint32_t run_count;
} SourceFile;

/* seed 0: zeros, in no pack. The unit's slot must have been added with the same seed. */
void sources_add(SourceFile *file, uint64_t seed, const SourcePack *pack, uint32_t slot);
uint64_t source_file_size(const SourceFile *file);
void source_file_free(SourceFile *file);

/* A map with these files, in the order of their paths, and a CRC for each. */
MapNodeRef sources_map(Repository *repository, uint32_t source, const SourceFile *files,
                       size_t count);

#endif
