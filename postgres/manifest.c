#include "postgres/manifest.h"

#include "common/digest.h"
#include "postgres/manifest_line.h"

#include <stdlib.h>
#include <string.h>

struct ManifestReader {
    ManifestFileCallback *file_callback; /* one of the two */
    ManifestLineCallback *line_callback;
    void *context;
    Sha256 *sha;
    ManifestLineKind expected; /* of the next line; list ends are accepted where entries are */
    bool entry_required;       /* a comma announced one */
    bool entry_refused;        /* the last entry had no comma: the list must end */
    bool complete;             /* the checksum line came and was right */
    bool finished;
    uint64_t line_number;
    int version;
    uint64_t system_id;
    size_t range_count;
    ManifestWalRange ranges[MANIFEST_WAL_RANGE_LIMIT];
    uint8_t digest[SHA256_SIZE];
    ManifestLine line;
    char buffer[MANIFEST_LINE_LIMIT]; /* a line that came in pieces */
    size_t buffer_used;
    CairnError failure; /* kind not OK: what every further call answers */
};

static ManifestReader *
new_reader(CairnError *err)
{
    SCOPED(ManifestReader) reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->expected = MANIFEST_LINE_VERSION;
    reader->sha = sha256_new(err);
    if (reader->sha == NULL)
        return NULL;
    return take(&reader);
}

ManifestReader *
manifest_reader_new(ManifestFileCallback *callback, void *context, CairnError *err)
{
    ManifestReader *reader = new_reader(err);
    if (reader != NULL) {
        reader->file_callback = callback;
        reader->context = context;
    }
    return reader;
}

ManifestReader *
manifest_reader_new_for_lines(ManifestLineCallback *callback, void *context, CairnError *err)
{
    ManifestReader *reader = new_reader(err);
    if (reader != NULL) {
        reader->line_callback = callback;
        reader->context = context;
    }
    return reader;
}

void
manifest_reader_free(ManifestReader *reader)
{
    if (reader == NULL)
        return;
    sha256_free(reader->sha);
    free(reader);
}

static bool
corrupt(CairnError *err, const char *why)
{
    return cairn_error(err, CAIRN_CORRUPT, "%s", why);
}

static bool
accept_version(ManifestReader *reader, CairnError *err)
{
    const uint64_t version = reader->line.number;
    if (version != 1 && version != 2) {
        return cairn_error(err, CAIRN_UNSUPPORTED, "manifest version %llu is not known",
                           (unsigned long long)version);
    }
    reader->version = (int)version;
    reader->expected = version == 1 ? MANIFEST_LINE_FILES : MANIFEST_LINE_SYSTEM_ID;
    return true;
}

static bool
accept_system_id(ManifestReader *reader, CairnError *err)
{
    if (reader->line.number == 0)
        return corrupt(err, "system identifier is zero");
    reader->system_id = reader->line.number;
    reader->expected = MANIFEST_LINE_FILES;
    return true;
}

/* Commas: behind every entry but the last, as JSON wants it. */
static bool
accept_entry(ManifestReader *reader, CairnError *err)
{
    if (reader->entry_refused)
        return corrupt(err, "a comma is missing");
    reader->entry_required = reader->line.more;
    reader->entry_refused = !reader->line.more;
    return true;
}

static bool
accept_list_end(ManifestReader *reader, ManifestLineKind next, CairnError *err)
{
    if (reader->entry_required)
        return corrupt(err, "a list ends after a comma");
    reader->entry_refused = false;
    reader->expected = next;
    return true;
}

/* Newest first, each where the next older one ends: one unbroken path. */
static bool
accept_range(ManifestReader *reader, CairnError *err)
{
    const ManifestWalRange *range = &reader->line.range;
    if (reader->range_count == MANIFEST_WAL_RANGE_LIMIT)
        return corrupt(err, "too many WAL ranges");
    if (reader->range_count > 0) {
        const ManifestWalRange *newer = &reader->ranges[reader->range_count - 1];
        if (range->timeline >= newer->timeline || range->end_lsn != newer->start_lsn)
            return corrupt(err, "WAL ranges do not join");
    }
    reader->ranges[reader->range_count++] = *range;
    return accept_entry(reader, err);
}

static bool
accept_ranges_end(ManifestReader *reader, CairnError *err)
{
    if (reader->range_count == 0)
        return corrupt(err, "there is no WAL range");
    return accept_list_end(reader, MANIFEST_LINE_CHECKSUM, err);
}

static bool
accept_checksum(ManifestReader *reader, CairnError *err)
{
    if (!sha256_finish(reader->sha, reader->digest, err))
        return false;
    if (memcmp(reader->digest, reader->line.checksum, sizeof reader->digest) != 0)
        return corrupt(err, "the manifest's own checksum is wrong");
    reader->complete = true;
    return true;
}

static bool
accept_line(ManifestReader *reader, CairnError *err)
{
    switch (reader->line.kind) {
    case MANIFEST_LINE_VERSION:
        return accept_version(reader, err);
    case MANIFEST_LINE_SYSTEM_ID:
        return accept_system_id(reader, err);
    case MANIFEST_LINE_FILES:
        reader->expected = MANIFEST_LINE_FILE;
        return true;
    case MANIFEST_LINE_FILE:
        return accept_entry(reader, err);
    case MANIFEST_LINE_FILES_END:
        return accept_list_end(reader, MANIFEST_LINE_RANGES, err);
    case MANIFEST_LINE_RANGES:
        reader->expected = MANIFEST_LINE_RANGE;
        return true;
    case MANIFEST_LINE_RANGE:
        return accept_range(reader, err);
    case MANIFEST_LINE_RANGES_END:
        return accept_ranges_end(reader, err);
    case MANIFEST_LINE_CHECKSUM:
        return accept_checksum(reader, err);
    }
    CAIRN_ASSERT(false);
}

/* The callbacks' own failures pass unchanged: they are not about the manifest's text. */
static bool
hand_on(ManifestReader *reader, const char *text, size_t size, CairnError *err)
{
    if (reader->line_callback != NULL)
        return reader->line_callback(reader->context, &reader->line, text, size, err);
    if (reader->line.kind == MANIFEST_LINE_FILE)
        return reader->file_callback(reader->context, &reader->line.file, err);
    return true;
}

/* text: one line without its newline. */
static bool
take_line(ManifestReader *reader, const char *text, size_t size, CairnError *err)
{
    reader->line_number++;
    if (reader->complete)
        return corrupt(err, "backup_manifest goes on after its checksum");

    /* The checksum covers every line before its own, newlines included. */
    const bool covered = reader->expected != MANIFEST_LINE_CHECKSUM;
    if (covered && (!sha256_update(reader->sha, text, size, err) ||
                    !sha256_update(reader->sha, "\n", 1, err))) {
        return false;
    }
    if (!manifest_line_parse(reader->expected, text, size, &reader->line, err) ||
        !accept_line(reader, err)) {
        return cairn_error_wrap(err, "backup_manifest line %llu",
                                (unsigned long long)reader->line_number);
    }
    return hand_on(reader, text, size, err);
}

static bool
keep_piece(ManifestReader *reader, const char *text, size_t size, CairnError *err)
{
    if (size > sizeof reader->buffer - reader->buffer_used) {
        return cairn_error(err, CAIRN_CORRUPT, "backup_manifest line %llu: longer than %d bytes",
                           (unsigned long long)reader->line_number + 1, MANIFEST_LINE_LIMIT);
    }
    memcpy(reader->buffer + reader->buffer_used, text, size);
    reader->buffer_used += size;
    return true;
}

/* Up to and with the first newline, or all of it; *used_out says how much. */
static bool
feed_some(ManifestReader *reader, const char *text, size_t size, size_t *used_out, CairnError *err)
{
    const char *newline = memchr(text, '\n', size);
    const size_t piece = newline == NULL ? size : (size_t)(newline - text);
    *used_out = newline == NULL ? size : piece + 1;

    if (newline == NULL)
        return keep_piece(reader, text, piece, err);
    if (reader->buffer_used == 0 && piece <= MANIFEST_LINE_LIMIT)
        return take_line(reader, text, piece, err);
    if (!keep_piece(reader, text, piece, err))
        return false;

    const size_t line_size = reader->buffer_used;
    reader->buffer_used = 0;
    return take_line(reader, reader->buffer, line_size, err);
}

static bool
fail(ManifestReader *reader, const CairnError *err)
{
    reader->failure = *err;
    return false;
}

bool
manifest_reader_feed(ManifestReader *reader, const void *data, size_t size, CairnError *err)
{
    CAIRN_ASSERT(!reader->finished);
    if (reader->failure.kind != CAIRN_OK) {
        *err = reader->failure;
        return false;
    }
    const char *text = data;
    while (size > 0) {
        size_t used;
        if (!feed_some(reader, text, size, &used, err))
            return fail(reader, err);
        text += used;
        size -= used;
    }
    return true;
}

bool
manifest_reader_finish(ManifestReader *reader, CairnError *err)
{
    if (reader->failure.kind != CAIRN_OK) {
        *err = reader->failure;
        return false;
    }
    if (!reader->complete || reader->buffer_used > 0) {
        corrupt(err, reader->complete ? "backup_manifest goes on after its checksum"
                                      : "backup_manifest is incomplete");
        return fail(reader, err);
    }
    reader->finished = true;
    return true;
}

int
manifest_reader_version(const ManifestReader *reader)
{
    CAIRN_ASSERT(reader->finished);
    return reader->version;
}

uint64_t
manifest_reader_system_id(const ManifestReader *reader)
{
    CAIRN_ASSERT(reader->finished);
    return reader->system_id;
}

size_t
manifest_reader_wal_ranges(const ManifestReader *reader, const ManifestWalRange **ranges_out)
{
    CAIRN_ASSERT(reader->finished);
    *ranges_out = reader->ranges;
    return reader->range_count;
}

void
manifest_reader_digest(const ManifestReader *reader, uint8_t sha256_out[32])
{
    CAIRN_ASSERT(reader->finished);
    memcpy(sha256_out, reader->digest, sizeof reader->digest);
}
