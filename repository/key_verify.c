#include "repository/key_verify.h"

#include "common/log.h"
#include "repository/incarnation.h"
#include "repository/map.h"
#include "repository/pack.h"
#include "repository/wal_archive.h"

#include <stdio.h>
#include <string.h>

/* -- the newest backup */

/* The frame behind a run: where a page of this file lies. */
static bool
read_frame(Repository *repository, const char *cluster, const MapReader *map, const MapRun *run,
           uint64_t *bytes_out, CairnError *err)
{
    uint32_t frame, first_slot, slot_count;
    SCOPED(Arena) arena = arena_new();
    uint8_t *raw = arena_alloc(arena, FRAME_SIZE);
    uint8_t *scratch = arena_alloc(arena, FRAME_SIZE + 4096);
    SCOPED(CodecContext) codec = repository_codec(repository, err);
    SCOPED(PackReader)
    pack = codec != NULL ? pack_open(repository, cluster, map_reader_creator(map, run->creator),
                                     run->pack, err)
                         : NULL;
    if (pack == NULL || !pack_find(pack, run->slot, &frame, &first_slot, &slot_count, err) ||
        !pack_read_frame(pack, frame, codec, scratch, raw, err))
        return false;
    *bytes_out = (uint64_t)slot_count * UNIT_SIZE;
    return true;
}

/* Pages of the entry that the walk stands at; *bytes_out 0: it has none that are stored. */
static bool
read_entry(Repository *repository, const char *cluster, MapReader *map, uint64_t *bytes_out,
           CairnError *err)
{
    const MapRun *runs;
    size_t count;
    uint64_t first_unit;
    *bytes_out = 0;
    do {
        if (!map_reader_region(map, &runs, &count, &first_unit, err))
            return false;
        for (size_t i = 0; i < count; i++) {
            if (!runs[i].is_zero)
                return read_frame(repository, cluster, map, &runs[i], bytes_out, err);
        }
    } while (count > 0);
    return true;
}

/* Tables lie below base/; they are what nobody else may read. */
static bool
read_page(Repository *repository, const char *cluster, const Fate *fate, KeyProof *proof,
          CairnError *err)
{
    MapEntry entry;
    bool found = true;
    SCOPED(MapReader) map = map_reader_open(repository, cluster, &fate->map_root, err);
    if (map == NULL || !map_reader_seek(map, MAP_CLASS_CLUSTER, "base/", err))
        return false;
    while (found && proof->page_bytes == 0) {
        if (!map_reader_next(map, &entry, &found, err))
            return false;
        if (!found || entry.type != MAP_FILE || entry.size_bytes == 0)
            continue;
        snprintf(proof->file, sizeof proof->file, "%s", entry.path);
        if (!read_entry(repository, cluster, map, &proof->page_bytes, err))
            return cairn_error_wrap(err, "file '%s'", proof->file);
    }
    return true;
}

static bool
verify_backup(Repository *repository, const char *cluster, KeyProof *proof, CairnError *err)
{
    SCOPED(Catalog) catalog = catalog_read(repository, cluster, err);
    const CatalogBackup *backup = catalog != NULL ? catalog_find(catalog, "latest", err) : NULL;
    if (backup == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return true;
    }
    proof->has_backup = true;
    snprintf(proof->backup, sizeof proof->backup, "%s", backup->fate->label);
    if (!read_page(repository, cluster, backup->fate, proof, err))
        return cairn_error_wrap(err, "backup %s", proof->backup);
    return true;
}

/* -- the newest WAL */

/* The last segment of the highest timeline that has any. */
static bool
find_segment(const WalArchive *archive, uint32_t *timeline_out, uint64_t *segment_out)
{
    for (size_t i = wal_archive_timeline_count(archive); i > 0; i--) {
        const WalTimeline *timeline = wal_archive_timeline(archive, i - 1);
        if (timeline->run_count == 0)
            continue;
        *timeline_out = timeline->timeline;
        *segment_out = timeline->runs[timeline->run_count - 1].last_segment;
        return true;
    }
    return false;
}

static bool
read_segment(WalArchive *archive, KeyProof *proof, CairnError *err)
{
    uint32_t timeline;
    uint64_t segment;
    uint8_t page[UNIT_SIZE];
    if (!find_segment(archive, &timeline, &segment))
        return true;
    wal_segment_name(proof->segment, timeline, segment,
                     wal_archive_incarnation(archive)->wal_segment_size);
    SCOPED(WalSegmentReader)
    reader = wal_store_read(wal_archive_store(archive), timeline, segment, err);
    if (reader == NULL || !wal_segment_reader_pread(reader, page, sizeof page, 0, err))
        return cairn_error_wrap(err, "WAL segment %s", proof->segment);
    proof->has_wal = true;
    return true;
}

static bool
verify_wal(Repository *repository, const char *cluster, KeyProof *proof, CairnError *err)
{
    size_t count = 0;
    SCOPED_MEMORY Incarnation *incarnations = calloc(INCARNATION_LIMIT, sizeof *incarnations);
    if (incarnations == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!incarnation_list(repository, cluster, incarnations, &count, &proof->unread, err))
        return false;
    for (; count > 0 && !proof->has_wal; count--) {
        SCOPED(WalArchive)
        archive = wal_archive_load(repository, cluster, &incarnations[count - 1], err);
        if (archive == NULL || !read_segment(archive, proof, err))
            return false;
    }
    return true;
}

static bool
nothing_to_prove_with(const char *cluster, const KeyProof *proof, CairnError *err)
{
    if (proof->unread.count > 0) {
        *err = proof->unread.problem;
        cairn_error_wrap(err, "cluster '%s' has no backup, and whose WAL it has cannot be told",
                         cluster);
        return cairn_error_hint(err, "%s", incarnation_remedy(&proof->unread.problem));
    }
    cairn_error(err, CAIRN_NOT_FOUND,
                "cluster '%s' has neither a backup nor WAL to prove the key with", cluster);
    return cairn_error_hint(err, "the key opens the repository; take a backup, then prove it");
}

bool
key_verify(Repository *repository, const char *cluster, KeyProof *proof_out, CairnError *err)
{
    KeyProof proof = {0};
    const Keyring *keyring = repository_keyring(repository);
    if (keyring != NULL && !keyring_reads_data(keyring)) {
        cairn_error(err, CAIRN_DENIED,
                    "this key opens the metadata only: pages and WAL are sealed");
        return cairn_error_hint(err,
                                "it is the key of a host that backs up; run key verify where the "
                                "private key is: --key-file FILE");
    }
    if (!verify_backup(repository, cluster, &proof, err) ||
        !verify_wal(repository, cluster, &proof, err))
        return false;
    if (!proof.has_backup && !proof.has_wal)
        return nothing_to_prove_with(cluster, &proof, err);
    *proof_out = proof;
    return true;
}
