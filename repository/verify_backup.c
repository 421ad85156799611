#include "repository/verify_intern.h"

#include "common/cancel.h"
#include "repository/pack.h"
#include "repository/refs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Files and blocks that live in a damaged stretch of slots. */
typedef struct {
    uint32_t first_slot, end_slot;
    char *text;
    size_t size, used;
    size_t listed;
} Touched;

static bool
note_touched(void *context, const PackRun *run, CairnError *err)
{
    Touched *touched = context;
    (void)err;
    uint32_t end = run->first_slot + run->units;
    if (run->class != MAP_CLASS_CLUSTER || end <= touched->first_slot ||
        run->first_slot >= touched->end_slot || touched->listed == VERIFY_FILES_LISTED)
        return true;
    uint32_t from = run->first_slot > touched->first_slot ? run->first_slot : touched->first_slot;
    uint32_t to = end < touched->end_slot ? end : touched->end_slot;
    uint64_t block = run->first_unit + (from - run->first_slot);
    int written = snprintf(touched->text + touched->used, touched->size - touched->used,
                           "%s%s blocks %" PRIu64 "..%" PRIu64, touched->listed > 0 ? ", " : "",
                           run->path, block, block + (to - from) - 1);
    if (written > 0 && touched->used + (size_t)written < touched->size)
        touched->used += (size_t)written;
    touched->listed++;
    return true;
}

static bool
note_damaged_frame(Verify *verify, const PackReader *pack, const char *name, uint32_t first_slot,
                   uint32_t slot_count, const char *backups, CairnError *err)
{
    char text[4096] = "";
    CairnError ignored = {0}; /* a directory that is damaged too names no files, nothing more */
    Touched touched = {.first_slot = first_slot,
                       .end_slot = first_slot + slot_count,
                       .text = text,
                       .size = sizeof text};
    if (!pack_runs(pack, note_touched, &touched, &ignored) && touched.listed == 0)
        snprintf(text, sizeof text, "unknown: the pack's directory is damaged too");
    return verify_note(verify, name, backups, text, err);
}

/* Sizes of the short units of a pack: their fingerprints were taken without the padding. */
typedef struct {
    uint16_t *tail_bytes; /* by slot; 0: whole */
} Tails;

static bool
note_tail(void *context, const PackRun *run, CairnError *err)
{
    Tails *tails = context;
    (void)err;
    if (run->tail_bytes > 0 && run->units > 0)
        tails->tail_bytes[run->first_slot + run->units - 1] = (uint16_t)run->tail_bytes;
    return true;
}

static bool
check_frame(Verify *verify, const PackReader *pack, uint32_t frame, uint32_t first_slot,
            uint32_t slot_count, const Tails *tails, CairnError *err)
{
    if (!pack_read_frame(pack, frame, verify->codec, verify->stored, verify->raw, err))
        return false;
    for (uint32_t i = 0; i < slot_count; i++) {
        uint16_t tail = tails->tail_bytes[first_slot + i];
        uint8_t digest[KEYED_DIGEST_SIZE];
        if (!keyed_digest_of(verify->fingerprints, verify->raw + (size_t)i * UNIT_SIZE,
                             tail > 0 ? tail : UNIT_SIZE, digest, err))
            return false;
        if (memcmp(digest, pack_fingerprint(pack, first_slot + i), FINGERPRINT_SIZE) != 0)
            return cairn_error(err, CAIRN_CORRUPT, "frame %u: slot %u differs from its fingerprint",
                               frame, first_slot + i);
    }
    return true;
}

static bool
check_frames(Verify *verify, const PackReader *pack, const char *name, const char *backups,
             bool *ok, CairnError *err)
{
    SCOPED_MEMORY uint16_t *tail_bytes =
        calloc((size_t)pack_slot_count(pack) + 1, sizeof *tail_bytes);
    if (tail_bytes == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    Tails tails = {tail_bytes};
    if (!pack_runs(pack, note_tail, &tails, err)) {
        *ok = false;
        return verify_note(verify, name, backups, "", err);
    }
    uint32_t slot = 0;
    for (uint32_t frame = 0; frame < pack_frame_count(pack); frame++) {
        uint64_t offset;
        uint32_t stored_size, raw_size;
        if (!cancel_check(err))
            return false;
        pack_frame_extent(pack, frame, &offset, &stored_size, &raw_size);
        progress_add(verify->options->progress, stored_size);
        progress_draw(verify->options->progress);
        uint32_t slots = raw_size / UNIT_SIZE;
        if (!check_frame(verify, pack, frame, slot, slots, &tails, err)) {
            *ok = false;
            if (!note_damaged_frame(verify, pack, name, slot, slots, backups, err))
                return false;
        }
        slot += slots;
    }
    return true;
}

bool
verify_pack(Verify *verify, const BackupId *creator, uint32_t pack_number, const char *backups,
            bool *ok_out, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    pack_name(name, verify->options->cluster, creator, pack_number);
    *ok_out = false;
    verify->report->object_count++;
    SCOPED(PackReader)
    pack = pack_open(verify->repository, verify->options->cluster, creator, pack_number, err);
    if (pack == NULL)
        return verify_note(verify, name, backups, "", err);
    verify->report->byte_count += pack_stored_size(pack);
    *ok_out = true;
    if (verify->options->scope != VERIFY_FULL)
        return true;
    if (!check_frames(verify, pack, name, backups, ok_out, err))
        return false;
    /* Last: it covers what no frame does, and says least about where. */
    if (*ok_out && !pack_scrub(pack, err)) {
        *ok_out = false;
        return verify_note(verify, name, backups, "", err);
    }
    return true;
}

static bool
verify_refs(Verify *verify, const CatalogBackup *backup, const Refs *refs, bool *good,
            CairnError *err)
{
    const char *label = backup->fate->label;
    for (size_t i = 0; i < refs->count; i++) {
        const RefsRange *range = &refs->ranges[i];
        for (uint32_t k = 0; k < range->pack_count; k++) {
            bool ok;
            uint32_t pack = range->first_pack + k;
            if (range->is_map) {
                char name[STORAGE_NAME_LIMIT];
                map_pack_name(name, verify->options->cluster, &range->creator, pack);
                if (!verify_object(verify, name, OBJECT_MAP, label, &ok, err))
                    return false;
            } else if (!verify_pack(verify, &range->creator, pack, label, &ok, err)) {
                return false;
            }
            *good = *good && ok;
        }
    }
    return true;
}

/* Slots of one pack, remembered between runs: a map names the same pack many times in a row. */
typedef struct {
    BackupId creator;
    uint32_t pack;
    uint32_t slot_count;
    bool known;
} KnownPack;

static bool
check_run(Verify *verify, MapReader *map, const MapRun *run, KnownPack *known, CairnError *err)
{
    if (run->is_zero)
        return true;
    const BackupId *creator = map_reader_creator(map, run->creator);
    if (!known->known || known->pack != run->pack || !backup_id_equal(&known->creator, creator)) {
        SCOPED(PackReader)
        pack = pack_open(verify->repository, verify->options->cluster, creator, run->pack, err);
        if (pack == NULL)
            return false;
        *known = (KnownPack){*creator, run->pack, pack_slot_count(pack), true};
    }
    if (run->slot + run->units > known->slot_count) {
        return cairn_error(err, CAIRN_CORRUPT,
                           "the map asks for slot %" PRIu64 " of pack %u, which has %u",
                           run->slot + run->units - 1, run->pack, known->slot_count);
    }
    return true;
}

/* Walks the whole map: every node is read and checked, every run must lie in a pack that has it. */
static bool
walk_map(Verify *verify, const Fate *fate, CairnError *err)
{
    SCOPED(MapReader)
    map = map_reader_open(verify->repository, verify->options->cluster, &fate->map_root, err);
    if (map == NULL)
        return false;
    KnownPack known = {0};
    uint64_t files = 0;
    for (;;) {
        MapEntry entry;
        bool found;
        if (!cancel_check(err) || !map_reader_next(map, &entry, &found, err))
            return false;
        if (!found)
            break;
        files += entry.class == MAP_CLASS_CLUSTER && entry.type == MAP_FILE;
        const MapRun *runs;
        size_t count;
        uint64_t first_unit;
        do {
            if (!map_reader_region(map, &runs, &count, &first_unit, err))
                return cairn_error_wrap(err, "file '%s'", entry.path);
            for (size_t i = 0; i < count; i++) {
                if (!check_run(verify, map, &runs[i], &known, err))
                    return cairn_error_wrap(err, "file '%s'", entry.path);
            }
        } while (count > 0);
    }
    if (files != fate->file_count)
        return cairn_error(err, CAIRN_CORRUPT,
                           "the map holds %" PRIu64 " files, the backup has %" PRIu64, files,
                           fate->file_count);
    return true;
}

bool
verify_backup(Verify *verify, const CatalogBackup *backup, bool *good_out, CairnError *err)
{
    const Fate *fate = backup->fate;
    char prefix[STORAGE_NAME_LIMIT];
    snprintf(prefix, sizeof prefix, "c/%s/b/%s", verify->options->cluster, backup->bid.text);
    *good_out = true;
    SCOPED(Refs) refs = refs_read(verify->repository, fate, err);
    if (refs == NULL) {
        *good_out = false;
        char name[STORAGE_NAME_LIMIT + sizeof "/refs"];
        snprintf(name, sizeof name, "%s/refs", prefix);
        return verify_note(verify, name, fate->label, "", err);
    }
    if (!verify_refs(verify, backup, refs, good_out, err))
        return false;
    if (!walk_map(verify, fate, err)) {
        *good_out = false;
        return verify_note(verify, prefix, fate->label, "", err);
    }
    return true;
}
