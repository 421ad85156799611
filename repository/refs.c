#include "repository/refs.h"

#include "repository/object.h"

#include <stdio.h>
#include <string.h>

enum { REFS_LAYOUT = 1, REFS_CREATOR_LIMIT = 65536, REFS_RANGE_LIMIT = 1 << 20 };

void
refs_free(Refs *refs)
{
    if (refs == NULL)
        return;
    free(refs->ranges);
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

static bool
parse(const char *content, size_t size, Refs *refs, CairnError *err)
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
        if (!parse_ranges(&reader, &creator, false, refs, err) ||
            !parse_ranges(&reader, &creator, true, refs, err))
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
    if (!parse(content, size, refs, err)) {
        cairn_error_wrap(err, "object '%s'", name);
        return NULL;
    }
    return take(&refs);
}

bool
refs_mention(const Refs *refs, const BackupId *creator, bool is_map, uint32_t pack)
{
    for (size_t i = 0; i < refs->count; i++) {
        const RefsRange *range = &refs->ranges[i];
        if (range->is_map == is_map && backup_id_equal(&range->creator, creator) &&
            pack >= range->first_pack && pack - range->first_pack < range->pack_count)
            return true;
    }
    return false;
}
