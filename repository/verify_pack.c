/* Packs: each is opened once, whoever needs it, and read where this run reads it. */
#include "repository/verify_intern.h"

#include "common/cancel.h"

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
note_damaged_frame(Verify *verify, const PackReader *pack, const VerifySubject *subject,
                   uint32_t first_slot, uint32_t slot_count, CairnError *err)
{
    char text[4096] = "";
    CairnError ignored = {0}; /* a directory that is damaged too names no files, nothing more */
    Touched touched = {.first_slot = first_slot,
                       .end_slot = first_slot + slot_count,
                       .text = text,
                       .size = sizeof text};
    if (!pack_runs(pack, note_touched, &touched, &ignored) && touched.listed == 0)
        snprintf(text, sizeof text, "unknown: the pack's directory is damaged too");
    VerifySubject frame = *subject;
    frame.files = text;
    return verify_note(verify, &frame, err);
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
check_frames(Verify *verify, const PackReader *pack, const VerifySubject *subject, bool *ok,
             CairnError *err)
{
    SCOPED_MEMORY uint16_t *tail_bytes =
        calloc((size_t)pack_slot_count(pack) + 1, sizeof *tail_bytes);
    if (tail_bytes == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    Tails tails = {tail_bytes};
    if (!pack_runs(pack, note_tail, &tails, err)) {
        *ok = false;
        return verify_note(verify, subject, err);
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
            if (!note_damaged_frame(verify, pack, subject, slot, slots, err))
                return false;
        }
        slot += slots;
    }
    return true;
}

void
verify_remember_slots(Verify *verify, const BackupId *creator, uint32_t pack, uint32_t slot_count)
{
    *verify_slots_place(verify, creator, pack) = (PackSlots){*creator, pack, slot_count};
}

PackSlots *
verify_slots_place(Verify *verify, const BackupId *creator, uint32_t pack)
{
    const uint32_t hash = crc32c(0, creator->text, BACKUP_ID_LENGTH) ^ (pack * 0x9e3779b1u);
    return &verify->slots[hash % PACK_SLOTS_KNOWN];
}

static bool
verify_pack(Verify *verify, const VerifySubject *subject, CairnError *err)
{
    bool reads, ok = true;
    verify->report->object_count++;
    SCOPED(PackReader)
    pack = pack_open(verify->repository, verify->options->cluster, subject->creator, subject->pack,
                     err);
    if (pack == NULL)
        return verify_note(verify, subject, err);
    verify->report->byte_count += pack_stored_size(pack);
    verify_remember_slots(verify, subject->creator, subject->pack, pack_slot_count(pack));
    if (!verify_reads(verify, subject->object, &reads, err))
        return false;
    if (!reads)
        return true;
    if (!check_frames(verify, pack, subject, &ok, err))
        return false;
    /* Last: it covers what no frame does, and says least about where. */
    return !ok || pack_scrub(pack, err) || verify_note(verify, subject, err);
}

static Refs *
refs_of(void *context, uint32_t backup, CairnError *err)
{
    return verify_refs(context, backup, err);
}

static bool
visit_pack(void *context, const BackupId *creator, bool is_map, uint32_t pack,
           const BackupSet *needed_by, CairnError *err)
{
    Verify *verify = context;
    char name[STORAGE_NAME_LIMIT];
    VerifySubject subject = {.object = name, .needed_by = *needed_by};
    bool ok;
    if (!cancel_check(err))
        return false;
    if (is_map) {
        map_pack_name(name, verify->options->cluster, creator, pack);
        return verify_object(verify, name, OBJECT_MAP, &subject, &ok, err);
    }
    pack_name(name, verify->options->cluster, creator, pack);
    subject.creator = creator;
    subject.pack = pack;
    return verify_pack(verify, &subject, err);
}

bool
verify_packs(Verify *verify, CairnError *err)
{
    const RefsSweep sweep = {.backup_count = (uint32_t)verify->catalog->count,
                             .source = refs_of,
                             .visit = visit_pack,
                             .context = verify};
    if (!refs_sweep(&sweep, NULL, err))
        return false;
    damaged_packs_settle(&verify->packs);
    return true;
}
