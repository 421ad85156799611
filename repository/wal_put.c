/* Storing one WAL file, and what counts as the same file. */
#include "common/cancel.h"
#include "common/file.h"
#include "postgres/timeline.h"
#include "postgres/wal_page.h"
#include "postgres/wal_reader.h"
#include "repository/wal_object.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The file that is being put. */
typedef struct {
    WalStore *store;
    const World *world;
    const char *file_name;
    int fd;
    WalFileName file;
    WalIndex index; /* of what we would store; the digest is valid once has_digest */
    bool has_digest;
    char name[STORAGE_NAME_LIMIT + 1];
} Incoming;

static bool
is_segment(const Incoming *in)
{
    return in->file.kind == WAL_FILE_SEGMENT || in->file.kind == WAL_FILE_PARTIAL;
}

static bool
read_at(const Incoming *in, void *data, size_t size, uint64_t offset, CairnError *err)
{
    return file_pread(in->world, in->fd, data, size, offset, in->file_name, err);
}

static bool
check_size(Incoming *in, CairnError *err)
{
    const uint32_t segment_size = in->store->incarnation->wal_segment_size;
    struct stat status;

    if (in->world->disk->fstat(in->world->disk, in->fd, &status) != 0)
        return cairn_error_errno(err, "unable to examine '%s'", in->file_name);
    if (!S_ISREG(status.st_mode))
        return cairn_error(err, CAIRN_CORRUPT, "'%s' is not a regular file", in->file_name);
    in->index.size = (uint64_t)status.st_size;
    if (is_segment(in) && in->index.size != segment_size) {
        return cairn_error(err, CAIRN_MISMATCH,
                           "'%s' has %" PRIu64 " bytes, a segment has %" PRIu32, in->file_name,
                           in->index.size, segment_size);
    }
    if (!is_segment(in) && in->index.size > WAL_SMALL_FILE_LIMIT) {
        return cairn_error(err, CAIRN_CORRUPT, "'%s' has %" PRIu64 " bytes, more than %d",
                           in->file_name, in->index.size, WAL_SMALL_FILE_LIMIT);
    }
    return true;
}

/* The first page says whose WAL this is; the name alone proves nothing. */
static bool
check_identity(const Incoming *in, CairnError *err)
{
    const Incarnation *ours = in->store->incarnation;
    uint8_t page[WAL_LONG_HEADER_SIZE];
    char lsn[LSN_TEXT_SIZE];
    WalIdentity theirs;

    if (!read_at(in, page, sizeof page, 0, err))
        return false;
    if (!wal_identity_read(page, sizeof page, &theirs, err))
        return cairn_error_wrap(err, "'%s'", in->file_name);
    if (theirs.system_id != ours->system_id || theirs.major != ours->major) {
        return cairn_error(err, CAIRN_MISMATCH,
                           "'%s' belongs to system %" PRIu64
                           " of PostgreSQL %d, not to system %" PRIu64 " of PostgreSQL %d",
                           in->file_name, theirs.system_id, theirs.major, ours->system_id,
                           ours->major);
    }
    if (theirs.segment_size != ours->wal_segment_size) {
        return cairn_error(err, CAIRN_MISMATCH,
                           "'%s' says that segments have %" PRIu32
                           " bytes, the repository knows %" PRIu32,
                           in->file_name, theirs.segment_size, ours->wal_segment_size);
    }
    lsn_format(lsn, theirs.lsn);
    if (theirs.lsn != in->index.start_lsn || theirs.timeline > in->file.timeline) {
        return cairn_error(err, CAIRN_MISMATCH,
                           "'%s' holds WAL of %s on timeline %" PRIu32 ": its name is wrong",
                           in->file_name, lsn, theirs.timeline);
    }
    return true;
}

/* One that does not parse would be refused by every server that is given it later. */
static bool
check_history(const Incoming *in, CairnError *err)
{
    SCOPED_MEMORY char *text = malloc((size_t)in->index.size + 1);
    SCOPED_MEMORY TimelineHistory *history = malloc(sizeof *history);

    if (text == NULL || history == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return read_at(in, text, (size_t)in->index.size, 0, err) &&
           timeline_history_parse(in->file.timeline, text, (size_t)in->index.size, history, err);
}

static bool
is_zero(const uint8_t *data, size_t size)
{
    return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

/* Backward from the end, frame by frame: reads the zeros, which are cheap, and one frame more. */
static bool
find_data_size(Incoming *in, CairnError *err)
{
    uint8_t *raw = in->store->raw;
    uint64_t end = in->index.size;

    while (end > 0) {
        const uint64_t start = (end - 1) / WAL_FRAME_SIZE * WAL_FRAME_SIZE;
        size_t size = (size_t)(end - start);

        if (!cancel_check(err) || !read_at(in, raw, size, start, err))
            return false;
        if (!is_zero(raw, size)) {
            while (raw[size - 1] == 0)
                size--;
            end = start + size;
            break;
        }
        end = start;
    }
    in->index.data_size = end;
    return true;
}

/* Bytes from offset on, at most `limit`. */
static size_t
piece_size(const Incoming *in, uint64_t offset, size_t limit)
{
    const uint64_t left = in->index.data_size - offset;

    return left < limit ? (size_t)left : limit;
}

static bool
compute_digest(Incoming *in, CairnError *err)
{
    WalStore *store = in->store;

    if (in->has_digest)
        return true;
    if (!keyed_digest_begin(store->digest, err))
        return false;
    for (uint64_t at = 0; at < in->index.data_size; at += WAL_FRAME_SIZE) {
        const size_t size = piece_size(in, at, WAL_FRAME_SIZE);
        if (!cancel_check(err) || !read_at(in, store->raw, size, at, err) ||
            !keyed_digest_update(store->digest, store->raw, size, err))
            return false;
    }
    in->has_digest = wal_digest_finish(store->digest, in->index.size, in->index.digest, err);
    return in->has_digest;
}

/* Everything about the file that must be known before its object can be named. */
static bool
examine(Incoming *in, CairnError *err)
{
    in->index.kind = in->file.kind;
    in->index.timeline = in->file.timeline;
    in->index.start_lsn = wal_file_start_lsn(&in->file, in->store->incarnation->wal_segment_size);
    if (!check_size(in, err) || !wal_store_prepare(in->store, err))
        return false;
    if (is_segment(in) && !check_identity(in, err))
        return false;
    if (in->file.kind == WAL_FILE_HISTORY && !check_history(in, err))
        return false;
    if (!find_data_size(in, err))
        return false;
    /* A partial's name carries a piece of its digest, so that several versions can stand side by
     * side. */
    if (in->file.kind == WAL_FILE_PARTIAL && !compute_digest(in, err))
        return false;
    return wal_object_name(in->store, &in->file, in->file_name, in->index.digest, in->name, err);
}

/* The frames of one object, made in order. */
typedef struct {
    Incoming *in;
    ObjectWriter *object;
    ObjectFrame *frames;
    size_t done;
    bool failed; /* err is filled */
} FrameRun;

/* Each frame is read, digested and compressed while it is in the CPU's cache. */
static bool
append_frame(FrameRun *run, CairnError *err)
{
    Incoming *in = run->in;
    WalStore *store = in->store;
    const uint64_t at = (uint64_t)run->done * in->index.frame_size;
    const size_t size = piece_size(in, at, in->index.frame_size);
    ObjectBlock block;

    run->failed = true;
    if (!cancel_check(err) || !read_at(in, store->raw, size, at, err))
        return false;
    if (!in->has_digest && !keyed_digest_update(store->digest, store->raw, size, err))
        return false;
    if (!wal_store_compress(store, size, &block, err) ||
        !object_append(run->object, &block, &run->frames[run->done], err))
        return false;
    run->done++;
    run->failed = false;
    return true;
}

/* The WAL reader's page out of the frame in hand; the frames before it are stored on the way. */
static bool
frame_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    FrameRun *run = context;
    const WalIndex *index = &run->in->index;
    const uint64_t offset = lsn - index->start_lsn;
    size_t size = 0;

    if (offset < index->data_size) {
        while ((uint64_t)run->done * index->frame_size <= offset) {
            if (!append_frame(run, err))
                return false;
        }
        size = piece_size(run->in, offset, WAL_PAGE_SIZE);
        memcpy(page, run->in->store->raw + offset % index->frame_size, size);
    }
    memset(page + size, 0, WAL_PAGE_SIZE - size);
    *present_out = true;
    return true;
}

/*
 * Reads the segment's records while its frames are stored. NULL with no error when they tell
 * nothing: no segment is refused for that.
 */
static WalFacts *
collect_facts(FrameRun *run, CairnError *err)
{
    const Incarnation *incarnation = run->in->store->incarnation;
    const WalIdentity segment = {
        .major = incarnation->major,
        .system_id = incarnation->system_id,
        .timeline = run->in->index.timeline,
        .lsn = run->in->index.start_lsn,
        .segment_size = incarnation->wal_segment_size,
    };
    WalFacts *facts = wal_facts_collect(frame_page, run, &segment, err);

    if (facts == NULL && err->kind == CAIRN_CANCELLED)
        run->failed = true;
    if (facts == NULL && !run->failed)
        cairn_error_clear(err);
    return facts;
}

/* CONFLICT when the name is taken. */
static bool
store_object(Incoming *in, CairnError *err)
{
    WalIndex *index = &in->index;
    /* lz4 works with 16-bit positions up to 64 KiB, a good deal faster. */
    index->frame_size =
        codec_id(in->store->codec) == CODEC_LZ4 ? WAL_FRAME_SIZE / 2 : WAL_FRAME_SIZE;
    const size_t count = (size_t)((index->data_size + index->frame_size - 1) / index->frame_size);
    SCOPED_BYTES ByteWriter bytes = {0};
    SCOPED_MEMORY ObjectFrame *frames = calloc(count + 1, sizeof *frames);

    if (frames == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    SCOPED(ObjectWriter)
    object = is_segment(in)
                 ? object_create(in->store->repository, in->name, OBJECT_WAL, 0, err)
                 : object_create_readable(in->store->repository, in->name, OBJECT_WAL, err);
    if (object == NULL || (!in->has_digest && !keyed_digest_begin(in->store->digest, err)))
        return false;
    FrameRun run = {.in = in, .object = object, .frames = frames};
    SCOPED(WalFacts)
    facts = is_segment(in) && !in->store->without_facts ? collect_facts(&run, err) : NULL;
    if (run.failed)
        return false;
    while (run.done < count) {
        if (!append_frame(&run, err))
            return false;
    }
    if (!in->has_digest && !wal_digest_finish(in->store->digest, index->size, index->digest, err))
        return false;
    in->has_digest = true;

    wal_index_pusher(&in->index, in->world);
    index->frames = frames;
    index->frame_count = count;
    index->facts = facts;
    const bool formatted = wal_index_format(index, &bytes, err);
    index->frames = NULL; /* they end with this function */
    index->frame_count = 0;
    index->facts = NULL;
    return formatted && object_finish(object, bytes.data, bytes.size, NULL, err);
}

/* Pages of one segment for the WAL reader: of the incoming file, or of the stored one. */
typedef struct {
    Incoming *in;
    WalSegmentReader *stored; /* NULL: the incoming file */
    bool asked_beyond;        /* valid WAL goes on in the next segment */
    bool switched;            /* or ends with a switch to it */
} SegmentPages;

static bool
segment_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    SegmentPages *pages = context;
    const WalIndex *index = &pages->in->index;

    *present_out = lsn >= index->start_lsn && lsn - index->start_lsn < index->size;
    if (!*present_out) {
        pages->asked_beyond = true;
        return true;
    }
    const uint64_t offset = lsn - index->start_lsn;
    return pages->stored != NULL
               ? wal_segment_reader_pread(pages->stored, page, WAL_PAGE_SIZE, offset, err)
               : read_at(pages->in, page, WAL_PAGE_SIZE, offset, err);
}

/* Where a switch record's own bytes end: the reader's end_lsn is the next segment. */
static uint64_t
switch_end(const WalRecord *record)
{
    const uint64_t room = WAL_PAGE_SIZE - record->start_lsn % WAL_PAGE_SIZE;
    const uint64_t header = record->total_size > room ? WAL_SHORT_HEADER_SIZE : 0;

    return record->start_lsn + record->total_size + header;
}

/*
 * Offset where the unused tail begins. The segment's size when all of it is in use, and also when
 * nothing readable is in it: then no byte may differ.
 */
static bool
find_used_size(SegmentPages *pages, uint64_t *used_out, CairnError *err)
{
    const Incarnation *incarnation = pages->in->store->incarnation;
    const WalIndex *index = &pages->in->index;
    SCOPED(WalReader)
    reader = wal_reader_new(segment_page, pages, incarnation->major, incarnation->wal_segment_size,
                            incarnation->system_id, index->start_lsn, true, err);
    WalRecord record;
    bool found = true;
    bool any = false;
    uint64_t end_lsn = 0;

    if (reader == NULL)
        return false;
    while (found) {
        if (!cancel_check(err) || !wal_reader_next(reader, &record, &found, err))
            return false;
        any = any || found;
        if (found)
            end_lsn = record.end_lsn;
        if (found && record.kind == WAL_RECORD_SWITCH) {
            pages->switched = true;
            end_lsn = switch_end(&record);
            break;
        }
    }
    *used_out = any && !pages->asked_beyond ? end_lsn - index->start_lsn : index->size;
    return true;
}

/* First offset at which the two differ; the size when they do not. */
static bool
find_difference(Incoming *in, WalSegmentReader *stored, uint64_t *offset_out, CairnError *err)
{
    uint8_t ours[WAL_PAGE_SIZE];
    uint8_t theirs[WAL_PAGE_SIZE];

    for (uint64_t at = 0; at < in->index.size; at += WAL_PAGE_SIZE) {
        if (!cancel_check(err) || !read_at(in, ours, sizeof ours, at, err) ||
            !wal_segment_reader_pread(stored, theirs, sizeof theirs, at, err))
            return false;
        if (memcmp(ours, theirs, sizeof ours) == 0)
            continue;
        size_t i = 0;
        while (ours[i] == theirs[i])
            i++;
        *offset_out = at + i;
        return true;
    }
    *offset_out = in->index.size;
    return true;
}

/* Both sides, so that a human can decide which server is the wrong one. */
static bool
refuse(const Incoming *in, const WalObject *stored, const uint64_t *difference, CairnError *err)
{
    const WalIndex *index = &stored->index;
    char host[WAL_PUSHER_TEXT_SIZE] = "";
    char where[96] = "";
    char lsn[LSN_TEXT_SIZE];

    if (gethostname(host, sizeof host - 1) != 0)
        host[0] = '\0';
    if (difference != NULL) {
        lsn_format(lsn, index->start_lsn + *difference);
        snprintf(where, sizeof where, "; they differ from %s on", lsn);
    }
    cairn_error(
        err, CAIRN_CONFLICT,
        "'%s' is stored with other content: the repository holds %" PRIu64
        " bytes without trailing zeros, pushed by %s at %s; this one, on %s, has %" PRIu64 "%s",
        in->file_name, index->data_size, index->host[0] != '\0' ? index->host : "an unknown host",
        index->at[0] != '\0' ? index->at : "an unknown time", host, in->index.data_size, where);
    return cairn_error_hint(
        err, "nothing was overwritten; two servers archive as one cluster: give a copy "
             "its own place with `pgcairn adopt`, or stop the one that must not archive");
}

/* Segments that differ: identical all the same when only their unused tails do. */
static bool
compare_segments(Incoming *in, const WalObject *object, bool *tail_differs_out, CairnError *err)
{
    const uint32_t segment_size = in->store->incarnation->wal_segment_size;
    uint64_t stored_used = 0;
    uint64_t incoming_used = 0;
    uint64_t difference = 0;
    if (!object_is_readable(object->object)) {
        refuse(in, object, NULL, err);
        return cairn_error_hint(err,
                                "nothing was overwritten; this host only seals and cannot tell "
                                "whether no more than the unused end differs: push this file where "
                                "the private key is, or, when two servers archive as one cluster, "
                                "stop the one that must not");
    }
    SCOPED(WalSegmentReader)
    stored = wal_store_read(in->store, in->file.timeline, in->index.start_lsn / segment_size, err);

    if (stored == NULL)
        return false;
    SegmentPages stored_pages = {.in = in, .stored = stored};
    SegmentPages incoming_pages = {.in = in};
    if (!find_difference(in, stored, &difference, err) ||
        !find_used_size(&stored_pages, &stored_used, err) ||
        !find_used_size(&incoming_pages, &incoming_used, err))
        return false;
    if (stored_used != incoming_used || difference < stored_used)
        return refuse(in, object, &difference, err);
    *tail_differs_out = true;
    return true;
}

/* The name is taken. True when by the same content, which is then durable for certain. */
static bool
settle_with_stored(Incoming *in, bool *tail_differs_out, CairnError *err)
{
    SCOPED(WalObject) object = wal_object_open(in->store, in->name, &in->file, err);
    bool tail_differs = false;

    if (object == NULL) {
        cairn_error_hint(err,
                         "the stored copy of '%s' cannot be read; `pgcairn verify` tells what is "
                         "damaged",
                         in->file_name);
        return cairn_error_wrap(err, "'%s' is stored already", in->file_name);
    }
    if (!compute_digest(in, err))
        return false;
    if (memcmp(in->index.digest, object->index.digest, sizeof in->index.digest) != 0) {
        if (in->file.kind != WAL_FILE_SEGMENT)
            return refuse(in, object, NULL, err);
        if (!compare_segments(in, object, &tail_differs, err))
            return false;
    }
    /* Who stored it may have died before its directory was synced. */
    if (!storage_make_durable(repository_storage(in->store->repository), in->name, err))
        return false;
    *tail_differs_out = tail_differs;
    return true;
}

bool
wal_store_is_finished(WalStore *store, const char *file_name, int fd, bool *finished_out,
                      CairnError *err)
{
    Incoming in = {
        .store = store,
        .world = repository_world(store->repository),
        .file_name = file_name,
        .fd = fd,
    };
    SegmentPages pages = {.in = &in};
    uint64_t unused;

    if (!wal_file_name_parse(file_name, &in.file, err) || !check_size(&in, err))
        return false;
    in.index.start_lsn = wal_file_start_lsn(&in.file, store->incarnation->wal_segment_size);
    if (!find_used_size(&pages, &unused, err))
        return false;
    *finished_out = pages.asked_beyond || pages.switched;
    return true;
}

bool
wal_store_put(WalStore *store, const char *file_name, int fd, bool *existed_out,
              bool *tail_differs_out, CairnError *err)
{
    Incoming in = {
        .store = store,
        .world = repository_world(store->repository),
        .file_name = file_name,
        .fd = fd,
    };
    uint64_t size;
    bool tail_differs = false;
    bool existed;

    if (!wal_file_name_parse(file_name, &in.file, err) || !examine(&in, err))
        return false;

    /* A look first: compressing 16 MiB to learn that they are there would be a waste. */
    existed = storage_exists(repository_storage(store->repository), in.name, &size, err);
    if (!existed) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        existed = !store_object(&in, err);
        if (existed) {
            if (err->kind != CAIRN_CONFLICT)
                return false;
            cairn_error_clear(err); /* somebody was faster: now it is there */
        }
    }
    if (existed && !settle_with_stored(&in, &tail_differs, err))
        return false;
    *existed_out = existed;
    *tail_differs_out = tail_differs;
    return true;
}
