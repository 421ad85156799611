/*
 * The tar parser: any bytes, in pieces. Checks what it promises its callbacks: members come one
 * after the other, names are clean, data is exactly as long as announced; and that pieces change
 * nothing.
 *
 * First byte: bit 0 repairs the checksums of what stands where headers are expected, without which
 * hardly any input would get past the first block; the rest is the size of the pieces.
 */
#include "common/error.h"
#include "postgres/tar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    bool open;
    uint64_t left;
    uint64_t members;
    uint64_t bytes;
} Seen;

static bool
on_begin(void *context, const TarMember *member, CairnError *err)
{
    Seen *seen = context;
    (void)err;
    CAIRN_ASSERT(!seen->open);
    CAIRN_ASSERT(path_is_clean(member->path, strlen(member->path)));
    CAIRN_ASSERT(member->mode <= 07777);
    CAIRN_ASSERT(member->type == TAR_FILE || member->size_bytes == 0);
    CAIRN_ASSERT((member->type == TAR_SYMLINK) == (member->target != NULL));
    seen->open = true;
    seen->left = member->size_bytes;
    seen->members++;
    return true;
}

static bool
on_data(void *context, const uint8_t *data, size_t size, CairnError *err)
{
    Seen *seen = context;
    (void)err;
    CAIRN_ASSERT(seen->open && size > 0 && size <= seen->left);
    seen->left -= size;
    for (size_t i = 0; i < size; i++)
        seen->bytes += data[i]; /* touches every byte for the sanitizer */
    return true;
}

static bool
on_end(void *context, CairnError *err)
{
    Seen *seen = context;
    (void)err;
    CAIRN_ASSERT(seen->open && seen->left == 0);
    seen->open = false;
    return true;
}

static CairnErrorKind
parse(const uint8_t *data, size_t size, size_t piece, Seen *seen)
{
    static const TarCallbacks callbacks = {on_begin, on_data, on_end};
    CairnError err = {0};
    SCOPED(TarParser) parser = tar_parser_new(&callbacks, seen, &err);
    CAIRN_ASSERT(parser != NULL);
    while (size > 0) {
        const size_t step = size < piece ? size : piece;
        if (!tar_parser_feed(parser, data, step, &err))
            return err.kind;
        data += step;
        size -= step;
    }
    return tar_parser_finish(parser, &err) ? CAIRN_OK : err.kind;
}

static void
repair_checksums(uint8_t *data, size_t size)
{
    for (size_t at = 0; at + TAR_BLOCK_SIZE <= size; at += TAR_BLOCK_SIZE) {
        uint8_t *header = data + at;
        if (memcmp(header + 257, "ustar", 6) != 0)
            continue;
        unsigned sum = 0;
        char text[16];
        memset(header + 148, ' ', 8);
        for (size_t i = 0; i < TAR_BLOCK_SIZE; i++)
            sum += header[i];
        snprintf(text, sizeof text, "%07o ", sum);
        memcpy(header + 148, text, 8);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    const size_t piece = data[0] / 2u + 1;
    const size_t archive_size = size - 1;
    uint8_t *archive = malloc(archive_size + 1);
    CAIRN_ASSERT(archive != NULL);
    memcpy(archive, data + 1, archive_size);
    if (data[0] & 1)
        repair_checksums(archive, archive_size);

    Seen whole = {0};
    Seen pieces = {0};
    const CairnErrorKind whole_kind = parse(archive, archive_size, SIZE_MAX, &whole);
    const CairnErrorKind pieces_kind = parse(archive, archive_size, piece, &pieces);
    CAIRN_ASSERT(whole_kind == pieces_kind);
    CAIRN_ASSERT(whole.members == pieces.members);
    /* Data before a failure may have been shown in part; whole archives must agree. */
    CAIRN_ASSERT(whole_kind != CAIRN_OK || whole.bytes == pieces.bytes);
    free(archive);
    return 0;
}
