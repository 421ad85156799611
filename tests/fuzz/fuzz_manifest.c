/*
 * Manifest reader and rewriter: any bytes, in pieces.
 *
 * First byte: bit 0 appends the right checksum line (no input would ever guess one), the rest is
 * the size of the pieces. Checked: names are clean, pieces change nothing, what the reader takes
 * the rewriter takes too, and what the rewriter made the reader takes again.
 */
#include "common/bytes.h"
#include "common/digest.h"
#include "common/error.h"
#include "postgres/manifest.h"
#include "postgres/tar.h"

#include <stdlib.h>
#include <string.h>

static bool
on_file(void *context, const ManifestFile *file, CairnError *err)
{
    (void)err;
    CAIRN_ASSERT(strlen(file->path) == file->path_size);
    CAIRN_ASSERT(path_is_clean(file->path, file->path_size));
    *(uint64_t *)context += file->path_size + file->size_bytes;
    return true;
}

static CairnErrorKind
read_manifest(const uint8_t *data, size_t size, size_t piece, uint64_t *sum)
{
    CairnError err = {0};
    SCOPED(ManifestReader) reader = manifest_reader_new(on_file, sum, &err);
    CAIRN_ASSERT(reader != NULL);
    while (size > 0) {
        const size_t step = size < piece ? size : piece;
        if (!manifest_reader_feed(reader, data, step, &err))
            return err.kind;
        data += step;
        size -= step;
    }
    if (!manifest_reader_finish(reader, &err))
        return err.kind;

    const ManifestWalRange *ranges;
    CAIRN_ASSERT(manifest_reader_wal_ranges(reader, &ranges) > 0);
    CAIRN_ASSERT((manifest_reader_version(reader) == 2) ==
                 (manifest_reader_system_id(reader) != 0));
    return CAIRN_OK;
}

static ManifestVerdict
change(void *context, const ManifestFile *file, ManifestFile *replacement_out)
{
    (void)context;
    replacement_out->size_bytes = file->size_bytes / 2;
    return (ManifestVerdict)(file->size_bytes % 3);
}

static bool
sink(void *context, const void *data, size_t size, CairnError *err)
{
    (void)err;
    byte_writer_bytes(context, data, size);
    return true;
}

static void
check_rewriting(const uint8_t *data, size_t size)
{
    static const ManifestFile added = {.path = "added \xff file", .path_size = 12};
    SCOPED_BYTES ByteWriter output = {0};
    CairnError err = {0};
    SCOPED(ManifestRewriter) rewriter = manifest_rewriter_new(change, sink, &output, &err);
    CAIRN_ASSERT(rewriter != NULL);
    CAIRN_ASSERT(manifest_rewriter_add(rewriter, &added, 1, &err));
    if (!manifest_rewriter_feed(rewriter, data, size, &err)) {
        CAIRN_ASSERT(err.kind == CAIRN_CONFLICT);
        return;
    }
    CAIRN_ASSERT(manifest_rewriter_finish(rewriter, &err));
    uint64_t sum = 0;
    CAIRN_ASSERT(read_manifest(output.data, output.size, SIZE_MAX, &sum) == CAIRN_OK);
}

static void
append_checksum(ByteWriter *manifest)
{
    uint8_t digest[SHA256_SIZE];
    char hex[2 * SHA256_SIZE + 1];
    CairnError err = {0};
    CAIRN_ASSERT(sha256_of(manifest->data, manifest->size, digest, &err));
    hex_encode(hex, digest, sizeof digest);
    byte_writer_bytes(manifest, "\"Manifest-Checksum\": \"", 22);
    byte_writer_bytes(manifest, hex, sizeof hex - 1);
    byte_writer_bytes(manifest, "\"}\n", 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    SCOPED_BYTES ByteWriter manifest = {0};
    byte_writer_bytes(&manifest, data + 1, size - 1);
    if (data[0] & 1)
        append_checksum(&manifest);

    uint64_t whole_sum = 0;
    uint64_t pieces_sum = 0;
    const size_t piece = data[0] / 2u + 1;
    const CairnErrorKind kind = read_manifest(manifest.data, manifest.size, SIZE_MAX, &whole_sum);
    CAIRN_ASSERT(read_manifest(manifest.data, manifest.size, piece, &pieces_sum) == kind);
    CAIRN_ASSERT(whole_sum == pieces_sum);
    if (kind == CAIRN_OK)
        check_rewriting(manifest.data, manifest.size);
    return 0;
}
