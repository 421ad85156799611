/* Packs: each is opened once, whoever needs it, and read where this run reads it. */
#include "repository/verify_intern.h"

#include "common/cancel.h"
#include "common/parallel.h"

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
say_damaged_frame(VerifyWorker *worker, const PackReader *pack, uint32_t first_slot,
                  uint32_t slot_count, CairnError *err)
{
    char text[4096] = "";
    CairnError ignored = {0}; /* a directory that is damaged too names no files, nothing more */
    Touched touched = {.first_slot = first_slot,
                       .end_slot = first_slot + slot_count,
                       .text = text,
                       .size = sizeof text};
    if (!pack_runs(pack, note_touched, &touched, &ignored) && touched.listed == 0)
        snprintf(text, sizeof text, "unknown: the pack's directory is damaged too");
    return verify_say(worker, text, err);
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

/* A pack that is read from its first frame to its last. */
typedef struct {
    VerifyWorker *worker;
    const PackReader *pack;
    ObjectScan *scan;
    Tails tails;
} PackCheck;

static bool
check_frame(const PackCheck *check, uint32_t frame, uint32_t first_slot, uint32_t slot_count,
            CairnError *err)
{
    const PackReader *pack = check->pack;
    VerifyWorker *worker = check->worker;
    const uint8_t *stored;
    uint64_t offset;
    uint32_t stored_size, raw_size;
    pack_frame_extent(pack, frame, &offset, &stored_size, &raw_size);
    if (!object_scan_frame(check->scan, offset, stored_size, &stored, err))
        return false;
    if (!pack_decode_frame(pack, frame, worker->codec, stored, worker->raw, err)) {
        if (err->kind != CAIRN_SEALED)
            return false;
        cairn_error_clear(err); /* its checksum was right, and that is all we can tell */
        return true;
    }
    for (uint32_t i = 0; i < slot_count; i++) {
        uint16_t tail = check->tails.tail_bytes[first_slot + i];
        uint8_t digest[KEYED_DIGEST_SIZE];
        if (!keyed_digest_of(worker->fingerprints, worker->raw + (size_t)i * UNIT_SIZE,
                             tail > 0 ? tail : UNIT_SIZE, digest, err))
            return false;
        if (memcmp(digest, pack_fingerprint(pack, first_slot + i), FINGERPRINT_SIZE) != 0)
            return cairn_error(err, CAIRN_CORRUPT, "frame %u: slot %u differs from its fingerprint",
                               frame, first_slot + i);
    }
    return true;
}

/* *ok_out false: what is wrong was said. */
static bool
check_frames(const PackCheck *check, bool *ok_out, CairnError *err)
{
    const PackReader *pack = check->pack;
    uint32_t slot = 0;
    for (uint32_t frame = 0; frame < pack_frame_count(pack); frame++) {
        uint64_t offset;
        uint32_t stored_size, raw_size;
        if (!cancel_check(err))
            return false;
        pack_frame_extent(pack, frame, &offset, &stored_size, &raw_size);
        progress_add(check->worker->verify->options->progress, stored_size);
        uint32_t slots = raw_size / UNIT_SIZE;
        if (!check_frame(check, frame, slot, slots, err)) {
            *ok_out = false;
            if (!say_damaged_frame(check->worker, pack, slot, slots, err))
                return false;
        }
        slot += slots;
    }
    return true;
}

static bool
check_pack(VerifyWorker *worker, const PackReader *pack, CairnError *err)
{
    SCOPED_MEMORY uint16_t *tail_bytes =
        calloc((size_t)pack_slot_count(pack) + 1, sizeof *tail_bytes);
    SCOPED(ObjectScan) scan = pack_scan(pack, err);
    if (scan == NULL)
        return false;
    if (tail_bytes == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    PackCheck check = {worker, pack, scan, {tail_bytes}};
    bool ok = true;
    if (!pack_runs(pack, note_tail, &check.tails, err) || !check_frames(&check, &ok, err))
        return false;
    /* Last: it covers what no frame does, and says least about where. */
    return !ok || object_scan_finish(scan, err);
}

static bool
read_pack(VerifyWorker *worker, VerifyJob *job, CairnError *err)
{
    const Verify *verify = worker->verify;
    SCOPED(PackReader)
    pack = pack_open(verify->repository, verify->options->cluster, &job->creator, job->pack, err);
    if (pack == NULL)
        return false;
    job->opened = true;
    job->stored_size = pack_stored_size(pack);
    job->slot_count = pack_slot_count(pack);
    return !job->reads_all || check_pack(worker, pack, err);
}

static bool
verify_pack(Verify *verify, const BackupId *creator, uint32_t pack, const BackupSet *needed_by,
            CairnError *err)
{
    VerifyJob job = {.read = read_pack,
                     .needed_by = *needed_by,
                     .is_pack = true,
                     .creator = *creator,
                     .pack = pack};
    pack_name(job.object, verify->options->cluster, creator, pack);
    return verify_reads(verify, job.object, &job.reads_all, err) && verify_add(verify, &job, err);
}

/*
 * The reference summaries of some backups, read before the sweep asks for them, as many at a time
 * as is worth it; what is wrong with one is said in its turn. Only small ones: a long one is read
 * when it is asked for, since it takes memory.
 */
enum { REFS_AHEAD_BYTES = 32 << 10, REFS_AHEAD_RANGES = 4096 };

typedef struct {
    Refs *refs; /* owned */
    CairnError err;
    bool there;
} RefsRead;

typedef struct {
    Verify *verify;
    uint32_t first, count; /* backups first .. first + count - 1 were read ahead */
    RefsRead read[PARALLEL_JOBS_LIMIT];
} RefsAhead;

static void
drop_ahead(RefsAhead *ahead)
{
    for (uint32_t i = 0; i < ahead->count; i++)
        refs_free(ahead->read[i].refs);
    memset(ahead->read, 0, sizeof ahead->read);
    ahead->count = 0;
}

static bool
read_ahead(void *context, size_t i, CairnError *err)
{
    RefsAhead *ahead = context;
    const Verify *verify = ahead->verify;
    const uint32_t index = ahead->first + (uint32_t)i;
    RefsRead *read = &ahead->read[i];
    (void)err;
    if (!verify_has_refs(verify, index) || verify->checks[index].refs_bytes > REFS_AHEAD_BYTES)
        return true;
    read->refs = refs_read(verify->repository, verify->catalog->backups[index].fate, &read->err);
    read->there = read->refs == NULL || read->refs->count <= REFS_AHEAD_RANGES;
    if (!read->there) {
        refs_free(read->refs);
        read->refs = NULL;
    }
    return true;
}

static bool
fill_ahead(RefsAhead *ahead, uint32_t backup, CairnError *err)
{
    const int at_once = verify_requests_at_once(ahead->verify);
    const uint32_t left = (uint32_t)ahead->verify->catalog->count - backup;
    drop_ahead(ahead);
    ahead->first = backup;
    if (at_once <= 1)
        return true;
    ahead->count = at_once < PARALLEL_JOBS_LIMIT ? (uint32_t)at_once : PARALLEL_JOBS_LIMIT;
    if (ahead->count > left)
        ahead->count = left;
    return parallel_each(ahead->count, at_once, read_ahead, ahead, err);
}

static Refs *
refs_of(void *context, uint32_t backup, CairnError *err)
{
    RefsAhead *ahead = context;
    if ((backup < ahead->first || backup - ahead->first >= ahead->count) &&
        !fill_ahead(ahead, backup, err))
        return NULL;
    RefsRead *read =
        backup - ahead->first < ahead->count ? &ahead->read[backup - ahead->first] : NULL;
    if (read == NULL || !read->there || !verify_has_refs(ahead->verify, backup))
        return verify_refs(ahead->verify, backup, err);
    read->there = false;
    if (read->refs != NULL)
        return take(&read->refs);
    *err = read->err;
    const bool noted = verify_note_refs(ahead->verify, backup, err);
    CAIRN_ASSERT(noted == (err->kind == CAIRN_OK));
    return NULL;
}

static bool
visit_pack(void *context, const BackupId *creator, bool is_map, uint32_t pack,
           const BackupSet *needed_by, CairnError *err)
{
    Verify *verify = ((RefsAhead *)context)->verify;
    char name[STORAGE_NAME_LIMIT];
    if (!cancel_check(err))
        return false;
    if (!is_map)
        return verify_pack(verify, creator, pack, needed_by, err);
    const VerifySubject subject = {.object = name, .needed_by = *needed_by};
    map_pack_name(name, verify->options->cluster, creator, pack);
    return verify_object(verify, name, OBJECT_MAP, &subject, err);
}

bool
verify_packs(Verify *verify, CairnError *err)
{
    __attribute__((cleanup(drop_ahead))) RefsAhead ahead = {.verify = verify};
    const RefsSweep sweep = {.backup_count = (uint32_t)verify->catalog->count,
                             .source = refs_of,
                             .visit = visit_pack,
                             .context = &ahead};
    if (!refs_sweep(&sweep, NULL, err) || !verify_settle(verify, err))
        return false;
    damaged_packs_settle(&verify->packs);
    return true;
}
