#include "common/bytes.h"
#include "common/digest.h"
#include "postgres/manifest_line.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ADDED_FILE_LIMIT = 1024 };

/*
 * The reader underneath checks the old manifest line by line, its checksum too; we write as it
 * shows them. Nothing changed means the same bytes: the checksum is always made from what was
 * written.
 */
struct ManifestRewriter {
    ManifestReader *reader;
    ManifestChange *change;
    ManifestSink *sink;
    void *context;
    Sha256 *sha;
    bool fed;
    size_t written_files;
    size_t added_count;
    ByteWriter added; /* ready objects, each followed by a NUL */
    char *added_paths[ADDED_FILE_LIMIT];
    ByteWriter text; /* the object being written */
};

static ManifestLineCallback rewrite_line;

ManifestRewriter *
manifest_rewriter_new(ManifestChange *change, ManifestSink *sink, void *context, CairnError *err)
{
    SCOPED(ManifestRewriter) rewriter = calloc(1, sizeof *rewriter);
    if (rewriter == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    rewriter->change = change;
    rewriter->sink = sink;
    rewriter->context = context;
    rewriter->reader = manifest_reader_new_for_lines(rewrite_line, rewriter, err);
    rewriter->sha = rewriter->reader == NULL ? NULL : sha256_new(err);
    if (rewriter->sha == NULL)
        return NULL;
    return take(&rewriter);
}

void
manifest_rewriter_free(ManifestRewriter *rewriter)
{
    if (rewriter == NULL)
        return;
    for (size_t i = 0; i < rewriter->added_count; i++)
        free(rewriter->added_paths[i]);
    byte_writer_free(&rewriter->added);
    byte_writer_free(&rewriter->text);
    sha256_free(rewriter->sha);
    manifest_reader_free(rewriter->reader);
    free(rewriter);
}

static void
append_text(ByteWriter *writer, const char *text)
{
    byte_writer_bytes(writer, text, strlen(text));
}

/* `"Path": "..."` escaped as PostgreSQL does it, `"Encoded-Path": "<hex>"` when it is no UTF-8. */
static void
append_path(ByteWriter *writer, const char *path, size_t size)
{
    if (!utf8_is_valid(path, size)) {
        append_text(writer, "\"Encoded-Path\": \"");
        for (size_t i = 0; i < size; i++) {
            char hex[3];
            hex_encode(hex, path + i, 1);
            append_text(writer, hex);
        }
    } else {
        append_text(writer, "\"Path\": \"");
        for (size_t i = 0; i < size; i++) {
            const unsigned char c = (unsigned char)path[i];
            char escape[8];
            if (c == '"' || c == '\\')
                byte_writer_u8(writer, '\\');
            if (c < ' ') {
                snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c);
                append_text(writer, escape);
            } else {
                byte_writer_u8(writer, c);
            }
        }
    }
    append_text(writer, "\"");
}

static void
append_size(ByteWriter *writer, uint64_t size_bytes)
{
    char text[40];
    snprintf(text, sizeof text, ", \"Size\": %" PRIu64 ", ", size_bytes);
    append_text(writer, text);
}

/* The end of a file's object; CRC-32C in the order of memory, as the server prints it. */
static void
append_checksum(ByteWriter *writer, const ManifestFile *file)
{
    if (file->has_crc32c) {
        uint8_t bytes[4];
        char hex[9];
        put_u32(bytes, file->crc32c);
        hex_encode(hex, bytes, sizeof bytes);
        append_text(writer, ", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"");
        append_text(writer, hex);
        append_text(writer, "\"");
    }
    append_text(writer, " }");
}

bool
manifest_rewriter_add(ManifestRewriter *rewriter, const ManifestFile *file, int64_t modified_s,
                      CairnError *err)
{
    CAIRN_ASSERT(!rewriter->fed);
    if (rewriter->added_count == ADDED_FILE_LIMIT)
        return cairn_error(err, CAIRN_INTERNAL, "more than %d new files", ADDED_FILE_LIMIT);
    if (!path_is_clean(file->path, file->path_size))
        return cairn_error(err, CAIRN_INTERNAL, "a new file's name is not a clean relative path");

    char modified[64];
    struct tm parts;
    const time_t seconds = (time_t)modified_s;
    if (gmtime_r(&seconds, &parts) == NULL ||
        strftime(modified, sizeof modified, "\"Last-Modified\": \"%Y-%m-%d %H:%M:%S GMT\"",
                 &parts) == 0) {
        return cairn_error(err, CAIRN_INTERNAL, "a new file's time is out of range");
    }

    char *path = strndup(file->path, file->path_size);
    if (path == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    rewriter->added_paths[rewriter->added_count++] = path;

    append_text(&rewriter->added, "{ ");
    append_path(&rewriter->added, file->path, file->path_size);
    append_size(&rewriter->added, file->size_bytes);
    append_text(&rewriter->added, modified);
    append_checksum(&rewriter->added, file);
    byte_writer_u8(&rewriter->added, '\0');
    return byte_writer_check(&rewriter->added, err);
}

static bool
emit(ManifestRewriter *rewriter, const void *data, size_t size, CairnError *err)
{
    return sha256_update(rewriter->sha, data, size, err) &&
           rewriter->sink(rewriter->context, data, size, err);
}

static bool
emit_object(ManifestRewriter *rewriter, const void *data, size_t size, CairnError *err)
{
    const char *separator = rewriter->written_files++ == 0 ? "\n" : ",\n";
    return emit(rewriter, separator, strlen(separator), err) && emit(rewriter, data, size, err);
}

static bool
emit_replaced(ManifestRewriter *rewriter, const ManifestLine *line, const ManifestFile *replacement,
              CairnError *err)
{
    ByteWriter *text = &rewriter->text;
    byte_writer_reset(text);
    append_text(text, "{ ");
    byte_writer_bytes(text, line->path.data, line->path.size);
    append_size(text, replacement->size_bytes);
    byte_writer_bytes(text, line->modified.data, line->modified.size);
    append_checksum(text, replacement);
    return byte_writer_check(text, err) && emit_object(rewriter, text->data, text->size, err);
}

static bool
check_not_added(const ManifestRewriter *rewriter, const ManifestFile *file, CairnError *err)
{
    for (size_t i = 0; i < rewriter->added_count; i++) {
        if (strcmp(rewriter->added_paths[i], file->path) == 0) {
            return cairn_error(err, CAIRN_CONFLICT, "the manifest has the new file '%s' already",
                               file->path);
        }
    }
    return true;
}

static bool
rewrite_file(ManifestRewriter *rewriter, const ManifestLine *line, CairnError *err)
{
    ManifestFile replacement = line->file;
    const ManifestVerdict verdict = rewriter->change(rewriter->context, &line->file, &replacement);
    if (verdict == MANIFEST_DROP)
        return true;
    if (!check_not_added(rewriter, &line->file, err))
        return false;
    if (verdict == MANIFEST_REPLACE)
        return emit_replaced(rewriter, line, &replacement, err);
    return emit_object(rewriter, line->object.data, line->object.size, err);
}

static bool
end_files(ManifestRewriter *rewriter, const char *text, size_t size, CairnError *err)
{
    const char *object = (const char *)rewriter->added.data;
    for (size_t i = 0; i < rewriter->added_count; i++) {
        const size_t object_size = strlen(object);
        if (!emit_object(rewriter, object, object_size, err))
            return false;
        object += object_size + 1;
    }
    return emit(rewriter, "\n", 1, err) && emit(rewriter, text, size, err) &&
           emit(rewriter, "\n", 1, err);
}

static bool
write_checksum(ManifestRewriter *rewriter, CairnError *err)
{
    uint8_t digest[SHA256_SIZE];
    if (!sha256_finish(rewriter->sha, digest, err))
        return false;

    char hex[2 * SHA256_SIZE + 1];
    char text[128];
    hex_encode(hex, digest, sizeof digest);
    const int size = snprintf(text, sizeof text, "\"Manifest-Checksum\": \"%s\"}\n", hex);
    return rewriter->sink(rewriter->context, text, (size_t)size, err);
}

static bool
rewrite_line(void *context, const ManifestLine *line, const char *text, size_t size,
             CairnError *err)
{
    ManifestRewriter *rewriter = context;
    switch (line->kind) {
    case MANIFEST_LINE_FILES:
        /* Its newline belongs to the first file: there may be none left. */
        return emit(rewriter, text, size, err);
    case MANIFEST_LINE_FILE:
        return rewrite_file(rewriter, line, err);
    case MANIFEST_LINE_FILES_END:
        return end_files(rewriter, text, size, err);
    case MANIFEST_LINE_CHECKSUM:
        return write_checksum(rewriter, err);
    default:
        return emit(rewriter, text, size, err) && emit(rewriter, "\n", 1, err);
    }
}

bool
manifest_rewriter_feed(ManifestRewriter *rewriter, const void *data, size_t size, CairnError *err)
{
    rewriter->fed = true;
    return manifest_reader_feed(rewriter->reader, data, size, err);
}

bool
manifest_rewriter_finish(ManifestRewriter *rewriter, CairnError *err)
{
    return manifest_reader_finish(rewriter->reader, err);
}
