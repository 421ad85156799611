#include "repository/refs.h"

#include "repository/object.h"

#include <stdio.h>
#include <string.h>

enum {
    REFS_LAYOUT = 1,
    REFS_CREATOR_LIMIT = CREATOR_LIMIT,
    REFS_RANGE_LIMIT = 1 << 20,
    USES_MIN = 64,
};

void
refs_free(Refs *refs)
{
    if (refs == NULL)
        return;
    free(refs->ranges);
    free(refs->creators);
    free(refs);
}

static bool
parse_ranges(ByteReader *reader, const BackupId *creator, bool is_map, Refs *refs, CairnError *err)
{
    /* Three bytes a range at least. */
    uint64_t count = byte_reader_varint_max(reader, REFS_RANGE_LIMIT);
    if (count > byte_reader_left(reader) / 3)
        return cairn_error(err, CAIRN_CORRUPT, "reference summary is cut off");
    RefsRange *ranges = realloc(refs->ranges, (refs->count + count + 1) * sizeof *ranges);
    if (ranges == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    refs->ranges = ranges;
    uint64_t end = 0;
    for (uint64_t i = 0; i < count; i++) {
        RefsRange *range = &refs->ranges[refs->count++];
        *range = (RefsRange){.creator = *creator, .is_map = is_map};
        uint64_t first = end + byte_reader_varint_max(reader, INT32_MAX);
        uint64_t packs = byte_reader_varint_max(reader, INT32_MAX);
        range->live_units = byte_reader_varint(reader);
        end = first + packs;
        if (reader->failed || end > INT32_MAX)
            return cairn_error(err, CAIRN_CORRUPT, "reference summary is damaged");
        range->first_pack = (uint32_t)first;
        range->pack_count = (uint32_t)packs;
    }
    return true;
}

/* Starts the ranges of one more creator. */
static bool
add_creator(Refs *refs, const BackupId *creator, CairnError *err)
{
    RefsCreator *creators =
        realloc(refs->creators, (refs->creator_count + 1) * sizeof *refs->creators);
    if (creators == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    refs->creators = creators;
    refs->creators[refs->creator_count++] =
        (RefsCreator){.creator = *creator, .first = refs->count};
    return true;
}

/* Data packs, then map packs. */
static bool
parse_creator(ByteReader *reader, const BackupId *creator, Refs *refs, CairnError *err)
{
    if (!add_creator(refs, creator, err))
        return false;
    RefsCreator *entry = &refs->creators[refs->creator_count - 1];
    if (!parse_ranges(reader, creator, false, refs, err))
        return false;
    entry->data_count = refs->count - entry->first;
    if (!parse_ranges(reader, creator, true, refs, err))
        return false;
    entry->map_count = refs->count - entry->first - entry->data_count;
    return true;
}

bool
refs_parse(const void *content, size_t size, Refs *refs, CairnError *err)
{
    ByteReader reader = byte_reader(content, size);
    uint16_t layout = byte_reader_u16(&reader);
    byte_reader_u16(&reader);
    if (layout != REFS_LAYOUT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "reference summary has layout %u", layout);
    uint64_t creators = byte_reader_varint_max(&reader, REFS_CREATOR_LIMIT);
    for (uint64_t i = 0; i < creators; i++) {
        const uint8_t *bytes = byte_reader_bytes(&reader, BACKUP_ID_LENGTH);
        char text[BACKUP_ID_LENGTH + 1] = "";
        BackupId creator;
        if (bytes != NULL)
            memcpy(text, bytes, BACKUP_ID_LENGTH);
        if (!backup_id_parse(text, &creator))
            return cairn_error(err, CAIRN_CORRUPT,
                               "reference summary holds an impossible backup id");
        if (!parse_creator(&reader, &creator, refs, err))
            return false;
    }
    if (!byte_reader_done(&reader))
        return cairn_error(err, CAIRN_CORRUPT, "reference summary is damaged");
    return true;
}

Refs *
refs_read(Repository *repository, const Fate *fate, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/%s/b/%s/refs", fate->cluster, fate->bid.text);
    size_t size;
    uint8_t digest[SHA256_SIZE];
    SCOPED_MEMORY char *content =
        object_get_small(repository, name, OBJECT_REFS, &size, digest, err);
    if (content == NULL)
        return NULL;
    if (memcmp(digest, fate->refs_sha256, sizeof digest) != 0) {
        cairn_error(err, CAIRN_CORRUPT, "object '%s' is not the one that the backup's fate names",
                    name);
        return NULL;
    }
    SCOPED(Refs) refs = calloc(1, sizeof *refs);
    CAIRN_ASSERT(refs != NULL);
    if (!refs_parse(content, size, refs, err)) {
        cairn_error_wrap(err, "object '%s'", name);
        return NULL;
    }
    return take(&refs);
}

/* Ranges of one kind ascend and do not overlap: the last one that does not begin after the pack. */
static const RefsRange *
find_range(const RefsRange *ranges, size_t count, uint32_t pack)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ranges[middle].first_pack <= pack)
            low = middle + 1;
        else
            high = middle;
    }
    /* An empty range may hide the one before it that holds the pack. */
    while (low > 0 && ranges[low - 1].pack_count == 0)
        low--;
    if (low == 0 || pack - ranges[low - 1].first_pack >= ranges[low - 1].pack_count)
        return NULL;
    return &ranges[low - 1];
}

const RefsRange *
refs_find(const Refs *refs, const BackupId *creator, bool is_map, uint32_t pack)
{
    for (size_t i = 0; i < refs->creator_count; i++) {
        const RefsCreator *entry = &refs->creators[i];
        if (!backup_id_equal(&entry->creator, creator))
            continue;
        const RefsRange *ranges = &refs->ranges[entry->first];
        const RefsRange *found =
            is_map ? find_range(ranges + entry->data_count, entry->map_count, pack)
                   : find_range(ranges, entry->data_count, pack);
        if (found != NULL)
            return found; /* whoever wrote it may have named a creator twice */
    }
    return NULL;
}

bool
refs_mention(const Refs *refs, const BackupId *creator, bool is_map, uint32_t pack)
{
    return refs_find(refs, creator, is_map, pack) != NULL;
}

/* A pack that is referred to. */
typedef struct {
    uint32_t creator;
    uint32_t pack;
    bool is_map;
    bool used; /* of the hash's places */
    uint64_t units;
} PackUse;

struct RefsBuilder {
    const CreatorTable *creators;
    PackUse *uses; /* open addressing, at most half full */
    size_t size, count;
    PackUse *last; /* runs come pack by pack */
};

RefsBuilder *
refs_builder_new(const CreatorTable *creators, CairnError *err)
{
    SCOPED(RefsBuilder) builder = calloc(1, sizeof *builder);
    if (builder == NULL || (builder->uses = calloc(USES_MIN, sizeof *builder->uses)) == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    builder->size = USES_MIN;
    builder->creators = creators;
    return take(&builder);
}

void
refs_builder_free(RefsBuilder *builder)
{
    if (builder == NULL)
        return;
    free(builder->uses);
    free(builder);
}

static bool
is_use(const PackUse *use, uint32_t creator, uint32_t pack, bool is_map)
{
    return use->used && use->creator == creator && use->pack == pack && use->is_map == is_map;
}

static PackUse *
place_of(RefsBuilder *builder, uint32_t creator, uint32_t pack, bool is_map)
{
    uint64_t hash = ((uint64_t)creator << 33 | (uint64_t)pack << 1 | is_map) * 0x9e3779b97f4a7c15u;
    size_t place = (size_t)(hash >> 32) & (builder->size - 1);
    while (builder->uses[place].used && !is_use(&builder->uses[place], creator, pack, is_map))
        place = (place + 1) & (builder->size - 1);
    return &builder->uses[place];
}

static bool
grow(RefsBuilder *builder)
{
    PackUse *before = builder->uses;
    size_t size_before = builder->size;
    PackUse *uses = calloc(2 * size_before, sizeof *uses);
    if (uses == NULL)
        return false;
    builder->uses = uses;
    builder->size = 2 * size_before;
    builder->last = NULL;
    for (size_t i = 0; i < size_before; i++) {
        if (before[i].used)
            *place_of(builder, before[i].creator, before[i].pack, before[i].is_map) = before[i];
    }
    free(before);
    return true;
}

static bool
add_use(RefsBuilder *builder, uint32_t creator, uint32_t pack, bool is_map, uint64_t units,
        CairnError *err)
{
    if (builder->last != NULL && is_use(builder->last, creator, pack, is_map)) {
        builder->last->units += units;
        return true;
    }
    if (builder->count >= builder->size / 2 && !grow(builder))
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    PackUse *use = place_of(builder, creator, pack, is_map);
    if (!use->used) {
        *use = (PackUse){.creator = creator, .pack = pack, .is_map = is_map, .used = true};
        builder->count++;
    }
    use->units += units;
    builder->last = use;
    return true;
}

bool
refs_builder_units(RefsBuilder *builder, uint32_t creator, uint32_t pack, uint64_t units,
                   CairnError *err)
{
    return add_use(builder, creator, pack, false, units, err);
}

bool
refs_builder_node(RefsBuilder *builder, uint32_t creator, uint32_t pack, CairnError *err)
{
    return add_use(builder, creator, pack, true, 0, err);
}

static int
by_place(const void *a, const void *b)
{
    const PackUse *left = a, *right = b;
    if (left->used != right->used)
        return left->used ? -1 : 1;
    if (left->creator != right->creator)
        return left->creator < right->creator ? -1 : 1;
    if (left->is_map != right->is_map)
        return left->is_map ? 1 : -1;
    return (left->pack > right->pack) - (left->pack < right->pack);
}

/* Data packs stand one by one, with their live units; map packs in ranges. */
static void
append_ranges(ByteWriter *refs, const PackUse *uses, size_t count)
{
    SCOPED_BYTES ByteWriter ranges = {0};
    uint64_t range_count = 0, end = 0;
    for (size_t i = 0; i < count;) {
        size_t packs = 1;
        while (uses[i].is_map && i + packs < count &&
               uses[i + packs].pack == uses[i].pack + (uint32_t)packs)
            packs++;
        byte_writer_varint(&ranges, uses[i].pack - end);
        byte_writer_varint(&ranges, packs);
        byte_writer_varint(&ranges, uses[i].units);
        end = uses[i].pack + packs;
        range_count++;
        i += packs;
    }
    byte_writer_varint(refs, range_count);
    byte_writer_bytes(refs, ranges.data, ranges.size);
    refs->failed |= ranges.failed;
}

bool
refs_builder_finish(RefsBuilder *builder, ByteWriter *refs, CairnError *err)
{
    qsort(builder->uses, builder->size, sizeof *builder->uses, by_place);
    builder->last = NULL;
    uint64_t creators = 0;
    for (size_t i = 0; i < builder->count; i++)
        creators += i == 0 || builder->uses[i].creator != builder->uses[i - 1].creator;

    byte_writer_u16(refs, REFS_LAYOUT);
    byte_writer_u16(refs, 0);
    byte_writer_varint(refs, creators);
    for (size_t i = 0; i < builder->count;) {
        const PackUse *uses = &builder->uses[i];
        size_t data = 0, all = 0;
        while (i + all < builder->count && uses[all].creator == uses->creator)
            data += !uses[all++].is_map;
        byte_writer_bytes(refs, creator_table_get(builder->creators, uses->creator)->text,
                          BACKUP_ID_LENGTH);
        append_ranges(refs, uses, data);
        append_ranges(refs, uses + data, all - data);
        i += all;
    }
    return byte_writer_check(refs, err);
}
