/*
 * Packs: where units of files are kept, 16 to a frame (docs/format.md, "Pack").
 *
 * Threads: one writer one thread; a PackReader may be shared by threads: reading frames keeps no
 * state.
 */
#ifndef PGCAIRN_REPOSITORY_PACK_H
#define PGCAIRN_REPOSITORY_PACK_H

#include "repository/backup_id.h"
#include "repository/map.h"
#include "repository/object_scan.h"
#include "repository/repository.h"

#include <stdint.h>

enum { FRAME_SLOTS = 16, FRAME_SIZE = FRAME_SLOTS * UNIT_SIZE, PACK_TARGET_SIZE = 64 << 20 };

/* What every pack keeps to, and no reader takes more memory for (docs/format.md, "Pack"). */
enum { PACK_SLOT_LIMIT = 65536, PACK_INDEX_LIMIT = 4 << 20 };

/* Name of a data pack or map pack below a cluster's backup. name holds STORAGE_NAME_LIMIT bytes. */
void pack_name(char *name, const char *cluster, const BackupId *bid, uint32_t pack);
void map_pack_name(char *name, const char *cluster, const BackupId *bid, uint32_t pack);

/* A compressed frame on its way into a pack, which encrypts it where the repository is encrypted.
 */
typedef struct {
    const void *stored; /* borrowed */
    uint32_t stored_size;
    uint8_t codec;
    uint8_t slot_count;
    const uint8_t (*fingerprints)[FINGERPRINT_SIZE]; /* slot_count of them */
} PackFrame;

typedef struct PackWriter PackWriter;
PackWriter *pack_create(Repository *repository, const char *cluster, const BackupId *bid,
                        uint32_t pack, CairnError *err) MUST_CHECK;
/* Appends; *first_slot_out is the pack-wide number of the frame's first slot. */
bool pack_append(PackWriter *writer, const PackFrame *frame, uint32_t *first_slot_out,
                 CairnError *err) MUST_CHECK;
/* Several, whose stored bytes lie one after another in memory: one write. */
enum { PACK_FRAMES_AT_ONCE = 64 };
bool pack_append_frames(PackWriter *writer, const PackFrame *frames, uint32_t count,
                        uint32_t *first_slot_out, CairnError *err) MUST_CHECK;
/* The units just appended belong to this file: directory run; tail_bytes: 0, or bytes in the short
 * last. */
bool pack_add_run(PackWriter *writer, MapClass class, const char *path, uint64_t first_unit,
                  uint32_t units, uint32_t tail_bytes, CairnError *err) MUST_CHECK;
uint64_t pack_size_so_far(const PackWriter *writer);
/* What the directory would take in the index, nearly. */
size_t pack_directory_size_so_far(const PackWriter *writer);
/* Durable and named. frame_table: empty, filled with a copy of the frame table. */
bool pack_finish(PackWriter *writer, uint8_t digest_out[SHA256_SIZE], uint64_t *live_units_out,
                 uint64_t *stored_size_out, ByteWriter *frame_table, CairnError *err) MUST_CHECK;
void pack_writer_free(PackWriter *writer);
SCOPED_TYPE(PackWriter, pack_writer_free);

typedef struct PackReader PackReader;
PackReader *pack_open(Repository *repository, const char *cluster, const BackupId *bid,
                      uint32_t pack, CairnError *err) MUST_CHECK;
void pack_reader_free(PackReader *reader);
/* Keeps the frame table only: no fingerprints and no runs from then on. What is left takes
 * pack_memory_bytes. For who opens many packs just to read frames. */
void pack_drop_directory(PackReader *reader);
size_t pack_memory_bytes(const PackReader *reader);
uint32_t pack_slot_count(const PackReader *reader);
/* Frame that holds a slot, and its first slot and number of slots. CORRUPT when there is no such
 * slot. */
bool pack_find(const PackReader *reader, uint32_t slot, uint32_t *frame_out,
               uint32_t *first_slot_out, uint32_t *slot_count_out, CairnError *err) MUST_CHECK;
uint32_t pack_frame_count(const PackReader *reader);
/* Stored extent of a frame, for reading several at once. */
void pack_frame_extent(const PackReader *reader, uint32_t frame, uint64_t *offset_out,
                       uint32_t *stored_size_out, uint32_t *raw_size_out);
/* Reads frame and checks its CRC, decodes into raw (FRAME_SIZE bytes). codec: of the calling
   thread; scratch: FRAME_SIZE + 4096 bytes. */
bool pack_read_frame(const PackReader *reader, uint32_t frame, CodecContext *codec, void *scratch,
                     void *raw, CairnError *err) MUST_CHECK;
/* The same in two steps, for readers that fetch several neighbouring frames at once. SEALED on a
   host that only seals (object.h). */
bool pack_pread(const PackReader *reader, void *data, size_t size, uint64_t offset,
                CairnError *err) MUST_CHECK;
bool pack_decode_frame(const PackReader *reader, uint32_t frame, CodecContext *codec,
                       const void *stored, void *raw, CairnError *err) MUST_CHECK;
uint64_t pack_stored_size(const PackReader *reader);
/* Trailer digest (SHA256_SIZE bytes, borrowed). */
const uint8_t *pack_digest(const PackReader *reader);
/* Fingerprint stored for a slot (FINGERPRINT_SIZE bytes, borrowed). */
const uint8_t *pack_fingerprint(const PackReader *reader, uint32_t slot);
/* For who reads all frames in order, and then the whole object's digest (returned owned; the pack
 * must outlive it). */
ObjectScan *pack_scan(const PackReader *reader, CairnError *err) MUST_CHECK;
/* Keyless scrub of the whole object. */
bool pack_scrub(PackReader *reader, CairnError *err) MUST_CHECK;

/* Directory: calls back for each run, in slot order. Paths are clean (path_is_clean), runs have
 * units. */
typedef struct {
    MapClass class;
    const char *path;
    uint64_t first_unit;
    uint32_t units;
    uint32_t tail_bytes;
    uint32_t first_slot;
} PackRun;
typedef bool PackRunCallback(void *context, const PackRun *run, CairnError *err);
bool pack_runs(const PackReader *reader, PackRunCallback *callback, void *context,
               CairnError *err) MUST_CHECK;
SCOPED_TYPE(PackReader, pack_reader_free);

#endif
