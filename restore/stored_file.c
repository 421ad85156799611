#include "restore/stored_file.h"

#include "common/digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t ZEROS[UNIT_SIZE];

bool
stored_file_find(MapReader *map, MapClass class, const char *path, MapEntry *entry_out,
                 bool *found_out, CairnError *err)
{
    bool found;
    if (!map_reader_seek(map, class, path, err) || !map_reader_next(map, entry_out, &found, err))
        return false;
    *found_out = found && entry_out->class == class && entry_out->type == MAP_FILE &&
                 strcmp(entry_out->path, path) == 0;
    return true;
}

typedef struct {
    uint64_t left;
    uint32_t crc;
    StoredFileSink *sink;
    void *context;
} Stream;

static bool
send_units(Stream *stream, const uint8_t *data, uint64_t units, CairnError *err)
{
    const uint64_t bytes = units * UNIT_SIZE;
    const size_t size = (size_t)(bytes < stream->left ? bytes : stream->left);
    stream->crc = crc32c(stream->crc, data, size);
    stream->left -= size;
    return stream->sink(stream->context, data, size, err);
}

static bool
send_run(MapReader *map, FrameReader *frames, const MapRun *run, Stream *stream, CairnError *err)
{
    for (uint64_t done = 0; done < run->units && stream->left > 0;) {
        const uint8_t *data = ZEROS;
        uint32_t units = 1;
        if (!run->is_zero && !frame_reader_units(frames, map_reader_creator(map, run->creator),
                                                 run->pack, run->slot + (uint32_t)done,
                                                 run->units - done, &data, &units, err)) {
            return false;
        }
        if (!send_units(stream, data, units, err))
            return false;
        done += units;
    }
    return true;
}

bool
stored_file_stream(MapReader *map, FrameReader *frames, const MapEntry *entry, StoredFileSink *sink,
                   void *context, CairnError *err)
{
    Stream stream = {.left = entry->size_bytes, .sink = sink, .context = context};
    char path[MAP_KEY_LIMIT + 1];
    const bool has_crc = entry->has_crc32c;
    const uint32_t crc = entry->crc32c;

    snprintf(path, sizeof path, "%s", entry->path);
    for (;;) {
        const MapRun *runs;
        size_t count;
        uint64_t first_unit;
        if (!map_reader_region(map, &runs, &count, &first_unit, err))
            return cairn_error_wrap(err, "stored file '%s'", path);
        if (count == 0)
            break;
        for (size_t i = 0; i < count; i++) {
            if (!send_run(map, frames, &runs[i], &stream, err))
                return cairn_error_wrap(err, "stored file '%s'", path);
        }
    }
    if (stream.left > 0 || (has_crc && stream.crc != crc)) {
        return cairn_error(err, CAIRN_CORRUPT, "stored file '%s' is damaged: %s", path,
                           stream.left > 0 ? "it ends too early" : "its checksum is wrong");
    }
    return true;
}

static bool
append_bytes(void *context, const void *data, size_t size, CairnError *err)
{
    ByteWriter *text = context;
    byte_writer_bytes(text, data, size);
    return byte_writer_check(text, err);
}

bool
stored_file_read(MapReader *map, FrameReader *frames, MapClass class, const char *path,
                 size_t limit, char **text_out, size_t *size_out, CairnError *err)
{
    MapEntry entry;
    bool found;
    if (!stored_file_find(map, class, path, &entry, &found, err))
        return false;
    if (!found) {
        *text_out = NULL;
        *size_out = 0;
        return true;
    }
    if (entry.size_bytes > limit) {
        return cairn_error(err, CAIRN_UNSUPPORTED, "stored file '%s' has %llu bytes, more than %zu",
                           path, (unsigned long long)entry.size_bytes, limit);
    }
    SCOPED_BYTES ByteWriter text = {0};
    if (!stored_file_stream(map, frames, &entry, append_bytes, &text, err))
        return false;
    *size_out = text.size;
    byte_writer_u8(&text, 0);
    if (!byte_writer_check(&text, err))
        return false;
    *text_out = (char *)text.data;
    text.data = NULL;
    return true;
}
