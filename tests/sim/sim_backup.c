/*
 * Backups as the simulator makes them: one or two packs of one or two units each, a map and refs,
 * by the code that real backups use; and the way back. What a unit must hold follows from its
 * name, so reading needs no memory of what was written.
 */
#include "tests/sim/sim.h"

#include "repository/commit.h"
#include "repository/object.h"
#include "repository/pack.h"
#include "repository/refs.h"
#include "tests/unit/support/repository_fixture.h"

#include <stdio.h>
#include <string.h>

enum { REFS_LAYOUT = 1, PACKS_MAX = 2, SLOTS_MAX = 2, CREATORS_MAX = 24, INHERITED_MAX = 64 };

/* A pack that the backup refers to, somebody else's. */
typedef struct {
    BackupId creator;
    bool is_map;
    uint32_t pack;
} Inherited;

typedef struct {
    Actor *actor;
    Commit *commit;
    SimBackup *truth;
    MapBuilder *map;
    Sha256 *digests;
    uint32_t pack_count;
    uint32_t slots[PACKS_MAX];
    Inherited inherited[INHERITED_MAX];
    size_t inherited_count;
} Writing;

static void
fill_unit(const BackupId *bid, uint32_t pack, uint32_t slot, uint8_t raw[UNIT_SIZE])
{
    uint64_t state = 0x1234567 + pack * 1000 + slot;
    for (size_t i = 0; i < BACKUP_ID_LENGTH; i++)
        state = state * 31 + (uint8_t)bid->text[i];
    memset(raw, 0, UNIT_SIZE);
    for (size_t i = 0; i < 64; i += sizeof state) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
        memcpy(raw + i, &state, sizeof state);
    }
}

static void
file_path(uint32_t pack, char path[32])
{
    snprintf(path, 32, "base/5/%u", 16384 + pack);
}

static void
need_object(SimBackup *truth, const char *name, const uint8_t digest[SHA256_SIZE])
{
    CAIRN_ASSERT(truth->need_count < SIM_NEED_LIMIT);
    truth->needs[truth->need_count] = strdup(name);
    CAIRN_ASSERT(truth->needs[truth->need_count] != NULL);
    memcpy(truth->digests[truth->need_count++], digest, SHA256_SIZE);
}

/* --- packs --- */

static bool
append_frame(Writing *writing, PackWriter *pack, uint32_t number, uint32_t slots, CairnError *err)
{
    uint8_t raw[SLOTS_MAX * UNIT_SIZE], stored[SLOTS_MAX * UNIT_SIZE + 4096];
    uint8_t fingerprints[SLOTS_MAX][FINGERPRINT_SIZE];
    size_t stored_size;
    CodecId codec_id;
    uint32_t first_slot;
    SCOPED(CodecContext) codec = codec_open(CODEC_LZ4, 0, err);
    SCOPED(KeyedDigest)
    digest = repository_digest(writing->actor->repository, DIGEST_FINGERPRINT, err);
    if (codec == NULL || digest == NULL)
        return false;
    for (uint32_t i = 0; i < slots; i++) {
        uint8_t whole[KEYED_DIGEST_SIZE];
        fill_unit(commit_id(writing->commit), number, i, raw + i * UNIT_SIZE);
        if (!keyed_digest_of(digest, raw + i * UNIT_SIZE, UNIT_SIZE, whole, err))
            return false;
        memcpy(fingerprints[i], whole, FINGERPRINT_SIZE);
    }
    return codec_compress(codec, raw, slots * UNIT_SIZE, stored, sizeof stored, &stored_size,
                          &codec_id, err) &&
           pack_append(
               pack,
               &(PackFrame){.stored = stored,
                            .stored_size = (uint32_t)stored_size,
                            .codec = (uint8_t)codec_id,
                            .slot_count = (uint8_t)slots,
                            .fingerprints = (const uint8_t(*)[FINGERPRINT_SIZE])fingerprints},
               &first_slot, err);
}

static bool
write_pack(Writing *writing, uint32_t number, CairnError *err)
{
    Repository *repository = writing->actor->repository;
    const BackupId *bid = commit_id(writing->commit);
    const uint32_t slots = 1 + (uint32_t)sim_below(writing->actor->sim, SLOTS_MAX);
    char path[32], name[STORAGE_NAME_LIMIT];
    uint8_t digest[SHA256_SIZE];
    uint64_t live, stored_size;
    SCOPED_BYTES ByteWriter frame_table = {0};
    SCOPED(PackWriter) pack = pack_create(repository, SIM_CLUSTER, bid, number, err);
    file_path(number, path);
    if (pack == NULL || !append_frame(writing, pack, number, slots, err) ||
        !pack_add_run(pack, MAP_CLASS_CLUSTER, path, 0, slots, 0, err) ||
        !pack_finish(pack, digest, &live, &stored_size, &frame_table, err))
        return false;
    writing->slots[number] = slots;
    pack_name(name, SIM_CLUSTER, bid, number);
    need_object(writing->truth, name, digest);
    return sha256_update(writing->digests, digest, SHA256_SIZE, err) &&
           map_builder_add_frame_table(writing->map, number, frame_table.data, frame_table.size,
                                       err) &&
           map_builder_add(writing->map,
                           &(MapEntry){.class = MAP_CLASS_CLUSTER,
                                       .path = path,
                                       .type = MAP_FILE,
                                       .mode = 0640,
                                       .size_bytes = (uint64_t)slots * UNIT_SIZE},
                           &(MapRun){.units = slots, .pack = number}, 1, err);
}

/* --- what comes from others --- */

static void
inherit(Writing *writing, const BackupId *creator, bool is_map, uint32_t pack)
{
    if (writing->inherited_count < INHERITED_MAX)
        writing->inherited[writing->inherited_count++] = (Inherited){*creator, is_map, pack};
}

/* The parent's packs go on living in this backup, each by chance, or all. */
static bool
inherit_parent(Writing *writing, const SimBackupOptions *options, CairnError *err)
{
    Repository *repository = writing->actor->repository;
    SCOPED(Fate) fate = fate_read(repository, SIM_CLUSTER, options->parent, NULL, err);
    if (fate == NULL)
        return false;
    SCOPED(Refs) refs = refs_read(repository, fate, err);
    if (refs == NULL)
        return false;
    for (size_t i = 0; i < refs->count; i++) {
        const RefsRange *range = &refs->ranges[i];
        for (uint32_t k = 0; k < range->pack_count; k++) {
            if (options->inherits_all || sim_below(writing->actor->sim, 3) != 0)
                inherit(writing, &range->creator, range->is_map, range->first_pack + k);
        }
    }
    return true;
}

/* What a salvaging backup does with a dead attempt: it takes those packs that it can read. */
static bool
inherit_salvage(Writing *writing, const BackupId *salvage, CairnError *err)
{
    for (uint32_t pack = 0; pack < PACKS_MAX; pack++) {
        SCOPED(PackReader)
        reader = pack_open(writing->actor->repository, SIM_CLUSTER, salvage, pack, err);
        if (reader != NULL)
            inherit(writing, salvage, false, pack);
        else if (err->kind != CAIRN_NOT_FOUND)
            return false;
        else
            cairn_error_clear(err);
    }
    return true;
}

/* A backup needs what it inherits as much as what it wrote; the digests say that it is the same. */
static bool
need_inherited(Writing *writing, CairnError *err)
{
    const Sim *sim = writing->actor->sim;
    for (size_t i = 0; i < writing->inherited_count; i++) {
        const Inherited *one = &writing->inherited[i];
        char name[STORAGE_NAME_LIMIT];
        (one->is_map ? map_pack_name : pack_name)(name, SIM_CLUSTER, &one->creator, one->pack);
        SCOPED(ObjectReader)
        reader =
            object_open(sim->oracle->repository, name, one->is_map ? OBJECT_MAP : OBJECT_PACK, err);
        if (reader == NULL) {
            /* Gone already: a real backup might not read it, so this one will need it as well. */
            static const uint8_t unknown[SHA256_SIZE];
            cairn_error_clear(err);
            need_object(writing->truth, name, unknown);
        } else {
            need_object(writing->truth, name, object_digest(reader));
        }
    }
    return true;
}

/* --- refs --- */

static void
put_ranges(ByteWriter *refs, const Writing *writing, const BackupId *creator, bool is_map)
{
    bool is_in[256] = {false};
    uint32_t count = 0, end = 0;
    for (size_t i = 0; i < writing->inherited_count; i++) {
        const Inherited *one = &writing->inherited[i];
        CAIRN_ASSERT(one->pack < 256);
        if (one->is_map == is_map && backup_id_equal(&one->creator, creator))
            is_in[one->pack] = true;
    }
    for (uint32_t pack = 0; pack < 256; pack++)
        count += is_in[pack];
    byte_writer_varint(refs, count);
    for (uint32_t pack = 0; pack < 256; pack++) {
        if (!is_in[pack])
            continue;
        byte_writer_varint(refs, pack - end);
        byte_writer_varint(refs, 1);
        byte_writer_varint(refs, is_map ? 0 : 1);
        end = pack + 1;
    }
}

static bool
write_refs(Writing *writing, uint32_t map_pack_count, uint8_t digest_out[SHA256_SIZE],
           CairnError *err)
{
    const BackupId *bid = commit_id(writing->commit);
    for (uint32_t i = 0; i < writing->pack_count; i++)
        inherit(writing, bid, false, i);
    for (uint32_t i = 0; i < map_pack_count; i++)
        inherit(writing, bid, true, i);
    BackupId creators[CREATORS_MAX];
    size_t creator_count = 0;
    for (size_t i = writing->inherited_count; i-- > 0;) {
        size_t k = 0;
        while (k < creator_count && !backup_id_equal(&creators[k], &writing->inherited[i].creator))
            k++;
        if (k == creator_count) {
            CAIRN_ASSERT(creator_count < CREATORS_MAX);
            creators[creator_count++] = writing->inherited[i].creator;
        }
    }
    SCOPED_BYTES ByteWriter refs = {0};
    byte_writer_u16(&refs, REFS_LAYOUT);
    byte_writer_u16(&refs, 0);
    byte_writer_varint(&refs, creator_count);
    for (size_t i = 0; i < creator_count; i++) {
        byte_writer_bytes(&refs, creators[i].text, BACKUP_ID_LENGTH);
        put_ranges(&refs, writing, &creators[i], false);
        put_ranges(&refs, writing, &creators[i], true);
    }
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/%s/b/%s/refs", SIM_CLUSTER, bid->text);
    return byte_writer_check(&refs, err) &&
           object_put_small(writing->actor->repository, name, OBJECT_REFS, backup_id_sequence(bid),
                            refs.data, refs.size, digest_out, err);
}

/* --- the whole --- */

typedef struct {
    Writing *writing;
    uint32_t number;
} MapPack;

static bool
add_map_digest(void *context, const uint8_t digest[SHA256_SIZE], CairnError *err)
{
    MapPack *at = context;
    char name[STORAGE_NAME_LIMIT];
    map_pack_name(name, SIM_CLUSTER, commit_id(at->writing->commit), at->number++);
    need_object(at->writing->truth, name, digest);
    return sha256_update(at->writing->digests, digest, SHA256_SIZE, err);
}

static bool
write_data(Writing *writing, Fate *fate, CairnError *err)
{
    MapResult map;
    MapPack at = {writing, 0};
    for (uint32_t i = 0; i < writing->pack_count; i++) {
        if (!write_pack(writing, i, err))
            return false;
    }
    if (!need_inherited(writing, err) ||
        !map_builder_finish(writing->map, add_map_digest, &at, &map, err) ||
        !sha256_finish(writing->digests, fate->packs_sha256, err) ||
        !write_refs(writing, map.map_pack_count, fate->refs_sha256, err))
        return false;
    fate->map_root = map.root;
    fate->pack_count = writing->pack_count;
    fate->map_pack_count = map.map_pack_count;
    fate->file_count = map.file_count;
    fate->size_bytes = map.size_bytes;
    fate->stored_bytes = fate->map_bytes = map.map_bytes;
    return true;
}

/* The attempt's entry in what the simulator knows: before anything of it can be found. */
static SimBackup *
know(Actor *actor, const BackupId *bid)
{
    Sim *sim = actor->sim;
    CAIRN_ASSERT(sim->backup_count < SIM_BACKUP_LIMIT);
    SimBackup *truth = &sim->backups[sim->backup_count++];
    *truth = (SimBackup){.bid = *bid, .host = actor->host};
    return truth;
}

static bool
write_and_publish(Writing *writing, const SimBackupOptions *options, CairnError *err)
{
    Actor *actor = writing->actor;
    const BackupId *bid = commit_id(writing->commit);
    writing->truth = know(actor, bid);
    writing->pack_count = 1 + (uint32_t)sim_below(actor->sim, PACKS_MAX);
    writing->map = map_builder_new(actor->repository, SIM_CLUSTER, bid, "/tmp", err);
    writing->digests = sha256_new(err);
    SCOPED(Fate) fate = test_fate(bid, "a label");
    if (writing->map == NULL || writing->digests == NULL ||
        (options->parent != NULL && !inherit_parent(writing, options, err)) ||
        (options->salvage != NULL && !inherit_salvage(writing, options->salvage, err)) ||
        !write_data(writing, fate, err))
        return false;
    const bool published = commit_publish(writing->commit, fate, err);
    if (actor->crashed)
        return false;
    if (published) {
        writing->truth->reported = true;
        sim_trace(actor->sim, actor, "REPORTS %s", bid->text);
        sim_check_reported(actor->sim, writing->truth);
    }
    return published;
}

bool
sim_backup_write(Actor *actor, const SimBackupOptions *options, CairnError *err)
{
    Writing writing = {.actor = actor};
    writing.commit = commit_begin(actor->repository,
                                  &(CommitOptions){.cluster = SIM_CLUSTER,
                                                   .system_id = 1,
                                                   .major = 17,
                                                   .type = options->parent ? "incr" : "full",
                                                   .parent = options->parent,
                                                   .salvage = options->salvage,
                                                   .salvage_count = options->salvage ? 1 : 0},
                                  err);
    if (writing.commit == NULL)
        return false;
    sim_trace(actor->sim, actor, "begins %s, parent %s", commit_id(writing.commit)->text,
              options->parent != NULL ? options->parent->text : "none");
    const bool published = write_and_publish(&writing, options, err);
    /* As one does whose packs nobody shall take over. */
    if (!published && (actor->subject != NULL || sim_below(actor->sim, 4) == 0))
        commit_drop_packs(writing.commit);
    map_builder_free(writing.map);
    sha256_free(writing.digests);
    commit_free(writing.commit);
    return published;
}

/* --- the way back --- */

static bool
read_pack(Actor *actor, const BackupId *creator, uint32_t number, CairnError *err)
{
    SCOPED(PackReader) pack = pack_open(actor->repository, SIM_CLUSTER, creator, number, err);
    SCOPED(CodecContext) codec = codec_open(CODEC_NONE, 0, err);
    SCOPED_MEMORY uint8_t *scratch = malloc(FRAME_SIZE + 4096);
    SCOPED_MEMORY uint8_t *raw = malloc(FRAME_SIZE);
    if (pack == NULL || codec == NULL || !pack_read_frame(pack, 0, codec, scratch, raw, err))
        return false;
    for (uint32_t slot = 0; slot < pack_slot_count(pack); slot++) {
        uint8_t expected[UNIT_SIZE];
        fill_unit(creator, number, slot, expected);
        if (memcmp(expected, raw + slot * UNIT_SIZE, UNIT_SIZE) != 0)
            return cairn_error(err, CAIRN_CORRUPT, "pack %s/%u holds other bytes in slot %u",
                               creator->text, number, slot);
    }
    return true;
}

static bool
read_map(Actor *actor, const Fate *fate, CairnError *err)
{
    SCOPED(MapReader) map = map_reader_open(actor->repository, SIM_CLUSTER, &fate->map_root, err);
    if (map == NULL)
        return false;
    uint64_t files = 0;
    for (bool found = true; found;) {
        MapEntry entry;
        if (!map_reader_next(map, &entry, &found, err))
            return false;
        files += found;
    }
    return files == fate->file_count ||
           cairn_error(err, CAIRN_CORRUPT, "the map of %s has %llu files", fate->bid.text,
                       (unsigned long long)files);
}

bool
sim_backup_read(Actor *actor, const BackupId *bid, CairnError *err)
{
    SCOPED(Fate) fate = fate_read(actor->repository, SIM_CLUSTER, bid, NULL, err);
    if (fate == NULL || !read_map(actor, fate, err))
        return false;
    SCOPED(Refs) refs = refs_read(actor->repository, fate, err);
    if (refs == NULL)
        return false;
    for (size_t i = 0; i < refs->count; i++) {
        const RefsRange *range = &refs->ranges[i];
        for (uint32_t k = 0; k < range->pack_count; k++) {
            const uint32_t number = range->first_pack + k;
            char name[STORAGE_NAME_LIMIT];
            map_pack_name(name, SIM_CLUSTER, &range->creator, number);
            if (!range->is_map) {
                if (!read_pack(actor, &range->creator, number, err))
                    return false;
                continue;
            }
            SCOPED(ObjectReader) map = object_open(actor->repository, name, OBJECT_MAP, err);
            if (map == NULL || !object_scrub(map, err))
                return false;
        }
    }
    return true;
}
