/*
 * The server's backup_manifest (facts 4.1), read as a stream and rewritten at restore.
 *
 * Reading: manifest_reader_feed takes the bytes in any pieces and calls back for each file in
 * order; finish checks the manifest's own SHA-256, version (1 or 2), system identifier (version 2)
 * and that exactly one WAL range chain was given. A hostile manifest is refused (CORRUPT;
 * UNSUPPORTED for another version), memory is constant (one line of at most MANIFEST_LINE_LIMIT
 * bytes). Files are shown before the checksum is known to be right: only finish makes them true.
 * That no path comes twice is for the caller to check. Failure is sticky; a callback's own error is
 * passed on unchanged. The server writes one file object a line; this reader relies on that, and on
 * no other formatting.
 */
#ifndef PGCAIRN_POSTGRES_MANIFEST_H
#define PGCAIRN_POSTGRES_MANIFEST_H

#include "common/error.h"
#include "common/scoped.h"

#include <stddef.h>
#include <stdint.h>

enum { MANIFEST_LINE_LIMIT = 16384, MANIFEST_WAL_RANGE_LIMIT = 64 };

typedef struct {
    const char *path; /* raw bytes (decoded), NUL-terminated, borrowed for the call */
    size_t path_size;
    uint64_t size_bytes;
    bool has_crc32c;
    uint32_t crc32c;
} ManifestFile;

typedef struct {
    uint32_t timeline;
    uint64_t start_lsn;
    uint64_t end_lsn;
} ManifestWalRange;

typedef bool ManifestFileCallback(void *context, const ManifestFile *file, CairnError *err);

typedef struct ManifestReader ManifestReader;
ManifestReader *manifest_reader_new(ManifestFileCallback *callback, void *context,
                                    CairnError *err) MUST_CHECK;
void manifest_reader_free(ManifestReader *reader);
bool manifest_reader_feed(ManifestReader *reader, const void *data, size_t size,
                          CairnError *err) MUST_CHECK;
bool manifest_reader_finish(ManifestReader *reader, CairnError *err) MUST_CHECK;
/* After finish. WAL ranges: newest timeline first, as in the manifest; borrowed from the reader.
   Digest: the manifest's own checksum. */
int manifest_reader_version(const ManifestReader *reader);
uint64_t manifest_reader_system_id(const ManifestReader *reader); /* 0 in version 1 */
size_t manifest_reader_wal_ranges(const ManifestReader *reader,
                                  const ManifestWalRange **ranges_out);
void manifest_reader_digest(const ManifestReader *reader, uint8_t sha256_out[32]);
SCOPED_TYPE(ManifestReader, manifest_reader_free);

/*
 * Rewriting, as a stream: bytes in, changed bytes out through `write`. Every file line is offered
 * to `change`, which answers KEEP, DROP, or REPLACE (new size and CRC filled in); entries for new
 * files are given to manifest_rewriter_add before the first feed. The checksum line is made anew;
 * without changes the output is the input, byte for byte. What went out is a manifest only once
 * finish succeeded: the input is checked as by the reader. In postgres/manifest_rewriter.c.
 */
typedef enum { MANIFEST_KEEP, MANIFEST_DROP, MANIFEST_REPLACE } ManifestVerdict;
typedef ManifestVerdict ManifestChange(void *context, const ManifestFile *file,
                                       ManifestFile *replacement_out);
typedef bool ManifestSink(void *context, const void *data, size_t size, CairnError *err);

typedef struct ManifestRewriter ManifestRewriter;
ManifestRewriter *manifest_rewriter_new(ManifestChange *change, ManifestSink *sink, void *context,
                                        CairnError *err) MUST_CHECK;
void manifest_rewriter_free(ManifestRewriter *rewriter);
/* Before the first feed: a file that the server did not list (CONFLICT from feed when it did, and
   `change` did not drop it). modified_s: its mtime, unix seconds. */
bool manifest_rewriter_add(ManifestRewriter *rewriter, const ManifestFile *file, int64_t modified_s,
                           CairnError *err) MUST_CHECK;
bool manifest_rewriter_feed(ManifestRewriter *rewriter, const void *data, size_t size,
                            CairnError *err) MUST_CHECK;
bool manifest_rewriter_finish(ManifestRewriter *rewriter, CairnError *err) MUST_CHECK;
SCOPED_TYPE(ManifestRewriter, manifest_rewriter_free);

#endif
