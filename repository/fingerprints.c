#include "repository/fingerprints.h"

#include "common/log.h"
#include "repository/pack.h"

#include <string.h>

enum { ENTRIES = 512 };

typedef struct {
    uint32_t creator, pack;
    uint64_t used; /* for least-recently-used; 0: free */
    bool trusted;
    PackPrints prints;
    void *memory; /* of prints, owned */
    size_t size;
} Entry;

struct Fingerprints {
    FingerprintsOptions options;
    Entry entries[ENTRIES];
    Entry *last;
    uint64_t clock;
    size_t size;
    uint64_t distrusted;
};

Fingerprints *
fingerprints_new(const FingerprintsOptions *options, CairnError *err)
{
    Fingerprints *prints = calloc(1, sizeof *prints);
    if (prints == NULL)
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
    else
        prints->options = *options;
    return prints;
}

void
fingerprints_free(Fingerprints *prints)
{
    if (prints == NULL)
        return;
    for (size_t i = 0; i < ENTRIES; i++)
        free(prints->entries[i].memory);
    free(prints);
}

static void
forget(Fingerprints *prints, Entry *entry)
{
    prints->size -= entry->size;
    free(entry->memory);
    *entry = (Entry){0};
}

static Entry *
find(Fingerprints *prints, uint32_t creator, uint32_t pack)
{
    if (prints->last != NULL && prints->last->creator == creator && prints->last->pack == pack)
        return prints->last;
    for (size_t i = 0; i < ENTRIES; i++) {
        Entry *entry = &prints->entries[i];
        if (entry->used != 0 && entry->creator == creator && entry->pack == pack)
            return entry;
    }
    return NULL;
}

static Entry *
oldest(Fingerprints *prints, bool free_too)
{
    Entry *found = NULL;
    for (size_t i = 0; i < ENTRIES; i++) {
        Entry *entry = &prints->entries[i];
        if ((free_too || entry->used != 0) && (found == NULL || entry->used < found->used))
            found = entry;
    }
    return found;
}

/* A free entry, after as many were forgotten as it takes to hold `size` bytes more. */
static Entry *
make_room(Fingerprints *prints, size_t size)
{
    prints->last = NULL;
    while (prints->size > 0 && prints->size + size > prints->options.memory_bytes)
        forget(prints, oldest(prints, false));
    Entry *entry = oldest(prints, true);
    forget(prints, entry);
    return entry;
}

static bool
is_named(const Fingerprints *prints, const BackupId *bid, uint32_t creator, uint32_t pack)
{
    const FingerprintsOptions *options = &prints->options;
    if (options->damage != NULL && damaged_packs_contain(options->damage, bid, pack))
        return false;
    return creator >= options->first_salvage ||
           (options->refs != NULL && refs_mention(options->refs, bid, false, pack));
}

/* Copies what is needed of a directory, so that the rest of it does not stay in memory. */
static bool
copy_prints(Entry *entry, const PackReader *pack, CairnError *err)
{
    PackPrints *prints = &entry->prints;
    prints->slot_count = pack_slot_count(pack);
    prints->frame_count = pack_frame_count(pack);
    size_t prints_size = (size_t)prints->slot_count * FINGERPRINT_SIZE;
    size_t size = prints_size + ((size_t)prints->frame_count + 1) * sizeof(uint32_t);
    uint8_t *memory = malloc(size);
    if (memory == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (prints->slot_count > 0)
        memcpy(memory, pack_fingerprint(pack, 0), prints_size);
    uint32_t *first = (uint32_t *)(void *)(memory + prints_size), slot = 0;
    for (uint32_t i = 0; i < prints->frame_count; i++) {
        uint64_t offset;
        uint32_t stored_size, raw_size;
        pack_frame_extent(pack, i, &offset, &stored_size, &raw_size);
        first[i] = slot;
        slot += raw_size / UNIT_SIZE;
    }
    first[prints->frame_count] = slot;
    prints->fingerprints = (const uint8_t(*)[FINGERPRINT_SIZE])memory;
    prints->frame_first = first;
    entry->memory = memory;
    entry->size = size;
    entry->trusted = true;
    return true;
}

static bool
load(Fingerprints *prints, const BackupId *bid, uint32_t creator, uint32_t pack_number,
     Entry *entry, CairnError *err)
{
    const FingerprintsOptions *options = &prints->options;
    SCOPED(PackReader)
    pack = pack_open(options->repository, options->cluster, bid, pack_number, err);
    if (pack == NULL || (creator >= options->first_salvage && !pack_scrub(pack, err)))
        return false;
    return copy_prints(entry, pack, err);
}

bool
fingerprints_get(Fingerprints *prints, uint32_t creator, uint32_t pack,
                 const PackPrints **prints_out, CairnError *err)
{
    Entry *entry = find(prints, creator, pack);
    if (entry == NULL) {
        const BackupId *bid = creator_table_get(prints->options.creators, creator);
        Entry loaded = {.creator = creator, .pack = pack};
        if (is_named(prints, bid, creator, pack) &&
            !load(prints, bid, creator, pack, &loaded, err)) {
            if (!error_is_of_object(err))
                return false;
            log_warn("what pack %u of backup %s holds is stored anew: %s", pack, bid->text,
                     err->message);
            cairn_error_clear(err);
        }
        prints->distrusted += !loaded.trusted;
        entry = make_room(prints, loaded.size);
        *entry = loaded;
        prints->size += loaded.size;
    }
    entry->used = ++prints->clock;
    prints->last = entry;
    *prints_out = entry->trusted ? &entry->prints : NULL;
    return true;
}

uint64_t
fingerprints_distrusted(const Fingerprints *prints)
{
    return prints->distrusted;
}
