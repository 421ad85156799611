/*
 * Invariants:
 * 1. An entry with users > 0 keeps its pack open; only unused ones are evicted.
 * 2. There are more entries than readers, and a reader uses one at a time: one is always free.
 */
#include "restore/frame_source.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRY_COUNT = PACKS_KEPT_OPEN + READERS_LIMIT };

typedef struct {
    BackupId bid;
    uint32_t number;
    PackReader *pack; /* NULL: free */
    unsigned users;
    uint64_t last_use;
} PackEntry;

struct FrameSource {
    Repository *repository;
    const char *cluster;
    pthread_mutex_t lock;
    PackEntry entries[ENTRY_COUNT];
    size_t packs_open; /* so many may be open before one is closed for another */
    size_t open_count;
    size_t reader_count;
    uint64_t uses;
};

struct FrameReader {
    FrameSource *source;
    CodecContext *codec;
    PackEntry *entry; /* in use; NULL at first */
    uint32_t frame;   /* that raw holds */
    bool has_frame;
    uint32_t first_slot;
    uint32_t slot_count;
    uint32_t window_first; /* frames whose stored bytes are in window: [first, end) */
    uint32_t window_end;
    uint64_t window_offset;
    uint8_t *raw;
    uint8_t *window;
};

FrameSource *
frame_source_new(Repository *repository, const char *cluster, size_t packs_open, CairnError *err)
{
    FrameSource *source = calloc(1, sizeof *source);
    if (source == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    source->repository = repository;
    source->cluster = cluster;
    source->packs_open = packs_open;
    CAIRN_ASSERT(pthread_mutex_init(&source->lock, NULL) == 0);
    return source;
}

void
frame_source_free(FrameSource *source)
{
    if (source == NULL)
        return;
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        CAIRN_ASSERT(source->entries[i].users == 0);
        if (source->entries[i].pack != NULL)
            pack_reader_free(source->entries[i].pack);
    }
    pthread_mutex_destroy(&source->lock);
    free(source);
}

FrameReader *
frame_reader_new(FrameSource *source, CairnError *err)
{
    SCOPED(FrameReader) reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->source = source;
    pthread_mutex_lock(&source->lock);
    CAIRN_ASSERT(source->reader_count < READERS_LIMIT); /* 2 */
    source->reader_count++;
    pthread_mutex_unlock(&source->lock);

    reader->raw = malloc(FRAME_SIZE);
    reader->window = malloc(READ_WINDOW);
    if (reader->raw == NULL || reader->window == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->codec = repository_codec(source->repository, err);
    return reader->codec == NULL ? NULL : take(&reader);
}

static void
release_pack(FrameReader *reader)
{
    if (reader->entry == NULL)
        return;
    pthread_mutex_lock(&reader->source->lock);
    reader->entry->users--;
    pthread_mutex_unlock(&reader->source->lock);
    reader->entry = NULL;
    reader->has_frame = false;
    reader->window_first = reader->window_end = 0;
}

void
frame_reader_free(FrameReader *reader)
{
    if (reader == NULL)
        return;
    release_pack(reader);
    pthread_mutex_lock(&reader->source->lock);
    reader->source->reader_count--;
    pthread_mutex_unlock(&reader->source->lock);
    if (reader->codec != NULL)
        codec_close(reader->codec);
    free(reader->raw);
    free(reader->window);
    free(reader);
}

static bool
entry_is(const PackEntry *entry, const BackupId *bid, uint32_t number)
{
    return entry->pack != NULL && entry->number == number && backup_id_equal(&entry->bid, bid);
}

/* A place for one more pack, whose least recently used unused one is closed when enough are open.
 */
static PackEntry *
make_room(FrameSource *source)
{
    PackEntry *oldest = NULL;
    PackEntry *empty = NULL;
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        PackEntry *entry = &source->entries[i];
        if (entry->pack == NULL)
            empty = entry;
        else if (entry->users == 0 && (oldest == NULL || entry->last_use < oldest->last_use))
            oldest = entry;
    }
    if (oldest != NULL && (empty == NULL || source->open_count >= source->packs_open)) {
        pack_reader_free(oldest->pack);
        oldest->pack = NULL;
        source->open_count--;
        return oldest;
    }
    CAIRN_ASSERT(empty != NULL); /* 2 */
    return empty;
}

/*
 * Opening under the lock makes the others wait for one small read, and saves them from opening the
 * same pack, which is what they are about to do.
 */
static PackEntry *
use_pack(FrameSource *source, const BackupId *bid, uint32_t number, CairnError *err)
{
    PackEntry *found = NULL;

    pthread_mutex_lock(&source->lock);
    for (size_t i = 0; i < ENTRY_COUNT && found == NULL; i++) {
        if (entry_is(&source->entries[i], bid, number))
            found = &source->entries[i];
    }
    if (found == NULL) {
        PackReader *pack = pack_open(source->repository, source->cluster, bid, number, err);
        if (pack != NULL) {
            found = make_room(source);
            *found = (PackEntry){.bid = *bid, .number = number, .pack = pack};
            source->open_count++;
        }
    }
    if (found != NULL) {
        found->users++;
        found->last_use = ++source->uses;
    }
    pthread_mutex_unlock(&source->lock);
    return found;
}

/* Brings the stored bytes of frame into the window, with as many behind it as wanted slots need. */
static bool
fill_window(FrameReader *reader, uint32_t frame, uint64_t wanted, CairnError *err)
{
    const PackReader *pack = reader->entry->pack;
    uint64_t start;
    uint64_t offset;
    uint32_t stored_size;
    uint32_t raw_size;

    if (frame >= reader->window_first && frame < reader->window_end)
        return true;
    pack_frame_extent(pack, frame, &start, &stored_size, &raw_size);
    CAIRN_ASSERT(stored_size <= READ_WINDOW);
    uint64_t end = start + stored_size;
    uint64_t slots = raw_size / UNIT_SIZE;
    uint32_t next = frame + 1;
    while (slots < wanted && next < pack_frame_count(pack)) {
        pack_frame_extent(pack, next, &offset, &stored_size, &raw_size);
        if (offset != end || end - start + stored_size > READ_WINDOW)
            break;
        end += stored_size;
        slots += raw_size / UNIT_SIZE;
        next++;
    }

    reader->window_first = reader->window_end = 0;
    if (!pack_pread(pack, reader->window, (size_t)(end - start), start, err))
        return false;
    reader->window_first = frame;
    reader->window_end = next;
    reader->window_offset = start;
    return true;
}

static bool
decode_frame(FrameReader *reader, uint32_t frame, uint64_t wanted, CairnError *err)
{
    uint64_t offset;
    uint32_t stored_size;
    uint32_t raw_size;

    reader->has_frame = false;
    if (!fill_window(reader, frame, wanted, err))
        return false;
    pack_frame_extent(reader->entry->pack, frame, &offset, &stored_size, &raw_size);
    if (!pack_decode_frame(reader->entry->pack, frame, reader->codec,
                           reader->window + (offset - reader->window_offset), reader->raw, err)) {
        return false;
    }
    reader->frame = frame;
    reader->has_frame = true;
    return true;
}

bool
frame_reader_units(FrameReader *reader, const BackupId *bid, uint32_t pack, uint32_t slot,
                   uint64_t wanted, const uint8_t **data_out, uint32_t *units_out, CairnError *err)
{
    if (reader->entry == NULL || !entry_is(reader->entry, bid, pack)) {
        release_pack(reader);
        reader->entry = use_pack(reader->source, bid, pack, err);
        if (reader->entry == NULL)
            return false;
    }
    if (!reader->has_frame || slot < reader->first_slot ||
        slot - reader->first_slot >= reader->slot_count) {
        uint32_t frame;
        if (!pack_find(reader->entry->pack, slot, &frame, &reader->first_slot, &reader->slot_count,
                       err) ||
            !decode_frame(reader, frame, wanted + (slot - reader->first_slot), err)) {
            return false;
        }
    }
    const uint32_t behind = reader->slot_count - (slot - reader->first_slot);
    *data_out = reader->raw + (size_t)(slot - reader->first_slot) * UNIT_SIZE;
    *units_out = wanted < behind ? (uint32_t)wanted : behind;
    return true;
}
